//! What the process gives up before it serves: its namespaces, the host's files, its user.
//!
//! The server gives files to whom the guest says, so it needs the capabilities on files that
//! root has. It has them in a user namespace of its own in which every user and group is
//! itself: there they count for files, and for nothing else of the host (no mounts, devices,
//! modules, trusted attributes, other processes). Its own user is that of the pod.
//!
//! The PID namespace is made by whoever starts the process ([`hull_vmm_client::fsd::spawn`]).

use std::ffi::CString;
use std::io;

use hull_vmm_client::config::JailConfig;
use rustix::fs::{Gid, Mode, Uid};
use rustix::mount::{MountFlags, MountPropagationFlags, OpenTreeFlags, UnmountFlags};
use rustix::process::{Resource, Rlimit};
use rustix::thread::{CapabilitiesSecureBits, CapabilitySet, CapabilitySets, UnshareFlags};

use crate::system::Descriptors;

/// A directory that every host has, covered in the own mount namespace only.
const MOUNT_POINT: &str = "/proc";
/// Every number is itself.
const IDENTITY_MAP: &str = "0 0 4294967295\n";
/// Highest capability number that is tried.
const LAST_CAPABILITY: libc::c_int = 63;
/// Most files that a guest may know at once, where the host allows as many.
const OPEN_FILES_MAX: u64 = 1_000_000;

/// What the file operations need.
const CAPABILITIES: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::DAC_READ_SEARCH)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETFCAP);

/// The process could not lock itself up, so it must not run.
#[derive(Debug, thiserror::Error)]
pub enum JailError {
    /// User or group 0 is no jail.
    #[error("The jail needs a user and a group that are not 0")]
    Root,
    /// A step failed.
    #[error("Failed to {step} for the jail")]
    Step {
        /// What was being done.
        step: &'static str,
        /// Cause.
        #[source]
        source: io::Error,
    },
}

trait At<T> {
    fn at(self, step: &'static str) -> Result<T, JailError>;
}

impl<T, E: Into<io::Error>> At<T> for Result<T, E> {
    fn at(self, step: &'static str) -> Result<T, JailError> {
        self.map_err(|error| JailError::Step {
            step,
            source: error.into(),
        })
    }
}

/// Makes new files have exactly the mode that the guest says, and raises the limit of open
/// files as far as the host allows.
pub fn prepare() -> Result<(), JailError> {
    rustix::process::umask(Mode::empty());
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let raised = |maximum| Rlimit {
        current: Some(maximum),
        maximum: Some(maximum),
    };
    // Only root may raise the hard limit.
    if rustix::process::setrlimit(Resource::Nofile, raised(OPEN_FILES_MAX)).is_err() {
        let most = limit.maximum.unwrap_or(OPEN_FILES_MAX);
        rustix::process::setrlimit(Resource::Nofile, raised(most)).at("raise the open files")?;
    }
    Ok(())
}

/// Enters the jail; gives the way from an O_PATH descriptor to a file. Must be called while
/// the process has one thread.
pub fn enter(config: &JailConfig) -> Result<Descriptors, JailError> {
    if config.uid == 0 || config.gid == 0 {
        return Err(JailError::Root);
    }
    rustix::process::setrlimit(
        Resource::Core,
        Rlimit {
            current: Some(0),
            maximum: Some(0),
        },
    )
    .at("forbid core files")?;
    rustix::thread::set_thread_groups(&[]).at("drop supplementary groups")?;
    enter_user_namespace()?;
    let namespaces =
        UnshareFlags::NEWNS | UnshareFlags::NEWIPC | UnshareFlags::NEWNET | UnshareFlags::NEWUTS;
    // SAFETY: the process has one thread and shares no descriptors with another.
    unsafe { rustix::thread::unshare_unsafe(namespaces) }.at("leave the host's namespaces")?;
    let descriptors = detach_descriptors()?;
    change_root()?;
    change_user(config)?;
    // SAFETY: plain system calls.
    let locked = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) == 0
    };
    if !locked {
        return Err(io::Error::last_os_error()).at("forbid privileges and tracing");
    }
    Ok(descriptors)
}

