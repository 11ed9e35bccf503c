//! What every part of the node agent shares.

use kube::Client;
use tokio::sync::Semaphore;

use crate::config::NodeConfig;
use crate::cri::Cri;
use crate::env::services::Services;
use crate::events::Recorder;
use crate::metrics::Metrics;
use crate::node_object::NodeResources;
use crate::objects::Objects;

/// Image pulls that run at once.
pub(crate) const PARALLEL_PULLS: usize = 4;

/// Shared by the manager, the workers and the server.
pub(crate) struct NodeContext {
    pub config: NodeConfig,
    pub client: Client,
    pub cri: Cri,
    pub objects: Objects,
    pub services: Services,
    pub recorder: Recorder,
    pub metrics: Metrics,
    pub resources: NodeResources,
    pub pulls: Semaphore,
}
