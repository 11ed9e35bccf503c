//! Policies in CEL.

use serde_json::{Value, json};

use crate::harness::{
    ApiClient, CONFIG_MAPS, DEPLOYMENTS, PATIENCE, TestServer, config_map, deployment,
};

pub const REGISTRATION: &str = "/apis/admissionregistration.k8s.io/v1";

pub async fn create(client: &ApiClient, plural: &str, object: Value) -> Value {
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
pub async fn eventually<F: Future<Output = bool>>(what: impl Fn() -> F) {
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
