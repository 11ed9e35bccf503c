//! A new file that has its name once it is whole and on disk.

use std::{
    fs::{File, OpenOptions},
    io,
    os::{fd::AsRawFd, unix::fs::OpenOptionsExt},
    path::{Path, PathBuf},
};

use nix::{
    fcntl::{AT_FDCWD, AtFlags, OFlag},
    unistd::linkat,
};

use super::{TransferError, file_error};

/// A backup holds secrets.
const FILE_MODE: u32 = 0o600;

/// Dropped before [`Staged::finish`], it leaves nothing behind; so does a process that is killed,
/// where the file system knows files without a name.
pub(super) struct Staged {
    file: File,
    path: PathBuf,
    /// Its name meanwhile, on a file system that needs one.
    partial: Option<PathBuf>,
}

impl Staged {
    /// Refuses a name that is taken.
    pub(super) fn create(path: &Path) -> Result<Self, TransferError> {
        let failed = |source| file_error(path, "creating it", source);
        if path.exists() {
            return Err(failed(io::ErrorKind::AlreadyExists.into()));
        }
        let nameless = OpenOptions::new()
            .write(true)
            .custom_flags(OFlag::O_TMPFILE.bits())
            .mode(FILE_MODE)
            .open(folder_of(path));
        let (file, partial) = match nameless {
            Ok(file) => (file, None),
            Err(error) if has_no_nameless_files(&error) => {
                let (file, partial) = create_partial(path).map_err(failed)?;
                (file, Some(partial))
            }
            Err(error) => return Err(failed(error)),
        };
        Ok(Staged {
            file,
            path: path.to_owned(),
            partial,
        })
    }

    /// Where to write.
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Everything is written: puts it on disk and gives it its name.
    pub(super) fn finish(mut self) -> Result<(), TransferError> {
        let failed = |doing, source| file_error(&self.path, doing, source);
        self.file
            .sync_all()
            .map_err(|error| failed("writing it", error))?;
        match &self.partial {
            Some(partial) => std::fs::rename(partial, &self.path),
            None => link(&self.file, &self.path),
        }
        .map_err(|error| failed("naming it", error))?;
        File::open(folder_of(&self.path))
            .and_then(|folder| folder.sync_all())
            .map_err(|error| failed("syncing its folder", error))?;
        self.partial = None;
        Ok(())
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if let Some(partial) = self.partial.take() {
            let _ = std::fs::remove_file(partial);
        }
    }
}

/// Gives a file without a name its name, unless that is taken.
fn link(file: &File, path: &Path) -> io::Result<()> {
    let open = format!("/proc/self/fd/{}", file.as_raw_fd());
    let follow = AtFlags::AT_SYMLINK_FOLLOW;
    Ok(linkat(AT_FDCWD, open.as_str(), AT_FDCWD, path, follow)?)
}

fn has_no_nameless_files(error: &io::Error) -> bool {
    // Kernels and file systems that do not know the flag see a folder opened for writing.
    let kinds = [io::ErrorKind::Unsupported, io::ErrorKind::IsADirectory];
    kinds.contains(&error.kind())
}

fn create_partial(path: &Path) -> io::Result<(File, PathBuf)> {
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(FILE_MODE)
        .open(&partial)?;
    Ok((file, partial))
}

fn folder_of(path: &Path) -> &Path {
    path.parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use std::{io::Write, os::unix::fs::PermissionsExt};

    use super::*;

    fn names(folder: &Path) -> Vec<std::ffi::OsString> {
        let entries = std::fs::read_dir(folder).unwrap();
        entries.map(|entry| entry.unwrap().file_name()).collect()
    }

    #[test]
    fn a_file_appears_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("backup");
        let staged = Staged::create(&path).unwrap();
        staged.file().write_all(b"half").unwrap();
        assert!(!path.exists());
        drop(staged);
        assert!(names(folder.path()).is_empty());

        let staged = Staged::create(&path).unwrap();
        staged.file().write_all(b"whole").unwrap();
        staged.finish().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"whole");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(names(folder.path()), ["backup"]);
    }

    #[test]
    fn a_name_that_is_taken_meanwhile_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("backup");
        let staged = Staged::create(&path).unwrap();
        std::fs::write(&path, "another").unwrap();
        assert!(staged.finish().is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"another");
        assert!(Staged::create(&path).is_err());
    }

    #[test]
    fn a_file_with_a_name_meanwhile_leaves_nothing_either() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("backup");
        let partial = || {
            let (file, partial) = create_partial(&path).unwrap();
            Staged {
                file,
                path: path.clone(),
                partial: Some(partial),
            }
        };
        drop(partial());
        assert!(names(folder.path()).is_empty());
        partial().finish().unwrap();
        assert_eq!(names(folder.path()), ["backup"]);
    }
}
