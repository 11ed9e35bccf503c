use base64::{Engine, engine::general_purpose::STANDARD};
use rcgen::{
    CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, SanType, string::Ia5String,
};
use serde_json::{Value, json};
use x509_parser::prelude::FromDer;

use super::*;
use crate::runtime::fake::FakeApi;

const NODE_CLIENT: &[&str] = &["digital signature", "client auth"];
const NODE_SERVING: &[&str] = &["digital signature", "server auth"];

fn ca() -> SigningCa {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params
        .distinguished_name
        .push(DnType::CommonName, "test-ca");
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    SigningCa {
        certificate: params.self_signed(&key).unwrap().pem(),
        key: key.serialize_pem(),
        reserved_names: ["kubernetes.default.svc", "10.43.0.1"]
            .map(String::from)
            .to_vec(),
    }
}

/// A request's PEM: subject and names.
fn pem(cn: &str, o: &str, names: &[&str]) -> String {
    let mut params = CertificateParams::default();
    for name in names {
        params.subject_alt_names.push(match name.parse() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName(Ia5String::try_from(*name).unwrap()),
        });
    }
    if !o.is_empty() {
        params.distinguished_name.push(DnType::OrganizationName, o);
    }
    params.distinguished_name.push(DnType::CommonName, cn);
    // Whatever is asked for here, the signer decides.
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::Any];
    let key = KeyPair::generate().unwrap();
    params.serialize_request(&key).unwrap().pem().unwrap()
}

struct World {
    api: Arc<FakeApi>,
    controller: Arc<CertificatesController>,
}

impl World {
    fn new() -> Self {
        let api = FakeApi::new();
        let controller =
            CertificatesController::new(api.clone(), ca(), Arc::default(), Arc::default());
        World { api, controller }
    }

    fn ask(&self, user: &str, signer: &str, pem: &str, usages: &[&str]) {
        self.api.seed::<CertificateSigningRequest>(json!({
            "metadata": {"name": "asked", "creationTimestamp": Timestamp::now().to_string()},
            "spec": {
                "username": user, "signerName": signer, "usages": usages,
                "request": STANDARD.encode(pem),
            }
        }));
    }

    fn change(&self, patch: Value) {
        let key = Key::new("", "asked");
        self.api.change("certificatesigningrequests", &key, patch);
    }

    fn approve_by_hand(&self) {
        let approved = json!([{"type": "Approved", "status": "True"}]);
        self.change(json!({"status": {"conditions": approved}}));
    }

    /// Lets the controller work until nothing changes.
    async fn work(&self) -> Option<CertificateSigningRequest> {
        for _ in 0..3 {
            self.api.pump(&self.controller.nodes);
            self.api.pump(&self.controller.requests);
            for key in self.controller.queue.take_all() {
                self.controller.reconcile(&key).await.unwrap();
            }
        }
        self.api.all::<CertificateSigningRequest>().pop()
    }

    /// `Ok`: the certificate; `Err`: the words of the failure, or "pending".
    async fn outcome(&self) -> Result<String, String> {
        let request = self.work().await.unwrap();
        let status = request.status.unwrap_or_default();
        if let Some(certificate) = status.certificate {
            return Ok(String::from_utf8(certificate.0).unwrap());
        }
        let failed = status.conditions.iter().flatten();
        let failed = failed.filter(|condition| condition.type_ == "Failed");
        let mut words = failed.filter_map(|condition| condition.message.clone());
        Err(words.next_back().unwrap_or_else(|| "pending".into()))
    }
}

fn node_request() -> String {
    pem("system:node:a", "system:nodes", &[])
}

