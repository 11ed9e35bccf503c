//! RuntimeService.

use std::io::Write;
use std::pin::Pin;

use hull_cri_api::v1::runtime_service_server::RuntimeService;
use hull_cri_api::v1::*;
use tonic::{Request, Response, Status};

use super::{Container as FakeContainer, FakeCri, Sandbox, end, now};

type Answer<T> = Result<Response<T>, Status>;
type Items<T> = Pin<Box<dyn futures::Stream<Item = Result<T, Status>> + Send>>;

fn ok<T>(value: T) -> Answer<T> {
    Ok(Response::new(value))
}

fn absent<T>(name: &str) -> Answer<T> {
    Err(Status::unimplemented(name.to_owned()))
}

fn selected(
    labels: &std::collections::HashMap<String, String>,
    selector: &std::collections::HashMap<String, String>,
) -> bool {
    selector
        .iter()
        .all(|(key, value)| labels.get(key) == Some(value))
}

fn container_status(id: &str, container: &FakeContainer) -> ContainerStatus {
    ContainerStatus {
        id: id.into(),
        metadata: container.config.metadata.clone(),
        state: container.state as i32,
        created_at: container.created_at,
        started_at: container.started_at,
        finished_at: container.finished_at,
        exit_code: container.exit_code,
        image: container.config.image.clone(),
        image_ref: container.config.image.clone().unwrap_or_default().image,
        reason: container.reason.clone(),
        message: container.message.clone(),
        labels: container.config.labels.clone(),
        annotations: container.config.annotations.clone(),
        ..Default::default()
    }
}

#[tonic::async_trait]
impl RuntimeService for FakeCri {
    async fn version(&self, _: Request<VersionRequest>) -> Answer<VersionResponse> {
        ok(VersionResponse {
            version: "0.1.0".into(),
            runtime_name: "hull-shim".into(),
            runtime_version: "0.1.0".into(),
            runtime_api_version: "v1".into(),
        })
    }

    async fn run_pod_sandbox(
        &self,
        request: Request<RunPodSandboxRequest>,
    ) -> Answer<RunPodSandboxResponse> {
        let request = request.into_inner();
        let id = self.id();
        let mut state = self.state.lock();
        state
            .calls
            .push(format!("RunPodSandbox {}", request.runtime_handler));
        if let Some(error) = &state.sandbox_error {
            return Err(Status::unknown(error.clone()));
        }
        let ip = format!("10.42.0.{}", state.sandboxes.len() + 2);
        let sandbox = Sandbox {
            config: request.config.unwrap(),
            handler: request.runtime_handler,
            ready: true,
            created_at: now(),
            ip,
        };
        state.sandboxes.insert(id.clone(), sandbox);
        ok(RunPodSandboxResponse { pod_sandbox_id: id })
    }

    async fn stop_pod_sandbox(
        &self,
        request: Request<StopPodSandboxRequest>,
    ) -> Answer<StopPodSandboxResponse> {
        let id = request.into_inner().pod_sandbox_id;
        let mut state = self.state.lock();
        state.calls.push(format!("StopPodSandbox {id}"));
        if let Some(sandbox) = state.sandboxes.get_mut(&id) {
            sandbox.ready = false;
        }
        for container in state.containers.values_mut().filter(|c| c.sandbox_id == id) {
            if container.state == ContainerState::ContainerRunning {
                end(container, 137, "Error");
            }
        }
        ok(StopPodSandboxResponse {})
    }

    async fn remove_pod_sandbox(
        &self,
        request: Request<RemovePodSandboxRequest>,
    ) -> Answer<RemovePodSandboxResponse> {
        let id = request.into_inner().pod_sandbox_id;
        let mut state = self.state.lock();
        state.calls.push(format!("RemovePodSandbox {id}"));
        state.sandboxes.remove(&id);
        state
            .containers
            .retain(|_, container| container.sandbox_id != id);
        ok(RemovePodSandboxResponse {})
    }

