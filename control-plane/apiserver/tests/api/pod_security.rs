//! What namespaces forbid pods to be, and what they warn of.

use serde_json::{Value, json};

use crate::harness::{Answer, DEPLOYMENTS, PATIENCE, PODS, TestServer, deployment, pod};

#[tokio::test]
async fn pods_that_their_namespace_forbids_are_refused_with_every_reason() {
    let server = TestServer::start().await;
    let admin = &server.admin;
    let label = |level: &str| json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": level}}});
    let namespace = "/api/v1/namespaces/default";
    let mut bad = pod("bad");
    bad["spec"]["hostNetwork"] = json!(true);
    bad["spec"]["containers"][0]["securityContext"] = json!({"privileged": true});
    bad["spec"]["containers"][0]["ports"] = json!([]);
    admin
        .patch(namespace, "merge-patch", &label("baseline"))
        .await
        .ok();
    let (code, reason, message) = admin.post(PODS, &bad).await.refused();
    assert_eq!((code, reason.as_str()), (403, "Forbidden"));
    assert_eq!(
        message,
        "pods \"bad\" is forbidden: violates PodSecurity \"baseline:latest\": host namespaces (hostNetwork=true), privileged (container \"web\" must not set securityContext.privileged=true)"
    );
    admin.post(PODS, &pod("plain")).await.ok();
    admin
        .patch(namespace, "merge-patch", &label("restricted"))
        .await
        .ok();
    let (_, _, message) = admin.post(PODS, &pod("loose")).await.refused();
    assert!(message.contains("runAsNonRoot != true"), "{message}");
    admin
        .patch(namespace, "merge-patch", &label("privileged"))
        .await
        .ok();
    admin.post(PODS, &bad).await.ok();
}

#[tokio::test]
async fn what_a_running_pod_gets_later_obeys_its_namespace_too() {
    let server = TestServer::start().await;
    let admin = &server.admin;
    admin.post(PODS, &pod("p")).await.ok();
    let labels = |level: &str| json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": level}}});
    let namespace = "/api/v1/namespaces/default";
    admin
        .patch(namespace, "merge-patch", &labels("baseline"))
        .await
        .ok();
    let debug = |name: &str, privileged: bool| {
        json!({"spec": {"ephemeralContainers": [{"name": name, "image": "busybox",
            "securityContext": {"privileged": privileged}}]}})
    };
    let parts = format!("{PODS}/p/ephemeralcontainers");
    let patch = debug("bad", true);
    let refused = admin.patch(&parts, "strategic-merge-patch", &patch).await;
    assert_eq!(
        refused.refused(),
        (
            403,
            "Forbidden".into(),
            "pods \"p\" is forbidden: violates PodSecurity \"baseline:latest\": privileged (container \"bad\" must not set securityContext.privileged=true)".into()
        )
    );
    let patch = debug("good", false);
    let added = admin.patch(&parts, "strategic-merge-patch", &patch).await;
    assert_eq!(added.ok()["spec"]["ephemeralContainers"][0]["name"], "good");
    admin
        .patch(namespace, "merge-patch", &labels("restricted"))
        .await
        .ok();
    let path = format!("{PODS}/p");
    let image = json!({"spec": {"containers": [{"name": "web", "image": "nginx:2"}]}});
    let refused = admin.patch(&path, "strategic-merge-patch", &image).await;
    let (code, _, message) = refused.refused();
    assert_eq!(code, 403);
    assert!(message.contains("\"restricted:latest\""), "{message}");
    // What says nothing of its security goes on.
    let label = json!({"metadata": {"labels": {"x": "y"}}});
    admin.patch(&path, "merge-patch", &label).await.ok();
    let running = json!({"status": {"phase": "Running"}});
    let status = format!("{path}/status");
    admin.patch(&status, "merge-patch", &running).await.ok();
}

