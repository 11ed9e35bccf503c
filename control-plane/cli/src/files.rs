//! Files that the program writes, and the lock on its data directory.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use anyhow::{Context, bail};
use nix::fcntl::{Flock, FlockArg};

/// Makes a directory and its parents, readable by its owner only where it is new.
pub fn make_private_dir(path: &Path) -> anyhow::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("make {}", path.display()))
}

/// Replaces a file as a whole; readers see the old or the new content.
pub fn write_atomically(path: &Path, content: &str, mode: u32) -> anyhow::Result<()> {
    let mut staged = path.as_os_str().to_owned();
    staged.push(format!(".{}.tmp", std::process::id()));
    let write = || -> std::io::Result<()> {
        // A leftover may have another mode.
        let _ = std::fs::remove_file(&staged);
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&staged)?;
        file.write_all(content.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&staged, path)
    };
    write().with_context(|| format!("write {}", path.display()))
}

/// Held while the process uses its data directory.
#[derive(Debug)]
pub struct DataDirLock(#[allow(dead_code, reason = "held, never read")] Flock<File>);

/// Takes the data directory for one process of a role; says who has it otherwise.
pub fn lock_data_dir(data_dir: &Path, role: &str) -> anyhow::Result<DataDirLock> {
    make_private_dir(data_dir)?;
    let path = data_dir.join(format!("{role}.lock"));
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .with_context(|| format!("open {}", path.display()))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(mut lock) => {
            lock.set_len(0)?;
            write!(lock, "{}", std::process::id())?;
            Ok(DataDirLock(lock))
        }
        Err((mut file, nix::errno::Errno::EWOULDBLOCK)) => {
            let mut pid = String::new();
            let _ = file.rewind().and_then(|()| file.read_to_string(&mut pid));
            bail!(
                "another hull (process {}) uses {}: stop it, or choose another --data-dir",
                if pid.is_empty() {
                    "unknown"
                } else {
                    pid.trim()
                },
                data_dir.display()
            );
        }
        Err((_, error)) => bail!("lock {}: {error}", path.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn second_instance_is_told_who_has_the_directory() {
        let directory = std::env::temp_dir().join(format!("hull-lock-{}", std::process::id()));
        let held = lock_data_dir(&directory, "hull").unwrap();
        let error = lock_data_dir(&directory, "hull").unwrap_err().to_string();
        assert!(
            error.contains(&format!("process {}", std::process::id())),
            "{error}"
        );
        drop(held);
        lock_data_dir(&directory, "hull").unwrap();
        std::fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn files_are_replaced_with_their_mode() {
        let directory = std::env::temp_dir().join(format!("hull-files-{}", std::process::id()));
        make_private_dir(&directory).unwrap();
        let path = directory.join("kubeconfig");
        std::fs::write(&path, "old").unwrap();
        write_atomically(&path, "new", 0o600).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "new");
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        std::fs::remove_dir_all(directory).unwrap();
    }
}
