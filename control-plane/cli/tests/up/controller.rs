//! A controller as people write them with kube-rs: a definition, objects it owns, a finalizer.

use std::sync::Arc;

use futures::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use kube::runtime::controller::Action;
use kube::runtime::finalizer::{Event, finalizer};
use kube::runtime::{Controller, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::json;

use super::*;

const FINALIZER: &str = "gadgets.example.com/cleanup";
/// Where the controller notes whose end it has seen.
const ENDED: &str = "ended";

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn gadgets() -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk("example.com", "v1", "Gadget"))
}

async fn define(client: &Client) {
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "gadgets.example.com"},
        "spec": {
            "group": "example.com",
            "scope": "Namespaced",
            "names": {"plural": "gadgets", "singular": "gadget", "kind": "Gadget"},
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "spec": {"type": "object", "properties": {"size": {"type": "integer"}}},
                }}},
            }],
        },
    });
    let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let request = http::Request::post(path)
        .header("content-type", "application/json")
        .body(definition.to_string().into_bytes())
        .unwrap();
    client.request_text(request).await.unwrap();
    until("the definition is served", async || {
        let list = http_get("/apis/example.com/v1/gadgets");
        client.request_text(list).await.ok().map(drop)
    })
    .await;
}

/// Writes the ConfigMap that a gadget owns.
async fn apply(client: &Client, gadget: &DynamicObject) -> Result<Action, Failure> {
    let owner = gadget.controller_owner_ref(&gadgets());
    let object = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": gadget.name_any(), "ownerReferences": [owner]},
        "data": {"size": gadget.data["spec"]["size"].to_string()},
    });
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let parameters = PatchParams::apply("gadgets.example.com").force();
    maps.patch(&gadget.name_any(), &parameters, &Patch::Apply(&object))
        .await?;
    Ok(Action::await_change())
}

/// Notes that a gadget's end was seen.
async fn clean_up(client: &Client, gadget: &DynamicObject) -> Result<Action, Failure> {
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let object = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": ENDED},
        "data": {gadget.name_any(): "yes"},
    });
    let parameters = PatchParams::apply("gadgets.example.com").force();
    maps.patch(ENDED, &parameters, &Patch::Apply(&object))
        .await?;
    Ok(Action::await_change())
}

async fn reconcile(
    gadget: Arc<DynamicObject>,
    client: Arc<Client>,
) -> Result<Action, kube::runtime::finalizer::Error<std::io::Error>> {
    let client = &*client;
    let api: Api<DynamicObject> = Api::default_namespaced_with(client.clone(), &gadgets());
    finalizer(&api, FINALIZER, gadget, |event| async move {
        let result = match event {
            Event::Apply(gadget) => apply(client, &gadget).await,
            Event::Cleanup(gadget) => clean_up(client, &gadget).await,
        };
        result.map_err(std::io::Error::other)
    })
    .await
}

async fn run(client: Client) {
    let api: Api<DynamicObject> = Api::default_namespaced_with(client.clone(), &gadgets());
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    Controller::new_with(api, watcher::Config::default(), gadgets())
        .owns(maps, watcher::Config::default())
        .run(
            reconcile,
            |_, _, _| Action::requeue(Duration::from_millis(200)),
            Arc::new(client),
        )
        .for_each(|result| {
            // Shown when the test fails.
            println!("reconciled: {result:?}");
            std::future::ready(())
        })
        .await;
}

/// Waits for something to be there.
async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(begun.elapsed() < DEADLINE, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kube_rs_controller_follows_its_objects() {
    let setup = Setup::new();
    let _server = setup.server("embedded");
    let client = setup.client().await;
    define(&client).await;
    let controller = tokio::spawn(run(client.clone()));
    let api: Api<DynamicObject> = Api::default_namespaced_with(client.clone(), &gadgets());
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let size = async |name: &str| {
        let map = maps.get_opt(name).await.unwrap()?;
        Some((map.uid()?, map.data?.get("size")?.clone()))
    };

    let mut gadget = DynamicObject::new("g", &gadgets());
    gadget.data = json!({"spec": {"size": 1}});
    api.create(&PostParams::default(), &gadget).await.unwrap();
    let (uid, first) = until("the gadget's map", async || size("g").await).await;
    assert_eq!(first, "1");

    let patch = Patch::Merge(json!({"spec": {"size": 2}}));
    api.patch("g", &PatchParams::default(), &patch)
        .await
        .unwrap();
    until("the change", async || {
        size("g").await.filter(|(_, size)| size == "2")
    })
    .await;

    // What it owns comes back.
    maps.delete("g", &DeleteParams::default()).await.unwrap();
    until("another map", async || {
        size("g").await.filter(|(other, _)| *other != uid)
    })
    .await;

    // Its finalizer holds the gadget until the controller has cleaned up; then the garbage
    // collector takes what it owned.
    api.delete("g", &DeleteParams::default()).await.unwrap();
    until("the end of the gadget and its map", async || {
        let gone = api.get_opt("g").await.unwrap().is_none();
        (gone && maps.get_opt("g").await.unwrap().is_none()).then_some(())
    })
    .await;
    let ended = maps.get(ENDED).await.unwrap().data.unwrap_or_default();
    assert_eq!(ended.get("g").map(String::as_str), Some("yes"));
    controller.abort();
}
