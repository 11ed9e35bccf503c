//! Writes a pod's status to the API server: only when it changed, again until it is taken, and
//! never in the worker's way.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::identity::PodIdentity;

/// The first and the longest delay between attempts while the API server is away.
const RETRY_INITIAL: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(10);

/// The fields of PodStatus that the node agent owns; one that is absent is removed from the API.
const OWNED: [&str; 14] = [
    "conditions",
    "containerStatuses",
    "hostIP",
    "hostIPs",
    "initContainerStatuses",
    "message",
    "observedGeneration",
    "phase",
    "podIP",
    "podIPs",
    "qosClass",
    "reason",
    "startTime",
    "ephemeralContainerStatuses",
];

/// Whose status is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// A pod of the API server; another one of its name has nothing to do with it.
    Pod,
    /// The mirror of a static pod: whichever is there, or will be.
    Mirror,
}

/// A status to write, numbered.
#[derive(Clone, Default)]
struct Desired {
    number: u64,
    status: Option<Arc<PodStatus>>,
}

/// Takes a pod's statuses and writes the newest.
pub struct StatusWriter {
    desired: watch::Sender<Desired>,
    written: watch::Receiver<u64>,
    last: Option<Arc<PodStatus>>,
    task: tokio::task::AbortHandle,
}

impl Drop for StatusWriter {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl StatusWriter {
    /// Starts the writing task of a pod.
    pub fn start(client: Client, identity: PodIdentity, subject: Subject) -> Self {
        let (desired, receiver) = watch::channel(Desired::default());
        let (sender, written) = watch::channel(0);
        let task = tokio::spawn(run(client, identity, subject, receiver, sender)).abort_handle();
        StatusWriter {
            desired,
            written,
            last: None,
            task,
        }
    }

    /// What was handed in last.
    pub fn last(&self) -> Option<&PodStatus> {
        self.last.as_deref()
    }

    /// Hands in the present status. `in_api` is what the API server is known to hold.
    pub fn publish(&mut self, status: PodStatus, in_api: Option<&PodStatus>) {
        let known = self.last.as_deref();
        let unchanged = match known {
            Some(known) => *known == status && in_api.is_none_or(|api| covers(api, &status)),
            None => in_api.is_some_and(|api| covers(api, &status)),
        };
        if unchanged {
            return;
        }
        // The API lags behind what was just written: write again only if it is not on its way.
        let pending = *self.written.borrow() != self.desired.borrow().number;
        if known == Some(&status) && pending {
            return;
        }
        let status = Arc::new(status);
        self.last = Some(status.clone());
        self.desired.send_modify(|desired| {
            desired.number += 1;
            desired.status = Some(status);
        });
    }

    /// Waits until the newest status was taken, at most `timeout`.
    pub async fn flush(&mut self, timeout: Duration) -> bool {
        let number = self.desired.borrow().number;
        let settled = self.written.wait_for(|written| *written >= number);
        matches!(tokio::time::timeout(timeout, settled).await, Ok(Ok(_)))
    }
}

/// Whether the API's status has every field of ours.
fn covers(api: &PodStatus, status: &PodStatus) -> bool {
    let (Ok(Value::Object(api)), Ok(Value::Object(ours))) =
        (serde_json::to_value(api), serde_json::to_value(status))
    else {
        return false;
    };
    OWNED
        .iter()
        .all(|field| api.get(*field) == ours.get(*field))
}

/// The merge patch that makes the API's status ours; `uid` makes it fail on another pod of the
/// same name.
fn merge_patch(status: &PodStatus, uid: Option<&str>) -> Value {
    let mut fields = match serde_json::to_value(status) {
        Ok(Value::Object(fields)) => fields,
        _ => serde_json::Map::new(),
    };
    for field in OWNED {
        fields.entry(field).or_insert(Value::Null);
    }
    match uid {
        Some(uid) => json!({"metadata": {"uid": uid}, "status": fields}),
        None => json!({"status": fields}),
    }
}

async fn run(
    client: Client,
    identity: PodIdentity,
    subject: Subject,
    mut desired: watch::Receiver<Desired>,
    written: watch::Sender<u64>,
) {
    let api: Api<Pod> = Api::namespaced(client, &identity.namespace);
    let mut delay = RETRY_INITIAL;
    let uid = (subject == Subject::Pod).then_some(identity.uid.as_str());
    loop {
        let Desired { number, status } = desired.borrow_and_update().clone();
        if let Some(status) = status.filter(|_| *written.borrow() != number) {
            let patch = Patch::Merge(merge_patch(&status, uid));
            let result = api
                .patch_status(&identity.name, &PatchParams::default(), &patch)
                .await;
            match result {
                Ok(_) => {}
                // Gone, replaced by another pod, or refused for good: nothing is left to write.
                Err(kube::Error::Api(error))
                    if (400..500).contains(&error.code)
                        && error.code != 429
                        && !(subject == Subject::Mirror && error.code == 404) =>
                {
                    if error.code != 404 && error.code != 409 {
                        tracing::warn!(pod = %identity, %error, "pod status refused");
                    }
                }
                Err(error) => {
                    tracing::debug!(pod = %identity, %error, "pod status not written, trying again");
                    let _ = tokio::time::timeout(delay, desired.changed()).await;
                    delay = (delay * 2).min(RETRY_MAX);
                    continue;
                }
            }
            delay = RETRY_INITIAL;
            written.send_replace(number);
        }
        if desired.changed().await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_fields_are_removed_and_the_uid_is_checked() {
        let status = PodStatus {
            phase: Some("Running".into()),
            ..Default::default()
        };
        let patch = merge_patch(&status, Some("u1"));
        assert_eq!(patch["metadata"]["uid"], "u1");
        assert_eq!(patch["status"]["phase"], "Running");
        assert!(patch["status"]["podIP"].is_null());
        assert!(patch["status"].as_object().unwrap().contains_key("podIP"));
    }

    #[test]
    fn foreign_fields_do_not_count_as_changes() {
        let ours = PodStatus {
            phase: Some("Running".into()),
            ..Default::default()
        };
        let api = PodStatus {
            nominated_node_name: Some("n".into()),
            ..ours.clone()
        };
        assert!(covers(&api, &ours));
        assert!(!covers(&PodStatus::default(), &ours));
    }
}
