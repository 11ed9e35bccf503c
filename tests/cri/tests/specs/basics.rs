//! Container, Idempotence, Runtime info, Multiple Containers.

use crate::specs;
use crate::suite::{FOREVER, Suite};
use hull_cri_api::v1::*;
use std::collections::HashMap;

specs! {
    "Runtime info: runtime should return version info" => version,
    "Runtime info: runtime should return runtime conditions" => conditions,
    "Container: runtime should support creating container" => creating,
    "Container: runtime should support preserving container attributes" => attributes,
    "Container: runtime should support starting container" => starting,
    "Container: runtime should support stopping container" => stopping,
    "Container: runtime should support removing created container" => removing_created,
    "Container: runtime should support removing running container" => removing_running,
    "Container: runtime should support removing stopped container" => removing_stopped,
    "Container: runtime should support execSync" => exec_sync,
    "Container: runtime should support execSync with timeout" => exec_sync_timeout,
    "Container: runtime should support listing container stats" => stats_of_one,
    "Container: runtime should support listing stats for started containers" => stats_of_started,
    "Container: runtime should support listing stats for started containers when filter is nil" => stats_without_filter,
    "Container: runtime should support listing stats for three created containers when filter is nil." => stats_of_created,
    "Container: runtime should support listing stats for containers filtered by labels" => stats_by_labels,
    "Container: runtime should support starting container with log" => log,
    "Container: runtime should support reopening container log" => reopen_log,
    "Idempotence: StopPodSandbox should not return an error if not found" => stop_no_pod,
    "Idempotence: StopPodSandbox should not return an error if already stopped" => stop_pod_twice,
    "Idempotence: RemovePodSandbox should not return an error if not found" => remove_no_pod,
    "Idempotence: StopContainer should not return an error if not found" => stop_no_container,
    "Idempotence: StopContainer should not return an error if already stopped" => stop_twice,
    "Idempotence: RemoveContainer should not return an error if not found" => remove_no_container,
    "Idempotence: RemoveImage should not return an error if not found" => remove_no_image,
    "Multiple Containers: should support network, log and exec" => multiple,
    "the streaming list calls answer what the list calls answer" => streaming_lists,
    "GetContainerEvents tells what happens to a container" => events,
    "every call that is not there says so by its name" => unimplemented,
}

async fn version(suite: &mut Suite) {
    let request = VersionRequest::default();
    let answer = suite
        .node
        .runtime
        .version(request)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        (answer.version.as_str(), answer.runtime_api_version.as_str()),
        ("0.1.0", "v1")
    );
    assert!(!answer.runtime_name.is_empty() && !answer.runtime_version.is_empty());
}

async fn conditions(suite: &mut Suite) {
    let request = StatusRequest { verbose: true };
    let answer = suite
        .node
        .runtime
        .status(request)
        .await
        .unwrap()
        .into_inner();
    for kind in ["RuntimeReady", "NetworkReady"] {
        let conditions = &answer.status.as_ref().unwrap().conditions;
        assert!(
            conditions
                .iter()
                .any(|one| one.r#type == kind && one.status),
            "{kind}"
        );
    }
    let handler = answer
        .runtime_handlers
        .iter()
        .find(|one| one.name == "microvm")
        .unwrap();
    assert!(handler.features.unwrap().recursive_read_only_mounts);
    assert!(answer.features.unwrap().supplemental_groups_policy);
    let config = RuntimeConfigRequest {};
    let config = suite
        .node
        .runtime
        .runtime_config(config)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        config.linux.unwrap().cgroup_driver,
        CgroupDriver::Cgroupfs as i32
    );
}

async fn creating(suite: &mut Suite) {
    let pod = suite.pod().await;
    let config = suite.config(FOREVER, |_| {});
    let id = suite.node.create(&pod, config.clone()).await.unwrap();
    assert_eq!(suite.state(&id).await, ContainerState::ContainerCreated);
    let again = suite.node.create(&pod, config).await.unwrap_err();
    assert_eq!(
        again.code(),
        tonic::Code::AlreadyExists,
        "{}",
        again.message()
    );
    suite.remove(&[&id]).await;
}

