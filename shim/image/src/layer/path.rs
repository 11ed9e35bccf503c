//! Paths of layer entries: split into names, and refused where they could climb out.

use super::LayerFault;

/// Longest path or symbolic link target, as Linux's PATH_MAX without the closing NUL.
pub(super) const MAX_PATH_BYTES: usize = 4095;
/// Longest name, as Linux's NAME_MAX.
const MAX_NAME_BYTES: usize = 255;

/// The names on the way from the image's root to an entry. A leading `/` and `./` mean the root,
/// as tar programs read them; the root itself is no names at all.
pub(super) fn split(path: &[u8]) -> Result<Vec<&[u8]>, LayerFault> {
    if path.len() > MAX_PATH_BYTES {
        return Err(LayerFault::Invalid(format!(
            "a path of {} bytes, over the limit of {MAX_PATH_BYTES}",
            path.len()
        )));
    }
    let mut names = Vec::new();
    for name in path.split(|byte| *byte == b'/') {
        match name {
            b"" | b"." => {}
            b".." => return Err(climbs(path, "it has a `..`")),
            name if name.len() > MAX_NAME_BYTES => {
                return Err(LayerFault::Invalid(format!(
                    "a name of {} bytes, over the limit of {MAX_NAME_BYTES}",
                    name.len()
                )));
            }
            name if name.contains(&0) => {
                return Err(climbs(path, "it has a NUL byte"));
            }
            name => names.push(name),
        }
    }
    Ok(names)
}

pub(super) fn climbs(path: &[u8], reason: &'static str) -> LayerFault {
    LayerFault::Unsafe {
        path: path.to_owned(),
        reason,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_plain_rooted_and_dotted_paths_alike() {
        let expected: Vec<&[u8]> = vec![b"etc", b"passwd"];
        for path in [
            "etc/passwd",
            "./etc/passwd",
            "/etc//passwd",
            "etc/./passwd/",
        ] {
            assert_eq!(split(path.as_bytes()).unwrap(), expected, "{path}");
        }
        for root in ["", ".", "./", "/"] {
            assert!(split(root.as_bytes()).unwrap().is_empty(), "{root}");
        }
    }

    #[test]
    fn refuses_paths_that_climb() {
        for path in ["../x", "a/../../x", "a/..", "/..", "a\0b"] {
            let fault = split(path.as_bytes()).unwrap_err();
            assert!(matches!(fault, LayerFault::Unsafe { .. }), "{path}");
        }
        assert!(split(b"...").is_ok());
        assert!(split(b"..a/b..").is_ok());
    }

    #[test]
    fn refuses_what_linux_could_not_open() {
        assert!(matches!(split(&[b'a'; 256]), Err(LayerFault::Invalid(_))));
        assert!(matches!(
            split(&b"a/".repeat(2048)),
            Err(LayerFault::Invalid(_))
        ));
    }
}