#[tokio::test]
async fn a_bootstrap_token_gets_a_nodes_client_certificate() {
    let world = World::new();
    let user = "system:bootstrap:abcdef";
    world.ask(user, NODE_CLIENT_SIGNER, &node_request(), NODE_CLIENT);
    assert_eq!(world.outcome().await.unwrap_err(), "pending");
    world
        .api
        .allow(user, "certificatesigningrequests/nodeclient");
    world.change(json!({}));
    let certificate = world.outcome().await.unwrap();
    let (_, pem) = x509_parser::pem::parse_x509_pem(certificate.as_bytes()).unwrap();
    let (_, parsed) = x509_parser::certificate::X509Certificate::from_der(&pem.contents).unwrap();
    let subject = parsed.subject().to_string();
    assert!(subject.contains("CN=system:node:a") && subject.contains("O=system:nodes"));
    let usages = parsed.extended_key_usage().unwrap().unwrap().value;
    assert!(usages.client_auth && !usages.server_auth && !usages.any);
    assert!(!parsed.is_ca());
    let life = parsed.validity().not_after.timestamp() - Timestamp::now().as_second();
    assert!((364 * 24 * 3600..=365 * 24 * 3600).contains(&life));
}

#[tokio::test]
async fn a_token_is_not_enough_to_become_a_node_that_is_there() {
    let world = World::new();
    world.api.seed::<Node>(json!({"metadata": {"name": "a"}}));
    let user = "system:bootstrap:abcdef";
    world
        .api
        .allow(user, "certificatesigningrequests/nodeclient");
    world.ask(user, NODE_CLIENT_SIGNER, &node_request(), NODE_CLIENT);
    assert_eq!(world.outcome().await.unwrap_err(), "pending");
}

#[tokio::test]
async fn a_node_renews_its_own_client_certificate_and_no_other() {
    let may = "certificatesigningrequests/selfnodeclient";
    for (user, signed) in [("system:node:a", true), ("system:node:b", false)] {
        let world = World::new();
        world.api.allow(user, may);
        world.ask(user, NODE_CLIENT_SIGNER, &node_request(), NODE_CLIENT);
        assert_eq!(world.outcome().await.is_ok(), signed, "{user}");
    }
}

#[tokio::test]
async fn a_node_gets_the_service_networks_certificate_and_no_other_users() {
    for (groups, cn, o, signed) in [
        (json!(["system:nodes"]), "system:kube-proxy", "", true),
        (json!(["system:nodes"]), "system:kube-proxy", "devs", false),
        (json!(["system:nodes"]), "system:kube-scheduler", "", false),
        (json!(["devs"]), "system:kube-proxy", "", false),
    ] {
        let world = World::new();
        let user = "system:node:a";
        world
            .api
            .allow(user, "certificatesigningrequests/nodeproxy");
        world.ask(user, CLIENT_SIGNER, &pem(cn, o, &[]), NODE_CLIENT);
        world.change(json!({"spec": {"groups": groups}}));
        assert_eq!(world.outcome().await.is_ok(), signed, "{cn} {o}");
    }
}

#[tokio::test]
async fn a_serving_certificate_is_for_the_nodes_own_names_only() {
    for (names, signed) in [
        (vec!["a", "10.0.0.1"], true),
        (vec!["10.0.0.1"], true),
        (vec!["10.0.0.2"], false),
        (vec!["10.0.0.3"], false),
        (vec!["b"], false),
        (vec!["kubernetes.default.svc"], false),
    ] {
        let world = World::new();
        for (node, address) in [("a", "10.0.0.1"), ("b", "10.0.0.2")] {
            world.api.seed::<Node>(json!({
                "metadata": {"name": node},
                "status": {"addresses": [{"type": "InternalIP", "address": address}]}
            }));
        }
        let may = "certificatesigningrequests/selfnodeserving";
        world.api.allow("system:node:a", may);
        let asked = pem("system:node:a", "system:nodes", &names);
        world.ask("system:node:a", NODE_SERVING_SIGNER, &asked, NODE_SERVING);
        assert_eq!(world.outcome().await.is_ok(), signed, "{names:?}");
    }
}

