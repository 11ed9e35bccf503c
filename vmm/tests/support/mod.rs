//! A real guest for the node tests: the pods' kernel and initramfs, with a shell script as
//! init that plays one scenario.

use std::fs::{self, File};
use std::io::{Seek, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use hull_testnode::guest::Guest;
use hull_vmm_client::client::ControlClient;
use hull_vmm_client::config::{
    BASE_COMMAND_LINE, BootConfig, DiskConfig, FsConfig, JailConfig, MemoryPages, NetConfig,
    VfioConfig, VfioDeviceConfig, VfioGroupConfig, VmConfig, VsockConfig,
};
use hull_vmm_client::exit::{ExitRecord, read_record};
use hull_vmm_client::rate::RateLimits;
use hull_vmm_client::{scaled, spawn, vfio};

const INIT: &str = include_str!("init.sh");
const JAIL_USER: u32 = 64_123;
const POLL: Duration = Duration::from_millis(20);
/// A boot takes a second on hardware.
const WAIT: Duration = Duration::from_secs(12);

static NEXT: AtomicU32 = AtomicU32::new(0);

/// What a guest is given beside kernel and console.
#[derive(Default)]
pub struct Options {
    pub scenario: &'static str,
    pub vcpus: u8,
    pub disks: Vec<(&'static str, Option<File>, bool)>,
    pub tap: Option<OwnedFd>,
    /// A network that is given a tap later.
    pub net_without_tap: bool,
    pub kernel: Option<File>,
    pub without_jail: bool,
    /// More of the kernel command line.
    pub kernel_arguments: &'static str,
    /// A kernel module, at /module.ko of the guest.
    pub module: Option<PathBuf>,
    /// Of every disk.
    pub disk_limits: RateLimits,
    /// PCI addresses of devices that are passed through, each alone in its group.
    pub passed_through: Vec<String>,
    pub memory_pages: MemoryPages,
}

/// A running VMM and its files.
pub struct Machine {
    pub directory: PathBuf,
    pub child: Child,
    pub control: ControlClient,
    _files: Vec<OwnedFd>,
}

impl Machine {
    pub fn start(options: Options) -> Self {
        let directory = std::env::temp_dir().join(format!(
            "hull-node-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        ));
        fs::create_dir_all(&directory).unwrap();
        give_to_jail(&directory);
        let control_path = directory.join("control");
        let mut files: Vec<OwnedFd> = Vec::new();
        let mut keep = |file: OwnedFd| {
            files.push(file);
            files.last().unwrap().as_raw_fd()
        };
        let new = |name: &str| {
            File::options()
                .read(true)
                .write(true)
                .create(true)
                .truncate(true)
                .open(directory.join(name))
                .unwrap()
        };
        let nets = (options.tap.is_some() || options.net_without_tap).then(|| NetConfig {
            id: "eth0".into(),
            tap_fd: options.tap.map(&mut keep),
            mac: "02:00:00:00:00:02".into(),
            mtu: 1400,
            receive_limits: RateLimits::default(),
            send_limits: RateLimits::default(),
        });
        let disks = options
            .disks
            .into_iter()
            .map(|(serial, file, read_only)| DiskConfig {
                serial: serial.into(),
                fd: file.map(|file| keep(file.into())),
                read_only,
                limits: options.disk_limits,
            })
            .collect();
        let vfio = (!options.passed_through.is_empty()).then(|| VfioConfig {
            container_fd: keep(vfio::container().unwrap()),
            groups: options
                .passed_through
                .iter()
                .map(|address| VfioGroupConfig {
                    fd: keep(vfio::group(vfio::group_of(address).unwrap()).unwrap()),
                    devices: vec![VfioDeviceConfig {
                        id: "passed".into(),
                        address: address.clone(),
                    }],
                })
                .collect(),
        });
        let kernel = options
            .kernel
            .unwrap_or_else(|| File::open(Guest::in_cache().unwrap().kernel).unwrap());
        let config = VmConfig {
            id: "node-test".into(),
            kvm_fd: keep(
                File::options()
                    .read(true)
                    .write(true)
                    .open("/dev/kvm")
                    .unwrap()
                    .into(),
            ),
            vcpus: options.vcpus.max(1),
            memory_mib: 256,
            memory_pages: options.memory_pages,
            boot: BootConfig {
                kernel_fd: keep(kernel.into()),
                initramfs_fd: Some(keep(
                    initramfs(&directory, options.module.as_deref()).into(),
                )),
                cmdline: format!(
                    "{BASE_COMMAND_LINE} {} scenario={}",
                    options.kernel_arguments, options.scenario
                ),
            },
            disks,
            nets: nets.into_iter().collect(),
            fs: Some(FsConfig {
                tag: "hull".into(),
                request_queues: 1,
                socket_fd: None,
            }),
            balloon: vfio.is_none() && options.memory_pages != MemoryPages::Hugetlb,
            vfio,
            vsock: Some(VsockConfig {
                guest_cid: 3,
                listener_fd: keep(UnixListener::bind(directory.join("v")).unwrap().into()),
                guest_socket_dir_fd: keep(File::open(&directory).unwrap().into()),
                guest_socket_prefix: "v".into(),
            }),
            console_fd: keep(new("console").into()),
            control_fd: keep(UnixListener::bind(&control_path).unwrap().into()),
            exit_fd: keep(new("exit").into()),
            jail: (!options.without_jail).then_some(JailConfig {
                uid: JAIL_USER,
                gid: JAIL_USER,
                seccomp: true,
            }),
        };
        let child = spawn::spawn(
            Path::new(env!("CARGO_BIN_EXE_hull-vmm")),
            &config,
            Stdio::from(new("log")),
        )
        .unwrap();
        Self {
            directory,
            child,
            control: ControlClient::new(control_path),
            _files: files,
        }
    }

    pub fn console(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.directory.join("console")).unwrap()).into_owned()
    }

    /// Waits until the guest prints `text`.
    pub fn expect(&mut self, text: &str) {
        let done =
            wait_for(|| self.console().contains(text) || self.child.try_wait().unwrap().is_some());
        let console = self.console();
        assert!(done && console.contains(text), "no {text:?} in\n{console}");
    }

    /// Waits for the end of the VMM.
    pub fn end(&mut self) -> (ExitRecord, ExitStatus) {
        let mut status = None;
        wait_for(|| {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        let status = status.unwrap_or_else(|| panic!("no end; console:\n{}", self.console()));
        let text = fs::read_to_string(self.directory.join("exit")).unwrap();
        (read_record(&text, Some(status)), status)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(self.directory.join("log")).unwrap_or_default();
            let ended = self.child.try_wait();
            let record = fs::read_to_string(self.directory.join("exit"));
            eprintln!(
                "console:\n{}\nlog:\n{log}\nended: {ended:?} {record:?}",
                self.console()
            );
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Polls `condition` until it holds; false when it does not in time.
pub fn wait_for(mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + scaled(WAIT);
    while !condition() {
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(POLL);
    }
    true
}

/// Makes a file reachable for the jailed VMM.
pub fn give_to_jail(path: &Path) {
    std::os::unix::fs::chown(path, Some(JAIL_USER), Some(JAIL_USER)).unwrap();
}

/// A file of `bytes` that is gone when it is closed.
pub fn disk_file(directory: &Path, bytes: &[u8]) -> File {
    let path = directory.join(format!("disk-{}", NEXT.fetch_add(1, Ordering::Relaxed)));
    let mut file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)
        .unwrap();
    file.write_all(bytes).unwrap();
    fs::remove_file(path).unwrap();
    file
}

/// The pods' initramfs, then an archive that puts the scenario in the place of its init.
fn initramfs(directory: &Path, module: Option<&Path>) -> File {
    let path = directory.join("initramfs");
    let mut bytes = fs::read(Guest::in_cache().unwrap().initramfs).unwrap();
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    let mut archive = Archive(bytes);
    for directory in ["bin", "lib", "lib/x86_64-linux-gnu", "lib64"] {
        archive.add(directory, 0o040_755, b"");
    }
    archive.add("init", 0o100_755, INIT.as_bytes());
    archive.add("bin/busybox", 0o100_755, &fs::read("/bin/busybox").unwrap());
    let helper = Path::new(env!("CARGO_BIN_EXE_hull-vmm"))
        .with_file_name("examples")
        .join("guest_helper");
    for library in libraries(&helper) {
        let name = library.trim_start_matches('/').trim_start_matches("usr/");
        archive.add(name, 0o100_755, &fs::read(&library).unwrap());
    }
    archive.add("bin/helper", 0o100_755, &fs::read(helper).unwrap());
    if let Some(module) = module {
        archive.add("module.ko", 0o100_644, &fs::read(module).unwrap());
    }
    archive.add("TRAILER!!!", 0, b"");
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)
        .unwrap();
    file.write_all(&archive.0).unwrap();
    file.rewind().unwrap();
    file
}

/// Absolute paths in the output of ldd: the loader and the libraries.
fn libraries(program: &Path) -> Vec<String> {
    let output = Command::new("ldd").arg(program).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.split_whitespace()
        .filter(|word| word.starts_with('/'))
        .map(str::to_owned)
        .collect()
}

/// A cpio archive in the "newc" format.
struct Archive(Vec<u8>);

impl Archive {
    fn add(&mut self, name: &str, mode: u32, content: &[u8]) {
        let name_bytes = name.len() + 1;
        let fields = [
            0,
            mode,
            0,
            0,
            1,
            0,
            content.len() as u32,
            0,
            0,
            0,
            0,
            name_bytes as u32,
            0,
        ];
        self.0.extend_from_slice(b"070701");
        for field in fields {
            self.0.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.0.extend_from_slice(name.as_bytes());
        self.0.push(0);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }
}
