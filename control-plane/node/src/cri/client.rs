//! The CRI client: one method per call the agent makes, each with its time-out.

use std::time::Duration;

use hull_cri_api::v1 as cri;
use hull_cri_api::v1::image_service_client::ImageServiceClient;
use hull_cri_api::v1::runtime_service_client::RuntimeServiceClient;
use hyper_util::rt::TokioIo;
use ipnet::IpNet;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::config::Timings;
use crate::error::NodeError;

/// The largest CRI answer that is accepted: lists of a full node stay far below.
const MAX_MESSAGE_BYTES: usize = 64 << 20;

/// A CRI call that failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CriError {
    /// The runtime answered with an error, or could not be reached (`Unavailable`).
    #[error("rpc error: code = {code:?} desc = {message}")]
    Rpc {
        /// Which call.
        call: &'static str,
        /// The status code.
        code: tonic::Code,
        /// The runtime's words.
        message: String,
    },
    /// The runtime did not answer in time.
    #[error("rpc error: code = DeadlineExceeded desc = {call} did not answer within {seconds} s")]
    TimedOut {
        /// Which call.
        call: &'static str,
        /// The time-out.
        seconds: u64,
    },
}

impl CriError {
    /// The object that the call was about does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(
            self,
            CriError::Rpc {
                code: tonic::Code::NotFound,
                ..
            }
        )
    }

    /// The runtime does not implement the call.
    pub fn is_unimplemented(&self) -> bool {
        matches!(
            self,
            CriError::Rpc {
                code: tonic::Code::Unimplemented,
                ..
            }
        )
    }
}

/// A client of the container runtime; cheap to clone.
#[derive(Debug, Clone)]
pub struct Cri {
    pub(super) runtime: RuntimeServiceClient<Channel>,
    pub(super) image: ImageServiceClient<Channel>,
    pub(super) timings: Timings,
}

