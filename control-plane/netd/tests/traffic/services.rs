//! Services, from pods, the node and outside.

use std::collections::BTreeSet;
use std::net::UdpSocket;
use std::sync::Arc;

use hull_netd::conntrack::forget_udp;
use hull_netd::services::endpoints::Place;
use hull_netd::services::index::ServiceIndex;
use hull_netd::services::model::{SERVICE_NAME_LABEL, ServiceKey};
use hull_netd::services::stale::is_stale;
use serde_json::{Value, json};

use super::world::{World, ask_udp};

const REFUSED: &str = "connection refused";
const SILENCE: &str = "timed out";

fn index() -> ServiceIndex {
    let place = Place {
        node: "n1".into(),
        zone: None,
    };
    ServiceIndex::new(place, Vec::new())
}

fn apply_service(index: &mut ServiceIndex, name: &str, spec: Value) {
    let service = json!({"metadata": {"namespace": "a", "name": name}, "spec": spec,
        "status": {"loadBalancer": {"ingress": [{"ip": "198.51.100.9"}]}}});
    index.apply_service(Arc::new(serde_json::from_value(service).unwrap()));
}

/// Endpoints by address and node.
fn apply_slice(index: &mut ServiceIndex, name: &str, protocol: &str, endpoints: &[(&str, &str)]) {
    let endpoints: Vec<Value> = endpoints
        .iter()
        .map(|(ip, node)| json!({"addresses": [ip], "nodeName": node}))
        .collect();
    let slice = json!({
        "metadata": {"namespace": "a", "name": format!("{name}-1"), "labels": {SERVICE_NAME_LABEL: name}},
        "addressType": "IPv4", "ports": [{"port": 8080, "protocol": protocol}],
        "endpoints": endpoints,
    });
    index.apply_slice(Arc::new(serde_json::from_value(slice).unwrap()));
}

fn web(extra: Value) -> Value {
    let mut spec = json!({
        "clusterIP": "10.43.0.5", "clusterIPs": ["10.43.0.5"],
        "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30080}],
    });
    spec.as_object_mut()
        .unwrap()
        .extend(extra.as_object().unwrap().clone());
    spec
}

async fn world_with(index: &mut ServiceIndex, bridge_netfilter: bool) -> World {
    let mut world = World::new(bridge_netfilter);
    index.update(world.table());
    world.sync().await;
    world.serve_tcp("p1", 8080);
    world.serve_tcp("p2", 8080);
    world
}

async fn change(world: &mut World, index: &mut ServiceIndex) {
    index.update(world.table());
    world.change_services().await;
}

