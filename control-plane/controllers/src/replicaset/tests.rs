use std::time::Duration;

use hull_client::events::Record;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::*;
use crate::runtime::fake::{FakeApi, refused};
use crate::runtime::informer::controller_of;

struct Bench {
    api: Arc<FakeApi>,
    controller: Arc<ReplicaSetController>,
    events: mpsc::Receiver<Record>,
}

fn key() -> Key {
    Key::new("shop", "web")
}

fn bench(replicas: i32) -> Bench {
    let api = FakeApi::new();
    api.seed::<ReplicaSet>(json!({
        "metadata": {"name": "web", "namespace": "shop", "generation": 1},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web", "tier": "front"}},
                "spec": {"containers": [{"name": "c", "image": "nginx"}]}
            }
        }
    }));
    let (recorder, events) = Recorder::channel();
    let controller =
        ReplicaSetController::new(api.clone(), recorder, Arc::default(), Arc::default());
    let bench = Bench {
        api,
        controller,
        events,
    };
    bench.pump();
    bench
}

impl Bench {
    fn pump(&self) {
        self.api.pump(&self.controller.sets);
        self.api.pump(&self.controller.pods);
    }

    async fn reconcile(&self) -> Result<Action, ReconcileError> {
        self.controller.reconcile(&key()).await
    }

    /// One round with informers that are up to date before and after.
    async fn round(&self) {
        self.pump();
        self.reconcile().await.unwrap();
        self.pump();
    }

    fn pods(&self) -> Vec<Pod> {
        self.api.all()
    }

    fn set(&self) -> ReplicaSet {
        self.api.all().pop().unwrap()
    }

    fn seed_pod(&self, name: &str, labels: Value, owner: Option<&str>, more: Value) {
        let mut pod = json!({
            "metadata": {"name": name, "namespace": "shop", "labels": labels},
            "spec": {"containers": []}, "status": {"phase": "Running"}
        });
        if let Some(uid) = owner {
            pod["metadata"]["ownerReferences"] = json!([{
                "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": uid,
                "controller": true
            }]);
        }
        for (key, value) in more.as_object().unwrap() {
            pod[key] = value.clone();
        }
        self.api.seed::<Pod>(pod);
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
async fn creates_what_is_missing_from_the_template() {
    let mut bench = bench(3);
    bench.round().await;
    let pods = bench.pods();
    assert_eq!(pods.len(), 3);
    for pod in &pods {
        let owner = controller_of(pod).unwrap();
        assert_eq!(
            (owner.kind.as_str(), owner.name.as_str()),
            ("ReplicaSet", "web")
        );
        assert_eq!(owner.block_owner_deletion, Some(true));
        assert_eq!(pod.metadata.labels.as_ref().unwrap()["tier"], "front");
        assert!(pod.metadata.name.as_ref().unwrap().starts_with("web-"));
    }
    let names: Vec<_> = pods
        .iter()
        .map(|pod| pod.metadata.name.clone().unwrap())
        .collect();
    let mut events = bench.events();
    events.sort();
    let expected: Vec<_> = names
        .iter()
        .map(|name| format!("SuccessfulCreate Created pod: {name}"))
        .collect();
    assert_eq!(events, expected);
    bench.round().await;
    assert_eq!(bench.set().status.unwrap().replicas, 3);
}

#[tokio::test]
async fn does_not_act_again_before_its_writes_are_seen() {
    let bench = bench(2);
    bench.reconcile().await.unwrap();
    bench.reconcile().await.unwrap();
    assert_eq!(bench.pods().len(), 2, "the informer still shows none");
}

#[tokio::test]
async fn a_refused_template_costs_one_request_a_round() {
    let mut bench = bench(100);
    let message = "pods \"web-\" is forbidden: exceeded quota";
    for _ in 0..2 {
        bench.api.take_requests();
        bench
            .api
            .fail("create pods", refused(403, "Forbidden", message));
        bench.pump();
        assert!(bench.reconcile().await.is_err());
        let creations = bench
            .api
            .take_requests()
            .iter()
            .filter(|r| r.starts_with("create"))
            .count();
        assert_eq!(creations, 1);
    }
    assert_eq!(
        bench.events()[0],
        format!("FailedCreate Error creating: {message}")
    );
    let conditions = bench.set().status.unwrap().conditions.unwrap();
    assert_eq!(conditions[0].type_, "ReplicaFailure");
    assert_eq!(conditions[0].reason.as_deref(), Some("FailedCreate"));
    bench.round().await;
    assert_eq!(bench.pods().len(), 100);
    bench.round().await;
    assert_eq!(
        bench.set().status.unwrap().conditions.unwrap_or_default(),
        []
    );
}

#[tokio::test]
async fn a_terminating_namespace_is_no_error() {
    let mut bench = bench(5);
    let message = "unable to create new content in namespace shop because it is being terminated";
    bench
        .api
        .fail("create pods", refused(403, "Forbidden", message));
    bench.reconcile().await.unwrap();
    assert!(bench.events().is_empty());
}

#[tokio::test]
async fn adopts_matching_orphans_and_releases_what_no_longer_matches() {
    let bench = bench(2);
    let uid = bench.set().metadata.uid.unwrap();
    bench.seed_pod("orphan", json!({"app": "web"}), None, json!({}));
    bench.seed_pod("strayed", json!({"app": "other"}), Some(&uid), json!({}));
    bench.seed_pod(
        "foreign",
        json!({"app": "web"}),
        Some("somebody"),
        json!({}),
    );
    bench.round().await;
    let controller = |name: &str| {
        let pods = bench.pods();
        let pod = pods
            .iter()
            .find(|pod| pod.metadata.name.as_deref() == Some(name))
            .unwrap();
        controller_of(pod).map(|owner| owner.uid.clone())
    };
    assert_eq!(controller("orphan"), Some(uid.clone()));
    assert_eq!(controller("strayed"), None);
    assert_eq!(controller("foreign").as_deref(), Some("somebody"));
    assert_eq!(
        bench.pods().len(),
        4,
        "one pod was created beside the adopted one"
    );
}

#[tokio::test]
async fn a_set_that_was_replaced_adopts_nothing() {
    let bench = bench(1);
    bench.seed_pod("orphan", json!({"app": "web"}), None, json!({}));
    bench.pump();
    bench.api.change(
        "replicasets",
        &key(),
        json!({"metadata": {"uid": "another"}}),
    );
    assert!(bench.reconcile().await.is_err());
    assert!(bench.pods().iter().all(|pod| controller_of(pod).is_none()));
}

#[tokio::test]
async fn deletes_the_least_useful_pods_first() {
    let mut bench = bench(2);
    let uid = bench.set().metadata.uid.unwrap();
    let ready = |since: &str| {
        json!({"phase": "Running", "conditions": [
            {"type": "Ready", "status": "True", "lastTransitionTime": since}
        ]})
    };
    let on = |node: &str| json!({"nodeName": node, "containers": []});
    let labels = json!({"app": "web"});
    let seed = |name: &str, spec: Value, status: Value| {
        bench.seed_pod(
            name,
            labels.clone(),
            Some(&uid),
            json!({"spec": spec, "status": status}),
        );
    };
    seed(
        "unassigned",
        json!({"containers": []}),
        json!({"phase": "Pending"}),
    );
    seed("pending", on("a"), json!({"phase": "Pending"}));
    seed("unready", on("a"), json!({"phase": "Running"}));
    seed("crowded", on("b"), ready("2026-01-01T00:00:00Z"));
    seed("crowded-old", on("b"), ready("2020-01-01T00:00:00Z"));
    seed("alone", on("c"), ready("2026-01-01T00:00:00Z"));
    bench.round().await;
    let mut left: Vec<_> = bench
        .pods()
        .into_iter()
        .map(|pod| pod.metadata.name.unwrap())
        .collect();
    left.sort();
    assert_eq!(left, ["alone", "crowded-old"]);
    assert_eq!(bench.events().len(), 4);
}

#[tokio::test]
async fn terminating_and_finished_pods_are_replaced() {
    let bench = bench(1);
    let uid = bench.set().metadata.uid.unwrap();
    let labels = json!({"app": "web"});
    bench.seed_pod(
        "failed",
        labels.clone(),
        Some(&uid),
        json!({"status": {"phase": "Failed"}}),
    );
    bench.seed_pod("leaving", labels, Some(&uid), json!({}));
    let deleting = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}});
    bench
        .api
        .change("pods", &Key::new("shop", "leaving"), deleting);
    bench.round().await;
    assert_eq!(bench.pods().len(), 3);
}

