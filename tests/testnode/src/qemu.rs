//! The QEMU command line of a node.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::cpus;
use crate::protocol::AGENT_PORT;

/// The emulator and the Debian package that brings it.
pub const PROGRAM: &str = "qemu-system-x86_64";
/// Debian package of [`PROGRAM`].
pub const PACKAGE: &str = "qemu-system-x86";
/// Where `scripts/qemu.sh` puts an emulator newer than the system's, below the cache directory.
const OWN_PROGRAM: &str = "tools/qemu/qemu-system-x86_64";

/// Memory of a node in MiB unless told otherwise. Untouched memory costs the host nothing.
pub const DEFAULT_MEMORY_MIB: u32 = 8192;
/// vCPUs of a node for commands unless told otherwise; it has [`cpus::RESERVED`] more.
pub const DEFAULT_CPUS: u32 = 2;
/// Size of the node's disk in GiB unless told otherwise. The file is sparse.
pub const DEFAULT_DISK_GIB: u32 = 32;
/// Size of the buffer for translated code in MiB.
const TRANSLATION_BUFFER_MIB: u32 = 512;

/// A TCP port of the host's loopback that leads into the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forward {
    /// Port on 127.0.0.1 of the host.
    pub host: u16,
    /// Port inside the node.
    pub guest: u16,
}

impl std::str::FromStr for Forward {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = |port: &str| match port.parse::<u16>() {
            Ok(0) | Err(_) => Err(format!("{port:?} is not a port number")),
            Ok(port) => Ok(port),
        };
        let (host, guest) = text.split_once(':').unwrap_or((text, text));
        Ok(Self {
            host: parse(host)?,
            guest: parse(guest)?,
        })
    }
}

/// What a node is made of. `None` means the default, and any value for a node that runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Options {
    /// Memory in MiB.
    pub memory_mib: Option<u32>,
    /// Number of vCPUs.
    pub cpus: Option<u32>,
    /// Size of the disk at /var/lib/hull in GiB.
    pub disk_gib: Option<u32>,
    /// Ports that lead into the node.
    pub forwards: Vec<Forward>,
    /// Extra `-device` arguments, in order.
    pub devices: Vec<String>,
    /// Further words of QEMU's command line, before the devices: back ends for them.
    #[serde(default)]
    pub backends: Vec<String>,
    /// Words to add to the kernel command line.
    pub kernel_args: Vec<String>,
    /// Cut the node off from every network but its port forwards.
    pub isolated: bool,
}

/// The files of one node that QEMU opens.
#[derive(Debug)]
pub struct Files {
    /// Kernel image.
    pub kernel: PathBuf,
    /// Initramfs.
    pub initramfs: PathBuf,
    /// Raw disk.
    pub disk: PathBuf,
    /// Directory shared read-write.
    pub share: PathBuf,
    /// Where the serial console is kept.
    pub console: PathBuf,
    /// This program, which the guest runs as init.
    pub program: PathBuf,
    /// The guest's configuration.
    pub config: PathBuf,
}

/// The emulator to start: the one in the cache directory `cache`, else the system's.
pub fn program(cache: &Path) -> PathBuf {
    let own = cache.join(OWN_PROGRAM);
    if own.exists() {
        own
    } else {
        PathBuf::from(PROGRAM)
    }
}

/// QEMU's arguments.
pub fn arguments(name: &str, options: &Options, files: &Files, agent_port: u16) -> Vec<String> {
    let mut args: Vec<String> = Vec::new();
    let mut add = |words: &[&str]| args.extend(words.iter().map(|word| (*word).to_owned()));
    let memory = options.memory_mib.unwrap_or(DEFAULT_MEMORY_MIB).to_string();
    let cpus = (options.cpus.unwrap_or(DEFAULT_CPUS) + cpus::RESERVED).to_string();
    add(&[
        "-name",
        &format!("hull-testnode-{name}"),
        "-nodefaults",
        "-no-user-config",
    ]);
    add(&[
        "-display",
        "none",
        "-no-reboot",
        "-M",
        "q35,kernel-irqchip=off",
    ]);
    add(&[
        "-accel",
        &format!("tcg,thread=multi,tb-size={TRANSLATION_BUFFER_MIB}"),
    ]);
    add(&["-cpu", "EPYC,+svm,+npt", "-smp", &cpus, "-m", &memory]);
    add(&["-serial", &format!("file:{}", quoted(&files.console))]);
    add(&["-kernel", &files.kernel.to_string_lossy()]);
    add(&["-initrd", &files.initramfs.to_string_lossy()]);
    add(&["-append", &kernel_command_line(options, files)]);
    // Two read-only exports of the same root: a 9p channel carries one mount, and the
    // boot root and the live directories need different caching.
    let root = Path::new("/");
    for (tag, path, read_only) in [
        ("host", root, "on"),
        ("live", root, "on"),
        ("share", files.share.as_path(), "off"),
    ] {
        let path = quoted(path);
        add(&[
            "-fsdev",
            &format!(
                "local,id={tag},path={path},security_model=none,readonly={read_only},multidevs=remap"
            ),
        ]);
        add(&[
            "-device",
            &format!("virtio-9p-pci,fsdev={tag},mount_tag={tag}"),
        ]);
    }
    let disk = quoted(&files.disk);
    add(&[
        "-drive",
        &format!("file={disk},if=none,id=disk,format=raw,discard=unmap"),
    ]);
    add(&["-device", "virtio-blk-pci,drive=disk,serial=hull"]);
    add(&[
        "-netdev",
        &network(options, agent_port),
        "-device",
        "virtio-net-pci,netdev=net,romfile=",
    ]);
    add(&["-device", "virtio-rng-pci"]);
    for word in &options.backends {
        add(&[word]);
    }
    for device in &options.devices {
        add(&["-device", device]);
    }
    args
}

