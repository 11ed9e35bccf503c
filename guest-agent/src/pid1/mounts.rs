//! The guest's root and kernel filesystems.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::unistd::{chdir, chroot};

use crate::container::cgroup;
use crate::mounts::{MountError, mount_at};

/// Where the root is made ready.
const NEW_ROOT: &str = "/newroot";
/// Controllers that containers' limits and statistics need.
const CONTROLLERS: [&str; 6] = ["cpu", "memory", "pids", "io", "cpuset", "hugetlb"];

/// Why the guest has no root.
#[derive(Debug, thiserror::Error)]
pub enum BootMountError {
    /// See [`MountError`].
    #[error(transparent)]
    Mount(#[from] MountError),
    /// The operating system refused.
    #[error("cannot {doing} {path}: {source}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

/// Mounts the new root with everything in it, and gives the agent its console.
pub fn mount_new_root() -> Result<(), BootMountError> {
    let (no_dev, no_suid) = (MsFlags::MS_NODEV, MsFlags::MS_NOSUID);
    let kernel = no_dev | no_suid | MsFlags::MS_NOEXEC;
    let table: [(&str, &str, MsFlags, &str); 9] = [
        ("tmpfs", "", no_suid, "mode=0755"),
        ("devtmpfs", "dev", no_suid, "mode=0755"),
        (
            "devpts",
            "dev/pts",
            no_suid | MsFlags::MS_NOEXEC,
            "newinstance,ptmxmode=0666,mode=0620,gid=5",
        ),
        ("tmpfs", "dev/shm", no_dev | no_suid, "mode=1777"),
        ("proc", "proc", kernel, ""),
        ("sysfs", "sys", kernel, ""),
        ("cgroup2", "sys/fs/cgroup", kernel, ""),
        ("tmpfs", "run", no_dev | no_suid, "mode=0755"),
        ("tmpfs", "tmp", no_dev | no_suid, "mode=1777"),
    ];
    for (kind, place, flags, options) in table {
        let target = Path::new(NEW_ROOT).join(place);
        mount_at(kind, Path::new(kind), &target, flags, options)?;
    }
    let etc = Path::new(NEW_ROOT).join("etc");
    std::fs::create_dir(&etc).map_err(failed("make", &etc))?;
    open_console();
    Ok(())
}

/// Standard output and error to the console, whatever the kernel gave PID 1.
fn open_console() {
    let path = Path::new(NEW_ROOT).join("dev/console");
    // Without a console the agent works all the same.
    let Ok(console) = OpenOptions::new().read(true).write(true).open(path) else {
        return;
    };
    let _ = nix::unistd::dup2_stdout(&console);
    let _ = nix::unistd::dup2_stderr(&console);
    if let Ok(null) = std::fs::File::open(Path::new(NEW_ROOT).join("dev/null")) {
        let _ = nix::unistd::dup2_stdin(&null);
    }
}

/// Makes the new root the root, as switch_root(8) does, and frees the initramfs's
/// files. The agent's own program stays: its processes run from it.
pub fn enter_new_root() -> Result<(), BootMountError> {
    for name in ["lib", "etc"] {
        let path = Path::new("/").join(name);
        match std::fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed("remove", &path)(error));
            }
            _ => {}
        }
    }
    let root = Path::new(NEW_ROOT);
    let entered = || -> nix::Result<()> {
        chdir(root)?;
        let none = None::<&str>;
        mount(Some("."), "/", none, MsFlags::MS_MOVE, none)?;
        chroot(".")?;
        chdir("/")
    };
    entered().map_err(|errno| failed("enter", root)(errno.into()))
}

/// Delegates the controllers that the kernel has to the containers' cgroups.
pub fn enable_cgroup_controllers(parent: &str) -> Result<(), BootMountError> {
    let root = Path::new(cgroup::ROOT);
    let parent = root.join(parent.trim_start_matches('/'));
    std::fs::create_dir_all(&parent).map_err(failed("make", &parent))?;
    for directory in [root, &parent] {
        for controller in CONTROLLERS {
            // One that the kernel lacks is missed by the first limit that needs it.
            let _ = std::fs::write(
                directory.join("cgroup.subtree_control"),
                format!("+{controller}"),
            );
        }
    }
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(&parent, mode).map_err(failed("set the mode of", &parent))
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BootMountError {
    let path = path.to_owned();
    move |source| BootMountError::Io {
        doing,
        path,
        source,
    }
}
