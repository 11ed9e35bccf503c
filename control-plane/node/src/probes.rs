//! Readiness, liveness and startup probes: exec by ExecSync, httpGet and tcpSocket from the node
//! to the pod's address. One task per probe of a running container. A probe that cannot be run as
//! asked (gRPC, HTTPS) says so in a Warning event and counts as failing, so that nothing passes
//! silently.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Empty;
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Container, HTTPGetAction, Pod, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::sync::Notify;

use crate::context::NodeContext;
use crate::cri::{ContainerPhase, ObservedPod};
use crate::events::EventType::Warning;
use crate::pod::health::Health;
use crate::pod::identity::PodIdentity;

/// How often a probe that waits for the startup probe looks again.
const STARTUP_POLL: Duration = Duration::from_millis(200);

/// Which of the three.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Readiness,
    Liveness,
    Startup,
}

impl Kind {
    fn title(self) -> &'static str {
        match self {
            Kind::Readiness => "Readiness",
            Kind::Liveness => "Liveness",
            Kind::Startup => "Startup",
        }
    }
}

/// The probes of one pod.
pub(crate) struct Probes {
    node: Arc<NodeContext>,
    identity: PodIdentity,
    health: Arc<Mutex<Health>>,
    poke: Arc<Notify>,
    tasks: HashMap<(String, Kind), tokio::task::AbortHandle>,
}

impl Drop for Probes {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Probes {
    pub(crate) fn new(
        node: Arc<NodeContext>,
        identity: PodIdentity,
        health: Arc<Mutex<Health>>,
        poke: Arc<Notify>,
    ) -> Self {
        Probes {
            node,
            identity,
            health,
            poke,
            tasks: HashMap::new(),
        }
    }

    /// Ends every probe.
    pub(crate) fn stop(&mut self) {
        for (_, task) in self.tasks.drain() {
            task.abort();
        }
    }

    /// Starts probes of containers that run and ends those of containers that do not.
    pub(crate) fn reconcile(&mut self, pod: &Pod, observed: &ObservedPod) {
        let running = |id: &str| {
            observed
                .containers
                .iter()
                .any(|c| c.id == id && c.phase == ContainerPhase::Running)
        };
        self.tasks.retain(|(id, _), task| {
            let keep = running(id);
            if !keep {
                task.abort();
            }
            keep
        });
        self.health.lock().retain(running);
        let Some(spec) = &pod.spec else { return };
        let pod_ip = observed
            .ready_sandbox()
            .and_then(|s| s.ips.first()?.parse::<IpAddr>().ok());
        for container in spec
            .containers
            .iter()
            .chain(spec.init_containers.iter().flatten())
        {
            let latest = observed.latest(&container.name);
            let Some(found) = latest.filter(|c| c.phase == ContainerPhase::Running) else {
                continue;
            };
            for (kind, probe) in [
                (Kind::Startup, &container.startup_probe),
                (Kind::Readiness, &container.readiness_probe),
                (Kind::Liveness, &container.liveness_probe),
            ] {
                let Some(probe) = probe else { continue };
                let key = (found.id.clone(), kind);
                if self.tasks.contains_key(&key) {
                    continue;
                }
                let prober = Prober {
                    node: self.node.clone(),
                    identity: self.identity.clone(),
                    health: self.health.clone(),
                    poke: self.poke.clone(),
                    container: container.clone(),
                    id: found.id.clone(),
                    pod_ip,
                    kind,
                    probe: probe.clone(),
                };
                self.tasks
                    .insert(key, tokio::spawn(prober.run()).abort_handle());
            }
        }
    }
}

struct Prober {
    node: Arc<NodeContext>,
    identity: PodIdentity,
    health: Arc<Mutex<Health>>,
    poke: Arc<Notify>,
    container: Container,
    id: String,
    pod_ip: Option<IpAddr>,
    kind: Kind,
    probe: Probe,
}

/// A probe's answer; the message says why it failed.
type Verdict = Result<(), String>;

/// Consecutive results against the thresholds.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Streak {
    ok: bool,
    length: i32,
}

impl Streak {
    /// Counts a result; the verdict when its threshold is reached.
    fn count(&mut self, ok: bool, success: i32, failure: i32) -> Option<bool> {
        if self.ok == ok {
            self.length = self.length.saturating_add(1);
        } else {
            *self = Streak { ok, length: 1 };
        }
        let threshold = if ok { success } else { failure };
        (self.length >= threshold.max(1)).then_some(ok)
    }
}

fn positive(value: Option<i32>, default: u64) -> Duration {
    let seconds = value
        .and_then(|value| u64::try_from(value).ok())
        .filter(|value| *value > 0);
    Duration::from_secs(seconds.unwrap_or(default))
}

impl Prober {
    async fn run(self) {
        let delay = self.probe.initial_delay_seconds.unwrap_or(0);
        tokio::time::sleep(Duration::from_secs(u64::try_from(delay).unwrap_or(0))).await;
        let mut ticks = tokio::time::interval(positive(self.probe.period_seconds, 10));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let timeout = positive(self.probe.timeout_seconds, 1);
        let mut streak = Streak::default();
        loop {
            ticks.tick().await;
            while self.kind != Kind::Startup
                && !self.health.lock().is_started(&self.container, &self.id)
            {
                tokio::time::sleep(STARTUP_POLL).await;
            }
            let verdict = match tokio::time::timeout(timeout, self.probe_once(timeout)).await {
                Ok(verdict) => verdict,
                Err(_) => Err(format!("timed out after {} s", timeout.as_secs())),
            };
            if let Err(message) = &verdict {
                self.event(
                    "Unhealthy",
                    format!("{} probe failed: {message}", self.kind.title()),
                );
            }
            let success = self.probe.success_threshold.unwrap_or(1);
            let failure = self.probe.failure_threshold.unwrap_or(3);
            let reached = streak.count(verdict.is_ok(), success, failure);
            if let Some(ok) = reached
                && self.conclude(ok)
            {
                return;
            }
        }
    }

