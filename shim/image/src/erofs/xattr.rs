//! Extended attributes right after their inode.

use super::format::XATTR_HEADER_BYTES;

/// Entries are padded to this.
const ALIGNMENT: usize = 4;
/// Prefixes that are written as a number. The order matters: a full name before its beginning.
const PREFIXES: [(&[u8], u8); 5] = [
    (b"system.posix_acl_access", 2),
    (b"system.posix_acl_default", 3),
    (b"user.", 1),
    (b"trusted.", 4),
    (b"security.", 6),
];

/// The extended attribute area: empty without attributes. Names with none of the known prefixes
/// are left out; the merge has dropped them before.
pub(super) fn area(xattrs: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    if xattrs.is_empty() {
        return Vec::new();
    }
    // No shared attributes, and no name filter: both are zero.
    let mut area = vec![0; XATTR_HEADER_BYTES as usize];
    for (name, value) in xattrs {
        let split = PREFIXES
            .iter()
            .find_map(|(prefix, index)| Some((name.strip_prefix(*prefix)?, *index)));
        let Some((suffix, index)) = split else {
            continue;
        };
        let (Ok(suffix_bytes), Ok(value_bytes)) =
            (u8::try_from(suffix.len()), u16::try_from(value.len()))
        else {
            continue;
        };
        area.push(suffix_bytes);
        area.push(index);
        area.extend_from_slice(&value_bytes.to_le_bytes());
        area.extend_from_slice(suffix);
        area.extend_from_slice(value);
        area.resize(area.len().next_multiple_of(ALIGNMENT), 0);
    }
    area
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_prefix_numbers_and_padding() {
        assert!(area(&[]).is_empty());
        let area = area(&[
            (b"security.capability".to_vec(), vec![1, 2, 3]),
            (b"system.posix_acl_access".to_vec(), vec![9]),
        ]);
        let mut expected = vec![0; 12];
        expected.extend_from_slice(&[10, 6, 3, 0]);
        expected.extend_from_slice(b"capability\x01\x02\x03\0\0\0");
        expected.extend_from_slice(&[0, 2, 1, 0, 9, 0, 0, 0]);
        // 4 + 10 + 3 is 17, padded to 20.
        expected.truncate(12 + 20 + 8);
        assert_eq!(area.len(), 12 + 20 + 8);
        assert_eq!(&area[..29], &expected[..29]);
        assert_eq!(&area[32..], &[0, 2, 1, 0, 9, 0, 0, 0]);
    }
}
