//! Webhooks that change, deny, fail and are late, over real TLS.

use std::sync::{Arc, Mutex};

use base64::{Engine, engine::general_purpose::STANDARD};
use hull_store::Write;
use serde_json::{Value, json};

use crate::{
    custom_resources::{TABS, tab, with_tabs},
    dynamic_admission::{REGISTRATION, bind_mutating, create, eventually, mutating},
    harness::{CONFIG_MAPS, PODS, TestServer, bind, config_map, pod},
    tls_server::{TlsServer, json_answer},
};

type Reviews = Arc<Mutex<Vec<Value>>>;

/// A webhook at 127.0.0.1 that answers with what `decide` makes of a request; its port, its CA
/// and the requests it saw.
async fn webhook(
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
fn patching(patch: &Value) -> Value {
    json!({"allowed": true, "patchType": "JSONPatch", "patch": STANDARD.encode(patch.to_string())})
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

/// A configuration with other rules, asked about everything that these name.
fn with_rules(kind: &str, name: &str, client: Value, operations: Value, resources: Value) -> Value {
    let mut object = configuration(kind, name, client);
    object["webhooks"][0]["rules"] = json!([{"apiGroups": [""], "apiVersions": ["v1"],
        "operations": operations, "resources": resources}]);
    object["webhooks"][0]
        .as_object_mut()
        .unwrap()
        .remove("matchConditions");
    object
}

#[tokio::test(flavor = "multi_thread")]
async fn webhooks_guard_what_is_done_with_a_pod() {
    let server = TestServer::start().await;
    let admin = &server.admin;
    let (port, bundle, seen) = webhook(
        &["127.0.0.1"],
        |_| json!({"allowed": false, "status": {"code": 403, "message": "hands off"}}),
    )
    .await;
    let client = json!({"url": format!("https://127.0.0.1:{port}/"), "caBundle": bundle});
    admin.post(PODS, &pod("p")).await.ok();
    let object = with_rules(
        "ValidatingWebhookConfiguration",
        "guard",
        client,
        json!(["CONNECT", "CREATE", "DELETE"]),
        json!([
            "pods/exec",
            "pods/attach",
            "pods/portforward",
            "pods/eviction",
            "pods/binding",
            "serviceaccounts/token"
        ]),
    );
    create(admin, "validatingwebhookconfigurations", object).await;
    let exec = format!("{PODS}/p/exec?command=ls&command=-l&stdout=true&container=web");
    eventually(async || admin.post(&exec, &json!({})).await.code == 403).await;
    let denied = "admission webhook \"guard.example.com\" denied the request: hands off";
    let last = || seen.lock().unwrap().last().cloned().unwrap();
    assert_eq!(admin.get(&exec).await.refused().2, denied);
    let review = last();
    assert_eq!(review["operation"], "CONNECT");
    assert_eq!(
        (&review["subResource"], &review["name"], &review["kind"]),
        (
            &json!("exec"),
            &json!("p"),
            &json!({"group": "", "version": "v1", "kind": "PodExecOptions"})
        )
    );
    assert_eq!(
        review["object"],
        json!({"kind": "PodExecOptions", "apiVersion": "v1", "stdout": true, "container": "web",
            "command": ["ls", "-l"]})
    );
    assert!(review["options"].is_null(), "a connection has none");
    let refused = admin
        .post(&format!("{PODS}/p/attach?tty=1"), &json!({}))
        .await;
    assert_eq!(refused.refused().2, denied);
    assert_eq!(last()["kind"]["kind"], "PodAttachOptions");
    assert_eq!(last()["object"]["tty"], true);
    let refused = admin
        .get(&format!("{PODS}/p/portforward?ports=80,81"))
        .await;
    assert_eq!(refused.refused().2, denied);
    assert_eq!(last()["object"]["ports"], json!([80, 81]));
    let eviction =
        json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}});
    let refused = admin.post(&format!("{PODS}/p/eviction"), &eviction).await;
    assert_eq!(refused.refused().2, denied);
    let review = last();
    assert_eq!(
        (
            &review["operation"],
            &review["kind"],
            &review["object"]["kind"]
        ),
        (
            &json!("CREATE"),
            &json!({"group": "policy", "version": "v1", "kind": "Eviction"}),
            &json!("Eviction")
        )
    );
    let refused = bind(admin, "p", "n").await;
    assert_eq!(refused.refused().2, denied);
    assert_eq!(last()["object"]["target"]["name"], "n");
    let token = "/api/v1/namespaces/default/serviceaccounts/default/token";
    let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
        "metadata": {}, "spec": {"audiences": ["a"]}});
    assert_eq!(admin.post(token, &request).await.refused().2, denied);
    assert_eq!(last()["object"]["spec"]["audiences"], json!(["a"]));
    assert_eq!(last()["name"], "default");
    let kept = admin.get(&format!("{PODS}/p")).await.ok();
    assert!(kept["spec"].get("nodeName").is_none());
    // They are not asked about the pod itself.
    admin.delete(&format!("{PODS}/p"), &json!({})).await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_eviction_is_no_delete_to_a_webhook() {
    let server = TestServer::start().await;
    let admin = &server.admin;
    let (port, bundle, seen) = webhook(&["127.0.0.1"], |_| json!({"allowed": true})).await;
    let client = json!({"url": format!("https://127.0.0.1:{port}/"), "caBundle": bundle});
    let object = with_rules(
        "ValidatingWebhookConfiguration",
        "watch",
        client,
        json!(["*"]),
        json!(["pods", "pods/eviction"]),
    );
    create(admin, "validatingwebhookconfigurations", object).await;
    let dry = format!("{PODS}?dryRun=All");
    eventually(async || {
        admin.post(&dry, &pod("probe")).await;
        !seen.lock().unwrap().is_empty()
    })
    .await;
    admin.post(PODS, &pod("p")).await.ok();
    seen.lock().unwrap().clear();
    let eviction =
        json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}});
    admin
        .post(&format!("{PODS}/p/eviction"), &eviction)
        .await
        .ok();
    assert_eq!(admin.get(&format!("{PODS}/p")).await.code, 404);
    let asked: Vec<Value> = seen
        .lock()
        .unwrap()
        .iter()
        .map(|review| json!([review["operation"], review["subResource"]]))
        .collect();
    assert_eq!(asked, [json!(["CREATE", "eviction"])]);
}

