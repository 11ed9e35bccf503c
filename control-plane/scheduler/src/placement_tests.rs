//! Where pods go because of other pods: affinity, spreading, packing, preemption, hints.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::{
    tests::{Bench, bench, node, on, pod},
    *,
};
use crate::plugins::{ScoringStrategy, default_framework};

fn zoned(name: &str, zone: &str) -> Node {
    let mut node = node(name, "8", json!({}));
    let labels = node.metadata.labels.as_mut().unwrap();
    labels.insert("zone".into(), zone.into());
    node
}

fn labelled(mut pod: Pod, app: &str) -> Pod {
    pod.metadata.labels = Some([("app".to_owned(), app.to_owned())].into());
    pod
}

fn term(app: &str, key: &str) -> Value {
    json!({"labelSelector": {"matchLabels": {"app": app}}, "topologyKey": key})
}

fn required(kind: &str, term: Value) -> Value {
    json!({"affinity": {kind: {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}})
}

fn preferred(kind: &str, term: Value) -> Value {
    json!({"affinity": {kind: {"preferredDuringSchedulingIgnoredDuringExecution": [
        {"weight": 100, "podAffinityTerm": term}
    ]}}})
}

fn two_zones() -> Bench {
    Bench::with_nodes([zoned("a1", "a"), zoned("a2", "a"), zoned("b1", "b")])
}

#[test]
fn required_affinity_goes_where_a_matching_pod_is() {
    let mut bench = two_zones();
    let wants = required("podAffinity", term("db", "zone"));
    bench.pod(pod("web", "1", wants.clone()));
    assert_eq!(
        bench.said(),
        "0/3 nodes are available: 3 node(s) didn't match pod affinity rules. preemption: 0/3 \
         nodes are available: 3 Preemption is not helpful for scheduling."
    );
    bench.pod(labelled(on(pod("db", "1", json!({})), "b1"), "db"));
    bench.pass(Duration::from_secs(1));
    assert_eq!(bench.placed(), "b1", "the new pod woke it");
    // The first of its kind has nobody to be near to.
    let itself = required("podAffinity", term("ring", "zone"));
    bench.pod(labelled(pod("ring", "1", itself), "ring"));
    bench.placed();
}

#[test]
fn required_anti_affinity_keeps_pods_apart_both_ways() {
    let mut bench = two_zones();
    let apart = required("podAntiAffinity", term("web", "zone"));
    for name in ["one", "two"] {
        bench.pod(labelled(pod(name, "1", apart.clone()), "web"));
    }
    let mut zones = [bench.placed(), bench.placed()].map(|node| node[..1].to_owned());
    zones.sort();
    assert_eq!(zones, ["a", "b"]);
    bench.pod(labelled(pod("three", "1", apart), "web"));
    assert!(
        bench.said().starts_with(
            "0/3 nodes are available: 3 node(s) didn't match pod anti-affinity rules. "
        )
    );
    bench.pod(labelled(pod("plain", "1", json!({})), "web"));
    assert!(bench.said().starts_with(
        "0/3 nodes are available: 3 node(s) didn't satisfy existing pods anti-affinity rules."
    ));
}

#[test]
fn counts_follow_pods_that_leave_and_nodes_that_change() {
    let mut bench = two_zones();
    let apart = required("podAntiAffinity", term("web", "zone"));
    let on_a = labelled(on(pod("old", "1", json!({})), "a1"), "web");
    bench.pod(on_a.clone());
    bench.pod(labelled(pod("one", "1", apart.clone()), "x"));
    assert_eq!(bench.placed(), "b1");
    bench.delete(on_a);
    bench.pod(labelled(on(pod("new", "1", json!({})), "b1"), "web"));
    bench.pod(labelled(pod("two", "1", apart.clone()), "x"));
    assert!(bench.placed().starts_with('a'));
    bench.node(zoned("b1", "a"));
    bench.pod(labelled(pod("three", "1", apart), "x"));
    assert!(
        bench
            .said()
            .contains("3 node(s) didn't match pod anti-affinity rules")
    );
}

#[test]
fn preferred_terms_of_newcomers_and_of_placed_pods_weigh() {
    let mut bench = two_zones();
    bench.pod(labelled(on(pod("db", "1", json!({})), "b1"), "db"));
    bench.pod(pod(
        "fan",
        "1",
        preferred("podAffinity", term("db", "zone")),
    ));
    assert_eq!(bench.placed(), "b1");
    let mut bench = two_zones();
    let dislikes = preferred("podAntiAffinity", term("noisy", "zone"));
    for (name, node) in [("q1", "a1"), ("q2", "a2")] {
        bench.pod(on(pod(name, "1", dislikes.clone()), node));
    }
    bench.pod(labelled(pod("noisy", "1", json!({})), "noisy"));
    assert_eq!(bench.placed(), "b1");
}

fn spread(max_skew: i32, key: &str, when: &str) -> Value {
    json!({"topologySpreadConstraints": [{
        "maxSkew": max_skew, "topologyKey": key, "whenUnsatisfiable": when,
        "labelSelector": {"matchLabels": {"app": "web"}}
    }]})
}

#[test]
fn hard_spread_constraints_bound_the_difference() {
    let mut bench = two_zones();
    let mut zones = Vec::new();
    for number in 0..6 {
        let constraints = spread(1, "zone", "DoNotSchedule");
        bench.pod(labelled(
            pod(&number.to_string(), "100m", constraints),
            "web",
        ));
        zones.push(bench.placed()[..1].to_owned());
        let of = |zone: &str| zones.iter().filter(|own| *own == zone).count();
        assert!(of("a").abs_diff(of("b")) <= 1, "{zones:?}");
    }
    bench.node(node("unlabelled", "8", json!({})));
    let mut cordoned = zoned("b1", "b");
    cordoned.spec = serde_json::from_value(json!({"unschedulable": true})).unwrap();
    bench.node(cordoned);
    for name in ["x", "y"] {
        let constraints = spread(1, "zone", "DoNotSchedule");
        bench.pod(labelled(pod(name, "100m", constraints), "web"));
    }
    assert!(bench.placed().starts_with('a'), "one more is allowed");
    let refused = bench.said();
    for part in [
        "1 node(s) didn't match pod topology spread constraints (missing required label)",
        "2 node(s) didn't match pod topology spread constraints",
        "1 node(s) were unschedulable",
    ] {
        assert!(refused.contains(part), "{refused}");
    }
}

#[test]
fn soft_spread_constraints_prefer_the_emptier_domain() {
    let mut bench = two_zones();
    for (name, node) in [("o1", "a1"), ("o2", "a2")] {
        bench.pod(labelled(on(pod(name, "1", json!({})), node), "web"));
    }
    bench.pod(on(pod("heavy", "2", json!({})), "b1"));
    let constraints = spread(1, "zone", "ScheduleAnyway");
    bench.pod(labelled(pod("new", "1", constraints), "web"));
    assert_eq!(bench.placed(), "b1");
}

#[test]
fn packing_fills_nodes_one_after_another() {
    let config = SchedulerConfig::default();
    let mut bench = bench();
    bench.core = Core::new(default_framework(ScoringStrategy::MostAllocated), &config);
    bench.core.observe_pod(Change::ListEnds, bench.now);
    bench.core.observe_node(Change::ListEnds, bench.now);
    for name in ["a", "b"] {
        bench.node(node(name, "4", json!({})));
    }
    let places: Vec<_> = (0..4)
        .map(|number| {
            bench.pod(pod(&number.to_string(), "1", json!({})));
            bench.placed()
        })
        .collect();
    assert!(places.iter().all(|place| *place == places[0]), "{places:?}");
}

#[test]
fn nodes_that_have_the_image_are_better() {
    let with_image = |name: &str, image: Option<&str>| {
        let mut node = node(name, "8", json!({}));
        let images = image.map(|image| json!([{"names": [image], "sizeBytes": 900_000_000_u64}]));
        let status = node.status.as_mut().unwrap();
        status.images = serde_json::from_value(json!(images)).unwrap();
        node
    };
    let mut bench = Bench::with_nodes([
        with_image("a", None),
        with_image("b", Some("registry/model:latest")),
    ]);
    let wants = json!({"containers": [{"name": "c", "image": "registry/model"}]});
    bench.pod(pod("p", "1", wants));
    assert_eq!(bench.placed(), "b");
}

fn important(priority: i32) -> Value {
    json!({"priority": priority})
}

impl Bench {
    fn preempted(&mut self) -> (String, Vec<String>) {
        match self.core.decide(self.now) {
            Some(Decision::Unschedulable {
                preemption: Some(found),
                ..
            }) => {
                let mut names: Vec<_> = found
                    .victims
                    .iter()
                    .map(|pod| pod.name().to_owned())
                    .collect();
                names.sort();
                (found.node.to_string(), names)
            }
            other => panic!("no preemption: {other:?}"),
        }
    }
}

#[test]
fn an_important_pod_displaces_as_few_and_as_unimportant_pods_as_it_can() {
    let mut bench = Bench::with_nodes(["a", "b"].map(|name| node(name, "4", json!({}))));
    for (name, node, cpu, priority) in [
        ("a-low", "a", "2", 1),
        ("a-mid", "a", "2", 5),
        ("b-low", "b", "1", 1),
        ("b-lower", "b", "2", 0),
    ] {
        bench.pod(on(pod(name, cpu, important(priority)), node));
    }
    bench.pod(pod("vip", "2", important(10)));
    // On b the least important pod alone is enough.
    assert_eq!(
        bench.preempted(),
        ("b".to_owned(), vec!["b-lower".to_owned()])
    );
    let requested = bench.core.cache().node("b").unwrap().requested.milli_cpu;
    assert_eq!(requested, 3000, "nothing has happened yet");
    // The room is the vip's: a lesser pod does not get it.
    bench.delete(on(pod("b-lower", "2", important(0)), "b"));
    bench.pod(pod("greedy", "2", important(3)));
    let refused = bench.said();
    assert!(refused.contains("2 Insufficient cpu"), "{refused}");
    bench.pass(Duration::from_secs(1));
    assert_eq!(bench.placed(), "b");
}

#[test]
fn an_important_pod_displaces_those_that_it_keeps_away_from() {
    let mut bench = Bench::with_nodes(["a", "b"].map(|name| {
        let mut node = node(name, "4", json!({}));
        let labels = json!({"kubernetes.io/hostname": name});
        node.metadata.labels = serde_json::from_value(labels).unwrap();
        node
    }));
    for (name, node, priority) in [("rival-a", "a", 5), ("rival-b", "b", 1)] {
        bench.pod(labelled(
            on(pod(name, "1", important(priority)), node),
            "rival",
        ));
        let bystander = format!("bystander-{node}");
        bench.pod(on(pod(&bystander, "1", important(0)), node));
    }
    let away = json!({"priority": 10, "affinity": {"podAntiAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": [
            {"topologyKey": "kubernetes.io/hostname",
             "labelSelector": {"matchLabels": {"app": "rival"}}}]}}});
    bench.pod(pod("vip", "1", away));
    assert_eq!(
        bench.preempted(),
        ("b".to_owned(), vec!["rival-b".to_owned()])
    );
}

