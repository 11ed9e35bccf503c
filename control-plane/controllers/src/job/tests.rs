use std::time::Duration;

use hull_client::events::Record;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::*;
use crate::runtime::fake::{FakeApi, refused, settle};

struct Bench {
    api: Arc<FakeApi>,
    jobs: Arc<JobController>,
    orphans: Arc<JobOrphansController>,
    events: mpsc::Receiver<Record>,
}

fn key() -> Key {
    Key::new("shop", "sum")
}

fn bench(spec: Value) -> Bench {
    let api = FakeApi::new();
    let mut full = json!({
        "parallelism": 1, "completions": 1, "backoffLimit": 6,
        "selector": {"matchLabels": {"job": "sum"}},
        "template": {
            "metadata": {"labels": {"job": "sum"}},
            "spec": {
                "restartPolicy": "Never",
                "containers": [{"name": "c", "image": "busybox"}]
            }
        }
    });
    for (key, value) in spec.as_object().unwrap() {
        full[key] = value.clone();
    }
    api.seed::<Job>(json!({"metadata": {"name": "sum", "namespace": "shop"}, "spec": full}));
    let (recorder, events) = Recorder::channel();
    let jobs = JobController::new(api.clone(), recorder, Arc::default(), Arc::default());
    let orphans = JobOrphansController::new(api.clone(), jobs.jobs.clone(), jobs.pods.clone());
    Bench {
        api,
        jobs,
        orphans,
        events,
    }
}

impl Bench {
    fn pump(&self) {
        self.api.pump(&self.jobs.jobs);
        self.api.pump(&self.jobs.pods);
    }

    async fn settle(&self) {
        settle(&*self.jobs, || self.pump()).await;
        settle(&*self.orphans, || self.pump()).await;
    }

    /// The same with every wait over.
    async fn settle_later(&self) {
        self.jobs.queue.add(key());
        self.settle().await;
    }

    fn pods(&self) -> Vec<Pod> {
        self.api.all()
    }

    fn active(&self) -> Vec<Pod> {
        let mut pods = self.pods();
        pods.retain(crate::pods::is_active);
        pods
    }

    fn status(&self) -> JobStatus {
        self.api.all::<Job>()[0].status.clone().unwrap_or_default()
    }

    fn finish(&self, pod: &Pod, phase: &str) {
        self.finish_with(pod, phase, json!({}));
    }

    /// Long ago, so that no back-off is left.
    fn finish_with(&self, pod: &Pod, phase: &str, more: Value) {
        let mut status = json!({"phase": phase, "containerStatuses": [{
            "name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"terminated": {
                "exitCode": i32::from(phase == "Failed"), "finishedAt": "2020-01-01T00:00:00Z"
            }}
        }]});
        for (key, value) in more.as_object().unwrap() {
            status[key] = value.clone();
        }
        self.api
            .change("pods", &Key::of(pod), json!({"status": status}));
    }

    fn condition(&self, kind: &str) -> Option<(String, String)> {
        let status = self.status();
        let found = conditions::find(&status, kind)?;
        Some((found.reason.clone()?, found.message.clone()?))
    }

    fn events(&mut self) -> Vec<String> {
        let mut events = Vec::new();
        while let Ok(record) = self.events.try_recv() {
            events.push(format!("{} {}", record.reason, record.message));
        }
        events
    }
}

fn index(pod: &Pod) -> i32 {
    indexes::of(pod, i32::MAX).unwrap()
}

#[tokio::test]
async fn runs_as_many_pods_as_allowed_until_enough_have_succeeded() {
    let mut bench = bench(json!({"completions": 3, "parallelism": 2}));
    bench.settle().await;
    assert_eq!(bench.pods().len(), 2);
    assert!(bench.pods().iter().all(is_tracked));
    assert!(bench.status().start_time.is_some());
    bench.finish(&bench.active()[0], "Succeeded");
    bench.settle().await;
    assert_eq!(
        (bench.active().len(), bench.status().succeeded),
        (2, Some(1))
    );
    for pod in bench.active() {
        bench.finish(&pod, "Succeeded");
    }
    bench.settle().await;
    let status = bench.status();
    assert_eq!((status.succeeded, status.active), (Some(3), None));
    assert_eq!(
        bench.condition("Complete").unwrap(),
        (
            "CompletionsReached".to_owned(),
            "Reached expected number of succeeded pods".to_owned()
        )
    );
    assert!(status.completion_time.is_some());
    assert_eq!(status.uncounted_terminated_pods, Some(Default::default()));
    assert!(!bench.pods().iter().any(is_tracked), "finalizers are gone");
    assert!(
        bench
            .events()
            .contains(&"Completed Job completed".to_owned())
    );
}

