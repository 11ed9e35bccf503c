use hull_client::events::Record;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::*;
use crate::runtime::fake::{FakeApi, refused, settle};

struct Bench {
    api: Arc<FakeApi>,
    controller: Arc<StatefulSetController>,
    events: mpsc::Receiver<Record>,
}

fn key() -> Key {
    Key::new("shop", "db")
}

fn bench(spec: Value) -> Bench {
    let api = FakeApi::new();
    let mut full = json!({
        "replicas": 3, "serviceName": "db", "selector": {"matchLabels": {"app": "db"}},
        "podManagementPolicy": "OrderedReady",
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
        "template": {
            "metadata": {"labels": {"app": "db"}},
            "spec": {"containers": [{"name": "c", "image": "v1"}]}
        },
        "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {}}]
    });
    for (key, value) in spec.as_object().unwrap() {
        full[key] = value.clone();
    }
    api.seed::<StatefulSet>(json!({"metadata": {"name": "db", "namespace": "shop"}, "spec": full}));
    let (recorder, events) = Recorder::channel();
    let controller = StatefulSetController::new(
        api.clone(),
        recorder,
        Arc::default(),
        Arc::default(),
        Arc::default(),
        Arc::default(),
    );
    Bench {
        api,
        controller,
        events,
    }
}

impl Bench {
    async fn settle(&self) {
        settle(&*self.controller, || {
            self.api.pump(&self.controller.sets);
            self.api.pump(&self.controller.pods);
            self.api.pump(&self.controller.claims);
            self.api.pump(&self.controller.revisions);
        })
        .await;
    }

    /// Until all pods run, one at a time as the controller asks for them.
    async fn run(&self) {
        for _ in 0..20 {
            self.settle().await;
            let waiting: Vec<_> = self
                .pods()
                .into_iter()
                .filter(|pod| !slots::is_healthy(pod))
                .collect();
            if waiting.is_empty() {
                return;
            }
            for pod in waiting {
                self.ready(&pod.metadata.name.unwrap());
            }
        }
        panic!("pods come and go for ever");
    }

    fn ready(&self, name: &str) {
        let ready = json!({"status": {"phase": "Running", "conditions": [
            {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}
        ]}});
        self.api.change("pods", &Key::new("shop", name), ready);
    }

    fn change(&self, spec: Value) {
        self.api
            .change("statefulsets", &key(), json!({"spec": spec}));
    }

    fn pods(&self) -> Vec<Pod> {
        self.api.all()
    }

    fn names(&self) -> Vec<String> {
        self.pods()
            .into_iter()
            .map(|pod| pod.metadata.name.unwrap())
            .collect()
    }

    fn images(&self) -> Vec<String> {
        let image = |pod: Pod| pod.spec.unwrap().containers[0].image.clone().unwrap();
        self.pods().into_iter().map(image).collect()
    }

    fn status(&self) -> k8s_openapi::api::apps::v1::StatefulSetStatus {
        self.api.all::<StatefulSet>()[0].status.clone().unwrap()
    }

    fn events(&mut self) -> Vec<String> {
        let mut events = Vec::new();
        while let Ok(record) = self.events.try_recv() {
            events.push(format!("{} {}", record.reason, record.message));
        }
        events
    }
}

fn image(image: &str) -> Value {
    json!({"template": {
        "metadata": {"labels": {"app": "db"}},
        "spec": {"containers": [{"name": "c", "image": image}]}
    }})
}

