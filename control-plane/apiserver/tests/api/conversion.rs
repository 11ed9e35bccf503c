//! Custom resources in several versions, with a webhook that converts between them.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    mpsc,
};

use hull_store::{Write, prefix_range};
use serde_json::{Value, json};

use crate::{
    custom_resources::established,
    harness::{PATIENCE, TestServer},
    tls_server::{TlsServer, json_answer},
};

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const NAME: &str = "hosts.conv.example.com";
const V1: &str = "/apis/conv.example.com/v1/namespaces/default/hosts";
const V2: &str = "/apis/conv.example.com/v2/namespaces/default/hosts";

/// A namespace whose objects the webhook refuses.
const ODD: &str = "odd";

/// `v1` has `spec.address` (`a:1`), `v2` has `spec.host` and `spec.port`.
fn convert(object: &Value, version: &str, mark: &str) -> Value {
    let mut out = object.clone();
    out["apiVersion"] = json!(version);
    let spec = &object["spec"];
    out["spec"] = match (version, spec["address"].as_str()) {
        ("conv.example.com/v2", Some(address)) => {
            let (host, port) = address.split_once(':').unwrap();
            // It may make more of an object than there was.
            let times = 1 + usize::from(object["metadata"]["name"] == "grows");
            json!({"host": host.repeat(times), "port": port})
        }
        ("conv.example.com/v1", None) => {
            let text = |field: &str| spec[field].as_str().unwrap();
            json!({"address": format!("{}:{}", text("host"), text("port"))})
        }
        _ => spec.clone(),
    };
    // A webhook may add labels, and has no say in the rest of the metadata.
    out["metadata"]["labels"]["seen"] = json!(mark);
    out["metadata"]["generation"] = json!(99);
    out
}

/// What a webhook was asked, and what it is to do.
#[derive(Default)]
struct Asked {
    calls: AtomicUsize,
    objects: AtomicUsize,
    /// Bytes of its largest request.
    largest: AtomicUsize,
    /// It was asked for an object of [`ODD`].
    odd: AtomicBool,
    refuses: AtomicBool,
    /// The next call is answered when this says so.
    held: Mutex<Option<mpsc::Receiver<()>>>,
}

impl Asked {
    fn answer(&self, body: &[u8], mark: &str) -> Value {
        let review: Value = serde_json::from_slice(body).unwrap();
        assert_eq!(review["kind"], "ConversionReview");
        let request = &review["request"];
        let version = request["desiredAPIVersion"].as_str().unwrap();
        let objects = request["objects"].as_array().unwrap();
        let is_odd = objects
            .iter()
            .any(|one| one["metadata"]["namespace"] == ODD);
        self.odd.fetch_or(is_odd, SeqCst);
        self.objects.fetch_add(objects.len(), SeqCst);
        self.largest.fetch_max(body.len(), SeqCst);
        self.calls.fetch_add(1, SeqCst);
        let held = self.held.lock().unwrap().take();
        if let Some(held) = held {
            // An error: the test is over.
            let _ = tokio::task::block_in_place(|| held.recv());
        }
        let converted = objects.iter().map(|object| convert(object, version, mark));
        let converted: Vec<Value> = converted.collect();
        let result = if is_odd || self.refuses.load(SeqCst) {
            json!({"status": "Failed", "message": "not today"})
        } else {
            json!({"status": "Success"})
        };
        json!({"apiVersion": review["apiVersion"], "kind": "ConversionReview",
            "response": {"uid": request["uid"], "result": result, "convertedObjects": converted}})
    }
}

struct Converter {
    server: TlsServer,
    asked: Arc<Asked>,
}

/// A webhook that leaves a label on what it converts.
async fn converter(mark: &'static str) -> Converter {
    let asked = Arc::<Asked>::default();
    let answers = asked.clone();
    let server = TlsServer::start(&["127.0.0.1"], None, move |_, body| {
        json_answer(&answers.answer(body, mark))
    })
    .await;
    Converter { server, asked }
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
    let (server, converter) = (TestServer::start().await, converter("yes").await);
    let object = definition(&converter);
    server.admin.post(DEFINITIONS, &object).await.ok();
    established(&server, NAME).await;
    (server, converter)
}

/// Replaces the definition.
async fn redefine(server: &TestServer, mut object: Value) -> Value {
    let path = format!("{DEFINITIONS}/{NAME}");
    let current = server.admin.get(&path).await.ok();
    object["metadata"]["resourceVersion"] = current["metadata"]["resourceVersion"].clone();
    server.admin.put(&path, &object).await.ok()
}

/// Puts small objects of `v1` into the store, all at once.
async fn store_many(server: &TestServer, namespace: &str, count: usize) {
    let write = |index: usize| {
        let name = format!("h{index:05}");
        let mut object = host_v1(&name, "x:1");
        object["metadata"]["namespace"] = json!(namespace);
        object["metadata"]["uid"] = json!(name);
        let key = format!("/registry/conv.example.com/hosts/{namespace}/{name}");
        Write::Put(key, object.to_string().into())
    };
    let writes = (0..count).map(write).collect();
    server.store.txn(Vec::new(), writes).await.unwrap();
}

