//! PATCH in its three formats.

use serde_json::json;

use crate::harness::{CONFIG_MAPS, DEPLOYMENTS, PODS, TestServer, config_map, deployment, pod};

#[tokio::test]
async fn all_three_formats_change_the_object() {
    let server = TestServer::start().await;
    let client = &server.admin;
    client.post(CONFIG_MAPS, &config_map("a")).await.ok();
    let path = format!("{CONFIG_MAPS}/a");
    let patched = client
        .patch(
            &path,
            "merge-patch",
            &json!({"data": {"a": null, "b": "2"}}),
        )
        .await
        .ok();
    assert_eq!(patched["data"], json!({"b": "2"}));
    let patched = client
        .patch(
            &path,
            "json-patch",
            &json!([{"op": "add", "path": "/data/c", "value": "3"}]),
        )
        .await
        .ok();
    assert_eq!(patched["data"], json!({"b": "2", "c": "3"}));
    client.post(DEPLOYMENTS, &deployment("d")).await.ok();
    let patched = client
        .patch(
            &format!("{DEPLOYMENTS}/d"),
            "strategic-merge-patch",
            &json!({"spec": {"template": {"spec": {"containers": [{"name": "web", "image": "nginx:2"}, {"name": "b", "image": "b"}]}}}}),
        )
        .await
        .ok();
    let containers = &patched["spec"]["template"]["spec"]["containers"];
    assert_eq!(containers[0]["image"], "nginx:2");
    assert_eq!(containers[0]["terminationMessagePolicy"], "File");
    assert_eq!(containers[1]["name"], "b");
    assert_eq!(patched["metadata"]["generation"], 2);
}

#[tokio::test]
async fn patches_that_do_not_fit_say_why() {
    let server = TestServer::start().await;
    let client = &server.admin;
    client.post(CONFIG_MAPS, &config_map("a")).await.ok();
    client.post(PODS, &pod("p")).await.ok();
    let path = format!("{CONFIG_MAPS}/a");
    for (media, patch, code) in [
        (
            "json-patch",
            json!([{"op": "remove", "path": "/data/nope"}]),
            422,
        ),
        ("json-patch", json!({"op": "remove"}), 400),
        ("merge-patch", json!([]), 400),
        ("merge-patch", json!({"metadata": {"name": "b"}}), 400),
        ("merge-patch", json!({"data": 5}), 400),
        ("merge-patch", json!({"data": {"a/b": "x"}}), 422),
        (
            "merge-patch",
            json!({"metadata": {"resourceVersion": "1"}}),
            409,
        ),
        ("merge-patch", json!({"metadata": {"uid": "other"}}), 409),
    ] {
        let answer = client.patch(&path, media, &patch).await;
        assert_eq!(answer.refused().0, code, "{patch}: {}", answer.text);
    }
    assert_eq!(
        client
            .patch(&format!("{CONFIG_MAPS}/nope"), "merge-patch", &json!({}))
            .await
            .code,
        404
    );
    let strict = client
        .patch(
            &format!("{PODS}/p?fieldValidation=Strict"),
            "merge-patch",
            &json!({"spec": {"nope": 1}}),
        )
        .await;
    assert!(
        strict.refused().2.contains("unknown field \"spec.nope\""),
        "{}",
        strict.text
    );
}

#[tokio::test]
async fn concurrent_patches_all_arrive() {
    let server = TestServer::start().await;
    server.admin.post(CONFIG_MAPS, &config_map("a")).await.ok();
    let mut tasks = Vec::new();
    for number in 0..8 {
        let client = server.admin.clone();
        tasks.push(tokio::spawn(async move {
            let patch = json!({"data": {format!("k{number}"): "x"}});
            client
                .patch(&format!("{CONFIG_MAPS}/a"), "merge-patch", &patch)
                .await
                .ok();
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    let object = server.admin.get(&format!("{CONFIG_MAPS}/a")).await.ok();
    assert_eq!(object["data"].as_object().unwrap().len(), 9);
}
