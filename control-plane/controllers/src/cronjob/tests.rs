use hull_client::events::Record;
use k8s_openapi::jiff::ToSpan;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::*;
use crate::runtime::fake::{FakeApi, refused};

struct Bench {
    api: Arc<FakeApi>,
    controller: Arc<CronJobController>,
    events: mpsc::Receiver<Record>,
    now: Timestamp,
}

fn key() -> Key {
    Key::new("shop", "report")
}

fn bench(spec: Value) -> Bench {
    let api = FakeApi::new();
    let mut full = json!({
        "schedule": "0 * * * *",
        "jobTemplate": {"metadata": {"labels": {"a": "b"}}, "spec": {"template": {}}}
    });
    for (key, value) in spec.as_object().unwrap() {
        full[key] = value.clone();
    }
    api.seed::<CronJob>(json!({
        "metadata": {
            "name": "report", "namespace": "shop", "creationTimestamp": "2026-01-01T00:30:00Z"
        },
        "spec": full
    }));
    let (recorder, events) = Recorder::channel();
    let controller = CronJobController::new(api.clone(), recorder, Arc::default(), Arc::default());
    Bench {
        api,
        controller,
        events,
        now: "2026-01-01T00:30:00Z".parse().unwrap(),
    }
}

impl Bench {
    async fn at(&mut self, time: &str) -> Result<Action, ReconcileError> {
        self.now = time.parse().unwrap();
        self.api.pump(&self.controller.cron_jobs);
        self.api.pump(&self.controller.jobs);
        let cron = self.controller.cron_jobs.get(&key()).unwrap();
        self.controller.sync(&key(), &cron, self.now).await
    }

    fn jobs(&self) -> Vec<Job> {
        self.api.all()
    }

    fn finish(&self, job: &Job, how: &str) {
        let ended = json!({"status": {"startTime": self.now.to_string(), "conditions": [
            {"type": how, "status": "True", "lastTransitionTime": self.now.to_string()}
        ]}});
        self.api.change("jobs", &Key::of(job), ended);
    }

    fn status(&self) -> CronJobStatus {
        self.api.all::<CronJob>()[0]
            .status
            .clone()
            .unwrap_or_default()
    }

    fn events(&mut self) -> Vec<String> {
        let mut events = Vec::new();
        while let Ok(record) = self.events.try_recv() {
            events.push(format!("{} {}", record.reason, record.message));
        }
        events
    }
}

#[tokio::test]
async fn a_job_starts_at_its_time_and_once() {
    let mut bench = bench(json!({}));
    match bench.at("2026-01-01T00:45:00Z").await.unwrap() {
        Action::After(wait) => assert_eq!(wait, Duration::from_secs(900) + NEXT_LOOK_MARGIN),
        Action::Done => panic!("must look again"),
    }
    assert!(bench.jobs().is_empty());
    bench.at("2026-01-01T01:00:00Z").await.unwrap();
    bench.at("2026-01-01T01:10:00Z").await.unwrap();
    let jobs = bench.jobs();
    assert_eq!(jobs.len(), 1);
    let meta = &jobs[0].metadata;
    let minutes = "2026-01-01T01:00:00Z"
        .parse::<Timestamp>()
        .unwrap()
        .as_second()
        / 60;
    assert_eq!(meta.name, Some(format!("report-{minutes}")));
    assert_eq!(meta.labels.as_ref().unwrap()["a"], "b");
    assert_eq!(
        meta.annotations.as_ref().unwrap()["batch.kubernetes.io/cronjob-scheduled-timestamp"],
        "2026-01-01T01:00:00Z"
    );
    assert_eq!(bench.status().active.unwrap().len(), 1);
    assert_eq!(
        bench.events(),
        [format!("SuccessfulCreate Created job report-{minutes}")]
    );
}

#[tokio::test]
async fn a_status_that_cannot_be_written_does_not_start_a_second_job() {
    let mut bench = bench(json!({}));
    bench
        .api
        .fail("replace cronjobs", refused(409, "Conflict", "changed"));
    assert!(bench.at("2026-01-01T01:00:00Z").await.is_err());
    bench.at("2026-01-01T01:00:01Z").await.unwrap();
    assert_eq!(bench.jobs().len(), 1);
    assert_eq!(bench.status().active.unwrap().len(), 1);
}

