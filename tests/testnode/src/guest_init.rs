//! PID 1 of the node, from the moment the host's root is mounted.
//!
//! It mounts what a machine has, sets the name, loads modules, starts the guest agent,
//! and reaps orphans for ever.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::stat::{Mode, umask};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, sethostname};

use crate::cache::{CacheError, io_error};
use crate::cpus;
use crate::protocol::GuestConfig;

/// Where everything of the testnode lies inside the node.
pub const RUNTIME_DIRECTORY: &str = "/run/hull-testnode";
/// Documentation/admin-guide/mm/transhuge.rst of the kernel.
const HUGE_PAGES_OF_SHARED_MEMORY: &str = "/sys/kernel/mm/transparent_hugepage/shmem_enabled";
/// Open files that one process inside may have.
const OPEN_FILES: u64 = 1 << 20;

/// Modules that nothing loads on demand, or that a test wants before it asks. Others
/// come by the kernel's own requests through `modprobe`.
const MODULES: [&str; 16] = [
    "virtio_blk",
    "ext4",
    "kvm_amd",
    "tun",
    "loop",
    "fuse",
    "erofs",
    "vhost_net",
    "vhost_vsock",
    "br_netfilter",
    "veth",
    "bridge",
    "act_mirred",
    "cls_matchall",
    "sch_ingress",
    "vfio_pci",
];

/// Why guest init gave up.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// A file operation failed.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// The configuration is not readable as such.
    #[error("configuration {path}: {source}")]
    Config {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// A file system could not be mounted.
    #[error("mounting {target}: {source}")]
    Mount {
        /// The mount point.
        target: PathBuf,
        /// Why.
        source: nix::Error,
    },
    /// A system call failed.
    #[error("{doing}: {source}")]
    System {
        /// What was being done.
        doing: &'static str,
        /// Why it failed.
        source: nix::Error,
    },
    /// The agent did not start.
    #[error("starting the guest agent: {0}")]
    Agent(std::io::Error),
}

