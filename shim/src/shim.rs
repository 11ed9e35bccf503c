//! The parts that every operation needs, in one place.

use crate::config::Config;
use crate::cri::rates::Rates;
use crate::error::Error;
use crate::journal::Journal;
use crate::metrics::Metrics;
use crate::network::pod::PodNetwork;
use crate::sandbox::object::Sandbox;
use crate::sandbox::registry::Registry;
use crate::streaming::tokens::Tokens;
use crate::vmm::VmmLauncher;
use crate::vmm::paths::SandboxPaths;
use hull_cri_api::v1::ContainerEventResponse;
use hull_image::ImageStore;
use std::future::Future;
use std::sync::Arc;
use tokio::sync::broadcast;

/// Events that a slow GetContainerEvents client may lag behind.
const EVENT_BACKLOG: usize = 1024;

/// The shim.
pub struct Shim {
    /// Settings.
    pub config: Config,
    /// Records.
    pub journal: Journal,
    /// Images.
    pub images: ImageStore,
    /// Networks.
    pub network: Arc<dyn PodNetwork>,
    /// VMMs.
    pub vmm: Arc<dyn VmmLauncher>,
    /// Figures.
    pub metrics: Arc<Metrics>,
    /// What exists.
    pub registry: Registry,
    /// Streams that were asked for and not yet opened.
    pub tokens: Tokens,
    /// CPU rates.
    pub rates: Rates,
    /// Container events.
    pub events: broadcast::Sender<ContainerEventResponse>,
}

impl Shim {
    /// Puts the parts together.
    pub fn new(
        config: Config,
        journal: Journal,
        images: ImageStore,
        network: Arc<dyn PodNetwork>,
        vmm: Arc<dyn VmmLauncher>,
    ) -> Arc<Self> {
        Arc::new(Self {
            config,
            journal,
            images,
            network,
            vmm,
            metrics: Arc::new(Metrics::default()),
            registry: Registry::default(),
            tokens: Tokens::default(),
            rates: Rates::default(),
            events: broadcast::channel(EVENT_BACKLOG).0,
        })
    }

    /// The files of a sandbox.
    pub fn paths(&self, id: &str) -> SandboxPaths {
        SandboxPaths::new(&self.config.run_dir, &self.config.state_dir, id)
    }

    /// The sandbox of a container.
    pub fn sandbox_of(&self, sandbox_id: &str) -> Result<Arc<Sandbox>, Error> {
        self.registry.sandbox(sandbox_id)
    }
}

/// Runs an operation to its end even if the client goes away: a gRPC server drops the
/// handler's future then, which must not leave things half done.
pub async fn detached<T, F>(what: &'static str, operation: F) -> Result<T, Error>
where
    T: Send + 'static,
    F: Future<Output = Result<T, Error>> + Send + 'static,
{
    tokio::spawn(operation)
        .await
        .map_err(|_| Error::Task(what))?
}

/// Unix time in nanoseconds.
pub fn now_ns() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since
        .map(|duration| duration.as_nanos() as i64)
        .unwrap_or_default()
}
