use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::{Value, json};

use super::*;
use crate::plugins::{ScoringStrategy, default_framework};

pub(super) struct Bench {
    pub(super) core: Core,
    pub(super) now: Instant,
}

pub(super) fn bench() -> Bench {
    let config = SchedulerConfig::default();
    let mut core = Core::new(default_framework(ScoringStrategy::LeastAllocated), &config);
    let now = Instant::now();
    core.observe_pod(Change::ListBegins, now);
    core.observe_pod(Change::ListEnds, now);
    core.observe_node(Change::ListBegins, now);
    core.observe_node(Change::ListEnds, now);
    Bench { core, now }
}

pub(super) fn node(name: &str, cpu: &str, spec: Value) -> Node {
    serde_json::from_value(json!({
        "metadata": {"name": name, "uid": name, "labels": {"kubernetes.io/hostname": name}},
        "spec": spec,
        "status": {"allocatable": {"cpu": cpu, "memory": "8Gi", "pods": "110"}}
    }))
    .unwrap()
}

pub(super) fn pod(name: &str, cpu: &str, more: Value) -> Pod {
    let mut spec = json!({
        "containers": [{"name": "c", "resources": {"requests": {"cpu": cpu, "memory": "64Mi"}}}]
    });
    for (key, value) in more.as_object().unwrap() {
        spec[key] = value.clone();
    }
    serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": "default", "uid": format!("uid-{name}")},
        "spec": spec
    }))
    .unwrap()
}

pub(super) fn on(mut pod: Pod, node: &str) -> Pod {
    pod.spec.as_mut().unwrap().node_name = Some(node.into());
    pod
}

impl Bench {
    pub(super) fn with_nodes(nodes: impl IntoIterator<Item = Node>) -> Self {
        let mut bench = bench();
        for node in nodes {
            bench.node(node);
        }
        bench
    }

    pub(super) fn node(&mut self, node: Node) {
        self.core.observe_node(Change::Applied(node), self.now);
    }

    pub(super) fn pod(&mut self, pod: Pod) {
        self.core.observe_pod(Change::Applied(pod), self.now);
    }

    pub(super) fn delete(&mut self, pod: Pod) {
        self.core.observe_pod(Change::Deleted(pod), self.now);
    }

    /// The decision about the next pod: its node or the refusal's message.
    pub(super) fn decide(&mut self) -> Option<Result<String, String>> {
        self.core.decide(self.now).map(|decision| match decision {
            Decision::Assigned { node, .. } => Ok(node.to_string()),
            Decision::Unschedulable { diagnosis, .. } => Err(diagnosis.message()),
        })
    }

    pub(super) fn placed(&mut self) -> String {
        self.decide().unwrap().unwrap()
    }

    /// All that was said.
    pub(super) fn said(&mut self) -> String {
        self.decide().unwrap().unwrap_err()
    }

    /// What the filters said.
    pub(super) fn refused(&mut self) -> String {
        let said = self.said();
        let filters = said.split(" preemption: ").next();
        filters.unwrap().to_owned()
    }

    pub(super) fn pass(&mut self, time: Duration) {
        self.now += time;
    }
}

