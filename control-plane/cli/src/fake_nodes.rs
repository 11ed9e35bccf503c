//! `hull fake-nodes`: nodes that run nothing, against the API server of a kubeconfig.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use hull_node::fake::{self, FakeNodesConfig, Progress};
use tokio_util::sync::CancellationToken;

use crate::kubeconfig;
use crate::settings::default_kubeconfig;
use crate::signals;

/// How often the line of progress is written to a terminal, and to anything else.
const PROGRESS_INTERVALS: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(10)];

/// Its flags.
#[derive(Debug, Args)]
pub struct FakeNodes {
    /// How many nodes
    count: usize,
    /// Kubeconfig of a user who may write nodes, leases and pods [default: ~/.hull/kubeconfig]
    #[arg(long, env = "HULL_KUBECONFIG", value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The names are this, a hyphen and five digits
    #[arg(long, default_value = "fake")]
    prefix: String,
    /// CPUs that each node offers
    #[arg(long, default_value = "4", value_name = "QUANTITY")]
    cpu: String,
    /// Memory that each node offers
    #[arg(long, default_value = "32Gi", value_name = "QUANTITY")]
    memory: String,
    /// Pods that each node takes
    #[arg(long, default_value_t = 110)]
    pods: u32,
    /// Zones that the nodes are spread over
    #[arg(long, default_value_t = 3)]
    zones: usize,
    /// How long pods of Jobs run before they succeed
    #[arg(long, default_value_t = 1.0, value_name = "SECONDS")]
    job_seconds: f64,
    /// How often each node's Lease is renewed
    #[arg(long, default_value_t = 10, value_name = "SECONDS")]
    lease_seconds: u64,
    /// Requests under way at a time
    #[arg(long, default_value_t = 64)]
    concurrency: usize,
    /// Leave the nodes there at the end
    #[arg(long)]
    keep: bool,
}

impl FakeNodes {
    fn config(&self) -> anyhow::Result<FakeNodesConfig> {
        let job_duration = Duration::try_from_secs_f64(self.job_seconds)
            .map_err(|error| anyhow::anyhow!("--job-seconds {}: {error}", self.job_seconds))?;
        Ok(FakeNodesConfig {
            count: self.count,
            prefix: self.prefix.clone(),
            cpu: self.cpu.clone(),
            memory: self.memory.clone(),
            pods: self.pods,
            zones: self.zones,
            job_duration,
            lease_interval: Duration::from_secs(self.lease_seconds.max(1)),
            concurrency: self.concurrency,
            keep: self.keep,
        })
    }
}

/// `hull fake-nodes N`, until SIGTERM or SIGINT.
pub fn run(args: FakeNodes) -> anyhow::Result<ExitCode> {
    let config = args.config()?;
    let file = args.kubeconfig.unwrap_or_else(default_kubeconfig);
    // One TLS provider for everything in the process. Set once: a second call cannot happen.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let client = kube::Client::try_from(kubeconfig::config_of(&file).await?)?;
        let shutdown = signals::shutdown()?;
        let progress = Arc::new(Progress::default());
        let reports = tokio::spawn(report(progress.clone(), shutdown.clone()));
        fake::run(client, config, progress.clone(), shutdown).await;
        // Ends with the shutdown; a failed write of a line is no failure.
        let _ = reports.await;
        eprintln!("fake-nodes: {progress}");
        Ok(ExitCode::SUCCESS)
    })
}

/// One line that is written over and over again on a terminal.
async fn report(progress: Arc<Progress>, shutdown: CancellationToken) {
    let is_terminal = std::io::stderr().is_terminal();
    let [terminal, other] = PROGRESS_INTERVALS;
    let mut ticks = tokio::time::interval(if is_terminal { terminal } else { other });
    while shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
        let (start, end) = if is_terminal { ("\r", "") } else { ("", "\n") };
        eprint!("{start}fake-nodes: {progress}{end}");
        let _ = std::io::stderr().flush();
    }
    if is_terminal {
        eprintln!();
    }
}
