//! The state machine, by writing down what runs and reading the steps.

use serde_json::{Value, json};

use super::*;
use crate::cri::ObservedSandbox;

const NOW: i64 = 1_000_000;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn pod(spec: Value) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": "p", "namespace": "d", "uid": "u"}, "spec": spec}))
    .unwrap()
}

fn one(policy: &str) -> Pod {
    pod(json!({"restartPolicy": policy, "containers": [{"name": "c"}]}))
}

fn sandbox(id: &str, attempt: u32, ready: bool) -> ObservedSandbox {
    ObservedSandbox {
        id: id.into(),
        attempt,
        ready,
        created_at: i64::from(attempt) + 1,
        ips: vec!["10.42.0.2".into()],
        annotations: Default::default(),
    }
}

fn container(
    name: &str,
    sandbox_id: &str,
    attempt: u32,
    phase: ContainerPhase,
    exit_code: i32,
) -> ObservedContainer {
    ObservedContainer {
        id: format!("{name}{attempt}"),
        name: name.into(),
        sandbox_id: sandbox_id.into(),
        attempt,
        phase,
        created_at: 1,
        started_at: 1,
        finished_at: NOW * 1_000_000_000,
        exit_code,
        reason: String::new(),
        message: String::new(),
        image: "i".into(),
        image_ref: "i".into(),
        annotations: Default::default(),
    }
}

fn observed(sandboxes: Vec<ObservedSandbox>, containers: Vec<ObservedContainer>) -> ObservedPod {
    let mut observed = ObservedPod {
        sandboxes,
        containers,
    };
    observed.sort();
    observed
}

fn memory() -> Memory {
    Memory::new(
        Duration::from_secs(10),
        Duration::from_secs(300),
        Duration::from_secs(300),
    )
}

fn plan_at(pod: &Pod, observed: &ObservedPod, memory: &Memory, now: i64) -> Plan {
    plan(pod, observed, memory, &Health::default(), at(now))
}

fn steps(pod: &Pod, observed: &ObservedPod) -> Vec<Step> {
    plan_at(pod, observed, &memory(), NOW).steps
}

fn start(name: &str, attempt: u32, restart: bool) -> Step {
    Step::StartContainer {
        name: name.into(),
        attempt,
        restart,
    }
}

fn stop(id: &str) -> Step {
    Step::StopSandbox { id: id.into() }
}

use ContainerPhase::{Created, Exited, Running, Unknown};

#[test]
fn ephemeral_container_is_started_once() {
    let pod = pod(
        json!({"containers": [{"name": "c"}], "initContainers": [{"name": "i"}],
        "ephemeralContainers": [{"name": "debug"}]}),
    );
    let mut containers = vec![container("i", "s0", 0, Running, 0)];
    let sandboxes = vec![sandbox("s0", 0, true)];
    let initializing = observed(sandboxes.clone(), containers.clone());
    assert_eq!(steps(&pod, &initializing), [start("debug", 0, false)]);
    containers.push(container("debug", "s0", 0, Exited, 1));
    assert_eq!(steps(&pod, &observed(sandboxes, containers)), []);
}

#[test]
fn sidecars_stop_after_the_others_in_reverse_order() {
    let pod = pod(
        json!({"restartPolicy": "Never", "containers": [{"name": "c"}],
        "initContainers": [{"name": "s1", "restartPolicy": "Always"}, {"name": "i"},
            {"name": "s2", "restartPolicy": "Always"}]}),
    );
    let containers = ["s1", "s2", "c"].map(|name| container(name, "s0", 0, Running, 0));
    let mut memory = memory();
    memory.failed = Some(("Evicted".into(), "x".into()));
    let observed = observed(vec![sandbox("s0", 0, true)], containers.into());
    let killed: Vec<String> = plan_at(&pod, &observed, &memory, NOW)
        .steps
        .into_iter()
        .filter_map(|step| match step {
            Step::KillContainer { name, .. } => Some(name),
            _ => None,
        })
        .collect();
    assert_eq!(killed, ["c", "s2", "s1"]);
}

