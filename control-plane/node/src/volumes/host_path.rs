//! hostPath volumes: what must be at the path before it is mounted (core/v1 HostPathType).

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;

use k8s_openapi::api::core::v1::HostPathVolumeSource;

/// Mode of a directory that `DirectoryOrCreate` makes.
const DIRECTORY_MODE: u32 = 0o755;
/// Mode of a file that `FileOrCreate` makes.
const FILE_MODE: u32 = 0o644;

/// The path is not what the volume says.
#[derive(Debug, thiserror::Error)]
pub enum HostPathError {
    /// Not absolute, or with `..`.
    #[error("hostPath {0} must be absolute and without \"..\"")]
    Path(String),
    /// Something else is there.
    #[error("hostPath type check failed: {path} is not a {wanted}")]
    Type {
        /// The path.
        path: String,
        /// What should be there.
        wanted: &'static str,
    },
    /// No such type.
    #[error("{0} is no type of a hostPath")]
    Unknown(String),
    /// It cannot be made or looked at.
    #[error("hostPath {path}: {source}")]
    Io {
        /// The path.
        path: String,
        /// Why.
        source: std::io::Error,
    },
}

/// Checks the type of what is there, and makes it where the type says so.
pub fn prepare(source: &HostPathVolumeSource) -> Result<(), HostPathError> {
    let path = Path::new(&source.path);
    let climbs = source.path.split('/').any(|part| part == "..");
    if !path.is_absolute() || climbs {
        return Err(HostPathError::Path(source.path.clone()));
    }
    let failed = |error| HostPathError::Io {
        path: source.path.clone(),
        source: error,
    };
    let kind = source.type_.as_deref().unwrap_or_default();
    match kind {
        // The runtime makes a directory that is missing.
        "" => return Ok(()),
        "DirectoryOrCreate" => {
            let mut builder = DirBuilder::new();
            let made = builder.recursive(true).mode(DIRECTORY_MODE).create(path);
            match made {
                // What is there is looked at below.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                other => other.map_err(failed)?,
            }
        }
        "FileOrCreate" if !path.exists() => make_file(path).map(drop).map_err(failed)?,
        _ => {}
    }
    let found = match std::fs::metadata(path) {
        Ok(metadata) => Some(metadata.file_type()),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(failed(error)),
    };
    let (wanted, is) = match kind {
        "DirectoryOrCreate" | "Directory" => ("directory", found.map(|found| found.is_dir())),
        "FileOrCreate" | "File" => ("file", found.map(|found| found.is_file())),
        "Socket" => ("socket", found.map(|found| found.is_socket())),
        "CharDevice" => (
            "character device",
            found.map(|found| found.is_char_device()),
        ),
        "BlockDevice" => ("block device", found.map(|found| found.is_block_device())),
        other => return Err(HostPathError::Unknown(other.to_owned())),
    };
    if is != Some(true) {
        let path = source.path.clone();
        return Err(HostPathError::Type { path, wanted });
    }
    Ok(())
}

fn make_file(path: &Path) -> std::io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(FILE_MODE)
        .open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(path: &Path, kind: &str) -> Result<(), String> {
        let source = HostPathVolumeSource {
            path: path.display().to_string(),
            type_: Some(kind.to_owned()),
        };
        prepare(&source).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_there_must_be_of_the_type() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert_eq!(outcome(directory.path(), "Directory"), Ok(()));
        assert_eq!(outcome(&file, "File"), Ok(()));
        assert_eq!(outcome(Path::new("/dev/null"), "CharDevice"), Ok(()));
        for (path, kind, message) in [
            (file.as_path(), "Directory", "is not a directory"),
            (file.as_path(), "DirectoryOrCreate", "is not a directory"),
            (directory.path(), "File", "is not a file"),
            (directory.path(), "FileOrCreate", "is not a file"),
            (directory.path(), "Socket", "is not a socket"),
            (directory.path(), "Pipe", "no type"),
            (
                &directory.path().join("none"),
                "Directory",
                "is not a directory",
            ),
            (Path::new("relative"), "", "absolute"),
            (Path::new("/a/../b"), "", "absolute"),
        ] {
            let error = outcome(path, kind).unwrap_err();
            assert!(error.contains(message), "{kind}: {error}");
        }
    }

    #[test]
    fn missing_directories_and_files_are_made_where_the_type_says_so() {
        let directory = tempfile::tempdir().unwrap();
        let (made, file) = (directory.path().join("a/b"), directory.path().join("file"));
        assert_eq!(outcome(&made, "DirectoryOrCreate"), Ok(()));
        assert_eq!(outcome(&file, "FileOrCreate"), Ok(()));
        assert!(made.is_dir() && file.is_file());
        std::fs::write(&file, "kept").unwrap();
        assert_eq!(outcome(&file, "FileOrCreate"), Ok(()));
        assert_eq!(std::fs::read(&file).unwrap(), b"kept");
    }
}