#[tokio::test]
async fn a_pod_counts_once_whatever_requests_fail() {
    let bench = bench(json!({"completions": 2, "parallelism": 2}));
    bench.settle().await;
    for request in ["replace jobs", "patch pods", "replace jobs", "patch pods"] {
        bench.api.fail(request, refused(409, "Conflict", "changed"));
    }
    bench.finish(&bench.active()[0], "Succeeded");
    bench.settle().await;
    assert_eq!(bench.status().succeeded, Some(1));
    assert_eq!(bench.active().len(), 1);
    bench.settle_later().await;
    assert_eq!(bench.status().succeeded, Some(1));
}

#[tokio::test]
async fn failed_pods_are_replaced_after_a_back_off_up_to_the_limit() {
    let mut bench = bench(json!({"backoffLimit": 1}));
    bench.settle().await;
    let recent = json!({"containerStatuses": [{
        "name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0,
        "state": {"terminated": {"exitCode": 1, "finishedAt": Timestamp::now().to_string()}}
    }]});
    bench.finish_with(&bench.active()[0], "Failed", recent);
    bench.settle().await;
    assert!(bench.active().is_empty(), "waits for ten seconds");
    match bench.jobs.reconcile(&key()).await.unwrap() {
        Action::After(wait) => assert!(wait > Duration::from_secs(5), "{wait:?}"),
        Action::Done => panic!("must look again"),
    }
    bench.finish(&bench.pods()[0], "Failed");
    bench.settle().await;
    assert_eq!(bench.active().len(), 1);
    bench.finish(&bench.active()[0], "Failed");
    bench.settle().await;
    assert_eq!(bench.status().failed, Some(2));
    assert_eq!(
        bench.condition("Failed").unwrap(),
        (
            "BackoffLimitExceeded".to_owned(),
            "Job has reached the specified backoff limit".to_owned()
        )
    );
    assert!(bench.active().is_empty());
    let expected = "BackoffLimitExceeded Job has reached the specified backoff limit";
    assert!(bench.events().contains(&expected.to_owned()));
}

#[tokio::test]
async fn a_failing_job_ends_only_when_its_pods_are_gone() {
    let bench = bench(json!({
        "backoffLimit": 0, "parallelism": 2, "completions": 2, "podReplacementPolicy": "Failed"
    }));
    bench.settle().await;
    bench.finish(&bench.active()[0], "Failed");
    bench.settle().await;
    assert!(bench.condition("FailureTarget").is_some());
    assert!(
        bench.condition("Failed").is_none(),
        "one pod still terminates"
    );
    let leaving = bench
        .pods()
        .into_iter()
        .find(|pod| pod.metadata.deletion_timestamp.is_some())
        .unwrap();
    bench.finish(&leaving, "Failed");
    bench.settle().await;
    assert!(bench.condition("Failed").is_some());
    assert_eq!(bench.status().failed, Some(2));
    assert_eq!(bench.status().terminating, Some(0));
}

#[tokio::test]
async fn indexed_pods_have_each_index_once() {
    let bench = bench(json!({"completionMode": "Indexed", "completions": 4, "parallelism": 3}));
    bench.settle().await;
    let mut indexes: Vec<_> = bench.active().iter().map(index).collect();
    indexes.sort_unstable();
    assert_eq!(indexes, [0, 1, 2]);
    let pod = &bench.active()[0];
    let spec = pod.spec.as_ref().unwrap();
    assert_eq!(spec.hostname, Some(format!("sum-{}", index(pod))));
    let variables = spec.containers[0].env.as_ref().unwrap();
    assert_eq!(variables[0].name, "JOB_COMPLETION_INDEX");
    let failed = bench
        .active()
        .into_iter()
        .find(|pod| index(pod) == 1)
        .unwrap();
    bench.finish(&failed, "Failed");
    let done = bench
        .active()
        .into_iter()
        .find(|pod| index(pod) == 0)
        .unwrap();
    bench.finish(&done, "Succeeded");
    bench.settle().await;
    let mut indexes: Vec<_> = bench.active().iter().map(index).collect();
    indexes.sort_unstable();
    assert_eq!(indexes, [1, 2, 3], "1 again, 3 in the place of 0");
    assert_eq!(bench.status().completed_indexes.as_deref(), Some("0"));
    for pod in bench.active() {
        bench.finish(&pod, "Succeeded");
    }
    bench.settle().await;
    assert_eq!(bench.status().completed_indexes.as_deref(), Some("0-3"));
    assert!(bench.condition("Complete").is_some());
}

#[tokio::test]
async fn a_back_off_limit_per_index_fails_the_index_and_at_last_the_job() {
    let bench = bench(json!({
        "completionMode": "Indexed", "completions": 2, "parallelism": 2,
        "backoffLimitPerIndex": 1, "backoffLimit": 100
    }));
    bench.settle().await;
    for _ in 0..2 {
        let pod = bench
            .active()
            .into_iter()
            .find(|pod| index(pod) == 0)
            .unwrap();
        bench.finish(&pod, "Failed");
        bench.settle().await;
    }
    assert_eq!(bench.status().failed_indexes.as_deref(), Some("0"));
    assert_eq!(bench.active().len(), 1, "the other index goes on");
    bench.finish(&bench.active()[0], "Succeeded");
    bench.settle().await;
    assert_eq!(bench.condition("Failed").unwrap().0, "FailedIndexes");
}

