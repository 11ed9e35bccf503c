use std::collections::BTreeSet;

use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::Value;

use super::*;
use crate::{
    invariants::faulty::Faulty,
    runtime::fake::{FakeApi, refused, settle},
};

fn cidrs(clusters: &[(&str, u8)], reserved: &[&str]) -> NodeCidrs {
    let clusters: Vec<_> = clusters
        .iter()
        .map(|(cluster, mask)| (cluster.parse().unwrap(), *mask))
        .collect();
    let reserved = reserved.iter().map(|text| text.parse().unwrap()).collect();
    NodeCidrs::new(&clusters, reserved).unwrap()
}

struct Bench {
    api: Arc<FakeApi>,
    controller: Arc<NodeIpamController>,
    records: tokio::sync::mpsc::Receiver<hull_client::events::Record>,
}

impl Bench {
    fn new(cidrs: &NodeCidrs) -> Self {
        let api = FakeApi::new();
        let (recorder, records) = Recorder::channel();
        let controller = NodeIpamController::new(api.clone(), recorder, cidrs, Arc::default());
        Bench {
            api,
            controller,
            records,
        }
    }

    fn node(&self, name: &str, spec: Value) {
        self.api
            .seed::<Node>(json!({"metadata": {"name": name}, "spec": spec}));
    }

    async fn settle(&self) {
        settle(&*self.controller, || {
            self.api.pump(&self.controller.nodes);
        })
        .await;
    }

    fn networks(&self, name: &str) -> Vec<String> {
        let nodes = self.api.all::<Node>();
        let node = nodes
            .iter()
            .find(|node| node.metadata.name.as_deref() == Some(name));
        let spec = node.unwrap().spec.clone().unwrap_or_default();
        let all = spec.pod_cidrs.unwrap_or_default();
        assert_eq!(spec.pod_cidr.as_ref(), all.first(), "both fields agree");
        all
    }
}

#[tokio::test]
async fn each_node_gets_one_network_per_ip_version() {
    let bench = Bench::new(&cidrs(&[("10.42.0.0/16", 24), ("fd42::/48", 64)], &[]));
    bench.node("a", json!({}));
    bench.node("b", json!({}));
    bench.settle().await;
    assert_eq!(bench.networks("a"), ["10.42.0.0/24", "fd42::/64"]);
    assert_eq!(bench.networks("b"), ["10.42.1.0/24", "fd42:0:0:1::/64"]);
    bench.api.take_requests();
    bench.settle().await;
    assert!(bench.api.take_requests().is_empty(), "nothing left to do");
}

#[tokio::test]
async fn adopts_what_nodes_have_and_leaves_the_services_network_out() {
    let bench = Bench::new(&cidrs(&[("10.42.0.0/16", 24)], &["10.42.0.0/24"]));
    bench.node("old", json!({"podCIDR": "10.42.1.0/24"}));
    bench.node("own", json!({"podCIDR": "10.99.0.0/24"}));
    bench.node("world", json!({"podCIDRs": ["0.0.0.0/0", "::/0"]}));
    bench.node("new", json!({}));
    bench.settle().await;
    assert_eq!(bench.networks("new"), ["10.42.2.0/24"]);
    assert_eq!(
        bench.api.take_requests(),
        ["patch nodes new"],
        "the others stay as they are"
    );
}

