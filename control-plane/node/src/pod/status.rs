//! The PodStatus that follows from what runs. Pure: the same input gives the same status, so a
//! PATCH is needed only when something changed.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated,
    ContainerStateWaiting, ContainerStatus, HostIP, Pod, PodIP, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::conditions::conditions;
use super::containers::{self, Role};
use super::health::Health;
use super::memory::{Memory, Waiting};
use super::phase::phase;
use super::plan::Plan;
use super::qos;
use super::recover::{LOST_EXIT_CODE, LOST_REASON};
use super::restart::is_sidecar;
use crate::cri::{ContainerPhase, ObservedContainer, ObservedPod};
use crate::events::seconds;

/// The scheme of container ids in statuses.
const CONTAINER_ID_SCHEME: &str = "hull://";

/// What a status is made from.
pub struct StatusInput<'a> {
    /// The pod as last seen in the API.
    pub pod: &'a Pod,
    /// What runs.
    pub observed: &'a ObservedPod,
    /// What is planned and waited for.
    pub plan: &'a Plan,
    /// What is remembered.
    pub memory: &'a Memory,
    /// What probes found.
    pub health: &'a Health,
    /// The node's address.
    pub host_ip: &'a str,
    /// The status that was last handed in: newer than the API's copy may be.
    pub previous: Option<&'a PodStatus>,
    /// When the node agent first saw the pod.
    pub start_time: Timestamp,
    /// Now.
    pub now: Timestamp,
}

/// Computes the status.
pub fn status(input: &StatusInput<'_>) -> PodStatus {
    let spec = input.pod.spec.clone().unwrap_or_default();
    let old = input.pod.status.clone().unwrap_or_default();
    let of_role = |wanted: Role| -> Vec<ContainerStatus> {
        containers::all(input.pod)
            .filter(|(role, _)| *role == wanted)
            .map(|(role, container)| container_status(input, &container, role))
            .collect()
    };
    let (inits, apps) = (of_role(Role::Init), of_role(Role::App));
    let ephemerals = of_role(Role::Ephemeral);
    let (phase, reason, message) = overall(input, &old, &inits, &apps);
    let ready_sandbox = input.observed.ready_sandbox();
    let ips: Vec<String> = if spec.host_network.unwrap_or(false) {
        vec![input.host_ip.to_owned()]
    } else {
        // A finished pod keeps the address it had.
        ready_sandbox
            .map(|sandbox| sandbox.ips.clone())
            .filter(|ips| !ips.is_empty())
            .unwrap_or_else(|| {
                old.pod_ips
                    .iter()
                    .flatten()
                    .map(|ip| ip.ip.clone())
                    .collect()
            })
    };
    PodStatus {
        conditions: Some(conditions(input, &phase, &inits, &apps)),
        phase: Some(phase),
        reason,
        message,
        init_container_statuses: (!inits.is_empty()).then_some(inits),
        container_statuses: Some(apps),
        ephemeral_container_statuses: (!ephemerals.is_empty()).then_some(ephemerals),
        host_ip: Some(input.host_ip.to_owned()),
        host_ips: Some(vec![HostIP {
            ip: input.host_ip.to_owned(),
        }]),
        pod_ip: ips.first().cloned(),
        pod_ips: (!ips.is_empty()).then(|| ips.into_iter().map(|ip| PodIP { ip }).collect()),
        qos_class: Some(
            old.qos_class
                .unwrap_or_else(|| qos::qos_class(input.pod).into()),
        ),
        start_time: Some(old.start_time.unwrap_or_else(|| seconds(input.start_time))),
        observed_generation: input.pod.metadata.generation,
        ..Default::default()
    }
}

/// Phase, reason and message; a finished pod stays as it finished.
fn overall(
    input: &StatusInput<'_>,
    old: &PodStatus,
    inits: &[ContainerStatus],
    apps: &[ContainerStatus],
) -> (String, Option<String>, Option<String>) {
    if super::plan::api_finished(input.pod) {
        return (
            old.phase.clone().unwrap_or_default(),
            old.reason.clone(),
            old.message.clone(),
        );
    }
    if let Some((reason, message)) = &input.memory.failed {
        return ("Failed".into(), Some(reason.clone()), Some(message.clone()));
    }
    (
        phase(input.pod, inits, apps, input.plan.finished).into(),
        None,
        None,
    )
}

