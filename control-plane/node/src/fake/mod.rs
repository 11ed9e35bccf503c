//! Node agents that run nothing: thousands in one process, for load tests of the control plane.
//!
//! ```text
//! register ─► Node + Lease each ─► heartbeat: Lease every 10 s, status every 5 min, evenly spread
//! one watch on bound pods ─► pods.rs: Pending → Running (→ Succeeded, of a Job); deleted → gone
//! ```
//!
//! Everything goes through the API server, as from real node agents; nothing else tells them
//! apart but the label [`FAKE_LABEL`].

mod heartbeat;
mod objects;
mod pods;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::Node;
use kube::{Api, Client, api::DeleteParams};
use tokio_util::sync::CancellationToken;

/// The label of fake nodes.
pub const FAKE_LABEL: &str = "hull.dev/fake-node";

/// What the nodes are like.
#[derive(Debug, Clone)]
pub struct FakeNodesConfig {
    /// How many.
    pub count: usize,
    /// Their names are this, a hyphen and a number of five digits.
    pub prefix: String,
    /// `cpu` that each offers, a quantity.
    pub cpu: String,
    /// `memory` that each offers, a quantity.
    pub memory: String,
    /// Pods that each takes.
    pub pods: u32,
    /// They are spread over zones `zone-0`, `zone-1` and so on.
    pub zones: usize,
    /// How long pods of Jobs run before they succeed.
    pub job_duration: Duration,
    /// How often each Lease is renewed.
    pub lease_interval: Duration,
    /// Requests under way at a time.
    pub concurrency: usize,
    /// Leave the nodes there at the end.
    pub keep: bool,
}

impl Default for FakeNodesConfig {
    fn default() -> Self {
        FakeNodesConfig {
            count: 1,
            prefix: "fake".into(),
            cpu: "4".into(),
            memory: "32Gi".into(),
            pods: 110,
            zones: 3,
            job_duration: Duration::from_secs(1),
            lease_interval: Duration::from_secs(10),
            concurrency: 64,
            keep: false,
        }
    }
}

impl FakeNodesConfig {
    fn name(&self, number: usize) -> String {
        format!("{}-{number:05}", self.prefix)
    }

    /// The number of one of our nodes.
    fn number(&self, name: &str) -> Option<usize> {
        let number = name.strip_prefix(&self.prefix)?.strip_prefix('-')?;
        let number: usize = number.parse().ok()?;
        (number < self.count && self.name(number) == name).then_some(number)
    }
}

/// What has been done so far.
#[derive(Debug, Default)]
pub struct Progress {
    registered: AtomicU64,
    renewals: AtomicU64,
    started: AtomicU64,
    ended: AtomicU64,
    failures: AtomicU64,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl std::fmt::Display for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        write!(
            f,
            "{} nodes registered, {} leases renewed, {} pods started, {} ended, {} requests failed",
            of(&self.registered),
            of(&self.renewals),
            of(&self.started),
            of(&self.ended),
            of(&self.failures)
        )
    }
}

/// What the parts share.
#[derive(Clone)]
struct Shared {
    client: Client,
    config: Arc<FakeNodesConfig>,
    progress: Arc<Progress>,
}

impl Shared {
    fn failed(&self, request: &'static str, of: &str, error: &kube::Error) {
        count(&self.progress.failures);
        tracing::debug!(request, of, %error, "request failed, trying again");
    }
}

/// Runs the nodes until `shutdown`, then removes them unless they are to be kept. Requests that
/// fail are made again for as long as it takes.
pub async fn run(
    client: Client,
    config: FakeNodesConfig,
    progress: Arc<Progress>,
    shutdown: CancellationToken,
) {
    let shared = Shared {
        client: hull_client::timeouts::with_deadlines(client),
        config: Arc::new(config),
        progress,
    };
    let registered = shutdown.run_until_cancelled(heartbeat::register_all(&shared));
    if registered.await.is_some() {
        let beat = shutdown.run_until_cancelled(heartbeat::run(&shared));
        let live = shutdown.run_until_cancelled(pods::run(&shared));
        tokio::join!(beat, live);
    }
    if !shared.config.keep {
        remove_all(&shared).await;
    }
}

/// The nodes' Leases and pods go with them: the control plane sees to that.
async fn remove_all(shared: &Shared) {
    let nodes: Api<Node> = Api::all(shared.client.clone());
    let removals = stream::iter(0..shared.config.count).map(|number| {
        let (nodes, name) = (&nodes, shared.config.name(number));
        async move {
            match nodes.delete(&name, &DeleteParams::default()).await {
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => {
                    tracing::warn!(node = name, %error, "the fake node could not be removed");
                }
                Ok(_) => {}
            }
        }
    });
    let mut removals = removals.buffer_unordered(shared.config.concurrency.max(1));
    while removals.next().await.is_some() {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_its_own_nodes_by_name() {
        let config = FakeNodesConfig {
            count: 20,
            ..FakeNodesConfig::default()
        };
        assert_eq!(config.name(7), "fake-00007");
        assert_eq!(config.number("fake-00007"), Some(7));
        for other in ["fake-00020", "fake-7", "fake-x", "other-00007", "fake"] {
            assert_eq!(config.number(other), None, "{other}");
        }
    }
}
