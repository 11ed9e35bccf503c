use hull_client::events::Record;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::*;
use crate::runtime::fake::{FakeApi, settle};

struct Bench {
    api: Arc<FakeApi>,
    controller: Arc<DaemonSetController>,
    events: mpsc::Receiver<Record>,
}

fn key() -> Key {
    Key::new("infra", "agent")
}

fn template(image: &str) -> Value {
    json!({
        "metadata": {"labels": {"app": "agent"}},
        "spec": {"containers": [{"name": "c", "image": image}], "nodeSelector": {"os": "linux"}}
    })
}

fn bench(nodes: &[&str], strategy: Value) -> Bench {
    let api = FakeApi::new();
    api.seed::<DaemonSet>(json!({
        "metadata": {"name": "agent", "namespace": "infra", "generation": 1},
        "spec": {
            "selector": {"matchLabels": {"app": "agent"}}, "template": template("v1"),
            "updateStrategy": strategy
        }
    }));
    let (recorder, events) = Recorder::channel();
    let controller = DaemonSetController::new(
        api.clone(),
        recorder,
        Arc::default(),
        Arc::default(),
        Arc::default(),
        Arc::default(),
    );
    let bench = Bench {
        api,
        controller,
        events,
    };
    for node in nodes {
        bench.node(node, json!({}));
    }
    bench
}

fn rolling(bounds: Value) -> Value {
    json!({"type": "RollingUpdate", "rollingUpdate": bounds})
}

impl Bench {
    fn node(&self, name: &str, spec: Value) {
        self.api.seed::<Node>(json!({
            "metadata": {"name": name, "labels": {"os": "linux"}}, "spec": spec
        }));
    }

    async fn settle(&self) {
        settle(&*self.controller, || {
            self.api.pump(&self.controller.nodes);
            self.api.pump(&self.controller.sets);
            self.api.pump(&self.controller.pods);
            self.api.pump(&self.controller.revisions);
        })
        .await;
    }

    /// Binds every pod where it wants to go and makes it ready.
    fn run_pods(&self) {
        for pod in self.pods() {
            let node = pod_node(&pod).or_else(|| nodes::intended(&pod)).unwrap();
            let running = json!({"spec": {"nodeName": node}, "status": {
                "phase": "Running", "conditions": [{
                    "type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"
                }]
            }});
            self.api.change("pods", &Key::of(&pod), running);
        }
    }

    async fn run(&self) {
        self.settle().await;
        self.run_pods();
        self.settle().await;
    }

    fn pods(&self) -> Vec<Pod> {
        self.api.all()
    }

    /// (node, image), sorted.
    fn places(&self) -> Vec<(String, String)> {
        let mut places: Vec<_> = self
            .pods()
            .iter()
            .map(|pod| {
                let node = pod_node(pod).or_else(|| nodes::intended(pod)).unwrap();
                let image = pod.spec.as_ref().unwrap().containers[0].image.clone();
                (node.to_owned(), image.unwrap())
            })
            .collect();
        places.sort();
        places
    }

    fn on(&self, image: &str) -> usize {
        self.places().iter().filter(|(_, own)| own == image).count()
    }

    fn update(&self, image: &str) {
        let spec = json!({"spec": {"template": template(image)}});
        self.api.change("daemonsets", &key(), spec);
    }