fn warnings(answer: &Answer) -> Vec<String> {
    let all = answer.headers.get_all("warning").iter();
    all.map(|one| one.to_str().unwrap().to_string()).collect()
}

#[tokio::test]
async fn namespaces_warn_of_pods_and_templates_that_they_would_forbid() {
    let server = TestServer::start().await;
    let admin = &server.admin;
    let namespace = "/api/v1/namespaces/default";
    let labels = |labels: Value| json!({"metadata": {"labels": labels}});
    let wrong = labels(json!({"pod-security.kubernetes.io/enforce": "strict",
        "pod-security.kubernetes.io/audit-version": "1.30"}));
    let refused = admin.patch(namespace, "merge-patch", &wrong).await;
    let (code, reason, message) = refused.refused();
    assert_eq!((code, reason.as_str()), (422, "Invalid"));
    assert_eq!(
        message,
        "Namespace \"default\" is invalid: [metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: \"strict\": must be one of privileged, baseline, restricted, metadata.labels[pod-security.kubernetes.io/audit-version]: Invalid value: \"1.30\": must be \"latest\" or \"v1.x\"]"
    );
    let new = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n",
        "labels": {"pod-security.kubernetes.io/warn": "x"}}});
    assert_eq!(admin.post("/api/v1/namespaces", &new).await.code, 422);
    let host = |name: &str| {
        let mut object = pod(name);
        object["spec"]["hostNetwork"] = json!(true);
        object["spec"]["containers"][0]["ports"] = json!([]);
        object
    };
    let warn = labels(json!({"pod-security.kubernetes.io/warn": "baseline",
        "pod-security.kubernetes.io/warn-version": "v1.30"}));
    admin.patch(namespace, "merge-patch", &warn).await.ok();
    let quiet = admin.post(PODS, &pod("quiet")).await;
    assert!(warnings(&quiet).is_empty(), "{:?}", warnings(&quiet));
    let words = "299 - \"would violate PodSecurity \\\"baseline:v1.30\\\": host namespaces (hostNetwork=true)\"";
    for name in ["a", "b"] {
        let made = admin.post(PODS, &host(name)).await;
        made.ok();
        assert_eq!(warnings(&made), [words]);
    }
    let mut template = deployment("d");
    template["spec"]["template"]["spec"]["hostNetwork"] = json!(true);
    let made = admin.post(DEPLOYMENTS, &template).await;
    made.ok();
    assert_eq!(warnings(&made), [words]);
    let started = std::time::Instant::now();
    while admin.get(&format!("{PODS}?resourceVersion=0")).await.ok()["items"]
        .as_array()
        .unwrap()
        .len()
        < 3
    {
        assert!(started.elapsed() < PATIENCE);
    }
    let enforce = labels(json!({"pod-security.kubernetes.io/enforce": "baseline"}));
    let changed = admin.patch(namespace, "merge-patch", &enforce).await;
    changed.ok();
    assert_eq!(
        warnings(&changed),
        [
            "299 - \"existing pods in namespace \\\"default\\\" violate the new PodSecurity enforce level \\\"baseline:latest\\\"\"",
            "299 - \"a (and 1 other pod): host namespaces\"",
        ]
    );
    // Said once: the level is no stricter than before.
    let again = admin.patch(namespace, "merge-patch", &enforce).await;
    assert!(warnings(&again).is_empty());
    let mut probing = pod("probing");
    probing["spec"]["containers"][0]["livenessProbe"] =
        json!({"httpGet": {"port": 80, "host": "169.254.169.254"}});
    let (code, _, message) = admin.post(PODS, &probing).await.refused();
    assert_eq!(code, 403);
    assert!(
        message.contains("probe or lifecycle host \"169.254.169.254\""),
        "{message}"
    );
    let older = labels(json!({"pod-security.kubernetes.io/enforce-version": "v1.33"}));
    admin.patch(namespace, "merge-patch", &older).await.ok();
    admin.post(PODS, &probing).await.ok();
}