#[test]
fn says_which_filter_refused_how_many_nodes() {
    let tainted = json!({"taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}]});
    let mut bench = Bench::with_nodes([
        node("a", "500m", json!({})),
        node("b", "4", tainted.clone()),
        node("c", "4", tainted),
    ]);
    bench.pod(pod("p", "1", json!({})));
    assert_eq!(
        bench.refused(),
        "0/3 nodes are available: 1 Insufficient cpu, 2 node(s) had untolerated taint {k: v}."
    );
}

#[test]
fn each_filter_refuses_in_its_own_words() {
    for (node_spec, pod_spec, expected) in [
        (
            json!({"unschedulable": true}),
            json!({}),
            "1 node(s) were unschedulable",
        ),
        (
            json!({}),
            json!({"nodeSelector": {"disk": "ssd"}}),
            "1 node(s) didn't match Pod's node affinity/selector",
        ),
        (
            json!({}),
            json!({"containers": [{"name": "c", "resources": {"requests": {"hull.io/gpu": "1"}}}]}),
            "1 Insufficient hull.io/gpu",
        ),
        (
            json!({}),
            json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": "9", "memory": "9Gi"}}}]}),
            "1 Insufficient cpu, 1 Insufficient memory",
        ),
    ] {
        let mut bench = Bench::with_nodes([node("a", "4", node_spec)]);
        bench.pod(pod("p", "1", pod_spec));
        assert_eq!(
            bench.refused(),
            format!("0/1 nodes are available: {expected}.")
        );
    }
}

#[test]
fn without_nodes_it_says_so() {
    let mut bench = bench();
    bench.pod(pod("p", "1", json!({})));
    assert_eq!(bench.refused(), "no nodes available to schedule pods");
}

#[test]
fn spreads_over_the_least_allocated_nodes() {
    let mut bench = Bench::with_nodes(["a", "b", "c"].map(|name| node(name, "4", json!({}))));
    let mut places: Vec<_> = (0..6)
        .map(|n| {
            bench.pod(pod(&n.to_string(), "500m", json!({})));
            bench.placed()
        })
        .collect();
    places.sort();
    assert_eq!(places, ["a", "a", "b", "b", "c", "c"]);
}

#[test]
fn never_overcommits_a_node_while_bindings_are_under_way() {
    let mut bench = Bench::with_nodes([node("a", "2", json!({}))]);
    for n in 0..3 {
        bench.pod(pod(&n.to_string(), "1", json!({})));
    }
    assert_eq!(bench.placed(), "a");
    assert_eq!(bench.placed(), "a");
    assert_eq!(
        bench.refused(),
        "0/1 nodes are available: 1 Insufficient cpu."
    );
    // The watch shows the pods without a node before it shows the bindings.
    bench.pod(pod("0", "1", json!({})));
    bench.pod(on(pod("1", "1", json!({})), "a"));
    assert_eq!(
        bench.core.cache().node("a").unwrap().requested.milli_cpu,
        2000
    );
}

#[test]
fn a_deleted_pod_lets_a_waiting_one_in() {
    let mut bench = Bench::with_nodes([node("a", "1", json!({}))]);
    bench.pod(on(pod("old", "1", json!({})), "a"));
    bench.pod(pod("new", "1", json!({})));
    bench.refused();
    assert_eq!(bench.decide(), None);
    bench.delete(on(pod("old", "1", json!({})), "a"));
    assert_eq!(bench.decide(), None, "its back-off is not over");
    bench.pass(Duration::from_secs(1));
    assert_eq!(bench.placed(), "a");
}

#[test]
fn a_finished_pod_gives_its_room_back() {
    let mut bench = Bench::with_nodes([node("a", "1", json!({}))]);
    let mut done = on(pod("done", "1", json!({})), "a");
    bench.pod(done.clone());
    done.status = serde_json::from_value(json!({"phase": "Succeeded"})).unwrap();
    bench.pod(done);
    bench.pod(pod("next", "1", json!({})));
    assert_eq!(bench.placed(), "a");
}

#[test]
fn only_changes_that_can_help_wake_a_pod() {
    let mut bench = Bench::with_nodes([node("a", "4", json!({}))]);
    bench.pod(on(pod("other", "1", json!({})), "a"));
    bench.pod(pod("picky", "1", json!({"nodeSelector": {"disk": "ssd"}})));
    bench.refused();
    bench.pass(Duration::from_secs(20));
    bench.delete(on(pod("other", "1", json!({})), "a"));
    assert_eq!(
        bench.decide(),
        None,
        "room does not help against the selector"
    );
    let mut heartbeat = node("a", "4", json!({}));
    heartbeat.metadata.resource_version = Some("7".into());
    bench.node(heartbeat);
    assert_eq!(bench.decide(), None, "a heartbeat changes nothing");
    let mut labelled = node("a", "4", json!({}));
    labelled
        .metadata
        .labels
        .as_mut()
        .unwrap()
        .insert("disk".into(), "ssd".into());
    bench.node(labelled);
    assert_eq!(bench.placed(), "a");
}

#[test]
fn unschedulable_pods_are_tried_again_in_the_end() {
    let mut bench = Bench::with_nodes([node("a", "1", json!({}))]);
    bench.pod(pod("big", "2", json!({})));
    bench.refused();
    bench.pass(Duration::from_secs(299));
    assert_eq!(bench.decide(), None);
    bench.pass(Duration::from_secs(1));
    bench.refused();
}

#[test]
fn a_failed_binding_gives_the_room_back_and_backs_off() {
    let mut bench = Bench::with_nodes([node("a", "1", json!({}))]);
    bench.pod(pod("p", "1", json!({})));
    let mut waits = Vec::new();
    for _ in 0..6 {
        let Some(Decision::Assigned { pod, node }) = bench.core.decide(bench.now) else {
            panic!("expected a place");
        };
        bench.core.bind_failed(&pod, &node, bench.now);
        assert_eq!(bench.core.cache().node("a").unwrap().requested.milli_cpu, 0);
        let start = bench.now;
        bench.now = bench.core.next_wake().unwrap();
        waits.push((bench.now - start).as_secs());
    }
    assert_eq!(waits, [1, 2, 4, 8, 10, 10]);
}

#[test]
fn higher_priority_goes_first_then_older() {
    let mut bench = Bench::with_nodes([node("a", "8", json!({}))]);
    let at = |mut pod: Pod, time: &str| {
        pod.metadata.creation_timestamp = serde_json::from_value(json!(time)).unwrap();
        pod
    };
    bench.pod(at(pod("young", "1", json!({})), "2026-01-01T00:00:02Z"));
    bench.pod(at(pod("old", "1", json!({})), "2026-01-01T00:00:01Z"));
    bench.pod(at(
        pod("vip", "1", json!({"priority": 10})),
        "2026-01-01T00:00:03Z",
    ));
    let order: Vec<_> = std::iter::from_fn(|| bench.core.decide(bench.now))
        .map(|decision| match decision {
            Decision::Assigned { pod, .. } => pod.name().to_owned(),
            Decision::Unschedulable { .. } => panic!("there is room"),
        })
        .collect();
    assert_eq!(order, ["vip", "old", "young"]);
}

#[test]
fn leaves_other_schedulers_pods_and_gated_and_leaving_pods_alone() {
    let mut bench = Bench::with_nodes([node("a", "8", json!({}))]);
    bench.pod(pod("other", "1", json!({"schedulerName": "mine"})));
    let mut leaving = pod("leaving", "1", json!({}));
    leaving.metadata.deletion_timestamp =
        serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
    bench.pod(leaving);
    bench.pod(pod(
        "gated",
        "1",
        json!({"schedulingGates": [{"name": "wait"}]}),
    ));
    assert_eq!(bench.decide(), None);
    assert_eq!(bench.core.queue_sizes().gated, 1);
    bench.pod(pod("gated", "1", json!({})));
    assert_eq!(bench.placed(), "a");
}

#[test]
fn prefers_nodes_without_soft_taints_and_with_preferred_labels() {
    let soft = json!({"taints": [{"key": "k", "effect": "PreferNoSchedule"}]});
    let mut bench = Bench::with_nodes([node("soft", "64", soft), node("clean", "4", json!({}))]);
    bench.pod(pod("p", "1", json!({})));
    assert_eq!(bench.placed(), "clean");
    let wants = json!({"affinity": {"nodeAffinity": {
        "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "preference": {
            "matchExpressions": [
                {"key": "kubernetes.io/hostname", "operator": "In", "values": ["b"]}
            ]
        }}]
    }}});
    let mut bench = Bench::with_nodes([node("a", "64", json!({})), node("b", "4", json!({}))]);
    bench.pod(pod("p", "1", wants));
    assert_eq!(bench.placed(), "b");
}

