//! Custom resources: from the definition to its end.

use http::Method;
use serde_json::{Value, json};

use crate::{
    harness::{PATIENCE, TestServer},
    kubectl::Kubectl,
};

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const TABS: &str = "/apis/stable.example.com/v1/namespaces/default/crontabs";

fn schema() -> Value {
    json!({"type": "object", "properties": {
        "spec": {"type": "object", "required": ["cronSpec"], "properties": {
            "cronSpec": {"type": "string", "pattern": "^(\\d+|\\*)(/\\d+)?(\\s+(\\d+|\\*)(/\\d+)?){4}$"},
            "image": {"type": "string", "default": "nginx", "description": "What runs."},
            "replicas": {"type": "integer", "minimum": 1, "maximum": 10},
            "color": {"type": "string"},
            "port": {"x-kubernetes-int-or-string": true},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
            "rules": {"type": "array", "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["name"],
                "items": {"type": "object", "required": ["name"], "properties": {
                    "name": {"type": "string"}, "weight": {"type": "integer"}}}},
        }},
        "status": {"type": "object", "properties": {
            "replicas": {"type": "integer"}, "selector": {"type": "string"}}},
    }})
}

pub fn definition() -> Value {
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "crontabs.stable.example.com"},
        "spec": {"group": "stable.example.com", "scope": "Namespaced",
            "names": {"plural": "crontabs", "kind": "CronTab", "shortNames": ["ct"], "categories": ["all"]},
            "versions": [{"name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": schema()},
                "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.replicas",
                    "statusReplicasPath": ".status.replicas", "labelSelectorPath": ".status.selector"}},
                "selectableFields": [{"jsonPath": ".spec.color"}],
                "additionalPrinterColumns": [
                    {"name": "Spec", "type": "string", "jsonPath": ".spec.cronSpec"},
                    {"name": "Replicas", "type": "integer", "jsonPath": ".spec.replicas"},
                    {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}]}]}})
}

pub fn tab(name: &str) -> Value {
    json!({"apiVersion": "stable.example.com/v1", "kind": "CronTab", "metadata": {"name": name},
        "spec": {"cronSpec": "* * * * */5", "replicas": 2}})
}

/// Waits until a condition of a definition is true; the definition.
pub async fn established(server: &TestServer, name: &str) -> Value {
    wait_for(server, &format!("{DEFINITIONS}/{name}"), |object| {
        object["status"]["conditions"]
            .as_array()
            .into_iter()
            .flatten()
            .any(|one| one["type"] == "Established" && one["status"] == "True")
    })
    .await
}

