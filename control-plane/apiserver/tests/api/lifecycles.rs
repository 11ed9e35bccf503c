//! What clients do with any kind, from discovery to the deletion of a collection: the conformance
//! tests "should support X API operations" and "should run through the lifecycle of X" have these
//! steps, kind by kind.

use std::time::Instant;

use hull_api::{Kind, Registry};
use serde_json::{Value, json};

use crate::{
    harness::{ApiClient, PATIENCE, TestServer, WatchLines},
    minimal,
};

/// What selects the objects of a test.
const LABEL: &str = "labelSelector=lifecycle%3Dtested";

/// One kind, of which there is one object.
struct Lifecycle<'c> {
    client: &'c ApiClient,
    kind: &'static Kind,
    object: Value,
    collection: String,
    one: String,
}

impl Lifecycle<'_> {
    fn annotation(&self, object: &Value, name: &str) {
        let found = &object["metadata"]["annotations"][name];
        assert_eq!(found, "true", "{}: {object}", self.kind.kind);
    }

    async fn is_discovered(&self) {
        let (group, _) = self
            .collection
            .split_once("/namespaces/")
            .unwrap_or_else(|| {
                self.collection
                    .rsplit_once('/')
                    .expect("a path of the group")
            });
        let resources = self.client.get(group).await.ok();
        let found = resources["resources"]
            .as_array()
            .unwrap()
            .iter()
            .find(|resource| resource["name"] == self.kind.plural);
        let found = found.unwrap_or_else(|| panic!("{} in {resources}", self.kind.plural));
        let verbs: Vec<&str> = found["verbs"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(Value::as_str)
            .collect();
        for verb in [
            "create", "delete", "get", "list", "patch", "update", "watch",
        ] {
            assert!(verbs.contains(&verb), "{verb} in {found}");
        }
    }

    /// A watch of what is not there yet.
    async fn watch(&self) -> WatchLines {
        let path = format!("{}?{LABEL}", self.collection);
        let none = self.client.get(&path).await.ok();
        assert_eq!(none["items"], json!([]), "{}", self.kind.kind);
        let version = none["metadata"]["resourceVersion"].as_str().unwrap();
        self.client
            .watch(&format!("{path}&watch=true&resourceVersion={version}"))
            .await
    }

    async fn create(&self) {
        let created = self.client.post(&self.collection, &self.object).await.ok();
        let read = self.client.get(&self.one).await.ok();
        assert_eq!(created["metadata"]["uid"], read["metadata"]["uid"]);
        let everywhere = self.collection.replace("/namespaces/default", "");
        for path in [&self.collection, &everywhere] {
            let list = self.client.get(&format!("{path}?{LABEL}")).await.ok();
            let items = list["items"].as_array().unwrap();
            assert_eq!(items.len(), 1, "{path}: {list}");
            assert_eq!(items[0]["metadata"]["uid"], created["metadata"]["uid"]);
        }
    }

    async fn patch(&self, path: &str, name: &str) {
        let patch = json!({"metadata": {"annotations": {name: "true"}}});
        let patched = self.client.patch(path, "merge-patch", &patch).await.ok();
        self.annotation(&patched, name);
    }

    async fn update(&self, path: &str, name: &str) {
        let mut object = self.client.get(path).await.ok();
        object["metadata"]["annotations"][name] = json!("true");
        let updated = self.client.put(path, &object).await.ok();
        self.annotation(&updated, name);
    }

    async fn change(&self) -> usize {
        self.patch(&self.one, "patched").await;
        self.update(&self.one, "updated").await;
        if self.kind.subresource("status").is_none() {
            return 2;
        }
        let status = format!("{}/status", self.one);
        let read = self.client.get(&status).await.ok();
        self.annotation(&read, "updated");
        self.patch(&status, "patched-status").await;
        self.update(&status, "updated-status").await;
        4
    }

    /// Waits until the object is gone. What protects it while it is used is taken away, as the
    /// controllers do, which are not here.
    async fn is_gone(&self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = self.client.get(&self.one).await;
            if answer.code == 404 {
                return;
            }
            let left = answer.ok();
            assert!(left["metadata"]["deletionTimestamp"].is_string(), "{left}");
            assert!(Instant::now() < deadline, "{left}");
            let patch = json!({"metadata": {"finalizers": null}});
            let answer = self.client.patch(&self.one, "merge-patch", &patch).await;
            assert!(matches!(answer.code, 200 | 404), "{}", answer.text);
        }
    }

    async fn run(&self) {
        self.is_discovered().await;
        let mut events = self.watch().await;
        self.create().await;
        let changes = self.change().await;
        let options = json!({"propagationPolicy": "Background"});
        self.client.delete(&self.one, &options).await.ok();
        self.is_gone().await;
        let mut seen = vec![events.next_name().await.0];
        while seen.last().unwrap() != "DELETED" {
            seen.push(events.next_name().await.0);
        }
        assert_eq!(seen[0], "ADDED", "{}: {seen:?}", self.kind.kind);
        // More where something protected it.
        assert!(seen.len() >= changes + 2, "{}: {seen:?}", self.kind.kind);
        self.create().await;
        let all = format!("{}?{LABEL}", self.collection);
        self.client.delete(&all, &options).await.ok();
        self.is_gone().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_runs_through_its_lifecycle() {
    let server = TestServer::start().await;
    let mut lived = 0;
    for kind in Registry::get().kinds() {
        // Namespaces end in steps of their own: see `deletion.rs`.
        let Some(mut object) =
            minimal::named(kind, "lifecycle").filter(|_| kind.kind != "Namespace")
        else {
            continue;
        };
        object["metadata"]["labels"] = json!({"lifecycle": "tested"});
        let collection = minimal::collection(kind);
        let name = object["metadata"]["name"].as_str().unwrap();
        let lifecycle = Lifecycle {
            client: &server.admin,
            kind,
            one: format!("{collection}/{name}"),
            object,
            collection,
        };
        lifecycle.run().await;
        lived += 1;
    }
    assert!(lived >= 45, "{lived}");
}