/// Only a process outside may write the maps: a child that stays behind does.
fn enter_user_namespace() -> Result<(), JailError> {
    let own = std::fs::read_link("/proc/self").at("find the own process")?;
    let path = |file: &str| format!("/proc/{}/{file}", own.display());
    let (mut ready, mut announce) = io::pipe().at("make a pipe")?;
    let maps = [path("uid_map"), path("gid_map")];
    // SAFETY: the process has one thread, so the child may use everything.
    let child = unsafe { libc::fork() };
    if child < 0 {
        return Err(io::Error::last_os_error()).at("fork");
    }
    if child == 0 {
        drop(announce);
        let mut byte = [0];
        let waited = io::Read::read_exact(&mut ready, &mut byte);
        let written = waited.and_then(|()| {
            maps.iter()
                .try_for_each(|map| std::fs::write(map, IDENTITY_MAP))
        });
        let status = written.map_or_else(|error| error.raw_os_error().unwrap_or(1), |()| 0);
        // SAFETY: ends the child without the parent's exit handlers.
        unsafe { libc::_exit(status) };
    }
    // SAFETY: the process has one thread and shares no descriptors with another.
    let left = unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWUSER) };
    let told = left
        .map_err(io::Error::from)
        .and_then(|()| io::Write::write_all(&mut announce, &[1]));
    drop(announce);
    let mut status = 0;
    // SAFETY: waits for the own child.
    let reaped = unsafe { libc::waitpid(child, &mut status, 0) };
    told.at("make a user namespace")?;
    if reaped != child || !libc::WIFEXITED(status) || libc::WEXITSTATUS(status) != 0 {
        let cause = io::Error::from_raw_os_error(libc::WEXITSTATUS(status));
        return Err(cause).at("map users and groups");
    }
    Ok(())
}

/// /proc/self/fd as a mount of its own: nothing else of /proc can be reached from it.
fn detach_descriptors() -> Result<Descriptors, JailError> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let directory = rustix::mount::open_tree(rustix::fs::CWD, "/proc/self/fd", flags)
        .at("detach /proc/self/fd")?;
    Ok(Descriptors::new(directory))
}

fn change_root() -> Result<(), JailError> {
    let private = MountPropagationFlags::REC | MountPropagationFlags::PRIVATE;
    rustix::mount::mount_change("/", private).at("make mounts private")?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC | MountFlags::RDONLY;
    let options = CString::from(c"size=4k,mode=555");
    rustix::mount::mount("none", MOUNT_POINT, "tmpfs", flags, options.as_c_str())
        .at("mount an empty root")?;
    rustix::process::chdir(MOUNT_POINT).at("enter the empty root")?;
    rustix::process::pivot_root(".", ".").at("change the root")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH).at("drop the old root")?;
    rustix::process::chdir("/").at("enter the new root")
}

/// Becomes the pod's user and keeps only what files need, as capabilities of the own user
/// namespace.
fn change_user(config: &JailConfig) -> Result<(), JailError> {
    keep_capabilities().at("keep capabilities")?;
    for capability in 0..=LAST_CAPABILITY {
        let wanted = CapabilitySet::from_bits_retain(1 << capability);
        if CAPABILITIES.contains(wanted) {
            continue;
        }
        // SAFETY: plain system call.
        let dropped = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
        if dropped < 0 {
            let error = io::Error::last_os_error();
            if error.raw_os_error() == Some(libc::EINVAL) {
                break;
            }
            return Err(error).at("drop capabilities");
        }
    }
    let (uid, gid) = (Uid::from_raw(config.uid), Gid::from_raw(config.gid));
    rustix::thread::set_thread_res_gid(gid, gid, gid).at("change the group")?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).at("change the user")?;
    let sets = CapabilitySets {
        effective: CAPABILITIES,
        permitted: CAPABILITIES,
        inheritable: CapabilitySet::empty(),
    };
    rustix::thread::set_capabilities(None, sets).at("restrict capabilities")
}

/// Makes capabilities independent of the user ([`crate::system::as_user`]).
pub fn keep_capabilities() -> io::Result<()> {
    let bits = CapabilitiesSecureBits::NO_SETUID_FIXUP | CapabilitiesSecureBits::NO_ROOT;
    Ok(rustix::thread::set_capabilities_secure_bits(bits)?)
}

/// What tests and debugging use in place of [`enter`].
pub fn plain() -> Result<Descriptors, JailError> {
    keep_capabilities().at("keep capabilities")?;
    Descriptors::open().at("open /proc/self/fd")
}