fn container_status(input: &StatusInput<'_>, container: &Container, role: Role) -> ContainerStatus {
    let name = &container.name;
    let latest = input.observed.latest(name);
    let previous = input.observed.previous(name);
    let waiting = input.plan.waiting.get(name);
    let (state, last) = match latest {
        None => (
            waiting_state(waiting.cloned().unwrap_or_else(|| creating(input, role))),
            None,
        ),
        Some(latest) => states(latest, previous, waiting),
    };
    let running = latest.filter(|_| state.running.is_some());
    let started = running.is_some_and(|found| input.health.is_started(container, &found.id));
    let ready = match (role, is_sidecar(container)) {
        (Role::Ephemeral, _) => false,
        (Role::Init, false) => state
            .terminated
            .as_ref()
            .is_some_and(|end| end.exit_code == 0),
        _ => running.is_some_and(|found| input.health.is_ready(container, &found.id)),
    };
    let old = old_status(input.pod, name, role);
    let image_id = latest
        .map(|found| found.image_ref.clone())
        .filter(|image| !image.is_empty());
    ContainerStatus {
        name: name.clone(),
        image: container.image.clone().unwrap_or_default(),
        image_id: image_id
            .or_else(|| latest.and(old.as_ref()).map(|old| old.image_id.clone()))
            .unwrap_or_default(),
        container_id: latest.map(|found| format!("{CONTAINER_ID_SCHEME}{}", found.id)),
        restart_count: latest.map_or(0, |found| i32::try_from(found.attempt).unwrap_or(i32::MAX)),
        state: Some(state),
        last_state: Some(last.map(terminated_state).unwrap_or_default()),
        ready,
        started: (role != Role::Ephemeral).then_some(started),
        ..Default::default()
    }
}

fn old_status(pod: &Pod, name: &str, role: Role) -> Option<ContainerStatus> {
    let status = pod.status.as_ref()?;
    let statuses = match role {
        Role::Init => &status.init_container_statuses,
        Role::App => &status.container_statuses,
        Role::Ephemeral => &status.ephemeral_container_statuses,
    };
    statuses
        .iter()
        .flatten()
        .find(|status| status.name == name)
        .cloned()
}

/// The reason of a container that has not been created yet.
fn creating(input: &StatusInput<'_>, role: Role) -> Waiting {
    let spec = input.pod.spec.as_ref();
    let has_inits = spec.is_some_and(|s| s.init_containers.iter().flatten().next().is_some());
    let planned = input.plan.steps.iter().any(|step| {
        matches!(step, super::plan::Step::StartContainer { name, .. }
            if spec.is_some_and(|s| s.containers.iter().any(|c| c.name == *name)))
    });
    let reason = if role == Role::Init || (role == Role::App && has_inits && !planned) {
        "PodInitializing"
    } else {
        "ContainerCreating"
    };
    Waiting {
        reason: reason.into(),
        message: None,
    }
}

fn waiting_state(waiting: Waiting) -> ContainerState {
    ContainerState {
        waiting: Some(ContainerStateWaiting {
            reason: Some(waiting.reason),
            message: waiting.message,
        }),
        ..Default::default()
    }
}

type LastEnd = Option<ContainerStateTerminated>;

fn states(
    latest: &ObservedContainer,
    previous: Option<&ObservedContainer>,
    waiting: Option<&Waiting>,
) -> (ContainerState, LastEnd) {
    let before = previous.and_then(|previous| match previous.phase {
        ContainerPhase::Exited => Some(terminated(previous)),
        _ => None,
    });
    match latest.phase {
        ContainerPhase::Running => (
            ContainerState {
                running: Some(ContainerStateRunning {
                    started_at: time(latest.started_at),
                }),
                ..Default::default()
            },
            before,
        ),
        ContainerPhase::Created => {
            let creating = Waiting {
                reason: "ContainerCreating".into(),
                message: None,
            };
            (waiting_state(waiting.cloned().unwrap_or(creating)), before)
        }
        ContainerPhase::Exited | ContainerPhase::Unknown => match waiting {
            Some(waiting) => (waiting_state(waiting.clone()), Some(terminated(latest))),
            None => (terminated_state(terminated(latest)), before),
        },
    }
}

fn terminated_state(end: ContainerStateTerminated) -> ContainerState {
    ContainerState {
        terminated: Some(end),
        ..Default::default()
    }
}

fn terminated(container: &ObservedContainer) -> ContainerStateTerminated {
    let unknown = container.phase == ContainerPhase::Unknown;
    let exit_code = if unknown {
        LOST_EXIT_CODE
    } else {
        container.exit_code
    };
    let reason = match (container.reason.as_str(), exit_code) {
        ("", _) if unknown => LOST_REASON,
        ("", 0) => "Completed",
        ("", _) => "Error",
        (reason, _) => reason,
    };
    ContainerStateTerminated {
        exit_code,
        reason: Some(reason.into()),
        message: (!container.message.is_empty()).then(|| container.message.clone()),
        started_at: time(container.started_at),
        finished_at: time(container.finished_at),
        container_id: Some(format!("{CONTAINER_ID_SCHEME}{}", container.id)),
        signal: None,
    }
}

fn time(nanoseconds: i64) -> Option<Time> {
    if nanoseconds <= 0 {
        return None;
    }
    Timestamp::from_nanosecond(i128::from(nanoseconds))
        .ok()
        .map(seconds)
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
