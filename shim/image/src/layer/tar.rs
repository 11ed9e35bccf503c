//! The tar reader: one entry after the other, with PAX and GNU extensions applied.
//!
//! The tar crate parses the 512-byte headers. Walking from header to header is done here, since
//! what lies between (long names, PAX records) comes from a stranger and has to be bounded before
//! it is read into memory, and since a file's data is wanted as an offset, not as a stream.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;

use tar::{EntryType, Header};

use super::LayerFault;
use super::tree::Metadata;

const BLOCK_BYTES: u64 = 512;
/// One GNU long name or one PAX header, in bytes: paths up to 4 KiB and extended attributes up
/// to 64 KiB fit many times over.
const MAX_EXTENSION_BYTES: u64 = 1 << 20;
/// PAX record names of extended attributes begin so.
const PAX_XATTR: &[u8] = b"SCHILY.xattr.";
/// Read-ahead: headers of small files share one read.
const BUFFER_BYTES: usize = 64 << 10;

/// One entry of a layer.
#[derive(Debug)]
pub(super) struct Entry {
    pub path: Vec<u8>,
    pub kind: EntryKind,
    pub metadata: Metadata,
    /// Where a regular file's data is in the spool.
    pub data_offset: u64,
    pub data_bytes: u64,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum EntryKind {
    File,
    Directory,
    Symlink(Vec<u8>),
    HardLink(Vec<u8>),
    Character { major: u32, minor: u32 },
    Block { major: u32, minor: u32 },
    Fifo,
}

/// What the extension headers before an entry say about it.
#[derive(Default)]
struct Extensions {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<(i64, u32)>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// The entries of the archive in a spool file.
pub(super) struct Entries<'a> {
    file: &'a File,
    reader: BufReader<&'a File>,
    /// Where the next header is.
    position: u64,
    end: u64,
}

impl<'a> Entries<'a> {
    pub fn new(file: &'a File) -> Result<Self, LayerFault> {
        let end = file.metadata()?.len();
        let mut reader = BufReader::with_capacity(BUFFER_BYTES, file);
        reader.seek(SeekFrom::Start(0))?;
        Ok(Self {
            file,
            reader,
            position: 0,
            end,
        })
    }

    /// The next entry, or `None` at the end of the archive.
    pub fn next(&mut self) -> Result<Option<Entry>, LayerFault> {
        let mut extensions = Extensions::default();
        loop {
            let Some(header) = self.read_header()? else {
                return Ok(None);
            };
            let kind = header.entry_type();
            let size = match extensions.size {
                Some(size) if !is_extension(kind) => size,
                _ => number(&header.as_old().size, || header.entry_size())?,
            };
            // Links and devices have no data, whatever their size field says.
            let size = if has_data(kind) { size } else { 0 };
            let data_offset = self.position;
            self.skip(size)?;
            match kind {
                EntryType::GNULongName => {
                    extensions.path = Some(self.long_name(data_offset, size)?);
                }
                EntryType::GNULongLink => {
                    extensions.link = Some(self.long_name(data_offset, size)?);
                }
                EntryType::XHeader => {
                    let records = self.extension(data_offset, size)?;
                    apply_pax(&records, &mut extensions)?;
                }
                EntryType::XGlobalHeader => {}
                _ => {
                    let entry = make_entry(&header, kind, extensions)?;
                    return Ok(Some(Entry {
                        data_offset,
                        data_bytes: size,
                        ..entry
                    }));
                }
            }
        }
    }

    fn read_header(&mut self) -> Result<Option<Header>, LayerFault> {
        if self.position == self.end {
            return Ok(None);
        }
        if self.end - self.position < BLOCK_BYTES {
            return Err(LayerFault::Invalid(
                "the archive ends within a header".to_owned(),
            ));
        }
        let mut header = Header::new_old();
        self.reader.read_exact(header.as_mut_bytes())?;
        self.position += BLOCK_BYTES;
        if header.as_bytes().iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let stored = header.cksum().map_err(invalid("checksum of a header"))?;
        // The checksum is taken with its own field, bytes 148 to 155, read as spaces.
        let sum: u32 = header
            .as_bytes()
            .iter()
            .enumerate()
            .map(|(at, byte)| {
                u32::from(if (148..156).contains(&at) {
                    b' '
                } else {
                    *byte
                })
            })
            .sum();
        if stored != sum {
            return Err(LayerFault::Invalid(
                "a header's checksum is wrong".to_owned(),
            ));
        }
        Ok(Some(header))
    }