#[test]
fn new_pod_gets_a_sandbox_then_its_containers() {
    let pod = pod(json!({"containers": [{"name": "a"}, {"name": "b"}]}));
    assert_eq!(
        steps(&pod, &observed(vec![], vec![])),
        [Step::CreateSandbox { attempt: 0 }]
    );
    let ready = observed(vec![sandbox("s0", 0, true)], vec![]);
    assert_eq!(
        steps(&pod, &ready),
        [start("a", 0, false), start("b", 0, false)]
    );
}

#[test]
fn running_pod_needs_nothing() {
    let running = observed(
        vec![sandbox("s0", 0, true)],
        vec![container("c", "s0", 0, Running, 0)],
    );
    let plan = plan_at(&one("Always"), &running, &memory(), NOW);
    assert_eq!(plan, Plan::default());
}

#[test]
fn init_containers_run_in_order_before_the_others() {
    let pod = pod(
        json!({"initContainers": [{"name": "i"}, {"name": "j"}], "containers": [{"name": "c"}]}),
    );
    let with = |containers| steps(&pod, &observed(vec![sandbox("s0", 0, true)], containers));
    assert_eq!(with(vec![]), [start("i", 0, false)]);
    assert_eq!(with(vec![container("i", "s0", 0, Running, 0)]), []);
    let i_done = container("i", "s0", 0, Exited, 0);
    assert_eq!(with(vec![i_done.clone()]), [start("j", 0, false)]);
    let j_failed = container("j", "s0", 0, Exited, 1);
    assert_eq!(with(vec![i_done.clone(), j_failed]), [start("j", 1, true)]);
    let j_done = container("j", "s0", 0, Exited, 0);
    assert_eq!(with(vec![i_done, j_done]), [start("c", 0, false)]);
    // The records of init containers are gone, a container of the sandbox proves that they ran.
    assert_eq!(
        with(vec![container("c", "s0", 0, Exited, 1)]),
        [start("c", 1, true)]
    );
}

#[test]
fn sidecar_starts_first_and_does_not_hold_up_the_end() {
    let pod = pod(json!({"restartPolicy": "Never",
        "initContainers": [{"name": "side", "restartPolicy": "Always"}], "containers": [{"name": "c"}]}));
    let with = |containers| steps(&pod, &observed(vec![sandbox("s0", 0, true)], containers));
    assert_eq!(with(vec![]), [start("side", 0, false)]);
    let side = container("side", "s0", 0, Running, 0);
    assert_eq!(with(vec![side.clone()]), [start("c", 0, false)]);
    let done = container("c", "s0", 0, Exited, 0);
    let kill = Step::KillContainer {
        id: "side0".into(),
        name: "side".into(),
        message: "Stopping container side".into(),
    };
    assert_eq!(with(vec![side, done]), [kill, stop("s0")]);
}

#[test]
fn restart_policy_decides_what_ends_a_pod() {
    for (policy, exit_code, expected, finished) in [
        ("Always", 0, vec![start("c", 1, true)], false),
        ("Always", 1, vec![start("c", 1, true)], false),
        ("OnFailure", 1, vec![start("c", 1, true)], false),
        ("OnFailure", 0, vec![stop("s0")], true),
        ("Never", 0, vec![stop("s0")], true),
        ("Never", 1, vec![stop("s0")], true),
    ] {
        let ended = observed(
            vec![sandbox("s0", 0, true)],
            vec![container("c", "s0", 0, Exited, exit_code)],
        );
        let plan = plan_at(&one(policy), &ended, &memory(), NOW);
        assert_eq!(plan.steps, expected, "{policy} {exit_code}");
        assert_eq!(plan.finished, finished, "{policy} {exit_code}");
    }
}