#[tokio::test]
async fn no_node_gets_a_name_of_the_api_server_even_if_somebody_approves() {
    for (node, name) in [
        ("a", "10.43.0.1"),
        ("kubernetes.default.svc", "kubernetes.default.svc"),
        ("a", "*.default.svc"),
    ] {
        let user = format!("system:node:{node}");
        let world = World::new();
        world
            .api
            .allow(&user, "certificatesigningrequests/selfnodeserving");
        let asked = pem(&user, "system:nodes", &[name]);
        world.ask(&user, NODE_SERVING_SIGNER, &asked, NODE_SERVING);
        assert_eq!(world.outcome().await.unwrap_err(), "pending", "{name}");
        world.approve_by_hand();
        let failure = world.outcome().await.unwrap_err();
        assert!(failure.contains("the API server's"), "{failure}");
    }
}

#[tokio::test]
async fn an_approved_request_against_the_rules_fails_with_the_rule() {
    let client = CLIENT_SIGNER;
    let node = NODE_CLIENT_SIGNER;
    for (signer, request, usages, words) in [
        (
            client,
            pem("eve", "system:masters", &[]),
            NODE_CLIENT,
            "system:masters",
        ),
        (client, pem("eve", "", &[]), NODE_SERVING, "server auth"),
        (client, "nonsense".to_owned(), NODE_CLIENT, "cannot be read"),
        (
            node,
            pem("eve", "system:nodes", &[]),
            NODE_CLIENT,
            "CN=system:node:NAME",
        ),
        (
            node,
            pem("system:node:a", "x", &[]),
            NODE_CLIENT,
            "CN=system:node:NAME",
        ),
        (
            node,
            pem("system:node:a", "system:nodes", &["b"]),
            NODE_CLIENT,
            "no names",
        ),
        (
            NODE_SERVING_SIGNER,
            node_request(),
            NODE_SERVING,
            "needs a DNS name",
        ),
    ] {
        let world = World::new();
        world.ask("admin", signer, &request, usages);
        world.approve_by_hand();
        let failure = world.outcome().await.unwrap_err();
        assert!(failure.contains(words), "{failure} has no {words:?}");
    }
}

#[tokio::test]
async fn a_request_whose_signature_is_wrong_is_not_signed() {
    let good = node_request();
    let mut lines: Vec<&str> = good.lines().collect();
    let other = pem("system:node:a", "system:nodes", &[]);
    let index = lines.len() - 2;
    lines[index] = other.lines().nth(index).unwrap();
    let world = World::new();
    world.ask("admin", NODE_CLIENT_SIGNER, &lines.join("\n"), NODE_CLIENT);
    world.approve_by_hand();
    let failure = world.outcome().await.unwrap_err();
    assert!(failure.contains("cannot be read"), "{failure}");
}

#[tokio::test]
async fn other_signers_requests_and_denied_ones_are_left_alone() {
    let world = World::new();
    world.ask("eve", "example.com/own", &node_request(), NODE_CLIENT);
    world.approve_by_hand();
    assert_eq!(world.outcome().await.unwrap_err(), "pending");

    let world = World::new();
    world.ask("eve", CLIENT_SIGNER, &pem("eve", "", &[]), NODE_CLIENT);
    let denied = json!([{"type": "Denied", "status": "True"}]);
    world.change(json!({"status": {"conditions": denied}}));
    assert_eq!(world.outcome().await.unwrap_err(), "pending");
    assert!(world.api.take_requests().is_empty());
}

#[tokio::test]
async fn old_requests_go() {
    let now = Timestamp::now();
    let ago = |hours: i64| (now - Duration::from_secs(3600 * hours as u64)).to_string();
    let settled = |kind: &str, at: i64| {
        json!({"status": {
            "certificate": STANDARD.encode("x"),
            "conditions": [{"type": kind, "status": "True", "lastUpdateTime": ago(at)}],
        }})
    };
    for (created, status, stays) in [
        (23, json!({}), true),
        (25, json!({}), false),
        (30, settled("Approved", 0), true),
        (30, settled("Approved", 2), false),
        (1, settled("Denied", 2), false),
        (1, settled("Failed", 2), false),
    ] {
        let world = World::new();
        world.ask("eve", "example.com/own", &node_request(), NODE_CLIENT);
        world.change(json!({"metadata": {"creationTimestamp": ago(created)}}));
        world.change(status.clone());
        assert_eq!(world.work().await.is_some(), stays, "{created} {status}");
    }
}
