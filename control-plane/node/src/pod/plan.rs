//! The pod's state machine as a pure function: from what should run, what runs and what is
//! remembered, the next steps. Called again after the steps were carried out, until none is left.
//!
//! ```text
//!   no sandbox ──► create ──► init containers, one after the other ──► containers
//!        ▲                                                               │ exit
//!        └── sandbox not ready (VM gone) ◄──────────────┐       restart policy, back-off
//!                                                       └────────────────┘
//!   finished (all done, or failed for good): stop the sandbox, start nothing again
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};

use super::health::Health;
use super::identity::PodIdentity;
use super::memory::{Memory, StartError, StartFailure, Waiting};
use super::restart::{is_sidecar, restarts};
use crate::cri::{ContainerPhase, ObservedContainer, ObservedPod};

/// How long ErrImagePull is shown before it becomes ImagePullBackOff.
const PULL_ERROR_SHOWN: Duration = Duration::from_secs(3);
/// Attempts of one container whose records and logs are kept: the present one and the one before.
const KEPT_ATTEMPTS: usize = 2;

/// One thing to do to a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Stop a sandbox and what is in it.
    StopSandbox {
        /// CRI id.
        id: String,
    },
    /// Remove the record of a stopped sandbox.
    RemoveSandbox {
        /// CRI id.
        id: String,
    },
    /// Create the pod's sandbox.
    CreateSandbox {
        /// Its attempt number.
        attempt: u32,
    },
    /// Stop a running container that is unhealthy; the policy then decides about a restart.
    KillContainer {
        /// CRI id.
        id: String,
        /// The container's name.
        name: String,
        /// Why, for the event.
        message: String,
    },
    /// Remove the record of a container that never ran or whose attempt is long past.
    RemoveContainer {
        /// CRI id.
        id: String,
        /// The container's name.
        name: String,
        /// Its attempt, which names its log file.
        attempt: u32,
    },
    /// Pull the image, create and start a container.
    StartContainer {
        /// The container's name.
        name: String,
        /// Its attempt number.
        attempt: u32,
        /// It ran before: the start advances its back-off.
        restart: bool,
    },
}

/// What to do next, and what is being waited for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// In order.
    pub steps: Vec<Step>,
    /// Containers that wait, and why.
    pub waiting: BTreeMap<String, Waiting>,
    /// When to look again although nothing happened.
    pub wake: Option<Duration>,
    /// The pod will not run again.
    pub finished: bool,
}

impl Plan {
    fn wake_in(&mut self, delay: Duration) {
        self.wake = Some(self.wake.map_or(delay, |wake| wake.min(delay)));
    }
}

/// Whether the pod's API status says that it is finished.
pub fn api_finished(pod: &Pod) -> bool {
    let phase = pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// Makes the plan.
pub fn plan(
    pod: &Pod,
    observed: &ObservedPod,
    memory: &Memory,
    health: &Health,
    now: Timestamp,
) -> Plan {
    let mut planner = Planner {
        pod,
        observed,
        memory,
        health,
        now,
        plan: Plan::default(),
    };
    planner.run();
    planner.plan
}

struct Planner<'a> {
    pod: &'a Pod,
    observed: &'a ObservedPod,
    memory: &'a Memory,
    health: &'a Health,
    now: Timestamp,
    plan: Plan,
}

