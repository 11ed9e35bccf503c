//! Namespaces, root directory, user, capabilities, limits.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use hull_vmm_client::config::JailConfig;

/// Most open files: disks, vsock connections and eventfds together.
const OPEN_FILES_MAX: u64 = 4096;
/// A directory that every host has, as mount point of the empty root when the VM has no
/// vsock directory. It is covered only in the own mount namespace.
const FALLBACK_MOUNT_POINT: &str = "/proc";
/// Highest capability number that is tried; higher ones than the kernel knows give EINVAL.
const LAST_CAPABILITY: libc::c_int = 63;

/// The VMM could not lock itself up, so it must not run.
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

fn check(step: &'static str, outcome: libc::c_int) -> Result<(), JailError> {
    if outcome < 0 {
        return Err(JailError::Step {
            step,
            source: io::Error::last_os_error(),
        });
    }
    Ok(())
}

/// Enters the jail with `root` as root directory. Must be called while the process has one
/// thread.
pub fn enter(config: &JailConfig, root: Option<&OwnedFd>) -> Result<(), JailError> {
    if config.uid == 0 || config.gid == 0 {
        return Err(JailError::Root);
    }
    limit()?;
    change_root(root)?;
    drop_bounding_set()?;
    change_user(config)?;
    // SAFETY: plain system calls.
    unsafe {
        check(
            "forbid new privileges",
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
        )?;
        check(
            "forbid core dumps and tracing",
            libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0),
        )
    }
}

fn limit() -> Result<(), JailError> {
    let set = |step, resource, value| {
        let limit = libc::rlimit {
            rlim_cur: value,
            rlim_max: value,
        };
        // SAFETY: the structure is valid for the call.
        check(step, unsafe { libc::setrlimit(resource, &limit) })
    };
    set("limit open files", libc::RLIMIT_NOFILE, OPEN_FILES_MAX)?;
    set("forbid core files", libc::RLIMIT_CORE, 0)
}

fn change_root(root: Option<&OwnedFd>) -> Result<(), JailError> {
    let none = std::ptr::null::<libc::c_char>();
    let here = c".";
    // SAFETY: plain system calls; every string is a C string that outlives its call.
    unsafe {
        if let Some(root) = root {
            // Before unshare: the working directory then moves into the new namespace.
            check("enter the root directory", libc::fchdir(root.as_raw_fd()))?;
        }
        let namespaces =
            libc::CLONE_NEWNS | libc::CLONE_NEWIPC | libc::CLONE_NEWNET | libc::CLONE_NEWUTS;
        check(
            "leave the namespaces of the host",
            libc::unshare(namespaces),
        )?;
        let private = libc::MS_REC | libc::MS_PRIVATE;
        check(
            "make mounts private",
            libc::mount(none, c"/".as_ptr(), none, private, std::ptr::null()),
        )?;
        let flags = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
        let target = if root.is_some() {
            let path = working_directory()?;
            let bind = libc::MS_BIND;
            check(
                "bind the root directory",
                libc::mount(here.as_ptr(), path.as_ptr(), none, bind, std::ptr::null()),
            )?;
            // A bind mount takes its flags only when it is mounted again.
            let again = libc::MS_BIND | libc::MS_REMOUNT | flags;
            check(
                "restrict the root directory",
                libc::mount(none, path.as_ptr(), none, again, std::ptr::null()),
            )?;
            path
        } else {
            let path = CString::from(c"");
            let target = CString::new(FALLBACK_MOUNT_POINT).unwrap_or(path);
            let kind = c"tmpfs";
            let options = c"size=4k,mode=555";
            check(
                "mount an empty root",
                libc::mount(
                    kind.as_ptr(),
                    target.as_ptr(),
                    kind.as_ptr(),
                    flags,
                    options.as_ptr().cast(),
                ),
            )?;
            target
        };
        check("enter the root directory", libc::chdir(target.as_ptr()))?;
        let pivot = libc::syscall(libc::SYS_pivot_root, here.as_ptr(), here.as_ptr());
        check("change the root directory", pivot as libc::c_int)?;
        check(
            "drop the old root",
            libc::umount2(here.as_ptr(), libc::MNT_DETACH),
        )?;
        check("enter the new root", libc::chdir(c"/".as_ptr()))
    }
}

fn working_directory() -> Result<CString, JailError> {
    let step = "find the root directory";
    let path = std::env::current_dir().map_err(|source| JailError::Step { step, source })?;
    CString::new(path.into_os_string().into_encoded_bytes()).map_err(|error| JailError::Step {
        step,
        source: error.into(),
    })
}

fn drop_bounding_set() -> Result<(), JailError> {
    for capability in 0..=LAST_CAPABILITY {
        // SAFETY: plain system call.
        let outcome = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
        if outcome < 0 && io::Error::last_os_error().raw_os_error() == Some(libc::EINVAL) {
            break;
        }
        check("drop capabilities", outcome)?;
    }
    Ok(())
}

fn change_user(config: &JailConfig) -> Result<(), JailError> {
    // SAFETY: plain system calls.
    unsafe {
        let clear = libc::PR_CAP_AMBIENT_CLEAR_ALL;
        check(
            "clear ambient capabilities",
            libc::prctl(libc::PR_CAP_AMBIENT, clear, 0, 0, 0),
        )?;
        check(
            "drop supplementary groups",
            libc::setgroups(0, std::ptr::null()),
        )?;
        check(
            "change the group",
            libc::setresgid(config.gid, config.gid, config.gid),
        )?;
        // Leaving user 0 clears the permitted and effective capabilities.
        check(
            "change the user",
            libc::setresuid(config.uid, config.uid, config.uid),
        )
    }
}