#[tokio::test]
async fn pods_come_one_after_another_with_names_and_claims_of_their_own() {
    let mut bench = bench(json!({}));
    bench.settle().await;
    assert_eq!(
        bench.names(),
        ["db-0"],
        "the next waits until the first is ready"
    );
    bench.run().await;
    assert_eq!(bench.names(), ["db-0", "db-1", "db-2"]);
    let pod = &bench.pods()[1];
    let labels = pod.metadata.labels.as_ref().unwrap();
    assert_eq!(labels["statefulset.kubernetes.io/pod-name"], "db-1");
    assert_eq!(labels["apps.kubernetes.io/pod-index"], "1");
    let spec = pod.spec.as_ref().unwrap();
    assert_eq!(spec.hostname.as_deref(), Some("db-1"));
    assert_eq!(spec.subdomain.as_deref(), Some("db"));
    let volume = &spec.volumes.as_ref().unwrap()[0];
    let claim = volume.persistent_volume_claim.as_ref().unwrap();
    assert_eq!(
        (volume.name.as_str(), claim.claim_name.as_str()),
        ("data", "data-db-1")
    );
    assert_eq!(bench.api.all::<PersistentVolumeClaim>().len(), 3);
    let status = bench.status();
    assert_eq!((status.replicas, status.ready_replicas), (3, Some(3)));
    assert_eq!(status.current_revision, status.update_revision);
    let events = bench.events();
    assert_eq!(
        events[0],
        "SuccessfulCreate create Claim data-db-0 Pod db-0 in StatefulSet db success"
    );
    assert_eq!(
        events[1],
        "SuccessfulCreate create Pod db-0 in StatefulSet db successful"
    );
}

#[tokio::test]
async fn parallel_sets_do_not_wait_and_may_start_at_another_number() {
    let bench = bench(json!({"podManagementPolicy": "Parallel", "ordinals": {"start": 5}}));
    bench.settle().await;
    assert_eq!(bench.names(), ["db-5", "db-6", "db-7"]);
}

#[tokio::test]
async fn scaling_down_takes_the_last_pod_first_and_keeps_claims() {
    let bench = bench(json!({}));
    bench.run().await;
    bench.api.take_requests();
    bench.change(json!({"replicas": 1}));
    bench.run().await;
    let deleted: Vec<_> = bench
        .api
        .take_requests()
        .into_iter()
        .filter(|request| request.starts_with("delete pods"))
        .collect();
    assert_eq!(deleted, ["delete pods shop/db-2", "delete pods shop/db-1"]);
    assert_eq!(bench.api.all::<PersistentVolumeClaim>().len(), 3);
}

#[tokio::test]
async fn the_retention_policy_makes_a_scaled_pod_the_owner_of_its_claims() {
    let bench = bench(json!({"persistentVolumeClaimRetentionPolicy": {
        "whenScaled": "Delete", "whenDeleted": "Retain"
    }}));
    bench.run().await;
    let uid = bench.pods()[2].metadata.uid.clone().unwrap();
    bench.change(json!({"replicas": 2}));
    bench.run().await;
    let claims: Vec<PersistentVolumeClaim> = bench.api.all();
    let owners: Vec<_> = claims
        .iter()
        .map(|claim| claim.metadata.owner_references.clone().unwrap_or_default())
        .collect();
    assert_eq!(owners[2][0].uid, uid);
    assert!(owners[0].is_empty() && owners[1].is_empty());
    // Until the garbage collector has taken the claim, the number stays empty.
    bench.change(json!({"replicas": 3}));
    bench.settle().await;
    assert_eq!(bench.names(), ["db-0", "db-1"]);
    bench
        .api
        .remove("persistentvolumeclaims", &Key::new("shop", "data-db-2"));
    bench.controller.queue.add(key());
    bench.run().await;
    assert_eq!(bench.names().len(), 3);
}

#[tokio::test]
async fn an_update_goes_from_the_last_pod_down_to_the_partition() {
    let bench = bench(json!({}));
    bench.run().await;
    bench.change(image("v2"));
    bench.change(json!({"updateStrategy": {"rollingUpdate": {"partition": 1}}}));
    bench.settle().await;
    assert_eq!(
        bench.images(),
        ["v1", "v1", "v2"],
        "the second waits for the last"
    );
    bench.run().await;
    assert_eq!(bench.images(), ["v1", "v2", "v2"]);
    let status = bench.status();
    assert_eq!(
        (status.current_replicas, status.updated_replicas),
        (Some(1), Some(2))
    );
    // A pod below the partition comes back as it was.
    bench.api.remove("pods", &Key::new("shop", "db-0"));
    bench.run().await;
    assert_eq!(bench.images(), ["v1", "v2", "v2"]);
    bench.change(json!({"updateStrategy": {"rollingUpdate": {"partition": 0}}}));
    bench.run().await;
    assert_eq!(bench.images(), ["v2", "v2", "v2"]);
    let status = bench.status();
    assert_eq!(status.current_revision, status.update_revision);
}

