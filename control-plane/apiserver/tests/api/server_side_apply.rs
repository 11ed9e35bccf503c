//! Server-side apply and the owners of fields, over TLS and with a stock kubectl.

use http::Method;
use serde_json::{Value, json};

use crate::{
    harness::{Answer, ApiClient, CONFIG_MAPS, DEPLOYMENTS, TestServer, config_map, deployment},
    kubectl::Kubectl,
};

async fn apply(client: &ApiClient, path: &str, config: &Value) -> Answer {
    client
        .send(
            Method::PATCH,
            path,
            &[("content-type", "application/apply-patch+yaml")],
            config.to_string(),
        )
        .await
}

fn managers(object: &Value) -> Vec<(String, String, String)> {
    object["metadata"]["managedFields"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|entry| {
            let text = |key: &str| entry[key].as_str().unwrap_or("").to_string();
            (text("manager"), text("operation"), text("subresource"))
        })
        .collect()
}

fn entry(manager: &str, operation: &str, subresource: &str) -> (String, String, String) {
    (manager.into(), operation.into(), subresource.into())
}

#[tokio::test]
async fn apply_creates_changes_and_removes() {
    let server = TestServer::start().await;
    let client = &server.admin;
    let path = format!("{CONFIG_MAPS}/a?fieldManager=m");
    let mut config = config_map("a");
    let created = apply(client, &path, &config).await;
    assert_eq!(created.code, 201, "{}", created.text);
    let created = created.ok();
    assert_eq!(managers(&created), [entry("m", "Apply", "")]);
    assert_eq!(
        created["metadata"]["managedFields"][0]["fieldsV1"],
        json!({"f:data": {"f:a": {}}})
    );
    let again = apply(client, &path, &config).await;
    assert_eq!(again.code, 200);
    assert_eq!(again.ok(), created, "the same again writes nothing");
    config["data"] = json!({"b": "2"});
    let changed = apply(client, &path, &config).await.ok();
    assert_eq!(changed["data"], json!({"b": "2"}));
    let dry = apply(
        client,
        &format!("{path}&dryRun=All"),
        &json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"c": "3"}}),
    )
    .await
    .ok();
    assert_eq!(dry["data"], json!({"c": "3"}));
    let stored = client.get(&format!("{CONFIG_MAPS}/a")).await.ok();
    assert_eq!(stored["data"], json!({"b": "2"}));
}

#[tokio::test]
async fn a_conflict_is_409_with_a_cause_per_field_and_force_wins() {
    let server = TestServer::start().await;
    let client = &server.admin;
    client
        .post(
            &format!("{DEPLOYMENTS}?fieldManager=first"),
            &deployment("d"),
        )
        .await
        .ok();
    let config = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"},
        "spec": {"replicas": 7}});
    let path = format!("{DEPLOYMENTS}/d?fieldManager=second");
    let conflict = apply(client, &path, &config).await;
    assert_eq!(
        conflict.refused(),
        (
            409,
            "Conflict".into(),
            "Apply failed with 1 conflict: conflict with \"first\" using apps/v1: .spec.replicas"
                .into()
        )
    );
    assert_eq!(
        conflict.json()["details"]["causes"],
        json!([{"reason": "FieldManagerConflict", "message": "conflict with \"first\" using apps/v1",
            "field": ".spec.replicas"}])
    );
    let forced = apply(client, &format!("{path}&force=true"), &config)
        .await
        .ok();
    assert_eq!(forced["spec"]["replicas"], 7);
    assert_eq!(
        managers(&forced),
        [entry("second", "Apply", ""), entry("first", "Update", "")]
    );
}

#[tokio::test]
async fn writes_of_every_kind_are_owned() {
    let server = TestServer::start().await;
    let client = &server.admin;
    let agent = |name: &'static str| [("content-type", "application/json"), ("user-agent", name)];
    client
        .send(
            Method::POST,
            DEPLOYMENTS,
            &agent("maker/v1.0 (linux)"),
            deployment("d").to_string(),
        )
        .await
        .ok();
    let path = format!("{DEPLOYMENTS}/d");
    client
        .patch(
            &format!("{path}?fieldManager=patcher"),
            "merge-patch",
            &json!({"metadata": {"labels": {"a": "b"}}}),
        )
        .await
        .ok();
    client
        .patch(
            &format!("{path}/status?fieldManager=watcher"),
            "merge-patch",
            &json!({"status": {"replicas": 2}, "spec": {"replicas": 99}}),
        )
        .await
        .ok();
    client
        .patch(
            &format!("{path}/scale?fieldManager=scaler"),
            "merge-patch",
            &json!({"spec": {"replicas": 4}}),
        )
        .await
        .ok();
    let mut found = managers(&client.get(&path).await.ok());
    found.sort();
    assert_eq!(
        found,
        [
            entry("maker", "Update", ""),
            entry("patcher", "Update", ""),
            entry("scaler", "Update", "scale"),
            entry("watcher", "Update", "status"),
        ]
    );
    let scale = json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "d"},
        "spec": {"replicas": 5}});
    let refused = apply(client, &format!("{path}/scale?fieldManager=hpa"), &scale).await;
    assert_eq!(
        refused.refused().2,
        "Apply failed with 1 conflict: conflict with \"scaler\" with subresource \"scale\" using apps/v1: .spec.replicas"
    );
    let forced = apply(
        client,
        &format!("{path}/scale?fieldManager=hpa&force=true"),
        &scale,
    )
    .await
    .ok();
    assert_eq!(forced["spec"]["replicas"], 5);
    let status = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"},
        "status": {"readyReplicas": 1}});
    let applied = apply(client, &format!("{path}/status?fieldManager=s"), &status)
        .await
        .ok();
    assert_eq!(applied["status"]["readyReplicas"], 1);
    assert_eq!(applied["spec"]["replicas"], 5);
    assert!(managers(&applied).contains(&entry("s", "Apply", "status")));
}

