//! Grace periods, finalizers, namespaces.

use http::Method;
use serde_json::json;

use crate::harness::{CONFIG_MAPS, PODS, TestServer, bind, config_map, pod};

#[tokio::test]
async fn an_unbound_pod_goes_at_once_a_bound_one_gracefully() {
    let server = TestServer::start().await;
    let client = &server.admin;
    client.post(PODS, &pod("a")).await.ok();
    client.delete(&format!("{PODS}/a"), &json!({})).await.ok();
    assert_eq!(client.get(&format!("{PODS}/a")).await.code, 404);

    client.post(PODS, &pod("b")).await.ok();
    bind(client, "b", "n").await.ok();
    let path = format!("{PODS}/b");
    let marked = client.delete(&path, &json!({})).await.ok();
    assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 30);
    assert!(marked["metadata"]["deletionTimestamp"].is_string());
    // Longer than before changes nothing, shorter does.
    let again = client
        .delete(&path, &json!({"gracePeriodSeconds": 60}))
        .await
        .ok();
    assert_eq!(again["metadata"]["deletionGracePeriodSeconds"], 30);
    let shorter = client
        .delete(&path, &json!({"gracePeriodSeconds": 5}))
        .await
        .ok();
    assert_eq!(shorter["metadata"]["deletionGracePeriodSeconds"], 5);
    // The node agent ends it.
    client
        .delete(&format!("{path}?gracePeriodSeconds=0"), &json!({}))
        .await
        .ok();
    assert_eq!(client.get(&path).await.code, 404);
}

#[tokio::test]
async fn finalizers_hold_an_object_until_the_last_is_gone() {
    let server = TestServer::start().await;
    let client = &server.admin;
    let mut object = config_map("a");
    object["metadata"]["finalizers"] = json!(["example.com/a"]);
    client.post(CONFIG_MAPS, &object).await.ok();
    let path = format!("{CONFIG_MAPS}/a");
    let marked = client.delete(&path, &json!({})).await.ok();
    assert!(marked["metadata"]["deletionTimestamp"].is_string());
    let more = client
        .patch(
            &path,
            "merge-patch",
            &json!({"metadata": {"finalizers": ["example.com/a", "example.com/b"]}}),
        )
        .await;
    assert!(
        more.refused()
            .2
            .contains("no new finalizers can be added if the object is being deleted")
    );
    client
        .patch(
            &path,
            "merge-patch",
            &json!({"metadata": {"finalizers": null}}),
        )
        .await
        .ok();
    assert_eq!(client.get(&path).await.code, 404);
}

#[tokio::test]
async fn the_propagation_policy_becomes_a_finalizer() {
    let server = TestServer::start().await;
    let client = &server.admin;
    for (policy, finalizer) in [("Foreground", "foregroundDeletion"), ("Orphan", "orphan")] {
        client.post(CONFIG_MAPS, &config_map("a")).await.ok();
        let path = format!("{CONFIG_MAPS}/a");
        let marked = client
            .delete(&path, &json!({"propagationPolicy": policy}))
            .await
            .ok();
        assert_eq!(marked["metadata"]["finalizers"], json!([finalizer]));
        client
            .delete(&path, &json!({"propagationPolicy": "Background"}))
            .await
            .ok();
        assert_eq!(client.get(&path).await.code, 404);
    }
    client.post(CONFIG_MAPS, &config_map("a")).await.ok();
    let wrong = client
        .delete(
            &format!("{CONFIG_MAPS}/a"),
            &json!({"propagationPolicy": "Sideways"}),
        )
        .await;
    assert_eq!(wrong.refused().0, 422);
}