#[tokio::test]
async fn a_node_cannot_reserve_more_than_its_share() {
    let mut bench = Bench::new(&cidrs(&[("10.42.0.0/22", 24), ("fd42::/62", 64)], &[]));
    bench.node("greedy", json!({"podCIDRs": ["10.42.0.0/22", "fd42::/62"]}));
    bench.node("wide", json!({"podCIDRs": ["10.42.0.0/23"]}));
    bench.api.pump(&bench.controller.nodes);
    let mut told = Vec::new();
    while let Ok(record) = bench.records.try_recv() {
        assert_eq!(record.reason, "CIDRNotAvailable");
        told.push((record.object.name.unwrap(), record.message));
    }
    let refused = |network: &str| {
        format!(
            "The pod CIDR {network} is larger than a node's share and is not reserved: other nodes may get parts of it"
        )
    };
    assert_eq!(
        told,
        [
            ("greedy".to_string(), refused("10.42.0.0/22")),
            ("greedy".to_string(), refused("fd42::/62")),
            ("wide".to_string(), refused("10.42.0.0/23")),
        ]
    );
    // A heartbeat is no reason to say it again.
    for node in bench.api.all::<Node>() {
        let mut node = serde_json::to_value(node).unwrap();
        node["metadata"]["labels"] = json!({"beat": "1"});
        bench.api.seed::<Node>(node);
    }
    bench.api.pump(&bench.controller.nodes);
    assert!(bench.records.try_recv().is_err(), "told once");
    for name in ["a", "b", "c", "d"] {
        bench.node(name, json!({}));
    }
    bench.settle().await;
    let networks: BTreeSet<_> = ["a", "b", "c", "d"]
        .into_iter()
        .map(|name| bench.networks(name))
        .collect();
    assert_eq!(networks.len(), 4, "all blocks are given: {networks:?}");
}

#[tokio::test]
async fn a_node_without_a_network_gets_one_when_another_goes() {
    let mut bench = Bench::new(&cidrs(&[("10.42.0.0/24", 25)], &[]));
    for name in ["a", "b"] {
        bench.node(name, json!({}));
    }
    bench.settle().await;
    bench.node("c", json!({}));
    bench.api.pump(&bench.controller.nodes);
    let key = Key::new("", "c");
    for _ in 0..2 {
        let action = bench.controller.reconcile(&key).await.unwrap();
        assert_eq!(action, Action::After(RECHECK));
    }
    let record = bench.records.try_recv().unwrap();
    assert_eq!(record.reason, "CIDRNotAvailable");
    assert_eq!(record.message, "Node c status is now: CIDRNotAvailable");
    assert!(bench.records.try_recv().is_err(), "told once");
    bench.controller.queue.take_all();
    bench.api.remove("nodes", &Key::new("", "a"));
    bench.settle().await;
    assert_eq!(bench.networks("c"), ["10.42.0.0/25"]);
}

#[tokio::test]
async fn a_lost_answer_gives_nothing_away_twice() {
    let bench = Bench::new(&cidrs(&[("10.42.0.0/16", 24)], &[]));
    bench.node("a", json!({}));
    bench.api.pump(&bench.controller.nodes);
    let lost = refused(500, "InternalError", "time-out");
    bench.api.fail("patch nodes", lost);
    let key = Key::new("", "a");
    assert!(bench.controller.reconcile(&key).await.is_err());
    bench.node("b", json!({}));
    bench.settle().await;
    assert_eq!(bench.networks("a"), ["10.42.0.0/24"]);
    assert_eq!(bench.networks("b"), ["10.42.1.0/24"]);
}

#[tokio::test]
async fn two_nodes_with_one_network_are_told_of_and_free_it_together() {
    let mut bench = Bench::new(&cidrs(&[("10.42.0.0/24", 24)], &[]));
    bench.node("a", json!({"podCIDR": "10.42.0.0/24"}));
    bench.node("b", json!({"podCIDR": "10.42.0.128/25"}));
    bench.settle().await;
    assert_eq!(bench.records.try_recv().unwrap().reason, "CIDRConflict");
    bench.node("c", json!({}));
    bench.api.remove("nodes", &Key::new("", "a"));
    bench.api.pump(&bench.controller.nodes);
    let key = Key::new("", "c");
    let action = bench.controller.reconcile(&key).await.unwrap();
    assert_eq!(action, Action::After(RECHECK), "b has it");
    bench.controller.queue.take_all();
    bench.api.remove("nodes", &Key::new("", "b"));
    bench.settle().await;
    assert_eq!(bench.networks("c"), ["10.42.0.0/24"]);
}

