//! The directories that the guest may see.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

/// Longest name of a share, bytes.
const NAME_MAX_BYTES: usize = 128;
/// Most shares of one pod.
const SHARES_MAX: usize = 1024;

/// A share cannot be added or removed.
#[derive(Debug, thiserror::Error)]
pub enum ShareError {
    /// Not one path component of letters, digits, `-`, `_` and `.`.
    #[error("\"{0}\" is no name of a share")]
    Name(String),
    /// In use.
    #[error("There is a share {0} already")]
    Exists(String),
    /// Too many.
    #[error("There are {SHARES_MAX} shares already")]
    Full,
    /// Not known.
    #[error("There is no share {0}")]
    NotFound(String),
    /// What came is no directory.
    #[error("Share {0} is not a directory")]
    NotADirectory(String),
    /// It cannot be looked at.
    #[error("Failed to look at share {name}")]
    Look {
        /// The share.
        name: String,
        /// Cause.
        #[source]
        source: io::Error,
    },
}

/// One directory of the host.
#[derive(Debug)]
pub struct Share {
    /// Name in the root directory.
    pub name: CString,
    /// Its root: a detached mount.
    pub root: OwnedFd,
    /// The guest may not change it. The mount is read-only too.
    pub read_only: bool,
    revoked: AtomicBool,
}

impl Share {
    /// Whether it was taken away.
    pub fn is_revoked(&self) -> bool {
        self.revoked.load(Ordering::Acquire)
    }
}

/// All shares, by name.
#[derive(Debug, Default)]
pub struct Shares(RwLock<Vec<Arc<Share>>>);

impl Shares {
    /// Adds a directory.
    pub fn add(&self, name: &str, root: OwnedFd, read_only: bool) -> Result<(), ShareError> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let bad = name.is_empty()
            || name.len() > NAME_MAX_BYTES
            || !name.bytes().all(allowed)
            || name == "."
            || name == "..";
        let c_name = CString::new(name)
            .ok()
            .filter(|_| !bad)
            .ok_or_else(|| ShareError::Name(name.to_owned()))?;
        let stat = rustix::fs::fstat(&root).map_err(|error| ShareError::Look {
            name: name.to_owned(),
            source: error.into(),
        })?;
        if !rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir() {
            return Err(ShareError::NotADirectory(name.to_owned()));
        }
        let mut shares = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if shares.iter().any(|share| share.name == c_name) {
            return Err(ShareError::Exists(name.to_owned()));
        }
        if shares.len() >= SHARES_MAX {
            return Err(ShareError::Full);
        }
        shares.push(Arc::new(Share {
            name: c_name,
            root,
            read_only,
            revoked: AtomicBool::new(false),
        }));
        Ok(())
    }

    /// Takes a share away: what the guest still knows of it is stale from now on.
    pub fn remove(&self, name: &str) -> Result<Arc<Share>, ShareError> {
        let mut shares = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let place = shares
            .iter()
            .position(|share| share.name.to_bytes() == name.as_bytes())
            .ok_or_else(|| ShareError::NotFound(name.to_owned()))?;
        let share = shares.remove(place);
        share.revoked.store(true, Ordering::Release);
        Ok(share)
    }

    /// The share of this name.
    pub fn find(&self, name: &CStr) -> Option<Arc<Share>> {
        self.all()
            .into_iter()
            .find(|share| share.name.as_c_str() == name)
    }

    /// All of them, in the order in which they came.
    pub fn all(&self) -> Vec<Arc<Share>> {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory() -> OwnedFd {
        std::fs::File::open("/").unwrap().into()
    }

    #[test]
    fn names_that_are_paths_or_taken_are_refused() {
        let shares = Shares::default();
        for name in ["", ".", "..", "a/b", "/", "a\0b", &"x".repeat(129)] {
            let outcome = shares.add(name, directory(), false);
            assert!(matches!(outcome, Err(ShareError::Name(_))), "{name:?}");
        }
        shares.add("a", directory(), false).unwrap();
        assert!(matches!(
            shares.add("a", directory(), true),
            Err(ShareError::Exists(_))
        ));
    }

    #[test]
    fn a_file_is_no_share() {
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        let outcome = Shares::default().add("a", file.into(), false);
        assert!(matches!(outcome, Err(ShareError::NotADirectory(_))));
    }

    #[test]
    fn a_share_that_was_removed_is_revoked() {
        let shares = Shares::default();
        shares.add("a", directory(), false).unwrap();
        let share = shares.find(c"a").unwrap();
        assert!(!share.is_revoked());
        shares.remove("a").unwrap();
        assert!(share.is_revoked());
        assert!(shares.find(c"a").is_none());
    }
}
