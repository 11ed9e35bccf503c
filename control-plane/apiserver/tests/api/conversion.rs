//! Custom resources in several versions, with a webhook that converts between them.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
};

use hull_store::prefix_range;
use serde_json::{Value, json};

use crate::{
    custom_resources::established,
    harness::TestServer,
    tls_server::{TlsServer, json_answer},
};

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const NAME: &str = "hosts.conv.example.com";
const V1: &str = "/apis/conv.example.com/v1/namespaces/default/hosts";
const V2: &str = "/apis/conv.example.com/v2/namespaces/default/hosts";

/// `v1` has `spec.address` (`a:1`), `v2` has `spec.host` and `spec.port`.
fn convert(object: &Value, version: &str) -> Value {
    let mut out = object.clone();
    out["apiVersion"] = json!(version);
    let spec = &object["spec"];
    out["spec"] = match (version, spec["address"].as_str()) {
        ("conv.example.com/v2", Some(address)) => {
            let (host, port) = address.split_once(':').unwrap();
            json!({"host": host, "port": port})
        }
        ("conv.example.com/v1", None) => {
            let text = |field: &str| spec[field].as_str().unwrap();
            json!({"address": format!("{}:{}", text("host"), text("port"))})
        }
        _ => spec.clone(),
    };
    // A webhook may add labels, and has no say in the rest of the metadata.
    out["metadata"]["labels"]["seen"] = json!("yes");
    out["metadata"]["generation"] = json!(99);
    out
}

struct Converter {
    server: TlsServer,
    calls: Arc<AtomicUsize>,
    refuses: Arc<AtomicBool>,
}

async fn converter() -> Converter {
    let (calls, refuses) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
    let (counted, says_no) = (calls.clone(), refuses.clone());
    let server = TlsServer::start(&["127.0.0.1"], None, move |_, body| {
        counted.fetch_add(1, SeqCst);
        let review: Value = serde_json::from_slice(body).unwrap();
        assert_eq!(review["kind"], "ConversionReview");
        let request = &review["request"];
        let version = request["desiredAPIVersion"].as_str().unwrap();
        let objects = request["objects"].as_array().unwrap().iter();
        let converted: Vec<Value> = objects.map(|object| convert(object, version)).collect();
        let result = if says_no.load(SeqCst) {
            json!({"status": "Failed", "message": "not today"})
        } else {
            json!({"status": "Success"})
        };
        json_answer(
            &json!({"apiVersion": review["apiVersion"], "kind": "ConversionReview",
            "response": {"uid": request["uid"], "result": result, "convertedObjects": converted}}),
        )
    })
    .await;
    Converter {
        server,
        calls,
        refuses,
    }
}

fn definition(converter: &Converter) -> Value {
    let schema = |fields: Value| {
        json!({"openAPIV3Schema": {"type": "object", "properties": {
            "spec": {"type": "object", "properties": fields}}}})
    };
    let text = json!({"type": "string"});
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": NAME},
        "spec": {"group": "conv.example.com", "scope": "Namespaced",
            "names": {"plural": "hosts", "kind": "Host"},
            "conversion": {"strategy": "Webhook", "webhook": {
                "conversionReviewVersions": ["v1"],
                "clientConfig": {"url": format!("https://127.0.0.1:{}/convert", converter.server.port),
                    "caBundle": converter.server.bundle}}},
            "versions": [
                {"name": "v1", "served": true, "storage": true, "schema": schema(json!({"address": text}))},
                {"name": "v2", "served": true, "storage": false,
                    "selectableFields": [{"jsonPath": ".spec.host"}],
                    "schema": schema(json!({"host": text, "port": text}))}]}})
}

fn host_v1(name: &str, address: &str) -> Value {
    json!({"apiVersion": "conv.example.com/v1", "kind": "Host", "metadata": {"name": name},
        "spec": {"address": address}})
}

fn host_v2(name: &str, host: &str, port: &str) -> Value {
    json!({"apiVersion": "conv.example.com/v2", "kind": "Host", "metadata": {"name": name},
        "spec": {"host": host, "port": port}})
}

async fn with_hosts() -> (TestServer, Converter) {
    let (server, converter) = (TestServer::start().await, converter().await);
    let object = definition(&converter);
    server.admin.post(DEFINITIONS, &object).await.ok();
    established(&server, NAME).await;
    (server, converter)
}

/// `apiVersion` of what the store holds, by name.
async fn stored_versions(server: &TestServer) -> Vec<(String, String)> {
    let range = prefix_range("/registry/conv.example.com/hosts/");
    let page = server.store.list(range, None, 0).await.unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_string();
    let objects = page.items.iter().map(|pair| {
        let object: Value = serde_json::from_slice(&pair.value).unwrap();
        (
            text(&object["metadata"]["name"]),
            text(&object["apiVersion"]),
        )
    });
    objects.collect()
}

