//! `/etc/hull/shim.toml`. Every key has a default; unknown keys are refused.

use hull_vmm_client::config::MemoryPages;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("reading {path}: {source}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not TOML, or has unknown keys or wrong types.
    #[error("{path}: {problem}")]
    Parse {
        /// Which.
        path: PathBuf,
        /// Why.
        problem: String,
    },
    /// A value that makes no sense.
    #[error("{place}{key}: {problem}")]
    Value {
        /// `<path>:<line>: `, or nothing when the value is not from a file.
        place: String,
        /// The key.
        key: &'static str,
        /// Why.
        problem: String,
    },
}

impl ConfigError {
    /// Adds the file and the line where it sets the key, if it does.
    pub fn in_file(self, path: &Path) -> Self {
        match self {
            ConfigError::Value { key, problem, .. } => {
                let text = std::fs::read_to_string(path).unwrap_or_default();
                let line = key.split(", ").find_map(|key| line_of(&text, key));
                let place = line.map(|line| format!("{}:{line}: ", path.display()));
                ConfigError::Value {
                    place: place.unwrap_or_default(),
                    key,
                    problem,
                }
            }
            other => other,
        }
    }
}

/// The line, from 1, that sets `key`, a table's name and a key or a key alone.
fn line_of(text: &str, key: &str) -> Option<usize> {
    let (table, name) = key.split_once('.').unwrap_or(("", key));
    let mut current = "";
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if let Some(header) = line
            .strip_prefix('[')
            .and_then(|rest| rest.split(']').next())
        {
            current = header.trim();
        }
        let (left, is_assignment) = match line.split_once('=') {
            Some((left, _)) => (left.trim(), true),
            None => ("", false),
        };
        if is_assignment && (current == table && left == name || current.is_empty() && left == key)
        {
            return Some(number + 1);
        }
    }
    None
}

/// Everything that can be set.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Journal, CNI results, images, scratch disks. Must survive a reboot.
    pub state_dir: PathBuf,
    /// Sockets, network namespaces, consoles. May be empty after a reboot.
    pub run_dir: PathBuf,
    /// The CRI socket.
    pub socket: PathBuf,
    /// Address of the streaming server for exec, attach and port-forward. Port 0: any free one.
    pub streaming_address: std::net::SocketAddr,
    /// Address of the metrics endpoint; absent: none.
    pub metrics_address: Option<std::net::SocketAddr>,
    /// Longest gRPC message that is accepted, bytes.
    pub max_message_bytes: usize,
    /// The virtual machines.
    pub vmm: VmmConfig,
    /// CNI.
    pub cni: CniConfig,
    /// Image registries.
    pub registries: hull_image::RegistryConfig,
    /// Volumes that are copied into guests.
    pub volumes: VolumeConfig,
}

/// `[vmm]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct VmmConfig {
    /// The hull-vmm program; absent: `hull-vmm` beside this program.
    pub program: Option<PathBuf>,
    /// The hull-fsd program, which serves host directories to pods; absent: `hull-fsd` beside
    /// this program.
    pub fsd_program: Option<PathBuf>,
    /// Guest kernel, an uncompressed ELF with a PVH note.
    pub kernel: PathBuf,
    /// Initramfs with hull-agent as /init.
    pub initramfs: PathBuf,
    /// Kernel command line.
    pub cmdline: String,
    /// vCPUs of a pod without CPU limits, and the least of any.
    pub vcpus: u8,
    /// RAM of a pod without memory limits, MiB; limits are added to it.
    pub memory_mib: u64,
    /// What guest RAM is made of: `normal` pages, `transparent` huge ones, or `hugetlb`.
    pub memory_pages: MemoryPages,
    /// Images that the containers of one pod may use at the same time.
    pub disk_slots: u8,
    /// Size of the disk for writable layers and emptyDirs, MiB.
    pub scratch_mib: u64,
    /// Time from VMM start to a ready agent, seconds, on hardware virtualisation;
    /// multiplied by HULL_TIMEOUT_SCALE.
    pub boot_timeout_seconds: u64,
    /// First user id of jailed VMMs. Each sandbox has its own.
    pub first_uid: u32,
    /// How many user ids there are: at most this many sandboxes.
    pub uid_count: u32,
    /// Whether VMMs install their seccomp filter. Off only to debug.
    pub seccomp: bool,
}

