//! The node agent: a kubelet's role. Registers the node, runs the pods bound to it through CRI,
//! reports their state, and serves logs and exec.
//!
//! ```text
//!            API server
//!   Node, Lease ▲   │ pods with spec.nodeName = this node          logs, exec
//!               │   ▼                                                  │
//!   registration.rs manager.rs ──► pod/worker.rs (one per pod)      server/ (HTTPS)
//!                     ▲              │ plan, status (pure)             │
//!              relist │              ▼                                 ▼
//!                     └───────── cri/ ──gRPC──► hull-shim ◄── streaming URL (WebSocket)
//! ```
//!
//! Invariants:
//! - CRI's reports are the truth about what runs; a restarted agent adopts them by the pod UID in
//!   their labels and touches nothing that runs as it should.
//! - Nothing waits for the API server: pods run, restart and end while it is away, and statuses
//!   are written when it is back.
//! - Whatever belongs to a pod (sandbox, containers, volumes, logs) is named by its UID and goes
//!   with it.

pub mod config;
mod context;
pub mod cri;
pub mod env;
mod error;
pub mod events;
pub mod eviction;
pub mod fake;
mod image_gc;
pub mod images;
pub mod logs;
mod manager;
pub mod metrics;
pub mod node_object;
pub mod objects;
pub mod pod;
pub mod pod_network;
mod probes;
pub mod quantity;
mod registration;
mod server;
pub mod static_pods;
pub mod stats;
mod termination_message;
pub mod volumes;

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

pub use config::{EvictionConfig, ImageGcConfig, NodeConfig, ServerTls, Timings};
pub use error::NodeError;
pub use eviction::thresholds::Threshold;
pub use pod_network::PodNetworkConfig;

/// Runs the node agent until `shutdown`; pods keep running afterwards.
pub async fn run(
    client: kube::Client,
    config: NodeConfig,
    shutdown: CancellationToken,
) -> Result<(), NodeError> {
    for directory in [config.root_dir.join("pods"), config.pod_log_dir.clone()] {
        std::fs::create_dir_all(&directory).map_err(|source| NodeError::Directory {
            path: directory,
            source,
        })?;
    }
    // Secrets are among the volumes.
    std::fs::set_permissions(&config.root_dir, std::fs::Permissions::from_mode(0o700)).map_err(
        |source| NodeError::Directory {
            path: config.root_dir.clone(),
            source,
        },
    )?;
    let node = Arc::new(context::NodeContext {
        cri: cri::Cri::new(&config.cri_endpoint, config.timings.clone())?,
        objects: objects::Objects::new(client.clone(), config.timings.object_timeout),
        services: env::services::Services::start(
            client.clone(),
            config.timings.object_timeout,
            shutdown.clone(),
        ),
        recorder: events::Recorder::start(client.clone(), shutdown.clone()),
        metrics: metrics::Metrics::default(),
        resources: node_object::NodeResources::read(&config.root_dir),
        cpu_meter: stats::node_usage::CpuMeter::default(),
        images: image_gc::ImageRecords::default(),
        pressure: eviction::Pressure::default(),
        pulls: Semaphore::new(context::PARALLEL_PULLS),
        client,
        config,
    });
    tracing::info!(
        node = node.config.node_name,
        cri = node.config.cri_endpoint,
        "node agent starts"
    );
    let index = manager::PodIndex::default();
    let statics = static_pods::source::start(node.clone(), shutdown.clone());
    let mirrors = Arc::new(tokio::sync::Notify::new());
    let housekeeping = [
        tokio::spawn(static_pods::mirror::run(
            node.clone(),
            statics.clone(),
            mirrors.clone(),
            shutdown.clone(),
        )),
        tokio::spawn(logs::rotate::run(node.clone(), shutdown.clone())),
        tokio::spawn(image_gc::run(node.clone(), shutdown.clone())),
        tokio::spawn(eviction::manager::run(
            node.clone(),
            index.clone(),
            shutdown.clone(),
        )),
    ];
    let server = server::start(node.clone(), index.clone(), shutdown.clone()).await?;
    let registration = tokio::spawn(registration::run(node.clone(), shutdown.clone()));
    manager::Manager::new(node.clone(), index, statics, mirrors)
        .run(shutdown.clone())
        .await;
    shutdown.cancel();
    let _ = registration.await;
    for task in housekeeping {
        let _ = task.await;
    }
    if let Some(server) = server {
        let _ = server.await;
    }
    tracing::info!(
        node = node.config.node_name,
        "node agent ends; pods keep running"
    );
    Ok(())
}
