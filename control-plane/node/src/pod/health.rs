//! What probes have found, by container id.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::Container;

/// Results of probes. A container without an entry has not been probed yet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Health {
    /// Readiness probe: passing.
    pub ready: HashMap<String, bool>,
    /// Startup probe: passed.
    pub started: HashMap<String, bool>,
    /// Liveness or startup probe: failed for good; the message of the kill.
    pub unhealthy: HashMap<String, String>,
}

impl Health {
    /// Whether a running container has started: its startup probe passed, or it has none.
    pub fn is_started(&self, container: &Container, id: &str) -> bool {
        container.startup_probe.is_none() || self.started.get(id).copied().unwrap_or(false)
    }

    /// Whether a running container is ready: started, and its readiness probe passes or it has
    /// none.
    pub fn is_ready(&self, container: &Container, id: &str) -> bool {
        self.is_started(container, id)
            && (container.readiness_probe.is_none() || self.ready.get(id).copied().unwrap_or(false))
    }

    /// Forgets containers that no longer run.
    pub fn retain(&mut self, running: impl Fn(&str) -> bool) {
        self.ready.retain(|id, _| running(id));
        self.started.retain(|id, _| running(id));
        self.unhealthy.retain(|id, _| running(id));
    }
}