async fn attributes(suite: &mut Suite) {
    let pod = suite.pod().await;
    let pair = |key: &str| HashMap::from([(key.to_string(), "value".to_string())]);
    let config = suite.config(FOREVER, |config| {
        config.labels = pair("label");
        config.annotations = pair("annotation");
        config.stop_signal = Signal::Sigusr2 as i32;
    });
    let id = suite.node.create(&pod, config.clone()).await.unwrap();
    let status = suite.node.status(&id[..10]).await;
    assert_eq!(status.metadata, config.metadata);
    assert_eq!(
        (status.labels, status.annotations),
        (pair("label"), pair("annotation"))
    );
    assert_eq!(status.stop_signal, Signal::Sigusr2 as i32);
    let by_label = ContainerFilter {
        label_selector: pair("label"),
        ..Default::default()
    };
    let listed = list(suite, by_label).await;
    assert_eq!(listed, std::slice::from_ref(&id));
    let nothing = ContainerFilter {
        id: id.clone(),
        label_selector: HashMap::from([("label".into(), "other".into())]),
        ..Default::default()
    };
    assert!(list(suite, nothing).await.is_empty());
    suite.remove(&[&id]).await;
}

async fn list(suite: &mut Suite, filter: ContainerFilter) -> Vec<String> {
    let filter = Some(filter);
    let request = ListContainersRequest { filter };
    let answer = suite.node.runtime.list_containers(request).await.unwrap();
    let containers = answer.into_inner().containers;
    containers
        .into_iter()
        .map(|container| container.id)
        .collect()
}

async fn starting(suite: &mut Suite) {
    let id = suite.running(FOREVER, |_| {}).await;
    assert_eq!(suite.state(&id).await, ContainerState::ContainerRunning);
    let again = suite.node.start_container(&id).await.unwrap_err();
    assert_eq!(again.code(), tonic::Code::FailedPrecondition);
    suite.remove(&[&id]).await;
}

async fn stopping(suite: &mut Suite) {
    let id = suite.running(FOREVER, |_| {}).await;
    suite.node.stop_container(&id, 0).await;
    let status = suite.node.status(&id).await;
    assert_eq!(
        (status.state, status.exit_code),
        (ContainerState::ContainerExited as i32, 137)
    );
    suite.remove(&[&id]).await;
}

async fn gone(suite: &mut Suite, id: &str) {
    suite.remove(&[id]).await;
    let filter = ContainerFilter {
        id: id.into(),
        ..Default::default()
    };
    assert!(list(suite, filter).await.is_empty());
}

async fn removing_created(suite: &mut Suite) {
    let pod = suite.pod().await;
    let config = suite.config(FOREVER, |_| {});
    let id = suite.node.create(&pod, config).await.unwrap();
    gone(suite, &id).await;
}

async fn removing_running(suite: &mut Suite) {
    let id = suite.running(FOREVER, |_| {}).await;
    gone(suite, &id).await;
}

async fn removing_stopped(suite: &mut Suite) {
    let id = suite.running(FOREVER, |_| {}).await;
    suite.node.stop_container(&id, 0).await;
    gone(suite, &id).await;
}

async fn exec_sync(suite: &mut Suite) {
    let id = suite.running(FOREVER, |_| {}).await;
    assert_eq!(suite.exec(&id, "echo hello").await, "hello");
    let failed = suite.node.exec(&id, &["sh", "-c", "exit 3"]).await.unwrap();
    assert_eq!(failed.exit_code, 3);
    suite.remove(&[&id]).await;
}

async fn exec_sync_timeout(suite: &mut Suite) {
    let id = suite.running(FOREVER, |_| {}).await;
    let request = ExecSyncRequest {
        container_id: id.clone(),
        cmd: vec!["sleep".into(), "1000".into()],
        timeout: 1,
    };
    let status = suite.node.runtime.exec_sync(request).await.unwrap_err();
    assert_eq!(
        status.code(),
        tonic::Code::DeadlineExceeded,
        "{}",
        status.message()
    );
    suite.remove(&[&id]).await;
}

async fn stats(suite: &mut Suite, filter: Option<ContainerStatsFilter>) -> Vec<ContainerStats> {
    let request = ListContainerStatsRequest { filter };
    let answer = suite
        .node
        .runtime
        .list_container_stats(request)
        .await
        .unwrap();
    answer.into_inner().stats
}

fn ids(stats: &[ContainerStats]) -> Vec<&str> {
    let attributes = stats.iter().filter_map(|one| one.attributes.as_ref());
    attributes
        .map(|attributes| attributes.id.as_str())
        .collect()
}

