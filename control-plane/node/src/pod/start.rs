//! Carrying out a plan's steps.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, HTTPGetAction, LifecycleHandler, Pod};
use k8s_openapi::api::node::v1::RuntimeClass;
use kube::Api;

use super::memory::{StartError, StartFailure};
use super::plan::{Step, go_duration};
use super::worker::{PodUpdate, Worker};
use super::{containers, hosts_file};
use crate::cri::container::{ContainerInput, container_config, log_path};
use crate::cri::{ContainerPhase, ObservedPod, sandbox};
use crate::env::ConfigError;
use crate::events::EventType::{Normal, Warning};
use crate::images::{self, PullPolicy};
use crate::logs::rotate;
use crate::objects::ObjectSnapshot;
use crate::probes::http::Answer;
use crate::probes::{address, http};
use crate::termination_message;

/// How long a postStart or preStop command may take when the pod gives no shorter grace.
const HOOK_TIMEOUT: Duration = Duration::from_secs(30);

/// A failed start on its way into the worker's memory.
struct Failure {
    failure: StartFailure,
    message: String,
}

impl Failure {
    fn new(failure: StartFailure, message: impl std::fmt::Display) -> Self {
        Failure {
            failure,
            message: message.to_string(),
        }
    }
}

/// How a start ended without a container running.
enum StartEnd {
    Failed(Failure),
    /// The pod has to end.
    Interrupted,
}

impl From<Failure> for StartEnd {
    fn from(failure: Failure) -> Self {
        StartEnd::Failed(failure)
    }
}

impl Worker {
    /// Carries out one step; false when the rest of the plan is void.
    pub(super) async fn execute(
        &mut self,
        step: Step,
        pod: &Arc<Pod>,
        observed: &ObservedPod,
    ) -> bool {
        let result = match step {
            Step::StopSandbox { id } => {
                let sandbox = observed.sandboxes.iter().find(|sandbox| sandbox.id == id);
                if sandbox.is_some_and(|s| !s.ready) && !observed.containers.is_empty() {
                    self.event(
                        Normal,
                        "SandboxChanged",
                        "Pod sandbox changed, it will be killed and re-created.".into(),
                    );
                }
                self.node.cri.stop_sandbox(&id).await
            }
            Step::RemoveSandbox { id } => self.node.cri.remove_sandbox(&id).await,
            Step::CreateSandbox { attempt } => return self.create_sandbox(pod, attempt).await,
            Step::KillContainer { id, name, message } => {
                self.kill_container(&id, &name, message).await
            }
            Step::RemoveContainer { id, name, attempt } => {
                let _ = self.node.cri.stop_container(&id, Duration::ZERO).await;
                let removed = self.node.cri.remove_container(&id).await;
                if removed.is_ok() {
                    rotate::remove(&self.log_dir().join(log_path(&name, attempt)));
                    let message = termination_message::file(&self.pod_dir(), &name, attempt);
                    let _ = std::fs::remove_file(message);
                }
                removed
            }
            Step::StartContainer {
                name,
                attempt,
                restart,
            } => {
                self.start_step(pod, observed, &name, attempt, restart)
                    .await;
                return true;
            }
        };
        if let Err(error) = result {
            tracing::warn!(pod = %self.identity, %error, "step failed, trying again");
            // The plan is made anew from what is then observed.
            tokio::time::sleep(Duration::from_millis(500)).await;
            return false;
        }
        true
    }

    async fn create_sandbox(&mut self, pod: &Arc<Pod>, attempt: u32) -> bool {
        let log_dir = self.log_dir();
        let result = match self.runtime_handler(pod).await {
            Err(message) => Err(message),
            Ok(handler) => match std::fs::create_dir_all(&log_dir) {
                Err(error) => Err(format!("make {}: {error}", log_dir.display())),
                Ok(()) => {
                    let config =
                        sandbox::sandbox_config(&self.node.config, &self.identity, pod, attempt);
                    let begun = Instant::now();
                    let result = self.node.cri.run_sandbox(config, &handler).await;
                    self.node
                        .metrics
                        .observe_sandbox(begun.elapsed(), result.is_ok());
                    result.map_err(|error| error.to_string())
                }
            },
        };
        match result {
            Ok(id) => {
                tracing::info!(pod = %self.identity, sandbox = id, attempt, "sandbox runs");
                self.memory.sandbox_retry_at = None;
                true
            }
            Err(message) => {
                self.event(
                    Warning,
                    "FailedCreatePodSandBox",
                    format!("Failed to create pod sandbox: {message}"),
                );
                self.memory.sandbox_retry_at =
                    Some(self.after(self.node.config.timings.sync_retry));
                false
            }
        }
    }