async fn wait_for(server: &TestServer, path: &str, done: impl Fn(&Value) -> bool) -> Value {
    let until = tokio::time::Instant::now() + PATIENCE;
    loop {
        let object = server.admin.get(path).await.json();
        if done(&object) {
            return object;
        }
        assert!(tokio::time::Instant::now() < until, "{path}: {object}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

pub async fn with_tabs() -> TestServer {
    let server = TestServer::start().await;
    server.admin.post(DEFINITIONS, &definition()).await.ok();
    established(&server, "crontabs.stable.example.com").await;
    server
}

#[tokio::test(flavor = "multi_thread")]
async fn a_definition_is_served_as_soon_as_it_is_established() {
    let server = TestServer::start().await;
    assert_eq!(server.admin.get(TABS).await.code, 404);
    let created = server.admin.post(DEFINITIONS, &definition()).await.ok();
    assert_eq!(created["spec"]["names"]["listKind"], "CronTabList");
    assert_eq!(created["status"]["storedVersions"], json!(["v1"]));
    let started = std::time::Instant::now();
    let object = established(&server, "crontabs.stable.example.com").await;
    assert!(started.elapsed().as_secs() < 5);
    assert_eq!(object["status"]["acceptedNames"]["singular"], "crontab");
    let list = server.admin.get(TABS).await.ok();
    assert_eq!(
        (list["kind"].as_str(), &list["items"]),
        (Some("CronTabList"), &json!([]))
    );
    let resources = server.admin.get("/apis/stable.example.com/v1").await.ok();
    let names: Vec<&str> = resources["resources"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["crontabs", "crontabs/scale", "crontabs/status"]);
    let aggregated = server
        .admin
        .send(
            Method::GET,
            "/apis",
            &[(
                "accept",
                "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
            )],
            "",
        )
        .await;
    assert!(aggregated.text.contains("\"shortNames\":[\"ct\"]"));
    let document = server
        .admin
        .get("/openapi/v3/apis/stable.example.com/v1")
        .await
        .ok();
    let published = &document["components"]["schemas"]["com.example.stable.v1.CronTab"];
    assert_eq!(
        published["properties"]["spec"]["properties"]["image"]["description"],
        "What runs."
    );
    let whole = server.admin.get("/openapi/v2").await.ok();
    assert!(whole["definitions"]["com.example.stable.v1.CronTab"].is_object());
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_are_pruned_defaulted_and_validated() {
    let server = with_tabs().await;
    let mut object = tab("a");
    object["spec"]["unknown"] = json!(1);
    object["spec"]["free"] = json!({"any": {"thing": 1}});
    let answer = server.admin.post(TABS, &object).await;
    assert_eq!(
        answer.headers["warning"],
        "299 - \"unknown field \\\"spec.unknown\\\"\""
    );
    let created = answer.ok();
    assert_eq!(created["spec"]["image"], "nginx");
    assert_eq!(created["spec"]["free"], json!({"any": {"thing": 1}}));
    assert!(created["spec"].get("unknown").is_none());
    assert_eq!(created["metadata"]["generation"], 1);
    object["metadata"]["name"] = json!("b");
    let strict = server
        .admin
        .post(&format!("{TABS}?fieldValidation=Strict"), &object)
        .await;
    assert_eq!(
        strict.refused(),
        (
            400,
            "BadRequest".to_string(),
            "CronTab in version \"v1\" cannot be handled as a CronTab: strict decoding error: unknown field \"spec.unknown\"".to_string()
        )
    );
    let mut wrong = tab("c");
    wrong["spec"] = json!({"cronSpec": "x", "replicas": "two",
        "rules": [{"name": "a"}, {"name": "a"}]});
    let (code, reason, message) = server.admin.post(TABS, &wrong).await.refused();
    assert_eq!((code, reason.as_str()), (422, "Invalid"));
    for part in [
        "CronTab.stable.example.com \"c\" is invalid: [",
        "spec.cronSpec: Invalid value: \"x\": spec.cronSpec in body should match '^",
        "spec.replicas: Invalid value: \"string\": spec.replicas in body must be of type integer: \"string\"",
        "spec.rules[1]: Duplicate value: {\"name\":\"a\"}",
    ] {
        assert!(message.contains(part), "{message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn status_and_scale_are_subresources() {
    let server = with_tabs().await;
    let mut object = tab("a");
    object["status"] = json!({"replicas": 9});
    let created = server.admin.post(TABS, &object).await.ok();
    assert!(created.get("status").is_none());
    let path = format!("{TABS}/a");
    let status = json!({"status": {"replicas": 2, "selector": "app=a"}, "spec": {"replicas": 7}});
    let changed = server
        .admin
        .patch(&format!("{path}/status"), "merge-patch", &status)
        .await
        .ok();
    assert_eq!(changed["status"]["replicas"], 2);
    assert_eq!(
        (
            &changed["spec"]["replicas"],
            &changed["metadata"]["generation"]
        ),
        (&json!(2), &json!(1))
    );
    let scale = server.admin.get(&format!("{path}/scale")).await.ok();
    assert_eq!(scale["spec"]["replicas"], 2);
    assert_eq!(scale["status"], json!({"replicas": 2, "selector": "app=a"}));
    let scaled = server
        .admin
        .patch(
            &format!("{path}/scale"),
            "merge-patch",
            &json!({"spec": {"replicas": 4}}),
        )
        .await
        .ok();
    assert_eq!(scaled["spec"]["replicas"], 4);
    let object = server.admin.get(&path).await.ok();
    assert_eq!(
        (
            &object["spec"]["replicas"],
            &object["metadata"]["generation"]
        ),
        (&json!(4), &json!(2))
    );
    let too_many = server
        .admin
        .patch(
            &format!("{path}/scale"),
            "merge-patch",
            &json!({"spec": {"replicas": 40}}),
        )
        .await
        .refused();
    assert!(
        too_many.2.contains("should be less than or equal to 10"),
        "{too_many:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_watches_and_selectors_work_for_custom_kinds() {
    let server = with_tabs().await;
    let mut watch = server
        .admin
        .watch(&format!("{TABS}?watch=true&fieldSelector=spec.color%3Dred"))
        .await;
    for (name, color) in [("a", "red"), ("b", "blue")] {
        let mut object = tab(name);
        object["spec"]["color"] = json!(color);
        server.admin.post(TABS, &object).await.ok();
    }
    assert_eq!(watch.next_name().await, ("ADDED".into(), "a".into()));
    let red = server
        .admin
        .get(&format!("{TABS}?fieldSelector=spec.color%3Dred"))
        .await
        .ok();
    assert_eq!(red["items"].as_array().unwrap().len(), 1);
    let refused = server
        .admin
        .get(&format!("{TABS}?fieldSelector=spec.image%3Dx"))
        .await
        .refused();
    assert!(
        refused.2.contains("field label not supported: spec.image"),
        "{refused:?}"
    );
    let everywhere = server
        .admin
        .get("/apis/stable.example.com/v1/crontabs?limit=1")
        .await
        .ok();
    assert_eq!(everywhere["metadata"]["remainingItemCount"], 1);
    let next = everywhere["metadata"]["continue"].as_str().unwrap();
    let rest = server
        .admin
        .get(&format!(
            "/apis/stable.example.com/v1/crontabs?limit=1&continue={next}"
        ))
        .await
        .ok();
    assert_eq!(rest["items"][0]["metadata"]["name"], "b");
    server
        .admin
        .delete(&format!("{TABS}/a"), &json!({}))
        .await
        .ok();
    assert_eq!(watch.next_name().await, ("DELETED".into(), "a".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn server_side_apply_merges_lists_by_their_keys() {
    let server = with_tabs().await;
    let apply = async |manager: &str, rules: Value| {
        let mut object = tab("a");
        object["spec"] = json!({"cronSpec": "* * * * *", "rules": rules});
        server
            .admin
            .send(
                Method::PATCH,
                &format!("{TABS}/a?fieldManager={manager}"),
                &[("content-type", "application/apply-patch+yaml")],
                object.to_string(),
            )
            .await
    };
    apply("one", json!([{"name": "a", "weight": 1}])).await.ok();
    let both = apply("two", json!([{"name": "b"}])).await.ok();
    assert_eq!(both["spec"]["rules"].as_array().unwrap().len(), 2);
    let conflict = apply("two", json!([{"name": "a", "weight": 2}]))
        .await
        .refused();
    assert_eq!(conflict.0, 409);
    assert!(
        conflict.2.contains(".spec.rules[name=\"a\"].weight"),
        "{conflict:?}"
    );
    let unknown = server
        .admin
        .send(
            Method::PATCH,
            &format!("{TABS}/a?fieldManager=one"),
            &[("content-type", "application/apply-patch+yaml")],
            json!({"apiVersion": "stable.example.com/v1", "kind": "CronTab", "spec": {"nope": 1}})
                .to_string(),
        )
        .await
        .refused();
    assert!(
        unknown
            .2
            .contains(".spec.nope: field not declared in schema"),
        "{unknown:?}"
    );
    let strategic = server
        .admin
        .patch(&format!("{TABS}/a"), "strategic-merge-patch", &json!({}))
        .await;
    assert_eq!(strategic.code, 415);
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_show_the_same_objects() {
    let server = TestServer::start().await;
    let mut definition = definition();
    let mut second = definition["spec"]["versions"][0].clone();
    second["name"] = json!("v1beta1");
    second["storage"] = json!(false);
    second["deprecated"] = json!(true);
    definition["spec"]["versions"]
        .as_array_mut()
        .unwrap()
        .push(second);
    server.admin.post(DEFINITIONS, &definition).await.ok();
    established(&server, "crontabs.stable.example.com").await;
    server.admin.post(TABS, &tab("a")).await.ok();
    let beta = server
        .admin
        .get(&format!("{}/a", TABS.replace("v1", "v1beta1")))
        .await;
    assert_eq!(
        beta.headers["warning"],
        "299 - \"stable.example.com/v1beta1 CronTab is deprecated\""
    );
    assert_eq!(beta.ok()["apiVersion"], "stable.example.com/v1beta1");
    let group = server.admin.get("/apis/stable.example.com").await.ok();
    assert_eq!(group["preferredVersion"]["version"], "v1");
    // A change of the schema counts from then on, for what is stored too.
    let path = format!("{DEFINITIONS}/crontabs.stable.example.com");
    let patch = json!([
        {"op": "add", "path": "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/new",
            "value": {"type": "string", "default": "x"}},
        {"op": "replace", "path": "/spec/versions/1/served", "value": false},
    ]);
    server.admin.patch(&path, "json-patch", &patch).await.ok();
    wait_for(&server, &format!("{TABS}/a"), |object| {
        object["spec"]["new"] == "x"
    })
    .await;
    assert_eq!(
        server.admin.get(&TABS.replace("v1", "v1beta1")).await.code,
        404
    );
}

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
async fn kubectl_treats_custom_kinds_as_its_own() {
    let server = TestServer::start().await;
    let Some(kubectl) = Kubectl::find(&server) else {
        return;
    };
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
