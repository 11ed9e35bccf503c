//! Network namespaces as bind-mounted files (the shape that `ip netns` uses, too).

use nix::mount::{MntFlags, MsFlags};
use nix::sched::CloneFlags;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// Why a namespace could not be made, entered or removed.
#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    /// Making it failed.
    #[error("making the network namespace {path}: {action}: {source}")]
    Create {
        /// The file that would have held it.
        path: PathBuf,
        /// The step.
        action: &'static str,
        /// Why.
        source: io::Error,
    },
    /// Entering it failed.
    #[error("entering the network namespace {path}: {source}")]
    Enter {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Removing it failed.
    #[error("removing the network namespace {path}: {source}")]
    Remove {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The thread that worked in the namespace died.
    #[error("the thread in the network namespace {0} died")]
    Thread(PathBuf),
}

/// Makes a new network namespace and binds it to `path`.
///
/// A thread of its own does it, because `unshare` changes the calling thread.
pub fn create(path: &Path) -> Result<(), NetnsError> {
    let fail = |action: &'static str, source: io::Error| NetnsError::Create {
        path: path.to_path_buf(),
        action,
        source,
    };
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(|error| fail("making its directory", error))?;
    }
    File::create_new(path).map_err(|error| fail("making its file", error))?;
    let target = path.to_path_buf();
    let outcome = std::thread::spawn(move || -> Result<(), (&'static str, io::Error)> {
        nix::sched::unshare(CloneFlags::CLONE_NEWNET).map_err(|error| ("unshare", error.into()))?;
        nix::mount::mount(
            Some("/proc/thread-self/ns/net"),
            &target,
            None::<&str>,
            MsFlags::MS_BIND,
            None::<&str>,
        )
        .map_err(|error| ("bind mount", error.into()))
    })
    .join()
    .map_err(|_| NetnsError::Thread(path.to_path_buf()))?;
    outcome.map_err(|(action, source)| {
        // Best effort: the failed creation is what the caller must hear about.
        let _ = std::fs::remove_file(path);
        fail(action, source)
    })
}

/// Unmounts and removes a namespace file. One that is not there is no error.
pub fn remove(path: &Path) -> Result<(), NetnsError> {
    let fail = |source: io::Error| NetnsError::Remove {
        path: path.to_path_buf(),
        source,
    };
    loop {
        match nix::mount::umount2(path, MntFlags::MNT_DETACH) {
            Ok(()) => continue,
            // EINVAL: not a mount point (any more).
            Err(nix::errno::Errno::EINVAL | nix::errno::Errno::ENOENT) => break,
            Err(error) => return Err(fail(error.into())),
        }
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(fail(error)),
        _ => Ok(()),
    }
}

/// Runs `work` on a new thread inside the namespace at `path` and returns its result.
pub fn run_inside<T, F>(path: &Path, work: F) -> Result<T, NetnsError>
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    let file = File::open(path).map_err(|source| NetnsError::Enter {
        path: path.to_path_buf(),
        source,
    })?;
    let worker = std::thread::spawn(move || {
        nix::sched::setns(&file, CloneFlags::CLONE_NEWNET)?;
        Ok(work())
    });
    worker
        .join()
        .map_err(|_| NetnsError::Thread(path.to_path_buf()))?
        .map_err(|error: nix::errno::Errno| NetnsError::Enter {
            path: path.to_path_buf(),
            source: error.into(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interfaces() -> Vec<String> {
        std::fs::read_to_string("/proc/thread-self/net/dev")
            .unwrap()
            .lines()
            .filter_map(|line| {
                line.split_once(':')
                    .map(|(name, _)| name.trim().to_string())
            })
            .collect()
    }

    #[test]
    fn a_new_namespace_holds_only_the_loopback_device_and_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ns");
        create(&path).unwrap();
        assert_eq!(run_inside(&path, interfaces).unwrap(), ["lo"]);
        assert!(
            create(&path).is_err(),
            "a second one at the same path is refused"
        );
        remove(&path).unwrap();
        remove(&path).unwrap();
        assert!(!path.exists());
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        assert!(!mounts.contains(path.to_str().unwrap()));
    }
}
