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
        refused.2.contains("spec.validations[0].expression: Invalid value: \"object.spec.replicas <= nope\": compilation failed: ERROR: <input>:1:25: undeclared reference to 'nope' (in container '')"),
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

pub fn mutating(name: &str, mutations: Value) -> Value {
    json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingAdmissionPolicy",
        "metadata": {"name": name},
        "spec": {"reinvocationPolicy": "Never", "matchConstraints": {"resourceRules": [{
                "apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["CREATE"],
                "resources": ["deployments"]}]},
            "variables": [{"name": "team", "expression": "request.userInfo.username"}],
            "matchConditions": [{"name": "not-done", "expression": "!has(object.metadata.labels)"}],
            "mutations": mutations}})
}

pub async fn bind_mutating(client: &ApiClient, name: &str) {
    let object = json!({"apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingAdmissionPolicyBinding", "metadata": {"name": name}, "spec": {"policyName": name}});
    create(client, "mutatingadmissionpolicybindings", object).await;
}

const APPLY: &str = "Object{
    metadata: Object.metadata{labels: {'team': variables.team}},
    spec: Object.spec{template: Object.spec.template{spec: Object.spec.template.spec{
        containers: object.spec.template.spec.containers.map(c, Object.spec.template.spec.containers.item{
            name: c.name, env: [Object.spec.template.spec.containers.item.env.item{name: 'REGION', value: 'eu'}]})}}}}";
const PATCH: &str = "[JSONPatch{op: 'test', path: '/metadata/labels/team', value: variables.team},
    JSONPatch{op: 'add', path: '/metadata/labels/' + jsonpatch.escapeKey('example.com/size'),
        value: object.spec.replicas > 2 ? 'big' : 'small'}]";