#[test]
fn preemption_spares_budgets_and_equals_and_obeys_never() {
    let mut bench = Bench::with_nodes(["a", "b"].map(|name| node(name, "1", json!({}))));
    bench.pod(labelled(
        on(pod("guarded", "1", important(0)), "a"),
        "guarded",
    ));
    bench.pod(labelled(on(pod("free", "1", important(1)), "b"), "free"));
    let budget = serde_json::from_value(json!({
        "metadata": {"name": "b", "namespace": "default"},
        "spec": {"selector": {"matchLabels": {"app": "guarded"}}},
        "status": {"disruptionsAllowed": 0}
    }));
    bench.core.observe_budget(Change::Applied(budget.unwrap()));
    bench.pod(pod(
        "polite",
        "1",
        json!({"priority": 9, "preemptionPolicy": "Never"}),
    ));
    assert!(bench.said().contains("preemptionPolicy=Never"));
    bench.pod(pod("equal", "1", important(0)));
    assert!(bench.said().ends_with(
        "preemption: 0/2 nodes are available: 2 No preemption victims found for incoming pod."
    ));
    bench.pod(pod("vip", "1", important(10)));
    assert_eq!(bench.preempted(), ("b".to_owned(), vec!["free".to_owned()]));
}

#[test]
fn an_event_wakes_only_pods_that_it_can_help() {
    let mut bench = Bench::with_nodes(["a", "b"].map(|name| node(name, "2", json!({}))));
    for name in ["a", "b"] {
        bench.pod(on(pod(&format!("small-{name}"), "500m", json!({})), name));
        bench.pod(on(pod(&format!("large-{name}"), "1500m", json!({})), name));
    }
    bench.pod(pod("waits", "1", json!({})));
    bench.said();
    bench.pass(Duration::from_secs(20));
    bench.delete(on(pod("small-a", "500m", json!({})), "a"));
    assert_eq!(bench.decide(), None, "half a CPU is not enough");
    bench.delete(on(pod("large-b", "1500m", json!({})), "b"));
    assert_eq!(bench.placed(), "b");
}

