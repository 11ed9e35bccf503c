//! Evictions ask the pod's disruption budget.

use serde_json::{Value, json};

use crate::harness::{ApiClient, PODS, TestServer, bind, pod};

const BUDGETS: &str = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";

async fn running(client: &ApiClient, name: &str) {
    let mut object = pod(name);
    object["metadata"]["labels"] = json!({"app": "web"});
    client.post(PODS, &object).await.ok();
    bind(client, name, "node").await.ok();
    let status = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
    let path = format!("{PODS}/{name}/status");
    client.patch(&path, "merge-patch", &status).await.ok();
}

async fn evict(client: &ApiClient, name: &str) -> crate::harness::Answer {
    let eviction =
        json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}});
    client
        .post(&format!("{PODS}/{name}/eviction"), &eviction)
        .await
}

async fn budget(client: &ApiClient, status: Value) {
    let object = json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
        "metadata": {"name": "web"},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}}});
    client.post(BUDGETS, &object).await.ok();
    let path = format!("{BUDGETS}/web/status");
    client
        .patch(&path, "merge-patch", &json!({ "status": status }))
        .await
        .ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_allows_as_many_evictions_as_it_has_left() {
    let server = TestServer::start().await;
    let client = &server.admin;
    for name in ["a", "b"] {
        running(client, name).await;
    }
    let counted = json!({"observedGeneration": 1, "disruptionsAllowed": 1, "currentHealthy": 2,
        "desiredHealthy": 1, "expectedPods": 2});
    budget(client, counted).await;
    evict(client, "a").await.ok();
    let left = client.get(&format!("{BUDGETS}/web")).await.ok();
    assert_eq!(left["status"]["disruptionsAllowed"], 0);
    assert!(left["status"]["disruptedPods"]["a"].is_string());
    let gone = client.get(&format!("{PODS}/a")).await.ok();
    assert!(gone["metadata"]["deletionTimestamp"].is_string());
    let conditions = gone["status"]["conditions"].as_array().unwrap();
    assert!(
        conditions
            .iter()
            .any(|c| c["reason"] == "EvictionByEvictionAPI")
    );
    let answer = evict(client, "b").await;
    let (code, reason, message) = answer.refused();
    assert_eq!((code, reason.as_str()), (429, "TooManyRequests"));
    assert_eq!(
        message,
        "Cannot evict pod as it would violate the pod's disruption budget."
    );
    let cause = &answer.json()["details"]["causes"][0];
    assert_eq!(cause["reason"], "DisruptionBudget");
    assert_eq!(
        cause["message"],
        "The disruption budget web needs 1 healthy pods and has 2 currently"
    );
    let kept = client.get(&format!("{PODS}/b")).await.ok();
    assert!(kept["metadata"].get("deletionTimestamp").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_that_is_not_counted_yet_lets_nothing_go() {
    let server = TestServer::start().await;
    let client = &server.admin;
    running(client, "a").await;
    budget(client, json!({"disruptionsAllowed": 1})).await;
    let answer = evict(client, "a").await;
    assert_eq!(answer.refused().0, 429);
    assert_eq!(answer.headers["retry-after"], "10");
    // What does not run disrupts nothing.
    let mut waiting = pod("waiting");
    waiting["metadata"]["labels"] = json!({"app": "web"});
    client.post(PODS, &waiting).await.ok();
    evict(client, "waiting").await.ok();
    assert_eq!(client.get(&format!("{PODS}/waiting")).await.code, 404);
}