#[tokio::test]
async fn the_failure_policy_decides_by_exit_code_and_condition() {
    let policy = json!({"rules": [
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [1]}}
    ]});
    let bench = bench(json!({"podFailurePolicy": policy, "backoffLimit": 0}));
    bench.settle().await;
    let disrupted = json!({"conditions": [{"type": "DisruptionTarget", "status": "True"}]});
    bench.finish_with(&bench.active()[0], "Failed", disrupted);
    bench.settle().await;
    assert_eq!((bench.status().failed, bench.active().len()), (None, 1));
    bench.finish(&bench.active()[0], "Failed");
    bench.settle().await;
    let (reason, message) = bench.condition("Failed").unwrap();
    assert_eq!(reason, "PodFailurePolicy");
    assert!(
        message.ends_with("failed with exit code 1 matching FailJob rule at index 1"),
        "{message}"
    );
}

#[tokio::test]
async fn a_success_policy_ends_the_job_early() {
    let bench = bench(json!({
        "completionMode": "Indexed", "completions": 5, "parallelism": 3,
        "successPolicy": {"rules": [{"succeededIndexes": "0,4"}, {"succeededIndexes": "1"}]}
    }));
    bench.settle().await;
    let leader = bench
        .active()
        .into_iter()
        .find(|pod| index(pod) == 1)
        .unwrap();
    bench.finish(&leader, "Succeeded");
    bench.settle().await;
    for pod in bench.pods() {
        if pod.metadata.deletion_timestamp.is_some() {
            bench.finish(&pod, "Failed");
        }
    }
    bench.settle().await;
    assert_eq!(
        bench.condition("Complete").unwrap(),
        (
            "SuccessPolicy".to_owned(),
            "Matched rules at index 1".to_owned()
        )
    );
    assert!(bench.active().is_empty());
}

#[tokio::test]
async fn suspending_deletes_the_pods_without_counting_them() {
    let mut bench = bench(json!({"completions": 2, "parallelism": 2}));
    bench.settle().await;
    bench
        .api
        .change("jobs", &key(), json!({"spec": {"suspend": true}}));
    bench.settle().await;
    assert!(bench.pods().is_empty());
    let status = bench.status();
    assert_eq!((status.failed, status.start_time), (None, None));
    assert_eq!(bench.condition("Suspended").unwrap().0, "JobSuspended");
    bench
        .api
        .change("jobs", &key(), json!({"spec": {"suspend": false}}));
    bench.settle().await;
    assert_eq!(bench.active().len(), 2);
    assert!(bench.condition("Suspended").is_none());
    let events = bench.events();
    assert!(events.contains(&"Suspended Job suspended".to_owned()));
    assert!(events.contains(&"Resumed Job resumed".to_owned()));
}

#[tokio::test]
async fn a_job_past_its_deadline_fails() {
    let bench = bench(json!({"activeDeadlineSeconds": 100}));
    bench.settle().await;
    match bench.jobs.reconcile(&key()).await.unwrap() {
        Action::After(wait) => assert!(wait > Duration::from_secs(50)),
        Action::Done => panic!("must look again at the deadline"),
    }
    let started = json!({"status": {"startTime": "2020-01-01T00:00:00Z"}});
    bench.api.change("jobs", &key(), started);
    bench.settle().await;
    assert_eq!(
        bench.condition("FailureTarget").unwrap().0,
        "DeadlineExceeded"
    );
    assert!(bench.active().is_empty());
}

#[tokio::test]
async fn less_parallelism_deletes_pods_that_then_count_neither_way() {
    let bench = bench(json!({"completions": 5, "parallelism": 4}));
    bench.settle().await;
    bench
        .api
        .change("jobs", &key(), json!({"spec": {"parallelism": 1}}));
    bench.settle().await;
    assert_eq!(bench.active().len(), 1);
    assert_eq!(bench.status().failed, None);
}

#[tokio::test]
async fn pods_of_a_job_that_is_gone_or_finished_are_let_go() {
    let bench = bench(json!({"completions": 2, "parallelism": 2}));
    bench.settle().await;
    bench.api.remove("jobs", &key());
    bench.settle().await;
    assert!(!bench.pods().iter().any(is_tracked));
}

#[tokio::test]
async fn jobs_managed_by_others_are_left_alone() {
    let bench = bench(json!({"managedBy": "example.com/other"}));
    bench.settle().await;
    assert!(bench.pods().is_empty());
    assert_eq!(bench.api.take_requests(), Vec::<String>::new());
}
