//! One of several instances works at a time: leader election by a Lease.
//!
//! ```text
//!          lease free or expired            renewed in time
//! waiting ───────────────────────► leading ◄──────────────┐
//!    ▲                                │ └─────────────────┘
//!    └──── work is stopped ◄──────────┘ not renewed within RENEW_DEADLINE, or taken by another
//! ```
//!
//! Expiry is judged by our own clock, from when we saw the lease change: clocks of different
//! machines need not agree. Work is stopped before another may begin, because
//! [`LeaderElection::renew_deadline`] is shorter than [`LeaderElection::lease_duration`].

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How leadership is agreed on.
#[derive(Debug, Clone)]
pub struct LeaderElection {
    /// The Lease's namespace.
    pub namespace: String,
    /// The Lease's name.
    pub name: String,
    /// Who we are; must differ between instances.
    pub identity: String,
    /// A lease that was not renewed for so long is free.
    pub lease_duration: Duration,
    /// A leader that could not renew for so long stops.
    pub renew_deadline: Duration,
    /// Time between two tries.
    pub retry_period: Duration,
}

impl LeaderElection {
    /// With Kubernetes' times (15 s, 10 s, 2 s) in `kube-system`.
    pub fn new(name: &str, identity: &str) -> Self {
        LeaderElection {
            namespace: "kube-system".into(),
            name: name.into(),
            identity: identity.into(),
            lease_duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
        }
    }
}

/// Why the lease was not got or kept.
#[derive(Debug, thiserror::Error)]
pub enum ElectionError {
    /// A request failed.
    #[error("lease {name}: {source}")]
    Request {
        /// The lease.
        name: String,
        /// The cause.
        #[source]
        source: kube::Error,
    },
    /// Another instance has it.
    #[error("lease {name} is held by {holder}")]
    Held {
        /// The lease.
        name: String,
        /// Who has it.
        holder: String,
    },
}

/// What was last seen of the lease, and when by our clock.
struct Seen {
    version: Option<String>,
    at: Instant,
}

struct Elector {
    api: Api<Lease>,
    config: LeaderElection,
    seen: Option<Seen>,
}

impl Elector {
    fn failed(&self, source: kube::Error) -> ElectionError {
        ElectionError::Request {
            name: self.config.name.clone(),
            source,
        }
    }

    fn lease(&self, old: Option<Lease>) -> Lease {
        let now = MicroTime(Timestamp::now());
        let before = old
            .as_ref()
            .and_then(|lease| lease.spec.clone())
            .unwrap_or_default();
        let ours = before.holder_identity.as_ref() == Some(&self.config.identity);
        let transitions = before.lease_transitions.unwrap_or(0);
        let seconds = i32::try_from(self.config.lease_duration.as_secs()).unwrap_or(i32::MAX);
        Lease {
            metadata: match old {
                Some(old) => old.metadata,
                None => ObjectMeta {
                    name: Some(self.config.name.clone()),
                    namespace: Some(self.config.namespace.clone()),
                    ..ObjectMeta::default()
                },
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(self.config.identity.clone()),
                lease_duration_seconds: Some(seconds.max(1)),
                acquire_time: if ours {
                    before.acquire_time
                } else {
                    Some(now.clone())
                },
                renew_time: Some(now),
                lease_transitions: Some(if ours { transitions } else { transitions + 1 }),
                ..LeaseSpec::default()
            }),
        }
    }

    /// One try to get or keep the lease. A write is accepted only for the version that was read.
    async fn acquire(&mut self) -> Result<(), ElectionError> {
        let found = match self.api.get_opt(&self.config.name).await {
            Ok(found) => found,
            Err(error) => return Err(self.failed(error)),
        };
        let params = PostParams::default();
        let Some(found) = found else {
            let lease = self.lease(None);
            let created = self.api.create(&params, &lease).await;
            return created.map(|_| ()).map_err(|error| self.failed(error));
        };
        let version = found.metadata.resource_version.clone();
        if self
            .seen
            .as_ref()
            .is_none_or(|seen| seen.version != version)
        {
            self.seen = Some(Seen {
                version,
                at: Instant::now(),
            });
        }
        let holder = found
            .spec
            .as_ref()
            .and_then(|spec| spec.holder_identity.clone())
            .unwrap_or_default();
        let foreign = !holder.is_empty() && holder != self.config.identity;
        let since = self
            .seen
            .as_ref()
            .map_or(Duration::ZERO, |seen| seen.at.elapsed());
        if foreign && since < self.config.lease_duration {
            return Err(ElectionError::Held {
                name: self.config.name.clone(),
                holder,
            });
        }
        let lease = self.lease(Some(found));
        let written = self.api.replace(&self.config.name, &params, &lease).await;
        written.map(|_| ()).map_err(|error| self.failed(error))
    }

    /// Gives the lease up, so that another need not wait for its end.
    async fn release(&self) {
        let Ok(Some(mut lease)) = self.api.get_opt(&self.config.name).await else {
            return;
        };
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_ref() != Some(&self.config.identity) {
            return;
        }
        spec.holder_identity = Some(String::new());
        spec.lease_duration_seconds = Some(1);
        let params = PostParams::default();
        let written = self.api.replace(&self.config.name, &params, &lease).await;
        if let Err(error) = written {
            tracing::debug!(%error, "lease not released");
        }
    }

    async fn wait_for_leadership(&mut self) {
        loop {
            match self.acquire().await {
                Ok(()) => return,
                Err(error) => tracing::debug!(%error, "not the leader"),
            }
            tokio::time::sleep(self.config.retry_period).await;
        }
    }

    /// Returns when the lease is lost.
    async fn keep(&mut self) {
        let mut renewed = Instant::now();
        loop {
            tokio::time::sleep(self.config.retry_period).await;
            let deadline = renewed + self.config.renew_deadline;
            let tried = Instant::now();
            match tokio::time::timeout_at(deadline, self.acquire()).await {
                Ok(Ok(())) => renewed = tried,
                Ok(Err(ElectionError::Held { holder, .. })) => {
                    tracing::warn!(holder, "another instance leads now");
                    return;
                }
                Ok(Err(error)) => tracing::warn!(%error, "lease not renewed"),
                Err(_) => {}
            }
            if renewed.elapsed() >= self.config.renew_deadline {
                tracing::warn!(lease = self.config.name, "lease lost: not renewed in time");
                return;
            }
        }
    }
}

