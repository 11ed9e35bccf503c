//! Create, Start, Remove and Stats.

use std::sync::Arc;

use hull_agent_protocol::v1::*;
use tokio::task::spawn_blocking;

use super::Service;
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
        let (usage, written) =
            spawn_blocking(move || (container.cgroup().usage(), disk_usage::of_tree(&layer)))
                .await?;
        Ok(ContainerStatsResponse {
            cpu_usage_ns: usage.cpu_ns,
            memory_usage_bytes: usage.memory_bytes,
            memory_working_set_bytes: usage.working_set_bytes,
            pids: usage.pids,
            writable_layer_bytes: written.map_err(Error::io("measure the writable layer"))?,
        })
    }
}