    fn status(&self) -> k8s_openapi::api::apps::v1::DaemonSetStatus {
        self.api.all::<DaemonSet>()[0].status.clone().unwrap()
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
async fn every_fitting_node_has_one_pod_tied_to_it() {
    let bench = bench(&["a", "b"], rolling(json!({})));
    let taint = json!({"taints": [{"key": "k", "effect": "NoSchedule"}]});
    bench.node("tainted", taint);
    bench
        .api
        .seed::<Node>(json!({"metadata": {"name": "other-os", "labels": {"os": "x"}}}));
    let cordoned = json!({"taints": [
        {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}
    ]});
    bench.node("cordoned", cordoned);
    bench.run().await;
    let nodes: Vec<_> = bench.places().into_iter().map(|(node, _)| node).collect();
    assert_eq!(nodes, ["a", "b", "cordoned"]);
    let status = bench.status();
    assert_eq!(
        (
            status.desired_number_scheduled,
            status.number_ready,
            status.number_available
        ),
        (3, 3, Some(3))
    );
    bench.node("c", json!({}));
    bench.run().await;
    assert_eq!(bench.pods().len(), 4);
}

#[tokio::test]
async fn pods_go_from_nodes_that_no_longer_fit() {
    let bench = bench(&["a", "b"], rolling(json!({})));
    bench.run().await;
    bench.api.change(
        "nodes",
        &Key::new("", "a"),
        json!({"metadata": {"labels": {"os": "x"}}}),
    );
    bench.run().await;
    assert_eq!(bench.places().len(), 1);
    // NoSchedule keeps new ones away, NoExecute also drives away those that are there.
    let taint = |effect: &str| json!({"spec": {"taints": [{"key": "k", "effect": effect}]}});
    bench
        .api
        .change("nodes", &Key::new("", "b"), taint("NoSchedule"));
    bench.run().await;
    assert_eq!(bench.places().len(), 1);
    assert_eq!(bench.status().number_misscheduled, 1);
    bench
        .api
        .change("nodes", &Key::new("", "b"), taint("NoExecute"));
    bench.run().await;
    assert!(bench.places().is_empty());
}

#[tokio::test]
async fn an_update_stays_within_the_unavailable_bound() {
    let bench = bench(&["a", "b", "c", "d"], rolling(json!({"maxUnavailable": 2})));
    bench.run().await;
    bench.update("v2");
    bench.settle().await;
    assert_eq!(bench.on("v1"), 2);
    bench.run().await;
    bench.run().await;
    assert_eq!((bench.on("v1"), bench.on("v2")), (0, 4));
    assert_eq!(bench.status().updated_number_scheduled, Some(4));
    assert_eq!(bench.api.all::<ControllerRevision>().len(), 2);
}

#[tokio::test]
async fn a_surge_brings_the_new_pod_before_the_old_one_goes() {
    let bench = bench(
        &["a", "b"],
        rolling(json!({"maxSurge": 1, "maxUnavailable": 0})),
    );
    bench.run().await;
    bench.update("v2");
    bench.settle().await;
    assert_eq!((bench.on("v1"), bench.on("v2")), (2, 1));
    bench.run().await;
    assert_eq!(
        (bench.on("v1"), bench.on("v2")),
        (1, 2),
        "one replaced, the next comes"
    );
    bench.run().await;
    assert_eq!((bench.on("v1"), bench.on("v2")), (0, 2));
}

#[tokio::test]
async fn on_delete_replaces_only_what_somebody_deletes() {
    let bench = bench(&["a", "b"], json!({"type": "OnDelete"}));
    bench.run().await;
    bench.update("v2");
    bench.run().await;
    assert_eq!(bench.on("v1"), 2);
    bench.api.remove("pods", &Key::of(&bench.pods()[0]));
    bench.run().await;
    assert_eq!((bench.on("v1"), bench.on("v2")), (1, 1));
}

#[tokio::test]
async fn failed_pods_are_replaced_and_doubles_removed() {
    let mut bench = bench(&["a"], rolling(json!({})));
    bench.run().await;
    let pod = bench.pods().pop().unwrap();
    bench.api.change(
        "pods",
        &Key::of(&pod),
        json!({"status": {"phase": "Failed"}}),
    );
    bench.run().await;
    assert_eq!(bench.pods().len(), 1);
    assert_ne!(bench.pods()[0].metadata.uid, pod.metadata.uid);
    let events = bench.events();
    assert!(
        events
            .iter()
            .any(|event| event.starts_with("FailedDaemonPod")),
        "{events:?}"
    );
    let mut double = json!(bench.pods()[0]);
    double["metadata"]["name"] = "double".into();
    double["metadata"]["uid"] = "double".into();
    bench.api.seed::<Pod>(double);
    bench.run().await;
    assert_eq!(bench.pods().len(), 1);
}
