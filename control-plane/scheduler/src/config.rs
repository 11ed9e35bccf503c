//! Settings.

use std::time::Duration;

use hull_client::leader::LeaderElection;

use crate::{metrics::SchedulerMetrics, plugins::ScoringStrategy};

/// How the scheduler works.
#[derive(Debug, Clone)]
pub struct SchedulerConfig {
    /// Pods with this `spec.schedulerName` are ours.
    pub scheduler_name: String,
    /// Bindings under way at a time.
    pub bind_concurrency: usize,
    /// Wait of a pod after its first failure; doubles with each further one.
    pub initial_backoff: Duration,
    /// Longest such wait.
    pub max_backoff: Duration,
    /// An unschedulable pod is tried again after this time even if nothing changed.
    pub unschedulable_retry: Duration,
    /// Percentage of nodes to look for before scoring; `None`: 50, less 1 per 125 nodes, at least 5.
    pub percentage_of_nodes_to_score: Option<u8>,
    /// Whether pods spread over emptier nodes or are packed onto fuller ones.
    pub scoring_strategy: ScoringStrategy,
    /// With several instances: only the leader works. `None`: this is the only one.
    pub leader_election: Option<LeaderElection>,
    /// Where the figures go.
    pub metrics: SchedulerMetrics,
}

impl Default for SchedulerConfig {
    fn default() -> Self {
        SchedulerConfig {
            scheduler_name: "default-scheduler".into(),
            bind_concurrency: 64,
            initial_backoff: Duration::from_secs(1),
            max_backoff: Duration::from_secs(10),
            unschedulable_retry: Duration::from_secs(300),
            percentage_of_nodes_to_score: None,
            scoring_strategy: ScoringStrategy::default(),
            leader_election: None,
            metrics: SchedulerMetrics::default(),
        }
    }
}
