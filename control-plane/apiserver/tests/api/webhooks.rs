//! Webhooks that change, deny, fail and are late, over real TLS.

use std::sync::{Arc, Mutex};

use base64::{Engine, engine::general_purpose::STANDARD};
use hull_store::Write;
use serde_json::{Value, json};

use crate::{
    dynamic_admission::{REGISTRATION, create, eventually},
    harness::{CONFIG_MAPS, TestServer, config_map},
    tls_server::{TlsServer, json_answer},
};

pub type Reviews = Arc<Mutex<Vec<Value>>>;

/// A webhook at 127.0.0.1 that answers with what `decide` makes of a request; its port, its CA
/// and the requests it saw.
pub async fn webhook(
    names: &[&str],
    decide: impl Fn(&Value) -> Value + Send + Sync + 'static,
) -> (u16, String, Reviews) {
    let seen = Reviews::default();
    let reviews = seen.clone();
    let server = TlsServer::start(names, None, move |_, body| {
        let review: Value = serde_json::from_slice(body).unwrap();
        let mut response = decide(&review["request"]);
        response["uid"] = review["request"]["uid"].clone();
        reviews.lock().unwrap().push(review["request"].clone());
        json_answer(&json!({"apiVersion": "admission.k8s.io/v1",
            "kind": "AdmissionReview", "response": response}))
    })
    .await;
    (server.port, server.bundle, seen)
}

/// An answer that patches.
pub fn patching(patch: &Value) -> Value {
    json!({"allowed": true, "patchType": "JSONPatch", "patch": STANDARD.encode(patch.to_string())})
}

