//! What clients are told about objects that are valid.

use serde_json::{Value, json};

use crate::harness::{Answer, DEPLOYMENTS, PODS, TestServer, deployment, pod};

fn warnings(answer: &Answer) -> Vec<String> {
    let all = answer.headers.get_all("warning").iter();
    all.map(|one| one.to_str().unwrap().to_string()).collect()
}

fn twice() -> Value {
    json!([{"name": "A", "value": "1"}, {"name": "A", "value": "2"}])
}

#[tokio::test]
async fn doubtful_objects_are_taken_with_a_warning() {
    let server = TestServer::start().await;
    let admin = &server.admin;
    let plain = admin.post(PODS, &pod("plain")).await;
    plain.ok();
    assert!(warnings(&plain).is_empty(), "{:?}", warnings(&plain));

    let mut doubtful = pod("doubtful");
    doubtful["spec"]["containers"][0]["env"] = twice();
    doubtful["spec"]["nodeSelector"] = json!({"beta.kubernetes.io/os": "linux"});
    let words = [
        "299 - \"spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use \\\"kubernetes.io/os\\\" instead\"",
        "299 - \"spec.containers[0].env[1]: hides previous definition of \\\"A\\\", which may be dropped when using apply\"",
    ];
    let tried = admin.post(&format!("{PODS}?dryRun=All"), &doubtful).await;
    tried.ok();
    assert_eq!(warnings(&tried), words);
    let made = admin.post(PODS, &doubtful).await;
    made.ok();
    assert_eq!(warnings(&made), words);
    let label = json!({"metadata": {"labels": {"x": "y"}}});
    let path = format!("{PODS}/doubtful");
    let changed = admin.patch(&path, "merge-patch", &label).await;
    changed.ok();
    assert!(warnings(&changed).is_empty(), "said once");
}

#[tokio::test]
async fn templates_are_warned_of_when_they_change() {
    let server = TestServer::start().await;
    let admin = &server.admin;
    let made = admin.post(DEPLOYMENTS, &deployment("d")).await;
    made.ok();
    assert!(warnings(&made).is_empty());
    let mut object = deployment("d");
    object["spec"]["template"]["spec"]["containers"][0]["env"] = twice();
    let path = format!("{DEPLOYMENTS}/d");
    let changed = admin.put(&path, &object).await;
    changed.ok();
    let words = "299 - \"spec.template.spec.containers[0].env[1]: hides previous definition of \\\"A\\\", which may be dropped when using apply\"";
    assert_eq!(warnings(&changed), [words]);
    let label = json!({"metadata": {"labels": {"x": "y"}}});
    let again = admin.patch(&path, "merge-patch", &label).await;
    again.ok();
    assert!(warnings(&again).is_empty());
    // By way of `kubectl apply --server-side`.
    let applied = json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "d"}, "spec": {"template": {"spec": {
            "terminationGracePeriodSeconds": -1}}}});
    let path = format!("{path}?fieldManager=test&force=true");
    let media = [("content-type", "application/apply-patch+yaml")];
    let applied = admin
        .send(http::Method::PATCH, &path, &media, applied.to_string())
        .await;
    applied.ok();
    let told = warnings(&applied);
    assert!(
        told.iter().any(|one| one.contains("must be >= 0")),
        "{told:?}"
    );
}