#[test]
fn required_affinity_by_name_goes_to_that_node_only() {
    let only_b = json!({"affinity": {"nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{
            "matchFields": [{"key": "metadata.name", "operator": "In", "values": ["b"]}]
        }]}
    }}});
    let mut bench = Bench::with_nodes(["a", "b", "c"].map(|name| node(name, "4", json!({}))));
    bench.pod(pod("p", "1", only_b.clone()));
    assert_eq!(bench.placed(), "b");
    let mut bench = Bench::with_nodes([node("a", "4", json!({}))]);
    bench.pod(pod("p", "1", only_b));
    assert!(
        bench
            .refused()
            .starts_with("0/1 nodes are available: 1 node(s) didn't")
    );
}

#[test]
fn host_ports_collide_only_on_the_same_address_and_protocol() {
    let port = |address: &str, protocol: &str| {
        json!({"containers": [{"name": "c", "ports": [{
            "containerPort": 80, "hostPort": 80, "hostIP": address, "protocol": protocol
        }]}]})
    };
    let mut bench = Bench::with_nodes([node("a", "4", json!({}))]);
    bench.pod(pod("one", "1", port("127.0.0.1", "TCP")));
    assert_eq!(bench.placed(), "a");
    bench.pod(pod("two", "1", port("127.0.0.2", "TCP")));
    assert_eq!(bench.placed(), "a");
    bench.pod(pod("udp", "1", port("", "UDP")));
    assert_eq!(bench.placed(), "a");
    bench.pod(pod("all", "1", port("", "TCP")));
    assert_eq!(
        bench.refused(),
        "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports."
    );
}

