//! Policies in CEL and webhooks.

use std::sync::{Arc, Mutex};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::Response;
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};

use crate::harness::{
    ApiClient, CONFIG_MAPS, DEPLOYMENTS, PATIENCE, TestServer, config_map, deployment,
};

const REGISTRATION: &str = "/apis/admissionregistration.k8s.io/v1";

async fn create(client: &ApiClient, plural: &str, object: Value) -> Value {
    client
        .post(&format!("{REGISTRATION}/{plural}"), &object)
        .await
        .ok()
}

fn policy(validations: Value) -> Value {
    json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": "replicas"},
        "spec": {"matchConstraints": {"resourceRules": [{"apiGroups": ["apps"], "apiVersions": ["v1"],
            "operations": ["CREATE", "UPDATE"], "resources": ["deployments"]}]},
            "variables": [{"name": "wanted", "expression": "object.spec.replicas"}],
            "matchConditions": [{"name": "not-free", "expression": "object.metadata.name != 'free'"}],
            "validations": validations}})
}

fn binding(actions: Value) -> Value {
    json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": "here"}, "spec": {"policyName": "replicas", "validationActions": actions}})
}

/// Tries until the server has taken in what was written before; the last answer.
async fn eventually<F: Future<Output = bool>>(what: impl Fn() -> F) {
    let until = tokio::time::Instant::now() + PATIENCE;
    while !what().await {
        assert!(tokio::time::Instant::now() < until, "it never happened");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_deny_and_warn_as_their_bindings_say() {
    let server = TestServer::start().await;
    let broken = policy(json!([{"expression": "object.spec.replicas <= nope"}]));
    let refused = server
        .admin
        .post(
            &format!("{REGISTRATION}/validatingadmissionpolicies"),
            &broken,
        )
        .await
        .refused();
    assert!(
        refused.2.contains("spec.validations[0].expression: Invalid value: \"object.spec.replicas <= nope\": compilation failed: undeclared reference to 'nope'"),
        "{refused:?}"
    );
    let validations = json!([{"expression": "variables.wanted <= 5 || request.operation == 'DELETE'",
        "messageExpression": "'too many: ' + string(variables.wanted)"}]);
    create(
        &server.admin,
        "validatingadmissionpolicies",
        policy(validations),
    )
    .await;
    let mut many = deployment("many");
    many["spec"]["replicas"] = json!(9);
    // Without a binding a policy does nothing.
    let dry = format!("{DEPLOYMENTS}?dryRun=All");
    server.admin.post(&dry, &many).await.ok();
    create(
        &server.admin,
        "validatingadmissionpolicybindings",
        binding(json!(["Deny"])),
    )
    .await;
    eventually(async || server.admin.post(&dry, &many).await.code != 201).await;
    let (code, reason, message) = server.admin.post(DEPLOYMENTS, &many).await.refused();
    assert_eq!((code, reason.as_str()), (422, "Invalid"));
    assert_eq!(
        message,
        "deployments.apps \"many\" is forbidden: ValidatingAdmissionPolicy 'replicas' with binding 'here' denied request: too many: 9"
    );
    server
        .admin
        .post(DEPLOYMENTS, &deployment("few"))
        .await
        .ok();
    let more = json!({"spec": {"replicas": 6}});
    let path = format!("{DEPLOYMENTS}/few");
    let refused = server.admin.patch(&path, "merge-patch", &more).await;
    assert_eq!(refused.code, 422, "{}", refused.text);
    let mut free = many.clone();
    free["metadata"]["name"] = json!("free");
    server.admin.post(DEPLOYMENTS, &free).await.ok();
    let path = format!("{REGISTRATION}/validatingadmissionpolicybindings/here");
    let warn = json!({"spec": {"validationActions": ["Warn"]}});
    server.admin.patch(&path, "merge-patch", &warn).await.ok();
    eventually(async || server.admin.post(&dry, &many).await.code == 201).await;
    let warned = server.admin.post(DEPLOYMENTS, &many).await;
    assert_eq!(
        warned.headers["warning"],
        "299 - \"Validation failed for ValidatingAdmissionPolicy 'replicas' with binding 'here': too many: 9\""
    );
    warned.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_take_parameters_and_fail_closed() {
    let server = TestServer::start().await;
    let mut object = policy(json!([
        {"expression": "object.spec.replicas <= int(params.data.most)", "reason": "Forbidden"}]));
    object["spec"]["paramKind"] = json!({"apiVersion": "v1", "kind": "ConfigMap"});
    create(&server.admin, "validatingadmissionpolicies", object).await;
    let mut bound = binding(json!(["Deny"]));
    bound["spec"]["paramRef"] =
        json!({"name": "limits", "namespace": "default", "parameterNotFoundAction": "Deny"});
    create(&server.admin, "validatingadmissionpolicybindings", bound).await;
    let dry = format!("{DEPLOYMENTS}?dryRun=All");
    eventually(async || server.admin.post(&dry, &deployment("a")).await.code != 201).await;
    let missing = server.admin.post(&dry, &deployment("a")).await.refused();
    assert!(missing.2.contains("no params found"), "{missing:?}");
    let mut limits = config_map("limits");
    limits["data"] = json!({"most": "3"});
    server.admin.post(CONFIG_MAPS, &limits).await.ok();
    eventually(async || server.admin.post(&dry, &deployment("a")).await.code == 201).await;
    let mut many = deployment("many");
    many["spec"]["replicas"] = json!(4);
    let (code, reason, message) = server.admin.post(DEPLOYMENTS, &many).await.refused();
    assert_eq!((code, reason.as_str()), (403, "Forbidden"));
    assert!(message.contains("failed expression: object.spec.replicas <= int(params.data.most)"));
    let path = format!("{CONFIG_MAPS}/limits");
    server
        .admin
        .patch(&path, "merge-patch", &json!({"data": {"most": null}}))
        .await
        .ok();
    eventually(async || {
        let answer = server.admin.post(&dry, &deployment("a")).await;
        answer.text.contains("no such key")
    })
    .await;
}

type Reviews = Arc<Mutex<Vec<Value>>>;

/// A webhook at 127.0.0.1 that answers with what `decide` makes of a request; its port, its CA
/// and the requests it saw.
async fn webhook(
    names: &[&str],
    decide: impl Fn(&Value) -> Value + Send + Sync + 'static,
) -> (u16, String, Reviews) {
    let names: Vec<String> = names.iter().map(|name| (*name).to_string()).collect();
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(names)
        .unwrap()
        .self_signed(&key)
        .unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            rustls_pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let seen = Reviews::default();
    let (decide, reviews) = (Arc::new(decide), seen.clone());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, decide, reviews) = (acceptor.clone(), decide.clone(), reviews.clone());
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else {
                    return;
                };
                let service = service_fn(|request: http::Request<hyper::body::Incoming>| {
                    let (decide, reviews) = (decide.clone(), reviews.clone());
                    async move {
                        let body = request.into_body().collect().await.unwrap().to_bytes();
                        let review: Value = serde_json::from_slice(&body).unwrap();
                        let mut response = decide(&review["request"]);
                        response["uid"] = review["request"]["uid"].clone();
                        reviews.lock().unwrap().push(review["request"].clone());
                        let answer = json!({"apiVersion": "admission.k8s.io/v1",
                            "kind": "AdmissionReview", "response": response});
                        let body = Full::new(Bytes::from(answer.to_string()));
                        Ok::<_, std::convert::Infallible>(Response::new(body))
                    }
                });
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    (port, STANDARD.encode(certificate.pem()), seen)
}

fn configuration(kind: &str, name: &str, client: Value) -> Value {
    json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind,
        "metadata": {"name": name}, "webhooks": [{"name": format!("{name}.example.com"),
            "clientConfig": client, "sideEffects": "None", "admissionReviewVersions": ["v1"],
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE", "DELETE"],
                "resources": ["configmaps"]}],
            "matchConditions": [{"name": "named", "expression": "request.name != 'free'"}]}]})
}

