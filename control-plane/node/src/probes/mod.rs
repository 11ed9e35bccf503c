//! Readiness, liveness and startup probes: exec by ExecSync inside the guest; httpGet, tcpSocket and
//! grpc from the node to the pod's address. One task per probe of a running container.
//!
//! ```text
//!   worker ── reconcile ──► mod.rs: a task per (container id, probe)
//!                              └─► prober.rs: when, how often, thresholds ──► Health
//!                                     └─► http.rs, grpc.rs, address.rs
//! ```

pub(crate) mod address;
mod grpc;
pub(crate) mod http;
mod prober;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::context::NodeContext;
use crate::cri::{ContainerPhase, ObservedPod};
use crate::pod::health::Health;
use crate::pod::identity::PodIdentity;
use prober::Prober;

/// Which of the three.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Readiness,
    Liveness,
    Startup,
}

impl Kind {
    fn title(self) -> &'static str {
        match self {
            Kind::Readiness => "Readiness",
            Kind::Liveness => "Liveness",
            Kind::Startup => "Startup",
        }
    }
}

/// The probes of one pod.
pub(crate) struct Probes {
    node: Arc<NodeContext>,
    identity: PodIdentity,
    health: Arc<Mutex<Health>>,
    poke: Arc<Notify>,
    tasks: HashMap<(String, Kind), tokio::task::AbortHandle>,
}

impl Drop for Probes {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Probes {
    pub(crate) fn new(
        node: Arc<NodeContext>,
        identity: PodIdentity,
        health: Arc<Mutex<Health>>,
        poke: Arc<Notify>,
    ) -> Self {
        Probes {
            node,
            identity,
            health,
            poke,
            tasks: HashMap::new(),
        }
    }

    /// Ends every probe.
    pub(crate) fn stop(&mut self) {
        for (_, task) in self.tasks.drain() {
            task.abort();
        }
    }

    /// Starts probes of containers that run and ends those of containers that do not.
    pub(crate) fn reconcile(&mut self, pod: &Pod, observed: &ObservedPod) {
        let running = |id: &str| {
            observed
                .containers
                .iter()
                .any(|c| c.id == id && c.phase == ContainerPhase::Running)
        };
        self.tasks.retain(|(id, _), task| {
            let keep = running(id);
            if !keep {
                task.abort();
            }
            keep
        });
        self.health.lock().retain(running);
        let Some(spec) = &pod.spec else { return };
        let pod_ip = if spec.host_network.unwrap_or(false) {
            Some(self.node.config.node_ip)
        } else {
            observed
                .ready_sandbox()
                .and_then(|s| s.ips.first()?.parse::<IpAddr>().ok())
        };
        for container in spec
            .containers
            .iter()
            .chain(spec.init_containers.iter().flatten())
        {
            let latest = observed.latest(&container.name);
            let Some(found) = latest.filter(|c| c.phase == ContainerPhase::Running) else {
                continue;
            };
            for (kind, probe) in [
                (Kind::Startup, &container.startup_probe),
                (Kind::Readiness, &container.readiness_probe),
                (Kind::Liveness, &container.liveness_probe),
            ] {
                let Some(probe) = probe else { continue };
                let key = (found.id.clone(), kind);
                if self.tasks.contains_key(&key) {
                    continue;
                }
                let prober = Prober {
                    node: self.node.clone(),
                    identity: self.identity.clone(),
                    health: self.health.clone(),
                    poke: self.poke.clone(),
                    container: container.clone(),
                    id: found.id.clone(),
                    pod_ip,
                    kind,
                    probe: probe.clone(),
                };
                self.tasks
                    .insert(key, tokio::spawn(prober.run()).abort_handle());
            }
        }
    }
}
