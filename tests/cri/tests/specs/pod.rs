//! PodSandbox, Networking, sysctls.

use crate::specs;
use crate::suite::{FOREVER, Suite};
use crate::support::patience;
use hull_cri_api::v1::*;
use std::collections::HashMap;
use std::time::{Duration, Instant};
use tokio::io::AsyncReadExt;

specs! {
    "PodSandbox: runtime should support running, stopping and removing PodSandbox" => life,
    "PodSandbox: runtime should support preserving PodSandbox attributes" => attributes,
    "PodSandbox: runtime should support returning metrics descriptors" => descriptors,
    "PodSandbox: runtime should support listing pod sandbox metrics" => metrics,
    "PodSandbox: runtime should support sysctls: should support safe and unsafe sysctls" => sysctls,
    "Networking: runtime should support DNS config" => dns,
    "Networking: runtime should support set hostname" => hostname,
    "Networking: runtime should support port mapping with only container port" => container_port,
    "a pod's statistics count its containers, interface and processes" => stats,
    "/dev/shm has the size that the pod asks for" => shm_size,
    "a guest that never answers fails with its last phase and console lines, in 1 KiB" => silent_guest,
}

async fn life(suite: &mut Suite) {
    let config = suite.node.pod("life");
    let id = suite.run_pod(config.clone()).await.unwrap();
    let state =
        async |suite: &mut Suite| suite.node.sandbox_status(&id).await.status.unwrap().state;
    assert_eq!(state(suite).await, PodSandboxState::SandboxReady as i32);
    assert_eq!(listed(suite, &id[..12], 0).await, 1);
    let twice = suite.run_pod(config).await.unwrap_err();
    assert_eq!(
        twice.code(),
        tonic::Code::AlreadyExists,
        "{}",
        twice.message()
    );
    suite.node.stop_pod(&id).await;
    assert_eq!(state(suite).await, PodSandboxState::SandboxNotready as i32);
    assert_eq!(
        listed(suite, &id, PodSandboxState::SandboxReady as i32).await,
        0
    );
    suite.node.remove_pod(&id).await;
    assert_eq!(
        listed(suite, &id, PodSandboxState::SandboxNotready as i32).await,
        0
    );
}

async fn listed(suite: &mut Suite, id: &str, state: i32) -> usize {
    let filter = PodSandboxFilter {
        id: id.into(),
        state: Some(PodSandboxStateValue { state }),
        ..Default::default()
    };
    let filter = Some(filter);
    let answer = suite
        .node
        .runtime
        .list_pod_sandbox(ListPodSandboxRequest { filter })
        .await;
    answer.unwrap().into_inner().items.len()
}

async fn attributes(suite: &mut Suite) {
    let id = suite.pod().await;
    let expected = suite.node.pod("shared");
    let status = suite.node.sandbox_status(&id).await.status.unwrap();
    assert_eq!(
        (status.metadata, status.labels),
        (expected.metadata, expected.labels)
    );
    let selector = |value: &str| HashMap::from([("io.kubernetes.pod.uid".into(), value.into())]);
    for (value, count) in [("uid-shared", 1), ("uid-other", 0)] {
        let filter = Some(PodSandboxFilter {
            label_selector: selector(value),
            ..Default::default()
        });
        let answer = suite
            .node
            .runtime
            .list_pod_sandbox(ListPodSandboxRequest { filter })
            .await;
        assert_eq!(answer.unwrap().into_inner().items.len(), count, "{value}");
    }
}

async fn descriptors(suite: &mut Suite) {
    let request = ListMetricDescriptorsRequest {};
    let answer = suite
        .node
        .runtime
        .list_metric_descriptors(request)
        .await
        .unwrap();
    let names: Vec<String> = answer
        .into_inner()
        .descriptors
        .into_iter()
        .map(|one| one.name)
        .collect();
    for name in [
        "container_cpu_usage_seconds_total",
        "container_memory_working_set_bytes",
        "container_network_receive_bytes_total",
    ] {
        assert!(names.iter().any(|known| known == name), "{name}");
    }
}

async fn metrics(suite: &mut Suite) {
    let pod = suite.pod().await;
    let id = suite.running(FOREVER, |_| {}).await;
    let request = ListPodSandboxMetricsRequest {};
    let answer = suite
        .node
        .runtime
        .list_pod_sandbox_metrics(request)
        .await
        .unwrap()
        .into_inner();
    let ours = answer
        .pod_metrics
        .iter()
        .find(|one| one.pod_sandbox_id == pod)
        .unwrap();
    assert!(
        ours.metrics
            .iter()
            .any(|one| one.name == "container_network_receive_bytes_total")
    );
    let container = ours
        .container_metrics
        .iter()
        .find(|one| one.container_id == id)
        .unwrap();
    let memory = container
        .metrics
        .iter()
        .find(|one| one.name == "container_memory_usage_bytes");
    assert!(memory.unwrap().value.unwrap().value > 0);
    suite.remove(&[&id]).await;
}

