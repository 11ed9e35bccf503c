//! The helper's side: `hull-agent engine <reply fd> <report fd> <log fd> <request>`.

use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use libcontainer::container::Container;
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::error::LibcontainerError;
use libcontainer::syscall::syscall::SyscallType;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use oci_spec::runtime::Spec;
use tracing_subscriber::EnvFilter;

use super::console::ConsoleSocket;
use super::executor::ReportingExecutor;
use super::message::{Operation, Reply, Request};
use crate::LOG_VARIABLE;

/// The subcommand's name.
pub const SUBCOMMAND: &str = "engine";

/// Exit status of a helper that could not even answer.
const STATUS_NO_REPLY: i32 = 70;

#[derive(Debug, thiserror::Error)]
enum ChildError {
    #[error(transparent)]
    Libcontainer(#[from] LibcontainerError),
    #[error("console: {0}")]
    Console(std::io::Error),
    #[error("the container's configuration: {0}")]
    Spec(#[from] oci_spec::OciSpecError),
}

/// Runs one operation and returns the exit status.
pub fn main(args: &[String]) -> i32 {
    let [reply, _report, log, request] = args else {
        return STATUS_NO_REPLY;
    };
    let (Ok(reply), Ok(log)) = (reply.parse(), log.parse()) else {
        return STATUS_NO_REPLY;
    };
    // SAFETY: the agent made these descriptors for this process alone and names each once.
    let (reply, log) = unsafe { (OwnedFd::from_raw_fd(reply), OwnedFd::from_raw_fd(log)) };
    log_to(log);
    let (answer, master) = match run(&args[1], request) {
        Ok(done) => done,
        Err(message) => (Reply::Failed { message }, None),
    };
    match send(&reply, &answer, master.as_ref()) {
        Ok(()) => 0,
        Err(error) => {
            tracing::error!(%error, "cannot answer the agent");
            STATUS_NO_REPLY
        }
    }
}

fn run(report: &str, request: &str) -> Result<(Reply, Option<OwnedFd>), String> {
    let report = report.parse().map_err(|_| "bad report descriptor")?;
    let request: Request = serde_json::from_str(request).map_err(|e| e.to_string())?;
    match &request.operation {
        Operation::Start => start(&request).map(|()| (Reply::Started, None)),
        Operation::Create { .. } | Operation::Exec { .. } => launch(&request, report),
    }
    .map_err(|error| chain(&error))
}

fn start(request: &Request) -> Result<(), ChildError> {
    let mut container = Container::load(request.state.join(&request.container))?;
    Ok(container.start()?)
}

fn launch(request: &Request, report: RawFd) -> Result<(Reply, Option<OwnedFd>), ChildError> {
    let (Operation::Create { bundle, tty } | Operation::Exec { bundle, tty, .. }) =
        &request.operation
    else {
        return Ok((Reply::Started, None));
    };
    let console = tty
        .then(|| ConsoleSocket::new(&request.state))
        .transpose()
        .map_err(ChildError::Console)?;
    // libcontainer makes a bare spec for a second process: what confines the container is
    // in its own.
    let container = Spec::load(bundle.join("config.json"))?;
    let builder = ContainerBuilder::new(request.container.clone(), SyscallType::default())
        .with_root_path(&request.state)?
        .with_executor(ReportingExecutor::new(report, container))
        .with_console_socket(console.as_ref().map(ConsoleSocket::path));
    let pid = match &request.operation {
        Operation::Create { bundle, .. } => builder
            .as_init(bundle)
            .with_systemd(false)
            .as_sibling(true)
            .build()?
            .pid()
            .map_or(0, |pid| pid.as_raw()),
        Operation::Exec { process, tty, .. } => builder
            .as_tenant()
            .with_process(Some(process))
            .with_detach(*tty)
            .as_sibling(true)
            .build()?
            .as_raw(),
        Operation::Start => 0,
    };
    let master = console
        .map(|console| console.receive())
        .transpose()
        .map_err(ChildError::Console)?;
    Ok((Reply::Process { pid }, master))
}

fn send(socket: &OwnedFd, reply: &Reply, master: Option<&OwnedFd>) -> std::io::Result<()> {
    let bytes = serde_json::to_vec(reply)?;
    let fds: Vec<RawFd> = master.iter().map(|fd| fd.as_raw_fd()).collect();
    let rights = [ControlMessage::ScmRights(&fds)];
    let control = if fds.is_empty() { &[][..] } else { &rights };
    let flags = MsgFlags::MSG_NOSIGNAL;
    sendmsg::<()>(
        socket.as_fd().as_raw_fd(),
        &[IoSlice::new(&bytes)],
        control,
        flags,
        None,
    )?;
    Ok(())
}

/// Standard error belongs to the container; the log goes to a descriptor that the
/// container's process loses when it executes its command. libcontainer logs each error
/// at several levels and returns it as well: it is only heard when the agent asks for it.
fn log_to(fd: OwnedFd) {
    let file = std::sync::Arc::new(std::fs::File::from(fd));
    let filter = EnvFilter::try_from_env(LOG_VARIABLE)
        .unwrap_or_else(|_| EnvFilter::new("warn,libcontainer=off,libcgroups=off"));
    let subscriber = tracing_subscriber::fmt()
        .with_writer(file)
        .with_ansi(false)
        .with_env_filter(filter)
        .finish();
    // Set once, first thing in this process.
    let _ = tracing::subscriber::set_global_default(subscriber);
}

/// The error with all its causes, each once.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