    /// The runtime handler that the pod's RuntimeClass names; empty for the default.
    async fn runtime_handler(&self, pod: &Pod) -> Result<String, String> {
        let class = pod
            .spec
            .as_ref()
            .and_then(|spec| spec.runtime_class_name.as_deref());
        let Some(class) = class.filter(|class| !class.is_empty()) else {
            return Ok(String::new());
        };
        let api: Api<RuntimeClass> = Api::all(self.node.client.clone());
        match api.get_opt(class).await {
            Ok(Some(found)) => Ok(found.handler),
            Ok(None) => Err(format!("RuntimeClass \"{class}\" not found")),
            Err(error) => Err(format!("read RuntimeClass \"{class}\": {error}")),
        }
    }

    fn after(&self, delay: Duration) -> Timestamp {
        let delay = SignedDuration::try_from(delay).unwrap_or(SignedDuration::MAX);
        Timestamp::now()
            .checked_add(delay)
            .unwrap_or(Timestamp::MAX)
    }

    async fn kill_container(
        &mut self,
        id: &str,
        name: &str,
        message: String,
    ) -> Result<(), crate::cri::CriError> {
        self.container_event(name, Normal, "Killing", message);
        let pod = self.pod();
        let spec = pod.spec.as_ref();
        let seconds = spec
            .and_then(|spec| spec.termination_grace_period_seconds)
            .unwrap_or(30);
        let own = Duration::from_secs(u64::try_from(seconds).unwrap_or(1));
        let grace = self.kill_grace.unwrap_or(own);
        let mut ending = self.updates.clone();
        let stop = async {
            if let Some(container) = self.container(name) {
                self.pre_stop(&container, id, grace).await;
            }
            self.node.cri.stop_container(id, grace).await
        };
        let result = tokio::select! {
            result = stop => result,
            // The end of the pod stops it with a grace period of its own.
            _ = ending.wait_for(PodUpdate::ending) => Ok(()),
        };
        self.health.lock().unhealthy.remove(id);
        result
    }

    async fn start_step(
        &mut self,
        pod: &Arc<Pod>,
        observed: &ObservedPod,
        name: &str,
        attempt: u32,
        restart: bool,
    ) {
        let Some(container) = self.container(name) else {
            return;
        };
        if restart {
            self.memory.restarts.advance(name, Timestamp::now());
        }
        match self
            .start_container(pod, observed, &container, attempt)
            .await
        {
            Ok(()) => {
                self.memory.start_errors.remove(name);
                self.memory.pulls.reset(name);
            }
            Err(StartEnd::Interrupted) => {}
            Err(StartEnd::Failed(failure)) => self.start_failed(name, failure),
        }
    }

    fn start_failed(&mut self, name: &str, failure: Failure) {
        let reason = failure.failure.reason();
        tracing::warn!(pod = %self.identity, container = name, reason, cause = failure.message,
            "container not started");
        self.node.metrics.start_failed(reason);
        let event = match failure.failure {
            StartFailure::Pull | StartFailure::NeverPull => format!("Error: {reason}"),
            _ => format!("Error: {}", failure.message),
        };
        let word = match failure.failure {
            StartFailure::ImageName => "InspectFailed",
            StartFailure::PostStart => "FailedPostStartHook",
            _ => "Failed",
        };
        self.container_event(name, Warning, word, event);
        let now = Timestamp::now();
        let retry = match failure.failure {
            StartFailure::Pull => {
                self.memory.pulls.advance(name, now);
                self.memory.pulls.delay(name)
            }
            _ => self.node.config.timings.sync_retry,
        };
        let error = StartError {
            failure: failure.failure,
            message: failure.message,
            at: now,
            retry_at: self.after(retry),
        };
        self.memory.start_errors.insert(name.to_owned(), error);
    }

