//! After a restart: adopt what runs, finish what was being removed, roll back what was
//! being made, and take away what no record names.

use super::object::{Live, Sandbox};
use super::state::{SandboxEvent, SandboxState};
use super::{stop, teardown, validate, watch};
use crate::container::object::Container;
use crate::container::state::{ContainerEvent, ContainerState};
use crate::container::{disks, lifecycle, shares};
use crate::error::Error;
use crate::guest::Guest;
use crate::journal::{ContainerRecord, SandboxRecord};
use crate::logs::LogPump;
use crate::network::netns;
use crate::shim::{Shim, now_ns};
use crate::timeouts::scaled;
use crate::vmm::{VmExit, console};
use hull_agent_protocol::v1 as agent;
use hull_vmm_client::exit::ExitReason;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How long a guest may keep CRI from being served: its containers are settled until then.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(2);

/// Brings memory and machine into line with the journal. Runs before CRI is served.
pub async fn recover(shim: &Arc<Shim>) -> Result<(), Error> {
    let records = shim.journal.load_all()?;
    tracing::info!(sandboxes = records.len(), "recovering");
    let mut sandboxes = Vec::new();
    for (record, containers) in records {
        sandboxes.push(register(shim, record, containers));
    }
    // All at a time: one that takes long, and a guest decides that, keeps no other waiting.
    let mut recoveries = JoinSet::new();
    for sandbox in sandboxes {
        let shim = shim.clone();
        recoveries.spawn(async move {
            let state = sandbox.state();
            if let Err(error) = recover_sandbox(&shim, &sandbox).await {
                tracing::error!(sandbox_id = sandbox.id, ?state, %error, "recovering a sandbox");
            }
        });
    }
    while let Some(outcome) = recoveries.join_next().await {
        if let Err(error) = outcome {
            tracing::error!(%error, "recovering a sandbox");
        }
    }
    remove_orphans(shim).await;
    Ok(())
}

fn register(
    shim: &Arc<Shim>,
    record: SandboxRecord,
    containers: Vec<ContainerRecord>,
) -> Arc<Sandbox> {
    let id = record.id.clone();
    if let Some(metadata) = &record.config.metadata {
        let name = validate::reserved_name(metadata);
        if let Err(error) = shim.registry.reserve_sandbox(&name, &id) {
            tracing::error!(sandbox_id = id, %error, "two sandboxes of one name");
        }
    }
    let pod = record.config.metadata.clone().unwrap_or_default();
    let sandbox = Sandbox::new(record, shim.paths(&id), shim.journal.clone());
    shim.registry.insert_sandbox(sandbox.clone());
    for record in containers {
        if let Some(metadata) = &record.config.metadata {
            let name = format!(
                "{}_{}_{}_{}_{}",
                metadata.name, pod.name, pod.namespace, pod.uid, metadata.attempt
            );
            if let Err(error) = shim.registry.reserve_container(&name, &record.id) {
                tracing::error!(container_id = record.id, %error, "two containers of one name");
            }
        }
        if shim.images.lease(&record.image_id, &record.id).is_none() {
            tracing::warn!(
                container_id = record.id,
                image = record.image_id,
                "the image of a container is gone"
            );
        }
        shim.registry
            .insert_container(Container::new(record, shim.journal.clone()));
    }
    sandbox
}

async fn recover_sandbox(shim: &Arc<Shim>, sandbox: &Arc<Sandbox>) -> Result<(), Error> {
    match sandbox.state() {
        SandboxState::Creating => {
            tracing::info!(sandbox_id = sandbox.id, "rolling back a half-made sandbox");
            sandbox.apply(SandboxEvent::Failed)?;
            teardown::everything(shim, sandbox).await
        }
        SandboxState::Removing => {
            tracing::info!(sandbox_id = sandbox.id, "finishing a removal");
            teardown::everything(shim, sandbox).await
        }
        SandboxState::Stopping => {
            tracing::info!(sandbox_id = sandbox.id, "finishing a stop");
            stop::stop(shim, sandbox).await
        }
        SandboxState::Ready => adopt(shim, sandbox).await,
        SandboxState::Dead | SandboxState::Stopped => {
            settle_containers(shim, sandbox, None).await;
            Ok(())
        }
    }
}