/// `[cni]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CniConfig {
    /// Where network configurations are; the first file of the first directory counts.
    pub config_dirs: Vec<PathBuf>,
    /// Where plugins are.
    pub plugin_dirs: Vec<PathBuf>,
    /// For one execution of one plugin, seconds; multiplied by HULL_TIMEOUT_SCALE.
    pub timeout_seconds: u64,
    /// How often the network of each pod is checked (CNI CHECK), seconds; 0: never.
    pub check_interval_seconds: u64,
}

/// `[volumes]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct VolumeConfig {
    /// Most content of one copied volume, MiB.
    pub max_copied_mib: u64,
    /// How often the host's side of copied volumes is looked at, milliseconds.
    pub resync_interval_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            state_dir: "/var/lib/hull".into(),
            run_dir: "/run/hull".into(),
            socket: "/run/hull/shim.sock".into(),
            streaming_address: std::net::SocketAddr::from(([127, 0, 0, 1], 0)),
            metrics_address: None,
            max_message_bytes: 16 << 20,
            vmm: VmmConfig::default(),
            cni: CniConfig::default(),
            registries: hull_image::RegistryConfig::default(),
            volumes: VolumeConfig::default(),
        }
    }
}

impl Default for VmmConfig {
    fn default() -> Self {
        Self {
            program: None,
            fsd_program: None,
            kernel: "/var/lib/hull/guest/vmlinux".into(),
            initramfs: "/var/lib/hull/guest/initramfs.cpio".into(),
            cmdline: hull_vmm_client::config::BASE_COMMAND_LINE.to_string(),
            vcpus: 1,
            memory_mib: 256,
            memory_pages: MemoryPages::default(),
            disk_slots: 8,
            scratch_mib: 2048,
            boot_timeout_seconds: 15,
            first_uid: 200_000,
            uid_count: 10_000,
            seccomp: true,
        }
    }
}

impl Default for CniConfig {
    fn default() -> Self {
        Self {
            config_dirs: vec!["/etc/cni/net.d".into()],
            plugin_dirs: vec!["/opt/cni/bin".into(), "/usr/lib/cni".into()],
            timeout_seconds: 60,
            check_interval_seconds: 300,
        }
    }
}

impl Default for VolumeConfig {
    fn default() -> Self {
        Self {
            max_copied_mib: 16,
            resync_interval_ms: 2000,
        }
    }
}

