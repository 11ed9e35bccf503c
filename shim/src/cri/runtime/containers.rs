//! The container RPCs.

use super::if_found;
use crate::container::state::ContainerState;
use crate::container::{create as container_create, lifecycle, update as container_update};
use crate::cri::convert;
use crate::error::Error;
use crate::shim::{Shim, detached};
use hull_cri_api::v1::*;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

pub async fn create(
    shim: &Arc<Shim>,
    request: CreateContainerRequest,
) -> Result<CreateContainerResponse, Error> {
    let config = request
        .config
        .ok_or_else(|| Error::InvalidArgument("the request has no container config".to_string()))?;
    let sandbox = shim.registry.sandbox(&request.pod_sandbox_id)?;
    let created = container_create::create(shim.clone(), sandbox, config);
    let container_id = detached("CreateContainer", created).await?;
    Ok(CreateContainerResponse { container_id })
}

pub async fn start(
    shim: &Arc<Shim>,
    request: StartContainerRequest,
) -> Result<StartContainerResponse, Error> {
    let container = shim.registry.container(&request.container_id)?;
    detached("StartContainer", lifecycle::start(shim.clone(), container)).await?;
    Ok(StartContainerResponse {})
}

pub async fn stop(
    shim: &Arc<Shim>,
    request: StopContainerRequest,
) -> Result<StopContainerResponse, Error> {
    if let Some(container) = if_found(shim.registry.container(&request.container_id))? {
        let grace = Duration::from_secs(request.timeout.max(0) as u64);
        let shim = shim.clone();
        let stopped = async move { lifecycle::stop(&shim, &container, grace).await };
        detached("StopContainer", stopped).await?;
    }
    Ok(StopContainerResponse {})
}

pub async fn remove(
    shim: &Arc<Shim>,
    request: RemoveContainerRequest,
) -> Result<RemoveContainerResponse, Error> {
    if let Some(container) = if_found(shim.registry.container(&request.container_id))? {
        let removed = lifecycle::remove(shim.clone(), container);
        detached("RemoveContainer", removed).await?;
    }
    Ok(RemoveContainerResponse {})
}

pub async fn update(
    shim: &Arc<Shim>,
    request: UpdateContainerResourcesRequest,
) -> Result<UpdateContainerResourcesResponse, Error> {
    let container = shim.registry.container(&request.container_id)?;
    let wanted = request
        .linux
        .ok_or_else(|| Error::InvalidArgument("the request has no Linux resources".to_string()))?;
    let shim = shim.clone();
    let updated = async move {
        container_update::resources(&shim, &container, wanted, request.annotations).await
    };
    detached("UpdateContainerResources", updated).await?;
    Ok(UpdateContainerResourcesResponse {})
}

pub fn list(shim: &Shim, filter: Option<ContainerFilter>) -> Vec<Container> {
    let filter = filter.unwrap_or_default();
    let state = filter.state.as_ref().map(|wanted| wanted.state);
    shim.registry
        .containers()
        .into_iter()
        .map(|container| convert::container(&container.record()))
        .filter(|item| item.pod_sandbox_id.starts_with(&filter.pod_sandbox_id))
        .filter(|item| {
            let facts = (item.id.as_str(), item.state, &item.labels);
            convert::selected(facts, &filter.id, state, &filter.label_selector)
        })
        .collect()
}

pub fn status(
    shim: &Shim,
    request: ContainerStatusRequest,
) -> Result<ContainerStatusResponse, Error> {
    let record = shim.registry.container(&request.container_id)?.record();
    let mut info = HashMap::new();
    if request.verbose {
        let text = serde_json::json!({
            "sandboxID": record.sandbox_id,
            "state": record.state,
            "disk": record.slot,
            "runtimeSpec": record.spec,
        });
        info.insert("info".to_string(), text.to_string());
    }
    Ok(ContainerStatusResponse {
        status: Some(convert::container_status(&record)),
        info,
    })
}

pub fn reopen_log(
    shim: &Shim,
    request: ReopenContainerLogRequest,
) -> Result<ReopenContainerLogResponse, Error> {
    let container = shim.registry.container(&request.container_id)?;
    if container.state() != ContainerState::Running {
        return Err(Error::FailedPrecondition(
            "container is not running".to_string(),
        ));
    }
    if let Some(pump) = container.pump() {
        pump.reopen().map_err(Error::io(format!(
            "opening the log of container {}",
            container.id
        )))?;
    }
    Ok(ReopenContainerLogResponse {})
}
