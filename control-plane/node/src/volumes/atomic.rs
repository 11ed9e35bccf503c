//! A directory of files that changes as a whole, in the layout every kubelet uses:
//!
//! ```text
//!   volume/..2026_11_22_05_00_00.123456789/key     the files
//!   volume/..data -> ..2026_11_22_05_00_00.123456789
//!   volume/key    -> ..data/key
//! ```
//! A change writes a new timestamped directory and swaps `..data` by rename: a reader sees the old
//! files or the new ones, never a mix.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Component, Path, PathBuf};

/// A file of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileContent {
    /// The bytes.
    pub data: Vec<u8>,
    /// Permission bits.
    pub mode: u32,
    /// The owner; `None` leaves it the agent's.
    pub uid: Option<u32>,
    /// The group; `None` leaves it the agent's.
    pub gid: Option<u32>,
}

impl FileContent {
    /// A file of the agent's own user and group.
    pub fn new(data: Vec<u8>, mode: u32) -> Self {
        FileContent {
            data,
            mode,
            uid: None,
            gid: None,
        }
    }

    /// What is found on disk is what is wanted; an owner that is not wanted may be any.
    fn is(&self, found: &FileContent) -> bool {
        let same = |wanted: Option<u32>, found| wanted.is_none() || wanted == found;
        self.data == found.data
            && self.mode & 0o7777 == found.mode
            && same(self.uid, found.uid)
            && same(self.gid, found.gid)
    }
}

/// The whole content: relative path → file.
pub type Payload = BTreeMap<String, FileContent>;

