//! hull-bench: measures a running Hull and prints tables in Markdown. It asserts nothing.
//!
//! ```text
//! sandbox    CRI socket     RunPodSandbox to ready, by phase; QEMU with the same guest beside it
//! pods       API server     create to running, seen by a watch
//! memory     /proc          PSS of a pod's processes without guest RAM, and of the daemons
//! apiserver  API server     requests per second, p50, p99 at many objects
//! scheduler  API server     pods bound per second on many fake nodes
//! control-plane          those two on a `hull server` of its own with each store, and its size
//! engine     nothing        the same without API server and store, in the shapes of workload.rs
//! ```
//!
//! `scripts/bench.sh` runs it where KVM is, with a cluster of its own.

mod apiserver;
mod control_plane;
mod cri;
mod engine;
mod load;
mod machine;
mod memory;
mod peer;
mod pods;
mod sandbox;
mod scheduler;
mod stats;
mod table;
mod workload;

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};

use table::Report;

/// Measures a running Hull and prints tables in Markdown.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// RunPodSandbox to ready, by phase.
    Sandbox(Options),
    /// Create-to-running of a pod, seen by a watch.
    Pods(Options),
    /// Memory of a pod's processes and of the daemons.
    Memory(Options),
    /// Requests per second of the API server.
    Apiserver(Options),
    /// Pods bound per second.
    Scheduler(Options),
    /// A control plane started for the purpose: requests and bindings with each store, memory, idle
    /// CPU, many watches, many pods.
    ControlPlane(Options),
    /// Pods placed per second by the scheduler's engine alone.
    Engine(Options),
    /// All but the control plane, in this order.
    All(Options),
}

/// Where to measure, and how much.
#[derive(Args, Clone)]
pub struct Options {
    /// CRI socket of hull-shim.
    #[arg(long, default_value = "/run/hull/shim.sock")]
    cri_socket: PathBuf,
    /// Sandboxes started one after the other.
    #[arg(long, default_value_t = 5)]
    sandboxes: usize,
    /// Pods created one after the other.
    #[arg(long, default_value_t = 5)]
    pods: usize,
    /// Image of the pods.
    #[arg(long, default_value = "busybox")]
    image: String,
    /// Objects that the API server holds while it is measured.
    #[arg(long, default_value_t = 10_000)]
    objects: usize,
    /// Requests under way at once.
    #[arg(long, default_value_t = 64)]
    concurrency: usize,
    /// Watches that are open while changes are made.
    #[arg(long, default_value_t = 50)]
    watches: usize,
    /// Changes made while the watches are open.
    #[arg(long, default_value_t = 200)]
    changes: usize,
    /// How often the API server's requests are measured; figures are medians.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Watches that one change goes to.
    #[arg(long, default_value_t = 10_000)]
    watchers: usize,
    /// Pods that one list returns.
    #[arg(long, default_value_t = 100_000)]
    listed_pods: usize,
    /// How long an idle control plane is looked at, seconds.
    #[arg(long, default_value_t = 30)]
    idle_seconds: u64,
    /// Fake nodes.
    #[arg(long, default_value_t = 1_000)]
    fake_nodes: usize,
    /// Pods to bind to them.
    #[arg(long, default_value_t = 2_000)]
    bindings: usize,
    /// The engine's only workload; without it all are measured.
    #[arg(long)]
    workload: Option<workload::Workload>,
    /// Longest wait for one pod or for all bindings, seconds.
    #[arg(long, default_value_t = 300)]
    patience_seconds: u64,
    /// Guest kernel for the QEMU beside hull-vmm; without it, no peer is run.
    #[arg(long)]
    peer_kernel: Option<PathBuf>,
    /// Initramfs for it.
    #[arg(long)]
    peer_initramfs: Option<PathBuf>,
}

fn main() -> anyhow::Result<()> {
    // kube and the CRI client share the process's one TLS provider.
    let _ = rustls::crypto::ring::default_provider().install_default();
    tokio::runtime::Runtime::new()
        .context("starting the runtime")?
        .block_on(run(Cli::parse().command))
}

async fn run(command: Command) -> anyhow::Result<()> {
    println!("{}", machine::describe());
    match command {
        Command::Sandbox(options) => show("sandbox", sandbox::measure(&options).await),
        Command::Pods(options) => show("pods", pods::measure(&options).await),
        Command::Memory(options) => show("memory", memory::measure(&options).await),
        Command::Apiserver(options) => show("apiserver", apiserver::measure(&options).await),
        Command::Scheduler(options) => show("scheduler", scheduler::measure(&options).await),
        Command::ControlPlane(options) => {
            let reports = control_plane::measure(&options).await;
            reports?.iter().for_each(|report| println!("{report}"));
            Ok(())
        }
        Command::Engine(options) => show("engine", engine::measure(&options)),
        Command::All(options) => {
            // One that cannot be measured does not keep the others from it.
            let results = [
                show("sandbox", sandbox::measure(&options).await),
                show("pods", pods::measure(&options).await),
                show("memory", memory::measure(&options).await),
                show("apiserver", apiserver::measure(&options).await),
                show("scheduler", scheduler::measure(&options).await),
                show("engine", engine::measure(&options)),
            ];
            let failed = results.iter().filter(|result| result.is_err()).count();
            anyhow::ensure!(failed == 0, "{failed} benchmarks could not be run");
            Ok(())
        }
    }
}

fn show(name: &str, result: anyhow::Result<Report>) -> anyhow::Result<()> {
    match result {
        Ok(report) => {
            println!("{report}");
            Ok(())
        }
        Err(error) => {
            println!("## {name}\n\nnot measured: {error:#}\n");
            Err(error.context(format!("benchmark {name}")))
        }
    }
}