async fn adopt(shim: &Arc<Shim>, sandbox: &Arc<Sandbox>) -> Result<(), Error> {
    let record = sandbox.record();
    let found = match &record.vmm {
        Some(vmm) => shim.vmm.adopt(&sandbox.id, &sandbox.paths, vmm).await?,
        None => Err(VmExit {
            reason: ExitReason::Killed,
            message: "the journal names no VMM process".to_string(),
        }),
    };
    let vm = match found {
        Ok(vm) => vm,
        Err(exit) => {
            tracing::warn!(sandbox_id = sandbox.id, reason = ?exit.reason, "the VM ended while no shim ran");
            let exit = watch::exit_record(&exit, &console::tail(&sandbox.paths.console));
            watch::vm_ended(shim, sandbox, exit)?;
            settle_containers(shim, sandbox, None).await;
            return Ok(());
        }
    };
    let live = Live {
        vm,
        guest: Guest::new(sandbox.paths.vsock.clone()),
        tasks: CancellationToken::new(),
    };
    watch::begin(shim, sandbox, &live);
    let (settler, settled) = (shim.clone(), sandbox.clone());
    let settling = tokio::spawn(async move {
        if let Err(error) = live.guest.hello().await {
            tracing::warn!(sandbox_id = settled.id, %error, "an adopted agent does not answer yet");
        }
        settle_containers(&settler, &settled, Some(&live)).await;
        // Only now: of one that ended meanwhile the log is taken before its end is noted.
        watch::begin_containers(&settler, &settled, live);
    });
    // A guest that does not answer is settled while CRI is served.
    match tokio::time::timeout(scaled(SETTLE_TIMEOUT), settling).await {
        Ok(_) => tracing::info!(sandbox_id = sandbox.id, "sandbox adopted"),
        Err(_) => {
            tracing::warn!(
                sandbox_id = sandbox.id,
                "sandbox adopted; its agent is waited for"
            );
        }
    }
    Ok(())
}

/// Brings the containers' records into line with what the agent says, and goes on
/// with their logs. Without a VM, what ran has ended.
async fn settle_containers(shim: &Arc<Shim>, sandbox: &Arc<Sandbox>, live: Option<&Live>) {
    let containers = shim.registry.containers_of(&sandbox.id);
    let containers: Vec<_> = containers
        .into_iter()
        .map(|container| (container.clone(), container.state()))
        .collect();
    let known = match live {
        Some(live) => match live
            .guest
            .list_containers(agent::ListContainersRequest {})
            .await
        {
            Ok(list) => Some(list.containers),
            Err(error) => {
                tracing::warn!(sandbox_id = sandbox.id, %error, "listing the containers of an adopted agent");
                None
            }
        },
        None => None,
    };
    let known: Option<HashMap<String, agent::ContainerInfo>> = known.map(|containers| {
        containers
            .into_iter()
            .map(|info| (info.container_id.clone(), info))
            .collect()
    });
    for (container, state) in containers {
        let _sandbox_operation = sandbox.operation.lock().await;
        let _operation = container.operation.lock().await;
        // CRI may be served by now: what it changed is settled.
        if live.is_some() && sandbox.state() != SandboxState::Ready || container.state() != state {
            continue;
        }
        let settled = settle(shim, sandbox, live, known.as_ref(), &container).await;
        if let Err(error) = settled {
            tracing::error!(sandbox_id = sandbox.id, container_id = container.id, %error, "settling a container");
        }
    }
}

async fn settle(
    shim: &Arc<Shim>,
    sandbox: &Arc<Sandbox>,
    live: Option<&Live>,
    known: Option<&HashMap<String, agent::ContainerInfo>>,
    container: &Arc<Container>,
) -> Result<(), Error> {
    match container.state() {
        ContainerState::Creating | ContainerState::Removing => {
            container.apply(ContainerEvent::Remove, |_| {})?;
            let slot = container.record().slot;
            if let Some(live) = live
                && let Err(error) = remove_from_guest(live, &container.id).await
            {
                tracing::debug!(container_id = container.id, %error, "removing a half-made container");
            }
            if let Err(error) = shares::detach_all(live, &container.id).await {
                tracing::warn!(sandbox_id = sandbox.id, container_id = container.id, %error, "taking host volumes away");
            }
            // A crash may have come before the slot was noted in the container's record.
            let serials: Vec<String> = sandbox
                .record()
                .slots
                .iter()
                .filter(|(serial, held)| {
                    **serial == slot || held.containers.contains(&container.id)
                })
                .map(|(serial, _)| serial.clone())
                .collect();
            for serial in serials {
                if let Err(error) = disks::detach(sandbox, live, &serial, &container.id).await {
                    tracing::warn!(sandbox_id = sandbox.id, serial, %error, "emptying a disk slot");
                }
            }
            shim.images.release(&container.id);
            shim.journal.remove_container(&sandbox.id, &container.id)?;
            shim.registry.remove_container(&container.id);
        }
        ContainerState::Running => settle_running(shim, sandbox, live, known, container).await?,
        ContainerState::Created if live.is_some() => {
            // A start that was cut short may have left it in the agent.
            if known.is_some_and(|known| known.contains_key(&container.id))
                && let Some(live) = live
            {
                remove_from_guest(live, &container.id).await?;
            }
        }
        ContainerState::Created | ContainerState::Exited => {}
    }
    Ok(())
}

