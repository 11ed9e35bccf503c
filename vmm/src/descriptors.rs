//! Takes the inherited descriptors that the configuration names.

use std::collections::HashSet;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// A descriptor of the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DescriptorError {
    /// 0, 1 and 2 are the standard streams.
    #[error("Descriptor {fd} for the {what} is not usable")]
    Reserved {
        /// Its number.
        fd: RawFd,
        /// What it was for.
        what: &'static str,
    },
    /// Not open.
    #[error("Descriptor {fd} for the {what} is not open")]
    Closed {
        /// Its number.
        fd: RawFd,
        /// What it was for.
        what: &'static str,
    },
    /// Named twice.
    #[error("Descriptor {fd} for the {what} is named twice")]
    Twice {
        /// Its number.
        fd: RawFd,
        /// What it was for.
        what: &'static str,
    },
}

/// Gives out each inherited descriptor once.
#[derive(Debug, Default)]
pub struct Descriptors {
    taken: HashSet<RawFd>,
}

impl Descriptors {
    /// Takes ownership of `fd`.
    pub fn take(&mut self, fd: RawFd, what: &'static str) -> Result<OwnedFd, DescriptorError> {
        if fd <= libc::STDERR_FILENO {
            return Err(DescriptorError::Reserved { fd, what });
        }
        // SAFETY: plain system call, harmless on any number.
        if unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
            return Err(DescriptorError::Closed { fd, what });
        }
        if !self.taken.insert(fd) {
            return Err(DescriptorError::Twice { fd, what });
        }
        // SAFETY: the parent passed it for this use, and it is given out only once.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn standard_streams_and_closed_numbers_are_refused() {
        let mut descriptors = Descriptors::default();
        assert!(matches!(
            descriptors.take(-1, "x"),
            Err(DescriptorError::Reserved { .. })
        ));
        assert!(matches!(
            descriptors.take(2, "x"),
            Err(DescriptorError::Reserved { .. })
        ));
        assert!(matches!(
            descriptors.take(99_999, "x"),
            Err(DescriptorError::Closed { .. })
        ));
    }

    #[test]
    fn a_descriptor_is_given_out_once() {
        // SAFETY: the copy is owned by what take returns.
        let fd = unsafe { libc::dup(2) };
        let mut descriptors = Descriptors::default();
        let _first = descriptors.take(fd, "x").unwrap();
        assert!(matches!(
            descriptors.take(fd, "x"),
            Err(DescriptorError::Twice { .. })
        ));
    }
}
