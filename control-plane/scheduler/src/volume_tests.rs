//! Pods with volumes.

use std::time::Duration;

use serde_json::{Value, json};

use super::{
    tests::{Bench, node, on, pod},
    *,
};

fn zoned(name: &str, zone: &str) -> Node {
    let mut node = node(name, "4", json!({}));
    let labels = node.metadata.labels.get_or_insert_default();
    labels.insert("topology.kubernetes.io/zone".into(), zone.into());
    node
}

impl Bench {
    fn claim(&mut self, name: &str, class: &str, volume: &str, modes: &str) {
        let bound = json!({"pv.kubernetes.io/bind-completed": "yes"});
        let annotations = if volume.is_empty() { json!({}) } else { bound };
        let claim = json!({
            "metadata": {"name": name, "namespace": "default", "uid": name, "annotations": annotations},
            "spec": {"storageClassName": class, "volumeName": volume, "accessModes": [modes],
                "resources": {"requests": {"storage": "1Gi"}}}});
        let change = Change::Applied(serde_json::from_value(claim).unwrap());
        self.core.observe_claim(change, self.now);
    }

    /// A volume that only `host` reaches.
    fn volume(&mut self, name: &str, class: &str, host: &str, labels: Value) {
        self.volume_of(
            name,
            class,
            host,
            json!({"labels": labels, "phase": "Available"}),
        );
    }

    /// With the `labels`, `phase`, `claimRef` and `accessModes` of `rest`.
    fn volume_of(&mut self, name: &str, class: &str, host: &str, rest: Value) {
        let volume = json!({
            "metadata": {"name": name, "labels": rest["labels"]},
            "spec": {"storageClassName": class, "capacity": {"storage": "2Gi"},
                "accessModes": rest.get("accessModes").unwrap_or(&json!(["ReadWriteOnce"])),
                "claimRef": rest["claimRef"],
                "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
                    {"key": "kubernetes.io/hostname", "operator": "In", "values": [host]}]}]}}},
            "status": {"phase": rest["phase"]}});
        let change = Change::Applied(serde_json::from_value(volume).unwrap());
        self.core.observe_volume(change, self.now);
    }

    fn class(&mut self, name: &str, provisioner: &str) {
        let class = json!({"metadata": {"name": name}, "provisioner": provisioner,
            "volumeBindingMode": "WaitForFirstConsumer",
            "allowedTopologies": [{"matchLabelExpressions": [
                {"key": "topology.kubernetes.io/zone", "values": ["west"]}]}]});
        let change = Change::Applied(serde_json::from_value(class).unwrap());
        self.core.observe_class(change, self.now);
    }
}

fn with_claim(name: &str, claim: &str) -> Pod {
    let volumes = json!([{"name": "data", "persistentVolumeClaim": {"claimName": claim}}]);
    pod(name, "1", json!({"volumes": volumes}))
}

fn two_zones() -> Bench {
    Bench::with_nodes([zoned("a", "east"), zoned("b", "west")])
}

#[test]
fn a_pod_goes_where_its_volume_is() {
    let mut bench = two_zones();
    bench.volume("disk", "local", "b", json!({}));
    bench.claim("data", "local", "disk", "ReadWriteOnce");
    bench.pod(with_claim("p", "data"));
    assert_eq!(bench.placed(), "b");
}

#[test]
fn a_pod_waits_for_a_claim_that_is_not_there_or_not_bound() {
    let mut bench = two_zones();
    bench.pod(with_claim("p", "data"));
    let refused = bench.refused();
    assert!(
        refused.contains("persistentvolumeclaim \"data\" not found"),
        "{refused}"
    );
    bench.claim("data", "fast", "", "ReadWriteOnce");
    bench.pass(Duration::from_secs(20));
    let refused = bench.refused();
    let reason = "0/2 nodes are available: pod has unbound immediate PersistentVolumeClaims.";
    assert_eq!(refused, reason);
    bench.volume("disk", "fast", "a", json!({}));
    bench.claim("data", "fast", "disk", "ReadWriteOnce");
    bench.pass(Duration::from_secs(20));
    assert_eq!(bench.placed(), "a");
}

/// The volume "disk" of node b was promised to the claim "data" with the pod "p"; the claim "more"
/// waits as well.
fn one_volume_for_two_claims() -> Bench {
    let mut bench = two_zones();
    bench.class("local", "kubernetes.io/no-provisioner");
    bench.volume("disk", "local", "b", json!({}));
    for name in ["data", "more"] {
        bench.claim(name, "local", "", "ReadWriteOnce");
    }
    bench.pod(with_claim("p", "data"));
    assert_eq!(bench.placed(), "b");
    bench
}

