use serde_json::{Value, json};

use hull_client::events::Record;
use tokio::sync::mpsc;

use super::*;
use crate::{pods::is_active, replicaset::ReplicaSetController, runtime::fake::FakeApi};

/// A deployment with both controllers and pods that become ready when told.
struct Bench {
    api: Arc<FakeApi>,
    controller: Arc<DeploymentController>,
    sets: Arc<ReplicaSetController>,
    events: mpsc::Receiver<Record>,
    /// Highest and lowest seen.
    most_pods: usize,
    least_available: usize,
}

fn key() -> Key {
    Key::new("shop", "web")
}

fn bench(spec: Value) -> Bench {
    let api = FakeApi::new();
    let mut full = json!({
        "replicas": 4,
        "progressDeadlineSeconds": 600,
        "selector": {"matchLabels": {"app": "web"}},
        "template": template("v1"),
    });
    for (key, value) in spec.as_object().unwrap() {
        full[key] = value.clone();
    }
    api.seed::<Deployment>(json!({
        "metadata": {"name": "web", "namespace": "shop", "generation": 1}, "spec": full
    }));
    let (recorder, events) = Recorder::channel();
    let (sets, pods): (Arc<Informer<ReplicaSet>>, Arc<Informer<Pod>>) = Default::default();
    let set_controller = ReplicaSetController::new(
        api.clone(),
        Recorder::channel().0,
        sets.clone(),
        pods.clone(),
    );
    let controller = DeploymentController::new(api.clone(), recorder, Arc::default(), sets, pods);
    Bench {
        api,
        controller,
        sets: set_controller,
        events,
        most_pods: 0,
        least_available: usize::MAX,
    }
}

fn template(image: &str) -> Value {
    json!({
        "metadata": {"labels": {"app": "web"}},
        "spec": {"containers": [{"name": "c", "image": image}]}
    })
}

impl Bench {
    fn pump(&self) {
        self.api.pump(&self.controller.deployments);
        self.api.pump(&self.controller.sets);
        self.api.pump(&self.controller.pods);
    }

    /// One step of both controllers.
    async fn step(&mut self) {
        self.pump();
        self.controller.reconcile(&key()).await.unwrap();
        self.pump();
        for set in self.controller.sets.all() {
            self.sets.reconcile(&Key::of(&*set)).await.unwrap();
        }
        self.pump();
        let pods: Vec<Pod> = self.api.all();
        let active = pods.iter().filter(|pod| is_active(pod));
        self.most_pods = self.most_pods.max(active.clone().count());
        let ready = active.filter(|pod| crate::pods::is_ready(pod)).count();
        self.least_available = self.least_available.min(ready);
    }

    fn make_ready(&self, image: &str) {
        let ready = json!({"status": {"phase": "Running", "conditions": [
            {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}
        ]}});
        for pod in self.api.all::<Pod>() {
            if pod.spec.as_ref().unwrap().containers[0].image.as_deref() == Some(image) {
                self.api.change("pods", &Key::of(&pod), ready.clone());
            }
        }
    }

    /// Steps until nothing is written any more.
    async fn settle(&mut self, ready: &[&str]) {
        for _ in 0..100 {
            self.api.take_requests();
            for image in ready {
                self.make_ready(image);
            }
            self.step().await;
            if self.api.take_requests().is_empty() {
                return;
            }
        }
        panic!("does not come to rest");
    }

    fn change(&self, spec: Value) {
        let generation = self.deployment().metadata.generation.unwrap() + 1;
        let patch = json!({"metadata": {"generation": generation}, "spec": spec});
        self.api.change("deployments", &key(), patch);
    }

    fn deployment(&self) -> Deployment {
        self.api.all().pop().unwrap()
    }

    /// Image to (wanted, revision) of each set.
    fn sizes(&self) -> Vec<(String, i32, i64)> {
        let mut sizes: Vec<_> = self
            .api
            .all::<ReplicaSet>()
            .iter()
            .map(|set| {
                let template = set.spec.as_ref().unwrap().template.as_ref().unwrap();
                let image = template.spec.as_ref().unwrap().containers[0]
                    .image
                    .clone()
                    .unwrap();
                (image, size(set), annotations::revision(set))
            })
            .collect();
        sizes.sort();
        sizes
    }

    fn condition(&self, kind: &str) -> Option<(String, String)> {
        let conditions = self.deployment().status?.conditions?;
        let found = conditions
            .into_iter()
            .find(|condition| condition.type_ == kind)?;
        Some((found.status, found.reason.unwrap_or_default()))
    }

    fn events(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.events.try_recv().ok())
            .map(|record| format!("{} {}", record.reason, record.message))
            .collect()
    }
}

fn pair(status: &str, reason: &str) -> Option<(String, String)> {
    Some((status.into(), reason.into()))
}

