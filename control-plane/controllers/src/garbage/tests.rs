use k8s_openapi::api::{
    apps::v1::{Deployment, ReplicaSet},
    core::v1::{ConfigMap, Node, Pod},
};
use kube::{api::ObjectMeta, core::GroupVersionKind};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{graph::FOREGROUND, graph::ORPHAN, *};
use crate::runtime::fake::FakeApi;

struct Bench {
    api: Arc<FakeApi>,
    collector: Arc<GarbageCollector>,
    deployments: Informer<Deployment>,
    sets: Informer<ReplicaSet>,
    pods: Informer<Pod>,
    maps: Informer<ConfigMap>,
    nodes: Informer<Node>,
}

fn bench() -> Bench {
    let api = FakeApi::new();
    let collector = GarbageCollector::new(api.clone());
    let bench = Bench {
        api,
        collector,
        deployments: Informer::default(),
        sets: Informer::default(),
        pods: Informer::default(),
        maps: Informer::default(),
        nodes: Informer::default(),
    };
    bench.collector.follow(&bench.deployments);
    bench.collector.follow(&bench.sets);
    bench.collector.follow(&bench.pods);
    bench.collector.follow(&bench.maps);
    bench.collector.follow(&bench.nodes);
    bench.collector.monitors.assume_listed();
    bench
}

fn reference<K: Resource<DynamicType = ()>>(owner: &K) -> Value {
    json!({
        "apiVersion": K::api_version(&()), "kind": K::kind(&()),
        "name": owner.meta().name, "uid": owner.meta().uid, "blockOwnerDeletion": true
    })
}

impl Bench {
    fn seed<K: Resource<DynamicType = ()> + DeserializeOwned>(
        &self,
        name: &str,
        owners: &[Value],
    ) -> K {
        self.api.seed::<K>(json!({
            "metadata": {"name": name, "namespace": "shop", "ownerReferences": owners},
            "spec": {"containers": [], "selector": {}, "template": {}}
        }))
    }

    /// deployment ← set ← two pods
    fn family(&self) -> (Deployment, ReplicaSet) {
        let deployment: Deployment = self.seed("web", &[]);
        let set: ReplicaSet = self.seed("web-1", &[reference(&deployment)]);
        self.seed::<Pod>("web-1-a", &[reference(&set)]);
        self.seed::<Pod>("web-1-b", &[reference(&set)]);
        (deployment, set)
    }

    fn pump(&self) {
        self.api.pump(&self.deployments);
        self.api.pump(&self.sets);
        self.api.pump(&self.pods);
        self.api.pump(&self.maps);
        self.api.pump(&self.nodes);
    }

    async fn settle(&self) {
        self.pump();
        for _ in 0..50 {
            let keys = self.collector.queue.take_all();
            if keys.is_empty() {
                return;
            }
            for key in keys {
                self.collector.reconcile(&key).await.unwrap();
            }
            self.pump();
        }
        panic!("does not come to rest");
    }

    /// As the API server does it for `DELETE` with a policy.
    fn delete(&self, plural: &str, name: &str, finalizer: Option<&str>) {
        let key = Key::new("shop", name);
        match finalizer {
            None => self.api.remove(plural, &key),
            Some(finalizer) => self.api.change(
                plural,
                &key,
                json!({"metadata": {
                    "deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": [finalizer]
                }}),
            ),
        }
    }

    fn left(&self) -> usize {
        self.api.all::<Deployment>().len()
            + self.api.all::<ReplicaSet>().len()
            + self.api.all::<Pod>().len()
            + self.api.all::<ConfigMap>().len()
    }
}

/// Of a kind that was not watched yet, the owner's end is seen by its absence.
#[test]
fn dependents_of_owners_that_nobody_has_seen_are_found_by_kind() {
    let gvk = |kind| GroupVersionKind::gvk("example.com", "v1", kind);
    let gadgets = ApiResource::from_gvk(&gvk("Gadget"));
    let widgets = ApiResource::from_gvk(&gvk("Widget"));
    let meta = |value: Value| serde_json::from_value::<ObjectMeta>(value).unwrap();
    let mut graph = Graph::default();
    let owner = json!({"apiVersion": "example.com/v1", "kind": "Gadget", "name": "g", "uid": "u"});
    let owned = meta(json!({"name": "m", "uid": "m", "ownerReferences": [owner]}));
    graph.observe(&resource_of::<ConfigMap>(), &owned);
    assert_eq!(graph.with_unseen_owner(&gadgets), ["m"]);
    assert!(graph.with_unseen_owner(&widgets).is_empty());
    graph.observe(&gadgets, &meta(json!({"name": "g", "uid": "u"})));
    assert!(graph.with_unseen_owner(&gadgets).is_empty());
    graph.remove("u");
    assert_eq!(graph.with_unseen_owner(&gadgets), ["m"]);
}