#[tokio::test]
async fn counts_ready_and_available_pods() {
    let bench = bench(2);
    bench.api.change(
        "replicasets",
        &key(),
        json!({"spec": {"minReadySeconds": 3600}}),
    );
    let uid = bench.set().metadata.uid.unwrap();
    let ready = |since: String| {
        json!({"status": {"phase": "Running", "conditions": [
            {"type": "Ready", "status": "True", "lastTransitionTime": since}
        ]}})
    };
    let now = Timestamp::now();
    bench.seed_pod(
        "new",
        json!({"app": "web"}),
        Some(&uid),
        ready(now.to_string()),
    );
    let long_ago = "2020-01-01T00:00:00Z".to_owned();
    let labels = json!({"app": "web", "tier": "front"});
    bench.seed_pod("old", labels, Some(&uid), ready(long_ago));
    bench.pump();
    let action = bench.reconcile().await.unwrap();
    let status = bench.set().status.unwrap();
    assert_eq!(
        (
            status.replicas,
            status.ready_replicas,
            status.available_replicas
        ),
        (2, Some(2), Some(1))
    );
    assert_eq!(status.fully_labeled_replicas, Some(1));
    assert_eq!(status.observed_generation, Some(1));
    match action {
        Action::After(wait) => assert!(wait > Duration::from_secs(3500)),
        Action::Done => panic!("must look again when the new pod becomes available"),
    }
    bench.api.take_requests();
    bench.round().await;
    assert_eq!(
        bench.api.take_requests(),
        Vec::<String>::new(),
        "an unchanged status is not written"
    );
}

#[tokio::test]
async fn pod_events_wake_the_owner_or_whoever_may_adopt() {
    let bench = bench(1);
    let uid = bench.set().metadata.uid.unwrap();
    let queue = bench.controller.queue().clone();
    queue.take_all();
    bench.seed_pod("mine", json!({"app": "web"}), Some(&uid), json!({}));
    bench.pump();
    assert_eq!(queue.take_all(), [key()]);
    bench.seed_pod("orphan", json!({"app": "web"}), None, json!({}));
    bench.pump();
    assert_eq!(queue.take_all(), [key()]);
    bench.seed_pod("unrelated", json!({"app": "db"}), None, json!({}));
    bench.pump();
    assert!(queue.take_all().is_empty());
    bench.api.remove("pods", &Key::new("shop", "mine"));
    bench.pump();
    assert_eq!(queue.take_all(), [key()]);
}