#[tokio::test]
async fn preconditions_protect_against_the_wrong_object() {
    let server = TestServer::start().await;
    let client = &server.admin;
    let created = client.post(CONFIG_MAPS, &config_map("a")).await.ok();
    let path = format!("{CONFIG_MAPS}/a");
    let wrong = client
        .delete(&path, &json!({"preconditions": {"uid": "other"}}))
        .await;
    let (code, _, message) = wrong.refused();
    assert_eq!(code, 409);
    assert!(
        message.contains("the UID in the precondition (other) does not match"),
        "{message}"
    );
    let uid = &created["metadata"]["uid"];
    client
        .delete(&path, &json!({"preconditions": {"uid": uid}}))
        .await
        .ok();
}

#[tokio::test]
async fn a_namespace_terminates_and_takes_nothing_new() {
    let server = TestServer::start().await;
    let client = &server.admin;
    client
        .post(
            "/api/v1/namespaces",
            &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n"}}),
        )
        .await
        .ok();
    client
        .post("/api/v1/namespaces/n/configmaps", &config_map("a"))
        .await
        .ok();
    let marked = client.delete("/api/v1/namespaces/n", &json!({})).await.ok();
    assert_eq!(marked["status"]["phase"], "Terminating");
    let refused = client
        .post("/api/v1/namespaces/n/configmaps", &config_map("b"))
        .await;
    assert_eq!(
        refused.refused(),
        (
            403,
            "Forbidden".into(),
            "configmaps \"b\" is forbidden: unable to create new content in namespace n because it is being terminated".into()
        )
    );
    assert_eq!(
        refused.json()["details"]["causes"][0]["reason"],
        "NamespaceTerminating"
    );
    // The namespace controller: content, then the finalizer.
    let gone = client
        .send(Method::DELETE, "/api/v1/namespaces/n/configmaps", &[], "")
        .await
        .ok();
    assert_eq!(gone["items"].as_array().unwrap().len(), 1);
    let mut namespace = client.get("/api/v1/namespaces/n").await.ok();
    namespace["spec"]["finalizers"] = json!([]);
    client
        .put("/api/v1/namespaces/n/finalize", &namespace)
        .await
        .ok();
    assert_eq!(client.get("/api/v1/namespaces/n").await.code, 404);
}

#[tokio::test]
async fn the_namespaces_of_the_cluster_itself_stay() {
    let server = TestServer::start().await;
    let client = &server.admin;
    for name in ["default", "kube-system", "kube-public"] {
        let path = format!("/api/v1/namespaces/{name}");
        assert_eq!(
            client.delete(&path, &json!({})).await.refused(),
            (
                403,
                "Forbidden".into(),
                format!("namespaces \"{name}\" is forbidden: this namespace may not be deleted")
            )
        );
        let kept = client.get(&path).await.ok();
        assert_eq!(kept["status"]["phase"], "Active");
    }
    // Leases of nodes come again.
    let path = "/api/v1/namespaces/kube-node-lease";
    let marked = client.delete(path, &json!({})).await.ok();
    assert_eq!(marked["status"]["phase"], "Terminating");
}

#[tokio::test]
async fn deletecollection_deletes_what_is_selected() {
    let server = TestServer::start().await;
    let client = &server.admin;
    for name in ["a", "b"] {
        let mut object = config_map(name);
        object["metadata"]["labels"] = json!({"app": name});
        client.post(CONFIG_MAPS, &object).await.ok();
    }
    client
        .send(
            Method::DELETE,
            &format!("{CONFIG_MAPS}?labelSelector=app%3Da"),
            &[],
            "",
        )
        .await
        .ok();
    assert_eq!(client.get(&format!("{CONFIG_MAPS}/a")).await.code, 404);
    assert_eq!(client.get(&format!("{CONFIG_MAPS}/b")).await.code, 200);
}

#[tokio::test]
async fn an_eviction_deletes_the_pod() {
    let server = TestServer::start().await;
    let client = &server.admin;
    client.post(PODS, &pod("p")).await.ok();
    let eviction =
        json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}});
    assert_eq!(
        client
            .post(&format!("{PODS}/p/eviction"), &eviction)
            .await
            .code,
        201
    );
    assert_eq!(client.get(&format!("{PODS}/p")).await.code, 404);
}