    async fn pod_sandbox_status(
        &self,
        request: Request<PodSandboxStatusRequest>,
    ) -> Answer<PodSandboxStatusResponse> {
        let id = request.into_inner().pod_sandbox_id;
        let state = self.state.lock();
        let Some(sandbox) = state.sandboxes.get(&id) else {
            return Err(Status::not_found(id));
        };
        let status = PodSandboxStatus {
            id,
            metadata: sandbox.config.metadata.clone(),
            state: i32::from(!sandbox.ready),
            created_at: sandbox.created_at,
            network: Some(PodSandboxNetworkStatus {
                ip: sandbox.ip.clone(),
                additional_ips: Vec::new(),
            }),
            labels: sandbox.config.labels.clone(),
            annotations: sandbox.config.annotations.clone(),
            runtime_handler: sandbox.handler.clone(),
            ..Default::default()
        };
        ok(PodSandboxStatusResponse {
            status: Some(status),
            ..Default::default()
        })
    }

    async fn list_pod_sandbox(
        &self,
        request: Request<ListPodSandboxRequest>,
    ) -> Answer<ListPodSandboxResponse> {
        let selector = request
            .into_inner()
            .filter
            .unwrap_or_default()
            .label_selector;
        let state = self.state.lock();
        let items = state
            .sandboxes
            .iter()
            .filter(|(_, sandbox)| selected(&sandbox.config.labels, &selector))
            .map(|(id, sandbox)| PodSandbox {
                id: id.clone(),
                metadata: sandbox.config.metadata.clone(),
                state: i32::from(!sandbox.ready),
                created_at: sandbox.created_at,
                labels: sandbox.config.labels.clone(),
                ..Default::default()
            })
            .collect();
        ok(ListPodSandboxResponse { items })
    }

    async fn create_container(
        &self,
        request: Request<CreateContainerRequest>,
    ) -> Answer<CreateContainerResponse> {
        let request = request.into_inner();
        let config = request.config.unwrap();
        let metadata = config.metadata.clone().unwrap();
        let id = self.id();
        let mut state = self.state.lock();
        state.calls.push(format!(
            "CreateContainer {} {}",
            metadata.name, metadata.attempt
        ));
        let Some(sandbox) = state.sandboxes.get(&request.pod_sandbox_id) else {
            return Err(Status::not_found("no such sandbox"));
        };
        if !sandbox.ready {
            return Err(Status::failed_precondition("the sandbox is not ready"));
        }
        let log_path = std::path::Path::new(&sandbox.config.log_directory).join(&config.log_path);
        let container = FakeContainer {
            sandbox_id: request.pod_sandbox_id,
            config,
            log_path,
            state: ContainerState::ContainerCreated,
            created_at: now(),
            started_at: 0,
            finished_at: 0,
            exit_code: 0,
            reason: String::new(),
            message: String::new(),
        };
        state.containers.insert(id.clone(), container);
        ok(CreateContainerResponse { container_id: id })
    }

    async fn start_container(
        &self,
        request: Request<StartContainerRequest>,
    ) -> Answer<StartContainerResponse> {
        let id = request.into_inner().container_id;
        let mut state = self.state.lock();
        let exits = state.exits.clone();
        let Some(container) = state.containers.get_mut(&id) else {
            return Err(Status::not_found(id));
        };
        let name = container.config.metadata.as_ref().unwrap().name.clone();
        let mut log = std::fs::File::create(&container.log_path).unwrap();
        let line = format!("{} stdout F hello from {name}\n", jiff::Timestamp::now());
        log.write_all(line.as_bytes()).unwrap();
        container.started_at = now();
        if container
            .config
            .command
            .first()
            .is_some_and(|word| word == "/missing")
        {
            end(container, 128, "StartError");
            container.message = "exec /missing: no such file or directory".into();
            return Err(Status::unknown("exec /missing: no such file or directory"));
        }
        container.state = ContainerState::ContainerRunning;
        if let Some(code) = exits.get(&name) {
            end(container, *code, "");
        }
        state.calls.push(format!("StartContainer {name}"));
        ok(StartContainerResponse {})
    }

    async fn stop_container(
        &self,
        request: Request<StopContainerRequest>,
    ) -> Answer<StopContainerResponse> {
        let request = request.into_inner();
        let mut state = self.state.lock();
        let stubborn = state.stubborn.clone();
        let Some(container) = state.containers.get_mut(&request.container_id) else {
            return Err(Status::not_found("no such container"));
        };
        let name = container.config.metadata.as_ref().unwrap().name.clone();
        if stubborn.contains(&name) {
            return Err(Status::unknown("the guest does not answer"));
        }
        if container.state == ContainerState::ContainerRunning {
            end(container, 143, "Error");
        }
        state
            .calls
            .push(format!("StopContainer {name} {}", request.timeout));
        ok(StopContainerResponse {})
    }

