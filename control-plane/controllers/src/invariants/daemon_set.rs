//! One pod per fitting node, and while new ones replace old ones no more nodes without than allowed.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::{apps::v1::DaemonSet, core::v1::Node};

use super::*;
use crate::{
    daemonset::{DaemonSetController, intended_node},
    pods::{is_active, is_ready},
};

fn node(name: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {}}, "spec": {}})
}

/// The set's pods that count, by node.
fn by_node(world: &World) -> BTreeMap<String, Vec<Pod>> {
    let mut nodes: BTreeMap<String, Vec<Pod>> = BTreeMap::new();
    for pod in world.owned("DaemonSet") {
        let assigned = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
        let node = assigned.or_else(|| intended_node(&pod).map(String::from));
        if is_active(&pod) {
            nodes.entry(node.unwrap()).or_default().push(pod);
        }
    }
    nodes
}

fn images(pods: &BTreeMap<String, Vec<Pod>>) -> BTreeSet<String> {
    let pods = pods.values().flatten();
    pods.map(|pod| {
        pod.spec.as_ref().unwrap().containers[0]
            .image
            .clone()
            .unwrap()
    })
    .collect()
}

/// A node comes, goes or is tainted.
fn change_nodes(world: &mut World) {
    let names: Vec<String> = (0..NODES).map(|number| format!("n{number}")).collect();
    let name = &names[world.random.random_range(0..NODES)];
    let there = world.api.all::<Node>();
    let key = Key::new("", name.clone());
    if !there
        .iter()
        .any(|node| node.metadata.name.as_ref() == Some(name))
    {
        world.api.seed::<Node>(node(name));
    } else if world.chance(0.5) {
        world.api.remove("nodes", &key);
    } else {
        let taints = match world.chance(0.5) {
            true => json!([{"key": "k", "value": "v", "effect": "NoExecute"}]),
            false => json!([]),
        };
        world
            .api
            .change("nodes", &key, json!({"spec": {"taints": taints}}));
    }
}

async fn run(seed: u64, life: Life, nodes_change: bool) {
    let mut world = World::new(seed);
    let writer = world.writer();
    let controller = DaemonSetController::new(
        writer,
        recorder(),
        world.informer(),
        world.informer(),
        world.informer(),
        world.informer(),
    );
    let controllers: Vec<Arc<dyn Controller>> = vec![controller];
    for number in 0..NODES {
        world.api.seed::<Node>(node(&format!("n{number}")));
    }
    let strategy = json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}});
    world
        .api
        .seed::<DaemonSet>(workload("agent", json!({"updateStrategy": strategy})));
    let key = Key::new("shop", "agent");
    let (mut version, mut complete) = (1, false);
    for _ in 0..STEPS {
        if nodes_change && world.chance(0.05) {
            change_nodes(&mut world);
        }
        // Before all nodes have served once, the bound says nothing.
        if (nodes_change || complete) && world.chance(0.04) {
            version += 1;
            let image = format!("v{version}");
            let patch = json!({
                "metadata": {"generation": version}, "spec": {"template": template(&image)}
            });
            world.api.change("daemonsets", &key, patch);
        }
        world.live("DaemonSet", life);
        world.live("DaemonSet", life);
        let look = |world: &mut World| {
            let pods = by_node(world);
            assert!(
                pods.values().all(|pods| pods.len() == 1),
                "seed {seed}: two pods on a node"
            );
            let serving = pods.values().filter(|pods| is_ready(&pods[0])).count();
            complete |= serving == NODES;
            let enough = nodes_change || !complete || serving + 1 >= NODES;
            assert!(enough, "seed {seed}: {serving} nodes serve");
        };
        world.step(&controllers, look).await;
    }
    for number in 0..NODES {
        world.api.seed::<Node>(node(&format!("n{number}")));
    }
    let keys = [key];
    world
        .calm(&controllers, &keys, |world| world.tend_all("DaemonSet"))
        .await;
    let pods = by_node(&world);
    assert_eq!(pods.len(), NODES, "seed {seed}");
    assert_eq!(images(&pods), [format!("v{version}")].into(), "seed {seed}");
    let status = world.api.all::<DaemonSet>()[0].status.clone().unwrap();
    assert_eq!(status.number_available, Some(NODES as i32), "seed {seed}");
    assert_eq!(status.number_misscheduled, 0, "seed {seed}");
}

#[tokio::test]
async fn daemon_sets_put_one_pod_on_each_node() {
    // Failures have waits of their own, by the clock.
    let life = Life { fail: 0.0, ..ROUGH };
    for seed in seeds() {
        run(seed, life, true).await;
    }
}

#[tokio::test]
async fn daemon_sets_update_within_their_bound() {
    for seed in seeds() {
        run(seed, GENTLE, false).await;
    }
}