#[tokio::test]
async fn a_new_deployment_gets_a_set_and_becomes_complete() {
    let mut bench = bench(json!({}));
    bench.step().await;
    assert_eq!(
        bench.condition("Progressing"),
        pair("True", "NewReplicaSetCreated")
    );
    assert_eq!(
        bench.condition("Available"),
        pair("False", "MinimumReplicasUnavailable")
    );
    bench.settle(&["v1"]).await;
    assert_eq!(bench.sizes(), [("v1".into(), 4, 1)]);
    assert_eq!(
        bench.condition("Progressing"),
        pair("True", "NewReplicaSetAvailable")
    );
    assert_eq!(
        bench.condition("Available"),
        pair("True", "MinimumReplicasAvailable")
    );
    let deployment = bench.deployment();
    let status = deployment.status.unwrap();
    assert_eq!(
        (
            status.replicas,
            status.updated_replicas,
            status.available_replicas
        ),
        (Some(4), Some(4), Some(4))
    );
    assert_eq!(
        deployment.metadata.annotations.unwrap()[annotations::REVISION],
        "1"
    );
    let set = bench.api.all::<ReplicaSet>().pop().unwrap();
    let name = set.metadata.name.clone().unwrap();
    let hash = &set.metadata.labels.as_ref().unwrap()[template_hash::LABEL];
    assert_eq!(name, format!("web-{hash}"));
    let selector = set.spec.unwrap().selector.match_labels.unwrap();
    assert_eq!(&selector[template_hash::LABEL], hash);
    assert_eq!(
        bench.events(),
        [format!(
            "ScalingReplicaSet Scaled up replica set {name} from 0 to 4"
        )]
    );
}

#[tokio::test]
async fn a_rolling_update_stays_within_its_bounds() {
    for (surge, unavailable) in [
        (json!(1), json!(1)),
        (json!("50%"), json!(0)),
        (json!(0), json!(2)),
    ] {
        let strategy = json!({"type": "RollingUpdate", "rollingUpdate": {
            "maxSurge": surge, "maxUnavailable": unavailable
        }});
        let mut bench = bench(json!({"strategy": strategy}));
        bench.settle(&["v1"]).await;
        bench.least_available = usize::MAX;
        bench.change(json!({"template": template("v2")}));
        bench.settle(&["v1", "v2"]).await;
        assert_eq!(bench.sizes(), [("v1".into(), 0, 1), ("v2".into(), 4, 2)]);
        let bounds = bounds(&bench.deployment());
        assert!(
            bench.most_pods <= 4 + bounds.surge as usize,
            "{}",
            bench.most_pods
        );
        assert!(bench.least_available >= 4 - bounds.unavailable as usize);
        assert_eq!(
            bench.condition("Progressing"),
            pair("True", "NewReplicaSetAvailable")
        );
    }
}

#[tokio::test]
async fn a_broken_version_never_takes_the_old_one_down() {
    let mut bench = bench(json!({}));
    bench.settle(&["v1"]).await;
    bench.change(json!({"template": template("broken")}));
    bench.settle(&["v1"]).await;
    assert_eq!(
        bench.sizes(),
        [("broken".into(), 2, 2), ("v1".into(), 3, 1)]
    );
    // 10 minutes later
    let long_ago: Vec<_> = bench
        .deployment()
        .status
        .unwrap()
        .conditions
        .unwrap()
        .into_iter()
        .map(|mut condition| {
            condition.last_update_time =
                Some(serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap());
            condition
        })
        .collect();
    bench.api.change(
        "deployments",
        &key(),
        json!({"status": {"conditions": long_ago}}),
    );
    bench.step().await;
    assert_eq!(
        bench.condition("Progressing"),
        pair("False", "ProgressDeadlineExceeded")
    );
    bench.change(json!({"template": template("v3")}));
    bench.settle(&["v1", "v3"]).await;
    assert_eq!(
        bench.sizes(),
        [
            ("broken".into(), 0, 2),
            ("v1".into(), 0, 1),
            ("v3".into(), 4, 3)
        ]
    );
    assert_eq!(
        bench.condition("Progressing"),
        pair("True", "NewReplicaSetAvailable")
    );
}

#[tokio::test]
async fn an_old_template_is_a_rollback_with_a_new_revision() {
    let mut bench = bench(json!({}));
    bench.settle(&["v1"]).await;
    bench.change(json!({"template": template("v2")}));
    bench.settle(&["v1", "v2"]).await;
    bench.change(json!({"template": template("v1")}));
    bench.settle(&["v1", "v2"]).await;
    assert_eq!(bench.sizes(), [("v1".into(), 4, 3), ("v2".into(), 0, 2)]);
    let sets = bench.api.all::<ReplicaSet>();
    let back = sets.iter().find(|set| size(set) == 4).unwrap();
    let history =
        &back.metadata.annotations.as_ref().unwrap()["deployment.kubernetes.io/revision-history"];
    assert_eq!(history, "1");
}