async fn stats(suite: &mut Suite) {
    let pod = suite.pod().await;
    let id = suite.running(FOREVER, |_| {}).await;
    let request = PodSandboxStatsRequest {
        pod_sandbox_id: pod[..12].into(),
    };
    let answer = suite
        .node
        .runtime
        .pod_sandbox_stats(request)
        .await
        .unwrap()
        .into_inner();
    let linux = answer.stats.unwrap().linux.unwrap();
    let value = |value: Option<UInt64Value>| value.unwrap_or_default().value;
    assert!(value(linux.memory.unwrap().usage_bytes) > 0);
    assert!(value(linux.cpu.unwrap().usage_core_nano_seconds) > 0);
    assert!(value(linux.process.unwrap().process_count) >= 1);
    let interface = linux.network.unwrap().default_interface.unwrap();
    assert_eq!(interface.name, "eth0");
    let containers = linux
        .containers
        .iter()
        .filter_map(|one| one.attributes.as_ref());
    assert!(containers.into_iter().any(|attributes| attributes.id == id));
    suite.remove(&[&id]).await;
}

/// Runs a script in the pod that has everything.
async fn configured(suite: &mut Suite, script: &str) -> String {
    let pod = suite.configured_pod().await;
    let (code, text) = suite.script_in(&pod, "configured", script, |_| {}).await;
    assert_eq!(code, 0, "{text}");
    text
}

async fn sysctls(suite: &mut Suite) {
    let script = "cat /proc/sys/kernel/shm_rmid_forced /proc/sys/net/ipv4/ip_local_port_range \
                  /proc/sys/fs/mqueue/msg_max";
    let text = configured(suite, script).await;
    let words: Vec<&str> = text.split_whitespace().collect();
    assert_eq!(words, ["1", "1024", "65000", "100"]);
}

async fn dns(suite: &mut Suite) {
    let text = configured(suite, "cat /etc/resolv.conf").await;
    for line in [
        "search google.com",
        "nameserver 10.10.10.10",
        "options ndots:8",
    ] {
        assert!(text.lines().any(|one| one == line), "{text}");
    }
}

async fn hostname(suite: &mut Suite) {
    let text = configured(suite, "hostname; cat /etc/hostname").await;
    assert_eq!(text, "conformance\nconformance");
}

async fn shm_size(suite: &mut Suite) {
    let text = configured(suite, "df -k /dev/shm | tail -1").await;
    assert_eq!(text.split_whitespace().nth(1), Some("1024"), "{text}");
}

/// A container that greets whoever connects to its port.
async fn greeter(suite: &mut Suite, port: u16) -> (String, String) {
    let pod = suite.configured_pod().await;
    let script = format!("while true; do echo hello | nc -l -p {port}; done");
    let config = suite.config(&["sh", "-c", &script], |_| {});
    let id = suite.node.running(&pod, config).await;
    let status = suite.node.sandbox_status(&pod).await.status.unwrap();
    (id, status.network.unwrap().ip)
}

async fn greeted(address: String) {
    let deadline = Instant::now() + patience();
    loop {
        let mut text = String::new();
        let connecting = tokio::net::TcpStream::connect(&address);
        if let Ok(Ok(mut stream)) = tokio::time::timeout(Duration::from_secs(2), connecting).await
            && stream.read_to_string(&mut text).await.is_ok()
            && text == "hello\n"
        {
            return;
        }
        assert!(Instant::now() < deadline, "{address} does not answer");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn container_port(suite: &mut Suite) {
    let (id, ip) = greeter(suite, 8081).await;
    greeted(format!("{ip}:8081")).await;
    suite.remove(&[&id]).await;
}

async fn silent_guest(_: &mut Suite) {
    let kernel_only = tempfile::NamedTempFile::new().unwrap();
    let settings = crate::support::Settings {
        initramfs: Some(kernel_only.path().to_owned()),
        boot_timeout_seconds: Some(2),
        ..Default::default()
    };
    let mut node = crate::support::Node::start_with(settings).await;
    let message = node
        .run_pod("silent")
        .await
        .unwrap_err()
        .message()
        .to_string();
    assert!(message.len() <= 1024, "{} bytes", message.len());
    assert!(message.contains("last phase was"), "{message}");
    assert!(message.contains("last console lines"), "{message}");
    assert_eq!(node.leftovers(), Vec::<String>::new());
}
