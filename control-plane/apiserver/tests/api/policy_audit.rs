//! Policies that write into audit events, and that ask the authorizers.

use std::path::Path;

use serde_json::{Value, json};

use crate::{
    audit::audited,
    dynamic_admission::{REGISTRATION, create, eventually},
    harness::{CONFIG_MAPS, TestServer, config_map},
    rbac::{RBAC, binding as role_binding, user},
    webhooks::{configuration, webhook},
};

const POLICIES: &str = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies";
const FAILURE: &str = "validation.policy.admission.k8s.io/validation_failure";

fn policy(name: &str, spec: Value) -> Value {
    let mut policy = json!({"apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicy", "metadata": {"name": name},
        "spec": {"matchConstraints": {"resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"],
            "operations": ["CREATE"], "resources": ["configmaps"]}]}}});
    for (field, value) in spec.as_object().unwrap() {
        policy["spec"][field] = value.clone();
    }
    policy
}

fn binding(policy: &str, actions: Value) -> Value {
    json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": format!("{policy}-here")},
        "spec": {"policyName": policy, "validationActions": actions}})
}

async fn bound(server: &TestServer, name: &str, spec: Value, actions: Value) {
    let admin = &server.admin;
    create(admin, "validatingadmissionpolicies", policy(name, spec)).await;
    let binding = binding(name, actions);
    create(admin, "validatingadmissionpolicybindings", binding).await;
}

/// The annotations of the event of a config map's creation, once it is written.
async fn annotations(log: &Path, name: &str) -> Value {
    let find = || {
        let text = std::fs::read_to_string(log).unwrap();
        let events = text
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok());
        let found = events
            .filter(|event: &Value| event["requestObject"]["metadata"]["name"] == name)
            .find(|event| event["stage"] == "ResponseComplete");
        found.map(|event| event["annotations"].clone())
    };
    eventually(async || find().is_some()).await;
    find().unwrap()
}

fn bad(name: &str) -> Value {
    let mut map = config_map(name);
    map["data"] = json!({"bad": "yes"});
    map
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_and_annotations_go_into_the_audit_event() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("audit.log");
    let server = audited(&log).await;
    let spec = json!({
        "variables": [{"name": "who", "expression": "request.userInfo.username"}],
        "validations": [{"expression": "object.metadata.name != ''"},
            {"expression": "object.?data.bad.orValue('') != 'yes'", "message": "bad data"}],
        "auditAnnotations": [
            {"key": "who", "valueExpression": "'%s made it'.format([variables.who])"},
            {"key": "nothing", "valueExpression": "null"},
            {"key": "blank", "valueExpression": "'  '"}]});
    bound(&server, "notes", spec, json!(["Audit", "Warn"])).await;
    let dry = format!("{CONFIG_MAPS}?dryRun=All");
    let warned = async || {
        let answer = server.admin.post(&dry, &bad("probe")).await;
        answer.headers.contains_key("warning")
    };
    eventually(warned).await;
    server.admin.post(CONFIG_MAPS, &bad("noted")).await.ok();
    let found = annotations(&log, "noted").await;
    let username = "kubernetes-admin";
    assert_eq!(found["notes/who"], format!("{username} made it"), "{found}");
    assert!(found.get("notes/nothing").is_none(), "{found}");
    assert!(found.get("notes/blank").is_none(), "{found}");
    assert_eq!(
        found[FAILURE],
        r#"[{"message":"bad data","policy":"notes","binding":"notes-here","expressionIndex":1,"validationActions":["Audit","Warn"]}]"#
    );
    assert_eq!(found["authorization.k8s.io/decision"], "allow");
    server
        .admin
        .post(CONFIG_MAPS, &config_map("good"))
        .await
        .ok();
    let found = annotations(&log, "good").await;
    assert_eq!(found["notes/who"], format!("{username} made it"), "{found}");
    assert!(found.get(FAILURE).is_none(), "{found}");
}

