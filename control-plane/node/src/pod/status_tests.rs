//! Statuses of pods in the states that users meet.

use serde_json::{Value, json};

use super::*;
use crate::cri::ObservedSandbox;
use crate::pod::plan::Step;
use std::time::Duration;

fn pod(extra: Value) -> Pod {
    let mut value = json!({"metadata": {"name": "p", "namespace": "d", "uid": "u", "generation": 1},
        "spec": {"containers": [{"name": "c", "image": "nginx"}]}});
    if let (Some(value), Some(extra)) = (value.as_object_mut(), extra.as_object()) {
        for (key, item) in extra {
            value.insert(key.clone(), item.clone());
        }
    }
    serde_json::from_value(value).unwrap()
}

fn container(attempt: u32, phase: ContainerPhase, exit_code: i32) -> ObservedContainer {
    ObservedContainer {
        id: format!("id{attempt}"),
        name: "c".into(),
        sandbox_id: "s".into(),
        attempt,
        phase,
        created_at: 1_000_000_000,
        started_at: 2_000_000_000,
        finished_at: if phase == ContainerPhase::Exited {
            3_000_000_000
        } else {
            0
        },
        exit_code,
        reason: String::new(),
        message: String::new(),
        image: "nginx".into(),
        image_ref: "sha256:1".into(),
        annotations: Default::default(),
    }
}

fn observed(containers: Vec<ObservedContainer>) -> ObservedPod {
    let sandbox = ObservedSandbox {
        id: "s".into(),
        attempt: 0,
        ready: true,
        created_at: 1,
        ips: vec!["10.42.0.2".into()],
        annotations: Default::default(),
    };
    let mut observed = ObservedPod {
        sandboxes: vec![sandbox],
        containers,
    };
    observed.sort();
    observed
}

fn status_of(pod: &Pod, observed: &ObservedPod, plan: &Plan, health: &Health) -> PodStatus {
    let memory = Memory::new(
        Duration::from_secs(10),
        Duration::from_secs(300),
        Duration::from_secs(300),
    );
    status(&StatusInput {
        pod,
        observed,
        plan,
        memory: &memory,
        health,
        host_ip: "192.0.2.1",
        previous: None,
        start_time: Timestamp::from_second(1).unwrap(),
        now: Timestamp::from_second(10).unwrap(),
    })
}

fn simple(observed: &ObservedPod, plan: &Plan) -> PodStatus {
    status_of(&pod(json!({})), observed, plan, &Health::default())
}

fn condition<'a>(status: &'a PodStatus, kind: &str) -> &'a str {
    let conditions = status.conditions.as_ref().unwrap();
    &conditions
        .iter()
        .find(|condition| condition.type_ == kind)
        .unwrap()
        .status
}

fn first(status: &PodStatus) -> &ContainerStatus {
    &status.container_statuses.as_ref().unwrap()[0]
}

#[test]
fn new_pod_is_pending_and_creating() {
    let status = simple(&ObservedPod::default(), &Plan::default());
    assert_eq!(status.phase.as_deref(), Some("Pending"));
    let waiting = first(&status).state.clone().unwrap().waiting.unwrap();
    assert_eq!(waiting.reason.as_deref(), Some("ContainerCreating"));
    assert_eq!(condition(&status, "Ready"), "False");
    assert_eq!(condition(&status, "Initialized"), "True");
    assert_eq!(condition(&status, "PodReadyToStartContainers"), "False");
    assert_eq!(status.pod_ip, None);
    assert_eq!(status.qos_class.as_deref(), Some("BestEffort"));
}

#[test]
fn running_pod_is_ready_and_has_its_address() {
    let status = simple(
        &observed(vec![container(0, ContainerPhase::Running, 0)]),
        &Plan::default(),
    );
    assert_eq!(status.phase.as_deref(), Some("Running"));
    assert_eq!(status.pod_ip.as_deref(), Some("10.42.0.2"));
    for kind in [
        "Ready",
        "ContainersReady",
        "Initialized",
        "PodScheduled",
        "PodReadyToStartContainers",
    ] {
        assert_eq!(condition(&status, kind), "True", "{kind}");
    }
    let container = first(&status);
    assert!(container.ready && container.started == Some(true));
    assert_eq!(container.container_id.as_deref(), Some("hull://id0"));
}

