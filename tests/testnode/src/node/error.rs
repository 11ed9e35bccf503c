//! Why a node could not be had.

use std::path::PathBuf;

use super::MAX_NAME;
use super::boot::BOOT_TIMEOUT;
use crate::cache::CacheError;
use crate::client::ClientError;
use crate::initramfs::InitramfsError;
use crate::kernel::KernelError;

/// Why a node could not be had.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The name cannot be a host name and a directory.
    #[error("node name {0:?}: use 1 to {MAX_NAME} of a-z, 0-9 and dashes")]
    Name(String),
    /// The cache failed.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// The kernel could not be prepared.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The initramfs could not be packed.
    #[error(transparent)]
    Initramfs(#[from] InitramfsError),
    /// A program is missing.
    #[error("cannot run {program} (Debian package {package}): {source}")]
    Program {
        /// The program.
        program: &'static str,
        /// The package that brings it.
        package: &'static str,
        /// Why it did not start.
        source: std::io::Error,
    },
    /// The disk could not be formatted.
    #[error("mkfs.ext4 {path}: {stderr}")]
    Format {
        /// The disk image.
        path: PathBuf,
        /// What mkfs said.
        stderr: String,
    },
    /// QEMU ended while the node was needed.
    #[error("node {name}: QEMU ended; its and the console's last lines:\n{log}")]
    Died {
        /// The node.
        name: String,
        /// Last lines of QEMU and console.
        log: String,
    },
    /// QEMU runs, but the connection to the agent ended.
    #[error("node {name}: the agent closed the connection; last console lines:\n{log}")]
    Disconnected {
        /// The node.
        name: String,
        /// Last lines of QEMU and console.
        log: String,
    },
    /// The agent did not answer in time.
    #[error("node {name}: no answer within {} s; last console lines:\n{log}", BOOT_TIMEOUT.as_secs())]
    Timeout {
        /// The node.
        name: String,
        /// Last lines of QEMU and console.
        log: String,
    },
    /// The node runs without something that was asked for.
    #[error("node {name} is up with other options ({what}): take it down first")]
    Different {
        /// The node.
        name: String,
        /// What differs.
        what: String,
    },
    /// The node is not up.
    #[error("node {0} is not up")]
    NotUp(String),
    /// A path that the kernel command line cannot carry.
    #[error("{0}: the path holds white space, which the kernel command line cannot carry")]
    Path(PathBuf),
    /// The state file cannot be read as such.
    #[error("node state {path}: {source}")]
    State {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// The agent refused or failed.
    #[error(transparent)]
    Client(#[from] ClientError),
}