    /// Moves on to the header after `size` bytes of data.
    fn skip(&mut self, size: u64) -> Result<(), LayerFault> {
        let next = size
            .checked_next_multiple_of(BLOCK_BYTES)
            .and_then(|padded| self.position.checked_add(padded));
        let data_end = self.position.checked_add(size);
        match (next, data_end) {
            (Some(next), Some(data_end)) if data_end <= self.end => {
                // Some programs leave out the padding of the last entry.
                let next = next.min(self.end);
                let step = i64::try_from(next - self.position).unwrap_or(i64::MAX);
                self.reader.seek_relative(step)?;
                self.position = next;
                Ok(())
            }
            _ => Err(LayerFault::Invalid(
                "the archive ends within an entry".to_owned(),
            )),
        }
    }

    fn extension(&self, offset: u64, size: u64) -> Result<Vec<u8>, LayerFault> {
        if size > MAX_EXTENSION_BYTES {
            return Err(LayerFault::TooLarge {
                what: "extension header of a layer entry",
                actual: size,
                limit: MAX_EXTENSION_BYTES,
            });
        }
        let mut content = vec![0; usize::try_from(size).unwrap_or(0)];
        self.file.read_exact_at(&mut content, offset)?;
        Ok(content)
    }

    fn long_name(&self, offset: u64, size: u64) -> Result<Vec<u8>, LayerFault> {
        let mut name = self.extension(offset, size)?;
        let end = name
            .iter()
            .position(|byte| *byte == 0)
            .unwrap_or(name.len());
        name.truncate(end);
        Ok(name)
    }
}

fn is_extension(kind: EntryType) -> bool {
    matches!(
        kind,
        EntryType::GNULongName
            | EntryType::GNULongLink
            | EntryType::XHeader
            | EntryType::XGlobalHeader
    )
}

fn has_data(kind: EntryType) -> bool {
    !matches!(
        kind,
        EntryType::Link
            | EntryType::Symlink
            | EntryType::Char
            | EntryType::Block
            | EntryType::Directory
            | EntryType::Fifo
    )
}

/// An entry without the place of its data.
fn make_entry(
    header: &Header,
    kind: EntryType,
    extensions: Extensions,
) -> Result<Entry, LayerFault> {
    let path = extensions
        .path
        .unwrap_or_else(|| header.path_bytes().into_owned());
    let link = extensions
        .link
        .unwrap_or_else(|| header.link_name_bytes().unwrap_or_default().into_owned());
    let kind = match kind {
        // Before POSIX, a directory was a file whose name ends with a slash.
        EntryType::Regular if path.ends_with(b"/") => EntryKind::Directory,
        EntryType::Regular | EntryType::Continuous => EntryKind::File,
        EntryType::Directory => EntryKind::Directory,
        EntryType::Symlink => EntryKind::Symlink(link),
        EntryType::Link => EntryKind::HardLink(link),
        EntryType::Fifo => EntryKind::Fifo,
        EntryType::Char => {
            let (major, minor) = device(header)?;
            EntryKind::Character { major, minor }
        }
        EntryType::Block => {
            let (major, minor) = device(header)?;
            EntryKind::Block { major, minor }
        }
        EntryType::GNUSparse => {
            return Err(LayerFault::Unsupported("sparse archive entries".to_owned()));
        }
        other => {
            return Err(LayerFault::Unsupported(format!(
                "archive entry of type {:?}",
                char::from(other.as_byte())
            )));
        }
    };
    let old = header.as_old();
    let uid = extensions
        .uid
        .map_or_else(|| number(&old.uid, || header.uid()), Ok)?;
    let gid = extensions
        .gid
        .map_or_else(|| number(&old.gid, || header.gid()), Ok)?;
    let mode = number(&old.mode, || header.mode().map(u64::from))?;
    let (mtime_seconds, mtime_nanoseconds) = match extensions.mtime {
        Some(mtime) => mtime,
        None => (number(&old.mtime, || header.mtime())?.cast_signed(), 0),
    };
    let id = |value: u64| {
        u32::try_from(value).map_err(|_| LayerFault::Invalid(format!("owner id {value}")))
    };
    let metadata = Metadata {
        // Only the permission bits and setuid, setgid, sticky; the type is in the entry's kind.
        mode: u16::try_from(mode & 0o7777).unwrap_or(0),
        uid: id(uid)?,
        gid: id(gid)?,
        mtime_seconds,
        mtime_nanoseconds,
        xattrs: extensions.xattrs,
    };
    Ok(Entry {
        path,
        kind,
        metadata,
        data_offset: 0,
        data_bytes: 0,
    })
}

fn device(header: &Header) -> Result<(u32, u32), LayerFault> {
    let major = header
        .device_major()
        .map_err(invalid("device number"))?
        .unwrap_or(0);
    let minor = header
        .device_minor()
        .map_err(invalid("device number"))?
        .unwrap_or(0);
    Ok((major, minor))
}

/// A numeric field; one that was left blank is 0.
fn number(field: &[u8], parse: impl FnOnce() -> std::io::Result<u64>) -> Result<u64, LayerFault> {
    if field.iter().all(|byte| matches!(byte, 0 | b' ')) {
        return Ok(0);
    }
    parse().map_err(invalid("number in a header"))
}

fn invalid(what: &'static str) -> impl FnOnce(std::io::Error) -> LayerFault {
    move |e| LayerFault::Invalid(format!("{what}: {e}"))
}

/// Applies the records of a PAX header: `LENGTH NAME=VALUE\n`, LENGTH counting the whole record.
fn apply_pax(records: &[u8], extensions: &mut Extensions) -> Result<(), LayerFault> {
    let malformed = || LayerFault::Invalid("a malformed PAX header".to_owned());
    let mut rest = records;
    // Padding with NUL bytes is written by some programs.
    while !rest.is_empty() && rest.first() != Some(&0) {
        let space = rest
            .iter()
            .position(|byte| *byte == b' ')
            .ok_or_else(malformed)?;
        let length: usize = parse_decimal(&rest[..space]).ok_or_else(malformed)?;
        let record = rest.get(space + 1..length).ok_or_else(malformed)?;
        let record = record.strip_suffix(b"\n").ok_or_else(malformed)?;
        rest = rest.get(length..).ok_or_else(malformed)?;
        let equals = record
            .iter()
            .position(|byte| *byte == b'=')
            .ok_or_else(malformed)?;
        let (name, value) = (&record[..equals], &record[equals + 1..]);
        match name {
            b"path" => extensions.path = Some(value.to_owned()),
            b"linkpath" => extensions.link = Some(value.to_owned()),
            b"size" => extensions.size = Some(parse_decimal(value).ok_or_else(malformed)?),
            b"uid" => extensions.uid = Some(parse_decimal(value).ok_or_else(malformed)?),
            b"gid" => extensions.gid = Some(parse_decimal(value).ok_or_else(malformed)?),
            b"mtime" => extensions.mtime = Some(parse_time(value).ok_or_else(malformed)?),
            name if name.starts_with(b"GNU.sparse.") => {
                return Err(LayerFault::Unsupported("sparse archive entries".to_owned()));
            }
            name => {
                if let Some(attribute) = name.strip_prefix(PAX_XATTR) {
                    extensions
                        .xattrs
                        .push((attribute.to_owned(), value.to_owned()));
                }
            }
        }
    }
    Ok(())
}

fn parse_decimal<T: std::str::FromStr>(text: &[u8]) -> Option<T> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// `seconds[.fraction]`, before 1970 too; nanoseconds always count forward.
fn parse_time(text: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(text).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let digits: String = fraction
        .chars()
        .chain(std::iter::repeat('0'))
        .take(9)
        .collect();
    let nanoseconds: u32 = digits.parse().ok()?;
    if whole.starts_with('-') && nanoseconds > 0 {
        return Some((seconds.checked_sub(1)?, 1_000_000_000 - nanoseconds));
    }
    Some((seconds, nanoseconds))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn entries(archive: &[u8]) -> Result<Vec<Entry>, LayerFault> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(archive).unwrap();
        let mut entries = Entries::new(&file)?;
        let mut all = Vec::new();
        while let Some(entry) = entries.next()? {
            all.push(entry);
        }
        Ok(all)
    }