fn network(options: &Options, agent_port: u16) -> String {
    let mut text = format!("user,id=net,hostfwd=tcp:127.0.0.1:{agent_port}-:{AGENT_PORT}");
    for Forward { host, guest } in &options.forwards {
        text.push_str(&format!(",hostfwd=tcp:127.0.0.1:{host}-:{guest}"));
    }
    if options.isolated {
        text.push_str(",restrict=on");
    }
    text
}

fn kernel_command_line(options: &Options, files: &Files) -> String {
    let mut words = vec![
        "console=ttyS0".to_owned(),
        "quiet".to_owned(),
        "panic=-1".to_owned(),
        // Software emulation cannot be attacked through speculation; the work-arounds
        // only cost time.
        "mitigations=off".to_owned(),
        "nowatchdog".to_owned(),
        // On a busy host the boot's check that timer interrupts arrive can fail by chance.
        "no_timer_check".to_owned(),
        "net.ifnames=0".to_owned(),
        format!("hull_exe={}", files.program.display()),
        format!("hull_config={}", files.config.display()),
    ];
    words.extend(options.kernel_args.iter().cloned());
    words.join(" ")
}

/// QEMU splits option values at commas; a doubled comma stands for one.
fn quoted(path: &Path) -> String {
    path.to_string_lossy().replace(',', ",,")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files() -> Files {
        let path = PathBuf::from;
        Files {
            kernel: path("/k"),
            initramfs: path("/i"),
            disk: path("/a,b/disk"),
            share: path("/s"),
            console: path("/c"),
            program: path("/p"),
            config: path("/g"),
        }
    }

    #[test]
    fn the_emulator_of_the_cache_comes_before_the_systems() {
        let cache = tempfile::tempdir().unwrap();
        assert_eq!(program(cache.path()), Path::new(PROGRAM));
        let own = cache.path().join(OWN_PROGRAM);
        std::fs::create_dir_all(own.parent().unwrap()).unwrap();
        std::fs::write(&own, "").unwrap();
        assert_eq!(program(cache.path()), own);
    }

    #[test]
    fn forwards_bind_loopback_only() {
        let options = Options {
            forwards: vec!["6443".parse().unwrap(), "8080:80".parse().unwrap()],
            isolated: true,
            ..Options::default()
        };
        let line = arguments("x", &options, &files(), 4000).join(" ");
        assert!(line.contains("hostfwd=tcp:127.0.0.1:6443-:6443,hostfwd=tcp:127.0.0.1:8080-:80"));
        assert!(line.contains("restrict=on"));
        assert!(!line.contains("hostfwd=tcp::"));
    }

    #[test]
    fn the_host_is_exported_read_only_and_commas_are_escaped() {
        let line = arguments("x", &Options::default(), &files(), 4000).join(" ");
        assert_eq!(
            line.matches("path=/,security_model=none,readonly=on")
                .count(),
            2
        );
        assert!(line.contains("file=/a,,b/disk,"));
    }

    #[test]
    fn a_node_of_an_earlier_version_can_be_read() {
        let text = r#"{"memory_mib":1,"cpus":null,"disk_gib":null,"forwards":[],
            "devices":[],"kernel_args":[],"isolated":false}"#;
        let options: Options = serde_json::from_str(text).unwrap();
        assert_eq!(options.memory_mib, Some(1));
    }

    #[test]
    fn back_ends_come_before_the_devices_that_use_them() {
        let options = Options {
            backends: vec!["-object".into(), "memory-backend-ram,id=m,size=1M".into()],
            devices: vec!["ivshmem-plain,memdev=m".into()],
            ..Options::default()
        };
        let line = arguments("x", &options, &files(), 4000).join(" ");
        assert!(
            line.ends_with(
                "-object memory-backend-ram,id=m,size=1M -device ivshmem-plain,memdev=m"
            )
        );
    }

    #[test]
    fn refuses_ports_that_are_none() {
        for text in ["", "0", "70000:80", "80:x", "1:2:3"] {
            assert!(text.parse::<Forward>().is_err(), "{text}");
        }
    }
}