/// A cluster whose nodes come and go, under a controller that is restarted, whose requests fail
/// and whose informer lags behind.
struct Churn {
    api: Arc<FakeApi>,
    faulty: Arc<Faulty>,
    cidrs: NodeCidrs,
    controller: Arc<NodeIpamController>,
    /// How far the informer is.
    place: usize,
    random: StdRng,
    created: u32,
}

impl Churn {
    fn new(seed: u64, cidrs: NodeCidrs) -> Self {
        let api = FakeApi::new();
        let faulty = Arc::new(Faulty::new(api.clone(), seed));
        let recorder = Recorder::channel().0;
        let controller = NodeIpamController::new(faulty.clone(), recorder, &cidrs, Arc::default());
        Churn {
            api,
            faulty,
            cidrs,
            controller,
            place: 0,
            random: StdRng::seed_from_u64(seed),
            created: 0,
        }
    }

    /// Another instance takes over: it reads a whole list before it begins.
    fn restart(&mut self) {
        let recorder = Recorder::channel().0;
        let writer = self.faulty.clone();
        self.controller = NodeIpamController::new(writer, recorder, &self.cidrs, Arc::default());
        self.place = self.api.now();
        self.api.pump(&self.controller.nodes);
    }

    fn add(&mut self, spec: Value) {
        self.created += 1;
        // Names come again: a node that was deleted may join anew.
        let name = format!("n{}", self.created % 40);
        let nodes = self.api.all::<Node>();
        if nodes
            .iter()
            .all(|node| node.metadata.name.as_ref() != Some(&name))
        {
            self.api
                .seed::<Node>(json!({"metadata": {"name": name}, "spec": spec}));
        }
    }

    async fn step(&mut self) {
        let nodes = self.api.all::<Node>();
        match self.random.random_range(0..12) {
            0..4 => self.add(json!({})),
            // A node that brings its own, when nothing is on its way to another.
            4 if nodes.iter().all(has_networks) => {
                let used = used(&self.api);
                let free = (0..32).map(|n| format!("10.42.{n}.0/24"));
                if let Some(free) = free.into_iter().find(|text| !used.contains(text)) {
                    self.add(json!({"podCIDR": free, "podCIDRs": [free]}));
                }
            }
            5 | 6 if !nodes.is_empty() => {
                let node = &nodes[self.random.random_range(0..nodes.len())];
                self.api.remove("nodes", &Key::of(node));
            }
            7 if self.random.random_bool(0.3) => self.restart(),
            8 | 9 => {
                let most = self.random.random_range(1..6);
                self.place = self.api.follow(&self.controller.nodes, self.place, most);
            }
            _ => {
                for key in self.controller.queue.take_all() {
                    if self.controller.reconcile(&key).await.is_err() {
                        self.controller.queue.add(key);
                    }
                }
            }
        }
    }
}

fn used(api: &FakeApi) -> BTreeSet<String> {
    let mut used = BTreeSet::new();
    for node in api.all::<Node>() {
        for network in networks_of(&node) {
            assert!(used.insert(network.to_string()), "{network} is used twice");
        }
    }
    used
}

#[tokio::test]
async fn no_two_nodes_ever_have_the_same_network() {
    for seed in 0..40 {
        let mut churn = Churn::new(seed, cidrs(&[("10.42.0.0/19", 24)], &[]));
        for _ in 0..600 {
            churn.step().await;
            used(&churn.api);
        }
        churn.faulty.stop();
        while churn.api.all::<Node>().len() > 32 {
            let node = churn.api.all::<Node>().pop().unwrap();
            churn.api.remove("nodes", &Key::of(&node));
        }
        settle(&*churn.controller, || {
            churn.api.pump(&churn.controller.nodes);
        })
        .await;
        let nodes = churn.api.all::<Node>().len();
        assert_eq!(
            used(&churn.api).len(),
            nodes,
            "every node has one (seed {seed})"
        );
    }
}
