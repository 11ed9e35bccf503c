//! The agent as PID 1 of a guest, from the kernel's hand-over to the first request.
//!
//! ```text
//! kernel ─► initramfs /init = hull-agent
//!   init      console, boot reporter
//!   mounts    a tmpfs becomes the root: pivot_root(2), which containers need, does not
//!             work from the kernel's initial root; /proc /sys /dev /run /tmp, cgroup2
//!   modules   insmod of what /etc/hull/modules lists (distribution kernels)
//!   ready     vsock ports 1024 and 1025 accept connections
//! ```
//! Each phase is printed on the console and sent to the host ([`boot`]). An error that
//! stops the boot is printed and sent too, then PID 1 ends, which panics the kernel:
//! the VMM sees a guest panic and the host the reason.

mod boot;
mod modules;
mod mounts;
mod power;

use std::path::Path;

use hull_agent_protocol::boot::Phase;
use hull_agent_protocol::{CONTROL_PORT, STREAM_PORT};

use crate::agent::{Agent, Options};
use crate::listen::Listener;
use crate::network;
use boot::Reporter;

/// The agent's directory in a guest.
const BASE: &str = "/run/hull";
/// Cgroup above the containers'.
pub const CGROUP_PARENT: &str = "/hull";
/// Open files that a process may have (RLIMIT_NOFILE): the kernel gives PID 1 only 4096.
const MAX_OPEN_FILES: u64 = 1_048_576;

/// What stops a boot.
#[derive(Debug, thiserror::Error)]
enum BootError {
    #[error(transparent)]
    Mounts(#[from] mounts::BootMountError),
    #[error(transparent)]
    Modules(#[from] modules::ModuleError),
    #[error("cannot {doing}: {source}")]
    Io {
        doing: &'static str,
        source: std::io::Error,
    },
    #[error("the control service failed: {0}")]
    Serve(#[from] tonic::transport::Error),
}

/// Runs the guest. Returns only if the boot or the service failed, with the exit status.
pub fn main() -> i32 {
    let mut reporter = Reporter::new();
    reporter.report(Phase::Init);
    match boot(&mut reporter) {
        Ok(()) => power::off(),
        Err(error) => {
            reporter.fail(&error.to_string());
            1
        }
    }
}

fn boot(reporter: &mut Reporter) -> Result<(), BootError> {
    mounts::mount_new_root()?;
    reporter.report(Phase::Mounts);
    modules::load(Path::new(modules::LIST))?;
    reporter.report(Phase::Modules);
    mounts::enter_new_root()?;
    mounts::enable_cgroup_controllers(CGROUP_PARENT)?;
    nix::sys::resource::setrlimit(
        nix::sys::resource::Resource::RLIMIT_NOFILE,
        MAX_OPEN_FILES,
        MAX_OPEN_FILES,
    )
    .map_err(io("raise the limit of open files"))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(io("start the runtime"))?;
    let served = runtime.block_on(serve(reporter));
    // Nothing that still blocks may keep the agent from ending.
    runtime.shutdown_background();
    served
}

async fn serve(reporter: &mut Reporter) -> Result<(), BootError> {
    let agent = Agent::new(Options {
        base: BASE.into(),
        cgroup_parent: CGROUP_PARENT.into(),
        directories: false,
    })
    .map_err(io("set up /run/hull"))?;
    // Loopback works before the host has said anything about the network.
    if let Err(error) = network::configure(&[]).await {
        eprintln!("hull-agent: {error}");
    }
    let control = Listener::vsock(CONTROL_PORT).map_err(io("listen on the vsock control port"))?;
    let stream = Listener::vsock(STREAM_PORT).map_err(io("listen on the vsock stream port"))?;
    reporter.report_ready();
    Ok(agent.serve(control, stream).await?)
}

fn io<E: Into<std::io::Error>>(doing: &'static str) -> impl FnOnce(E) -> BootError {
    move |source| BootError::Io {
        doing,
        source: source.into(),
    }
}