#[test]
fn crash_loop_waits_the_back_off_and_says_so() {
    let ended = observed(
        vec![sandbox("s0", 0, true)],
        vec![container("c", "s0", 1, Exited, 1)],
    );
    let mut memory = memory();
    memory.restarts.advance("c", at(NOW - 5));
    let waiting = plan_at(&one("Always"), &ended, &memory, NOW + 4);
    assert_eq!(waiting.steps, []);
    assert_eq!(waiting.wake, Some(Duration::from_secs(6)));
    let wait = &waiting.waiting["c"];
    assert_eq!(wait.reason, "CrashLoopBackOff");
    assert_eq!(
        wait.message.as_deref(),
        Some("back-off 10s restarting failed container=c pod=p_d(u)")
    );
    assert_eq!(
        plan_at(&one("Always"), &ended, &memory, NOW + 10).steps,
        [start("c", 2, true)]
    );
}

#[test]
fn dead_vm_means_a_new_sandbox_and_restarts_by_policy() {
    let dead = |exit_code| {
        observed(
            vec![sandbox("s0", 0, false)],
            vec![container("c", "s0", 0, Exited, exit_code)],
        )
    };
    assert_eq!(
        steps(&one("Always"), &dead(137)),
        [stop("s0"), Step::CreateSandbox { attempt: 1 }]
    );
    let plan = plan_at(&one("Never"), &dead(137), &memory(), NOW);
    assert!(plan.finished);
    assert_eq!(plan.steps, []);
    assert!(plan_at(&one("OnFailure"), &dead(0), &memory(), NOW).finished);
    // In the new sandbox the container goes on counting.
    let fresh = observed(
        vec![sandbox("s0", 0, false), sandbox("s1", 1, true)],
        vec![container("c", "s0", 0, Exited, 137)],
    );
    assert_eq!(steps(&one("Always"), &fresh), [start("c", 1, true)]);
    // The runtime still calls it running in a sandbox that is gone: it counts as killed.
    let stale = observed(
        vec![sandbox("s0", 0, false), sandbox("s1", 1, true)],
        vec![container("c", "s0", 0, Running, 0)],
    );
    assert_eq!(steps(&one("Always"), &stale), [start("c", 1, true)]);
}

#[test]
fn init_containers_run_again_in_a_new_sandbox() {
    let pod = pod(json!({"initContainers": [{"name": "i"}], "containers": [{"name": "c"}]}));
    let fresh = observed(
        vec![sandbox("s0", 0, false), sandbox("s1", 1, true)],
        vec![
            container("i", "s0", 0, Exited, 0),
            container("c", "s0", 0, Exited, 137),
        ],
    );
    assert_eq!(steps(&pod, &fresh), [start("i", 1, true)]);
}

#[test]
fn sandbox_that_failed_is_tried_again_later() {
    let mut memory = memory();
    memory.sandbox_retry_at = Some(at(NOW + 5));
    let none = observed(vec![], vec![]);
    let plan = plan_at(&one("Always"), &none, &memory, NOW);
    assert_eq!(
        (plan.steps, plan.wake),
        (vec![], Some(Duration::from_secs(5)))
    );
    let later = plan_at(&one("Always"), &none, &memory, NOW + 5);
    assert_eq!(later.steps, [Step::CreateSandbox { attempt: 0 }]);
}

#[test]
fn failed_pull_shows_its_cause_then_backs_off_then_tries_again() {
    let mut memory = memory();
    let error = StartError {
        failure: StartFailure::Pull,
        message: "Back-off pulling image \"i\": ErrImagePull: not found".into(),
        at: at(NOW),
        retry_at: at(NOW + 10),
    };
    memory.start_errors.insert("c".into(), error);
    let ready = observed(vec![sandbox("s0", 0, true)], vec![]);
    let fresh = plan_at(&one("Always"), &ready, &memory, NOW + 1);
    assert_eq!(fresh.waiting["c"].reason, "ErrImagePull");
    assert_eq!(
        fresh.wake,
        Some(Duration::from_secs(2)),
        "to show the back-off in time"
    );
    let later = plan_at(&one("Always"), &ready, &memory, NOW + 4);
    assert_eq!(later.waiting["c"].reason, "ImagePullBackOff");
    assert!(
        later.waiting["c"]
            .message
            .as_deref()
            .unwrap()
            .contains("not found")
    );
    assert_eq!(later.wake, Some(Duration::from_secs(6)));
    let retry = plan_at(&one("Always"), &ready, &memory, NOW + 10);
    assert_eq!(retry.steps, [start("c", 0, false)]);
}