pub fn configuration(kind: &str, name: &str, client: Value) -> Value {
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
    let named = format!("{dry}&fieldManager=me&fieldValidation=Strict");
    server.admin.post(&named, &config_map("a")).await.ok();
    let review = seen.lock().unwrap().last().cloned().unwrap();
    assert_eq!(
        review["options"],
        json!({"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1", "dryRun": ["All"],
            "fieldManager": "me", "fieldValidation": "Strict"})
    );
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
async fn a_denial_is_passed_on_as_the_webhook_gave_it() {
    let server = TestServer::start().await;
    let (port, bundle, _) = webhook(&["127.0.0.1"], |request| {
        let status = match request["name"].as_str().unwrap() {
            "teapot" => json!({"code": 418, "reason": "Teapot", "message": "short and stout",
                "metadata": {}, "details": {"name": "pot", "kind": "things", "retryAfterSeconds": 7,
                    "causes": [{"reason": "FieldValueInvalid", "message": "bad", "field": "data"}]}}),
            "mild" => json!({"code": 200, "status": "Success", "reason": "Because"}),
            _ => return json!({"allowed": false}),
        };
        json!({"allowed": false, "status": status})
    })
    .await;
    let client = json!({"url": format!("https://127.0.0.1:{port}/"), "caBundle": bundle});
    let object = configuration("ValidatingWebhookConfiguration", "judge", client);
    create(&server.admin, "validatingwebhookconfigurations", object).await;
    eventually(async || {
        let dry = format!("{CONFIG_MAPS}?dryRun=All");
        server.admin.post(&dry, &config_map("probe")).await.code != 201
    })
    .await;
    let answer = server.admin.post(CONFIG_MAPS, &config_map("teapot")).await;
    assert_eq!(answer.headers["retry-after"], "7");
    assert_eq!(
        answer.json(),
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "code": 418, "reason": "Teapot",
            "message": "admission webhook \"judge.example.com\" denied the request: short and stout",
            "details": {"name": "pot", "kind": "things", "retryAfterSeconds": 7,
                "causes": [{"reason": "FieldValueInvalid", "message": "bad", "field": "data"}]}})
    );
    let denied = "admission webhook \"judge.example.com\" denied the request";
    let mild = server.admin.post(CONFIG_MAPS, &config_map("mild")).await;
    assert_eq!(
        mild.refused(),
        (400, "Because".into(), format!("{denied}: Because"))
    );
    assert_eq!(mild.json()["status"], "Failure");
    let silent = server.admin.post(CONFIG_MAPS, &config_map("other")).await;
    assert_eq!(
        silent.refused(),
        (400, String::new(), format!("{denied} without explanation"))
    );
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

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_sees_again_what_others_changed_after_it() {
    let server = TestServer::start().await;
    let (port, bundle, first) = webhook(&["127.0.0.1"], |request| {
        let known = request["object"]["data"]
            .as_object()
            .unwrap()
            .contains_key("late");
        patching(&json!([{"op": "add", "path": "/data/sawLate", "value": known.to_string()}]))
    })
    .await;
    let client = json!({"url": format!("https://127.0.0.1:{port}/"), "caBundle": bundle});
    let mut object = configuration("MutatingWebhookConfiguration", "a-first", client);
    object["webhooks"][0]["reinvocationPolicy"] = json!("IfNeeded");
    create(&server.admin, "mutatingwebhookconfigurations", object).await;
    let (port, bundle, second) = webhook(&["127.0.0.1"], |_| {
        patching(&json!([{"op": "add", "path": "/data/late", "value": "yes"}]))
    })
    .await;
    let client = json!({"url": format!("https://127.0.0.1:{port}/"), "caBundle": bundle});
    let object = configuration("MutatingWebhookConfiguration", "b-second", client);
    create(&server.admin, "mutatingwebhookconfigurations", object).await;
    let dry = format!("{CONFIG_MAPS}?dryRun=All");
    eventually(async || {
        server.admin.post(&dry, &config_map("probe")).await;
        !second.lock().unwrap().is_empty()
    })
    .await;
    first.lock().unwrap().clear();
    second.lock().unwrap().clear();
    let created = server.admin.post(CONFIG_MAPS, &config_map("a")).await.ok();
    assert_eq!(
        created["data"],
        json!({"a": "1", "late": "yes", "sawLate": "true"})
    );
    let calls = (first.lock().unwrap().len(), second.lock().unwrap().len());
    assert_eq!(calls, (2, 1), "only the first one asks to be asked again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_that_is_late_counts_as_failed() {
    let server = TestServer::start().await;
    // It takes connections and never says a word.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    let (_, bundle, _) = webhook(&["127.0.0.1"], |_| json!({"allowed": true})).await;
    let client = json!({"url": format!("https://127.0.0.1:{port}/"), "caBundle": bundle});
    let mut object = configuration("ValidatingWebhookConfiguration", "late", client);
    object["webhooks"][0]["timeoutSeconds"] = json!(31);
    let path = format!("{REGISTRATION}/validatingwebhookconfigurations");
    let (code, _, message) = server.admin.post(&path, &object).await.refused();
    assert_eq!(code, 422);
    assert!(
        message.contains("webhooks[0].timeoutSeconds: Invalid value: 31: the timeout value must be between 1 and 30 seconds"),
        "{message}"
    );
    object["webhooks"][0]["timeoutSeconds"] = json!(30);
    create(&server.admin, "validatingwebhookconfigurations", object).await;
    let dry = format!("{CONFIG_MAPS}?dryRun=All");
    // The request's own time is over first.
    let short = format!("{dry}&timeout=200ms");
    eventually(async || server.admin.post(&short, &config_map("a")).await.code != 201).await;
    let (code, reason, message) = server.admin.post(&short, &config_map("a")).await.refused();
    assert_eq!((code, reason.as_str()), (504, "Timeout"));
    assert_eq!(
        message,
        "Timeout: request did not complete within the allotted timeout"
    );
    let unreadable = format!("{dry}&timeout=soon");
    assert_eq!(
        server.admin.post(&unreadable, &config_map("a")).await.code,
        400
    );
    let path = format!("{path}/late");
    let second = json!([{"op": "replace", "path": "/webhooks/0/timeoutSeconds", "value": 1}]);
    server.admin.patch(&path, "json-patch", &second).await.ok();
    let waits = "context deadline exceeded";
    eventually(async || {
        server
            .admin
            .post(&dry, &config_map("a"))
            .await
            .text
            .contains(waits)
    })
    .await;
    let (code, reason, message) = server.admin.post(&dry, &config_map("a")).await.refused();
    assert_eq!((code, reason.as_str()), (500, "InternalError"));
    assert_eq!(
        message,
        "Internal error occurred: failed calling webhook \"late.example.com\": failed to call webhook: context deadline exceeded"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_behind_a_service_is_reached_at_a_ready_endpoint() {
    let server = TestServer::start().await;
    let (port, bundle, seen) = webhook(
        &["hook.default.svc"],
        |_| json!({"allowed": false, "status": {"message": "by the service"}}),
    )
    .await;
    let services = "/api/v1/namespaces/default/services";
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "hook"},
        "spec": {"ports": [{"name": "tls", "port": 8443}]}});
    server.admin.post(services, &service).await.ok();
    // Loopback addresses are refused by the API, so this one is written behind its back.
    let slice = |name: &str, port: u16, ready: bool| {
        json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": name, "namespace": "default", "uid": name,
                "labels": {"kubernetes.io/service-name": "hook"}},
            "ports": [{"name": "tls", "port": port, "protocol": "TCP"}],
            "endpoints": [{"addresses": ["127.0.0.1"], "conditions": {"ready": ready}}]})
    };
    for (name, port, ready) in [("hook-a", 1, false), ("hook-b", port, true)] {
        let key = format!("/registry/endpointslices/default/{name}");
        let value = slice(name, port, ready).to_string().into();
        server
            .store
            .txn(Vec::new(), vec![Write::Put(key, value)])
            .await
            .unwrap();
    }
    let reference = json!({"name": "hook", "namespace": "default", "port": 8443, "path": "/judge"});
    let client = json!({"service": reference, "caBundle": bundle});
    let object = configuration("ValidatingWebhookConfiguration", "behind", client);
    create(&server.admin, "validatingwebhookconfigurations", object).await;
    let dry = format!("{CONFIG_MAPS}?dryRun=All");
    eventually(async || {
        !seen.lock().unwrap().is_empty()
            || server.admin.post(&dry, &config_map("a")).await.code == 400
    })
    .await;
    let (code, reason, message) = server.admin.post(&dry, &config_map("a")).await.refused();
    assert_eq!((code, reason.as_str()), (400, ""));
    assert_eq!(
        message,
        "admission webhook \"behind.example.com\" denied the request: by the service"
    );
    let path = format!("{services}/hook");
    server.admin.delete(&path, &json!({})).await.ok();
    eventually(async || {
        let refused = server.admin.post(&dry, &config_map("a")).await;
        refused.text.contains("service \\\"hook\\\" not found")
    })
    .await;
}
