use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ConfigMap, Node, Pod},
};
use serde_json::Value;

use super::*;
use crate::runtime::fake::{FakeApi, refused};

struct Bench {
    api: Arc<FakeApi>,
    controller: Arc<NamespaceController>,
}

fn key() -> Key {
    Key::new("", "shop")
}

fn bench() -> Bench {
    let api = FakeApi::new();
    let controller = NamespaceController::new(api.clone(), Arc::default());
    api.seed::<Namespace>(json!({
        "metadata": {"name": "shop", "deletionTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"finalizers": [FINALIZER]}, "status": {"phase": "Active"}
    }));
    Bench { api, controller }
}

fn in_shop(name: &str, finalizers: Value) -> Value {
    json!({"metadata": {"name": name, "namespace": "shop", "finalizers": finalizers}})
}

impl Bench {
    async fn round(&self) -> Result<Action, ReconcileError> {
        self.api.pump(&self.controller.namespaces);
        self.controller.reconcile(&key()).await
    }

    fn namespace(&self) -> Namespace {
        self.api.all().pop().unwrap()
    }

    fn condition(&self, kind: &str) -> (String, String) {
        let conditions = self.namespace().status.unwrap().conditions.unwrap();
        let found = conditions
            .into_iter()
            .find(|condition| condition.type_ == kind)
            .unwrap();
        (found.status, found.message.unwrap())
    }

    fn finalizers(&self) -> Vec<String> {
        self.namespace()
            .spec
            .unwrap()
            .finalizers
            .unwrap_or_default()
    }
}

#[tokio::test]
async fn deletes_everything_of_the_namespace_and_nothing_else() {
    let bench = bench();
    bench.api.seed::<ConfigMap>(in_shop("settings", json!([])));
    bench.api.seed::<Pod>(in_shop("web", json!([])));
    bench
        .api
        .seed::<ConfigMap>(json!({"metadata": {"name": "other", "namespace": "default"}}));
    bench
        .api
        .seed::<Node>(json!({"metadata": {"name": "node"}}));
    assert_eq!(bench.round().await.unwrap(), Action::Done);
    assert!(bench.api.all::<Pod>().is_empty());
    assert_eq!(bench.api.all::<ConfigMap>().len(), 1);
    assert_eq!(bench.api.all::<Node>().len(), 1);
    assert!(bench.finalizers().is_empty());
    assert!(
        bench
            .api
            .take_requests()
            .contains(&"replace namespaces shop/finalize".to_owned())
    );
}

#[tokio::test]
async fn everything_waits_for_the_pods() {
    let bench = bench();
    bench.api.seed::<Pod>(in_shop("web", json!(["test/slow"])));
    bench.api.seed::<Deployment>(in_shop("web", json!([])));
    assert_eq!(bench.round().await.unwrap(), Action::After(RECHECK));
    assert_eq!(
        bench.api.all::<Deployment>().len(),
        1,
        "not before the pods are gone"
    );
    let remaining = bench.condition("NamespaceContentRemaining");
    assert_eq!(
        remaining,
        (
            "True".into(),
            "Some resources are remaining: pods has 1 resource instances".into()
        )
    );
    assert_eq!(
        bench.condition("NamespaceFinalizersRemaining").1,
        "Some content in the namespace has finalizers remaining: test/slow in 1 resource instances"
    );
    assert_eq!(
        bench.namespace().status.unwrap().phase.as_deref(),
        Some("Terminating")
    );
    bench.api.take_requests();
    bench.round().await.unwrap();
    assert!(
        bench.api.take_requests().is_empty(),
        "waiting writes nothing"
    );
    bench.api.remove("pods", &Key::new("shop", "web"));
    assert_eq!(bench.round().await.unwrap(), Action::Done);
    assert!(bench.api.all::<Deployment>().is_empty());
    assert!(bench.finalizers().is_empty());
}

#[tokio::test]
async fn a_refused_deletion_is_shown_and_tried_again() {
    let bench = bench();
    bench.api.seed::<ConfigMap>(in_shop("settings", json!([])));
    bench.api.fail(
        "delete configmaps",
        refused(500, "InternalError", "no quorum"),
    );
    assert!(bench.round().await.is_err());
    let (status, message) = bench.condition("NamespaceDeletionContentFailure");
    assert_eq!(status, "True");
    assert!(message.contains("no quorum"), "{message}");
    assert_eq!(bench.finalizers(), [FINALIZER]);
    bench.round().await.unwrap();
    assert_eq!(
        bench.condition("NamespaceDeletionContentFailure").0,
        "False"
    );
    assert!(bench.finalizers().is_empty());
}

#[tokio::test]
async fn other_finalizers_are_left_alone() {
    let bench = bench();
    let both = json!({"spec": {"finalizers": ["mine", FINALIZER]}});
    bench.api.change("namespaces", &key(), both);
    bench.round().await.unwrap();
    assert_eq!(bench.finalizers(), ["mine"]);
}

#[tokio::test]
async fn an_active_namespace_is_never_touched() {
    let bench = bench();
    bench.api.change(
        "namespaces",
        &key(),
        json!({"metadata": {"deletionTimestamp": null}}),
    );
    bench.api.seed::<ConfigMap>(in_shop("settings", json!([])));
    bench.round().await.unwrap();
    assert!(bench.api.take_requests().is_empty());
}
