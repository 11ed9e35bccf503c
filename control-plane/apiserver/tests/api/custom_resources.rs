//! Custom resources: from the definition to its end.

use std::time::{Duration, Instant};

use http::Method;
use serde_json::{Value, json};

use crate::harness::{PATIENCE, TestServer};

pub const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
pub const TABS: &str = "/apis/stable.example.com/v1/namespaces/default/crontabs";

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

pub async fn wait_for(server: &TestServer, path: &str, done: impl Fn(&Value) -> bool) -> Value {
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
    let object = established(&server, "crontabs.stable.example.com").await;
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

/// How long it took until every path shows what it is to.
async fn shown_after(server: &TestServer, started: Instant, paths: &[(String, &str)]) -> Duration {
    for (path, words) in paths {
        let aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
        let headers: &[_] = match path.as_str() {
            "/apis" => &[("accept", aggregated)],
            _ => &[],
        };
        while !server
            .admin
            .send(Method::GET, path, headers, "")
            .await
            .text
            .contains(words)
        {
            assert!(started.elapsed() < PATIENCE, "{path}");
        }
    }
    started.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn definitions_and_their_changes_are_published_within_a_second() {
    const ROUNDS: usize = 5;
    let server = TestServer::start().await;
    let (mut new, mut changed) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let group = format!("r{round}.example.com");
        let mut object = definition();
        object["metadata"]["name"] = json!(format!("crontabs.{group}"));
        object["spec"]["group"] = json!(group);
        let started = Instant::now();
        server.admin.post(DEFINITIONS, &object).await.ok();
        let (v2, v3) = (
            "/openapi/v2".to_string(),
            format!("/openapi/v3/apis/{group}/v1"),
        );
        let definition = format!("com.example.r{round}.v1.CronTab");
        let paths = [
            (format!("/apis/{group}/v1"), "crontabs/scale"),
            ("/apis".to_string(), group.as_str()),
            (v3.clone(), definition.as_str()),
            (v2.clone(), definition.as_str()),
        ];
        new.push(shown_after(&server, started, &paths).await);
        let pointer = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties";
        let field = format!("addedInRound{round}");
        let patch = json!([{"op": "add", "path": format!("{pointer}/{field}"),
            "value": {"type": "string"}}]);
        let path = format!("{DEFINITIONS}/crontabs.{group}");
        let started = Instant::now();
        server.admin.patch(&path, "json-patch", &patch).await.ok();
        let paths = [(v3, field.as_str()), (v2, field.as_str())];
        changed.push(shown_after(&server, started, &paths).await);
    }
    // The median: the machine may be busy with other tests for a moment.
    for mut times in [new, changed] {
        times.sort();
        let limit = hull_timeouts::scaled(Duration::from_secs(1));
        assert!(times[ROUNDS / 2] < limit, "{times:?}");
    }
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