#[tokio::test]
async fn the_concurrency_policy_decides_while_a_job_runs() {
    for (policy, expected) in [("Allow", 2), ("Forbid", 1), ("Replace", 1)] {
        let mut bench = bench(json!({"concurrencyPolicy": policy}));
        bench.at("2026-01-01T01:00:00Z").await.unwrap();
        let first = bench.jobs()[0].metadata.name.clone();
        bench.at("2026-01-01T02:00:00Z").await.unwrap();
        assert_eq!(bench.jobs().len(), expected, "{policy}");
        if policy == "Replace" {
            assert_ne!(bench.jobs()[0].metadata.name, first);
        }
        if policy == "Forbid" {
            assert!(
                bench
                    .events()
                    .iter()
                    .any(|event| event.starts_with("JobAlreadyActive"))
            );
        }
    }
}

#[tokio::test]
async fn missed_times_start_one_job_unless_the_deadline_is_over() {
    let mut late = bench(json!({}));
    late.at("2026-01-01T09:59:00Z").await.unwrap();
    assert_eq!(late.jobs().len(), 1);
    assert_eq!(
        late.status().last_schedule_time.unwrap().0.to_string(),
        "2026-01-01T09:00:00Z"
    );
    let mut strict = bench(json!({"startingDeadlineSeconds": 60}));
    strict.at("2026-01-01T09:59:00Z").await.unwrap();
    assert!(strict.jobs().is_empty());
    strict.at("2026-01-01T10:00:30Z").await.unwrap();
    assert_eq!(strict.jobs().len(), 1);
}

#[tokio::test]
async fn ended_jobs_leave_the_active_list_and_go_beyond_the_limits() {
    let mut bench = bench(json!({"successfulJobsHistoryLimit": 1, "failedJobsHistoryLimit": 0}));
    for (hour, how) in [(1, "Complete"), (2, "Complete"), (3, "Failed")] {
        bench
            .at(&format!("2026-01-01T0{hour}:00:00Z"))
            .await
            .unwrap();
        let newest = bench.jobs().pop().unwrap();
        bench.finish(&newest, how);
        bench
            .at(&format!("2026-01-01T0{hour}:05:00Z"))
            .await
            .unwrap();
    }
    let jobs = bench.jobs();
    assert_eq!(jobs.len(), 1, "the younger of the two that succeeded");
    let status = bench.status();
    assert_eq!(status.active, None);
    assert_eq!(
        status.last_successful_time.unwrap().0.to_string(),
        "2026-01-01T02:00:00Z"
    );
    let events = bench.events();
    assert!(
        events
            .iter()
            .any(|event| event.ends_with("condition: Failed")),
        "{events:?}"
    );
}

#[tokio::test]
async fn suspended_and_unreadable_schedules_start_nothing() {
    let mut suspended = bench(json!({"suspend": true}));
    assert_eq!(
        suspended.at("2026-01-01T05:00:00Z").await.unwrap(),
        Action::Done
    );
    let mut wrong = bench(json!({"schedule": "every day"}));
    wrong.at("2026-01-01T05:00:00Z").await.unwrap();
    let mut nowhere = bench(json!({"timeZone": "Mars/Olympus"}));
    nowhere.at("2026-01-01T05:00:00Z").await.unwrap();
    for (mut bench, reason) in [
        (wrong, "UnParseableCronJobSchedule"),
        (nowhere, "UnknownTimeZone"),
    ] {
        assert!(bench.jobs().is_empty());
        assert!(bench.events()[0].starts_with(reason));
    }
    assert!(suspended.jobs().is_empty());
}

#[tokio::test]
async fn times_are_those_of_the_time_zone() {
    let mut bench = bench(json!({"schedule": "0 9 * * *", "timeZone": "Asia/Kolkata"}));
    let due: Timestamp = "2026-01-01T03:30:00Z".parse().unwrap();
    bench.at("2026-01-01T03:29:00Z").await.unwrap();
    assert!(bench.jobs().is_empty());
    bench.at(&(due + 1.second()).to_string()).await.unwrap();
    let annotations = bench.jobs()[0].metadata.annotations.clone().unwrap();
    assert_eq!(
        annotations["batch.kubernetes.io/cronjob-scheduled-timestamp"],
        "2026-01-01T09:00:00+05:30"
    );
}
