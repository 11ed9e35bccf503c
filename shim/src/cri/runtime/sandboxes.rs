//! The PodSandbox RPCs.

use super::if_found;
use crate::cri::convert;
use crate::error::Error;
use crate::sandbox::state::SandboxState;
use crate::sandbox::{run as sandbox_run, stop as sandbox_stop};
use crate::shim::{Shim, detached, now_ns};
use hull_cri_api::v1::*;
use std::collections::HashMap;
use std::sync::Arc;

pub async fn run(
    shim: &Arc<Shim>,
    request: RunPodSandboxRequest,
) -> Result<RunPodSandboxResponse, Error> {
    let config = request
        .config
        .ok_or_else(|| Error::InvalidArgument("the request has no sandbox config".to_string()))?;
    let started = sandbox_run::run(shim.clone(), config, request.runtime_handler);
    let pod_sandbox_id = detached("RunPodSandbox", started).await?;
    Ok(RunPodSandboxResponse { pod_sandbox_id })
}

pub async fn stop(
    shim: &Arc<Shim>,
    request: StopPodSandboxRequest,
) -> Result<StopPodSandboxResponse, Error> {
    if let Some(sandbox) = if_found(shim.registry.sandbox(&request.pod_sandbox_id))? {
        let shim = shim.clone();
        let work = async move { sandbox_stop::stop(&shim, &sandbox).await };
        detached("StopPodSandbox", work).await?;
    }
    Ok(StopPodSandboxResponse {})
}

pub async fn remove(
    shim: &Arc<Shim>,
    request: RemovePodSandboxRequest,
) -> Result<RemovePodSandboxResponse, Error> {
    if let Some(sandbox) = if_found(shim.registry.sandbox(&request.pod_sandbox_id))? {
        let shim = shim.clone();
        let work = async move { sandbox_stop::remove(&shim, &sandbox).await };
        detached("RemovePodSandbox", work).await?;
    }
    Ok(RemovePodSandboxResponse {})
}

pub fn status(
    shim: &Shim,
    request: PodSandboxStatusRequest,
) -> Result<PodSandboxStatusResponse, Error> {
    let sandbox = shim.registry.sandbox(&request.pod_sandbox_id)?;
    let record = sandbox.record();
    let mut info = HashMap::new();
    if request.verbose {
        let text = serde_json::json!({
            "state": record.state,
            "phases": record.phases,
            "interface": record.interface,
            "networkProblem": sandbox.network_problem(),
            "vmm": record.vmm,
            "exit": record.exit,
            "slots": record.slots,
            "volumes": record.volumes,
            "guestKernel": record.guest_kernel,
            "netns": shim.paths(&record.id).netns,
            "consoleLog": shim.paths(&record.id).console,
        });
        info.insert("info".to_string(), text.to_string());
        info.insert(
            "phases".to_string(),
            serde_json::to_string(&record.phases).unwrap_or_default(),
        );
    }
    let containers = shim.registry.containers_of(&record.id);
    Ok(PodSandboxStatusResponse {
        status: Some(convert::sandbox_status(&record)),
        info,
        containers_statuses: containers
            .iter()
            .map(|container| convert::container_status(&container.record()))
            .collect(),
        timestamp: now_ns(),
    })
}

pub fn list(shim: &Shim, filter: Option<PodSandboxFilter>) -> Vec<PodSandbox> {
    let filter = filter.unwrap_or_default();
    let state = filter.state.as_ref().map(|wanted| wanted.state);
    shim.registry
        .sandboxes()
        .into_iter()
        .map(|sandbox| sandbox.record())
        // One that is being made is not there yet.
        .filter(|record| record.state != SandboxState::Creating)
        .map(|record| convert::sandbox(&record))
        .filter(|item| {
            let facts = (item.id.as_str(), item.state, &item.labels);
            convert::selected(facts, &filter.id, state, &filter.label_selector)
        })
        .collect()
}