/// The marks of the listed objects.
fn marks(list: &Value) -> Vec<&str> {
    let items = list["items"].as_array().unwrap().iter();
    items
        .map(|one| one["metadata"]["labels"]["seen"].as_str().unwrap())
        .collect()
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
    let before = converter.asked.calls.load(SeqCst);
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
    let changed = redefine(&server, object).await;
    assert_eq!(changed["status"]["storedVersions"], json!(["v1", "v2"]));
    let until = tokio::time::Instant::now() + PATIENCE;
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
    converter.asked.refuses.store(true, SeqCst);
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
    converter.asked.refuses.store(false, SeqCst);
    let mut watch = admin.watch(&format!("{V2}?watch=true")).await;
    assert_eq!(watch.next().await.unwrap()["type"], "ADDED");
    converter.asked.refuses.store(true, SeqCst);
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

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_of_a_namespace_needs_no_conversion_of_others() {
    let (server, converter) = with_hosts().await;
    let admin = &server.admin;
    admin.post(V1, &host_v1("a", "x:1")).await.ok();
    let mut watch = admin.watch(&format!("{V2}?watch=true")).await;
    assert_eq!(watch.next().await.unwrap()["type"], "ADDED");
    // More than a watch takes at once: it has to go on behind them.
    store_many(&server, ODD, 300).await;
    let patch = json!({"spec": {"address": "x:2"}});
    admin
        .patch(&format!("{V1}/a"), "merge-patch", &patch)
        .await
        .ok();
    let event = watch.next().await.unwrap();
    assert_eq!(
        (&event["type"], &event["object"]["spec"]["port"]),
        (&json!("MODIFIED"), &json!("2")),
        "{event}"
    );
    assert!(!converter.asked.odd.load(SeqCst));
    // Who asks for all namespaces is told.
    let all = admin.get("/apis/conv.example.com/v2/hosts").await;
    assert_eq!(all.code, 500);
    assert!(converter.asked.odd.load(SeqCst));
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_fits_into_an_answer_is_converted_in_several_calls() {
    let (server, converter) = with_hosts().await;
    let admin = &server.admin;
    let before = admin.get(V1).await.ok();
    let before = before["metadata"]["resourceVersion"].as_str().unwrap();
    for index in 0..9 {
        let object = host_v1(
            &format!("a{index}"),
            &format!("{}:1", "x".repeat(400 << 10)),
        );
        admin.post(V1, &object).await.ok();
    }
    let path = format!("{V2}?watch=true&resourceVersion={before}");
    let mut watch = admin.watch(&path).await;
    for index in 0..9 {
        let (event, name) = watch.next_name().await;
        assert_eq!((event, name), ("ADDED".to_string(), format!("a{index}")));
    }
    // What the watch needed may serve the list; without it, it is converted the same way.
    let another = server.sibling().await;
    for one in [&server, &another] {
        assert_eq!(marks(&one.admin.get(V2).await.ok()), ["yes"; 9]);
    }
    let largest = converter.asked.largest.load(SeqCst);
    assert!(largest < 3 << 19, "a request of {largest} bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_may_grow_beyond_a_requests_limit_when_it_is_converted() {
    let (server, _converter) = with_hosts().await;
    let address = format!("{}:1", "x".repeat(2 << 20));
    let object = host_v1("grows", &address);
    server.admin.post(V1, &object).await.ok();
    let read = server.admin.get(&format!("{V2}/grows")).await.ok();
    assert_eq!(read["spec"]["host"].as_str().unwrap().len(), 4 << 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_larger_than_what_is_kept_still_finds_what_is() {
    let (server, converter) = with_hosts().await;
    let count = hull_apiserver::limits::KEPT_CONVERSIONS + 100;
    store_many(&server, "default", count).await;
    let path = format!("{V2}?fieldSelector=spec.host%3Dnone");
    for converted in [count, count + 100] {
        assert_eq!(marks(&server.admin.get(&path).await.ok()).len(), 0);
        assert_eq!(converter.asked.objects.load(SeqCst), converted);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_webhook_converts_anew() {
    let (server, first) = with_hosts().await;
    let admin = &server.admin;
    admin.post(V1, &host_v1("a", "x:1")).await.ok();
    assert_eq!(marks(&admin.get(V2).await.ok()), ["yes"]);
    let second = converter("second").await;
    redefine(&server, definition(&second)).await;
    let until = tokio::time::Instant::now() + PATIENCE;
    while marks(&admin.get(V2).await.ok()) != ["second"] {
        assert!(tokio::time::Instant::now() < until, "the first one's stays");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(first.asked.calls.load(SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_comes_after_its_webhook_was_replaced_is_not_kept() {
    let (server, first) = with_hosts().await;
    let admin = &server.admin;
    admin.post(V1, &host_v1("a", "x:1")).await.ok();
    let (release, held) = mpsc::channel();
    *first.asked.held.lock().unwrap() = Some(held);
    let late = tokio::spawn({
        let admin = admin.clone();
        async move { admin.get(V2).await.ok() }
    });
    let until = tokio::time::Instant::now() + PATIENCE;
    while first.asked.calls.load(SeqCst) == 0 {
        assert!(tokio::time::Instant::now() < until, "nothing is converted");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let second = converter("second").await;
    redefine(&server, definition(&second)).await;
    // One object is converted for every read.
    while admin.get(&format!("{V2}/a")).await.ok()["metadata"]["labels"]["seen"] != "second" {
        assert!(tokio::time::Instant::now() < until, "the first one stays");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    release.send(()).unwrap();
    assert_eq!(marks(&late.await.unwrap()), ["yes"]);
    assert_eq!(marks(&admin.get(V2).await.ok()), ["second"]);
}
