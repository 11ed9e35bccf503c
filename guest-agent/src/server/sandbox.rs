//! Hello, SetupSandbox, SandboxStats, Shutdown and volumes.

use std::sync::Arc;
use std::time::Duration;

use hull_agent_protocol::v1::*;
use hull_agent_protocol::{VERSION_MAJOR, VERSION_MINOR};
use tokio::task::spawn_blocking;

use super::Service;
use crate::container::usage;
use crate::error::Error;
use crate::interface_stats;

/// Bytes of a volume's file that are read when the host names no limit.
const DEFAULT_READ_BYTES: u32 = 64 * 1024;

pub(super) fn hello(request: &HelloRequest) -> Result<HelloResponse, Error> {
    if request.major != VERSION_MAJOR {
        return Err(Error::Version {
            host: request.major,
            agent: VERSION_MAJOR,
        });
    }
    let kernel = nix::sys::utsname::uname().map_err(Error::io("read the kernel's release"))?;
    Ok(HelloResponse {
        major: VERSION_MAJOR,
        minor: VERSION_MINOR,
        agent_version: env!("CARGO_PKG_VERSION").into(),
        kernel_release: kernel.release().to_string_lossy().into_owned(),
    })
}

impl Service {
    pub(super) async fn do_setup_sandbox(
        &self,
        request: SetupSandboxRequest,
    ) -> Result<SetupSandboxResponse, Error> {
        self.agent.sandbox.setup(request).await?;
        Ok(SetupSandboxResponse {})
    }

    pub(super) async fn do_shutdown(
        &self,
        request: ShutdownRequest,
    ) -> Result<ShutdownResponse, Error> {
        let grace = Duration::from_millis(request.grace_ms.into());
        // Goes on even if the host hangs up meanwhile.
        let agent = Arc::clone(&self.agent);
        tokio::spawn(async move { agent.shut_down(grace).await }).await??;
        Ok(ShutdownResponse {})
    }

    pub(super) async fn do_sandbox_stats(&self) -> Result<SandboxStatsResponse, Error> {
        let containers = Arc::clone(&self.agent.containers);
        let measure = move || {
            let mut usage = usage::of(&containers.parent_cgroup());
            // Processes are in the containers' cgroups only.
            let all = containers.all();
            let processes = all
                .iter()
                .map(|one| usage::of(one.cgroup()).detail.processes);
            usage.detail.processes = processes.sum();
            (usage, interface_stats::all())
        };
        let (usage, interfaces) = spawn_blocking(measure).await?;
        Ok(SandboxStatsResponse {
            cpu_usage_ns: usage.cpu_ns,
            memory_usage_bytes: usage.memory_bytes,
            memory_working_set_bytes: usage.working_set_bytes,
            pids: usage.pids,
            detail: Some(usage.detail),
            interfaces: interfaces.map_err(Error::io("read the interfaces' counters"))?,
        })
    }

    pub(super) async fn do_sync_volume(
        &self,
        request: SyncVolumeRequest,
    ) -> Result<SyncVolumeResponse, Error> {
        let volumes = Arc::clone(&self.agent.volumes);
        let path = spawn_blocking(move || volumes.sync(request)).await??;
        Ok(SyncVolumeResponse {
            guest_path: path.display().to_string(),
        })
    }

    pub(super) async fn do_remove_volume(
        &self,
        request: RemoveVolumeRequest,
    ) -> Result<RemoveVolumeResponse, Error> {
        let volumes = Arc::clone(&self.agent.volumes);
        spawn_blocking(move || volumes.remove(&request.name)).await??;
        Ok(RemoveVolumeResponse {})
    }

    pub(super) async fn do_read_volume_file(
        &self,
        request: ReadVolumeFileRequest,
    ) -> Result<ReadVolumeFileResponse, Error> {
        let limit = match request.max_bytes {
            0 => DEFAULT_READ_BYTES,
            limit => limit,
        };
        let volumes = Arc::clone(&self.agent.volumes);
        let read = move || volumes.read(&request.name, &request.path, limit.into());
        let content = spawn_blocking(read).await??;
        Ok(ReadVolumeFileResponse { content })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_major_version_is_refused() {
        let request = |major| HelloRequest { major, minor: 99 };
        assert!(hello(&request(VERSION_MAJOR)).is_ok());
        let status = tonic::Status::from(hello(&request(VERSION_MAJOR + 1)).unwrap_err());
        assert_eq!(status.code(), tonic::Code::FailedPrecondition);
    }
}
