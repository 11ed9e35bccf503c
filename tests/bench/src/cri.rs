//! The few CRI calls that the benchmarks make.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use hull_cri_api::v1 as cri;
use hull_cri_api::v1::runtime_service_client::RuntimeServiceClient;
use hyper_util::rt::TokioIo;
use tonic::transport::{Channel, Endpoint, Uri};

pub struct Runtime {
    client: RuntimeServiceClient<Channel>,
}

impl Runtime {
    pub async fn connect(socket: &Path) -> anyhow::Result<Self> {
        let path = socket.to_owned();
        let connector = tower::service_fn(move |_: Uri| {
            let path = path.clone();
            async move {
                let stream = tokio::net::UnixStream::connect(path).await?;
                Ok::<_, std::io::Error>(TokioIo::new(stream))
            }
        });
        let channel = Endpoint::from_static("http://localhost")
            .connect_with_connector(connector)
            .await
            .with_context(|| format!("connecting to the CRI socket {}", socket.display()))?;
        let mut client = RuntimeServiceClient::new(channel);
        client
            .version(cri::VersionRequest::default())
            .await
            .context("Version")?;
        Ok(Self { client })
    }

    /// Starts a sandbox and returns its id. It has no Kubernetes labels, so that no node agent
    /// takes it for a pod of its own.
    pub async fn run_sandbox(&mut self, name: &str) -> anyhow::Result<String> {
        let config = cri::PodSandboxConfig {
            metadata: Some(cri::PodSandboxMetadata {
                name: name.to_owned(),
                uid: name.to_owned(),
                namespace: "hull-bench".to_owned(),
                attempt: 0,
            }),
            hostname: name.to_owned(),
            log_directory: format!("/tmp/hull-bench/{name}"),
            linux: Some(cri::LinuxPodSandboxConfig::default()),
            ..cri::PodSandboxConfig::default()
        };
        let request = cri::RunPodSandboxRequest {
            config: Some(config),
            runtime_handler: String::new(),
        };
        let answer = self
            .client
            .run_pod_sandbox(request)
            .await
            .context("RunPodSandbox")?;
        Ok(answer.into_inner().pod_sandbox_id)
    }

    /// How long each phase of the sandbox's start took.
    pub async fn phases(&mut self, id: &str) -> anyhow::Result<BTreeMap<String, Duration>> {
        let request = cri::PodSandboxStatusRequest {
            pod_sandbox_id: id.to_owned(),
            verbose: true,
        };
        let answer = self
            .client
            .pod_sandbox_status(request)
            .await
            .context("PodSandboxStatus")?;
        let text = answer
            .into_inner()
            .info
            .remove("phases")
            .unwrap_or_default();
        let seconds: BTreeMap<String, f64> =
            serde_json::from_str(&text).context("phases in the sandbox's verbose status")?;
        Ok(seconds
            .into_iter()
            .map(|(phase, seconds)| (phase, Duration::from_secs_f64(seconds.max(0.0))))
            .collect())
    }

    pub async fn remove_sandbox(&mut self, id: &str) -> anyhow::Result<()> {
        let pod_sandbox_id = id.to_owned();
        let request = cri::StopPodSandboxRequest {
            pod_sandbox_id: pod_sandbox_id.clone(),
        };
        self.client
            .stop_pod_sandbox(request)
            .await
            .context("StopPodSandbox")?;
        let request = cri::RemovePodSandboxRequest { pod_sandbox_id };
        self.client
            .remove_pod_sandbox(request)
            .await
            .context("RemovePodSandbox")?;
        Ok(())
    }
}