#[test]
fn a_new_list_drops_what_vanished_while_the_watch_was_away() {
    let mut bench = Bench::with_nodes([node("a", "1", json!({})), node("b", "1", json!({}))]);
    bench.pod(on(pod("gone", "1", json!({})), "a"));
    bench.pod(on(pod("stays", "1", json!({})), "b"));
    bench.core.observe_pod(Change::ListBegins, bench.now);
    bench.core.observe_pod(
        Change::Listed(on(pod("stays", "1", json!({})), "b")),
        bench.now,
    );
    bench.core.observe_pod(Change::ListEnds, bench.now);
    bench.pod(pod("new", "1", json!({})));
    assert_eq!(bench.placed(), "a");
    bench.core.observe_node(Change::ListBegins, bench.now);
    bench
        .core
        .observe_node(Change::Listed(node("b", "1", json!({}))), bench.now);
    bench.core.observe_node(Change::ListEnds, bench.now);
    assert_eq!(bench.core.cache().node_count(), 1);
}

#[test]
fn pods_of_an_unknown_node_count_once_it_appears() {
    let mut bench = bench();
    bench.pod(on(pod("early", "1", json!({})), "a"));
    bench.pod(pod("p", "1", json!({})));
    assert_eq!(bench.refused(), "no nodes available to schedule pods");
    bench.node(node("a", "1", json!({})));
    bench.pass(Duration::from_secs(1));
    assert_eq!(
        bench.refused(),
        "0/1 nodes are available: 1 Insufficient cpu."
    );
}

#[test]
fn a_change_during_the_decision_is_not_lost() {
    let mut bench = Bench::with_nodes([node("a", "1", json!({}))]);
    bench.pod(pod("p", "1", json!({})));
    let Some(Decision::Assigned {
        pod: info,
        node: place,
    }) = bench.core.decide(bench.now)
    else {
        panic!("there is room");
    };
    bench.node(node("b", "4", json!({})));
    bench.core.bind_failed(&info, &place, bench.now);
    bench.pass(Duration::from_secs(1));
    bench.placed();
}

#[test]
fn sums_stay_exact_over_thousands_of_pods_on_a_thousand_nodes() {
    let mut bench = Bench::with_nodes((0..1000).map(|n| node(&format!("n{n}"), "32", json!({}))));
    for n in 0..5000 {
        bench.pod(pod(&n.to_string(), "100m", json!({})));
    }
    let start = Instant::now();
    let mut placed = Vec::new();
    while let Some(Decision::Assigned { pod, node }) = bench.core.decide(bench.now) {
        placed.push((pod, node));
    }
    println!(
        "{:.0} decisions/s on 1000 nodes",
        5000.0 / start.elapsed().as_secs_f64()
    );
    assert_eq!(placed.len(), 5000);
    for (info, node) in placed {
        bench.core.bound(&info);
        bench.pod(on(info.pod.clone(), &node));
    }
    let sum = |bench: &Bench| {
        bench
            .core
            .cache()
            .entries()
            .values()
            .map(|node| node.requested.milli_cpu)
            .sum::<i64>()
    };
    assert_eq!(sum(&bench), 500_000);
    let most = bench
        .core
        .cache()
        .entries()
        .values()
        .map(|node| node.requested.pods)
        .max();
    assert!(most <= Some(10), "spread evenly: {most:?}");
    for n in 0..5000 {
        bench.delete(pod(&n.to_string(), "100m", json!({})));
    }
    assert_eq!(sum(&bench), 0);
}