/// Runs as PID 1. Returns only when something failed; the caller powers off.
pub fn run(config_file: &Path) -> InitError {
    match set_up(config_file).and_then(|config| serve(&config)) {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

/// Ends the machine at once.
pub fn power_off() {
    nix::unistd::sync();
    let _ = reboot(RebootMode::RB_POWER_OFF);
}

fn set_up(config_file: &Path) -> Result<GuestConfig, InitError> {
    umask(Mode::from_bits_truncate(0o022));
    // Before anything is mounted: the state directory may lie below /tmp.
    let bytes = fs::read(config_file).map_err(io_error("reading", config_file))?;
    let config: GuestConfig =
        serde_json::from_slice(&bytes).map_err(|source| InitError::Config {
            path: config_file.to_owned(),
            source,
        })?;
    mount_kernel_filesystems()?;
    load_modules(&config)?;
    mount_storage()?;
    name_machine(&config)?;
    for controllers in controllers()? {
        let _ = fs::write(
            "/sys/fs/cgroup/cgroup.subtree_control",
            format!("+{controllers}"),
        );
    }
    cpus::reserve_the_first()?;
    guest_memory_in_huge_pages();
    make_live(&config.cache)?;
    let limit = setrlimit(Resource::RLIMIT_NOFILE, OPEN_FILES, OPEN_FILES);
    limit.map_err(|source| InitError::System {
        doing: "raising the open file limit",
        source,
    })?;
    Ok(config)
}

fn mount_kernel_filesystems() -> Result<(), InitError> {
    let hard = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC | MsFlags::MS_NODEV;
    let dev = MsFlags::MS_NOSUID;
    let tmp = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    attach("proc", "/proc", "proc", hard, "")?;
    attach("sysfs", "/sys", "sysfs", hard, "")?;
    attach("devtmpfs", "/dev", "devtmpfs", dev, "mode=755")?;
    attach(
        "devpts",
        "/dev/pts",
        "devpts",
        dev | MsFlags::MS_NOEXEC,
        "gid=5,mode=620,ptmxmode=666",
    )?;
    attach("shm", "/dev/shm", "tmpfs", tmp, "mode=1777")?;
    attach("mqueue", "/dev/mqueue", "mqueue", hard, "")?;
    attach("cgroup2", "/sys/fs/cgroup", "cgroup2", hard, "nsdelegate")?;
    attach("bpf", "/sys/fs/bpf", "bpf", hard, "mode=700")?;
    attach("securityfs", "/sys/kernel/security", "securityfs", hard, "")?;
    attach("tracefs", "/sys/kernel/tracing", "tracefs", hard, "")?;
    attach("run", "/run", "tmpfs", tmp, "mode=755")?;
    attach("tmp", "/tmp", "tmpfs", tmp, "mode=1777,size=50%")?;
    fs::create_dir_all("/run/lock").map_err(io_error("creating", Path::new("/run/lock")))?;
    for (name, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ] {
        let path = Path::new("/dev").join(name);
        symlink(target, &path).map_err(io_error("creating", &path))?;
    }
    Ok(())
}

fn mount_storage() -> Result<(), InitError> {
    const NINEP: &str = "trans=virtio,version=9p2000.L,msize=524288,cache=";
    let plain = MsFlags::empty();
    // `mmap` caches nothing but mapped pages: every look-up asks the host, so programs
    // rebuilt on the host while the node is up are seen.
    attach(
        "live",
        &host_view(),
        "9p",
        MsFlags::MS_RDONLY,
        &format!("{NINEP}mmap"),
    )?;
    attach(
        "share",
        &format!("{RUNTIME_DIRECTORY}/share"),
        "9p",
        plain,
        &format!("{NINEP}none"),
    )?;
    attach("/dev/vda", "/var/lib/hull", "ext4", plain, "discard")
}

fn host_view() -> String {
    format!("{RUNTIME_DIRECTORY}/host")
}

fn attach(
    source: &str,
    target: &str,
    kind: &str,
    flags: MsFlags,
    data: &str,
) -> Result<(), InitError> {
    let target = Path::new(target);
    if !target.exists() {
        fs::create_dir_all(target).map_err(io_error("creating mount point", target))?;
    }
    mount(Some(source), target, Some(kind), flags, Some(data)).map_err(|source| InitError::Mount {
        target: target.to_owned(),
        source,
    })
}

/// Nested page faults are what an emulated processor is slowest at: a guest whose memory (a
/// memfd) comes in pages of 2 MiB boots in two thirds of the time. Only slower without.
fn guest_memory_in_huge_pages() {
    if let Err(error) = fs::write(HUGE_PAGES_OF_SHARED_MEMORY, "always") {
        tracing::warn!(%error, "no huge pages for shared memory: guests boot slowly");
    }
}

fn name_machine(config: &GuestConfig) -> Result<(), InitError> {
    sethostname(&config.name).map_err(|source| InitError::System {
        doing: "setting the host name",
        source,
    })?;
    let name = &config.name;
    for (path, text) in [
        ("/etc/hostname", format!("{name}\n")),
        (
            "/etc/hosts",
            format!("127.0.0.1 localhost\n::1 localhost\n10.0.2.15 {name}\n"),
        ),
        // QEMU's user network answers names here.
        ("/etc/resolv.conf", "nameserver 10.0.2.3\n".to_owned()),
    ] {
        let path = Path::new(path);
        // May be a symbolic link into something that is not mounted here.
        let _ = fs::remove_file(path);
        fs::write(path, text).map_err(io_error("writing", path))?;
    }
    Ok(())
}

fn controllers() -> Result<Vec<String>, InitError> {
    let path = Path::new("/sys/fs/cgroup/cgroup.controllers");
    let text = fs::read_to_string(path).map_err(io_error("reading", path))?;
    Ok(text.split_whitespace().map(str::to_owned).collect())
}

fn load_modules(config: &GuestConfig) -> Result<(), InitError> {
    let version = config.modules.file_name().unwrap_or_default();
    let target = Path::new("/lib/modules").join(version);
    bind(&config.modules, &target)?;
    // A module that fails to load is a matter for the test that needs it.
    match Command::new("/sbin/modprobe")
        .arg("-a")
        .args(MODULES)
        .status()
    {
        Ok(status) if status.success() => {}
        Ok(status) => tracing::warn!(%status, "modprobe failed for some modules"),
        Err(error) => tracing::warn!(%error, "no modprobe: install the Debian package kmod"),
    }
    Ok(())
}

fn bind(from: &Path, to: &Path) -> Result<(), InitError> {
    fs::create_dir_all(to).map_err(io_error("creating mount point", to))?;
    mount(Some(from), to, None::<&str>, MsFlags::MS_BIND, None::<&str>).map_err(|source| {
        InitError::Mount {
            target: to.to_owned(),
            source,
        }
    })
}

/// Makes changes that the host makes below `path` visible inside, read-only, by
/// mounting the uncached view of the host over it. Does nothing if that is done, or
/// if the host has no such directory.
pub fn make_live(path: &Path) -> Result<(), InitError> {
    let Ok(relative) = path.strip_prefix("/") else {
        return Ok(());
    };
    let source = Path::new(&host_view()).join(relative);
    if relative.as_os_str().is_empty() || !source.is_dir() || is_live(path)? {
        return Ok(());
    }
    bind(&source, path)?;
    // Cargo gives integration tests this directory to write to.
    let scratch = path.join("tmp");
    if path.join("CACHEDIR.TAG").exists() && scratch.is_dir() {
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        mount(
            Some("tmp"),
            &scratch,
            Some("tmpfs"),
            flags,
            Some("mode=755"),
        )
        .map_err(|source| InitError::Mount {
            target: scratch.clone(),
            source,
        })?;
    }
    Ok(())
}

/// Whether the mount that holds `path` is the live view already.
fn is_live(path: &Path) -> Result<bool, InitError> {
    let table = Path::new("/proc/self/mountinfo");
    let text = fs::read_to_string(table).map_err(io_error("reading", table))?;
    Ok(holder_is_live(&text, path))
}

/// The last mount on the longest prefix holds the path (proc(5), mountinfo).
fn holder_is_live(mountinfo: &str, path: &Path) -> bool {
    let mut best: Option<(usize, bool)> = None;
    for line in mountinfo.lines() {
        let Some((mount, filesystem)) = line.split_once(" - ") else {
            continue;
        };
        let Some(point) = mount.split(' ').nth(4) else {
            continue;
        };
        let point = Path::new(point);
        let depth = point.components().count();
        if path.starts_with(point) && best.is_none_or(|(deepest, _)| depth >= deepest) {
            best = Some((depth, filesystem.starts_with("9p live ")));
        }
    }
    best.is_some_and(|(_, live)| live)
}

fn serve(config: &GuestConfig) -> Result<std::convert::Infallible, InitError> {
    let token = Path::new(RUNTIME_DIRECTORY).join("token");
    fs::write(&token, &config.token).map_err(io_error("writing", &token))?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    fs::set_permissions(&token, mode).map_err(io_error("protecting", &token))?;
    let child = Command::new("/proc/self/exe")
        .arg("guest-agent")
        .arg(&token)
        .current_dir("/")
        .spawn()
        .map_err(InitError::Agent)?;
    let agent = Pid::from_raw(child.id() as i32);
    loop {
        match waitpid(None, Some(WaitPidFlag::empty())) {
            Ok(WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, _, _)) if pid == agent => {
                return Err(InitError::Agent(std::io::Error::other("it ended")));
            }
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(source) => {
                return Err(InitError::System {
                    doing: "waiting for processes",
                    source,
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "1 0 0:1 / / rw - overlay root rw\n\
        2 1 0:2 / /tmp rw - tmpfs tmp rw\n\
        3 1 0:3 /srv/project /srv/project ro - 9p live ro\n\
        4 3 0:4 / /srv/project/target/tmp rw - tmpfs tmp rw\n";

    #[test]
    fn the_deepest_mount_decides_whether_a_path_is_live() {
        let live = |path: &str| holder_is_live(TABLE, Path::new(path));
        assert!(live("/srv/project"));
        assert!(live("/srv/project/src"));
        assert!(!live("/srv/project/target/tmp/x"));
        assert!(!live("/srv/projects"));
        assert!(!live("/tmp"));
    }
}
