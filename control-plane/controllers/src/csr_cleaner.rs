//! CertificateSigningRequests that are over: issued ones, refused ones and those that nobody
//! decided about go after a while.

use std::{sync::Arc, time::Duration};

use k8s_openapi::{api::certificates::v1::CertificateSigningRequest, jiff::Timestamp};
use kube::api::DeleteParams;

use crate::{
    pod_gc::ignore_gone,
    runtime::{Action, Controller, Delta, Informer, Key, ReconcileError, WorkQueue, Writer},
};

/// An approved, denied or failed request stays so long.
const DECIDED_KEPT: Duration = Duration::from_secs(60 * 60);
/// One that nobody decided about stays so long.
const PENDING_KEPT: Duration = Duration::from_secs(24 * 60 * 60);

/// See the module.
pub struct CsrCleanerController {
    writer: Arc<dyn Writer>,
    requests: Arc<Informer<CertificateSigningRequest>>,
    queue: Arc<WorkQueue>,
}

impl CsrCleanerController {
    /// Connects the controller to its informer.
    pub fn new(
        writer: Arc<dyn Writer>,
        requests: Arc<Informer<CertificateSigningRequest>>,
    ) -> Arc<Self> {
        let queue = Arc::new(WorkQueue::default());
        requests.on_change({
            let queue = queue.clone();
            move |delta| {
                if !matches!(delta, Delta::Deleted(_)) {
                    queue.add(Key::of(&**delta.newest()));
                }
            }
        });
        Arc::new(CsrCleanerController {
            writer,
            requests,
            queue,
        })
    }
}

/// How long the request stays from `now` on; `None`: it has no time to count from.
fn left(request: &CertificateSigningRequest, now: Timestamp) -> Option<Duration> {
    let created = request.metadata.creation_timestamp.as_ref()?.0;
    let status = request.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_ref());
    let decided = conditions
        .into_iter()
        .flatten()
        .filter(|condition| matches!(&*condition.type_, "Approved" | "Denied" | "Failed"))
        .map(|condition| {
            let noted = condition
                .last_transition_time
                .as_ref()
                .or(condition.last_update_time.as_ref());
            noted.map_or(created, |time| time.0)
        })
        .max();
    let (since, kept) = match decided {
        Some(at) => (at, DECIDED_KEPT),
        None => (created, PENDING_KEPT),
    };
    let passed = Duration::try_from(now.duration_since(since)).unwrap_or(Duration::ZERO);
    Some(kept.saturating_sub(passed))
}

#[async_trait::async_trait]
impl Controller for CsrCleanerController {
    fn name(&self) -> &'static str {
        "csr-cleaner"
    }

    fn queue(&self) -> &Arc<WorkQueue> {
        &self.queue
    }

    async fn reconcile(&self, key: &Key) -> Result<Action, ReconcileError> {
        let Some(request) = self.requests.get(key) else {
            return Ok(Action::Done);
        };
        match left(&request, Timestamp::now()) {
            None => Ok(Action::Done),
            Some(left) if !left.is_zero() => Ok(Action::After(left)),
            Some(_) => {
                let options = DeleteParams::default();
                ignore_gone(self.writer.delete_object(&*request, options).await)?;
                tracing::info!(request = %key, "certificate signing request deleted: it is over");
                Ok(Action::Done)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::fake::FakeApi;
    use serde_json::{Value, json};

    #[tokio::test]
    async fn requests_go_an_hour_after_the_decision_or_after_a_day_without_one() {
        let api = FakeApi::new();
        let controller = CsrCleanerController::new(api.clone(), Arc::default());
        let ago = |seconds: i64| {
            let at = Timestamp::now().as_second() - seconds;
            Timestamp::from_second(at).unwrap().to_string()
        };
        let seed = |name: &str, created: i64, condition: Option<(&str, i64)>| {
            let conditions: Vec<Value> = condition
                .map(|(kind, at)| {
                    json!({"type": kind, "status": "True", "lastTransitionTime": ago(at)})
                })
                .into_iter()
                .collect();
            api.seed::<CertificateSigningRequest>(json!({
                "metadata": {"name": name, "creationTimestamp": ago(created)},
                "spec": {"request": "", "signerName": "x/y"},
                "status": {"conditions": conditions}
            }));
        };
        seed("pending-new", 7200, None);
        seed("pending-old", 90_000, None);
        seed("approved-new", 90_000, Some(("Approved", 60)));
        seed("denied-old", 90_000, Some(("Denied", 3700)));
        api.pump(&controller.requests);
        let mut waiting = Vec::new();
        for key in controller.queue.take_all() {
            if let Action::After(_) = controller.reconcile(&key).await.unwrap() {
                waiting.push(key.name);
            }
        }
        waiting.sort();
        assert_eq!(waiting, ["approved-new", "pending-new"]);
        let mut requests = api.take_requests();
        requests.sort();
        let expected = ["denied-old", "pending-old"];
        let expected = expected.map(|name| format!("delete certificatesigningrequests {name}"));
        assert_eq!(requests, expected);
    }
}