impl Config {
    /// Reads a file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_path_buf(),
            source,
        })?;
        toml::from_str(&text).map_err(|error| ConfigError::Parse {
            path: path.to_path_buf(),
            problem: error.to_string(),
        })
    }

    /// Checks what types cannot.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let value = |key: &'static str, problem: &str| ConfigError::Value {
            place: String::new(),
            key,
            problem: problem.to_string(),
        };
        /// sun_path of a unix socket, less its terminating zero.
        const MAX_SOCKET_PATH: usize = 107;
        /// `/sandboxes/<32 digits>/vmm/vsock_1023`.
        const LONGEST_SOCKET_BELOW_RUN_DIR: usize = 11 + 32 + 15 + 1;
        if !self.state_dir.is_absolute() || !self.run_dir.is_absolute() {
            return Err(value("state_dir, run_dir", "must be absolute"));
        }
        if self.run_dir.as_os_str().len() + LONGEST_SOCKET_BELOW_RUN_DIR > MAX_SOCKET_PATH {
            return Err(value("run_dir", "is too long for unix sockets below it"));
        }
        if self.vmm.vcpus == 0 || self.vmm.vcpus == u8::MAX {
            return Err(value("vmm.vcpus", "must be 1 to 254"));
        }
        if self.vmm.memory_mib < 64 {
            return Err(value("vmm.memory_mib", "must be 64 or more"));
        }
        if self.vmm.memory_pages == MemoryPages::Hugetlb && !self.vmm.memory_mib.is_multiple_of(2) {
            return Err(value(
                "vmm.memory_mib",
                "must be even with memory_pages = \"hugetlb\"",
            ));
        }
        if self.vmm.disk_slots == 0 || self.vmm.disk_slots > 24 {
            return Err(value("vmm.disk_slots", "must be 1 to 24"));
        }
        if self.vmm.scratch_mib < 16 {
            return Err(value("vmm.scratch_mib", "must be 16 or more"));
        }
        if self.vmm.first_uid == 0 || self.vmm.uid_count == 0 {
            return Err(value("vmm.first_uid, vmm.uid_count", "must not be 0"));
        }
        if self.vmm.boot_timeout_seconds == 0 || self.cni.timeout_seconds == 0 {
            return Err(value(
                "vmm.boot_timeout_seconds, cni.timeout_seconds",
                "must not be 0",
            ));
        }
        if self.volumes.max_copied_mib > 24 {
            return Err(value(
                "volumes.max_copied_mib",
                "must be 24 or less: one message carries it",
            ));
        }
        if self.volumes.resync_interval_ms < 100 {
            return Err(value("volumes.resync_interval_ms", "must be 100 or more"));
        }
        Ok(())
    }

    /// The VMM program.
    pub fn vmm_program(&self) -> PathBuf {
        let given = self.vmm.program.clone();
        given.unwrap_or_else(|| beside("hull-vmm"))
    }

    /// The hull-fsd program.
    pub fn fsd_program(&self) -> PathBuf {
        let given = self.vmm.fsd_program.clone();
        given.unwrap_or_else(|| beside("hull-fsd"))
    }
}

/// A program in the directory of this one.
fn beside(name: &str) -> PathBuf {
    let own = std::env::current_exe().ok();
    own.and_then(|own| own.parent().map(|directory| directory.join(name)))
        .unwrap_or_else(|| Path::new("/usr/bin").join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Config, ConfigError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Config::load(file.path())
    }

    #[test]
    fn defaults_are_valid_and_survive_their_own_text() {
        let config = Config::default();
        config.validate().unwrap();
        load(&toml::to_string(&config).unwrap())
            .unwrap()
            .validate()
            .unwrap();
        load("").unwrap();
    }

    #[test]
    fn unknown_keys_are_refused_by_name() {
        let error = load("[vmm]\nvcpu = 2\n").unwrap_err().to_string();
        assert!(error.contains("vcpu"), "{error}");
    }

    #[test]
    fn errors_name_the_line() {
        let error = load("state_dir = \"/a\"\n\n[vmm]\nvcpus = \"many\"\n").unwrap_err();
        assert!(error.to_string().contains("line 4"), "{error}");
        let file = tempfile::NamedTempFile::new().unwrap();
        for (text, line) in [
            ("# vmm.vcpus = 1\n[cni]\nvcpus = 3\n[vmm]\nvcpus = 0\n", 5),
            ("vmm.vcpus = 0\n", 1),
        ] {
            std::fs::write(file.path(), text).unwrap();
            let error = Config {
                vmm: VmmConfig {
                    vcpus: 0,
                    ..Default::default()
                },
                ..Default::default()
            }
            .validate()
            .unwrap_err()
            .in_file(file.path())
            .to_string();
            let place = format!("{}:{line}: vmm.vcpus", file.path().display());
            assert!(error.starts_with(&place), "{error}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "[vmm]\nvcpus = 0",
            "[vmm]\nmemory_mib = 1",
            "[vmm]\nmemory_mib = 129\nmemory_pages = \"hugetlb\"",
            "run_dir = \"relative\"",
        ] {
            assert!(load(text).unwrap().validate().is_err(), "{text}");
        }
    }
}