#[tokio::test]
async fn recreate_waits_for_the_last_old_pod() {
    let mut bench = bench(json!({"strategy": {"type": "Recreate"}, "replicas": 2}));
    bench.settle(&["v1"]).await;
    let lingering = bench.api.all::<Pod>().pop().unwrap();
    let hold = json!({"metadata": {"finalizers": ["test/hold"]}});
    bench.api.change("pods", &Key::of(&lingering), hold);
    bench.change(json!({"template": template("v2")}));
    bench.settle(&["v1", "v2"]).await;
    assert_eq!(
        bench.sizes(),
        [("v1".into(), 0, 1)],
        "no new set while an old pod runs"
    );
    bench.api.remove("pods", &Key::of(&lingering));
    bench.controller.queue().take_all();
    bench.pump();
    assert_eq!(
        bench.controller.queue().take_all(),
        [key()],
        "its end wakes the deployment"
    );
    bench.settle(&["v2"]).await;
    assert_eq!(bench.sizes(), [("v1".into(), 0, 1), ("v2".into(), 2, 2)]);
    assert_eq!(bench.most_pods, 2);
}

#[tokio::test]
async fn scaling_in_the_middle_of_a_rollout_keeps_the_shares() {
    let mut bench = bench(json!({"replicas": 10}));
    bench.settle(&["v1"]).await;
    bench.change(json!({"template": template("v2")}));
    bench.settle(&["v1"]).await;
    assert_eq!(bench.sizes(), [("v1".into(), 8, 1), ("v2".into(), 5, 2)]);
    bench.change(json!({"replicas": 20}));
    bench.step().await;
    // 25 pods may be: 8/13 and 5/13 of them.
    assert_eq!(bench.sizes(), [("v1".into(), 15, 1), ("v2".into(), 10, 2)]);
    bench.settle(&["v1", "v2"]).await;
    assert_eq!(bench.sizes(), [("v1".into(), 0, 1), ("v2".into(), 20, 2)]);
    bench.change(json!({"replicas": 0}));
    bench.settle(&["v2"]).await;
    assert_eq!(bench.api.all::<Pod>().len(), 0);
}

#[tokio::test]
async fn a_paused_deployment_scales_but_does_not_roll() {
    let mut bench = bench(json!({}));
    bench.settle(&["v1"]).await;
    bench.change(json!({"paused": true, "template": template("v2"), "replicas": 6}));
    bench.settle(&["v1"]).await;
    assert_eq!(bench.sizes(), [("v1".into(), 6, 1)]);
    assert_eq!(
        bench.condition("Progressing"),
        pair("Unknown", "DeploymentPaused")
    );
    bench.change(json!({"paused": null}));
    bench.settle(&["v1", "v2"]).await;
    assert_eq!(bench.sizes(), [("v1".into(), 0, 1), ("v2".into(), 6, 2)]);
}

#[tokio::test]
async fn keeps_only_as_many_old_sets_as_the_history_limit() {
    let mut bench = bench(json!({"revisionHistoryLimit": 1}));
    for version in ["v1", "v2", "v3", "v4"] {
        bench.change(json!({"template": template(version)}));
        bench.settle(&["v1", "v2", "v3", "v4"]).await;
    }
    let versions: Vec<_> = bench
        .sizes()
        .into_iter()
        .map(|(image, _, _)| image)
        .collect();
    assert_eq!(versions, ["v3", "v4"]);
}

#[tokio::test]
async fn a_taken_name_leads_to_the_next_hash() {
    let mut bench = bench(json!({}));
    let spec = bench.deployment().spec.unwrap();
    let hash = template_hash::hash(&spec.template, None);
    bench.api.seed::<ReplicaSet>(json!({
        "metadata": {"name": format!("web-{hash}"), "namespace": "shop"},
        "spec": {"selector": {"matchLabels": {"app": "other"}}, "replicas": 0}
    }));
    bench.pump();
    assert!(bench.controller.reconcile(&key()).await.is_err());
    assert_eq!(bench.deployment().status.unwrap().collision_count, Some(1));
    bench.step().await;
    assert_eq!(bench.api.all::<ReplicaSet>().len(), 2);
}

#[tokio::test]
async fn an_unseen_set_of_our_own_is_used() {
    let mut bench = bench(json!({}));
    bench.pump();
    bench.controller.reconcile(&key()).await.unwrap();
    // The informer of sets is behind.
    bench.api.pump(&bench.controller.deployments);
    bench.controller.reconcile(&key()).await.unwrap();
    assert_eq!(bench.api.all::<ReplicaSet>().len(), 1);
    bench.settle(&["v1"]).await;
    assert_eq!(bench.sizes(), [("v1".into(), 4, 1)]);
}

#[test]
fn percentages_round_surge_up_and_unavailable_down() {
    let deployment = |replicas: i32, surge: Value, unavailable: Value| -> Deployment {
        serde_json::from_value(json!({"metadata": {}, "spec": {
            "replicas": replicas, "selector": {}, "template": {},
            "strategy": {"rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}
        }}))
        .unwrap()
    };
    let of = |replicas, surge, unavailable| {
        let bounds = bounds(&deployment(replicas, surge, unavailable));
        (bounds.surge, bounds.unavailable)
    };
    assert_eq!(of(10, json!("25%"), json!("25%")), (3, 2));
    assert_eq!(of(1, json!("25%"), json!("25%")), (1, 0));
    assert_eq!(of(5, json!(0), json!(0)), (0, 1));
    assert_eq!(of(2, json!(1), json!(5)), (1, 2));
}