    async fn remove_container(
        &self,
        request: Request<RemoveContainerRequest>,
    ) -> Answer<RemoveContainerResponse> {
        let id = request.into_inner().container_id;
        self.state.lock().containers.remove(&id);
        ok(RemoveContainerResponse {})
    }

    async fn list_containers(
        &self,
        request: Request<ListContainersRequest>,
    ) -> Answer<ListContainersResponse> {
        let selector = request
            .into_inner()
            .filter
            .unwrap_or_default()
            .label_selector;
        let state = self.state.lock();
        let containers = state
            .containers
            .iter()
            .filter(|(_, container)| selected(&container.config.labels, &selector))
            .map(|(id, container)| Container {
                id: id.clone(),
                pod_sandbox_id: container.sandbox_id.clone(),
                metadata: container.config.metadata.clone(),
                state: container.state as i32,
                image: container.config.image.clone(),
                labels: container.config.labels.clone(),
                ..Default::default()
            })
            .collect();
        ok(ListContainersResponse { containers })
    }

    async fn container_status(
        &self,
        request: Request<ContainerStatusRequest>,
    ) -> Answer<ContainerStatusResponse> {
        let id = request.into_inner().container_id;
        match self.state.lock().containers.get(&id) {
            Some(container) => ok(ContainerStatusResponse {
                status: Some(container_status(&id, container)),
                ..Default::default()
            }),
            None => Err(Status::not_found(id)),
        }
    }

    async fn exec_sync(&self, _: Request<ExecSyncRequest>) -> Answer<ExecSyncResponse> {
        let exit_code = self.state.lock().exec_exit_code;
        ok(ExecSyncResponse {
            exit_code,
            ..Default::default()
        })
    }

    async fn exec(&self, request: Request<ExecRequest>) -> Answer<ExecResponse> {
        let command = request.into_inner().cmd.join(" ");
        let mut state = self.state.lock();
        state.calls.push(format!("Exec {command}"));
        let address = state.streaming.unwrap();
        ok(ExecResponse {
            url: format!("http://{address}/exec/token"),
        })
    }

    async fn attach(&self, _: Request<AttachRequest>) -> Answer<AttachResponse> {
        let address = self.state.lock().streaming.unwrap();
        ok(AttachResponse {
            url: format!("http://{address}/attach/token"),
        })
    }

    async fn status(&self, _: Request<StatusRequest>) -> Answer<StatusResponse> {
        let condition = |kind: &str| RuntimeCondition {
            r#type: kind.into(),
            status: true,
            ..Default::default()
        };
        ok(StatusResponse {
            status: Some(RuntimeStatus {
                conditions: vec![condition("RuntimeReady"), condition("NetworkReady")],
            }),
            ..Default::default()
        })
    }

