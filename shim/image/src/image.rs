//! What the store tells about an image.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A pulled image: complete, verified and ready to be attached to a virtual machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// `sha256:` and the digest of the image's configuration (OCI image-spec, "ImageID").
    pub id: String,
    /// Normalised tags that name this image, such as `docker.io/library/nginx:latest`.
    pub repo_tags: Vec<String>,
    /// Normalised digest references, such as `docker.io/library/nginx@sha256:…`. The digest is
    /// the one the registry answered for the reference (of the index, where there is one).
    pub repo_digests: Vec<String>,
    /// Size of the EROFS file in bytes; never 0.
    pub size_bytes: u64,
    /// The EROFS file. Mount or attach it read-only; hold a lease while it is in use.
    pub erofs_path: PathBuf,
    /// How the image wants to be run.
    pub config: ImageConfig,
    /// Content of the image's `/etc/passwd`, if it has one that is UTF-8 and no larger than
    /// [`Limits::max_passwd_bytes`](crate::Limits::max_passwd_bytes).
    pub passwd: Option<String>,
    /// Content of the image's `/etc/group`, under the same conditions.
    pub group: Option<String>,
}

/// The part of the image configuration that decides how its containers run (OCI image-spec,
/// config.md, property `config`). Lists that the image does not set are empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageConfig {
    /// Program and first arguments.
    pub entrypoint: Vec<String>,
    /// Arguments after the entrypoint, replaced by a pod's `args`.
    pub cmd: Vec<String>,
    /// `NAME=value` pairs.
    pub env: Vec<String>,
    /// `user`, `uid`, `user:group` or `uid:gid`; empty means root.
    pub user: String,
    /// Working directory; empty means `/`.
    pub working_dir: String,
    /// Signal name or number that asks the container to stop; `None` means SIGTERM.
    pub stop_signal: Option<String>,
    /// Ports such as `80/tcp`, sorted.
    pub exposed_ports: Vec<String>,
    /// Mount points that the image declares as volumes, sorted.
    pub volumes: Vec<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

/// What the store's directory takes on its filesystem.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FsUsage {
    /// Allocated bytes (512-byte blocks times 512).
    pub bytes: u64,
    /// Files and directories.
    pub inodes: u64,
}