impl Cri {
    /// A client for `unix:///path`. Connects on the first call.
    pub fn new(endpoint: &str, timings: Timings) -> Result<Self, NodeError> {
        let path = endpoint
            .strip_prefix("unix://")
            .filter(|path| path.starts_with('/'))
            .ok_or_else(|| NodeError::Endpoint {
                endpoint: endpoint.into(),
            })?
            .to_owned();
        let connector = tower::service_fn(move |_: Uri| {
            let path = path.clone();
            async move {
                let stream = tokio::net::UnixStream::connect(&path)
                    .await
                    .map_err(|source| {
                        std::io::Error::new(source.kind(), format!("connect {path}: {source}"))
                    })?;
                Ok::<_, std::io::Error>(TokioIo::new(stream))
            }
        });
        // The authority is never looked up: the connector ignores it.
        let channel =
            Endpoint::from_static("http://localhost").connect_with_connector_lazy(connector);
        Ok(Cri {
            runtime: RuntimeServiceClient::new(channel.clone())
                .max_decoding_message_size(MAX_MESSAGE_BYTES),
            image: ImageServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES),
            timings,
        })
    }

    pub(super) async fn call<T>(
        &self,
        call: &'static str,
        timeout: Duration,
        future: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    ) -> Result<T, CriError> {
        match tokio::time::timeout(timeout, future).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(CriError::Rpc {
                call,
                code: status.code(),
                message: message_of(&status),
            }),
            Err(_) => Err(CriError::TimedOut {
                call,
                seconds: timeout.as_secs(),
            }),
        }
    }

    /// Version.
    pub async fn version(&self) -> Result<cri::VersionResponse, CriError> {
        let request = cri::VersionRequest {
            version: "v1".into(),
        };
        let mut client = self.runtime.clone();
        self.call(
            "Version",
            self.timings.runtime_timeout,
            client.version(request),
        )
        .await
    }

    /// Status: conditions and runtime handlers.
    pub async fn status(&self) -> Result<cri::StatusResponse, CriError> {
        let request = cri::StatusRequest { verbose: false };
        let mut client = self.runtime.clone();
        self.call(
            "Status",
            self.timings.runtime_timeout,
            client.status(request),
        )
        .await
    }

    /// UpdateRuntimeConfig: the node's networks for pods. A runtime that has no use for them is
    /// fine.
    pub async fn update_pod_cidr(&self, networks: &[IpNet]) -> Result<(), CriError> {
        let networks: Vec<String> = networks.iter().map(ToString::to_string).collect();
        let request = cri::UpdateRuntimeConfigRequest {
            runtime_config: Some(cri::RuntimeConfig {
                network_config: Some(cri::NetworkConfig {
                    pod_cidr: networks.join(","),
                }),
            }),
        };
        let mut client = self.runtime.clone();
        let told = self
            .call(
                "UpdateRuntimeConfig",
                self.timings.runtime_timeout,
                client.update_runtime_config(request),
            )
            .await;
        match told {
            Err(error) if !error.is_unimplemented() => Err(error),
            _ => Ok(()),
        }
    }

    /// RunPodSandbox; the sandbox's id.
    pub async fn run_sandbox(
        &self,
        config: cri::PodSandboxConfig,
        runtime_handler: &str,
    ) -> Result<String, CriError> {
        let request = cri::RunPodSandboxRequest {
            config: Some(config),
            runtime_handler: runtime_handler.into(),
        };
        let mut client = self.runtime.clone();
        let timeout = self.timings.sandbox_timeout;
        let response = self
            .call("RunPodSandbox", timeout, client.run_pod_sandbox(request))
            .await?;
        Ok(response.pod_sandbox_id)
    }

    /// StopPodSandbox; a sandbox that is gone counts as stopped.
    pub async fn stop_sandbox(&self, id: &str) -> Result<(), CriError> {
        let request = cri::StopPodSandboxRequest {
            pod_sandbox_id: id.into(),
        };
        let mut client = self.runtime.clone();
        let timeout = self.timings.runtime_timeout;
        gone_is_done(
            self.call("StopPodSandbox", timeout, client.stop_pod_sandbox(request))
                .await,
        )
    }

    /// RemovePodSandbox; a sandbox that is gone counts as removed.
    pub async fn remove_sandbox(&self, id: &str) -> Result<(), CriError> {
        let request = cri::RemovePodSandboxRequest {
            pod_sandbox_id: id.into(),
        };
        let mut client = self.runtime.clone();
        let timeout = self.timings.runtime_timeout;
        gone_is_done(
            self.call(
                "RemovePodSandbox",
                timeout,
                client.remove_pod_sandbox(request),
            )
            .await,
        )
    }

    /// CreateContainer; the container's id.
    pub async fn create_container(
        &self,
        sandbox_id: &str,
        config: cri::ContainerConfig,
        sandbox_config: cri::PodSandboxConfig,
    ) -> Result<String, CriError> {
        let request = cri::CreateContainerRequest {
            pod_sandbox_id: sandbox_id.into(),
            config: Some(config),
            sandbox_config: Some(sandbox_config),
        };
        let mut client = self.runtime.clone();
        let timeout = self.timings.runtime_timeout;
        let response = self
            .call("CreateContainer", timeout, client.create_container(request))
            .await?;
        Ok(response.container_id)
    }

    /// StartContainer.
    pub async fn start_container(&self, id: &str) -> Result<(), CriError> {
        let request = cri::StartContainerRequest {
            container_id: id.into(),
        };
        let mut client = self.runtime.clone();
        let timeout = self.timings.runtime_timeout;
        self.call("StartContainer", timeout, client.start_container(request))
            .await
            .map(|_| ())
    }

    /// StopContainer: the stop signal, then after `grace` the kill.
    pub async fn stop_container(&self, id: &str, grace: Duration) -> Result<(), CriError> {
        // Rounded up: a container never gets less time than was promised.
        let whole = grace.as_secs() + u64::from(grace.subsec_nanos() > 0);
        let timeout_seconds = i64::try_from(whole).unwrap_or(i64::MAX);
        let request = cri::StopContainerRequest {
            container_id: id.into(),
            timeout: timeout_seconds,
        };
        let mut client = self.runtime.clone();
        let timeout = self.timings.runtime_timeout.saturating_add(grace);
        gone_is_done(
            self.call("StopContainer", timeout, client.stop_container(request))
                .await,
        )
    }

    /// RemoveContainer; a container that is gone counts as removed.
    pub async fn remove_container(&self, id: &str) -> Result<(), CriError> {
        let request = cri::RemoveContainerRequest {
            container_id: id.into(),
        };
        let mut client = self.runtime.clone();
        let timeout = self.timings.runtime_timeout;
        gone_is_done(
            self.call("RemoveContainer", timeout, client.remove_container(request))
                .await,
        )
    }

    /// ExecSync with a time-out enforced by the runtime, and by the client a little later.
    pub async fn exec_sync(
        &self,
        id: &str,
        command: Vec<String>,
        timeout: Duration,
    ) -> Result<cri::ExecSyncResponse, CriError> {
        let seconds = i64::try_from(timeout.as_secs().max(1)).unwrap_or(i64::MAX);
        let request = cri::ExecSyncRequest {
            container_id: id.into(),
            cmd: command,
            timeout: seconds,
        };
        let mut client = self.runtime.clone();
        let limit = timeout.saturating_add(self.timings.runtime_timeout);
        self.call("ExecSync", limit, client.exec_sync(request))
            .await
    }

    /// Exec: the URL of the streaming session.
    pub async fn exec(&self, request: cri::ExecRequest) -> Result<String, CriError> {
        let mut client = self.runtime.clone();
        let timeout = self.timings.runtime_timeout;
        Ok(self.call("Exec", timeout, client.exec(request)).await?.url)
    }

    /// Attach: the URL of the streaming session.
    pub async fn attach(&self, request: cri::AttachRequest) -> Result<String, CriError> {
        let mut client = self.runtime.clone();
        let timeout = self.timings.runtime_timeout;
        Ok(self
            .call("Attach", timeout, client.attach(request))
            .await?
            .url)
    }

    /// PortForward: the URL of the streaming session.
    pub async fn port_forward(&self, sandbox_id: &str, port: Vec<i32>) -> Result<String, CriError> {
        let request = cri::PortForwardRequest {
            pod_sandbox_id: sandbox_id.into(),
            port,
        };
        let mut client = self.runtime.clone();
        let timeout = self.timings.runtime_timeout;
        Ok(self
            .call("PortForward", timeout, client.port_forward(request))
            .await?
            .url)
    }

    /// ReopenContainerLog, after the log file was rotated.
    pub async fn reopen_log(&self, id: &str) -> Result<(), CriError> {
        let request = cri::ReopenContainerLogRequest {
            container_id: id.into(),
        };
        let mut client = self.runtime.clone();
        let timeout = self.timings.runtime_timeout;
        self.call(
            "ReopenContainerLog",
            timeout,
            client.reopen_container_log(request),
        )
        .await
        .map(|_| ())
    }

    /// GetContainerEvents: a stream of changes, where the runtime has it.
    pub async fn events(&self) -> Result<tonic::Streaming<cri::ContainerEventResponse>, CriError> {
        let mut client = self.runtime.clone();
        let timeout = self.timings.runtime_timeout;
        let request = cri::GetEventsRequest {};
        self.call(
            "GetContainerEvents",
            timeout,
            client.get_container_events(request),
        )
        .await
    }
}

fn gone_is_done<T>(result: Result<T, CriError>) -> Result<(), CriError> {
    match result {
        Ok(_) => Ok(()),
        Err(error) if error.is_not_found() => Ok(()),
        Err(error) => Err(error),
    }
}

/// The status's message, with the transport's cause where the runtime could not be reached.
fn message_of(status: &tonic::Status) -> String {
    let mut message = status.message().to_owned();
    let mut source = std::error::Error::source(status);
    while let Some(cause) = source {
        let text = cause.to_string();
        if !message.contains(&text) {
            message = if message.is_empty() {
                text
            } else {
                format!("{message}: {text}")
            };
        }
        source = cause.source();
    }
    message
}