#[tokio::test(flavor = "multi_thread")]
async fn annotations_that_fail_deny_unless_failures_are_ignored() {
    let server = TestServer::start().await;
    let spec = json!({"auditAnnotations": [
        {"key": "a", "valueExpression": "string(object.data.nope)"}]});
    bound(&server, "failing", spec, json!(["Audit"])).await;
    let dry = format!("{CONFIG_MAPS}?dryRun=All");
    eventually(async || server.admin.post(&dry, &bad("a")).await.code != 201).await;
    let (code, _, message) = server.admin.post(&dry, &bad("a")).await.refused();
    assert_eq!(code, 422);
    assert!(
        message.contains("denied request: expression 'string(object.data.nope)' resulted in error: no such key: nope"),
        "{message}"
    );
    let path = format!("{POLICIES}/failing");
    let ignore = json!({"spec": {"failurePolicy": "Ignore"}});
    server.admin.patch(&path, "merge-patch", &ignore).await.ok();
    eventually(async || server.admin.post(&dry, &bad("a")).await.code == 201).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn annotations_are_checked_when_a_policy_is_written() {
    let server = TestServer::start().await;
    let annotations = json!({"auditAnnotations": [{"key": "a/b", "valueExpression": "'x'"},
        {"key": "c", "valueExpression": "nope"}, {"key": "c", "valueExpression": ""}]});
    let refused = server.admin.post(POLICIES, &policy("p", annotations)).await;
    let (code, _, message) = refused.refused();
    assert_eq!(code, 422);
    for part in [
        "spec.auditAnnotations[0].key: Invalid value: \"p/a/b\"",
        "spec.auditAnnotations[1].valueExpression: Invalid value: \"nope\": compilation failed",
        "spec.auditAnnotations[2].valueExpression: Required value: valueExpression is not specified",
        "spec.auditAnnotations[2].key: Duplicate value: \"c\"",
    ] {
        assert!(message.contains(part), "{part}: {message}");
    }
    let refused = server.admin.post(POLICIES, &policy("p", json!({}))).await;
    let (_, _, message) = refused.refused();
    for field in ["validations", "auditAnnotations"] {
        let part = format!(
            "spec.{field}: Required value: validations or auditAnnotations must contain at least one item"
        );
        assert!(message.contains(&part), "{message}");
    }
    let words = json!({"validations": [{"expression": "true",
        "messageExpression": "string(authorizer.path('/').check('get').allowed())"}]});
    let refused = server.admin.post(POLICIES, &policy("p", words)).await;
    let (_, _, message) = refused.refused();
    assert!(
        message.contains("undeclared reference to 'authorizer'"),
        "{message}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_ask_the_authorizers() {
    let server = TestServer::start().await;
    let jane = server.pki.client("jane", "jane", &["devs"]).unwrap();
    let jane = server.client(Some(&jane));
    let rules =
        json!([{"verbs": ["create", "get"], "apiGroups": [""], "resources": ["configmaps"]}]);
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
        "metadata": {"name": "maker"}, "rules": rules});
    let roles = format!("{RBAC}/namespaces/default/roles");
    server.admin.post(&roles, &role).await.ok();
    let bindings = format!("{RBAC}/namespaces/default/rolebindings");
    let granted = role_binding("RoleBinding", "b", ("Role", "maker"), user("jane"));
    server.admin.post(&bindings, &granted).await.ok();
    let dry = format!("{CONFIG_MAPS}?dryRun=All");
    eventually(async || jane.post(&dry, &config_map("a")).await.code == 201).await;

    let spec = json!({
        "matchConditions": [{"name": "mortal",
            "expression": "!authorizer.path('/metrics').check('get').allowed()"}],
        "validations": [
            {"expression": "authorizer.requestResource.check('get').allowed()", "message": "no get"},
            {"expression": "!authorizer.serviceAccount('default', 'default').group('').resource('configmaps').namespace('default').check('create').allowed()",
                "message": "accounts may"},
            {"expression": "object.metadata.name != 'gate' || authorizer.group('').resource('configmaps').namespace('default').name('gate').check('delete').allowed()",
                "message": "no delete"}]});
    bound(&server, "asks", spec, json!(["Deny"])).await;
    eventually(async || jane.post(&dry, &config_map("gate")).await.code != 201).await;
    let (code, _, message) = jane.post(&dry, &config_map("gate")).await.refused();
    assert_eq!(code, 422);
    assert!(message.ends_with("denied request: no delete"), "{message}");
    jane.post(CONFIG_MAPS, &config_map("other")).await.ok();
    let admin = &server.admin;
    admin.post(CONFIG_MAPS, &config_map("gate")).await.ok();
    let path = format!("{REGISTRATION}/validatingadmissionpolicybindings/asks-here");
    admin.delete(&path, &json!({})).await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn webhooks_annotate_audit_events() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("audit.log");
    let server = audited(&log).await;
    let (port, bundle, seen) = webhook(
        &["127.0.0.1"],
        |_| json!({"allowed": true, "auditAnnotations": {"seen": "yes", "not/one": "no"}}),
    )
    .await;
    let client = json!({"url": format!("https://127.0.0.1:{port}/"), "caBundle": bundle});
    let object = configuration("ValidatingWebhookConfiguration", "judge", client);
    create(&server.admin, "validatingwebhookconfigurations", object).await;
    let dry = format!("{CONFIG_MAPS}?dryRun=All");
    eventually(async || {
        server.admin.post(&dry, &config_map("probe")).await;
        !seen.lock().unwrap().is_empty()
    })
    .await;
    server.admin.post(CONFIG_MAPS, &config_map("a")).await.ok();
    let found = annotations(&log, "a").await;
    assert_eq!(found["judge.example.com/seen"], "yes", "{found}");
    assert!(!found.to_string().contains("not/one"), "{found}");
}