/// A volume that could not be written.
#[derive(Debug, thiserror::Error)]
pub enum AtomicWriteError {
    /// A path that leaves the volume or uses its reserved names.
    #[error("invalid path {0:?} in volume: must be relative, without '..' components")]
    Path(String),
    /// The filesystem's answer.
    #[error("{action} {path}: {source}")]
    Io {
        /// What was being done.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
}

const DATA: &str = "..data";
const DATA_NEW: &str = "..data_tmp";

fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> AtomicWriteError {
    let path = path.to_owned();
    move |source| AtomicWriteError::Io {
        action,
        path,
        source,
    }
}

/// Makes `directory` hold exactly `payload`; true when that changed anything.
pub fn write(directory: &Path, payload: &Payload) -> Result<bool, AtomicWriteError> {
    for path in payload.keys() {
        check_path(path)?;
    }
    std::fs::create_dir_all(directory).map_err(io("make", directory))?;
    let current = std::fs::read_link(directory.join(DATA)).ok();
    if let Some(current) = &current
        && read_payload(&directory.join(current)).is_some_and(|found| same(payload, &found))
    {
        link_entries(directory, payload)?;
        return Ok(false);
    }
    let stamp = jiff::Timestamp::now()
        .strftime("%Y_%m_%d_%H_%M_%S")
        .to_string();
    let name = format!("..{stamp}.{:09}", rand::random_range(0..1_000_000_000u32));
    let fresh = directory.join(&name);
    write_files(&fresh, payload)?;
    let staged = directory.join(DATA_NEW);
    let _ = std::fs::remove_file(&staged);
    symlink(&name, &staged).map_err(io("link", &staged))?;
    std::fs::rename(&staged, directory.join(DATA)).map_err(io("rename", &staged))?;
    link_entries(directory, payload)?;
    if let Some(old) = current.filter(|old| is_data_directory(old)) {
        let old = directory.join(old);
        std::fs::remove_dir_all(&old).map_err(io("remove", &old))?;
    }
    Ok(true)
}

fn same(wanted: &Payload, found: &Payload) -> bool {
    let pairs = wanted.iter().zip(found);
    wanted.len() == found.len()
        && pairs
            .into_iter()
            .all(|((path, wanted), (other, found))| path == other && wanted.is(found))
}

fn is_data_directory(link: &Path) -> bool {
    link.components().count() == 1
        && link
            .to_str()
            .is_some_and(|name| name.starts_with("..") && name != "..")
}

fn check_path(path: &str) -> Result<(), AtomicWriteError> {
    let parsed = Path::new(path);
    let normal = parsed
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    if path.is_empty()
        || !normal
        || path.starts_with("..")
        || path.len() > 4096
        || path.contains('\0')
    {
        return Err(AtomicWriteError::Path(path.to_owned()));
    }
    Ok(())
}

fn write_files(root: &Path, payload: &Payload) -> Result<(), AtomicWriteError> {
    std::fs::create_dir(root).map_err(io("make", root))?;
    let public = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(root, public).map_err(io("set mode of", root))?;
    for (path, file) in payload {
        let target = root.join(path);
        if let Some(parent) = target.parent() {
            std::fs::create_dir_all(parent).map_err(io("make", parent))?;
        }
        std::fs::write(&target, &file.data).map_err(io("write", &target))?;
        if file.uid.is_some() || file.gid.is_some() {
            chown(&target, file.uid, file.gid).map_err(io("set owner of", &target))?;
        }
        let mode = std::fs::Permissions::from_mode(file.mode & 0o7777);
        std::fs::set_permissions(&target, mode).map_err(io("set mode of", &target))?;
    }
    Ok(())
}

/// The files below a data directory; `None` when it cannot be read, which makes it be rewritten.
fn read_payload(root: &Path) -> Option<Payload> {
    fn walk(root: &Path, directory: &Path, payload: &mut Payload) -> Option<()> {
        for entry in std::fs::read_dir(directory).ok()? {
            let path = entry.ok()?.path();
            let metadata = path.symlink_metadata().ok()?;
            if metadata.is_dir() {
                walk(root, &path, payload)?;
            } else {
                let relative = path.strip_prefix(root).ok()?.to_str()?.to_owned();
                let mode = metadata.permissions().mode() & 0o7777;
                payload.insert(
                    relative,
                    FileContent {
                        data: std::fs::read(&path).ok()?,
                        mode,
                        uid: Some(metadata.uid()),
                        gid: Some(metadata.gid()),
                    },
                );
            }
        }
        Some(())
    }
    let mut payload = Payload::new();
    walk(root, root, &mut payload)?;
    Some(payload)
}

/// Top-level names link into `..data`; links to names that are gone go.
fn link_entries(directory: &Path, payload: &Payload) -> Result<(), AtomicWriteError> {
    let wanted: BTreeSet<&str> = payload
        .keys()
        .filter_map(|path| path.split('/').next())
        .collect();
    for name in &wanted {
        let link = directory.join(name);
        let target = Path::new(DATA).join(name);
        if std::fs::read_link(&link).is_ok_and(|existing| existing == target) {
            continue;
        }
        let _ = std::fs::remove_file(&link);
        symlink(&target, &link).map_err(io("link", &link))?;
    }
    for entry in std::fs::read_dir(directory).map_err(io("read", directory))? {
        let entry = entry.map_err(io("read", directory))?;
        let name = entry.file_name();
        let stale = name
            .to_str()
            .is_some_and(|name| !name.starts_with("..") && !wanted.contains(name));
        if stale && entry.path().is_symlink() {
            std::fs::remove_file(entry.path()).map_err(io("remove", &entry.path()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(files: &[(&str, &str, u32)]) -> Payload {
        files
            .iter()
            .map(|(path, data, mode)| {
                (
                    (*path).to_owned(),
                    FileContent::new(data.as_bytes().to_vec(), *mode),
                )
            })
            .collect()
    }

    fn entries(directory: &Path) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn files_appear_change_and_go_as_a_whole() {
        let directory = tempfile::tempdir().unwrap();
        let volume = directory.path().join("v");
        let first = payload(&[
            ("a", "1", 0o644),
            ("sub/b", "2", 0o400),
            ("old", "x", 0o644),
        ]);
        assert!(write(&volume, &first).unwrap());
        assert_eq!(std::fs::read_to_string(volume.join("a")).unwrap(), "1");
        assert_eq!(std::fs::read_to_string(volume.join("sub/b")).unwrap(), "2");
        let mode = std::fs::metadata(volume.join("sub/b"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o7777, 0o400);
        let before = std::fs::read_link(volume.join(DATA)).unwrap();
        assert!(
            !write(&volume, &first).unwrap(),
            "the same content changes nothing"
        );
        assert_eq!(std::fs::read_link(volume.join(DATA)).unwrap(), before);

        let second = payload(&[("a", "3", 0o644), ("sub/b", "2", 0o600)]);
        assert!(write(&volume, &second).unwrap());
        let after = std::fs::read_link(volume.join(DATA)).unwrap();
        assert_ne!(before, after);
        assert_eq!(
            entries(&volume),
            [after.to_str().unwrap(), DATA, "a", "sub"].map(str::to_owned)
        );
        assert_eq!(std::fs::read_to_string(volume.join("a")).unwrap(), "3");
    }

    #[test]
    fn half_written_update_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let volume = directory.path().to_owned();
        write(&volume, &payload(&[("a", "1", 0o644)])).unwrap();
        // A crash between writing the directory and the swap.
        symlink("..nowhere", volume.join(DATA_NEW)).unwrap();
        assert!(write(&volume, &payload(&[("a", "2", 0o644)])).unwrap());
        assert_eq!(std::fs::read_to_string(volume.join("a")).unwrap(), "2");
    }

    #[test]
    fn paths_out_of_the_volume_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        for path in ["../x", "/etc/passwd", "a/../../b", "", "..data", "."] {
            let error = write(directory.path(), &payload(&[(path, "", 0o644)])).unwrap_err();
            assert!(matches!(error, AtomicWriteError::Path(_)), "{path:?}");
        }
        assert_eq!(entries(directory.path()), Vec::<String>::new());
    }
}
