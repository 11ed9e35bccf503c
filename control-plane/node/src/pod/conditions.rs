//! Pod conditions. Those of others (the scheduler's PodScheduled, readiness gates) are kept.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodCondition};

use super::restart::is_sidecar;
use super::status::StatusInput;
use super::worker::EVICTED;
use crate::events::seconds;

struct Verdict {
    kind: &'static str,
    holds: bool,
    reason: Option<&'static str>,
    message: Option<String>,
}

/// The pod's conditions: its present ones with the node agent's replaced. A condition that did not
/// change keeps its transition time.
pub(super) fn conditions(
    input: &StatusInput<'_>,
    phase: &str,
    inits: &[ContainerStatus],
    apps: &[ContainerStatus],
) -> Vec<PodCondition> {
    let (pod, previous, now) = (input.pod, input.previous, input.now);
    let sandbox_ready = input.observed.ready_sandbox().is_some();
    let failed = input.memory.failed.as_ref();
    let old: Vec<PodCondition> = pod
        .status
        .as_ref()
        .and_then(|status| status.conditions.clone())
        .unwrap_or_default();
    let ready = containers_ready(phase, apps);
    let mut verdicts = vec![
        Verdict {
            kind: "PodReadyToStartContainers",
            holds: sandbox_ready,
            reason: None,
            message: None,
        },
        initialized(pod, phase, inits, apps),
        pod_ready(pod, &old, &ready),
        ready,
        Verdict {
            kind: "PodScheduled",
            holds: true,
            reason: None,
            message: None,
        },
    ];
    if let Some((_, message)) = failed.filter(|(reason, _)| reason == EVICTED) {
        verdicts.push(Verdict {
            kind: "DisruptionTarget",
            holds: true,
            reason: Some("TerminationByKubelet"),
            message: Some(message.clone()),
        });
    }
    let mut conditions: Vec<PodCondition> = old
        .iter()
        .filter(|condition| {
            !verdicts
                .iter()
                .any(|verdict| verdict.kind == condition.type_)
        })
        .cloned()
        .collect();
    // What was handed in last counts before the API's copy, which may lag behind.
    let mut known = previous
        .and_then(|status| status.conditions.clone())
        .unwrap_or_default();
    known.extend(old);
    conditions.extend(
        verdicts
            .into_iter()
            .map(|verdict| condition(pod, &known, verdict, now)),
    );
    conditions
}

fn condition(pod: &Pod, old: &[PodCondition], verdict: Verdict, now: Timestamp) -> PodCondition {
    let status = if verdict.holds { "True" } else { "False" };
    let same = old
        .iter()
        .find(|condition| condition.type_ == verdict.kind)
        .filter(|condition| condition.status == status);
    PodCondition {
        type_: verdict.kind.into(),
        status: status.into(),
        reason: verdict.reason.map(str::to_owned),
        message: verdict.message,
        last_transition_time: same
            .and_then(|condition| condition.last_transition_time.clone())
            .or_else(|| Some(seconds(now))),
        observed_generation: pod.metadata.generation,
        ..Default::default()
    }
}

fn list(names: &[&str]) -> String {
    format!("[{}]", names.join(" "))
}

fn initialized(
    pod: &Pod,
    phase: &str,
    inits: &[ContainerStatus],
    apps: &[ContainerStatus],
) -> Verdict {
    let containers = pod
        .spec
        .iter()
        .flat_map(|spec| spec.init_containers.iter().flatten());
    let incomplete: Vec<&str> = containers
        .filter(|container| {
            let status = inits.iter().find(|status| status.name == container.name);
            !status.is_some_and(|status| {
                if is_sidecar(container) {
                    status.started.unwrap_or(false)
                } else {
                    status.ready
                }
            })
        })
        .map(|container| container.name.as_str())
        .collect();
    let ran = apps.iter().any(|status| {
        status
            .state
            .as_ref()
            .is_some_and(|s| s.running.is_some() || s.terminated.is_some())
    });
    let kind = "Initialized";
    if phase == "Succeeded" {
        return Verdict {
            kind,
            holds: true,
            reason: Some("PodCompleted"),
            message: None,
        };
    }
    if incomplete.is_empty() || ran {
        return Verdict {
            kind,
            holds: true,
            reason: None,
            message: None,
        };
    }
    Verdict {
        kind,
        holds: false,
        reason: Some("ContainersNotInitialized"),
        message: Some(format!(
            "containers with incomplete status: {}",
            list(&incomplete)
        )),
    }
}

fn containers_ready(phase: &str, apps: &[ContainerStatus]) -> Verdict {
    let kind = "ContainersReady";
    match phase {
        "Succeeded" => {
            return Verdict {
                kind,
                holds: false,
                reason: Some("PodCompleted"),
                message: None,
            };
        }
        "Failed" => {
            return Verdict {
                kind,
                holds: false,
                reason: Some("PodFailed"),
                message: None,
            };
        }
        _ => {}
    }
    let unready: Vec<&str> = apps
        .iter()
        .filter(|status| !status.ready)
        .map(|status| status.name.as_str())
        .collect();
    if unready.is_empty() && !apps.is_empty() {
        return Verdict {
            kind,
            holds: true,
            reason: None,
            message: None,
        };
    }
    Verdict {
        kind,
        holds: false,
        reason: Some("ContainersNotReady"),
        message: Some(format!(
            "containers with unready status: {}",
            list(&unready)
        )),
    }
}

fn pod_ready(pod: &Pod, old: &[PodCondition], ready: &Verdict) -> Verdict {
    let kind = "Ready";
    if !ready.holds {
        return Verdict {
            kind,
            holds: false,
            reason: ready.reason,
            message: ready.message.clone(),
        };
    }
    let gates = pod
        .spec
        .iter()
        .flat_map(|spec| spec.readiness_gates.iter().flatten());
    let missing: Vec<String> = gates
        .filter(|gate| {
            !old.iter()
                .any(|c| c.type_ == gate.condition_type && c.status == "True")
        })
        .map(|gate| {
            format!(
                "the status of pod readiness gate \"{}\" is not \"True\"",
                gate.condition_type
            )
        })
        .collect();
    if missing.is_empty() {
        return Verdict {
            kind,
            holds: true,
            reason: None,
            message: None,
        };
    }
    Verdict {
        kind,
        holds: false,
        reason: Some("ReadinessGatesNotReady"),
        message: Some(missing.join(", ")),
    }
}
