//! Start, stop, exit and removal.

use super::object::Container;
use super::state::{ContainerEvent, ContainerState};
use super::{disks, shares, volumes};
use crate::cri::events;
use crate::error::Error;
use crate::guest::GuestError;
use crate::journal::ExitRecord;
use crate::logs::LogPump;
use crate::sandbox::object::Live;
use crate::shim::{Shim, now_ns};
use crate::timeouts::scaled;
use hull_agent_protocol::v1 as agent;
use hull_cri_api::v1::ContainerEventType;
use hull_vmm_client::exit::ExitReason;
use std::sync::Arc;
use std::time::Duration;

const SIGKILL: u32 = 9;
/// How long a process may take to vanish after SIGKILL.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long output may take to arrive after the process ended.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// Exit code of a container that could not be started.
const START_ERROR_CODE: i32 = 128;

/// StartContainer.
pub async fn start(shim: Arc<Shim>, container: Arc<Container>) -> Result<(), Error> {
    let _operation = container.operation.lock().await;
    if container.state() != ContainerState::Created {
        return Err(Error::FailedPrecondition(format!(
            "container {} is in state {:?}: only a created one can be started",
            container.id,
            container.state()
        )));
    }
    let live = shim.sandbox_of(&container.sandbox_id)?.require_live()?;
    match start_process(&shim, &live, &container).await {
        Ok(()) => {
            events::publish(&shim, &container, ContainerEventType::ContainerStartedEvent);
            tracing::info!(
                sandbox_id = container.sandbox_id,
                container_id = container.id,
                "container started"
            );
            Ok(())
        }
        Err(error) => {
            let message = error.to_string();
            tracing::warn!(
                sandbox_id = container.sandbox_id,
                container_id = container.id,
                message,
                "container did not start"
            );
            // The VM may have died meanwhile, which has been noted then.
            let noted = container.apply(ContainerEvent::Exited, |record| {
                record.exit_code = START_ERROR_CODE;
                record.reason = "StartError".to_string();
                record.message = message;
                record.finished_at_ns = now_ns();
            });
            if noted.is_ok() {
                events::publish(&shim, &container, ContainerEventType::ContainerStoppedEvent);
            }
            let request = agent::RemoveContainerRequest {
                container_id: container.id.clone(),
            };
            let _ = live.guest.remove_container(request).await;
            Err(error)
        }
    }
}

async fn start_process(
    shim: &Arc<Shim>,
    live: &Live,
    container: &Arc<Container>,
) -> Result<(), Error> {
    let record = container.record();
    let spec = serde_json::to_vec(&record.spec)
        .map_err(|error| Error::io("encoding the OCI configuration")(error.into()))?;
    live.guest
        .create_container(agent::CreateContainerRequest {
            container_id: container.id.clone(),
            oci_spec_json: spec,
            rootfs: Some(agent::RootFs {
                disk: record.slot,
                read_only: false,
            }),
            tty: record.config.tty,
            stdin: record.config.stdin,
            stdin_once: record.config.stdin_once,
        })
        .await?;
    LogPump::begin(shim, live, container);
    // Running before it is told to run: its exit may be reported before the answer is.
    container.apply(ContainerEvent::Started, |record| {
        record.started_at_ns = now_ns()
    })?;
    let request = agent::StartContainerRequest {
        container_id: container.id.clone(),
    };
    let started = live.guest.start_container(request).await?;
    if started.started_at_ns > 0 {
        container.update(|record| record.started_at_ns = started.started_at_ns)?;
    }
    Ok(())
}

/// Notes an exit that the agent reported, once the output has arrived. Repeated
/// reports change nothing.
pub fn exited(shim: &Arc<Shim>, container: Arc<Container>, exit: agent::Exit) {
    if container.state() != ContainerState::Running {
        return;
    }
    let shim = shim.clone();
    tokio::spawn(async move {
        if let Some(pump) = container.pump() {
            let _ = tokio::time::timeout(scaled(DRAIN_TIMEOUT), pump.finished()).await;
        }
        if let Ok(sandbox) = shim.sandbox_of(&container.sandbox_id)
            && let Some(live) = sandbox.live()
        {
            volumes::copy_back(&sandbox, &live.guest, &container.record().config).await;
        }
        let reason = match (exit.oom_killed, exit.code) {
            (true, _) => "OOMKilled",
            (false, 0) => "Completed",
            (false, _) => "Error",
        };
        let noted = container.apply(ContainerEvent::Exited, |record| {
            record.exit_code = exit.code;
            record.reason = reason.to_string();
            record.finished_at_ns = if exit.at_ns > 0 { exit.at_ns } else { now_ns() };
        });
        if noted.is_ok() {
            tracing::info!(
                sandbox_id = container.sandbox_id,
                container_id = container.id,
                exit_code = exit.code,
                reason,
                "container exited"
            );
            events::publish(&shim, &container, ContainerEventType::ContainerStoppedEvent);
        }
    });
}

