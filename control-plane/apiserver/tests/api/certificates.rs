//! Who may approve and sign certificate requests.

use base64::{Engine, engine::general_purpose::STANDARD};
use rcgen::{CertificateParams, DnType, KeyPair};
use serde_json::{Value, json};

use crate::harness::{ApiClient, TestServer};

const PATH: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

fn request(name: &str, signer: &str, organization: &str) -> Value {
    let mut params = CertificateParams::default();
    let subject = &mut params.distinguished_name;
    subject.push(DnType::CommonName, "eve");
    subject.push(DnType::OrganizationName, organization);
    let key = KeyPair::generate().unwrap();
    let pem = params.serialize_request(&key).unwrap().pem().unwrap();
    json!({
        "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
        "metadata": {"name": name},
        "spec": {"request": STANDARD.encode(pem), "signerName": signer,
            "usages": ["client auth"]},
    })
}

/// Somebody who may write every part of requests, and has this verb on these signers.
async fn officer(server: &TestServer, verb: &str, signers: &[&str]) -> ApiClient {
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
    "metadata": {"name": "officer"}, "rules": [
        {"apiGroups": ["certificates.k8s.io"], "verbs": ["*"], "resources": [
            "certificatesigningrequests", "certificatesigningrequests/approval",
            "certificatesigningrequests/status"]},
        {"apiGroups": ["certificates.k8s.io"], "verbs": [verb], "resources": ["signers"],
            "resourceNames": signers},
    ]});
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding", "metadata": {"name": "officer"},
        "roleRef": {"kind": "ClusterRole", "name": "officer"},
        "subjects": [{"kind": "User", "name": "officer"}]});
    let admin = &server.admin;
    admin
        .post(&format!("{RBAC}/clusterroles"), &role)
        .await
        .ok();
    let bindings = format!("{RBAC}/clusterrolebindings");
    admin.post(&bindings, &binding).await.ok();
    let pair = server.pki.client("officer", "officer", &[]).unwrap();
    let client = server.client(Some(&pair));
    // Roles reach the authorizer a moment later.
    while client.get(PATH).await.code != 200 {
        tokio::task::yield_now().await;
    }
    client
}

fn with(mut object: Value, status: Value) -> Value {
    object["status"] = status;
    object
}

#[tokio::test]
async fn approving_needs_the_verb_on_the_signer() {
    let server = TestServer::start().await;
    let client = officer(&server, "approve", &["example.com/*"]).await;
    let approved = json!({"conditions": [{"type": "Approved", "status": "True"}]});
    for (name, signer, code) in [
        ("a", "example.com/any", 200),
        ("b", "kubernetes.io/kube-apiserver-client", 403),
    ] {
        let made = server
            .admin
            .post(PATH, &request(name, signer, "x"))
            .await
            .ok();
        let path = format!("{PATH}/{name}/approval");
        let answer = client.put(&path, &with(made, approved.clone())).await;
        assert_eq!(answer.code, code, "{}", answer.text);
    }
}

#[tokio::test]
async fn signing_needs_the_verb_on_the_signer() {
    let server = TestServer::start().await;
    let client = officer(&server, "sign", &["example.com/one"]).await;
    for (name, signer, code) in [("a", "example.com/one", 200), ("b", "example.com/two", 403)] {
        let made = server
            .admin
            .post(PATH, &request(name, signer, "x"))
            .await
            .ok();
        let signed = json!({"certificate": STANDARD.encode("pem")});
        let path = format!("{PATH}/{name}/status");
        let answer = client.put(&path, &with(made, signed)).await;
        assert_eq!(answer.code, code, "{}", answer.text);
    }
}

#[tokio::test]
async fn nobody_asks_for_a_certificate_of_the_masters() {
    let server = TestServer::start().await;
    let signer = "kubernetes.io/kube-apiserver-client";
    let masters = request("a", signer, "system:masters");
    let (code, _, message) = server.admin.post(PATH, &masters).await.refused();
    assert_eq!(code, 403);
    assert!(
        message.contains("system:masters group is not allowed"),
        "{message}"
    );
    server
        .admin
        .post(PATH, &request("b", signer, "devs"))
        .await
        .ok();
}