    async fn port_forward(&self, _: Request<PortForwardRequest>) -> Answer<PortForwardResponse> {
        absent("PortForward")
    }
    async fn update_container_resources(
        &self,
        _: Request<UpdateContainerResourcesRequest>,
    ) -> Answer<UpdateContainerResourcesResponse> {
        absent("UpdateContainerResources")
    }
    async fn reopen_container_log(
        &self,
        request: Request<ReopenContainerLogRequest>,
    ) -> Answer<ReopenContainerLogResponse> {
        let id = request.into_inner().container_id;
        let mut state = self.state.lock();
        state.calls.push(format!("ReopenContainerLog {id}"));
        let Some(container) = state.containers.get(&id) else {
            return Err(Status::not_found(id));
        };
        std::fs::File::create_new(&container.log_path).unwrap();
        ok(ReopenContainerLogResponse {})
    }
    async fn container_stats(
        &self,
        _: Request<ContainerStatsRequest>,
    ) -> Answer<ContainerStatsResponse> {
        absent("ContainerStats")
    }
    async fn list_container_stats(
        &self,
        _: Request<ListContainerStatsRequest>,
    ) -> Answer<ListContainerStatsResponse> {
        absent("ListContainerStats")
    }
    async fn pod_sandbox_stats(
        &self,
        _: Request<PodSandboxStatsRequest>,
    ) -> Answer<PodSandboxStatsResponse> {
        absent("PodSandboxStats")
    }
    async fn list_pod_sandbox_stats(
        &self,
        _: Request<ListPodSandboxStatsRequest>,
    ) -> Answer<ListPodSandboxStatsResponse> {
        let stats = self.state.lock().pod_stats();
        ok(ListPodSandboxStatsResponse { stats })
    }
    async fn update_runtime_config(
        &self,
        request: Request<UpdateRuntimeConfigRequest>,
    ) -> Answer<UpdateRuntimeConfigResponse> {
        let network = request
            .into_inner()
            .runtime_config
            .unwrap_or_default()
            .network_config;
        let call = format!(
            "UpdateRuntimeConfig {}",
            network.unwrap_or_default().pod_cidr
        );
        self.state.lock().calls.push(call);
        ok(UpdateRuntimeConfigResponse {})
    }
    async fn checkpoint_container(
        &self,
        _: Request<CheckpointContainerRequest>,
    ) -> Answer<CheckpointContainerResponse> {
        absent("CheckpointContainer")
    }
    type GetContainerEventsStream = Items<ContainerEventResponse>;
    async fn get_container_events(
        &self,
        _: Request<GetEventsRequest>,
    ) -> Answer<Self::GetContainerEventsStream> {
        absent("GetContainerEvents")
    }
    async fn list_metric_descriptors(
        &self,
        _: Request<ListMetricDescriptorsRequest>,
    ) -> Answer<ListMetricDescriptorsResponse> {
        let descriptor = MetricDescriptor {
            name: "container_memory_usage_bytes".into(),
            help: "Memory.".into(),
            label_keys: vec!["pod".into()],
        };
        ok(ListMetricDescriptorsResponse {
            descriptors: vec![descriptor],
        })
    }
    async fn list_pod_sandbox_metrics(
        &self,
        _: Request<ListPodSandboxMetricsRequest>,
    ) -> Answer<ListPodSandboxMetricsResponse> {
        let metric = Metric {
            name: "container_memory_usage_bytes".into(),
            metric_type: MetricType::Gauge as i32,
            label_values: vec!["p".into()],
            value: Some(UInt64Value { value: 7 }),
            ..Default::default()
        };
        ok(ListPodSandboxMetricsResponse {
            pod_metrics: vec![PodSandboxMetrics {
                metrics: vec![metric],
                ..Default::default()
            }],
        })
    }
    async fn runtime_config(
        &self,
        _: Request<RuntimeConfigRequest>,
    ) -> Answer<RuntimeConfigResponse> {
        absent("RuntimeConfig")
    }
    async fn update_pod_sandbox_resources(
        &self,
        _: Request<UpdatePodSandboxResourcesRequest>,
    ) -> Answer<UpdatePodSandboxResourcesResponse> {
        absent("UpdatePodSandboxResources")
    }
    type StreamPodSandboxesStream = Items<StreamPodSandboxesResponse>;
    async fn stream_pod_sandboxes(
        &self,
        _: Request<StreamPodSandboxesRequest>,
    ) -> Answer<Self::StreamPodSandboxesStream> {
        absent("StreamPodSandboxes")
    }
    type StreamContainersStream = Items<StreamContainersResponse>;
    async fn stream_containers(
        &self,
        _: Request<StreamContainersRequest>,
    ) -> Answer<Self::StreamContainersStream> {
        absent("StreamContainers")
    }
    type StreamContainerStatsStream = Items<StreamContainerStatsResponse>;
    async fn stream_container_stats(
        &self,
        _: Request<StreamContainerStatsRequest>,
    ) -> Answer<Self::StreamContainerStatsStream> {
        absent("StreamContainerStats")
    }
    type StreamPodSandboxStatsStream = Items<StreamPodSandboxStatsResponse>;
    async fn stream_pod_sandbox_stats(
        &self,
        _: Request<StreamPodSandboxStatsRequest>,
    ) -> Answer<Self::StreamPodSandboxStatsStream> {
        absent("StreamPodSandboxStats")
    }
    type StreamPodSandboxMetricsStream = Items<StreamPodSandboxMetricsResponse>;
    async fn stream_pod_sandbox_metrics(
        &self,
        _: Request<StreamPodSandboxMetricsRequest>,
    ) -> Answer<Self::StreamPodSandboxMetricsStream> {
        absent("StreamPodSandboxMetrics")
    }
}