/// Runs `work` whenever this instance leads, until `shutdown`. The token that `work` gets is
/// cancelled when the lease is lost; the next election begins when the work has ended.
///
/// # Errors
/// What `work` returns, if it ends by itself.
pub async fn run_as_leader<W, F, E>(
    client: Client,
    config: LeaderElection,
    shutdown: CancellationToken,
    mut work: W,
) -> Result<(), E>
where
    W: FnMut(CancellationToken) -> F,
    F: Future<Output = Result<(), E>>,
{
    let api = Api::namespaced(client, &config.namespace);
    let mut elector = Elector {
        api,
        config,
        seen: None,
    };
    loop {
        let waited = shutdown.run_until_cancelled(elector.wait_for_leadership());
        if waited.await.is_none() {
            return Ok(());
        }
        let (name, identity) = (elector.config.name.clone(), elector.config.identity.clone());
        tracing::info!(lease = name, identity, "this instance leads");
        let stop = shutdown.child_token();
        let lost = AtomicBool::new(false);
        let keeping = async {
            elector.keep().await;
            lost.store(true, Ordering::Relaxed);
            stop.cancel();
            // The work ends by the token.
            std::future::pending::<()>().await;
        };
        let outcome = tokio::select! {
            outcome = work(stop.clone()) => outcome,
            () = keeping => Ok(()),
        };
        if outcome.is_err() || shutdown.is_cancelled() || !lost.load(Ordering::Relaxed) {
            elector.release().await;
            return outcome;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        sync::{
            Arc, Mutex,
            atomic::{AtomicUsize, Ordering},
        },
    };

    use http::{Method, Request, Response, StatusCode};
    use kube::client::Body;
    use serde_json::{Value, json};

    use super::*;

    /// An API server that keeps one object, with versions.
    fn server() -> Client {
        let kept: Arc<Mutex<Option<Value>>> = Arc::default();
        let service = tower::service_fn(move |request: Request<Body>| {
            let kept = kept.clone();
            async move {
                let method = request.method().clone();
                let body = request.into_body().collect_bytes().await.unwrap();
                let mut kept = kept.lock().unwrap();
                let version = |object: &Value| object["metadata"]["resourceVersion"].clone();
                let refused = |code: u16, reason: &str| {
                    let status = json!({
                        "kind": "Status", "apiVersion": "v1", "status": "Failure",
                        "reason": reason, "code": code, "message": reason
                    });
                    (StatusCode::from_u16(code).unwrap(), status)
                };
                let (code, answer) = match (&method, &*kept) {
                    (&Method::GET, Some(object)) => (StatusCode::OK, object.clone()),
                    (&Method::GET, None) => refused(404, "NotFound"),
                    (&Method::POST, Some(_)) => refused(409, "AlreadyExists"),
                    (_, before) => {
                        let mut object: Value = serde_json::from_slice(&body).unwrap();
                        let old = before.as_ref().map(version).unwrap_or_default();
                        if method == Method::PUT && version(&object) != old {
                            refused(409, "Conflict")
                        } else {
                            let number: u64 = old.as_str().map_or(0, |old| old.parse().unwrap());
                            object["metadata"]["resourceVersion"] = (number + 1).to_string().into();
                            *kept = Some(object.clone());
                            (StatusCode::OK, object)
                        }
                    }
                };
                let body = Body::from(serde_json::to_vec(&answer).unwrap());
                let answer = Response::builder().status(code).body(body).unwrap();
                Ok::<_, Infallible>(answer)
            }
        });
        Client::new(service, "default")
    }

    fn election(identity: &str) -> LeaderElection {
        LeaderElection {
            // Long against the stalls of a busy machine.
            lease_duration: Duration::from_secs(5),
            renew_deadline: Duration::from_secs(2),
            retry_period: Duration::from_millis(50),
            ..LeaderElection::new("test", identity)
        }
    }

    /// Counts itself as long as it works.
    struct Working(Arc<AtomicUsize>);

    impl Working {
        fn begin(count: &Arc<AtomicUsize>) -> Self {
            assert_eq!(count.fetch_add(1, Ordering::SeqCst), 0, "two leaders");
            Working(count.clone())
        }
    }

    impl Drop for Working {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }

    #[tokio::test]
    async fn another_takes_over_when_the_leader_is_killed_and_never_two_lead() {
        let (client, count) = (server(), Arc::new(AtomicUsize::new(0)));
        let (led, mut leaders) = tokio::sync::mpsc::unbounded_channel();
        let mut instances = Vec::new();
        for identity in ["a", "b", "c"] {
            let (client, count, led) = (client.clone(), count.clone(), led.clone());
            let stop = CancellationToken::new();
            let running = tokio::spawn(run_as_leader(
                client,
                election(identity),
                stop,
                move |stop| {
                    let (count, led) = (count.clone(), led.clone());
                    async move {
                        let _working = Working::begin(&count);
                        led.send(identity).unwrap();
                        stop.cancelled().await;
                        Ok::<(), Infallible>(())
                    }
                },
            ));
            instances.push((identity, running));
        }
        let mut seen = Vec::new();
        for _ in 0..3 {
            let leader = tokio::time::timeout(Duration::from_secs(60), leaders.recv());
            let leader = leader.await.unwrap().unwrap();
            assert!(!seen.contains(&leader), "a killed instance leads again");
            seen.push(leader);
            // As with kill -9: nothing is released.
            let killed = instances.iter().find(|(identity, _)| *identity == leader);
            killed.unwrap().1.abort();
        }
    }

    #[tokio::test]
    async fn a_leader_that_is_stopped_lets_the_next_one_begin_at_once() {
        let client = server();
        let stop = CancellationToken::new();
        let mut long = election("first");
        long.lease_duration = Duration::from_secs(3600);
        let work = |stop: CancellationToken| async move {
            stop.cancelled().await;
            Ok::<(), Infallible>(())
        };
        let first = tokio::spawn(run_as_leader(
            client.clone(),
            long.clone(),
            stop.clone(),
            work,
        ));
        let leases = Api::<Lease>::namespaced(client.clone(), "kube-system");
        let holder = async || {
            let lease = leases.get_opt("test").await.unwrap();
            lease
                .and_then(|lease| lease.spec?.holder_identity)
                .unwrap_or_default()
        };
        while holder().await != "first" {
            tokio::task::yield_now().await;
        }
        stop.cancel();
        first.await.unwrap().unwrap();
        let second = LeaderElection {
            identity: "second".into(),
            ..long
        };
        let stop = CancellationToken::new();
        let running = run_as_leader(client.clone(), second, stop.clone(), |_| async {
            Ok::<(), Infallible>(())
        });
        let ended = tokio::time::timeout(Duration::from_secs(60), running).await;
        ended.unwrap().unwrap();
    }
}