async fn stats_of_one(suite: &mut Suite) {
    let script = "dd if=/dev/zero of=/file bs=1024 count=512; exec sleep 100000";
    let id = suite.running(&["sh", "-c", script], |_| {}).await;
    let mut node = suite.node.runtime.clone();
    Suite::until("the file is counted", async || {
        let request = ContainerStatsRequest {
            container_id: id.clone(),
        };
        let stats = node
            .container_stats(request)
            .await
            .unwrap()
            .into_inner()
            .stats
            .unwrap();
        let value = |value: Option<UInt64Value>| value.unwrap_or_default().value;
        let memory = stats.memory.unwrap();
        assert!(value(memory.working_set_bytes) > 0 && value(memory.rss_bytes) > 0);
        assert!(value(stats.cpu.unwrap().usage_core_nano_seconds) > 0);
        let layer = stats.writable_layer.unwrap();
        value(layer.used_bytes) >= 512 * 1024 && value(layer.inodes_used) >= 1
    })
    .await;
    suite.remove(&[&id]).await;
}

async fn stats_of_started(suite: &mut Suite) {
    let id = suite.running(FOREVER, |_| {}).await;
    let filter = ContainerStatsFilter {
        id: id.clone(),
        ..Default::default()
    };
    assert_eq!(ids(&stats(suite, Some(filter)).await), [id.as_str()]);
    suite.remove(&[&id]).await;
}

async fn stats_without_filter(suite: &mut Suite) {
    let id = suite.running(FOREVER, |_| {}).await;
    assert!(ids(&stats(suite, None).await).contains(&id.as_str()));
    suite.remove(&[&id]).await;
}

async fn stats_of_created(suite: &mut Suite) {
    let pod = suite.pod().await;
    let mut made = Vec::new();
    for _ in 0..3 {
        let config = suite.config(FOREVER, |_| {});
        made.push(suite.node.create(&pod, config).await.unwrap());
    }
    let all = stats(suite, None).await;
    for id in &made {
        assert!(ids(&all).contains(&id.as_str()));
        suite.remove(&[id]).await;
    }
}

async fn stats_by_labels(suite: &mut Suite) {
    let labels = HashMap::from([("only".to_string(), "this".to_string())]);
    let id = suite
        .running(FOREVER, |config| config.labels = labels.clone())
        .await;
    let other = suite.running(FOREVER, |_| {}).await;
    let filter = ContainerStatsFilter {
        label_selector: labels,
        ..Default::default()
    };
    assert_eq!(ids(&stats(suite, Some(filter)).await), [id.as_str()]);
    suite.remove(&[&id, &other]).await;
}

async fn log(suite: &mut Suite) {
    let (code, text) = suite.script("echo one; echo two >&2", |_| {}).await;
    assert_eq!(code, 0);
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["one", "two"]);
}

async fn reopen_log(suite: &mut Suite) {
    let pod = suite.pod().await;
    let script = "while true; do echo line; sleep 0.05; done";
    let config = suite.config(&["sh", "-c", script], |_| {});
    let name = config.metadata.clone().unwrap().name;
    let id = suite.node.running(&pod, config).await;
    let path = suite.log_path("shared", &name);
    Suite::until("the first line", async || path.exists()).await;
    std::fs::rename(&path, path.with_extension("old")).unwrap();
    let request = ReopenContainerLogRequest {
        container_id: id.clone(),
    };
    suite
        .node
        .runtime
        .reopen_container_log(request)
        .await
        .unwrap();
    let lines = || std::fs::read_to_string(&path).unwrap_or_default();
    Suite::until("a line in the new file", async || lines().contains("line")).await;
    suite.node.stop_container(&id, 0).await;
    let request = ReopenContainerLogRequest {
        container_id: id.clone(),
    };
    assert!(
        suite
            .node
            .runtime
            .reopen_container_log(request)
            .await
            .is_err()
    );
    suite.remove(&[&id]).await;
}

const NO_SUCH: &str = "0123456789abcdef0123456789abcdef";

async fn stop_no_pod(suite: &mut Suite) {
    suite.node.stop_pod(NO_SUCH).await;
}

async fn stop_pod_twice(suite: &mut Suite) {
    let config = suite.node.pod("stopped-twice");
    let id = suite.run_pod(config).await.unwrap();
    suite.node.stop_pod(&id).await;
    suite.node.stop_pod(&id).await;
    suite.node.remove_pod(&id).await;
    suite.node.remove_pod(&id).await;
}