#[tokio::test]
async fn nothing_is_touched_while_all_owners_live() {
    let bench = bench();
    bench.family();
    bench.settle().await;
    assert_eq!(bench.left(), 4);
    assert!(bench.api.take_requests().is_empty());
}

#[tokio::test]
async fn background_deletion_takes_the_whole_tree() {
    let bench = bench();
    bench.family();
    bench.settle().await;
    bench.delete("deployments", "web", None);
    bench.settle().await;
    assert_eq!(bench.left(), 0);
}

#[tokio::test]
async fn objects_created_for_an_owner_that_was_gone_before_are_collected() {
    let bench = bench();
    let owner = json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "never", "uid": "gone"
    });
    bench.seed::<Pod>("lost", &[owner]);
    bench.settle().await;
    assert_eq!(bench.left(), 0);
}

#[tokio::test]
async fn an_owner_of_the_same_name_and_another_uid_is_not_the_owner() {
    let bench = bench();
    let set: ReplicaSet = bench.seed("web", &[]);
    let mut other = reference(&set);
    other["uid"] = "before".into();
    bench.seed::<Pod>("lost", &[other]);
    bench.settle().await;
    assert!(bench.api.all::<Pod>().is_empty());
    assert_eq!(bench.api.all::<ReplicaSet>().len(), 1);
}

#[tokio::test]
async fn one_living_owner_is_enough() {
    let bench = bench();
    let one: ConfigMap = bench.seed("one", &[]);
    let two: ConfigMap = bench.seed("two", &[]);
    bench.seed::<Pod>("shared", &[reference(&one), reference(&two)]);
    bench.settle().await;
    bench.delete("configmaps", "one", None);
    bench.settle().await;
    let pod = bench.api.all::<Pod>().pop().unwrap();
    let owners: Vec<_> = pod
        .metadata
        .owner_references
        .unwrap()
        .into_iter()
        .map(|owner| owner.name)
        .collect();
    assert_eq!(owners, ["two"]);
}

#[tokio::test]
async fn an_owner_that_only_the_watch_misses_keeps_its_dependents() {
    let bench = bench();
    let set: ReplicaSet = bench.seed("web", &[]);
    bench.seed::<Pod>("web-a", &[reference(&set)]);
    bench.api.pump(&bench.pods);
    for key in bench.collector.queue.take_all() {
        bench.collector.reconcile(&key).await.unwrap();
    }
    assert_eq!(bench.left(), 2);
}

#[tokio::test]
async fn foreground_deletion_goes_from_the_leaves_up() {
    let bench = bench();
    bench.family();
    bench.settle().await;
    bench.api.take_requests();
    let hold = json!({"metadata": {"finalizers": ["test/hold"]}});
    bench.api.change("pods", &Key::new("shop", "web-1-a"), hold);
    bench.delete("deployments", "web", Some(FOREGROUND));
    bench.settle().await;
    assert_eq!(bench.api.all::<Deployment>().len(), 1, "waits for the set");
    assert_eq!(
        bench.api.all::<ReplicaSet>().len(),
        1,
        "waits for the pod that is held"
    );
    assert_eq!(bench.api.all::<Pod>().len(), 1);
    bench.api.remove("pods", &Key::new("shop", "web-1-a"));
    bench.settle().await;
    assert_eq!(bench.left(), 0);
}

