//! The pods' life: they run as soon as they are bound, those of Jobs succeed after a while, deleted
//! ones go.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::{StreamExt, stream::FuturesUnordered};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
    runtime::{WatchStreamExt, watcher},
};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::{Shared, count, objects};

/// Wait before a request about a pod is made again.
const RETRY: Duration = Duration::from_secs(1);

/// What a pod wants next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Step {
    Start,
    Succeed,
    Remove,
}

fn next_step(pod: &Pod) -> Option<Step> {
    let status = pod.status.as_ref();
    let phase = status.and_then(|status| status.phase.as_deref());
    if pod.metadata.deletion_timestamp.is_some() {
        return Some(Step::Remove);
    }
    let of_job = pod.owner_references().iter().any(|o| o.kind == "Job");
    match phase {
        None | Some("" | "Pending") => Some(Step::Start),
        Some("Running") if of_job => Some(Step::Succeed),
        _ => None,
    }
}

struct Pods<'a> {
    shared: &'a Shared,
    /// (uid, step) that is being taken.
    under_way: Mutex<HashSet<(String, Step)>>,
    requests: Semaphore,
    serial: AtomicU64,
}

/// Lives their lives for ever.
pub(super) async fn run(shared: &Shared) {
    let pods = Pods {
        shared,
        under_way: Mutex::default(),
        requests: Semaphore::new(shared.config.concurrency.max(1)),
        serial: AtomicU64::new(1),
    };
    let bound = watcher::Config::default().fields("spec.nodeName!=");
    let api: Api<Pod> = Api::all(shared.client.clone());
    let stream = watcher(api, bound).default_backoff().applied_objects();
    let mut stream = std::pin::pin!(stream);
    let mut steps = FuturesUnordered::new();
    loop {
        tokio::select! {
            event = stream.next() => match event {
                Some(Ok(pod)) => {
                    if let Some(step) = pods.begin(pod) {
                        steps.push(step);
                    }
                }
                Some(Err(error)) => {
                    count(&shared.progress.failures);
                    tracing::warn!(%error, "watch of pods failed; it is started again");
                }
                None => return,
            },
            Some(()) = steps.next(), if !steps.is_empty() => {}
        }
    }
}

impl<'a> Pods<'a> {
    /// The pod's next step, unless it is being taken already.
    fn begin<'p>(&'p self, pod: Pod) -> Option<impl Future<Output = ()> + use<'p, 'a>> {
        let name = pod.spec.as_ref()?.node_name.as_deref()?;
        let node = self.shared.config.number(name)?;
        let step = next_step(&pod)?;
        let mark = (pod.metadata.uid.clone()?, step);
        if !self.under_way.lock().insert(mark.clone()) {
            return None;
        }
        let pod = Arc::new(pod);
        Some(async move {
            if step == Step::Succeed {
                tokio::time::sleep(self.shared.config.job_duration).await;
            }
            while let Err(error) = self.take(&pod, node, step).await {
                if is_over(&error) {
                    break;
                }
                self.shared.failed("pod", &pod.name_any(), &error);
                tokio::time::sleep(RETRY).await;
            }
            self.under_way.lock().remove(&mark);
        })
    }

    async fn take(&self, pod: &Pod, node: usize, step: Step) -> Result<(), kube::Error> {
        // Closed never: it lives as long as this.
        let _permit = self.requests.acquire().await;
        let progress = &self.shared.progress;
        match step {
            Step::Start => {
                let serial = self.serial.fetch_add(1, Ordering::Relaxed);
                self.write(pod, objects::running(pod, node, serial)).await?;
                count(&progress.started);
            }
            Step::Succeed => {
                self.write(pod, objects::succeeded(pod)).await?;
                count(&progress.ended);
            }
            Step::Remove => {
                let options = DeleteParams {
                    grace_period_seconds: Some(0),
                    preconditions: Some(Preconditions {
                        uid: pod.metadata.uid.clone(),
                        resource_version: None,
                    }),
                    ..DeleteParams::default()
                };
                self.api(pod).delete(&pod.name_any(), &options).await?;
                count(&progress.ended);
            }
        }
        Ok(())
    }

    fn api(&self, pod: &Pod) -> Api<Pod> {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        Api::namespaced(self.shared.client.clone(), namespace)
    }

    async fn write(&self, pod: &Pod, status: Value) -> Result<(), kube::Error> {
        let patch = json!({"metadata": {"uid": pod.metadata.uid}, "status": status});
        let (api, name) = (self.api(pod), pod.name_any());
        let params = PatchParams::default();
        api.patch_status(&name, &params, &Patch::Merge(patch))
            .await
            .map(drop)
    }
}

/// The pod is gone, or another one of its name is there.
fn is_over(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if matches!(status.code, 404 | 409 | 422))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(phase: &str, owner: &str, deleted: bool) -> Pod {
        let mut pod = json!({
            "metadata": {"name": "p", "ownerReferences": [
                {"apiVersion": "v1", "kind": owner, "name": "o", "uid": "u"}
            ]},
            "status": {"phase": phase}
        });
        if deleted {
            pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        }
        serde_json::from_value(pod).unwrap()
    }

    #[test]
    fn pods_start_and_those_of_jobs_succeed_and_deleted_ones_go() {
        let step = |phase, owner, deleted| next_step(&pod(phase, owner, deleted));
        assert_eq!(step("Pending", "ReplicaSet", false), Some(Step::Start));
        assert_eq!(step("Running", "ReplicaSet", false), None);
        assert_eq!(step("Running", "Job", false), Some(Step::Succeed));
        assert_eq!(step("Succeeded", "Job", false), None);
        assert_eq!(step("Running", "Job", true), Some(Step::Remove));
    }
}