#[test]
fn created_or_unknown_leftovers_are_replaced() {
    let leftover = |phase| {
        observed(
            vec![sandbox("s0", 0, true)],
            vec![container("c", "s0", 2, phase, 0)],
        )
    };
    let remove = Step::RemoveContainer {
        id: "c2".into(),
        name: "c".into(),
        attempt: 2,
    };
    // A container that never started gives its number to its successor.
    assert_eq!(
        steps(&one("Always"), &leftover(Created)),
        [remove.clone(), start("c", 2, false)]
    );
    assert_eq!(
        steps(&one("Always"), &leftover(Unknown)),
        [remove, start("c", 3, true)]
    );
}

#[test]
fn unhealthy_container_is_killed() {
    let running = observed(
        vec![sandbox("s0", 0, true)],
        vec![container("c", "s0", 0, Running, 0)],
    );
    let mut health = Health::default();
    health.unhealthy.insert(
        "c0".into(),
        "Container c failed liveness probe, will be restarted".into(),
    );
    let plan = plan(&one("Always"), &running, &memory(), &health, at(NOW));
    assert!(matches!(&plan.steps[..], [Step::KillContainer { id, .. }] if id == "c0"));
}

#[test]
fn finished_pod_never_starts_again() {
    for phase in ["Succeeded", "Failed"] {
        let mut pod = one("Always");
        pod.status = Some(serde_json::from_value(json!({"phase": phase})).unwrap());
        let plan = plan_at(&pod, &observed(vec![], vec![]), &memory(), NOW);
        assert!(plan.finished && plan.steps.is_empty(), "{phase}");
    }
    let mut memory = memory();
    memory.failed = Some(("DeadlineExceeded".into(), "too long".into()));
    let running = observed(
        vec![sandbox("s0", 0, true)],
        vec![container("c", "s0", 0, Running, 0)],
    );
    let plan = plan_at(&one("Always"), &running, &memory, NOW);
    assert!(plan.finished);
    assert!(matches!(
        &plan.steps[..],
        [Step::KillContainer { .. }, Step::StopSandbox { .. }]
    ));
}

#[test]
fn old_attempts_and_empty_sandboxes_are_collected() {
    let many = observed(
        vec![
            sandbox("s0", 0, false),
            sandbox("s1", 1, false),
            sandbox("s2", 2, true),
        ],
        vec![
            container("c", "s0", 0, Exited, 1),
            container("c", "s1", 1, Exited, 1),
            container("c", "s2", 2, Running, 0),
        ],
    );
    assert_eq!(
        steps(&one("Always"), &many),
        [
            Step::RemoveContainer {
                id: "c0".into(),
                name: "c".into(),
                attempt: 0
            },
            Step::RemoveSandbox { id: "s0".into() },
        ]
    );
}

#[test]
fn second_ready_sandbox_is_stopped() {
    let two = observed(
        vec![sandbox("s0", 0, true), sandbox("s1", 1, true)],
        vec![container("c", "s1", 0, Running, 0)],
    );
    assert_eq!(steps(&one("Always"), &two), [stop("s0")]);
}

#[test]
fn durations_print_as_in_go() {
    for (seconds, text) in [(10, "10s"), (80, "1m20s"), (300, "5m0s")] {
        assert_eq!(go_duration(Duration::from_secs(seconds)), text);
    }
}
