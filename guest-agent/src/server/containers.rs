//! Create, Start, Remove, Update and Stats.

use std::sync::Arc;

use hull_agent_protocol::v1::*;
use tokio::task::spawn_blocking;

use super::Service;
use crate::container::usage;
use crate::disk_usage;
use crate::error::Error;

impl Service {
    pub(super) async fn do_create(
        &self,
        request: CreateContainerRequest,
    ) -> Result<CreateContainerResponse, Error> {
        // Goes on even if the host hangs up: a half-made container would be left.
        let containers = Arc::clone(&self.agent.containers);
        let container = tokio::spawn(async move { containers.create(request).await }).await??;
        Ok(CreateContainerResponse {
            pid: container.info().pid,
        })
    }

    pub(super) async fn do_start(
        &self,
        request: StartContainerRequest,
    ) -> Result<StartContainerResponse, Error> {
        let containers = Arc::clone(&self.agent.containers);
        let start = async move { containers.start(&request.container_id).await };
        let started_at_ns = tokio::spawn(start).await??;
        Ok(StartContainerResponse { started_at_ns })
    }

    pub(super) async fn do_remove(
        &self,
        request: RemoveContainerRequest,
    ) -> Result<RemoveContainerResponse, Error> {
        let containers = Arc::clone(&self.agent.containers);
        let remove = async move { containers.remove(&request.container_id).await };
        tokio::spawn(remove).await??;
        Ok(RemoveContainerResponse {})
    }

    pub(super) async fn do_stats(
        &self,
        request: ContainerStatsRequest,
    ) -> Result<ContainerStatsResponse, Error> {
        let container = self.agent.containers.get(&request.container_id)?;
        let layer = self.agent.layout.layer(&request.container_id).join("upper");
        let measure = move || (usage::of(container.cgroup()), disk_usage::of_tree(&layer));
        let (usage, written) = spawn_blocking(measure).await?;
        let written = written.map_err(Error::io("measure the writable layer"))?;
        Ok(ContainerStatsResponse {
            cpu_usage_ns: usage.cpu_ns,
            memory_usage_bytes: usage.memory_bytes,
            memory_working_set_bytes: usage.working_set_bytes,
            pids: usage.pids,
            writable_layer_bytes: written.bytes,
            writable_layer_inodes: written.inodes,
            detail: Some(usage.detail),
        })
    }

    pub(super) async fn do_update(
        &self,
        request: UpdateContainerRequest,
    ) -> Result<UpdateContainerResponse, Error> {
        let containers = Arc::clone(&self.agent.containers);
        let update = move || containers.update(&request.container_id, &request.resources_json);
        spawn_blocking(update).await??;
        Ok(UpdateContainerResponse {})
    }
}