fn pair(name: &str, version: &str) -> (String, String) {
    (name.to_string(), format!("conv.example.com/{version}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_are_written_and_read_in_any_served_version() {
    let (server, _converter) = with_hosts().await;
    let admin = &server.admin;
    let created = admin.post(V1, &host_v1("a", "x:1")).await.ok();
    assert_eq!(created["metadata"]["generation"], 1);
    let created = admin.post(V2, &host_v2("b", "y", "2")).await.ok();
    assert_eq!(created["apiVersion"], "conv.example.com/v2");
    assert_eq!(created["spec"], json!({"host": "y", "port": "2"}));
    assert_eq!(
        created["metadata"]["generation"], 1,
        "not the webhook's to set"
    );
    assert_eq!(created["metadata"]["labels"]["seen"], "yes");
    assert_eq!(
        stored_versions(&server).await,
        [pair("a", "v1"), pair("b", "v1")]
    );
    let read = admin.get(&format!("{V1}/b")).await.ok();
    assert_eq!(read["spec"], json!({"address": "y:2"}));
    let patch = json!({"spec": {"port": "3"}});
    let patched = admin
        .patch(&format!("{V2}/b"), "merge-patch", &patch)
        .await
        .ok();
    assert_eq!(patched["spec"], json!({"host": "y", "port": "3"}));
    let read = admin.get(&format!("{V1}/b")).await.ok();
    assert_eq!(read["spec"]["address"], "y:3");
    let list = admin.get(V2).await.ok();
    let items: Vec<&Value> = list["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["spec"])
        .collect();
    assert_eq!(
        items,
        [
            &json!({"host": "x", "port": "1"}),
            &json!({"host": "y", "port": "3"})
        ]
    );
    // Fields of the version that is asked for, not of the one that is stored.
    let selected = admin
        .get(&format!("{V2}?fieldSelector=spec.host%3Dy"))
        .await
        .ok();
    assert_eq!(selected["items"].as_array().unwrap().len(), 1);
    let page = admin.get(&format!("{V2}?limit=1")).await.ok();
    let token = page["metadata"]["continue"].as_str().unwrap();
    let rest = admin
        .get(&format!("{V2}?limit=1&continue={token}"))
        .await
        .ok();
    assert_eq!(rest["items"][0]["spec"]["host"], "y");
    let gone = admin.delete(&format!("{V2}/b"), &json!({})).await;
    assert_eq!(gone.code, 200, "{}", gone.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_shows_every_change_in_its_version_and_converts_it_once() {
    let (server, converter) = with_hosts().await;
    let admin = &server.admin;
    admin.post(V1, &host_v1("a", "x:1")).await.ok();
    let mut watches = Vec::new();
    for _ in 0..5 {
        let mut watch = admin.watch(&format!("{V2}?watch=true")).await;
        let event = watch.next().await.unwrap();
        assert_eq!(event["type"], "ADDED");
        assert_eq!(event["object"]["spec"]["host"], "x");
        watches.push(watch);
    }
    let before = converter.calls.load(SeqCst);
    assert!(
        before <= 2,
        "{before} calls for one object and five watches"
    );
    let patch = json!({"spec": {"address": "x:2"}});
    admin
        .patch(&format!("{V1}/a"), "merge-patch", &patch)
        .await
        .ok();
    admin.delete(&format!("{V1}/a"), &json!({})).await.ok();
    for watch in &mut watches {
        let event = watch.next().await.unwrap();
        assert_eq!(
            (&event["type"], &event["object"]["spec"]["port"]),
            (&json!("MODIFIED"), &json!("2"))
        );
        let event = watch.next().await.unwrap();
        assert_eq!(
            (&event["type"], &event["object"]["spec"]["port"]),
            (&json!("DELETED"), &json!("2"))
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unchanged_write_brings_an_object_into_the_storage_version() {
    let (server, converter) = with_hosts().await;
    let admin = &server.admin;
    admin.post(V1, &host_v1("a", "x:1")).await.ok();
    let mut object = definition(&converter);
    for (index, storage) in [(0, false), (1, true)] {
        object["spec"]["versions"][index]["storage"] = json!(storage);
    }
    let path = format!("{DEFINITIONS}/{NAME}");
    let current = admin.get(&path).await.ok();
    object["metadata"]["resourceVersion"] = current["metadata"]["resourceVersion"].clone();
    let changed = admin.put(&path, &object).await.ok();
    assert_eq!(changed["status"]["storedVersions"], json!(["v1", "v2"]));
    let until = tokio::time::Instant::now() + crate::harness::PATIENCE;
    while stored_versions(&server).await != [pair("a", "v2")] {
        assert!(tokio::time::Instant::now() < until, "it stays in v1");
        let object = admin.get(&format!("{V1}/a")).await.ok();
        assert_eq!(object["spec"]["address"], "x:1");
        let written = admin.put(&format!("{V1}/a"), &object).await.ok();
        assert_eq!(written["spec"]["address"], "x:1");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversion_that_fails_is_the_clients_error() {
    let (server, converter) = with_hosts().await;
    let admin = &server.admin;
    admin.post(V1, &host_v1("a", "x:1")).await.ok();
    converter.refuses.store(true, SeqCst);
    // What is stored in the asked version needs nobody.
    admin.get(&format!("{V1}/a")).await.ok();
    let words = "conversion webhook for conv.example.com/v1, Kind=Host failed: not today";
    let (code, _, message) = admin.get(&format!("{V2}/a")).await.refused();
    assert_eq!((code, message.as_str()), (500, words));
    let (code, _, message) = admin.get(V2).await.refused();
    assert_eq!((code, message.as_str()), (500, words));
    let (code, _, message) = admin.post(V2, &host_v2("b", "y", "2")).await.refused();
    assert_eq!(code, 500);
    assert_eq!(
        message,
        "conversion webhook for conv.example.com/v2, Kind=Host failed: not today"
    );
    assert_eq!(admin.get(&format!("{V1}/b")).await.code, 404);
    converter.refuses.store(false, SeqCst);
    let mut watch = admin.watch(&format!("{V2}?watch=true")).await;
    assert_eq!(watch.next().await.unwrap()["type"], "ADDED");
    converter.refuses.store(true, SeqCst);
    let patch = json!({"spec": {"address": "x:2"}});
    admin
        .patch(&format!("{V1}/a"), "merge-patch", &patch)
        .await
        .ok();
    let event = watch.next().await.unwrap();
    assert_eq!(
        (&event["type"], &event["object"]["message"]),
        (&json!("ERROR"), &json!(words))
    );
    assert!(watch.next().await.is_none());
}