#[tokio::test(flavor = "multi_thread")]
async fn mutating_policies_apply_configurations_and_patches() {
    let server = TestServer::start().await;
    let path = format!("{REGISTRATION}/mutatingadmissionpolicies");
    let wrong = mutating(
        "wrong",
        json!([{"patchType": "JSONPatch", "applyConfiguration": {"expression": "Nope{}"}}]),
    );
    let (code, _, message) = server.admin.post(&path, &wrong).await.refused();
    assert_eq!(code, 422);
    for words in [
        "spec.mutations[0].jsonPatch: Required value: required when patchType is JSONPatch",
        "spec.mutations[0].applyConfiguration: Forbidden: must be empty when patchType is JSONPatch",
    ] {
        assert!(message.contains(words), "{message}");
    }
    let policy = mutating(
        "stamp",
        json!([{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": APPLY}},
            {"patchType": "JSONPatch", "jsonPatch": {"expression": PATCH}}]),
    );
    create(&server.admin, "mutatingadmissionpolicies", policy).await;
    let dry = format!("{DEPLOYMENTS}?dryRun=All");
    let plain = server.admin.post(&dry, &deployment("a")).await.ok();
    assert!(
        plain["metadata"].get("labels").is_none(),
        "without a binding it does nothing"
    );
    bind_mutating(&server.admin, "stamp").await;
    eventually(async || {
        let made = server.admin.post(&dry, &deployment("a")).await.ok();
        made["metadata"].get("labels").is_some()
    })
    .await;
    let mut object = deployment("a");
    object["spec"]["template"]["spec"]["containers"][0]["env"] =
        json!([{"name": "OWN", "value": "1"}]);
    let made = server.admin.post(DEPLOYMENTS, &object).await.ok();
    assert_eq!(
        made["metadata"]["labels"],
        json!({"team": "kubernetes-admin", "example.com/size": "big"})
    );
    let container = &made["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(
        container["image"], "nginx",
        "merged by its name, not replaced"
    );
    let names: Vec<&str> = container["env"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["OWN", "REGION"]);
    // What the policy set belongs to nobody.
    let owned = made["metadata"]["managedFields"].to_string();
    assert!(
        !owned.contains("mutating-admission-policy") && !owned.contains("f:team"),
        "{owned}"
    );
    let mut labelled = deployment("b");
    labelled["metadata"]["labels"] = json!({"mine": "yes"});
    let kept = server.admin.post(DEPLOYMENTS, &labelled).await.ok();
    assert_eq!(
        kept["metadata"]["labels"],
        json!({"mine": "yes"}),
        "its condition does not hold"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mutating_policy_that_fails_refuses_or_lets_pass_as_it_is_told() {
    let server = TestServer::start().await;
    let expression = "[JSONPatch{op: 'replace', path: '/metadata/name', value: 'other'}]";
    let policy = mutating(
        "rename",
        json!([{"patchType": "JSONPatch", "jsonPatch": {"expression": expression}}]),
    );
    create(&server.admin, "mutatingadmissionpolicies", policy).await;
    bind_mutating(&server.admin, "rename").await;
    let dry = format!("{DEPLOYMENTS}?dryRun=All");
    eventually(async || server.admin.post(&dry, &deployment("a")).await.code != 201).await;
    let (code, _, message) = server.admin.post(&dry, &deployment("a")).await.refused();
    assert_eq!(code, 422);
    assert_eq!(
        message,
        "deployments.apps \"a\" is forbidden: policy 'rename' with binding 'rename' denied request: the mutation changes what the object is"
    );
    let path = format!("{REGISTRATION}/mutatingadmissionpolicies/rename");
    let ignore = json!({"spec": {"failurePolicy": "Ignore"}});
    server.admin.patch(&path, "merge-patch", &ignore).await.ok();
    eventually(async || server.admin.post(&dry, &deployment("a")).await.code == 201).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mutating_policy_sees_again_what_others_changed_after_it() {
    let server = TestServer::start().await;
    let late = "has(object.metadata.labels) && 'late' in object.metadata.labels";
    for (name, condition, reinvocation) in [
        ("a-twice", late, "IfNeeded"),
        ("b-once", late, "Never"),
        ("late", "!has(object.metadata.labels)", "Never"),
    ] {
        let expression =
            format!("Object{{metadata: Object.metadata{{labels: {{'{name}': 'yes'}}}}}}");
        let mut policy = mutating(
            name,
            json!([{"patchType": "ApplyConfiguration",
                "applyConfiguration": {"expression": expression}}]),
        );
        policy["spec"]["reinvocationPolicy"] = json!(reinvocation);
        policy["spec"]["matchConditions"] = json!([{"name": "when", "expression": condition}]);
        create(&server.admin, "mutatingadmissionpolicies", policy).await;
        bind_mutating(&server.admin, name).await;
    }
    let dry = format!("{DEPLOYMENTS}?dryRun=All");
    // Bound last: once it is seen, all are.
    eventually(async || {
        let made = server.admin.post(&dry, &deployment("a")).await.ok();
        made["metadata"]["labels"]["late"] == "yes"
    })
    .await;
    let made = server.admin.post(DEPLOYMENTS, &deployment("a")).await.ok();
    assert_eq!(
        made["metadata"]["labels"],
        json!({"late": "yes", "a-twice": "yes"})
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn expressions_are_checked_against_the_kinds_that_a_policy_names() {
    let server = TestServer::start().await;
    let misspelt = policy(json!([{"expression": "object.spec.replicaz > 1"}]));
    let made = create(&server.admin, "validatingadmissionpolicies", misspelt).await;
    let checking = &made["status"]["typeChecking"];
    assert_eq!(
        checking["expressionWarnings"],
        json!([{"fieldRef": "spec.validations[0].expression",
            "warning": "apps/v1, Kind=Deployment: ERROR: <input>:1:12: undefined field 'replicaz'\n | object.spec.replicaz > 1\n | ...........^\n"}])
    );
    let path = format!("{REGISTRATION}/validatingadmissionpolicies/replicas");
    let right = json!({"spec": {"validations": [{"expression": "object.spec.replicas > 1"}]}});
    let made = server.admin.patch(&path, "merge-patch", &right).await.ok();
    assert_eq!(made["status"]["typeChecking"], json!({}));
    assert_eq!(made["status"]["observedGeneration"], 2);
    let wrong = json!({"spec": {"validations": [{"expression": "object.spec.paused"}]}});
    let refused = server.admin.patch(&path, "merge-patch", &wrong).await;
    let (_, _, message) = refused.refused();
    assert!(
        message.contains("must evaluate to bool but got dyn"),
        "{message}"
    );
}
