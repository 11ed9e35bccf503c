//! One probe of one running container: when it runs, and what its results amount to.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, HTTPGetAction, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::sync::Notify;

use super::http::Answer;
use super::{Kind, address, grpc, http};
use crate::context::NodeContext;
use crate::events::EventType::Warning;
use crate::pod::health::Health;
use crate::pod::identity::PodIdentity;

/// How often a probe that waits for the startup probe looks again.
const STARTUP_POLL: Duration = Duration::from_millis(200);

pub(super) struct Prober {
    pub(super) node: Arc<NodeContext>,
    pub(super) identity: PodIdentity,
    pub(super) health: Arc<Mutex<Health>>,
    pub(super) poke: Arc<Notify>,
    pub(super) container: Container,
    pub(super) id: String,
    pub(super) pod_ip: Option<IpAddr>,
    pub(super) kind: Kind,
    pub(super) probe: Probe,
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
    pub(super) async fn run(self) {
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
            let (host, port) = self.address(tcp.host.as_deref(), &tcp.port)?;
            let place = format!("{host}:{port}");
            return TcpStream::connect((host, port))
                .await
                .map(|_| ())
                .map_err(|error| format!("dial tcp {place}: {error}"));
        }
        if let Some(get) = &self.probe.http_get {
            return self.http_get(get).await;
        }
        if let Some(grpc) = &self.probe.grpc {
            let (host, port) = self.address(None, &IntOrString::Int(grpc.port))?;
            let service = grpc.service.as_deref().unwrap_or_default();
            return grpc::check(&host, port, service).await;
        }
        Err("missing probe handler".into())
    }

    fn address(&self, host: Option<&str>, port: &IntOrString) -> Result<(String, u16), String> {
        address::of(host, port, self.pod_ip, &self.container)
    }

    async fn http_get(&self, get: &HTTPGetAction) -> Verdict {
        let (host, port) = self.address(get.host.as_deref(), &get.port)?;
        let answer = http::get(get, &host, port).await?;
        match &answer {
            Answer::Elsewhere(location) => {
                let title = self.kind.title();
                self.event(
                    "ProbeWarning",
                    format!("{title} probe warning: Probe terminated redirects to {location}"),
                );
                Ok(())
            }
            Answer::Status(_) if answer.is_success() => Ok(()),
            Answer::Status(code) => Err(format!("HTTP probe failed with statuscode: {code}")),
        }
    }
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
}
