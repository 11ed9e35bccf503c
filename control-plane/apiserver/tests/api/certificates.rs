//! Who may approve and sign certificate requests.

use base64::{Engine, engine::general_purpose::STANDARD};
use rcgen::{CertificateParams, DnType, KeyPair};
use serde_json::{Value, json};

use crate::harness::{ApiClient, TestServer};

const PATH: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

/// PEM in base64, as `spec.request` wants it.
pub fn encoded_request(organization: &str) -> String {
    let mut params = CertificateParams::default();
    let subject = &mut params.distinguished_name;
    subject.push(DnType::CommonName, "eve");
    subject.push(DnType::OrganizationName, organization);
    let key = KeyPair::generate().unwrap();
    STANDARD.encode(params.serialize_request(&key).unwrap().pem().unwrap())
}

fn request(name: &str, signer: &str, organization: &str) -> Value {
    json!({
        "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
        "metadata": {"name": name},
        "spec": {"request": encoded_request(organization), "signerName": signer,
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
        let pem = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";
        let signed = json!({"certificate": STANDARD.encode(pem)});
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

/// The message of a refusal that concerns the object's content.
async fn invalid(server: &TestServer, object: &Value) -> String {
    let (code, reason, message) = server.admin.post(PATH, object).await.refused();
    assert_eq!((code, reason.as_str()), (422, "Invalid"), "{message}");
    message
}

#[tokio::test]
async fn what_is_asked_for_must_be_readable_and_signed_by_its_key() {
    let server = TestServer::start().await;
    let good = request("a", "example.com/any", "x");
    let pem = STANDARD.decode(good["spec"]["request"].as_str().unwrap());
    let pem = String::from_utf8(pem.unwrap()).unwrap();
    let der: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let der = STANDARD.decode(der).unwrap();
    let with = |der: &[u8], label: &str| {
        let text = STANDARD.encode(der);
        let pem = format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n");
        let mut object = good.clone();
        object["spec"]["request"] = json!(STANDARD.encode(pem));
        object
    };
    const LABEL: &str = "CERTIFICATE REQUEST";
    let mut forged = der.clone();
    let subject = forged.windows(3).position(|part| part == b"eve").unwrap();
    forged[subject] = b'E';
    let longer = [&der[..], b"x"].concat();
    for (object, why) in [
        (
            with(&der, "CERTIFICATE"),
            "PEM block type must be CERTIFICATE REQUEST",
        ),
        (with(b"none", LABEL), "asn1: structure error"),
        (with(&longer, LABEL), "asn1: syntax error: trailing data"),
        (with(&forged, LABEL), "x509: ECDSA verification failure"),
    ] {
        let message = invalid(&server, &object).await;
        assert!(message.contains("spec.request: Invalid value"), "{message}");
        assert!(message.contains(why), "{why}: {message}");
    }
    server.admin.post(PATH, &with(&der, LABEL)).await.ok();
}

#[tokio::test]
async fn signers_and_usages_have_bounds() {
    let server = TestServer::start().await;
    let long = format!(
        "example.com/{}",
        ["a".repeat(250), "b".repeat(250), "c".repeat(100)].join(".")
    );
    for (signer, why) in [
        ("", "spec.signerName: Required value"),
        (
            "plain",
            "must be a fully qualified domain and path of the form 'example.com/signer-name'",
        ),
        (
            "example.com/a/b",
            "must be a fully qualified domain and path",
        ),
        (
            "example/a",
            "should be a domain with at least two segments separated by dots",
        ),
        (
            "Example.com/a",
            "validating label \\\"Example\\\": a lowercase RFC 1123 label",
        ),
        (
            "example.com/A",
            "validating label \\\"A\\\": a lowercase RFC 1123 subdomain",
        ),
        (
            "kubernetes.io/legacy-unknown",
            "the legacy signerName is not allowed via this API version",
        ),
        (
            &long,
            "spec.signerName: Too long: may not be more than 571 bytes",
        ),
    ] {
        let message = invalid(&server, &request("a", signer, "x")).await;
        assert!(
            message.contains(&why.replace("\\\"", "\"")),
            "{why}: {message}"
        );
    }
    let mut object = request("a", "example.com/any", "x");
    object["spec"]["usages"] = json!(["client auth", "client auth", "walking"]);
    let message = invalid(&server, &object).await;
    for why in [
        "spec.usages[1]: Duplicate value: \"client auth\"",
        "spec.usages[2]: Unsupported value: \"walking\"",
    ] {
        assert!(message.contains(why), "{why}: {message}");
    }
}

#[tokio::test]
async fn only_certificates_are_issued() {
    let server = TestServer::start().await;
    let made = request("a", "example.com/any", "x");
    let made = server.admin.post(PATH, &made).await.ok();
    let path = format!("{PATH}/a/status");
    for (pem, why) in [
        ("nothing", "must contain at least one CERTIFICATE PEM block"),
        (
            "-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n",
            "only CERTIFICATE PEM blocks are allowed, found \"PRIVATE KEY\"",
        ),
    ] {
        let signed = with(made.clone(), json!({"certificate": STANDARD.encode(pem)}));
        let (code, _, message) = server.admin.put(&path, &signed).await.refused();
        assert_eq!(code, 422);
        let expected = format!("status.certificate: Invalid value: \"<certificate data>\": {why}");
        assert!(message.contains(&expected), "{message}");
    }
}
