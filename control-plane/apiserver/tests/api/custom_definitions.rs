//! Definitions of custom resources: their names, rules and end, and what kubectl makes of them.

use serde_json::{Value, json};

use crate::{
    custom_resources::{DEFINITIONS, TABS, definition, established, tab, wait_for, with_tabs},
    harness::TestServer,
    kubectl::Kubectl,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_definition_takes_its_objects_with_it() {
    let server = with_tabs().await;
    server.admin.post(TABS, &tab("a")).await.ok();
    let mut held = tab("held");
    held["metadata"]["finalizers"] = json!(["example.com/wait"]);
    server.admin.post(TABS, &held).await.ok();
    let mut watch = server
        .admin
        .watch(&format!(
            "{TABS}?watch=true&resourceVersion=0&fieldSelector=metadata.name%3Dheld"
        ))
        .await;
    assert_eq!(watch.next_name().await.0, "ADDED");
    let path = format!("{DEFINITIONS}/crontabs.stable.example.com");
    server.admin.delete(&path, &json!({})).await.ok();
    let marked = wait_for(&server, &path, |object| {
        object["status"]["conditions"]
            .to_string()
            .contains("InstanceDeletionInProgress")
    })
    .await;
    assert_eq!(
        marked["metadata"]["finalizers"],
        json!(["customresourcecleanup.apiextensions.k8s.io"])
    );
    assert_eq!(server.admin.get(&format!("{TABS}/a")).await.code, 404);
    let refused = server.admin.post(TABS, &tab("late")).await.refused();
    assert_eq!(
        (refused.0, refused.2.as_str()),
        (
            405,
            "create not allowed while custom resource definition is terminating"
        )
    );
    let free = json!({"metadata": {"finalizers": null}});
    server
        .admin
        .patch(&format!("{TABS}/held"), "merge-patch", &free)
        .await
        .ok();
    wait_for(&server, &path, |object| object["code"] == 404).await;
    wait_for(&server, TABS, |object| {
        object["code"] == 404 || object["kind"].is_null()
    })
    .await;
    // The same name again is a new beginning.
    server.admin.post(DEFINITIONS, &definition()).await.ok();
    established(&server, "crontabs.stable.example.com").await;
    assert_eq!(server.admin.get(TABS).await.ok()["items"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_others_have_are_not_accepted() {
    let server = with_tabs().await;
    let mut other = definition();
    other["metadata"]["name"] = json!("tabs.stable.example.com");
    other["spec"]["names"] = json!({"plural": "tabs", "kind": "CronTab"});
    server.admin.post(DEFINITIONS, &other).await.ok();
    let path = format!("{DEFINITIONS}/tabs.stable.example.com");
    let refused = wait_for(&server, &path, |object| {
        object["status"]["conditions"]
            .to_string()
            .contains("ListKindConflict")
    })
    .await;
    let text = refused["status"]["conditions"].to_string();
    assert!(
        text.contains("NotAccepted") && text.contains("is already in use"),
        "{text}"
    );
    assert_eq!(
        server
            .admin
            .get("/apis/stable.example.com/v1/tabs")
            .await
            .code,
        404
    );
    server
        .admin
        .delete(
            &format!("{DEFINITIONS}/crontabs.stable.example.com"),
            &json!({}),
        )
        .await
        .ok();
    established(&server, "tabs.stable.example.com").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn definitions_that_make_no_sense_are_refused() {
    let server = TestServer::start().await;
    let deep = (0..50).fold(
        json!({"type": "string"}),
        |inner, _| json!({"type": "object", "properties": {"a": inner}}),
    );
    let wide: serde_json::Map<String, Value> = (0..70_000)
        .map(|i| (format!("f{i}"), json!({"type": "string"})))
        .collect();
    let spec = "spec.validation.openAPIV3Schema";
    for (pointer, value, message) in [
        ("/metadata/name", json!("x.stable.example.com"), "metadata.name: Invalid value: \"x.stable.example.com\": must be spec.names.plural+\".\"+spec.group".to_string()),
        ("/spec/scope", json!("Galaxy"), "spec.scope: Unsupported value: \"Galaxy\": supported values: \"Cluster\", \"Namespaced\"".to_string()),
        ("/spec/versions/0/storage", json!(false), "must have exactly one version marked as storage version".to_string()),
        ("/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/image/type", json!(""), format!("{spec}.properties[spec].properties[image].type: Required value: must not be empty for specified object fields")),
        ("/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/image/default", json!(5), format!("{spec}.properties[spec].properties[image].default: Invalid value: 5: ")),
        ("/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/cronSpec/pattern", json!("((a{1000}){1000}){1000}"), format!("{spec}.properties[spec].properties[cronSpec].pattern: Invalid value: \"((a{{1000}}){{1000}}){{1000}}\": must be a valid regular expression, but isn't: the expression is too large")),
        ("/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties", Value::Object(wide), "the schema has more than 65536 parts".to_string()),
        ("/spec/versions/0/additionalPrinterColumns/0/jsonPath", json!("spec"), "spec.additionalPrinterColumns[0].JSONPath: Invalid value: \"spec\": must be a simple json path starting with .".to_string()),
        ("/spec/versions/0/subresources/scale/specReplicasPath", json!(".status.x"), "spec.subresources.scale.specReplicasPath: Invalid value: \".status.x\": should be a json path under .spec".to_string()),
    ] {
        let mut definition = definition();
        *definition.pointer_mut(pointer).unwrap_or_else(|| panic!("{pointer}")) = value;
        if pointer.ends_with("default") {
            definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["image"]["default"] = json!(5);
        }
        let (code, _, found) = server.admin.post(DEFINITIONS, &definition).await.refused();
        assert_eq!(code, 422, "{found}");
        assert!(found.contains(&message), "{message}\n{}", &found[..found.len().min(2000)]);
    }
    let mut fine = definition();
    fine["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["deep"] = deep;
    server.admin.post(DEFINITIONS, &fine).await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn another_server_on_the_store_serves_the_same_kinds() {
    let first = TestServer::start().await;
    first.admin.post(DEFINITIONS, &definition()).await.ok();
    established(&first, "crontabs.stable.example.com").await;
    first.admin.post(TABS, &tab("a")).await.ok();
    // One that starts later, as after a restart, has them from its first answer.
    let second = first.sibling().await;
    let list = second.admin.get(TABS).await.ok();
    assert_eq!(list["items"][0]["metadata"]["name"], "a");
    second.admin.post(TABS, &tab("b")).await.ok();
    let mut other = definition();
    other["metadata"]["name"] = json!("others.stable.example.com");
    other["spec"]["names"] = json!({"plural": "others", "kind": "Other"});
    first.admin.post(DEFINITIONS, &other).await.ok();
    let others = "/apis/stable.example.com/v1/namespaces/default/others";
    wait_for(&second, others, |list| list["kind"] == "OtherList").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_in_cel_guard_objects_and_their_changes() {
    let server = TestServer::start().await;
    let mut definition = definition();
    let spec =
        &mut definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    spec["x-kubernetes-validations"] = json!([
        {"rule": "self.replicas <= 5 || has(self.color)", "message": "many need a color"},
        {"rule": "!has(oldSelf.color) || self.color == oldSelf.color",
            "messageExpression": "'color stays ' + oldSelf.color", "fieldPath": ".color"},
    ]);
    let mut broken = definition.clone();
    broken["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["x-kubernetes-validations"]
        [0]["rule"] = json!("self.replicaz <= 5");
    let refused = server.admin.post(DEFINITIONS, &broken).await.refused();
    assert!(
        refused.2.contains(
            "openAPIV3Schema.properties[spec].x-kubernetes-validations[0].rule: Invalid value: {"
        ) && refused
            .2
            .contains("compilation failed: ERROR: <input>:1:5: undefined field 'replicaz'\n | self.replicaz <= 5\n | ....^"),
        "{refused:?}"
    );
    server.admin.post(DEFINITIONS, &definition).await.ok();
    established(&server, "crontabs.stable.example.com").await;
    let mut object = tab("a");
    object["spec"]["replicas"] = json!(8);
    let refused = server.admin.post(TABS, &object).await.refused();
    assert_eq!(
        refused.2,
        "CronTab.stable.example.com \"a\" is invalid: spec: Invalid value: many need a color"
    );
    object["spec"]["color"] = json!("red");
    server.admin.post(TABS, &object).await.ok();
    let change = json!({"spec": {"color": "blue"}});
    let refused = server
        .admin
        .patch(&format!("{TABS}/a"), "merge-patch", &change)
        .await
        .refused();
    assert!(
        refused
            .2
            .contains("spec.color: Invalid value: color stays red"),
        "{refused:?}"
    );
    let scale = json!({"spec": {"replicas": 3}});
    server
        .admin
        .patch(&format!("{TABS}/a/scale"), "merge-patch", &scale)
        .await
        .ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_treats_custom_kinds_as_its_own() {
    let server = TestServer::start().await;
    let kubectl = Kubectl::of(&server);
    let created = kubectl
        .ok_with(&["apply", "-f", "-"], &definition().to_string())
        .await;
    assert_eq!(
        created,
        "customresourcedefinition.apiextensions.k8s.io/crontabs.stable.example.com created\n"
    );
    kubectl
        .ok(&[
            "wait",
            "--for=condition=established",
            "--timeout=20s",
            "crd/crontabs.stable.example.com",
        ])
        .await;
    let list = kubectl.ok(&["get", "crd"]).await;
    assert!(
        list.starts_with(
            "NAME                          CREATED AT\ncrontabs.stable.example.com   20"
        ),
        "{list}"
    );
    let text = tab("nightly").to_string();
    assert_eq!(
        kubectl.ok_with(&["apply", "-f", "-"], &text).await,
        "crontab.stable.example.com/nightly created\n"
    );
    assert_eq!(
        kubectl.ok_with(&["apply", "-f", "-"], &text).await,
        "crontab.stable.example.com/nightly unchanged\n"
    );
    let table = kubectl.ok(&["get", "ct"]).await;
    assert!(
        table.starts_with(
            "NAME      SPEC          REPLICAS   AGE\nnightly   * * * * */5   2          "
        ),
        "{table}"
    );
    assert!(
        kubectl
            .ok(&["get", "all"])
            .await
            .contains("crontab.stable.example.com/nightly")
    );
    let explained = kubectl.ok(&["explain", "crontab.spec.image"]).await;
    assert!(
        explained.contains("What runs.") && explained.contains("FIELD: image <string>"),
        "{explained}"
    );
    let changed = tab("nightly").to_string().replace("*/5", "*/7");
    let applied = kubectl
        .ok_with(
            &["apply", "--server-side", "--force-conflicts", "-f", "-"],
            &changed,
        )
        .await;
    assert_eq!(
        applied,
        "crontab.stable.example.com/nightly serverside-applied\n"
    );
    kubectl
        .ok(&[
            "patch",
            "ct",
            "nightly",
            "--type=merge",
            "-p",
            "{\"spec\":{\"replicas\":3}}",
        ])
        .await;
    assert_eq!(
        kubectl
            .ok(&[
                "get",
                "ct",
                "nightly",
                "-o",
                "jsonpath={.spec.replicas}{.spec.cronSpec}"
            ])
            .await,
        "3* * * * */7"
    );
    assert_eq!(
        kubectl
            .ok(&["scale", "ct", "nightly", "--replicas=5"])
            .await,
        "crontab.stable.example.com/nightly scaled\n"
    );
    let refused = kubectl
        .refused(
            &[
                "patch",
                "ct",
                "nightly",
                "--type=merge",
                "-p",
                "{\"spec\":{\"replicas\":50}}",
            ],
            "",
        )
        .await;
    assert!(
        refused.contains("spec.replicas in body should be less than or equal to 10"),
        "{refused}"
    );
    let refused = kubectl
        .refused(&["apply", "-f", "-"], &text.replace("cronSpec", "cronSpek"))
        .await;
    assert!(
        refused.contains("unknown field \"spec.cronSpek\""),
        "{refused}"
    );
    let described = kubectl.ok(&["describe", "ct", "nightly"]).await;
    assert!(described.contains("Cron Spec:  * * * * */7"), "{described}");
    kubectl.ok(&["delete", "ct", "nightly"]).await;
    kubectl
        .ok(&[
            "delete",
            "crd",
            "crontabs.stable.example.com",
            "--timeout=20s",
        ])
        .await;
    // What kubectl remembers decides which of the two it says.
    let gone = kubectl.refused(&["get", "ct"], "").await;
    assert!(
        gone.contains("the server doesn't have a resource type")
            || gone.contains("the server could not find the requested resource"),
        "{gone}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_with_wrong_types_or_without_bounds_are_refused_with_the_definition() {
    let server = TestServer::start().await;
    let path = "openAPIV3Schema.properties[spec].x-kubernetes-validations[0]";
    for (rule, field, words) in [
        (
            "self.replicas == 'five'",
            "rule: Invalid value: ",
            "compilation failed: ERROR: <input>:1:15: found no matching overload for '_==_' applied to '(int, string)'",
        ),
        (
            "self.replicas",
            "rule: Invalid value: ",
            "cel expression must evaluate to a bool",
        ),
        (
            "self.names.all(a, self.names.all(b, a == b || a.contains(b)))",
            "rule: Forbidden: ",
            "estimated rule cost exceeds budget by factor of more than 100x (try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)",
        ),
    ] {
        let mut definition = definition();
        let spec = &mut definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
            ["spec"];
        spec["properties"]["names"] = json!({"type": "array", "items": {"type": "string"}});
        spec["x-kubernetes-validations"] = json!([{ "rule": rule }]);
        let (code, _, message) = server.admin.post(DEFINITIONS, &definition).await.refused();
        assert_eq!(code, 422);
        assert!(message.contains(&format!("{path}.{field}")), "{message}");
        assert!(message.contains(words), "{message}");
    }
}
