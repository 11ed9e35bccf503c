//! The agent on a host, for sandboxes without a VM: `hull-agent --listen-dir DIR`.
//!
//! It serves `DIR/control.sock` and `DIR/stream.sock` and keeps its state in
//! `DIR/state`. It has a mount, UTS and IPC namespace of its own, so that its mounts
//! vanish with it, and the sandbox's hostname is not the host's; the network namespace
//! is the one that it was started in.

use std::path::Path;

use hull_agent_protocol::{CONTROL_SOCKET, STREAM_SOCKET};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::agent::{Agent, Options};
use crate::listen::{Listener, socket_path};

/// Why the agent cannot run on this host.
#[derive(Debug, thiserror::Error)]
pub enum NativeError {
    /// The operating system refused.
    #[error("cannot {doing}: {source}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The gRPC server failed.
    #[error("the control service failed: {0}")]
    Serve(#[from] tonic::transport::Error),
    /// The directory's path cannot be used in overlay options.
    #[error("{0:?} has a comma, colon or backslash in its path")]
    BadDirectory(String),
}

/// Serves in `directory` until Shutdown.
///
/// # Errors
/// [`NativeError`] names the step.
pub fn main(directory: &Path, cgroup_parent: &str) -> Result<(), NativeError> {
    let directory = std::fs::create_dir_all(directory)
        .and_then(|()| std::fs::canonicalize(directory))
        .map_err(io("make the listen directory"))?;
    let text = directory.to_string_lossy().into_owned();
    if text.contains([',', ':', '\\']) {
        return Err(NativeError::BadDirectory(text));
    }
    let namespaces = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWIPC;
    unshare(namespaces).map_err(io("make namespaces"))?;
    let (none, slave) = (None::<&str>, MsFlags::MS_REC | MsFlags::MS_SLAVE);
    mount(none, "/", none, slave, none).map_err(io("keep mounts private"))?;
    // Orphans of containers that share the pid namespace are the agent's to reap.
    nix::sys::prctl::set_child_subreaper(true).map_err(io("become a child subreaper"))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(io("start the runtime"))?;
    let served = runtime.block_on(serve(&directory, cgroup_parent));
    // Nothing that still blocks may keep the agent from ending.
    runtime.shutdown_background();
    served
}

async fn serve(directory: &Path, cgroup_parent: &str) -> Result<(), NativeError> {
    let agent = Agent::new(Options {
        base: directory.join("state"),
        cgroup_parent: cgroup_parent.to_owned(),
        directories: true,
    })
    .map_err(io("set up the state directory"))?;
    let listen = |name| Listener::unix(&socket_path(directory, name)).map_err(io("listen"));
    // The control socket last: once it is there, both are.
    let stream = listen(STREAM_SOCKET)?;
    let control = listen(CONTROL_SOCKET)?;
    tracing::info!(directory = %directory.display(), "ready");
    Ok(agent.serve(control, stream).await?)
}

fn io<E: Into<std::io::Error>>(doing: &'static str) -> impl FnOnce(E) -> NativeError {
    move |source| NativeError::Io {
        doing,
        source: source.into(),
    }
}
