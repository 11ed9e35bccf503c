//! StopPodSandbox and RemovePodSandbox.

use super::object::{Live, Sandbox};
use super::state::{SandboxEvent, SandboxState};
use super::teardown;
use crate::container::lifecycle;
use crate::error::Error;
use crate::shim::Shim;
use crate::timeouts::scaled;
use std::sync::Arc;
use std::time::Duration;

/// How long the containers of a sandbox that is stopped may take to end by themselves.
const CONTAINERS_TIMEOUT: Duration = Duration::from_secs(10);

/// Ends the containers, the VM and the network. Doing it again is no error.
pub async fn stop(shim: &Arc<Shim>, sandbox: &Arc<Sandbox>) -> Result<(), Error> {
    let _operation = sandbox.operation.lock().await;
    stop_locked(shim, sandbox).await
}

async fn stop_locked(shim: &Arc<Shim>, sandbox: &Arc<Sandbox>) -> Result<(), Error> {
    match sandbox.state() {
        SandboxState::Stopped | SandboxState::Removing => return Ok(()),
        _ => sandbox.apply(SandboxEvent::Stop)?,
    };
    tracing::info!(sandbox_id = sandbox.id, "stopping a sandbox");
    if let Some(live) = sandbox.live() {
        let limit = scaled(CONTAINERS_TIMEOUT);
        let stopped = tokio::time::timeout(limit, stop_containers(shim, sandbox, &live)).await;
        if stopped.is_err() {
            tracing::warn!(
                sandbox_id = sandbox.id,
                ?limit,
                "containers are not stopped in time: their VM ends with them"
            );
        }
    }
    teardown::stop_resources(shim, sandbox).await?;
    for container in shim.registry.containers_of(&sandbox.id) {
        lifecycle::lost_with_vm(shim, &container, &stopped_exit());
    }
    sandbox.apply(SandboxEvent::Stopped)?;
    shim.metrics.sandboxes_ready.set(ready_count(shim));
    Ok(())
}

/// The VM ends in a moment; what matters is that output is drained.
async fn stop_containers(shim: &Shim, sandbox: &Sandbox, live: &Live) {
    for container in shim.registry.containers_of(&sandbox.id) {
        let stopped = lifecycle::stop_process(live, &container, Duration::ZERO).await;
        if let Err(error) = stopped {
            tracing::warn!(sandbox_id = sandbox.id, container_id = container.id, %error, "stopping a container with its sandbox");
        }
    }
}

fn stopped_exit() -> crate::journal::ExitRecord {
    crate::journal::ExitRecord {
        reason: "SandboxStopped".to_string(),
        message: "the sandbox was stopped while the container ran".to_string(),
        container_exit_code: 137,
        at_ns: crate::shim::now_ns(),
    }
}

/// How many sandboxes run.
pub fn ready_count(shim: &Shim) -> i64 {
    let sandboxes = shim.registry.sandboxes();
    sandboxes
        .iter()
        .filter(|sandbox| sandbox.state() == SandboxState::Ready)
        .count() as i64
}

/// Stops a sandbox if need be and removes every trace of it.
pub async fn remove(shim: &Arc<Shim>, sandbox: &Arc<Sandbox>) -> Result<(), Error> {
    let _operation = sandbox.operation.lock().await;
    stop_locked(shim, sandbox).await?;
    sandbox.apply(SandboxEvent::Remove)?;
    tracing::info!(sandbox_id = sandbox.id, "removing a sandbox");
    teardown::everything(shim, sandbox).await
}