async fn pods_reach_services_on_their_own_bridge(bridge_netfilter: bool) {
    let mut index = index();
    apply_service(&mut index, "web", web(json!({})));
    apply_slice(&mut index, "web", "TCP", &[("10.42.0.12", "n1")]);
    let mut world = world_with(&mut index, bridge_netfilter).await;
    // Translated both ways, and the server sees the pod itself.
    assert_eq!(world.ask("p1", "10.43.0.5:80").unwrap(), "p2 10.42.0.11");
    assert_eq!(world.ask("p1", "10.42.0.12:8080").unwrap(), "p2 10.42.0.11");
    // To itself: behind the node's address.
    assert_eq!(world.ask("p2", "10.43.0.5:80").unwrap(), "p2 10.42.0.1");
    assert_eq!(world.ask("n", "10.43.0.5:80").unwrap(), "p2 192.0.2.1");
    assert_eq!(
        world.ask("p1", "10.43.0.5:81").unwrap_err(),
        REFUSED,
        "no such port"
    );
    apply_slice(&mut index, "web", "TCP", &[]);
    change(&mut world, &mut index).await;
    for from in ["p1", "n", "c"] {
        assert_eq!(
            world.ask(from, "10.43.0.5:80").unwrap_err(),
            REFUSED,
            "{from}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_reach_services_with_bridge_netfilter() {
    pods_reach_services_on_their_own_bridge(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_reach_services_without_bridge_netfilter() {
    pods_reach_services_on_their_own_bridge(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_is_replaced_by_elements_alone() {
    let mut index = index();
    apply_service(&mut index, "web", web(json!({})));
    apply_slice(&mut index, "web", "TCP", &[("10.42.0.12", "n1")]);
    let mut world = world_with(&mut index, false).await;
    // Neither a chain nor a rule changes, at the cluster address and at the node port.
    apply_slice(&mut index, "web", "TCP", &[("10.42.0.11", "n1")]);
    change(&mut world, &mut index).await;
    assert_eq!(world.ask("p2", "10.43.0.5:80").unwrap(), "p1 10.42.0.12");
    assert_eq!(world.ask("c", "192.0.2.1:30080").unwrap(), "p1 10.42.0.1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_service_of_its_size_is_told_as_a_change() {
    let mut index = index();
    let mut world = world_with(&mut index, false).await;
    apply_service(&mut index, "web", web(json!({})));
    apply_slice(&mut index, "web", "TCP", &[("10.42.0.12", "n1")]);
    change(&mut world, &mut index).await;
    assert_eq!(world.ask("p1", "10.43.0.5:80").unwrap(), "p2 10.42.0.11");
    assert_eq!(world.ask("c", "192.0.2.1:30080").unwrap(), "p2 10.42.0.1");
    let both = [("10.42.0.11", "n1"), ("10.42.0.12", "n1")];
    apply_slice(&mut index, "web", "TCP", &both);
    change(&mut world, &mut index).await;
    assert!(world.ask("c", "192.0.2.1:30080").is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_endpoint_gets_connections_and_a_removed_one_none() {
    let mut index = index();
    apply_service(&mut index, "web", web(json!({})));
    apply_slice(
        &mut index,
        "web",
        "TCP",
        &[("10.42.0.11", "n1"), ("10.42.0.12", "n1")],
    );
    let mut world = world_with(&mut index, false).await;
    let who = |world: &World| -> BTreeSet<String> {
        let answers = (0..24).map(|_| world.ask("c", "10.43.0.5:80").unwrap());
        answers
            .map(|a| a.split(' ').next().unwrap().to_string())
            .collect()
    };
    assert_eq!(
        who(&world),
        BTreeSet::from(["p1".to_string(), "p2".to_string()])
    );
    apply_slice(&mut index, "web", "TCP", &[("10.42.0.12", "n1")]);
    change(&mut world, &mut index).await;
    assert_eq!(who(&world), BTreeSet::from(["p2".to_string()]));
}

#[tokio::test(flavor = "multi_thread")]
async fn node_ports_and_external_addresses_serve_outsiders() {
    let mut index = index();
    let spec = json!({"externalIPs": ["198.51.100.7"], "type": "LoadBalancer"});
    apply_service(&mut index, "web", web(spec));
    apply_slice(&mut index, "web", "TCP", &[("10.42.0.12", "n1")]);
    let world = world_with(&mut index, false).await;
    // Masqueraded: another node's pod would answer to this node.
    for to in ["192.0.2.1:30080", "198.51.100.7:80", "198.51.100.9:80"] {
        assert_eq!(world.ask("c", to).unwrap(), "p2 10.42.0.1", "{to}");
    }
    assert_eq!(world.ask("n", "192.0.2.1:30080").unwrap(), "p2 10.42.0.1");
    assert_eq!(world.ask("p1", "10.42.0.1:30080").unwrap(), "p2 10.42.0.1");
    assert_eq!(
        world.ask("n", "127.0.0.1:30080").unwrap_err(),
        REFUSED,
        "not on loopback"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn external_policy_local_keeps_the_client_and_drops_without_local_endpoints() {
    let mut index = index();
    let spec = web(json!({"externalTrafficPolicy": "Local", "type": "NodePort"}));
    apply_service(&mut index, "web", spec);
    apply_slice(&mut index, "web", "TCP", &[("10.42.0.12", "n1")]);
    let mut world = world_with(&mut index, false).await;
    assert_eq!(world.ask("c", "192.0.2.1:30080").unwrap(), "p2 192.0.2.2");
    apply_slice(&mut index, "web", "TCP", &[("10.42.0.12", "n2")]);
    change(&mut world, &mut index).await;
    assert_eq!(world.ask("c", "192.0.2.1:30080").unwrap_err(), SILENCE);
    assert!(
        world
            .ask("p1", "192.0.2.1:30080")
            .unwrap()
            .starts_with("p2"),
        "pods reach all"
    );
    assert!(
        world.ask("n", "192.0.2.1:30080").unwrap().starts_with("p2"),
        "so does the node"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn source_ranges_let_only_their_clients_in() {
    let mut index = index();
    let ranges =
        |range: &str| web(json!({"type": "LoadBalancer", "loadBalancerSourceRanges": [range]}));
    apply_service(&mut index, "web", ranges("192.0.2.0/24"));
    apply_slice(&mut index, "web", "TCP", &[("10.42.0.12", "n1")]);
    let mut world = world_with(&mut index, false).await;
    assert!(world.ask("c", "198.51.100.9:80").is_ok());
    apply_service(&mut index, "web", ranges("203.0.113.0/24"));
    change(&mut world, &mut index).await;
    assert_eq!(world.ask("c", "198.51.100.9:80").unwrap_err(), SILENCE);
    assert!(
        world.ask("c", "192.0.2.1:30080").is_ok(),
        "the node port has no ranges"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn affinity_keeps_a_client_until_its_endpoint_goes() {
    let mut index = index();
    apply_service(
        &mut index,
        "web",
        web(json!({"sessionAffinity": "ClientIP"})),
    );
    let both = [("10.42.0.11", "n1"), ("10.42.0.12", "n1")];
    apply_slice(&mut index, "web", "TCP", &both);
    let mut world = world_with(&mut index, false).await;
    let name = |world: &World| {
        let answer = world.ask("c", "10.43.0.5:80").unwrap();
        answer.split(' ').next().unwrap().to_string()
    };
    let first = name(&world);
    assert!((0..12).all(|_| name(&world) == first));
    // Another endpoint comes: the client stays where it is.
    apply_slice(
        &mut index,
        "web",
        "TCP",
        &[both[0], both[1], ("10.42.0.13", "n2")],
    );
    change(&mut world, &mut index).await;
    assert!((0..12).all(|_| name(&world) == first));
    let other = if first == "p1" { both[1] } else { both[0] };
    apply_slice(&mut index, "web", "TCP", &[other]);
    change(&mut world, &mut index).await;
    assert_ne!(name(&world), first);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_udp_flow_leaves_the_endpoint_that_went() {
    let mut index = index();
    let spec = json!({
        "clusterIP": "10.43.0.6", "clusterIPs": ["10.43.0.6"],
        "ports": [{"port": 53, "protocol": "UDP"}],
    });
    apply_service(&mut index, "dns", spec);
    apply_slice(&mut index, "dns", "UDP", &[("10.42.0.11", "n1")]);
    let mut world = World::new(false);
    index.update(world.table());
    world.sync().await;
    world.serve_udp("p1", 8080);
    world.serve_udp("p2", 8080);
    // One client socket all along: its flow has no end of its own.
    let socket = world.inside("c", || UdpSocket::bind("0.0.0.0:0").unwrap());
    assert_eq!(ask_udp(&socket, "10.43.0.6:53").unwrap(), "p1");
    apply_slice(&mut index, "dns", "UDP", &[("10.42.0.12", "n1")]);
    let update = index.update(world.table());
    world.sync().await;
    assert_eq!(
        ask_udp(&socket, "10.43.0.6:53").unwrap(),
        "p1",
        "the kernel remembers"
    );
    let forgotten = world.inside("n", move || {
        forget_udp(|flow| update.udp.iter().any(|c| is_stale(flow, &c.old, &c.new))).unwrap()
    });
    assert_eq!(forgotten, 1);
    assert_eq!(ask_udp(&socket, "10.43.0.6:53").unwrap(), "p2");
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_that_somebody_took_away_are_written_again() {
    let mut index = index();
    apply_service(&mut index, "web", web(json!({})));
    apply_slice(&mut index, "web", "TCP", &[("10.42.0.12", "n1")]);
    let mut world = world_with(&mut index, false).await;
    let nft = hull_netd::nft::Nft::in_namespace(&world.node());
    assert!(!world.services.vanished(&nft).await.unwrap());
    nft.apply("flush ruleset\n").await.unwrap();
    assert!(world.services.vanished(&nft).await.unwrap());
    assert!(world.ports.vanished(&nft).await.unwrap());
    world.sync().await;
    assert!(world.ask("c", "10.43.0.5:80").is_ok());
    // A change that the kernel refuses is followed by the whole table.
    nft.apply("delete table inet hull\n").await.unwrap();
    apply_slice(&mut index, "web", "TCP", &[("10.42.0.11", "n1")]);
    index.update(world.table());
    world.sync().await;
    assert!(world.ask("c", "10.43.0.5:80").unwrap().starts_with("p1"));
    index.remove_service(&ServiceKey {
        namespace: "a".into(),
        name: "web".into(),
    });
    index.update(world.table());
    world.sync().await;
    assert!(world.ask("c", "10.43.0.5:80").is_err());
}
