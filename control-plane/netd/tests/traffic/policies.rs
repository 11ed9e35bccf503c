//! Network policies under traffic.

use std::net::UdpSocket;
use std::sync::Arc;

use hull_netd::policy::index::PolicyIndex;
use hull_netd::ports::watch::Attachments;
use serde_json::{Value, json};

use super::world::{World, ask_udp, attachment};

const SILENCE: &str = "timed out";

struct Policies {
    world: World,
    index: PolicyIndex,
}

impl Policies {
    /// Pods p1 and p2 in namespace a, with their names as labels.
    async fn new() -> Self {
        let mut index = PolicyIndex::default();
        let mut attachments = Attachments::new();
        for number in [1, 2] {
            let name = format!("p{number}");
            let pod = json!({
                "metadata": {"namespace": "a", "name": name, "labels": {"name": name}},
                "spec": {"containers": [{"name": "c", "ports": [
                    {"name": "http", "containerPort": 8080}, {"containerPort": 8081},
                ]}]},
                "status": {"podIPs": [{"ip": format!("10.42.0.1{number}")}]},
            });
            let pod = serde_json::from_value(pod).unwrap();
            index.set_pod(("a".into(), name), Some(&pod));
            let found = attachment(number);
            attachments.insert(found.sandbox.clone(), Arc::new(found));
        }
        index.set_attachments(attachments);
        let world = World::new(false);
        let mut policies = Policies { world, index };
        policies.sync().await;
        policies.world.serve_tcp("p1", 8080);
        policies.world.serve_tcp("p2", 8080);
        policies.world.serve_tcp("p2", 8081);
        policies
    }

    async fn set(&mut self, name: &str, spec: Value) {
        let policy = json!({"metadata": {"namespace": "a", "name": name}, "spec": spec});
        let policy = serde_json::from_value(policy).unwrap();
        self.index
            .set_policy(("a".into(), name.into()), Some(&policy));
        self.sync().await;
    }

    async fn sync(&mut self) {
        self.index.update(&mut self.world.policies.table);
        self.world.sync().await;
    }

    fn ask(&self, from: &str, to: &str) -> Result<String, String> {
        let answer = self.world.ask(from, to)?;
        Ok(answer.split(' ').next().unwrap().to_string())
    }
}

fn pod(name: &str) -> Value {
    json!({"matchLabels": {"name": name}})
}

#[tokio::test(flavor = "multi_thread")]
async fn default_deny_closes_a_pod_to_all_but_its_node() {
    let mut policies = Policies::new().await;
    assert_eq!(policies.ask("p1", "10.42.0.12:8080").unwrap(), "p2");
    policies
        .set("deny", json!({"podSelector": pod("p2")}))
        .await;
    for from in ["p1", "c"] {
        assert_eq!(
            policies.ask(from, "10.42.0.12:8080").unwrap_err(),
            SILENCE,
            "{from}"
        );
    }
    assert_eq!(
        policies.ask("n", "10.42.0.12:8080").unwrap(),
        "p2",
        "the node may"
    );
    assert_eq!(
        policies.ask("p2", "10.42.0.11:8080").unwrap(),
        "p1",
        "it may go out"
    );
    policies.index.set_policy(("a".into(), "deny".into()), None);
    policies.sync().await;
    assert_eq!(
        policies.ask("p1", "10.42.0.12:8080").unwrap(),
        "p2",
        "open again"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_and_named_ports_are_let_in() {
    let mut policies = Policies::new().await;
    let allow = json!({"podSelector": pod("p2"), "ingress": [
        {"from": [{"podSelector": pod("p1")}], "ports": [{"port": "http"}]},
        {"from": [{"ipBlock": {"cidr": "192.0.2.0/24", "except": ["192.0.2.128/25"]}}],
         "ports": [{"port": 8081, "endPort": 8090}]},
    ]});
    policies.set("allow", allow).await;
    assert_eq!(policies.ask("p1", "10.42.0.12:8080").unwrap(), "p2");
    assert_eq!(policies.ask("p1", "10.42.0.12:8081").unwrap_err(), SILENCE);
    assert_eq!(policies.ask("c", "10.42.0.12:8081").unwrap(), "p2");
    assert_eq!(policies.ask("c", "10.42.0.12:8080").unwrap_err(), SILENCE);
}

#[tokio::test(flavor = "multi_thread")]
async fn egress_is_judged_apart_from_ingress() {
    let mut policies = Policies::new().await;
    let egress = json!({"podSelector": pod("p1"), "policyTypes": ["Egress"],
        "egress": [{"to": [{"podSelector": pod("p2")}], "ports": [{"port": 8080}]}]});
    policies.set("out", egress).await;
    assert_eq!(policies.ask("p1", "10.42.0.12:8080").unwrap(), "p2");
    assert_eq!(policies.ask("p1", "10.42.0.12:8081").unwrap_err(), SILENCE);
    assert_eq!(
        policies.ask("c", "10.42.0.11:8080").unwrap(),
        "p1",
        "answers go out"
    );
    // What p1 may send, p2 need not take.
    policies.set("in", json!({"podSelector": pod("p2")})).await;
    assert_eq!(policies.ask("p1", "10.42.0.12:8080").unwrap_err(), SILENCE);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_policy_holds_for_flows_that_exist() {
    let mut policies = Policies::new().await;
    policies.world.serve_udp("p2", 9000);
    let socket = policies
        .world
        .inside("p1", || UdpSocket::bind("0.0.0.0:0").unwrap());
    assert_eq!(ask_udp(&socket, "10.42.0.12:9000").unwrap(), "p2");
    policies
        .set("deny", json!({"podSelector": pod("p2")}))
        .await;
    assert!(ask_udp(&socket, "10.42.0.12:9000").is_err());
}