#[tokio::test]
async fn max_unavailable_lets_several_go_at_a_time() {
    let bench = bench(json!({
        "replicas": 4, "podManagementPolicy": "Parallel",
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 2}}
    }));
    bench.run().await;
    bench.change(image("v2"));
    bench.settle().await;
    let old = bench.images().iter().filter(|image| *image == "v1").count();
    assert_eq!(old, 2, "no more than two at a time");
    bench.run().await;
    assert_eq!(bench.images(), ["v2"; 4]);
}

#[tokio::test]
async fn on_delete_waits_for_somebody_to_delete_the_pods() {
    let bench = bench(json!({"updateStrategy": {"type": "OnDelete"}}));
    bench.run().await;
    bench.change(image("v2"));
    bench.run().await;
    assert_eq!(bench.images(), ["v1", "v1", "v1"]);
    bench.api.remove("pods", &Key::new("shop", "db-1"));
    bench.run().await;
    assert_eq!(bench.images(), ["v1", "v2", "v1"]);
}

#[tokio::test]
async fn a_rollback_makes_the_old_revision_the_newest_again() {
    let bench = bench(json!({}));
    bench.run().await;
    let first = bench.status().current_revision;
    bench.change(image("v2"));
    bench.run().await;
    assert_ne!(bench.status().current_revision, first);
    bench.change(image("v1"));
    bench.run().await;
    assert_eq!(bench.status().current_revision, first);
    let revisions: Vec<ControllerRevision> = bench.api.all();
    assert_eq!(revisions.len(), 2);
    assert_eq!(revisions.iter().map(|own| own.revision).max(), Some(3));
}

#[tokio::test]
async fn failed_pods_are_made_anew_under_their_name() {
    let mut bench = bench(json!({"replicas": 1}));
    bench.run().await;
    let before = bench.pods()[0].metadata.uid.clone();
    bench.api.change(
        "pods",
        &Key::new("shop", "db-0"),
        json!({"status": {"phase": "Failed"}}),
    );
    bench.settle().await;
    assert_ne!(bench.pods()[0].metadata.uid, before);
    let expected = "RecreatingFailedPod StatefulSet shop/db is recreating failed Pod db-0";
    assert!(bench.events().contains(&expected.to_owned()));
}

#[tokio::test]
async fn pods_of_other_names_and_owners_are_left_alone() {
    let bench = bench(json!({"replicas": 1}));
    for (name, owner) in [
        ("db-x", None),
        ("other-0", None),
        ("db-7", Some("somebody")),
    ] {
        let owners = owner.map(|uid| {
            json!([{"apiVersion": "v1", "kind": "X", "name": "x", "uid": uid, "controller": true}])
        });
        bench.api.seed::<Pod>(json!({
            "metadata": {
                "name": name, "namespace": "shop", "labels": {"app": "db"},
                "ownerReferences": owners
            },
            "spec": {"containers": []}
        }));
    }
    bench.ready("db-x");
    bench.ready("other-0");
    bench.ready("db-7");
    bench.run().await;
    assert_eq!(bench.names(), ["db-0", "db-7", "db-x", "other-0"]);
}

#[tokio::test]
async fn requests_that_fail_are_tried_again_without_doubles() {
    let bench = bench(json!({}));
    for request in [
        "create pods",
        "create persistentvolumeclaims",
        "create controllerrevisions",
    ] {
        bench.api.fail(request, refused(500, "InternalError", "no"));
    }
    bench
        .api
        .fail("replace statefulsets", refused(409, "Conflict", "changed"));
    bench.run().await;
    assert_eq!(bench.names().len(), 3);
    assert_eq!(bench.api.all::<ControllerRevision>().len(), 1);
}