async fn remove_no_pod(suite: &mut Suite) {
    suite.node.remove_pod(NO_SUCH).await;
}

async fn stop_no_container(suite: &mut Suite) {
    suite.node.stop_container(NO_SUCH, 1).await;
}

async fn stop_twice(suite: &mut Suite) {
    let id = suite.running(FOREVER, |_| {}).await;
    suite.node.stop_container(&id, 0).await;
    suite.node.stop_container(&id, 0).await;
    suite.remove(&[&id]).await;
}

async fn remove_no_container(suite: &mut Suite) {
    suite.remove(&[NO_SUCH]).await;
}

async fn remove_no_image(suite: &mut Suite) {
    let image = Some(crate::support::spec("no/such/image"));
    suite
        .node
        .images
        .remove_image(RemoveImageRequest { image })
        .await
        .unwrap();
}

async fn multiple(suite: &mut Suite) {
    let server = "echo served; while true; do echo hello | nc -l -p 9090; done";
    let server = suite.running(&["sh", "-c", server], |_| {}).await;
    let client = suite.running(FOREVER, |_| {}).await;
    let connect =
        "for i in 1 2 3 4 5 6 7 8 9; do nc 127.0.0.1 9090 && exit 0; sleep 1; done; exit 1";
    assert_eq!(suite.exec(&client, connect).await, "hello");
    // They share memory, too.
    suite.exec(&server, "echo shared > /dev/shm/file").await;
    assert_eq!(suite.exec(&client, "cat /dev/shm/file").await, "shared");
    suite.remove(&[&server, &client]).await;
}

async fn streaming_lists(suite: &mut Suite) {
    let id = suite.running(FOREVER, |_| {}).await;
    let runtime = &mut suite.node.runtime;
    let mut stream = runtime
        .stream_containers(StreamContainersRequest::default())
        .await
        .unwrap()
        .into_inner();
    let mut streamed = Vec::new();
    while let Some(page) = stream.message().await.unwrap() {
        assert!(!page.containers.is_empty());
        streamed.extend(page.containers);
    }
    let listed = runtime
        .list_containers(ListContainersRequest::default())
        .await
        .unwrap()
        .into_inner()
        .containers;
    assert_eq!(streamed, listed);
    let mut pods = runtime
        .stream_pod_sandbox_stats(StreamPodSandboxStatsRequest::default())
        .await
        .unwrap()
        .into_inner();
    let page = pods.message().await.unwrap().unwrap();
    let linux = page.pod_sandbox_stats[0].linux.clone().unwrap();
    assert!(linux.network.unwrap().default_interface.unwrap().name == "eth0");
    let mut images = suite
        .node
        .images
        .stream_images(StreamImagesRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert!(!images.message().await.unwrap().unwrap().images.is_empty());
    suite.remove(&[&id]).await;
}

async fn events(suite: &mut Suite) {
    suite.pod().await;
    let request = GetEventsRequest {};
    let mut events = suite
        .node
        .runtime
        .get_container_events(request)
        .await
        .unwrap()
        .into_inner();
    let (_, _) = suite.script("true", |_| {}).await;
    let mut seen = Vec::new();
    while seen.len() < 4 {
        let next = tokio::time::timeout(crate::support::patience(), events.message());
        let event = next.await.expect("an event").unwrap().unwrap();
        assert!(event.pod_sandbox_status.is_some());
        seen.push(ContainerEventType::try_from(event.container_event_type).unwrap());
    }
    use ContainerEventType::*;
    let expected = [
        ContainerCreatedEvent,
        ContainerStartedEvent,
        ContainerStoppedEvent,
        ContainerDeletedEvent,
    ];
    assert_eq!(seen, expected);
}

async fn unimplemented(suite: &mut Suite) {
    let runtime = &mut suite.node.runtime;
    let checkpoint = runtime
        .checkpoint_container(CheckpointContainerRequest::default())
        .await
        .unwrap_err();
    let resize = runtime
        .update_pod_sandbox_resources(UpdatePodSandboxResourcesRequest::default())
        .await
        .unwrap_err();
    for (status, name) in [
        (checkpoint, "CheckpointContainer"),
        (resize, "UpdatePodSandboxResources"),
    ] {
        assert_eq!(status.code(), tonic::Code::Unimplemented);
        assert!(status.message().contains(name), "{}", status.message());
    }
}
