//! The server as a service in the process: kube's client runs on it without a socket.

use futures::StreamExt;
use hull_apiserver::UserInfo;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams},
};
use serde_json::json;

use crate::harness::{TestServer, pod};

#[tokio::test]
async fn kubes_client_runs_on_the_local_service() {
    let server = TestServer::start().await;
    let client = Client::new(
        server.server.local_service(UserInfo::controller_manager()),
        "default",
    );
    let api: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let object: ConfigMap = serde_json::from_value(crate::harness::config_map("a")).unwrap();
    api.create(&PostParams::default(), &object).await.unwrap();
    let events = api.watch(&WatchParams::default(), "0").await.unwrap();
    let mut events = std::pin::pin!(events);
    assert!(
        matches!(events.next().await, Some(Ok(WatchEvent::Added(found))) if found.metadata.name.as_deref() == Some("a"))
    );
    let patch = Patch::Merge(json!({"data": {"b": "2"}}));
    api.patch("a", &PatchParams::default(), &patch)
        .await
        .unwrap();
    assert!(matches!(
        events.next().await,
        Some(Ok(WatchEvent::Modified(_)))
    ));
    assert_eq!(
        api.list(&ListParams::default()).await.unwrap().items.len(),
        1
    );
    api.delete("a", &DeleteParams::default()).await.unwrap();
    assert!(matches!(
        events.next().await,
        Some(Ok(WatchEvent::Deleted(_)))
    ));
    match api.get("a").await {
        Err(kube::Error::Api(status)) => assert_eq!(status.code, 404),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_scheduler_binds_and_nothing_else() {
    let server = TestServer::start().await;
    server
        .admin
        .post(crate::harness::PODS, &pod("p"))
        .await
        .ok();
    let client = Client::new(
        server.server.local_service(UserInfo::scheduler()),
        "default",
    );
    let request = http::Request::post("/api/v1/namespaces/default/pods/p/binding")
        .body(
            json!({"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n"}})
                .to_string()
                .into_bytes(),
        )
        .unwrap();
    client.request::<serde_json::Value>(request).await.unwrap();
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    assert_eq!(
        pods.get("p")
            .await
            .unwrap()
            .spec
            .unwrap()
            .node_name
            .as_deref(),
        Some("n")
    );
    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    match maps.list(&ListParams::default()).await {
        Err(kube::Error::Api(status)) => assert_eq!(status.code, 403),
        other => panic!("{other:?}"),
    }
}
