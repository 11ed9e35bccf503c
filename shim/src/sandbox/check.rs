//! CNI CHECK in operation: whether what CNI ADD made for a pod is still there. A network
//! that somebody took apart is reported, not repaired: the pod's owner decides.

use super::state::SandboxState;
use crate::shim::Shim;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// Starts the task that checks every pod's network, at once and then at the configured
/// interval, until the shim is gone.
pub fn begin(shim: &Arc<Shim>) {
    let interval = Duration::from_secs(shim.config.cni.check_interval_seconds);
    if interval.is_zero() {
        return;
    }
    let shim: Weak<Shim> = Arc::downgrade(shim);
    tokio::spawn(async move {
        while let Some(shim) = shim.upgrade() {
            all(&shim).await;
            drop(shim);
            tokio::time::sleep(interval).await;
        }
    });
}

/// Checks the network of every pod that runs and notes what is wrong with it.
pub async fn all(shim: &Shim) {
    for sandbox in shim.registry.sandboxes() {
        if sandbox.state() != SandboxState::Ready {
            continue;
        }
        let problem = match shim.network.check(&sandbox.id).await {
            // A sandbox that was stopped meanwhile has no network.
            Err(error) if sandbox.state() == SandboxState::Ready => Some(error.to_string()),
            _ => None,
        };
        if let Some(problem) = &problem {
            shim.metrics.cni_check_failures.inc();
            tracing::warn!(sandbox_id = sandbox.id, problem, "CNI CHECK");
        }
        sandbox.set_network_problem(problem);
    }
}
