//! hull-fsd: `hull-fsd --config-fd N`.

use std::fs::File;
use std::io::Read;
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::sync::Arc;

use anyhow::{Context, bail};
use hull_fsd::device::FsDevice;
use hull_fsd::filesystem::ShareFs;
use hull_fsd::{config, control, jail, seccomp};
use hull_vmm_client::fsd::FsdConfig;
use vhost::vhost_user::Listener;
use vhost_user_backend::VhostUserDaemon;
use vm_memory::{GuestMemoryAtomic, GuestMemoryMmap};

/// Largest configuration, bytes.
const CONFIG_MAX_BYTES: u64 = 1 << 20;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let config_fd = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--config-fd", number] => number
            .parse()
            .with_context(|| format!("--config-fd {number} is not a number"))?,
        ["--version"] => {
            println!("hull-fsd {}", env!("CARGO_PKG_VERSION"));
            return Ok(());
        }
        _ => bail!(
            "usage: hull-fsd --config-fd N (a JSON configuration on an inherited descriptor) | --version"
        ),
    };
    let filter = tracing_subscriber::EnvFilter::try_from_env("HULL_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info,fuse_backend_rs=off"));
    tracing_subscriber::fmt()
        .json()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    let config = read_config(take(config_fd)?)?;
    let span = tracing::info_span!("fsd", id = %config.id);
    let _entered = span.enter();
    config::check(&config)?;
    run(&config)
}

fn run(config: &FsdConfig) -> anyhow::Result<()> {
    let listener = UnixListener::from(take(config.socket_fd)?);
    let control = UnixListener::from(take(config.control_fd)?);
    jail::prepare()?;
    let descriptors = match &config.jail {
        Some(jail) => jail::enter(jail)?,
        None => jail::plain()?,
    };
    let fs = Arc::new(ShareFs::new(descriptors));
    let device = Arc::new(FsDevice::new(fs.clone(), config.request_queues));
    let memory = GuestMemoryAtomic::new(GuestMemoryMmap::<()>::new());
    let mut daemon = VhostUserDaemon::new("vhost".to_owned(), device, memory)
        .map_err(|error| anyhow::anyhow!("Failed to make the queues: {error}"))?;
    let id = config.id.clone();
    std::thread::Builder::new()
        .name("control".to_owned())
        .spawn(move || control::serve(&control, &fs, &id))
        .context("Failed to start the control thread")?;
    // SAFETY: the listener is owned, and given up here.
    let mut listener = unsafe { Listener::from_raw_fd(listener.into_raw_fd()) };
    tracing::info!(jailed = config.jail.is_some(), "Serving");
    daemon
        .start(&mut listener)
        .map_err(|error| anyhow::anyhow!("Failed to accept the VMM: {error}"))?;
    if config.jail.as_ref().is_some_and(|jail| jail.seccomp) {
        seccomp::apply()?;
    }
    let ended = daemon.wait();
    tracing::info!(outcome = ?ended.err().map(|error| error.to_string()), "The VMM is gone");
    // Threads wait for the guest and the control socket: they end with the process.
    std::process::exit(0);
}

fn take(fd: i32) -> anyhow::Result<OwnedFd> {
    // SAFETY: plain system call, harmless on any number.
    if fd <= libc::STDERR_FILENO || unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) } < 0
    {
        bail!("Descriptor {fd} of the configuration is not open");
    }
    // SAFETY: the parent passed it for this use; each number is taken once.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn read_config(file: OwnedFd) -> anyhow::Result<FsdConfig> {
    let mut text = String::new();
    File::from(file)
        .take(CONFIG_MAX_BYTES)
        .read_to_string(&mut text)
        .context("Failed to read the configuration")?;
    serde_json::from_str(&text).context("Failed to parse the configuration")
}