impl Planner<'_> {
    fn run(&mut self) {
        let Some(spec) = &self.pod.spec else { return };
        let inits: Vec<&Container> = spec.init_containers.iter().flatten().collect();
        let apps: Vec<&Container> = spec.containers.iter().collect();
        if self.is_finished(&inits, &apps) {
            self.finish();
            return;
        }
        for stale in self
            .observed
            .sandboxes
            .iter()
            .skip(1)
            .filter(|sandbox| sandbox.ready)
        {
            self.plan.steps.push(Step::StopSandbox {
                id: stale.id.clone(),
            });
        }
        let Some(sandbox) = self.observed.ready_sandbox() else {
            self.need_sandbox(&inits, &apps);
            return;
        };
        let sandbox_id = sandbox.id.clone();
        if self.init_containers(&inits, &apps, &sandbox_id) {
            for container in &apps {
                self.container(container, &sandbox_id);
            }
        }
        for container in spec.ephemeral_containers.iter().flatten() {
            self.ephemeral_container(&container.name, &sandbox_id);
        }
        if self.plan.steps.is_empty() {
            self.collect_garbage();
        }
    }

    /// The newest attempt, unless it belongs to a sandbox before the present one and still claims
    /// to run: then it counts as ended with the sandbox.
    fn ended(&self, name: &str) -> Option<(&ObservedContainer, i32)> {
        let latest = self.observed.latest(name)?;
        let current = self
            .observed
            .ready_sandbox()
            .is_some_and(|s| s.id == latest.sandbox_id);
        match latest.phase {
            ContainerPhase::Exited => Some((latest, latest.exit_code)),
            _ if current => None,
            // Its VM is gone; the runtime will say so.
            ContainerPhase::Running | ContainerPhase::Unknown => Some((latest, 137)),
            ContainerPhase::Created => None,
        }
    }

    fn is_finished(&self, inits: &[&Container], apps: &[&Container]) -> bool {
        if api_finished(self.pod) || self.memory.failed.is_some() {
            return true;
        }
        let done = |container: &&Container| {
            self.ended(&container.name)
                .is_some_and(|(_, exit_code)| !restarts(self.pod, container, exit_code))
        };
        let failed = |container: &&Container| {
            self.ended(&container.name)
                .is_some_and(|(_, exit_code)| exit_code != 0)
        };
        let mut run_once = inits.iter().filter(|container| !is_sidecar(container));
        let init_failed = run_once.any(|container| failed(container) && done(container));
        init_failed || (!apps.is_empty() && apps.iter().all(done))
    }

    fn finish(&mut self) {
        self.plan.finished = true;
        let ready: Vec<&str> = self
            .observed
            .sandboxes
            .iter()
            .filter(|s| s.ready)
            .map(|s| s.id.as_str())
            .collect();
        // What still runs (a sidecar, or everything when the pod was given up) ends gracefully,
        // sidecars after what they serve.
        let mut running: Vec<&ObservedContainer> = self
            .observed
            .containers
            .iter()
            .filter(|container| {
                container.phase == ContainerPhase::Running
                    && ready.contains(&container.sandbox_id.as_str())
            })
            .collect();
        running.sort_by_key(|container| stop_rank(self.pod, &container.name));
        for container in running {
            self.plan.steps.push(Step::KillContainer {
                id: container.id.clone(),
                name: container.name.clone(),
                message: format!("Stopping container {}", container.name),
            });
        }
        for id in ready {
            self.plan
                .steps
                .push(Step::StopSandbox { id: id.to_owned() });
        }
        if self.plan.steps.is_empty() {
            self.collect_garbage();
        }
    }

    fn need_sandbox(&mut self, inits: &[&Container], apps: &[&Container]) {
        for container in inits.iter().chain(apps) {
            if let Some(waiting) = self.crash_waiting(&container.name) {
                self.plan.waiting.insert(container.name.clone(), waiting);
            }
        }
        if let Some(left) = self.memory.sandbox_retry_at.and_then(|at| self.until(at)) {
            self.plan.wake_in(left);
            return;
        }
        let previous = self.observed.sandbox();
        if let Some(previous) = previous {
            self.plan.steps.push(Step::StopSandbox {
                id: previous.id.clone(),
            });
        }
        let attempt = previous.map_or(0, |sandbox| sandbox.attempt.saturating_add(1));
        self.plan.steps.push(Step::CreateSandbox { attempt });
    }

    /// Brings init containers on; true when the pod's containers may start.
    fn init_containers(
        &mut self,
        inits: &[&Container],
        apps: &[&Container],
        sandbox_id: &str,
    ) -> bool {
        // A container of this sandbox exists: its init containers are done, even if their records
        // are gone.
        let done = apps
            .iter()
            .any(|app| self.observed.latest_in(&app.name, sandbox_id).is_some());
        for container in inits {
            let latest = self.observed.latest_in(&container.name, sandbox_id);
            if is_sidecar(container) {
                self.container(container, sandbox_id);
                let running = latest.filter(|c| c.phase == ContainerPhase::Running);
                let started =
                    running.is_some_and(|found| self.health.is_started(container, &found.id));
                if !started && !done {
                    return false;
                }
                continue;
            }
            if done {
                continue;
            }
            match latest {
                Some(found) if found.phase == ContainerPhase::Running => return false,
                Some(found) if found.phase == ContainerPhase::Exited && found.exit_code == 0 => {}
                Some(found) => {
                    if found.phase != ContainerPhase::Exited {
                        self.discard(&found.clone());
                    }
                    self.start(&container.name);
                    return false;
                }
                None => {
                    self.start(&container.name);
                    return false;
                }
            }
        }
        true
    }

    /// An ephemeral container runs once, whatever becomes of it and whether the pod is
    /// initialised or not.
    fn ephemeral_container(&mut self, name: &str, sandbox_id: &str) {
        match self.observed.latest(name) {
            None => self.start(name),
            // Its start failed halfway.
            Some(found)
                if found.phase == ContainerPhase::Created && found.sandbox_id == sandbox_id =>
            {
                let found = found.clone();
                if !self.held_back(name) {
                    self.discard(&found);
                    self.start(name);
                }
            }
            Some(_) => {}
        }
    }

    fn container(&mut self, container: &Container, sandbox_id: &str) {
        let name = &container.name;
        let Some(latest) = self.observed.latest(name) else {
            self.start(name);
            return;
        };
        if latest.sandbox_id == sandbox_id {
            match latest.phase {
                ContainerPhase::Running => {
                    if let Some(message) = self.health.unhealthy.get(&latest.id) {
                        self.plan.steps.push(Step::KillContainer {
                            id: latest.id.clone(),
                            name: name.clone(),
                            message: message.clone(),
                        });
                    }
                    return;
                }
                ContainerPhase::Created | ContainerPhase::Unknown => {
                    let latest = latest.clone();
                    if self.held_back(name) {
                        return;
                    }
                    self.discard(&latest);
                    self.start(name);
                    return;
                }
                ContainerPhase::Exited => {}
            }
        }
        let exit_code = self.ended(name).map_or(0, |(_, exit_code)| exit_code);
        let never_ran = latest.phase == ContainerPhase::Created;
        if never_ran || restarts(self.pod, container, exit_code) {
            self.start(name);
        }
    }

    fn discard(&mut self, container: &ObservedContainer) {
        self.plan.steps.push(Step::RemoveContainer {
            id: container.id.clone(),
            name: container.name.clone(),
            attempt: container.attempt,
        });
    }

    /// Plans a start, unless the container has to wait.
    fn start(&mut self, name: &str) {
        if self.held_back(name) {
            return;
        }
        let latest = self.observed.latest(name);
        // A container that was created and never started gives its number to the next.
        let attempt = latest.map_or(0, |latest| match latest.phase {
            ContainerPhase::Created => latest.attempt,
            _ => latest.attempt.saturating_add(1),
        });
        let restart = latest.is_some_and(|latest| latest.phase != ContainerPhase::Created);
        self.plan.steps.push(Step::StartContainer {
            name: name.into(),
            attempt,
            restart,
        });
    }

    /// Records why a container has to wait, if it has to.
    fn held_back(&mut self, name: &str) -> bool {
        if let Some(error) = self.memory.start_errors.get(name)
            && let Some(left) = self.until(error.retry_at)
        {
            self.plan
                .waiting
                .insert(name.into(), self.start_error_waiting(error));
            let shown = self.until(
                error
                    .at
                    .saturating_add(PULL_ERROR_SHOWN)
                    .unwrap_or(error.at),
            );
            self.plan
                .wake_in(shown.map_or(left, |shown| shown.min(left)));
            return true;
        }
        let Some(waiting) = self.crash_waiting(name) else {
            return false;
        };
        let ended = self.ended_at(name).unwrap_or(self.now);
        if let Some(left) = self.memory.restarts.remaining(name, ended, self.now) {
            self.plan.wake_in(left);
        }
        self.plan.waiting.insert(name.into(), waiting);
        true
    }

    fn start_error_waiting(&self, error: &StartError) -> Waiting {
        let fresh = self.until(
            error
                .at
                .saturating_add(PULL_ERROR_SHOWN)
                .unwrap_or(error.at),
        );
        if error.failure == StartFailure::Pull && fresh.is_none() {
            return Waiting {
                reason: "ImagePullBackOff".into(),
                message: Some(error.message.clone()),
            };
        }
        Waiting {
            reason: error.failure.reason().into(),
            message: Some(error.message.clone()),
        }
    }

    fn crash_waiting(&self, name: &str) -> Option<Waiting> {
        let ended = self.ended_at(name)?;
        self.memory.restarts.remaining(name, ended, self.now)?;
        let delay = self.memory.restarts.delay(name);
        let identity = PodIdentity::of(self.pod)?;
        Some(Waiting {
            reason: "CrashLoopBackOff".into(),
            message: Some(format!(
                "back-off {} restarting failed container={name} pod={identity}",
                go_duration(delay)
            )),
        })
    }

    fn ended_at(&self, name: &str) -> Option<Timestamp> {
        let (latest, _) = self.ended(name)?;
        let nanoseconds = [latest.finished_at, latest.started_at, latest.created_at];
        let nanosecond = nanoseconds.into_iter().find(|at| *at > 0)?;
        Timestamp::from_nanosecond(i128::from(nanosecond)).ok()
    }

    fn until(&self, at: Timestamp) -> Option<Duration> {
        Duration::try_from(at.duration_since(self.now))
            .ok()
            .filter(|left| !left.is_zero())
    }

    /// Records beyond the present and the previous attempt, and sandboxes that hold none of those.
    fn collect_garbage(&mut self) {
        let mut kept: BTreeMap<&str, usize> = BTreeMap::new();
        let mut held: Vec<&str> = Vec::new();
        let mut removed = Vec::new();
        for container in &self.observed.containers {
            let count = kept.entry(&container.name).or_default();
            if *count < KEPT_ATTEMPTS || container.phase == ContainerPhase::Running {
                *count += 1;
                held.push(&container.sandbox_id);
            } else {
                removed.push(container.clone());
            }
        }
        let sandboxes = self.observed.sandboxes.iter().skip(1);
        let empty: Vec<String> = sandboxes
            .filter(|sandbox| !sandbox.ready && !held.contains(&sandbox.id.as_str()))
            .map(|sandbox| sandbox.id.clone())
            .collect();
        for container in &removed {
            self.discard(container);
        }
        self.plan
            .steps
            .extend(empty.into_iter().map(|id| Step::RemoveSandbox { id }));
    }
}

/// The order in which a pod's containers are stopped: sidecars last, the first of them very last.
pub(crate) fn stop_rank(pod: &Pod, name: &str) -> usize {
    let spec = pod.spec.as_ref();
    let inits = spec.and_then(|spec| spec.init_containers.as_deref());
    let inits = inits.unwrap_or_default();
    let position = inits
        .iter()
        .position(|container| container.name == name && is_sidecar(container));
    position.map_or(0, |position| inits.len() - position)
}

/// `10s`, `1m20s`, `5m0s`: as Go prints durations.
pub fn go_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match (seconds / 60, seconds % 60) {
        (0, 0) => format!("{}ms", duration.as_millis()),
        (0, seconds) => format!("{seconds}s"),
        (minutes, seconds) => format!("{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
