use std::time::Duration;

use super::*;
use crate::services::model::{Protocol, ServiceKey};

fn service() -> ServiceModel {
    ServiceModel {
        key: ServiceKey {
            namespace: "default".into(),
            name: "web".into(),
        },
        cluster_ips: vec!["10.43.0.5".parse().unwrap()],
        external_ips: Vec::new(),
        load_balancer_ips: Vec::new(),
        ports: vec![ServicePort {
            name: String::new(),
            protocol: Protocol::Tcp,
            port: 80,
            node_port: None,
        }],
        affinity: None,
        internal_local: false,
        external_local: false,
        source_ranges: Vec::new(),
        health_check_port: None,
    }
}

fn endpoint(text: &str, local: bool) -> Endpoint {
    let socket: SocketAddr = text.parse().unwrap();
    Endpoint {
        address: socket.ip(),
        port: socket.port(),
        ready: true,
        serving: true,
        terminating: false,
        local,
        hinted_nodes: Vec::new(),
        hinted_zones: Vec::new(),
    }
}

fn render(service: &ServiceModel, endpoints: &[Endpoint]) -> Fragment {
    let place = Place {
        node: "n1".into(),
        zone: None,
    };
    fragment(&mut table(), service, |_| endpoints.to_vec(), &place, &[])
}

fn entries<'a>(fragment: &'a Fragment, set: &'a str) -> Vec<(&'a str, &'a str)> {
    fragment.elements_of(set).collect()
}

fn two() -> Vec<Endpoint> {
    vec![
        endpoint("10.42.0.5:8080", true),
        endpoint("10.42.1.6:8080", false),
    ]
}

#[test]
fn a_plain_service_is_elements_alone() {
    let found = render(&service(), &two());
    assert!(found.chains.is_empty() && found.sets.is_empty());
    assert_eq!(
        entries(&found, "services4"),
        [("10.43.0.5 . tcp . 80", "goto c2")]
    );
    assert_eq!(
        entries(&found, "endpoints4"),
        [
            ("10.43.0.5 . tcp . 80 . 0", "10.42.0.5 . 8080"),
            ("10.43.0.5 . tcp . 80 . 1", "10.42.1.6 . 8080")
        ]
    );
    assert_eq!(entries(&found, "hairpin4"), [("10.42.0.5 . 10.42.0.5", "")]);
}

#[test]
fn without_endpoints_everything_is_rejected() {
    let mut service = service();
    service.external_ips = vec!["192.0.2.1".parse().unwrap()];
    service.ports[0].node_port = Some(30080);
    let found = render(&service, &[]);
    let all: Vec<_> = ["services4", "node_services4"]
        .into_iter()
        .flat_map(|set| entries(&found, set))
        .collect();
    assert_eq!(all.len(), 3);
    assert!(
        all.iter().all(|(_, verdict)| *verdict == "goto refuse"),
        "{all:?}"
    );
}

#[test]
fn internal_policy_local_drops_where_endpoints_are_elsewhere() {
    let mut service = service();
    service.internal_local = true;
    let elsewhere = [endpoint("10.42.1.6:8080", false)];
    assert_eq!(
        entries(&render(&service, &elsewhere), "services4")[0].1,
        "drop"
    );
    assert_eq!(
        entries(&render(&service, &[]), "services4")[0].1,
        "goto refuse"
    );
    assert_eq!(
        entries(&render(&service, &two()), "services4")[0].1,
        "goto c1"
    );
}

#[test]
fn outside_clients_are_masqueraded_under_policy_cluster() {
    let mut service = service();
    service.ports[0].node_port = Some(30080);
    service.load_balancer_ips = vec!["192.0.2.1".parse().unwrap()];
    let found = render(&service, &two());
    assert_eq!(
        entries(&found, "node_services4"),
        [("tcp . 30080", "goto p2")]
    );
    assert!(entries(&found, "services4").contains(&("192.0.2.1 . tcp . 80", "goto m2")));
    assert_eq!(entries(&found, "node_endpoints4").len(), 2);
}

#[test]
fn external_policy_local_sends_outsiders_to_this_node_only() {
    let mut service = service();
    service.external_local = true;
    service.ports[0].node_port = Some(30080);
    let found = render(&service, &two());
    let chain = entries(&found, "node_services4")[0]
        .1
        .strip_prefix("goto ")
        .unwrap();
    let rules = &found.chains[chain].rules;
    assert_eq!(rules.len(), 3);
    let local = rules[2].strip_prefix("goto ").unwrap();
    let choice = found.chains[local].rules.join("\n");
    assert!(choice.contains("numgen random mod 1"), "{choice}");
    let elsewhere = [endpoint("10.42.1.6:8080", false)];
    let found = render(&service, &elsewhere);
    let chain = entries(&found, "node_services4")[0]
        .1
        .strip_prefix("goto ")
        .unwrap();
    assert_eq!(found.chains[chain].rules.last().unwrap(), "drop");
}

#[test]
fn source_ranges_guard_balanced_addresses() {
    let mut service = service();
    service.load_balancer_ips = vec!["192.0.2.1".parse().unwrap()];
    service.source_ranges = vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
    let found = render(&service, &two());
    let verdict = entries(&found, "services4")
        .into_iter()
        .find(|(key, _)| key.starts_with("192.0.2.1"))
        .unwrap()
        .1;
    let rules = &found.chains[verdict.strip_prefix("goto ").unwrap()].rules;
    assert_eq!(rules, &["ip saddr { 10.0.0.0/8 } goto m2", "drop"]);
    service.source_ranges = vec!["fd00::/8".parse().unwrap()];
    let found = render(&service, &two());
    assert!(found.chains.values().any(|chain| chain.rules == ["drop"]));
}

#[test]
fn affinity_remembers_clients_per_endpoint() {
    let mut service = service();
    service.affinity = Some(Duration::from_secs(600));
    let found = render(&service, &two());
    assert_eq!(found.sets.len(), 2);
    assert!(found.sets.values().all(|set| set.contains("timeout 600s")));
    let one = render(&service, &two()[..1]);
    let kept: Vec<_> = one.sets.keys().collect();
    assert!(
        found.sets.contains_key(kept[0]),
        "the set of the endpoint that stays, stays"
    );
    service.affinity = Some(Duration::from_secs(60));
    let other = render(&service, &two());
    assert!(other.sets.keys().all(|name| !found.sets.contains_key(name)));
}

#[test]
fn dual_stack_keeps_families_apart() {
    let mut service = service();
    service.cluster_ips.push("fd43::5".parse().unwrap());
    let mut endpoints = two();
    endpoints.push(endpoint("[fd42::5]:8080", true));
    let found = render(&service, &endpoints);
    assert_eq!(
        entries(&found, "services6"),
        [("fd43::5 . tcp . 80", "goto c1")]
    );
    assert_eq!(
        entries(&found, "endpoints6"),
        [("fd43::5 . tcp . 80 . 0", "fd42::5 . 8080")]
    );
    assert_eq!(
        entries(&found, "services4"),
        [("10.43.0.5 . tcp . 80", "goto c2")]
    );
}

#[test]
fn own_address_is_left_alone() {
    let own = ["10.43.0.5".parse().unwrap()];
    let place = Place::default();
    let found = fragment(&mut table(), &service(), |_| two(), &place, &own);
    assert!(entries(&found, "services4").is_empty());
}