#[tokio::test]
async fn foreground_deletion_does_not_wait_for_dependents_that_do_not_block() {
    let bench = bench();
    let owner: ConfigMap = bench.seed("owner", &[]);
    let mut lax = reference(&owner);
    lax["blockOwnerDeletion"] = false.into();
    bench.seed::<Pod>("lax", &[lax]);
    bench.settle().await;
    let hold = json!({"metadata": {"finalizers": ["test/hold"]}});
    bench.api.change("pods", &Key::new("shop", "lax"), hold);
    bench.delete("configmaps", "owner", Some(FOREGROUND));
    bench.settle().await;
    assert!(bench.api.all::<ConfigMap>().is_empty());
    assert!(
        bench.api.all::<Pod>()[0]
            .metadata
            .deletion_timestamp
            .is_some()
    );
}

#[tokio::test]
async fn a_living_owner_keeps_a_dependent_and_nobody_waiting() {
    let bench = bench();
    let one: ConfigMap = bench.seed("one", &[]);
    let two: ConfigMap = bench.seed("two", &[]);
    bench.seed::<Pod>("shared", &[reference(&one), reference(&two)]);
    bench.seed::<Pod>("own", &[reference(&one)]);
    bench.settle().await;
    bench.delete("configmaps", "one", Some(FOREGROUND));
    bench.settle().await;
    let names = |metas: Vec<Option<String>>| metas.into_iter().flatten().collect::<Vec<_>>();
    let maps = bench.api.all::<ConfigMap>().into_iter();
    assert_eq!(names(maps.map(|map| map.metadata.name).collect()), ["two"]);
    let pods = bench.api.all::<Pod>();
    let owners = pods[0].metadata.owner_references.iter().flatten();
    let owners: Vec<_> = owners.map(|owner| owner.name.as_str()).collect();
    assert_eq!(owners, ["two"]);
    let pods = pods.into_iter();
    assert_eq!(
        names(pods.map(|pod| pod.metadata.name).collect()),
        ["shared"]
    );
}

#[tokio::test]
async fn a_circle_of_owners_goes_whole() {
    for finalizer in [None, Some(FOREGROUND)] {
        let bench = bench();
        let first: ConfigMap = bench.seed("first", &[]);
        let second: ConfigMap = bench.seed("second", &[reference(&first)]);
        let third: ConfigMap = bench.seed("third", &[reference(&second)]);
        let closing = json!({"metadata": {"ownerReferences": [reference(&third)]}});
        bench
            .api
            .change("configmaps", &Key::new("shop", "first"), closing);
        bench.settle().await;
        assert_eq!(bench.left(), 3);
        bench.delete("configmaps", "first", finalizer);
        bench.settle().await;
        assert_eq!(bench.left(), 0, "{finalizer:?}");
    }
}

#[tokio::test]
async fn orphaning_leaves_the_dependents_without_the_owner() {
    let bench = bench();
    bench.family();
    bench.settle().await;
    bench.delete("deployments", "web", Some(ORPHAN));
    bench.settle().await;
    assert!(bench.api.all::<Deployment>().is_empty());
    let set = bench.api.all::<ReplicaSet>().pop().unwrap();
    assert_eq!(set.metadata.owner_references.unwrap_or_default(), []);
    assert_eq!(bench.api.all::<Pod>().len(), 2);
}

#[tokio::test]
async fn an_owner_in_another_namespace_is_none() {
    let bench = bench();
    let stranger: ConfigMap = bench.api.seed(json!({
        "metadata": {"name": "far", "namespace": "elsewhere"}
    }));
    bench.seed::<Pod>("near", &[reference(&stranger)]);
    bench.settle().await;
    assert!(bench.api.all::<Pod>().is_empty());
}

#[tokio::test]
async fn a_cluster_scoped_owner_owns_across_namespaces() {
    let bench = bench();
    let node: Node = bench.api.seed(json!({"metadata": {"name": "node"}}));
    bench.seed::<Pod>("mirror", &[reference(&node)]);
    bench.settle().await;
    assert_eq!(bench.api.all::<Pod>().len(), 1);
    bench.api.remove("nodes", &Key::new("", "node"));
    bench.settle().await;
    assert!(bench.api.all::<Pod>().is_empty());
}

#[tokio::test]
async fn waits_until_every_kind_has_been_listed() {
    let api = FakeApi::new();
    let collector = GarbageCollector::new(api);
    let waiting = collector.reconcile(&Key::new("", "x")).await;
    assert!(matches!(waiting, Err(ReconcileError::Waiting(_))));
}