#[test]
fn a_waiting_claim_gets_a_volume_of_the_chosen_node_and_each_volume_goes_once() {
    let mut bench = one_volume_for_two_claims();
    let choices = bench.core.cache().volumes().choices();
    assert!(matches!(
        choices.lock().values().flatten().next(),
        Some(crate::volumes::Choice::Bind(volume, _)) if volume.metadata.name.as_deref() == Some("disk")
    ));
    bench.pod(with_claim("q", "more"));
    assert_eq!(
        bench.refused(),
        "0/2 nodes are available: 2 node(s) didn't find available persistent volumes to bind."
    );
    // The first pod's binding fails: the volume is free again.
    let first = PodInfo::new(with_claim("p", "data")).unwrap();
    let now = bench.now;
    bench.core.bind_failed(&Arc::new(first), "b", now);
    assert!(choices.lock().is_empty());
}

#[test]
fn a_pod_that_goes_leaves_the_volume_that_it_was_promised_to_the_next() {
    let mut bench = one_volume_for_two_claims();
    bench.pod(with_claim("q", "more"));
    bench.refused();
    let first = PodInfo::new(with_claim("p", "data")).unwrap();
    let now = bench.now;
    bench.core.gone(&Arc::new(first), "b", now);
    bench.pass(Duration::from_secs(20));
    assert_eq!(bench.placed(), "b");
}

#[test]
fn a_waiting_claim_gets_no_volume_that_the_binder_would_refuse_it() {
    let mut bench = two_zones();
    bench.class("local", "kubernetes.io/no-provisioner");
    let reserved = json!({"namespace": "default", "name": "another"});
    bench.volume_of("released", "local", "a", json!({"phase": "Released"}));
    bench.volume_of("new", "local", "a", json!({}));
    bench.volume_of(
        "reserved",
        "local",
        "a",
        json!({"claimRef": reserved, "phase": "Available"}),
    );
    bench.volume("slow", "local", "a", json!({"tier": "slow"}));
    let claim = json!({
        "metadata": {"name": "data", "namespace": "default", "uid": "data"},
        "spec": {"storageClassName": "local", "accessModes": ["ReadWriteOnce"],
            "selector": {"matchLabels": {"tier": "fast"}},
            "resources": {"requests": {"storage": "1Gi"}}}});
    let change = Change::Applied(serde_json::from_value(claim).unwrap());
    bench.core.observe_claim(change, bench.now);
    bench.pod(with_claim("p", "data"));
    let refused = bench.refused();
    let reason = "2 node(s) didn't find available persistent volumes";
    assert!(refused.contains(reason), "{refused}");
    bench.volume("fast", "local", "b", json!({"tier": "fast"}));
    bench.pass(Duration::from_secs(20));
    assert_eq!(bench.placed(), "b");
}

/// Where two pods with one claim go; the second one likes the emptier node better.
fn two_pods_with_one_claim(bench: &mut Bench) -> (String, String) {
    bench.claim("data", "local", "", "ReadWriteMany");
    bench.pod(with_claim("p", "data"));
    let first = bench.placed();
    bench.pod(with_claim("q", "data"));
    (first, bench.placed())
}

#[test]
fn pods_that_share_a_claim_follow_the_first_one_to_its_volume() {
    let mut bench = two_zones();
    bench.class("local", "kubernetes.io/no-provisioner");
    for (name, host) in [("here", "a"), ("there", "b")] {
        let many = json!({"phase": "Available", "accessModes": ["ReadWriteMany"]});
        bench.volume_of(name, "local", host, many);
    }
    let (first, second) = two_pods_with_one_claim(&mut bench);
    assert_eq!(first, second);
}

#[test]
fn pods_that_share_a_claim_follow_the_first_one_to_where_its_volume_is_made() {
    let mut bench = two_zones();
    let class = json!({"metadata": {"name": "local"}, "provisioner": "csi.example.com",
        "volumeBindingMode": "WaitForFirstConsumer"});
    let change = Change::Applied(serde_json::from_value(class).unwrap());
    bench.core.observe_class(change, bench.now);
    let (first, second) = two_pods_with_one_claim(&mut bench);
    assert_eq!(first, second);
}