    fn event(&self, reason: &'static str, message: String) {
        let field = format!("spec.containers{{{}}}", self.container.name);
        self.node.recorder.record(
            self.identity.reference(Some(field)),
            Warning,
            reason,
            message,
        );
    }

    /// Writes a verdict down; true when this probe is done.
    fn conclude(&self, ok: bool) -> bool {
        let id = self.id.clone();
        let mut health = self.health.lock();
        let (changed, done) = match self.kind {
            Kind::Readiness => (health.ready.insert(id, ok) != Some(ok), false),
            Kind::Startup if ok => (health.started.insert(id, true) != Some(true), true),
            Kind::Liveness if ok => (false, false),
            Kind::Startup | Kind::Liveness => {
                let message = format!(
                    "Container {} failed {} probe, will be restarted",
                    self.container.name,
                    self.kind.title().to_lowercase()
                );
                health.unhealthy.insert(id, message);
                (true, true)
            }
        };
        drop(health);
        if changed {
            self.poke.notify_one();
        }
        done
    }

    async fn probe_once(&self, timeout: Duration) -> Verdict {
        if let Some(exec) = &self.probe.exec {
            let command = exec.command.clone().unwrap_or_default();
            let result = self.node.cri.exec_sync(&self.id, command, timeout).await;
            return match result {
                Ok(done) if done.exit_code == 0 => Ok(()),
                Ok(done) => Err(format!(
                    "command exited with {}: {}{}",
                    done.exit_code,
                    String::from_utf8_lossy(&done.stdout).trim(),
                    String::from_utf8_lossy(&done.stderr).trim()
                )),
                Err(error) => Err(error.to_string()),
            };
        }
        if let Some(tcp) = &self.probe.tcp_socket {
            let address = self.address(tcp.host.as_deref(), &tcp.port)?;
            return TcpStream::connect(address)
                .await
                .map(|_| ())
                .map_err(|e| format!("dial tcp: {e}"));
        }
        if let Some(get) = &self.probe.http_get {
            return self.http_get(get).await;
        }
        self.event("Unhealthy", "unimplemented: gRPC probe".into());
        Err("unimplemented: gRPC probe".into())
    }

    fn address(&self, host: Option<&str>, port: &IntOrString) -> Result<(String, u16), String> {
        let host = match host.filter(|host| !host.is_empty()) {
            Some(host) => host.to_owned(),
            None => self.pod_ip.ok_or("the pod has no address")?.to_string(),
        };
        Ok((host, port_number(port, &self.container)?))
    }

    async fn http_get(&self, get: &HTTPGetAction) -> Verdict {
        if get.scheme.as_deref().is_some_and(|scheme| scheme != "HTTP") {
            return Err("unimplemented: httpGet probe with scheme HTTPS".into());
        }
        let (host, port) = self.address(get.host.as_deref(), &get.port)?;
        let stream = TcpStream::connect((host.as_str(), port))
            .await
            .map_err(|error| format!("Get \"http://{host}:{port}\": dial tcp: {error}"))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| error.to_string())?;
        let driver = tokio::spawn(connection);
        let path = get
            .path
            .as_deref()
            .filter(|path| !path.is_empty())
            .unwrap_or("/");
        let path = if path.starts_with('/') {
            path.to_owned()
        } else {
            format!("/{path}")
        };
        let mut request = hyper::Request::get(path)
            .header("user-agent", "kube-probe/1.36")
            .header("accept", "*/*");
        let headers = get.http_headers.iter().flatten();
        let named_host = headers.clone().any(|h| h.name.eq_ignore_ascii_case("host"));
        for header in headers {
            request = request.header(&header.name, &header.value);
        }
        if !named_host {
            request = request.header("host", format!("{host}:{port}"));
        }
        let request = request
            .body(Empty::<Bytes>::new())
            .map_err(|error| error.to_string())?;
        let answer = sender
            .send_request(request)
            .await
            .map_err(|error| error.to_string());
        driver.abort();
        match answer?.status().as_u16() {
            200..=399 => Ok(()),
            code => Err(format!("HTTP probe failed with statuscode: {code}")),
        }
    }
}

fn port_number(port: &IntOrString, container: &Container) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => {
            let named = container
                .ports
                .iter()
                .flatten()
                .find(|p| p.name.as_ref() == Some(name));
            match named {
                Some(port) => port.container_port,
                None => name
                    .parse()
                    .map_err(|_| format!("couldn't find port: {name}"))?,
            }
        }
    };
    u16::try_from(number).map_err(|_| format!("invalid port {number}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_need_consecutive_results() {
        let mut streak = Streak::default();
        let mut verdicts = Vec::new();
        for ok in [false, false, true, false, false, false, true, true] {
            verdicts.push(streak.count(ok, 2, 3));
        }
        assert_eq!(
            verdicts,
            [None, None, None, None, None, Some(false), None, Some(true)]
        );
    }

    #[test]
    fn ports_are_found_by_name() {
        let container: Container = serde_json::from_value(serde_json::json!({
            "name": "c", "ports": [{"name": "web", "containerPort": 80}]}))
        .unwrap();
        assert_eq!(
            port_number(&IntOrString::String("web".into()), &container),
            Ok(80)
        );
        assert_eq!(
            port_number(&IntOrString::String("81".into()), &container),
            Ok(81)
        );
        assert!(port_number(&IntOrString::String("no".into()), &container).is_err());
        assert!(port_number(&IntOrString::Int(70000), &container).is_err());
    }
}
