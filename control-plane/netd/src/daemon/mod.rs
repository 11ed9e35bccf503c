//! The wiring: changes in, tables out.
//!
//! ```text
//!  inputs: watches, CNI records ──► state: what is known ──► tables: what the kernel is told
//!                                     └──► the zone of cluster DNS
//! ```

mod inputs;
mod nodes;
mod state;
mod tables;

use std::net::SocketAddr;
use std::sync::Arc;

use kube::Client;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::NetdConfig;
use crate::dns;
use crate::dns::forward::{self, Forwarder};
use crate::dns::metrics::DnsMetrics;
use crate::dns::server::Resolver;
use crate::metrics::Metrics;
use crate::server::{self, Ready};
use crate::service_link;
use crate::sysctl;
use inputs::watch;
use state::Daemon;

/// Changes waiting; the watches stop reading when it is full.
const INPUT_QUEUE: usize = 4096;

/// Why netd ended.
#[derive(Debug, thiserror::Error)]
pub enum NetdError {
    /// The metrics server broke.
    #[error("serve metrics on {address}: {source}")]
    Server {
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A watch task ended although it retries for ever.
    #[error("the watches ended")]
    WatchesEnded,
}

/// Runs netd until `shutdown`. The kernel's tables stay: traffic goes on.
///
/// # Errors
/// [`NetdError`].
pub async fn run(
    client: Client,
    config: NetdConfig,
    shutdown: CancellationToken,
) -> Result<(), NetdError> {
    let helpers = shutdown.child_token();
    let _stop = helpers.clone().drop_guard();
    let tasks = TaskTracker::new();
    let metrics = Metrics::default();
    let ready = Ready::default();
    sysctl::apply();
    let own = config.own_addresses();
    if let Err(error) = service_link::ensure(&own, &config.service_networks, &config.node_ips).await
    {
        tracing::warn!(%error, "the service interface is not complete");
    }
    let (input, inputs) = mpsc::channel(INPUT_QUEUE);
    watch(&client, &config, &input, &tasks, &helpers);
    drop(input);
    let mut served = tokio::spawn({
        let (listen, metrics, ready) = (config.metrics_listen, metrics.clone(), ready.clone());
        let helpers = helpers.clone();
        async move {
            match listen {
                Some(address) => server::run(address, metrics, ready, helpers)
                    .await
                    .map_err(|source| NetdError::Server { address, source }),
                None => {
                    helpers.cancelled().await;
                    Ok(())
                }
            }
        }
    });
    let daemon = Daemon::new(&config, metrics.clone(), ready);
    serve_dns(&config, &daemon, &metrics, &tasks, &helpers);
    let outcome = tokio::select! {
        outcome = daemon.run(inputs, &shutdown) => outcome,
        Ok(outcome) = &mut served => outcome,
    };
    helpers.cancel();
    tasks.close();
    tasks.wait().await;
    outcome
}

fn serve_dns(
    config: &NetdConfig,
    daemon: &Daemon,
    metrics: &Metrics,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) {
    let own = config.own_addresses();
    let upstreams = if config.dns_upstreams.is_empty() {
        forward::system_servers(&config.resolv_conf, &own)
    } else {
        config.dns_upstreams.clone()
    };
    let forwarder = Forwarder::new(config.stub_domains.clone(), upstreams, config.timeout_scale);
    let figures = DnsMetrics::default();
    metrics.register(|registry| figures.register(registry));
    let resolver = Arc::new(Resolver::new(daemon.zone.clone(), forwarder, figures));
    for address in own {
        let address = SocketAddr::new(address, forward::PORT);
        tasks.spawn(dns::server::run(address, resolver.clone(), stop.clone()));
    }
}