#[test]
fn a_pod_that_names_its_node_is_never_placed_anew() {
    let mut bench = Bench::with_nodes([node("a", "1", json!({})), node("b", "4", json!({}))]);
    // More than a has; of a node that nobody knows; and one that was waiting for a place.
    bench.pod(on(pod("large", "3", json!({})), "a"));
    bench.pod(on(pod("lost", "1", json!({})), "gone"));
    bench.pod(pod("late", "8", json!({})));
    bench.refused();
    bench.pod(on(pod("late", "8", json!({})), "b"));
    assert_eq!(bench.decide(), None);
    bench
        .core
        .observe_node(Change::Deleted(node("a", "1", json!({}))), bench.now);
    bench.node(node("c", "64", json!({})));
    bench.pass(Duration::from_secs(3600));
    assert_eq!(
        bench.decide(),
        None,
        "nor when its node goes and others come"
    );
    let sizes = bench.core.queue_sizes();
    assert_eq!(
        (sizes.active, sizes.backoff, sizes.unschedulable),
        (0, 0, 0)
    );
}

#[test]
fn nodes_that_a_pod_does_not_name_are_counted_as_such() {
    let mut bench = Bench::with_nodes(["a", "b"].map(|name| node(name, "4", json!({}))));
    // Past the queue, which takes no pod that has a node.
    let info = PodInfo::new(on(pod("p", "1", json!({})), "gone")).unwrap();
    bench
        .core
        .queue
        .apply(Arc::new(info), (0, 0), false, bench.now);
    assert_eq!(
        bench.refused(),
        "0/2 nodes are available: 2 node(s) didn't match the requested node name."
    );
}