#[tokio::test]
async fn wrong_configurations_are_refused_in_kubernetes_words() {
    let server = TestServer::start().await;
    let client = &server.admin;
    let path = format!("{DEPLOYMENTS}/d");
    let named = format!("{path}?fieldManager=m");
    let base = deployment("d");
    let with = |pointer: &[&str], value: Value| {
        let mut object = base.clone();
        let mut here = &mut object;
        for key in pointer {
            here = &mut here[*key];
        }
        *here = value;
        object
    };
    let container = json!({"name": "a", "image": "i"});
    for (path, config, code, words) in [
        (
            &path,
            base.clone(),
            422,
            "fieldManager: Required value: is required for apply patch",
        ),
        (
            &named,
            with(&["kind"], json!("Pod")),
            400,
            "incorrect version specified in apply patch",
        ),
        (&named, json!({}), 400, "invalid object type: , Kind="),
        (&named, json!([]), 400, "not an object"),
        (
            &named,
            with(&["spec", "nope"], json!(1)),
            400,
            "failed to create typed patch object (default/d; apps/v1, Kind=Deployment): .spec.nope: field not declared in schema",
        ),
        (
            &named,
            with(
                &["spec", "template", "spec", "containers"],
                json!([container, container]),
            ),
            400,
            ".spec.template.spec.containers: duplicate entries for key [name=\"a\"]",
        ),
        (
            &named,
            with(&["metadata", "managedFields"], json!([{}])),
            400,
            "metadata.managedFields must be nil",
        ),
        (
            &named,
            with(&["metadata", "name"], json!("e")),
            400,
            "does not match the name on the URL",
        ),
        (
            &named,
            with(&["spec", "replicas"], json!(-1)),
            422,
            "spec.replicas: Invalid value: -1",
        ),
        (
            &named,
            with(&["metadata", "uid"], json!("u")),
            409,
            "uid mismatch",
        ),
    ] {
        let mut config = config;
        if words.contains("failed to create") {
            config["metadata"]["namespace"] = json!("default");
        }
        let (got, _, message) = apply(client, path, &config).await.refused();
        assert_eq!(got, code, "{message}");
        assert!(message.contains(words), "{message}");
    }
    let deep = format!("{}1{}", "[".repeat(5000), "]".repeat(5000));
    let answer = client
        .send(
            Method::PATCH,
            &named,
            &[("content-type", "application/apply-patch+yaml")],
            deep,
        )
        .await;
    assert_eq!(answer.code, 400, "{}", answer.text);
    client.post(CONFIG_MAPS, &config_map("a")).await.ok();
    let forced = client
        .patch(
            &format!("{CONFIG_MAPS}/a?force=true"),
            "merge-patch",
            &json!({}),
        )
        .await;
    assert!(
        forced
            .refused()
            .2
            .contains("may not be specified for non-apply patch")
    );
}

const MANIFEST: &str = "apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: web, image: nginx, ports: [{containerPort: 80}]}
";

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_applies_on_the_server_and_shows_owners() {
    let server = TestServer::start().await;
    let kubectl = Kubectl::of(&server);
    let apply = ["apply", "--server-side", "-f", "-"];
    assert_eq!(
        kubectl.ok_with(&apply, MANIFEST).await,
        "deployment.apps/web serverside-applied\n"
    );
    kubectl
        .ok(&["scale", "deployment", "web", "--replicas=5"])
        .await;
    let complaint = kubectl.refused(&apply, MANIFEST).await;
    assert!(
        complaint.contains("Apply failed with 1 conflict: conflict with \"kubectl\" with subresource \"scale\" using apps/v1: .spec.replicas"),
        "{complaint}"
    );
    let forced = ["apply", "--server-side", "--force-conflicts", "-f", "-"];
    kubectl.ok_with(&forced, MANIFEST).await;
    let shown = kubectl
        .ok(&[
            "get",
            "deployment",
            "web",
            "--show-managed-fields",
            "-o",
            "yaml",
        ])
        .await;
    assert!(shown.contains("k:{\"name\":\"web\"}"), "{shown}");
    assert!(shown.contains("replicas: 2"), "{shown}");
    // From client-side apply to server-side apply, as kubectl migrates it.
    let other = MANIFEST.replace("name: web", "name: old");
    kubectl.ok_with(&["apply", "-f", "-"], &other).await;
    let changed = other.replace("replicas: 2", "replicas: 3");
    kubectl.ok_with(&apply, &changed).await;
    let shown = kubectl
        .ok(&[
            "get",
            "deployment",
            "old",
            "--show-managed-fields",
            "-o",
            "json",
        ])
        .await;
    let object: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(object["spec"]["replicas"], 3);
    // kubectl keeps its annotation under a manager of its own.
    assert_eq!(
        managers(&object),
        [
            entry("kubectl", "Apply", ""),
            entry("kubectl-last-applied", "Apply", "")
        ]
    );
    let dry = kubectl
        .ok_with(
            &["apply", "--server-side", "--dry-run=server", "-f", "-"],
            &changed.replace("replicas: 3", "replicas: 8"),
        )
        .await;
    assert_eq!(
        dry,
        "deployment.apps/old serverside-applied (server dry run)\n"
    );
    let diff = kubectl
        .run_with(
            &["diff", "--server-side", "-f", "-"],
            &changed.replace("replicas: 3", "replicas: 8"),
        )
        .await;
    assert!(
        diff.stdout.contains("+  replicas: 8"),
        "{}{}",
        diff.stdout,
        diff.stderr
    );
}