#[tokio::test(flavor = "multi_thread")]
async fn mutating_webhooks_may_deny_a_delete_but_change_nothing_in_it() {
    let server = TestServer::start().await;
    let admin = &server.admin;
    let (port, bundle, seen) = webhook(&["127.0.0.1"], |request| {
        if request["operation"] != "DELETE" {
            return json!({"allowed": true});
        }
        match request["name"].as_str().unwrap() {
            "kept" => json!({"allowed": false, "status": {"code": 403, "message": "kept"}}),
            "odd" => patching(&json!([{"op": "remove", "path": "/data"}])),
            _ => json!({"allowed": true}),
        }
    })
    .await;
    let client = json!({"url": format!("https://127.0.0.1:{port}/"), "caBundle": bundle});
    let object = with_rules(
        "MutatingWebhookConfiguration",
        "keep",
        client,
        json!(["*"]),
        json!(["configmaps"]),
    );
    create(admin, "mutatingwebhookconfigurations", object).await;
    let dry = format!("{CONFIG_MAPS}?dryRun=All");
    eventually(async || {
        admin.post(&dry, &config_map("probe")).await;
        !seen.lock().unwrap().is_empty()
    })
    .await;
    for name in ["kept", "odd", "free"] {
        admin.post(CONFIG_MAPS, &config_map(name)).await.ok();
    }
    let delete = async |name: &str| {
        let path = format!("{CONFIG_MAPS}/{name}");
        admin.delete(&path, &json!({})).await
    };
    assert_eq!(delete("kept").await.refused().0, 403);
    let review = seen.lock().unwrap().last().cloned().unwrap();
    assert!(review["object"].is_null());
    assert_eq!(review["oldObject"]["metadata"]["name"], "kept");
    let (code, _, message) = delete("odd").await.refused();
    assert_eq!(code, 500);
    assert_eq!(
        message,
        "Internal error occurred: admission webhook \"keep.example.com\" attempted to modify the object, which is not supported for this operation"
    );
    delete("free").await.ok();
    assert_eq!(admin.get(&format!("{CONFIG_MAPS}/kept")).await.code, 200);
    assert_eq!(admin.get(&format!("{CONFIG_MAPS}/odd")).await.code, 200);
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

#[tokio::test(flavor = "multi_thread")]
async fn policies_see_again_what_webhooks_changed() {
    let server = TestServer::start().await;
    let expression = "[JSONPatch{op: 'add', path: '/data/seen', value: 'yes'}]";
    let mutations = json!([{"patchType": "JSONPatch", "jsonPatch": {"expression": expression}}]);
    let mut policy = mutating("again", mutations);
    policy["spec"]["reinvocationPolicy"] = json!("IfNeeded");
    policy["spec"]["matchConstraints"]["resourceRules"] = json!([{"apiGroups": [""],
        "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}]);
    policy["spec"]["matchConditions"] =
        json!([{"name": "stamped", "expression": "'stamp' in object.data"}]);
    create(&server.admin, "mutatingadmissionpolicies", policy).await;
    bind_mutating(&server.admin, "again").await;
    let stamp = json!([{"op": "add", "path": "/data/stamp", "value": "yes"}]);
    let (port, bundle, _) = webhook(&["127.0.0.1"], move |_| patching(&stamp)).await;
    let client = json!({"url": format!("https://127.0.0.1:{port}/"), "caBundle": bundle});
    let object = configuration("MutatingWebhookConfiguration", "stamp", client);
    create(&server.admin, "mutatingwebhookconfigurations", object).await;
    let dry = format!("{CONFIG_MAPS}?dryRun=All");
    let made = async || server.admin.post(&dry, &config_map("a")).await.ok()["data"].clone();
    eventually(async || made().await["stamp"] == "yes").await;
    assert_eq!(
        made().await,
        json!({"a": "1", "stamp": "yes", "seen": "yes"})
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn webhooks_guard_custom_resources_too() {
    let server = with_tabs().await;
    let admin = &server.admin;
    let rules = |object: &mut Value| {
        object["webhooks"][0]["rules"] = json!([{"apiGroups": ["stable.example.com"],
            "apiVersions": ["v1"], "operations": ["*"], "resources": ["crontabs"]}]);
    };
    let (port, bundle, _) = webhook(&["127.0.0.1"], |request| {
        if request["operation"] == "DELETE" {
            return json!({"allowed": true});
        }
        // A replaced default, and a field that the definition does not have.
        patching(
            &json!([{"op": "replace", "path": "/spec/image", "value": "changed"},
            {"op": "add", "path": "/spec/unknown", "value": 1}]),
        )
    })
    .await;
    let client = json!({"url": format!("https://127.0.0.1:{port}/"), "caBundle": bundle});
    let mut object = configuration("MutatingWebhookConfiguration", "change", client);
    rules(&mut object);
    create(admin, "mutatingwebhookconfigurations", object).await;
    let (port, bundle, seen) = webhook(&["127.0.0.1"], |request| {
        let red = request["object"]["spec"]["color"] == "red";
        let kept = request["operation"] == "DELETE" && request["name"] == "kept";
        json!({"allowed": !red && !kept, "status": {"code": 403, "message": "no"}})
    })
    .await;
    let client = json!({"url": format!("https://127.0.0.1:{port}/"), "caBundle": bundle});
    let mut object = configuration("ValidatingWebhookConfiguration", "judge", client);
    rules(&mut object);
    create(admin, "validatingwebhookconfigurations", object).await;
    let dry = format!("{TABS}?dryRun=All");
    eventually(async || {
        admin.post(&dry, &tab("probe")).await;
        !seen.lock().unwrap().is_empty()
    })
    .await;
    let made = admin.post(TABS, &tab("kept")).await.ok();
    assert_eq!(made["spec"]["image"], "changed");
    assert!(made["spec"].get("unknown").is_none(), "pruned: {made}");
    let review = seen.lock().unwrap().last().cloned().unwrap();
    assert_eq!(
        (&review["kind"]["kind"], &review["object"]["spec"]["image"]),
        (&json!("CronTab"), &json!("changed"))
    );
    let mut red = tab("red");
    red["spec"]["color"] = json!("red");
    assert_eq!(admin.post(TABS, &red).await.refused().0, 403);
    let path = format!("{TABS}/kept");
    let change = json!({"spec": {"color": "red"}});
    let refused = admin.patch(&path, "merge-patch", &change).await;
    assert_eq!(refused.refused().0, 403);
    let review = seen.lock().unwrap().last().cloned().unwrap();
    assert_eq!(review["operation"], "UPDATE");
    assert!(review["oldObject"]["spec"].get("color").is_none());
    assert_eq!(admin.delete(&path, &json!({})).await.refused().0, 403);
    // Of a collection each object is asked about.
    let all = admin.delete(TABS, &json!({})).await;
    assert_eq!(all.refused().0, 403);
    admin.get(&path).await.ok();
    admin.post(TABS, &tab("free")).await.ok();
    admin.delete(&format!("{TABS}/free"), &json!({})).await.ok();
}
