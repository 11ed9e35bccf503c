//! hull-vmm: `hull-vmm --config-fd N`, `hull-vmm ctl SOCKET COMMAND`.

use std::fs::File;
use std::io::Read;

use anyhow::{Context, bail};
use hull_vmm::descriptors::Descriptors;
use hull_vmm::error::VmmError;
use hull_vmm::events::chain;
use hull_vmm::{config, ctl, exit, vm};
use hull_vmm_client::config::VmConfig;
use hull_vmm_client::exit::ExitReason;

/// Largest configuration, bytes.
const CONFIG_MAX_BYTES: u64 = 1 << 20;

fn main() -> anyhow::Result<()> {
    let Some(config_fd) = arguments()? else {
        return Ok(());
    };
    let filter = tracing_subscriber::EnvFilter::try_from_env("HULL_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .json()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    let mut descriptors = Descriptors::default();
    let config = read_config(config_fd, &mut descriptors)?;
    let span = tracing::info_span!("vm", id = %config.id);
    let _entered = span.enter();
    let mut record = File::from(descriptors.take(config.exit_fd, "exit record")?);
    let ended = config::check(&config).and_then(|()| vm::run(&config, &mut descriptors));
    let (reason, message) =
        ended.unwrap_or_else(|error: VmmError| (ExitReason::VmmError, chain(&error)));
    tracing::info!(?reason, message, "The VM ended");
    if let Err(error) = exit::write_record(&mut record, reason, &message) {
        tracing::error!(%error, "Failed to write the exit record");
    }
    std::process::exit(reason.status());
}

/// The number of the configuration's descriptor; `None` when only help was asked for.
fn arguments() -> anyhow::Result<Option<i32>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--config-fd", number] => {
            let number = number
                .parse()
                .with_context(|| format!("--config-fd {number} is not a number"))?;
            Ok(Some(number))
        }
        ["--version"] => {
            println!("hull-vmm {}", env!("CARGO_PKG_VERSION"));
            Ok(None)
        }
        ["ctl", ..] => {
            ctl::run(&arguments[1..], &mut std::io::stdout())?;
            Ok(None)
        }
        _ => bail!(
            "usage: hull-vmm --config-fd N (a JSON configuration on an inherited descriptor) | --version | {}",
            ctl::USAGE
        ),
    }
}

fn read_config(fd: i32, descriptors: &mut Descriptors) -> anyhow::Result<VmConfig> {
    let file = File::from(descriptors.take(fd, "configuration")?);
    let mut text = String::new();
    file.take(CONFIG_MAX_BYTES)
        .read_to_string(&mut text)
        .context("Failed to read the configuration")?;
    serde_json::from_str(&text).context("Failed to parse the configuration")
}
