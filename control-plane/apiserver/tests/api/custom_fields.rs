//! Fields of custom resources that their definition does not have, that are written twice, or
//! that it gives a value to later.

use http::Method;
use serde_json::{Value, json};

use crate::{
    custom_resources::{DEFINITIONS, TABS, definition, established, tab, with_tabs},
    harness::{Answer, TestServer},
};

const BOXES: &str = "/apis/loose.example.com/v1/namespaces/default/boxes";

/// Everything is kept, and there is an object within the object.
fn boxes(schema: Value) -> Value {
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "boxes.loose.example.com"},
        "spec": {"group": "loose.example.com", "scope": "Namespaced",
            "names": {"plural": "boxes", "kind": "Box"},
            "versions": [{"name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": schema}}]}})
}

fn loose() -> Value {
    let keep = "x-kubernetes-preserve-unknown-fields";
    json!({"type": "object", keep: true, "properties": {
        "spec": {"type": "object", keep: true, "properties": {
            "template": {"type": "object", keep: true, "x-kubernetes-embedded-resource": true}}}}})
}

async fn with_boxes(schema: Value) -> TestServer {
    let server = TestServer::start().await;
    server.admin.post(DEFINITIONS, &boxes(schema)).await.ok();
    established(&server, "boxes.loose.example.com").await;
    server
}

async fn write(server: &TestServer, mode: &str, media: &str, body: &str) -> Answer {
    let path = format!("{BOXES}?fieldValidation={mode}");
    let headers = [("content-type", media)];
    server
        .admin
        .send(Method::POST, &path, &headers, body.to_owned())
        .await
}

const DOUBTFUL: &str = r#"{"apiVersion": "loose.example.com/v1", "kind": "Box",
    "metadata": {"name": "doubtful", "unknownMeta": 1},
    "spec": {"a": 1, "a": 2, "any": {"thing": true}, "template": {"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "inner", "unknownSub": 1}, "spec": {"any": 1}}}}"#;

#[tokio::test(flavor = "multi_thread")]
async fn fields_of_metadata_and_doubles_are_found_also_where_everything_is_kept() {
    let server = with_boxes(loose()).await;
    let json = "application/json";
    let (code, reason, message) = write(&server, "Strict", json, DOUBTFUL).await.refused();
    assert_eq!((code, reason.as_str()), (400, "BadRequest"));
    for part in [
        "strict decoding error: ",
        "duplicate field \"spec.a\"",
        "unknown field \"metadata.unknownMeta\"",
        "unknown field \"spec.template.metadata.unknownSub\"",
    ] {
        assert!(message.contains(part), "{part}: {message}");
    }
    assert_eq!(
        write(&server, "Warn", json, DOUBTFUL)
            .await
            .headers
            .get_all("warning")
            .iter()
            .count(),
        3
    );
    let kept = server.admin.get(&format!("{BOXES}/doubtful")).await.ok();
    assert_eq!(
        (&kept["spec"]["a"], &kept["spec"]["any"]),
        (&json!(2), &json!({"thing": true}))
    );
    assert_eq!(
        kept["spec"]["template"]["metadata"],
        json!({"name": "inner"})
    );
    assert!(kept["metadata"].get("unknownMeta").is_none(), "{kept}");

    let yaml = "apiVersion: loose.example.com/v1\nkind: Box\nmetadata: {name: yaml}\nspec:\n  a: 1\n  a: 2\n";
    let refused = write(&server, "Strict", "application/yaml", yaml)
        .await
        .refused();
    assert!(
        refused.2.contains("line 6: key \"a\" already set in map"),
        "{}",
        refused.2
    );
    let path = format!("{BOXES}/yaml?fieldManager=me&fieldValidation=Strict");
    let headers = [("content-type", "application/apply-patch+yaml")];
    let applied = server
        .admin
        .send(Method::PATCH, &path, &headers, yaml)
        .await;
    let refused = applied.refused();
    assert!(
        refused.2.contains("line 6: key \"a\" already set in map"),
        "{}",
        refused.2
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_schema_everything_is_taken() {
    let keep = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let server = with_boxes(keep).await;
    let object = json!({"apiVersion": "loose.example.com/v1", "kind": "Box",
        "metadata": {"name": "any"}, "spec": {"one": {"two": 3}}, "more": [1]});
    let written = write(&server, "Strict", "application/json", &object.to_string()).await;
    assert!(!written.headers.contains_key("warning"));
    let written = written.ok();
    assert_eq!(
        (&written["spec"], &written["more"]),
        (&object["spec"], &object["more"])
    );
    let path = format!("{BOXES}/any?fieldManager=me&fieldValidation=Strict");
    let headers = [("content-type", "application/apply-patch+yaml")];
    let mut object = object;
    object["spec"] = json!({"four": 5});
    let applied = server
        .admin
        .send(Method::PATCH, &path, &headers, object.to_string())
        .await;
    assert_eq!(applied.ok()["spec"]["four"], 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_default_that_comes_later_is_in_what_was_stored_before() {
    let server = with_tabs().await;
    server.admin.post(TABS, &tab("early")).await.ok();
    let mut later = definition();
    let color = &mut later["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
        ["properties"]["color"];
    color["default"] = json!("red");
    let path = format!("{DEFINITIONS}/crontabs.stable.example.com");
    let patch = json!({"spec": later["spec"]});
    server.admin.patch(&path, "merge-patch", &patch).await.ok();
    // What is written now has it once the new schema is served.
    let dry = format!("{TABS}?dryRun=All");
    let begun = std::time::Instant::now();
    while server.admin.post(&dry, &tab("late")).await.ok()["spec"]["color"] != "red" {
        assert!(begun.elapsed() < crate::harness::PATIENCE);
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let early = server.admin.get(&format!("{TABS}/early")).await.ok();
    assert_eq!(early["spec"]["color"], "red");
    let list = server.admin.get(TABS).await.ok();
    assert_eq!(list["items"][0]["spec"]["color"], "red");
    // It can be chosen by it as well.
    let red = server
        .admin
        .get(&format!("{TABS}?fieldSelector=spec.color%3Dred"))
        .await
        .ok();
    assert_eq!(red["items"].as_array().unwrap().len(), 1);
}
