//! The cache directory, locks in it, and files that appear in one piece.

use std::fs::{self, File, Permissions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// Name of the variable that moves the cache directory.
pub const CACHE_VARIABLE: &str = "HULL_CACHE_DIR";

/// Why something could not be kept in the cache.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// Neither `HULL_CACHE_DIR` nor `HOME` says where the cache is.
    #[error("no cache directory: set {CACHE_VARIABLE} or HOME")]
    NoHome,
    /// A file operation failed.
    #[error("{doing} {path}: {source}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To which path.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

/// Makes the closure that turns an I/O error into [`CacheError::Io`].
pub fn io_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CacheError {
    let path = path.to_owned();
    move |source| CacheError::Io {
        doing,
        path,
        source,
    }
}

/// The cache directory: `HULL_CACHE_DIR`, or `~/.cache/hull`. Created if absent.
pub fn directory() -> Result<PathBuf, CacheError> {
    let path = match std::env::var_os(CACHE_VARIABLE).filter(|value| !value.is_empty()) {
        Some(path) => std::path::absolute(&path)
            .map_err(io_error("finding the cache directory", Path::new(&path)))?,
        None => {
            PathBuf::from(std::env::var_os("HOME").ok_or(CacheError::NoHome)?).join(".cache/hull")
        }
    };
    create_directory(&path)?;
    Ok(path)
}

/// Creates a directory and its parents.
pub fn create_directory(path: &Path) -> Result<(), CacheError> {
    fs::create_dir_all(path).map_err(io_error("creating directory", path))
}

/// Holds an exclusive lock on a file until dropped. The kernel drops it when the
/// process dies, so a killed holder never blocks the next one.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Takes the exclusive lock of `path`, waiting for another holder and saying so once.
pub fn lock(path: &Path) -> Result<Lock, CacheError> {
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .map_err(io_error("opening lock", path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            tracing::info!(lock = %path.display(), "waiting for another process");
            file.lock().map_err(io_error("waiting for lock", path))?;
        }
        Err(TryLockError::Error(source)) => {
            return Err(io_error("taking lock", path)(source));
        }
    }
    Ok(Lock { _file: file })
}

/// Permission bits of cached files; secrets are not written this way.
const FILE_MODE: u32 = 0o644;

/// Writes a file under a temporary name and renames it, so readers see all or nothing.
pub fn write_atomically(path: &Path, contents: &[u8]) -> Result<(), CacheError> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    create_directory(directory)?;
    let mut file = tempfile::Builder::new()
        .prefix(".new-")
        .tempfile_in(directory)
        .map_err(io_error("creating a file in", directory))?;
    file.write_all(contents)
        .map_err(io_error("writing", path))?;
    file.as_file()
        .set_permissions(Permissions::from_mode(FILE_MODE))
        .map_err(io_error("setting the mode of", path))?;
    file.persist(path)
        .map_err(|error| io_error("replacing", path)(error.error))?;
    Ok(())
}

/// Points the symbolic link `link` at `target` in one step.
pub fn link_atomically(target: &Path, link: &Path) -> Result<(), CacheError> {
    if fs::read_link(link).is_ok_and(|now| now == target) {
        return Ok(());
    }
    let mut name = link.file_name().unwrap_or_default().to_owned();
    name.push(format!(".new-{}", std::process::id()));
    let fresh = link.with_file_name(name);
    let _ = fs::remove_file(&fresh);
    std::os::unix::fs::symlink(target, &fresh).map_err(io_error("creating link", &fresh))?;
    fs::rename(&fresh, link).map_err(io_error("replacing link", link))
}

/// SHA-256 of some bytes, in hexadecimal.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Bytes in lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
}

/// Random bytes from the kernel, in hexadecimal.
pub fn random_hex(bytes: usize) -> Result<String, CacheError> {
    use std::io::Read;
    let path = Path::new("/dev/urandom");
    let mut buffer = vec![0; bytes];
    File::open(path)
        .and_then(|mut file| file.read_exact(&mut buffer))
        .map_err(io_error("reading", path))?;
    Ok(hex(&buffer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_and_links_replace_what_was_there() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("sub/file");
        write_atomically(&file, b"one").unwrap();
        write_atomically(&file, b"two").unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"two");
        let link = directory.path().join("link");
        link_atomically(Path::new("/first"), &link).unwrap();
        link_atomically(&file, &link).unwrap();
        assert_eq!(fs::read(&link).unwrap(), b"two");
        // No temporary names stay behind.
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
        assert_eq!(
            fs::read_dir(directory.path().join("sub")).unwrap().count(),
            1
        );
    }

    #[test]
    fn a_second_locker_waits_for_the_first() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let held = lock(&path).unwrap();
        let other = File::options().write(true).open(&path).unwrap();
        assert!(matches!(other.try_lock(), Err(TryLockError::WouldBlock)));
        drop(held);
        other.try_lock().unwrap();
    }

    #[test]
    fn sha256_is_the_known_answer() {
        assert_eq!(
            sha256_hex(b"abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }
}
