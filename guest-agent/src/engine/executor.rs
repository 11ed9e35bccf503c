//! Finds and executes a container's command, inside the container.

use std::ffi::CString;
use std::io::{self, Write};
use std::os::fd::{BorrowedFd, RawFd};
use std::path::{Path, PathBuf};

use libcontainer::workload::{Executor, ExecutorError, ExecutorValidationError};
use nix::errno::Errno;
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::unistd::{AccessFlags, access, execv};
use oci_spec::runtime::Spec;

use super::message::{ExecFailure, ExecFailureKind};
use crate::container::privileges;
use crate::container::seccomp::{self, SeccompError};

/// PATH of a process whose environment has none.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Executes the command of the OCI spec and reports failures on a pipe.
#[derive(Debug, Clone)]
pub struct ReportingExecutor {
    /// Write end of the report pipe, open in this process until it executes a command.
    report: RawFd,
    /// The container's spec, by which the command is confined.
    container: Spec,
}

impl ReportingExecutor {
    /// Reports on `report`; confines as the spec of the container says.
    pub fn new(report: RawFd, container: Spec) -> ReportingExecutor {
        ReportingExecutor { report, container }
    }

    fn report(&self, failure: &ExecFailure) {
        // SAFETY: the descriptor was inherited for this purpose and nobody closes it
        // before the process executes its command or ends.
        let fd = unsafe { BorrowedFd::borrow_raw(self.report) };
        let written = fd
            .try_clone_to_owned()
            .and_then(|fd| std::fs::File::from(fd).write_all(&serde_json::to_vec(failure)?));
        if let Err(error) = written {
            tracing::error!(%error, "cannot report that a command failed");
        }
    }
}

impl Executor for ReportingExecutor {
    fn validate(&self, spec: &Spec) -> Result<(), ExecutorValidationError> {
        let (args, path) = command(spec);
        find(&args, &path).map(drop).map_err(|failure| {
            self.report(&failure);
            ExecutorValidationError::ArgValidationError(failure.to_string())
        })
    }

    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        let (args, path) = command(spec);
        let failure = match find(&args, &path) {
            Ok(program) => execute(&self.container, &program, &args),
            Err(failure) => failure,
        };
        self.report(&failure);
        Err(ExecutorError::Other(failure.to_string()))
    }
}

/// Arguments and search path of the spec's process.
fn command(spec: &Spec) -> (Vec<String>, String) {
    let process = spec.process().as_ref();
    let args = process.and_then(|p| p.args().clone()).unwrap_or_default();
    let path = process
        .and_then(|p| p.env().as_ref())
        .and_then(|env| env.iter().rev().find_map(|v| v.strip_prefix("PATH=")))
        .unwrap_or(DEFAULT_PATH);
    (args, path.to_owned())
}

fn failure(command: &str, error: Errno, reason: String) -> ExecFailure {
    ExecFailure {
        kind: match error {
            Errno::ENOENT | Errno::ENOTDIR => ExecFailureKind::NotFound,
            Errno::EACCES | Errno::EPERM => ExecFailureKind::PermissionDenied,
            _ => ExecFailureKind::Other,
        },
        command: command.to_owned(),
        reason,
    }
}

/// The program that `args[0]` names, from this process's root and directory.
fn find(args: &[String], path: &str) -> Result<PathBuf, ExecFailure> {
    let Some(command) = args.first().filter(|command| !command.is_empty()) else {
        return Err(failure("", Errno::ENOENT, "no command".into()));
    };
    if command.contains('/') {
        return match executable(Path::new(command)) {
            Ok(()) => Ok(PathBuf::from(command)),
            Err(error) => {
                let reason = format!("stat {command}: {}", describe(error));
                Err(failure(command, error, reason))
            }
        };
    }
    let mut denied = false;
    for directory in path.split(':').filter(|directory| !directory.is_empty()) {
        let candidate = Path::new(directory).join(command);
        match executable(&candidate) {
            Ok(()) => return Ok(candidate),
            Err(Errno::EACCES) => denied = true,
            Err(_) => {}
        }
    }
    Err(if denied {
        failure(command, Errno::EACCES, "permission denied".into())
    } else {
        let reason = "executable file not found in $PATH".into();
        failure(command, Errno::ENOENT, reason)
    })
}

fn executable(path: &Path) -> Result<(), Errno> {
    let metadata = std::fs::metadata(path).map_err(errno)?;
    if metadata.is_dir() {
        return Err(Errno::EISDIR);
    }
    access(path, AccessFlags::X_OK)
}

fn execute(container: &Spec, program: &Path, args: &[String]) -> ExecFailure {
    let command = args.first().map(String::as_str).unwrap_or_default();
    let profile = container
        .linux()
        .as_ref()
        .and_then(|l| l.seccomp().as_ref());
    let filters = match profile.map(seccomp::compile).transpose() {
        Ok(filters) => filters.unwrap_or_default(),
        Err(error) => return failure(command, Errno::EINVAL, error.to_string()),
    };
    let c_string = |text: &[u8]| CString::new(text).map_err(|_| Errno::EINVAL);
    let result = || -> Result<std::convert::Infallible, Errno> {
        let path = c_string(program.as_os_str().as_encoded_bytes())?;
        let args = args
            .iter()
            .map(|arg| c_string(arg.as_bytes()))
            .collect::<Result<Vec<_>, _>>()?;
        // SAFETY: SIG_DFL installs no handler; the Rust runtime had SIGPIPE ignored, which
        // the command would inherit.
        unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) }?;
        privileges::return_lent(container)?;
        // Last: what follows must be allowed by the profile.
        seccomp::install(&filters).map_err(|error| match error {
            SeccompError::Install(error) => errno(error),
            _ => Errno::EINVAL,
        })?;
        execv(&path, &args)
    };
    let error = result().err().unwrap_or(Errno::UnknownErrno);
    failure(command, error, describe(error).to_owned())
}

fn describe(error: Errno) -> &'static str {
    match error {
        Errno::ENOENT => "no such file or directory",
        Errno::EACCES => "permission denied",
        Errno::EISDIR => "is a directory",
        Errno::ENOEXEC => "exec format error",
        other => other.desc(),
    }
}

fn errno(error: io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find_text(command: &str, path: &str) -> String {
        match find(&[command.to_owned()], path) {
            Ok(program) => program.display().to_string(),
            Err(failure) => failure.to_string(),
        }
    }

    #[test]
    fn missing_command_is_named() {
        assert_eq!(
            find_text("foo", "/nonexistent:/usr/bin"),
            r#"exec: "foo": executable file not found in $PATH"#
        );
        assert_eq!(
            find_text("/nonexistent/foo", "/usr/bin"),
            r#"exec: "/nonexistent/foo": stat /nonexistent/foo: no such file or directory"#
        );
    }

    #[test]
    fn directory_and_plain_file_are_not_executable() {
        assert!(find_text("/etc", "").ends_with("is a directory"));
        assert!(find_text("/etc/passwd", "").ends_with("permission denied"));
    }

    #[test]
    fn command_is_found_in_path_order() {
        assert_eq!(find_text("sh", "/nonexistent::/bin:/usr/bin"), "/bin/sh");
    }
}