    async fn start_container(
        &mut self,
        pod: &Arc<Pod>,
        observed: &ObservedPod,
        container: &Container,
        attempt: u32,
    ) -> Result<(), StartEnd> {
        let name = &container.name;
        let Some(sandbox_id) = observed.ready_sandbox().map(|sandbox| sandbox.id.clone()) else {
            return Err(StartEnd::Interrupted);
        };
        let objects = self.node.objects.snapshot(&self.subscriptions).await;
        let image_ref = self
            .ensure_image(pod, observed, container, &objects)
            .await?;
        let io = |error: std::io::Error| Failure::new(StartFailure::Create, error);
        let pod_dir = self.pod_dir();
        let message_file = termination_message::create(&pod_dir, name, attempt).map_err(io)?;
        std::fs::create_dir_all(self.log_dir().join(name)).map_err(io)?;
        let facts = self.facts(pod, observed);
        let config_failure =
            |error: ConfigError| Failure::new(StartFailure::Config, error.to_string());
        let services = self.node.services.environment(pod).await;
        let services = services.map_err(config_failure)?;
        let domain = &self.node.config.cluster_domain;
        hosts_file::write(&pod_dir, &facts, domain).map_err(io)?;
        let pid_target = pid_target(pod, observed, name)?;
        let config = container_config(&ContainerInput {
            facts: &facts,
            container,
            attempt,
            image_ref: &image_ref,
            pod_dir: &pod_dir,
            termination_message_file: &message_file,
            objects: &objects,
            hosts_file: &hosts_file::path(&pod_dir),
            pid_target: pid_target.as_deref(),
            services: &services,
        })
        .map_err(config_failure)?;
        let sandbox_attempt = observed
            .ready_sandbox()
            .map_or(0, |sandbox| sandbox.attempt);
        let sandbox_config =
            sandbox::sandbox_config(&self.node.config, &self.identity, pod, sandbox_attempt);
        let cri = &self.node.cri;
        let id = cri
            .create_container(&sandbox_id, config, sandbox_config)
            .await
            .map_err(|error| Failure::new(StartFailure::Create, error))?;
        self.container_event(
            name,
            Normal,
            "Created",
            format!("Created container: {name}"),
        );
        cri.start_container(&id)
            .await
            .map_err(|error| Failure::new(StartFailure::Run, error))?;
        self.container_event(name, Normal, "Started", format!("Started container {name}"));
        tracing::info!(pod = %self.identity, container = name, id, attempt, "container runs");
        let hook = container
            .lifecycle
            .as_ref()
            .and_then(|lifecycle| lifecycle.post_start.as_ref());
        if let Some(hook) = hook
            && let Err(message) = self.run_hook(hook, name, &id, HOOK_TIMEOUT).await
        {
            let _ = self.node.cri.stop_container(&id, Duration::ZERO).await;
            return Err(Failure::new(StartFailure::PostStart, message).into());
        }
        Ok(())
    }

    /// Brings the image to the node as the policy says; the reference to create with.
    async fn ensure_image(
        &mut self,
        pod: &Arc<Pod>,
        observed: &ObservedPod,
        container: &Container,
        objects: &ObjectSnapshot,
    ) -> Result<String, StartEnd> {
        let name = &container.name;
        let image = container.image.clone().unwrap_or_default();
        if let Some(message) = images::invalid_name(&image) {
            return Err(Failure::new(StartFailure::ImageName, message).into());
        }
        let policy = images::pull_policy(container);
        if policy != PullPolicy::Always {
            let present = self
                .node
                .cri
                .image_status(&image)
                .await
                .map_err(|error| Failure::new(StartFailure::Inspect, error))?;
            if let Some(present) = present {
                self.container_event(
                    name,
                    Normal,
                    "Pulled",
                    format!("Container image \"{image}\" already present on machine"),
                );
                return Ok(present.id);
            }
            if policy == PullPolicy::Never {
                let message =
                    format!("Container image \"{image}\" is not present with pull policy of Never");
                self.container_event(name, Warning, "ErrImageNeverPull", message.clone());
                return Err(Failure::new(StartFailure::NeverPull, message).into());
            }
        }
        self.pull(pod, observed, name, &image, objects).await
    }

    async fn pull(
        &mut self,
        pod: &Arc<Pod>,
        observed: &ObservedPod,
        name: &str,
        image: &str,
        objects: &ObjectSnapshot,
    ) -> Result<String, StartEnd> {
        self.container_event(
            name,
            Normal,
            "Pulling",
            format!("Pulling image \"{image}\""),
        );
        let asked = Instant::now();
        let _permit = self.node.pulls.acquire().await;
        let begun = Instant::now();
        let attempt = observed
            .ready_sandbox()
            .map_or(0, |sandbox| sandbox.attempt);
        let config = sandbox::sandbox_config(&self.node.config, &self.identity, pod, attempt);
        let mut credentials: Vec<_> = images::credentials(pod, image, objects)
            .into_iter()
            .map(Some)
            .collect();
        if credentials.is_empty() {
            credentials.push(None);
        }
        let mut ending = self.updates.clone();
        let mut failure = String::new();
        for auth in credentials {
            let pull = self.node.cri.pull_image(image, auth, config.clone());
            let result = tokio::select! {
                result = pull => result,
                _ = ending.wait_for(PodUpdate::ending) => return Err(StartEnd::Interrupted),
            };
            match result {
                Ok(reference) => {
                    let size = match self.node.cri.image_status(image).await {
                        Ok(Some(present)) => present.size,
                        _ => 0,
                    };
                    self.node.metrics.observe_pull(begun.elapsed(), true);
                    let message = format!(
                        "Successfully pulled image \"{image}\" in {} ({} including waiting). Image size: {size} bytes.",
                        seconds(begun.elapsed()),
                        seconds(asked.elapsed()),
                    );
                    self.container_event(name, Normal, "Pulled", message);
                    return Ok(if reference.is_empty() {
                        image.to_owned()
                    } else {
                        reference
                    });
                }
                Err(error) => failure = error.to_string(),
            }
        }
        self.node.metrics.observe_pull(begun.elapsed(), false);
        let message = format!("Failed to pull image \"{image}\": {failure}");
        self.container_event(name, Warning, "Failed", message);
        let waiting = format!("Back-off pulling image \"{image}\": ErrImagePull: {failure}");
        Err(Failure::new(StartFailure::Pull, waiting).into())
    }