#[tokio::test(flavor = "multi_thread")]
async fn webhooks_change_and_deny() {
    let server = TestServer::start().await;
    let (port, bundle, _) = webhook(&["127.0.0.1"], |request| {
        if request["operation"] == "DELETE" {
            return json!({"allowed": true});
        }
        let patch = json!([{"op": "add", "path": "/data/stamp", "value": request["userInfo"]["username"]}]);
        json!({"allowed": true, "patchType": "JSONPatch", "patch": STANDARD.encode(patch.to_string()),
            "warnings": ["stamped"]})
    })
    .await;
    let client = json!({"url": format!("https://127.0.0.1:{port}/mutate"), "caBundle": bundle});
    let object = configuration("MutatingWebhookConfiguration", "stamp", client);
    let created = create(&server.admin, "mutatingwebhookconfigurations", object).await;
    assert_eq!(created["webhooks"][0]["timeoutSeconds"], 10);
    let (port, bundle, seen) = webhook(&["127.0.0.1"], |request| {
        let bad = request["operation"] != "DELETE" && request["object"]["data"]["bad"] == "yes";
        let kept =
            request["operation"] == "DELETE" && request["oldObject"]["data"]["keep"] == "yes";
        json!({"allowed": !bad && !kept, "status": {"message": "no", "code": 422}})
    })
    .await;
    let client = json!({"url": format!("https://127.0.0.1:{port}/judge"), "caBundle": bundle});
    let object = configuration("ValidatingWebhookConfiguration", "judge", client);
    create(&server.admin, "validatingwebhookconfigurations", object).await;
    let dry = format!("{CONFIG_MAPS}?dryRun=All");
    eventually(async || {
        server.admin.post(&dry, &config_map("probe")).await;
        !seen.lock().unwrap().is_empty()
    })
    .await;
    let created = server.admin.post(CONFIG_MAPS, &config_map("a")).await;
    assert_eq!(created.headers["warning"], "299 - \"stamped\"");
    assert_eq!(created.ok()["data"]["stamp"], "kubernetes-admin");
    let review = seen.lock().unwrap().last().cloned().unwrap();
    assert_eq!(review["object"]["data"]["stamp"], "kubernetes-admin");
    assert_eq!(
        (
            &review["operation"],
            &review["namespace"],
            &review["dryRun"],
            &review["resource"]["resource"]
        ),
        (
            &json!("CREATE"),
            &json!("default"),
            &json!(false),
            &json!("configmaps")
        )
    );
    let mut bad = config_map("b");
    bad["data"]["bad"] = json!("yes");
    let (code, _, message) = server.admin.post(CONFIG_MAPS, &bad).await.refused();
    assert_eq!(
        (code, message.as_str()),
        (
            422,
            "admission webhook \"judge.example.com\" denied the request: no"
        )
    );
    bad["metadata"]["name"] = json!("free");
    let free = server.admin.post(CONFIG_MAPS, &bad).await.ok();
    assert!(free["data"].get("stamp").is_none());
    let path = format!("{CONFIG_MAPS}/a");
    let keep = json!({"data": {"keep": "yes"}});
    let changed = server.admin.patch(&path, "merge-patch", &keep).await.ok();
    assert_eq!(changed["data"]["keep"], "yes");
    assert_eq!(server.admin.delete(&path, &json!({})).await.code, 422);
    server
        .admin
        .patch(&path, "merge-patch", &json!({"data": {"keep": "no"}}))
        .await
        .ok();
    server.admin.delete(&path, &json!({})).await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_that_fails_refuses_or_lets_pass_as_it_is_told() {
    let server = TestServer::start().await;
    let (port, bundle, _) = webhook(&["somebody.else"], |_| json!({"allowed": true})).await;
    let client = json!({"url": format!("https://127.0.0.1:{port}/"), "caBundle": bundle});
    let object = configuration("ValidatingWebhookConfiguration", "broken", client);
    create(&server.admin, "validatingwebhookconfigurations", object).await;
    let dry = format!("{CONFIG_MAPS}?dryRun=All");
    eventually(async || server.admin.post(&dry, &config_map("a")).await.code != 201).await;
    let (code, reason, message) = server.admin.post(&dry, &config_map("a")).await.refused();
    assert_eq!((code, reason.as_str()), (500, "InternalError"));
    assert!(
        message.contains("failed calling webhook \"broken.example.com\": failed to call webhook"),
        "{message}"
    );
    let path = format!("{REGISTRATION}/validatingwebhookconfigurations/broken");
    let ignore = json!([{"op": "replace", "path": "/webhooks/0/failurePolicy", "value": "Ignore"}]);
    server.admin.patch(&path, "json-patch", &ignore).await.ok();
    eventually(async || server.admin.post(&dry, &config_map("a")).await.code == 201).await;
}