async fn settle_running(
    shim: &Arc<Shim>,
    sandbox: &Arc<Sandbox>,
    live: Option<&Live>,
    known: Option<&HashMap<String, agent::ContainerInfo>>,
    container: &Arc<Container>,
) -> Result<(), Error> {
    let Some(live) = live else {
        let exit = sandbox
            .record()
            .exit
            .unwrap_or_else(|| crate::journal::ExitRecord {
                reason: "SandboxStopped".to_string(),
                message: "the sandbox was stopped while no shim ran".to_string(),
                container_exit_code: 137,
                at_ns: now_ns(),
            });
        lifecycle::lost_with_vm(shim, container, &exit);
        return Ok(());
    };
    let info = known.and_then(|known| known.get(&container.id));
    if info.is_some_and(|info| info.state() == agent::container_info::State::Created) {
        // Marked as running right before it was told to run, which it never was.
        return not_started(live, container).await;
    }
    LogPump::begin(shim, live, container);
    if known.is_none() {
        return Ok(());
    }
    match info {
        // Exits are also repeated by the agent's event stream.
        Some(info) if info.state() == agent::container_info::State::Stopped => {
            if let Some(exit) = info.exit {
                lifecycle::exited(shim, container.clone(), exit);
            }
        }
        Some(info) if info.state() == agent::container_info::State::Running => {}
        _ => container.apply(ContainerEvent::Exited, |record| {
            record.exit_code = 128;
            record.reason = "StartError".to_string();
            record.message = "the guest does not know the container".to_string();
            record.finished_at_ns = now_ns();
        })?,
    }
    Ok(())
}

/// Makes a container whose start was cut short one that can be started.
async fn not_started(live: &Live, container: &Arc<Container>) -> Result<(), Error> {
    remove_from_guest(live, &container.id).await?;
    container.apply(ContainerEvent::NotStarted, |record| {
        record.started_at_ns = 0;
    })
}

async fn remove_from_guest(live: &Live, container_id: &str) -> Result<(), Error> {
    let request = agent::RemoveContainerRequest {
        container_id: container_id.to_owned(),
    };
    live.guest.remove_container(request).await?;
    Ok(())
}

/// Takes away what carries a sandbox's id that no record has: a crash at the wrong
/// moment, or a state directory that was deleted under running pods.
async fn remove_orphans(shim: &Arc<Shim>) {
    let known: Vec<String> = shim
        .registry
        .sandboxes()
        .iter()
        .map(|sandbox| sandbox.id.clone())
        .collect();
    for id in shim.vmm.destroy_unknown(&known).await {
        tracing::warn!(sandbox_id = id, "killed the VMM of an unknown sandbox");
    }
    for id in shim
        .network
        .attached()
        .into_iter()
        .filter(|id| !known.contains(id))
    {
        let path = shim.paths(&id).netns;
        match shim.network.detach(&id, &path).await {
            Ok(()) => tracing::warn!(sandbox_id = id, "removed the network of an unknown sandbox"),
            Err(error) => tracing::error!(sandbox_id = id, %error, "an orphaned network stays"),
        }
    }
    for id in unknown_entries(&shim.config.run_dir.join("netns"), &known) {
        if let Err(error) = netns::remove(&shim.paths(&id).netns) {
            tracing::error!(sandbox_id = id, %error, "an orphaned network namespace stays");
        }
    }
    for id in unknown_entries(&shim.config.run_dir.join("sandboxes"), &known) {
        remove_files(shim, &id);
    }
    for file in unknown_entries(&shim.config.state_dir.join("scratch"), &known) {
        // `<id>.img` of a known sandbox, and templates, stay.
        let id = file.trim_end_matches(".img");
        if file.ends_with(".img") && !known.iter().any(|known| known == id) {
            remove_files(shim, id);
        } else if file.ends_with(".tmp") {
            let _ = std::fs::remove_file(shim.config.state_dir.join("scratch").join(&file));
        }
    }
}

fn remove_files(shim: &Shim, id: &str) {
    match shim.paths(id).remove() {
        Ok(()) => tracing::warn!(sandbox_id = id, "removed files of an unknown sandbox"),
        Err(error) => tracing::error!(sandbox_id = id, %error, "orphaned files stay"),
    }
}

fn unknown_entries(directory: &Path, known: &[String]) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return Vec::new();
    };
    entries
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| !known.contains(name))
        .collect()
}