#[test]
fn crash_loop_shows_the_wait_the_last_end_and_the_count() {
    let mut ended = container(3, ContainerPhase::Exited, 137);
    ended.reason = "VMMKilled".into();
    ended.message = "hull-vmm was killed by signal 9".into();
    let mut plan = Plan::default();
    let wait = Waiting {
        reason: "CrashLoopBackOff".into(),
        message: Some("back-off 10s".into()),
    };
    plan.waiting.insert("c".into(), wait);
    let status = simple(&observed(vec![ended]), &plan);
    assert_eq!(status.phase.as_deref(), Some("Running"));
    let container = first(&status);
    assert_eq!(container.restart_count, 3);
    let waiting = container.state.clone().unwrap().waiting.unwrap();
    assert_eq!(waiting.reason.as_deref(), Some("CrashLoopBackOff"));
    let last = container.last_state.clone().unwrap().terminated.unwrap();
    assert_eq!(
        (last.exit_code, last.reason.as_deref()),
        (137, Some("VMMKilled"))
    );
    assert_eq!(
        last.message.as_deref(),
        Some("hull-vmm was killed by signal 9")
    );
}

#[test]
fn ended_pods_are_succeeded_or_failed() {
    for (exit_code, phase, reason) in [(0, "Succeeded", "Completed"), (2, "Failed", "Error")] {
        let pod = pod(json!({"spec": {"restartPolicy": "Never", "containers": [{"name": "c"}]}}));
        let observed = observed(vec![container(0, ContainerPhase::Exited, exit_code)]);
        let status = status_of(&pod, &observed, &Plan::default(), &Health::default());
        assert_eq!(status.phase.as_deref(), Some(phase));
        let end = first(&status).state.clone().unwrap().terminated.unwrap();
        assert_eq!(
            (end.exit_code, end.reason.as_deref()),
            (exit_code, Some(reason))
        );
        assert_eq!(condition(&status, "Ready"), "False");
    }
}

#[test]
fn init_containers_hold_the_others() {
    let pod =
        pod(json!({"spec": {"initContainers": [{"name": "i"}], "containers": [{"name": "c"}]}}));
    let plan = Plan {
        steps: vec![Step::StartContainer {
            name: "i".into(),
            attempt: 0,
            restart: false,
        }],
        ..Default::default()
    };
    let status = status_of(&pod, &observed(vec![]), &plan, &Health::default());
    let waiting = first(&status).state.clone().unwrap().waiting.unwrap();
    assert_eq!(waiting.reason.as_deref(), Some("PodInitializing"));
    assert_eq!(condition(&status, "Initialized"), "False");
    assert_eq!(status.phase.as_deref(), Some("Pending"));
}

#[test]
fn readiness_probe_holds_ready_back() {
    let pod = pod(json!({"spec": {"containers": [
        {"name": "c", "readinessProbe": {"exec": {"command": ["true"]}}}]}}));
    let running = observed(vec![container(0, ContainerPhase::Running, 0)]);
    let mut health = Health::default();
    let status = status_of(&pod, &running, &Plan::default(), &health);
    assert!(!first(&status).ready);
    assert_eq!(condition(&status, "Ready"), "False");
    health.ready.insert("id0".into(), true);
    assert!(first(&status_of(&pod, &running, &Plan::default(), &health)).ready);
}

#[test]
fn unchanged_state_gives_an_equal_status() {
    let running = observed(vec![container(0, ContainerPhase::Running, 0)]);
    let first = simple(&running, &Plan::default());
    let api = pod(json!({"status": first}));
    let again = status_of(&api, &running, &Plan::default(), &Health::default());
    assert_eq!(first, again, "transition times and start time are kept");
}

#[test]
fn finished_status_and_foreign_conditions_are_kept() {
    let api = pod(
        json!({"status": {"phase": "Failed", "reason": "Evicted", "message": "disk",
        "conditions": [{"type": "example.com/gate", "status": "True"}], "podIPs": [{"ip": "10.42.0.9"}]}}),
    );
    let status = status_of(
        &api,
        &ObservedPod::default(),
        &Plan::default(),
        &Health::default(),
    );
    assert_eq!(status.phase.as_deref(), Some("Failed"));
    assert_eq!(status.reason.as_deref(), Some("Evicted"));
    assert_eq!(condition(&status, "example.com/gate"), "True");
    assert_eq!(status.pod_ip.as_deref(), Some("10.42.0.9"));
}
