//! Configuration of the store and of the registries it pulls from.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

pub(crate) use hull_timeouts::scaled;
use serde::{Deserialize, Serialize};

/// Opening a TCP connection, including TLS.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// From sending a request to the head of its answer.
pub(crate) const RESPONSE_TIMEOUT: Duration = Duration::from_secs(60);
/// A download that brings no byte for this long has failed. A slow one goes on.
pub(crate) const PROGRESS_TIMEOUT: Duration = Duration::from_secs(60);
/// Attempts at one blob before the pull fails; each goes on where the last one broke off.
pub(crate) const BLOB_ATTEMPTS: u32 = 4;
/// Pause before the second attempt, doubled for each further one.
pub(crate) const BLOB_RETRY_PAUSE: Duration = Duration::from_millis(250);
/// Layers of one image that are downloaded at the same time.
pub(crate) const LAYERS_AT_ONCE: usize = 3;
/// Blobs that the whole store downloads at the same time.
pub(crate) const BLOBS_AT_ONCE: usize = 6;
/// HTTP redirects followed for one request.
pub(crate) const MAX_REDIRECTS: usize = 5;
/// Bytes of a registry's error answer that are read and shown.
pub(crate) const MAX_ERROR_BODY_BYTES: usize = 4096;

/// Where the store lives and where it pulls from.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreConfig {
    /// Directory of the store, made if absent; one process at a time may have it open.
    pub root: PathBuf,
    /// Registries that need other than the default treatment.
    #[serde(default)]
    pub registries: RegistryConfig,
    /// Bounds on what an image may make the host spend.
    #[serde(default)]
    pub limits: Limits,
}

impl StoreConfig {
    /// A store in `root` with default registries and limits.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            registries: RegistryConfig::default(),
            limits: Limits::default(),
        }
    }
}

/// Registries by the name that references use, such as `docker.io` or `registry.example:5000`.
///
/// ```toml
/// [hosts."docker.io"]
/// endpoints = ["http://127.0.0.1:5000"]
/// fall_back = false
///
/// [hosts."registry.example:5000"]
/// ca_file = "/etc/hull/registry-ca.pem"
/// ```
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RegistryConfig {
    /// Treatment by registry name. A registry that is not listed is reached by HTTPS at its own
    /// address, except one on a loopback address, which is reached by HTTP as Docker does.
    pub hosts: BTreeMap<String, HostConfig>,
}

/// How one registry is reached.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HostConfig {
    /// Base URLs tried in this order before the registry's own address: mirrors, caches.
    /// Each is `http://HOST[:PORT]` or `https://HOST[:PORT]`; `http` is used only where it is
    /// written here.
    pub endpoints: Vec<String>,
    /// Whether the registry's own address is tried after the endpoints.
    pub fall_back: bool,
    /// The registry's own address is reached by HTTP, and certificates are not verified on
    /// HTTPS endpoints.
    pub insecure: bool,
    /// PEM file with certificate authorities trusted in addition to the system's.
    pub ca_file: Option<PathBuf>,
    /// Whether a pod's credentials for this registry may be sent to the endpoints too.
    pub forward_credentials: bool,
}

impl Default for HostConfig {
    fn default() -> Self {
        Self {
            endpoints: Vec::new(),
            fall_back: true,
            insecure: false,
            ca_file: None,
            forward_credentials: false,
        }
    }
}

/// Bounds on what a (possibly hostile) image may make the host spend.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Manifest or index, in bytes. Registries are only asked to accept 4 MiB.
    pub max_manifest_bytes: u64,
    /// Image configuration, in bytes.
    pub max_config_bytes: u64,
    /// Layers of one image.
    pub max_layers: usize,
    /// All layers of one image together, uncompressed, in bytes.
    pub max_uncompressed_bytes: u64,
    /// Entries of all layers of one image together, implicit directories included.
    pub max_entries: u64,
    /// `/etc/passwd` and `/etc/group`, each, in bytes.
    pub max_passwd_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_manifest_bytes: 4 << 20,
            max_config_bytes: 8 << 20,
            max_layers: 512,
            max_uncompressed_bytes: 64 << 30,
            max_entries: 4_000_000,
            max_passwd_bytes: 1 << 20,
        }
    }
}