#[test]
fn a_claim_whose_volume_is_being_made_keeps_its_node() {
    let mut bench = two_zones();
    bench.class("local", "csi.example.com");
    let claim = json!({
        "metadata": {"name": "data", "namespace": "default", "uid": "data",
            "annotations": {"volume.kubernetes.io/selected-node": "a"}},
        "spec": {"storageClassName": "local", "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}}}});
    let change = Change::Applied(serde_json::from_value(claim).unwrap());
    bench.core.observe_claim(change, bench.now);
    bench.pod(with_claim("p", "data"));
    assert_eq!(bench.placed(), "a");
}

#[test]
fn a_volume_that_was_made_for_the_claim_decides_the_node() {
    let mut bench = two_zones();
    bench.class("local", "kubernetes.io/no-provisioner");
    bench.volume("free", "local", "b", json!({}));
    let made = json!({"namespace": "default", "name": "data"});
    let made = json!({"claimRef": made, "phase": "Available"});
    bench.volume_of("made", "local", "elsewhere", made.clone());
    bench.claim("data", "local", "", "ReadWriteOnce");
    bench.pod(with_claim("p", "data"));
    let refused = bench.refused();
    let reason = "2 node(s) didn't find available persistent volumes";
    assert!(refused.contains(reason), "{refused}");
    bench.volume_of("made", "local", "a", made);
    bench.pass(Duration::from_secs(20));
    assert_eq!(bench.placed(), "a");
}

#[test]
fn a_provisioner_serves_the_nodes_of_its_topology() {
    let mut bench = two_zones();
    bench.class("cloud", "csi.example.com");
    bench.claim("data", "cloud", "", "ReadWriteOnce");
    bench.pod(with_claim("p", "data"));
    assert_eq!(bench.placed(), "b");
}

#[test]
fn a_volume_that_names_its_zone_is_used_there() {
    let mut bench = Bench::with_nodes([zoned("a", "east"), zoned("b", "west")]);
    let labels = json!({"topology.kubernetes.io/zone": "north__east"});
    bench.volume("disk", "x", "b", labels);
    bench.claim("data", "x", "disk", "ReadWriteOnce");
    bench.pod(with_claim("p", "data"));
    let refused = bench.refused();
    assert!(
        refused.contains("1 node(s) had no available volume zone"),
        "{refused}"
    );
    assert!(refused.contains("1 node(s) didn't match PersistentVolume's node affinity"));
}

#[test]
fn a_claim_for_one_pod_has_one_pod() {
    let mut bench = two_zones();
    bench.volume("disk", "x", "b", json!({}));
    bench.claim("data", "x", "disk", "ReadWriteOncePod");
    bench.pod(on(with_claim("first", "data"), "b"));
    bench.pod(with_claim("second", "data"));
    let refused = bench.refused();
    assert!(refused.contains("node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode"), "{refused}");
    bench.delete(on(with_claim("first", "data"), "b"));
    bench.pass(Duration::from_secs(20));
    assert_eq!(bench.placed(), "b");
}

impl Bench {
    /// A bound claim of a volume that a driver attaches.
    fn attached(&mut self, claim: &str, driver: &str, handle: &str) {
        let name = format!("pv-{claim}");
        let volume = json!({"metadata": {"name": name}, "spec": {"storageClassName": "fast",
            "capacity": {"storage": "2Gi"}, "accessModes": ["ReadWriteMany"],
            "csi": {"driver": driver, "volumeHandle": handle}}, "status": {"phase": "Bound"}});
        let change = Change::Applied(serde_json::from_value(volume).unwrap());
        self.core.observe_volume(change, self.now);
        self.claim(claim, "fast", &name, "ReadWriteMany");
    }

    /// What `driver` can attach to a node.
    fn limit(&mut self, node: &str, driver: &str, count: i32) {
        let node = json!({"metadata": {"name": node}, "spec": {"drivers": [
            {"name": driver, "nodeID": node, "allocatable": {"count": count}},
            {"name": "unlimited.csi", "nodeID": node}]}});
        let change = Change::Applied(serde_json::from_value(node).unwrap());
        self.core.observe_csi_node(change, self.now);
    }
}

const EXCEEDED: &str = "0/1 nodes are available: 1 node(s) exceed max volume count.";

#[test]
fn a_node_gets_no_more_volumes_than_its_drivers_can_attach() {
    let mut bench = Bench::with_nodes([node("a", "64", json!({}))]);
    bench.limit("a", "disk.csi", 2);
    for claim in ["one", "two", "three"] {
        bench.attached(claim, "disk.csi", claim);
    }
    bench.attached("again", "disk.csi", "one");
    bench.attached("other", "unlimited.csi", "one");
    for claim in ["one", "two"] {
        bench.pod(with_claim(claim, claim));
        assert_eq!(bench.placed(), "a");
    }
    bench.pod(with_claim("three", "three"));
    assert_eq!(bench.refused(), EXCEEDED);
    // Neither a volume that is there already counts, nor one of another driver, nor none.
    for claim in ["again", "other"] {
        bench.pod(with_claim(claim, claim));
        assert_eq!(bench.placed(), "a");
    }
    bench.pod(pod("plain", "1", json!({})));
    assert_eq!(bench.placed(), "a");
    // A pod without volumes that goes is no help, one that frees its volume is.
    bench.pass(Duration::from_secs(20));
    bench.delete(on(pod("plain", "1", json!({})), "a"));
    assert_eq!(bench.decide(), None);
    bench.delete(on(with_claim("two", "two"), "a"));
    assert_eq!(bench.placed(), "a");
}

#[test]
fn a_volume_that_is_still_to_be_made_counts_by_its_class() {
    let mut bench = Bench::with_nodes([zoned("a", "west")]);
    bench.class("late", "disk.csi");
    bench.limit("a", "disk.csi", 1);
    bench.claim("new", "late", "", "ReadWriteOnce");
    bench.claim("newer", "late", "", "ReadWriteOnce");
    bench.pod(with_claim("p", "new"));
    assert_eq!(bench.placed(), "a");
    bench.pod(with_claim("q", "newer"));
    assert_eq!(bench.refused(), EXCEEDED);
    bench.pass(Duration::from_secs(20));
    bench.limit("a", "disk.csi", 2);
    assert_eq!(bench.placed(), "a", "once the driver can do more");
}