    /// Runs a container's preStop hook; its failure is an event, never a reason not to stop.
    pub(super) async fn pre_stop(&self, container: &Container, id: &str, grace: Duration) {
        let lifecycle = container.lifecycle.as_ref();
        let Some(hook) = lifecycle.and_then(|lifecycle| lifecycle.pre_stop.as_ref()) else {
            return;
        };
        if grace.is_zero() {
            return;
        }
        if let Err(message) = self.run_hook(hook, &container.name, id, grace).await {
            self.container_event(&container.name, Warning, "FailedPreStopHook", message);
        }
    }

    /// Any status below 400 is success, as in Kubernetes.
    async fn hook_get(&self, get: &HTTPGetAction, name: &str, id: &str) -> Result<(), String> {
        let container = self.container(name).ok_or("container not found")?;
        let observed = self.node.cri.observe(&self.identity.uid).await;
        let observed = observed.map_err(|error| error.to_string())?;
        let sandbox = observed
            .containers
            .iter()
            .find(|container| container.id == id)
            .map(|container| container.sandbox_id.clone());
        let address = observed
            .sandboxes
            .iter()
            .find(|found| Some(&found.id) == sandbox.as_ref())
            .and_then(|found| found.ips.first()?.parse().ok());
        let pod_ip = match self.pod().spec.as_ref().and_then(|spec| spec.host_network) {
            Some(true) => Some(self.node.config.node_ip),
            _ => address,
        };
        let (host, port) = address::of(get.host.as_deref(), &get.port, pod_ip, &container)?;
        match http::get(get, &host, port).await? {
            Answer::Status(code) if code >= 400 => Err(format!("status code {code}")),
            _ => Ok(()),
        }
    }

    async fn run_hook(
        &self,
        hook: &LifecycleHandler,
        name: &str,
        id: &str,
        timeout: Duration,
    ) -> Result<(), String> {
        if let Some(exec) = &hook.exec {
            let command = exec.command.clone().unwrap_or_default();
            let result = self.node.cri.exec_sync(id, command, timeout).await;
            return match result {
                Ok(done) if done.exit_code == 0 => Ok(()),
                Ok(done) => Err(format!(
                    "hook command of container {name} exited with {}: {}",
                    done.exit_code,
                    String::from_utf8_lossy(&done.stderr).trim()
                )),
                Err(error) => Err(format!("hook command of container {name}: {error}")),
            };
        }
        if let Some(sleep) = &hook.sleep {
            let wanted = Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0));
            tokio::time::sleep(wanted.min(timeout)).await;
            return Ok(());
        }
        if let Some(get) = &hook.http_get {
            let asked = tokio::time::timeout(timeout, self.hook_get(get, name, id)).await;
            return match asked {
                Ok(done) => done.map_err(|error| format!("HTTP hook of container {name}: {error}")),
                Err(_) => Err(format!(
                    "HTTP hook of container {name}: no answer within {} s",
                    timeout.as_secs()
                )),
            };
        }
        Err(format!(
            "lifecycle hook of container {name} is of a kind that cannot be run (tcpSocket hooks never were)"
        ))
    }
}

/// The running container whose processes an ephemeral container was asked to see.
fn pid_target(pod: &Pod, observed: &ObservedPod, name: &str) -> Result<Option<String>, Failure> {
    let Some(target) = containers::target_of(pod, name) else {
        return Ok(None);
    };
    match observed.latest(target) {
        Some(found) if found.phase == ContainerPhase::Running => Ok(Some(found.id.clone())),
        _ => Err(Failure::new(
            StartFailure::Config,
            format!("unable to find target container {target}: it does not run"),
        )),
    }
}

/// `1.234s`, as Go prints short durations, and whole minutes above.
fn seconds(duration: Duration) -> String {
    if duration < Duration::from_secs(60) {
        return format!("{:.3}s", duration.as_secs_f64());
    }
    go_duration(duration)
}
