//! The commands of a stock kubectl that change what is there.

use serde_json::{Value, json};

use crate::{
    certificates,
    harness::{DEPLOYMENTS, TestServer, config_map},
    kubectl::{DEPLOYMENT, Kubectl},
};

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
const REPLICA_SETS: &str = "/apis/apps/v1/namespaces/default/replicasets";
const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";

/// Runs commands that must succeed, each with the output it must have.
async fn script(kubectl: &Kubectl, steps: &[(&str, &str)]) {
    for (command, answer) in steps {
        let arguments: Vec<&str> = command.split(' ').collect();
        let output = kubectl.ok(&arguments).await;
        assert_eq!(output.trim_end(), *answer, "kubectl {command}");
    }
}

async fn with_deployment() -> (TestServer, Kubectl) {
    let server = TestServer::start().await;
    let kubectl = Kubectl::of(&server);
    kubectl.ok_with(&["create", "-f", "-"], DEPLOYMENT).await;
    (server, kubectl)
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_edits_labels_annotates_and_diffs() {
    let server = TestServer::start().await;
    let kubectl = Kubectl::of(&server);
    let mut object = config_map("c");
    object["data"] = json!({"color": "red"});
    server.admin.post(CONFIG_MAPS, &object).await.ok();
    let edited = kubectl.edit("s/red/blue/", &["configmap", "c"]).await;
    assert_eq!(edited.stdout, "configmap/c edited\n", "{}", edited.stderr);
    let same = kubectl.edit("s/red/blue/", &["configmap", "c"]).await;
    assert_eq!(same.stderr, "Edit cancelled, no changes made.\n");
    let stored = server.admin.get(&format!("{CONFIG_MAPS}/c")).await.ok();
    assert_eq!(stored["data"]["color"], "blue");
    script(
        &kubectl,
        &[
            ("label cm c tier=front", "configmap/c labeled"),
            ("label cm c tier=back --overwrite", "configmap/c labeled"),
            ("label cm c tier-", "configmap/c unlabeled"),
            ("annotate cm c note=x", "configmap/c annotated"),
            ("annotate cm c note-", "configmap/c annotated"),
        ],
    )
    .await;
    let stored = server.admin.get(&format!("{CONFIG_MAPS}/c")).await.ok();
    for map in ["labels", "annotations"] {
        assert_eq!(stored["metadata"].get(map), None, "{stored}");
    }
    let manifest = "{apiVersion: v1, kind: ConfigMap, metadata: {name: c}, data: {color: green}}";
    let diff = kubectl.run_with(&["diff", "-f", "-"], manifest).await;
    assert!(!diff.success, "{}", diff.stdout);
    for line in ["-  color: blue", "+  color: green"] {
        assert!(diff.stdout.contains(line), "{}{}", diff.stdout, diff.stderr);
    }
    let stored = server.admin.get(&format!("{CONFIG_MAPS}/c")).await.ok();
    assert_eq!(stored["data"]["color"], "blue");
    let manifest = manifest.replace("green", "blue");
    kubectl.ok_with(&["diff", "-f", "-"], &manifest).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_sets_parts_of_a_template() {
    let (server, kubectl) = with_deployment().await;
    script(
        &kubectl,
        &[
            (
                "set image deployment/web nginx=nginx:3",
                "deployment.apps/web image updated",
            ),
            (
                "set env deployment/web A=1 B=2",
                "deployment.apps/web env updated",
            ),
            (
                "set env deployment/web B-",
                "deployment.apps/web env updated",
            ),
            (
                "set env deployment/web --list",
                "# Deployment web, container nginx\nA=1",
            ),
            (
                "set resources deployment web --limits=cpu=1,memory=1Gi --requests=cpu=500m",
                "deployment.apps/web resource requirements updated",
            ),
            (
                "set serviceaccount deployment web robot",
                "deployment.apps/web serviceaccount updated",
            ),
            (
                "expose deployment web --port=80 --target-port=8080",
                "service/web exposed",
            ),
            (
                "set selector service web tier=front",
                "service/web selector updated",
            ),
            (
                "autoscale deployment web --min=2 --max=5 --cpu=80%",
                "horizontalpodautoscaler.autoscaling/web autoscaled",
            ),
        ],
    )
    .await;
    let stored = server.admin.get(&format!("{DEPLOYMENTS}/web")).await.ok();
    let spec = &stored["spec"]["template"]["spec"];
    assert_eq!(spec["serviceAccountName"], "robot");
    let container = &spec["containers"][0];
    assert_eq!(container["image"], "nginx:3");
    assert_eq!(container["env"], json!([{"name": "A", "value": "1"}]));
    assert_eq!(
        container["resources"],
        json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}})
    );
    let scaler = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers/web";
    let scaler = server.admin.get(scaler).await.ok();
    assert_eq!(scaler["spec"]["minReplicas"], 2);
    assert_eq!(
        scaler["spec"]["metrics"][0]["resource"],
        json!({"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}})
    );
}

/// What the controller keeps of an earlier template.
fn revision(deployment: &Value, number: u32, image: &str) -> Value {
    let mut template = deployment["spec"]["template"].clone();
    let hash = format!("h{number}");
    template["metadata"]["labels"]["pod-template-hash"] = json!(hash);
    template["spec"]["containers"][0]["image"] = json!(image);
    let labels = json!({"app": "web", "pod-template-hash": hash});
    json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {
            "name": format!("web-{hash}"), "labels": labels,
            "annotations": {"deployment.kubernetes.io/revision": number.to_string()},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "Deployment", "name": "web",
                "uid": deployment["metadata"]["uid"], "controller": true}]},
        "spec": {"replicas": 0, "selector": {"matchLabels": labels}, "template": template}})
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_rolls_back_restarts_and_pauses() {
    let (server, kubectl) = with_deployment().await;
    let path = format!("{DEPLOYMENTS}/web");
    let deployment = server.admin.get(&path).await.ok();
    // As the controller leaves it.
    let annotations = json!({"deployment.kubernetes.io/revision": "2"});
    let current = json!({"metadata": {"annotations": annotations}});
    server
        .admin
        .patch(&path, "merge-patch", &current)
        .await
        .ok();
    for (number, image) in [(1, "nginx:1"), (2, "nginx")] {
        let set = revision(&deployment, number, image);
        server.admin.post(REPLICA_SETS, &set).await.ok();
    }
    let history = kubectl.ok(&["rollout", "history", "deployment/web"]).await;
    let lines: Vec<String> = history
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    assert_eq!(
        lines[..4],
        [
            "deployment.apps/web",
            "REVISION CHANGE-CAUSE",
            "1 <none>",
            "2 <none>"
        ]
    );
    let first = kubectl
        .ok(&["rollout", "history", "deployment/web", "--revision=1"])
        .await;
    assert!(first.contains("nginx:1"), "{first}");
    script(
        &kubectl,
        &[
            (
                "rollout undo deployment/web --to-revision=1",
                "deployment.apps/web rolled back",
            ),
            (
                "rollout restart deployment/web",
                "deployment.apps/web restarted",
            ),
            ("rollout pause deployment/web", "deployment.apps/web paused"),
            (
                "rollout resume deployment/web",
                "deployment.apps/web resumed",
            ),
        ],
    )
    .await;
    let stored = server.admin.get(&path).await.ok();
    let template = &stored["spec"]["template"];
    assert_eq!(template["spec"]["containers"][0]["image"], "nginx:1");
    let restarted = "kubectl.kubernetes.io/restartedAt";
    assert!(template["metadata"]["annotations"][restarted].is_string());
    assert_eq!(stored["spec"].get("paused"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_deletes_with_and_without_dependents() {
    let server = TestServer::start().await;
    let kubectl = Kubectl::of(&server);
    for (cascade, finalizers) in [
        ("background", None),
        ("foreground", Some(json!(["foregroundDeletion"]))),
        ("orphan", Some(json!(["orphan"]))),
    ] {
        let manifest = DEPLOYMENT.replace("{name: web,", &format!("{{name: {cascade},"));
        kubectl.ok_with(&["create", "-f", "-"], &manifest).await;
        let option = format!("--cascade={cascade}");
        let arguments = ["delete", "deployment", cascade, &option, "--wait=false"];
        let told = kubectl.ok(&arguments).await;
        let expected = format!("deployment.apps \"{cascade}\" deleted");
        assert!(told.starts_with(&expected), "{told}");
        let left = server.admin.get(&format!("{DEPLOYMENTS}/{cascade}")).await;
        match finalizers {
            None => assert_eq!(left.code, 404),
            Some(finalizers) => {
                let left = left.ok();
                assert_eq!(left["metadata"]["finalizers"], finalizers);
                assert!(left["metadata"]["deletionTimestamp"].is_string());
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_taints_cordons_and_decides_requests_for_certificates() {
    let server = TestServer::start().await;
    let kubectl = Kubectl::of(&server);
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}});
    server.admin.post("/api/v1/nodes", &node).await.ok();
    for name in ["good", "bad"] {
        let request = json!({"apiVersion": "certificates.k8s.io/v1",
            "kind": "CertificateSigningRequest", "metadata": {"name": name},
            "spec": {"signerName": "example.com/signer", "usages": ["client auth"],
            "request": certificates::encoded_request("x")}});
        server.admin.post(REQUESTS, &request).await.ok();
    }
    let csr = "certificatesigningrequest.certificates.k8s.io";
    let steps = [
        ("taint nodes n k=v:NoSchedule", "node/n tainted".to_string()),
        ("cordon n", "node/n cordoned".into()),
        ("cordon n", "node/n already cordoned".into()),
        (
            "get node n -o jsonpath={.spec.taints[0]}{.spec.unschedulable}",
            "{\"effect\":\"NoSchedule\",\"key\":\"k\",\"value\":\"v\"}true".into(),
        ),
        ("taint nodes n k-", "node/n untainted".into()),
        ("uncordon n", "node/n uncordoned".into()),
        ("get node n -o jsonpath={.spec}", "{}".into()),
        ("certificate approve good", format!("{csr}/good approved")),
        ("certificate deny bad", format!("{csr}/bad denied")),
        (
            "get csr good bad -o jsonpath={.items[*].status.conditions[0].type}",
            "Approved Denied".into(),
        ),
    ];
    let steps: Vec<(&str, &str)> = steps.iter().map(|(c, a)| (*c, a.as_str())).collect();
    script(&kubectl, &steps).await;
    let both = kubectl.refused(&["certificate", "deny", "good"], "").await;
    assert!(both.contains("is already Approved"), "{both}");
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_config_and_raw_requests() {
    let server = TestServer::start().await;
    let kubectl = Kubectl::of(&server);
    kubectl.ok(&["create", "namespace", "shop"]).await;
    let context = kubectl.ok(&["config", "current-context"]).await;
    script(
        &kubectl,
        &[
            (
                "config set-context --current --namespace=shop",
                &format!("Context \"{}\" modified.", context.trim()),
            ),
            ("config view --minify -o jsonpath={..namespace}", "shop"),
            ("create configmap c", "configmap/c created"),
            ("get cm c -o jsonpath={.metadata.namespace}", "shop"),
        ],
    )
    .await;
    let raw = kubectl
        .ok(&["get", "--raw", "/api/v1/namespaces/shop"])
        .await;
    let raw: Value = serde_json::from_str(&raw).unwrap();
    assert_eq!(raw["metadata"]["name"], "shop");
    let components = kubectl.run_with(&["get", "cs"], "").await;
    assert!(
        components
            .stderr
            .contains("Warning: v1 ComponentStatus is deprecated in v1.19+"),
        "{}",
        components.stderr
    );
    let mut lines = components.stdout.lines();
    let words = |line: Option<&str>| -> Vec<String> {
        line.unwrap().split_whitespace().map(String::from).collect()
    };
    assert_eq!(words(lines.next()), ["NAME", "STATUS", "MESSAGE", "ERROR"]);
    assert_eq!(words(lines.next_back()), ["etcd-0", "Healthy", "ok"]);
}
