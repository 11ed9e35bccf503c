use super::*;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use serde_json::{Value, json};

fn pod(namespace: &str, app: &str, ip: &str) -> PodModel {
    PodModel {
        namespace: namespace.into(),
        labels: Labels::from([("app".to_string(), app.to_string())]),
        addresses: vec![ip.parse().unwrap()],
        named_ports: vec![("http".into(), Protocol::Tcp, 8080)],
    }
}

fn policy(spec: Value) -> PolicyModel {
    let policy: NetworkPolicy = serde_json::from_value(json!({
        "metadata": {"namespace": "a", "name": "p"}, "spec": spec,
    }))
    .unwrap();
    PolicyModel::of(&policy).unwrap()
}

/// The rules of pod web (10.42.0.5) in namespace a, by direction.
fn rules(policies: &[PolicyModel]) -> BTreeMap<String, Vec<String>> {
    let web = pod("a", "web", "10.42.0.5");
    let mut other = pod("b", "client", "10.42.0.7");
    other.named_ports[0].2 = 9090;
    let pods = [web.clone(), pod("a", "client", "10.42.0.6"), other];
    let namespaces = ["a", "b"].map(|name| {
        let labels = Labels::from([("team".to_string(), format!("team-{name}"))]);
        (name.to_string(), labels)
    });
    let cluster = Cluster {
        pods: pods.iter().collect(),
        namespaces: &BTreeMap::from(namespaces),
    };
    let found = fragment("a/web", &web, policies.iter(), &cluster);
    let chains = found.chains.into_iter();
    chains
        .map(|(name, chain)| (name.split('-').next().unwrap().to_string(), chain.rules))
        .collect()
}

const OWN_IN: &str = "ip saddr { 10.42.0.5 } accept";
const OWN_OUT: &str = "ip daddr { 10.42.0.5 } accept";

#[test]
fn a_pod_that_no_policy_selects_is_open() {
    assert!(rules(&[]).is_empty());
    let other = policy(json!({"podSelector": {"matchLabels": {"app": "db"}}}));
    assert!(rules(&[other]).is_empty());
}

#[test]
fn default_deny_leaves_the_pod_itself() {
    let found = rules(&[policy(json!({"podSelector": {}}))]);
    assert_eq!(found["ingress4"], [OWN_IN, "drop"]);
    assert!(!found.contains_key("egress4"), "egress is not said");
    let both = json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]});
    assert_eq!(rules(&[policy(both)])["egress4"], [OWN_OUT, "drop"]);
}

#[test]
fn peers_are_chosen_by_pod_and_namespace() {
    let from = |peer: Value| {
        let spec = json!({"podSelector": {}, "ingress": [{"from": [peer]}]});
        rules(&[policy(spec)])["ingress4"][1].clone()
    };
    let client = json!({"matchLabels": {"app": "client"}});
    assert_eq!(
        from(json!({"podSelector": client})),
        "ip saddr { 10.42.0.6 } accept"
    );
    let team = json!({"matchLabels": {"team": "team-b"}});
    assert_eq!(
        from(json!({"namespaceSelector": team})),
        "ip saddr { 10.42.0.7 } accept"
    );
    assert_eq!(
        from(json!({"namespaceSelector": {}, "podSelector": client})),
        "ip saddr { 10.42.0.6, 10.42.0.7 } accept"
    );
    let nobody = json!({"matchLabels": {"app": "nobody"}});
    assert_eq!(from(json!({"podSelector": nobody})), "drop");
}

#[test]
fn blocks_have_exceptions() {
    let block =
        json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16", "10.1.2.0/24"]}});
    let spec = json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"to": [block]}]});
    assert_eq!(
        rules(&[policy(spec)])["egress4"][1],
        "ip daddr 10.0.0.0/8 ip daddr != { 10.1.0.0/16 } accept"
    );
    let bad = json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["nonsense"]}});
    let spec = json!({"podSelector": {}, "ingress": [{"from": [bad]}]});
    assert_eq!(rules(&[policy(spec)])["ingress4"], [OWN_IN, "drop"]);
}

#[test]
fn ports_are_numbers_ranges_names_and_protocols() {
    let ports = json!([
        {"port": 80}, {"port": 8000, "endPort": 8010, "protocol": "UDP"},
        {"protocol": "SCTP"}, {"port": "http"}, {"port": "nope"},
    ]);
    let spec = json!({"podSelector": {}, "ingress": [{"ports": ports}]});
    assert_eq!(
        rules(&[policy(spec)])["ingress4"],
        [
            OWN_IN,
            "tcp dport 80 accept",
            "udp dport 8000-8010 accept",
            "meta l4proto sctp accept",
            "tcp dport 8080 accept",
            "drop"
        ]
    );
}

#[test]
fn names_of_ports_are_the_receivers() {
    let to = json!([{"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "client"}}}]);
    let spec = json!({"podSelector": {}, "policyTypes": ["Egress"],
        "egress": [{"to": to, "ports": [{"port": "http"}]}]});
    assert_eq!(
        rules(&[policy(spec)])["egress4"],
        [
            OWN_OUT,
            "ip daddr { 10.42.0.6 } tcp dport 8080 accept",
            "ip daddr { 10.42.0.7 } tcp dport 9090 accept",
            "drop"
        ]
    );
}

#[test]
fn policies_add_up() {
    let deny = policy(json!({"podSelector": {}}));
    let allow = policy(json!({"podSelector": {}, "ingress": [{}]}));
    assert_eq!(
        rules(&[deny, allow])["ingress4"],
        [OWN_IN, "accept", "drop"]
    );
}
