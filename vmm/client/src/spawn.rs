//! Starts hull-vmm with exactly the descriptors that its configuration names.

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde::Serialize;

use crate::config::VmConfig;

/// hull-vmm could not be started.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// The configuration could not be put into a file in memory.
    #[error("Failed to pass the configuration of VM {id}")]
    Config {
        /// The id of the configuration.
        id: String,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// The program did not start.
    #[error("Failed to start {program} for VM {id}")]
    Start {
        /// The program.
        program: String,
        /// The id of the configuration.
        id: String,
        /// Cause.
        #[source]
        source: io::Error,
    },
}

/// Starts `program` (hull-vmm) as the leader of its own session, so that it outlives the
/// caller. The descriptors of `config` are open in the caller under these numbers, may be
/// close-on-exec, and stay the caller's; all others are closed in the child. Logs go to
/// `log`. The caller waits for the child, or leaves that to init by exiting.
pub fn spawn(program: &Path, config: &VmConfig, log: Stdio) -> Result<Child, SpawnError> {
    let failed = |source| SpawnError::Config {
        id: config.id.clone(),
        source,
    };
    let file = config_file(c"hull-vmm-config", config).map_err(failed)?;
    let mut keep = config.descriptors();
    keep.push(file.as_raw_fd());
    let mut command = Command::new(program);
    command
        .arg("--config-fd")
        .arg(file.as_raw_fd().to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log);
    keep_descriptors(&mut command, &keep);
    command.spawn().map_err(|source| SpawnError::Start {
        program: program.display().to_string(),
        id: config.id.clone(),
        source,
    })
}

/// Makes the program leave the caller's session, with these descriptors and no others.
pub(crate) fn keep_descriptors(command: &mut Command, keep: &[RawFd]) {
    let keep = keep.to_vec();
    // SAFETY: the closure runs after fork and makes only system calls; it allocates nothing.
    unsafe { command.pre_exec(move || prepare_child(&keep)) };
}

/// A file in memory with a configuration as JSON.
pub(crate) fn config_file(name: &CStr, config: &impl Serialize) -> io::Result<File> {
    // SAFETY: the name is a C string; the result is checked.
    let raw = unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC) };
    if raw < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: raw is a descriptor that nothing else owns.
    let mut file = unsafe { File::from_raw_fd(raw) };
    serde_json::to_writer(&mut file, config)?;
    file.flush()?;
    file.rewind()?;
    Ok(file)
}

/// In the child: closes at exec what is not to be kept, and leaves the caller's session.
fn prepare_child(keep: &[RawFd]) -> io::Result<()> {
    let first = libc::STDERR_FILENO + 1;
    // Marked instead of closed: the standard library reports exec's failure through a
    // descriptor of its own.
    // SAFETY: plain system calls.
    unsafe {
        if libc::syscall(
            libc::SYS_close_range,
            first,
            u32::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        ) < 0
        {
            return Err(io::Error::last_os_error());
        }
        for fd in keep {
            if libc::fcntl(*fd, libc::F_SETFD, 0) < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        if libc::setsid() < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::unix::fs::PermissionsExt;

    /// A program that lists its descriptors and its session in a file that it is given as
    /// console.
    /// Writes what its open descriptors are to the console, and its session to standard error.
    const SHOW_DESCRIPTORS: &str = r#"#!/bin/sh
console=$(sed 's/.*console_fd":\([0-9]*\).*/\1/' "/proc/self/fd/$2")
for descriptor in /proc/$$/fd/*; do readlink "$descriptor"; done >&"$console"
ps -o sid= -p $$ >&2
"#;

    #[test]
    fn the_child_has_the_named_descriptors_only_and_its_own_session() {
        let directory = std::env::temp_dir().join(format!("hull-spawn-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let script = directory.join("vmm");
        std::fs::write(&script, SHOW_DESCRIPTORS).unwrap();
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
        let files: Vec<File> = (0..6)
            .map(|n| File::create(directory.join(n.to_string())).unwrap())
            .collect();
        let fd = |n: usize| files[n].as_raw_fd();
        let config: VmConfig = serde_json::from_value(serde_json::json!({
            "id": "x", "kvm_fd": fd(0), "vcpus": 1, "memory_mib": 64,
            "boot": {"kernel_fd": fd(1), "cmdline": ""},
            "console_fd": fd(2), "control_fd": fd(3), "exit_fd": fd(4)
        }))
        .unwrap();
        let mut child = spawn(&script, &config, Stdio::piped()).unwrap();
        let mut session = String::new();
        child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut session)
            .unwrap();
        assert!(child.wait().unwrap().success());
        assert_eq!(session.trim(), child.id().to_string());
        let listed = std::fs::read_to_string(directory.join("2")).unwrap();
        let is_open = |n: usize| {
            let path = directory.join(n.to_string());
            listed
                .lines()
                .any(|line| std::path::Path::new(line) == path)
        };
        assert!((0..5).all(is_open), "{listed}");
        assert!(!is_open(5), "{listed}");
        std::fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn a_missing_program_is_an_error() {
        let config: VmConfig = serde_json::from_value(serde_json::json!({
            "id": "x", "kvm_fd": 0, "vcpus": 1, "memory_mib": 64,
            "boot": {"kernel_fd": 0, "cmdline": ""},
            "console_fd": 0, "control_fd": 0, "exit_fd": 0
        }))
        .unwrap();
        let outcome = spawn(Path::new("/nonexistent/hull-vmm"), &config, Stdio::null());
        assert!(matches!(outcome, Err(SpawnError::Start { .. })));
    }
}