/// Notes that a container went with its VM.
pub fn lost_with_vm(shim: &Arc<Shim>, container: &Arc<Container>, exit: &ExitRecord) {
    if container.state() != ContainerState::Running {
        return;
    }
    let noted = container.apply(ContainerEvent::Exited, |record| {
        record.exit_code = exit.container_exit_code;
        record.reason = exit.reason.clone();
        record.message = exit.message.clone();
        record.finished_at_ns = exit.at_ns;
    });
    match noted {
        Ok(()) => events::publish(shim, container, ContainerEventType::ContainerStoppedEvent),
        Err(error) => {
            tracing::error!(container_id = container.id, %error, "noting the end of a container");
        }
    }
}

/// StopContainer: asks, waits for `grace`, kills. A container that does not run is no error.
/// A guest that cannot be told to kill it is ended as a whole: no pod outlives its deletion
/// because its guest does not listen.
pub async fn stop(shim: &Shim, container: &Container, grace: Duration) -> Result<(), Error> {
    if container.state() != ContainerState::Running {
        return Ok(());
    }
    let Some(live) = shim.sandbox_of(&container.sandbox_id)?.live() else {
        return went_with_vm(container).await;
    };
    let mut why = String::new();
    // Twice: a connection that broke is made anew.
    for grace in [grace, Duration::ZERO] {
        match stop_process(&live, container, grace).await {
            Err(Error::Guest(error)) if error.unanswered() => why = error.to_string(),
            outcome => return outcome,
        }
        if live.ended_soon().await {
            return went_with_vm(container).await;
        }
    }
    let message = format!(
        "container {} was to be killed, and the guest did not answer ({why})",
        container.id
    );
    live.vm.end(ExitReason::GuestUnresponsive, &message).await?;
    went_with_vm(container).await
}

/// Waits until the end of a VM is noted in its container.
async fn went_with_vm(container: &Container) -> Result<(), Error> {
    let noted = tokio::time::timeout(scaled(KILL_TIMEOUT), container.not_running()).await;
    noted.map_err(|_| Error::TimedOut(format!("container {} has no VM", container.id)))
}

/// [`stop`] in a VM that runs.
pub async fn stop_process(
    live: &Live,
    container: &Container,
    grace: Duration,
) -> Result<(), Error> {
    if container.state() != ContainerState::Running {
        return Ok(());
    }
    if !grace.is_zero() {
        signal(live, container, container.record().stop_signal, false).await?;
        if tokio::time::timeout(grace, container.not_running())
            .await
            .is_ok()
        {
            return Ok(());
        }
        tracing::info!(
            container_id = container.id,
            ?grace,
            "killing a container that did not stop in time"
        );
    }
    signal(live, container, SIGKILL, true).await?;
    let limit = scaled(KILL_TIMEOUT);
    tokio::time::timeout(limit, container.not_running())
        .await
        .map_err(|_| {
            Error::TimedOut(format!(
                "container {} still runs {limit:?} after SIGKILL",
                container.id
            ))
        })
}

async fn signal(live: &Live, container: &Container, signal: u32, all: bool) -> Result<(), Error> {
    let request = agent::SignalRequest {
        container_id: container.id.clone(),
        exec_id: String::new(),
        signal,
        all,
    };
    match live.guest.signal(request).await {
        Ok(_) => Ok(()),
        // It ended by itself meanwhile.
        Err(error @ GuestError::Call { .. })
            if matches!(
                error.code(),
                Some(tonic::Code::NotFound | tonic::Code::FailedPrecondition)
            ) =>
        {
            Ok(())
        }
        Err(_) if container.state() != ContainerState::Running => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// RemoveContainer: kills it if need be.
pub async fn remove(shim: Arc<Shim>, container: Arc<Container>) -> Result<(), Error> {
    stop(&shim, &container, Duration::ZERO).await?;
    let sandbox = shim.sandbox_of(&container.sandbox_id)?;
    let _sandbox_operation = sandbox.operation.lock().await;
    let _operation = container.operation.lock().await;
    container.apply(ContainerEvent::Remove, |_| {})?;
    let live = sandbox.live();
    if let Some(live) = &live {
        let request = agent::RemoveContainerRequest {
            container_id: container.id.clone(),
        };
        match live.guest.remove_container(request).await {
            Err(error) if error.code() != Some(tonic::Code::NotFound) => return Err(error.into()),
            _ => {}
        }
    }
    if let Some(pump) = container.pump().filter(|_| live.is_some()) {
        let _ = tokio::time::timeout(scaled(DRAIN_TIMEOUT), pump.finished()).await;
    }
    container.set_pump(None);
    shares::detach_all(live.as_ref(), &container.id).await?;
    let slot = container.record().slot;
    disks::detach(&sandbox, live.as_ref(), &slot, &container.id).await?;
    shim.images.release(&container.id);
    shim.journal.remove_container(&sandbox.id, &container.id)?;
    shim.registry.remove_container(&container.id);
    events::publish(&shim, &container, ContainerEventType::ContainerDeletedEvent);
    tracing::info!(
        sandbox_id = sandbox.id,
        container_id = container.id,
        "container removed"
    );
    Ok(())
}