    fn pax(records: &[(&str, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        builder
            .append_pax_extensions(records.iter().copied())
            .unwrap();
        let mut header = Header::new_ustar();
        header.set_size(3);
        header.set_mode(0o4755);
        header.set_path("short").unwrap();
        header.set_cksum();
        builder.append(&header, &b"abc"[..]).unwrap();
        builder.into_inner().unwrap()
    }

    #[test]
    fn applies_pax_records() {
        let archive = pax(&[
            ("path", b"a/long/name"),
            ("mtime", b"1700000000.25"),
            ("uid", b"3000000"),
            ("SCHILY.xattr.user.k", b"v\0=\n"),
            ("comment", b"ignored"),
        ]);
        let all = entries(&archive).unwrap();
        assert_eq!(all.len(), 1);
        let entry = &all[0];
        assert_eq!(entry.path, b"a/long/name");
        assert_eq!(entry.metadata.uid, 3_000_000);
        assert_eq!(entry.metadata.mode, 0o4755);
        assert_eq!(entry.metadata.mtime_seconds, 1_700_000_000);
        assert_eq!(entry.metadata.mtime_nanoseconds, 250_000_000);
        assert_eq!(
            entry.metadata.xattrs,
            [(b"user.k".to_vec(), b"v\0=\n".to_vec())]
        );
        let data = usize::try_from(entry.data_offset).unwrap();
        assert_eq!(&archive[data..data + 3], b"abc");
    }

    #[test]
    fn reads_gnu_long_names() {
        let mut builder = tar::Builder::new(Vec::new());
        let long = "d/".repeat(120) + "file";
        let mut header = Header::new_gnu();
        header.set_size(0);
        builder.append_data(&mut header, &long, &b""[..]).unwrap();
        let all = entries(&builder.into_inner().unwrap()).unwrap();
        assert_eq!(all[0].path, long.as_bytes());
    }

    #[test]
    fn refuses_damaged_archives() {
        let good = pax(&[]);
        let mut bad_sum = good.clone();
        bad_sum[0] ^= 1;
        let cut_in_header = &good[..300];
        let cut_in_data = &good[..514];
        for archive in [&bad_sum[..], cut_in_header, cut_in_data] {
            assert!(matches!(entries(archive), Err(LayerFault::Invalid(_))));
        }
        assert!(entries(b"").unwrap().is_empty());
    }

    #[test]
    fn refuses_a_long_name_that_would_fill_memory() {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::GNULongName);
        header.set_size(2 << 20);
        header.set_cksum();
        let mut archive = header.as_bytes().to_vec();
        archive.resize(512 + (2 << 20), b'a');
        assert!(matches!(
            entries(&archive),
            Err(LayerFault::TooLarge { .. })
        ));
    }

    #[test]
    fn reads_times_before_1970() {
        assert_eq!(parse_time(b"-1.5"), Some((-2, 500_000_000)));
        assert_eq!(parse_time(b"-1"), Some((-1, 0)));
        assert_eq!(parse_time(b"12.1234567891"), Some((12, 123_456_789)));
        assert_eq!(parse_time(b"1.x"), None);
    }
}
