//! What a stock kubectl does only with controllers beside the server: deletion in each order of
//! owners and dependents, and emptying a node within a disruption budget. Nodes run nothing
//! (`hull fake-nodes`). `HULL_KUBECTL`, or `kubectl` on the PATH.

use serde_json::Value;

use super::*;

struct Kubectl<'a>(&'a Setup);

impl Kubectl<'_> {
    fn run(&self, arguments: &[&str]) -> Output {
        let program = std::env::var_os("HULL_KUBECTL").unwrap_or_else(|| "kubectl".into());
        let output = Command::new(program)
            .args(arguments)
            .env("KUBECONFIG", self.0.path("home/kubeconfig"))
            .env("HOME", self.0.path("home"))
            .stdin(Stdio::null())
            .output();
        output.expect("no kubectl: scripts/deps.sh fetches one; PATH or HULL_KUBECTL leads to it")
    }

    /// With a file of this content.
    fn applied(&self, verb: &str, content: &str) -> String {
        let file = self.0.path("manifest");
        std::fs::write(&file, content).unwrap();
        self.done(&[verb, "-f", file.to_str().unwrap()])
    }

    fn field(&self, object: &str, path: &str) -> String {
        self.done(&["get", object, "-o", &format!("jsonpath={{{path}}}")])
    }

    /// What it says of it has all these words.
    fn describes(&self, object: &[&str], words: &[&str]) {
        let described = self.done(&[&["describe"], object].concat());
        // However wide its columns are.
        let squeezed = described.split_whitespace().collect::<Vec<_>>().join(" ");
        for word in words {
            assert!(squeezed.contains(word), "no {word:?} in {described}");
        }
    }

    fn done(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", text(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn items(&self, arguments: &[&str]) -> Vec<Value> {
        let printed = self.done(&[&["get", "-o", "json"], arguments].concat());
        let list: Value = serde_json::from_str(&printed).unwrap();
        list["items"].as_array().unwrap().clone()
    }

    fn uids(&self, arguments: &[&str]) -> Vec<String> {
        let items = self.items(arguments);
        let uid = |item: &Value| item["metadata"]["uid"].as_str().unwrap().to_owned();
        let mut uids: Vec<String> = items.iter().map(uid).collect();
        uids.sort();
        uids
    }

    /// A deployment of this many pods, all available.
    fn deployment(&self, replicas: &str) {
        self.done(&[
            "create",
            "deployment",
            "web",
            "--image=i",
            "--replicas",
            replicas,
        ]);
        self.done(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    }

    /// Returns when nothing of it is there.
    fn gone(&self, resource: &str) {
        let timeout = ["--for=delete", "-l", "app=web", "--timeout=60s"];
        let output = self.run(&[&["wait", resource][..], &timeout].concat());
        let text = text(&output);
        assert!(
            output.status.success() || text.contains("no matching resources"),
            "{text}"
        );
        assert!(self.uids(&[resource, "-l", "app=web"]).is_empty());
    }
}

/// A control plane with two nodes.
async fn cluster(setup: &Setup) -> [Running; 2] {
    let server = setup.server("embedded");
    setup.client().await;
    let mut nodes = hull();
    nodes
        .args(["fake-nodes", "2", "--kubeconfig"])
        .arg(setup.path("home/kubeconfig"));
    [
        server,
        Running(nodes.stdout(Stdio::null()).spawn().unwrap()),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_deletes_with_every_cascade() {
    let setup = Setup::new();
    let _cluster = cluster(&setup).await;
    let kubectl = Kubectl(&setup);
    kubectl.deployment("2");
    let left = [&["replicasets"][..], &["pods"]].map(|kind| kubectl.uids(kind));
    assert_eq!((left[0].len(), left[1].len()), (1, 2));

    kubectl.done(&["delete", "deployment", "web", "--cascade=orphan"]);
    let orphans = kubectl.items(&["replicasets"]);
    assert!(orphans[0]["metadata"].get("ownerReferences").is_none());
    // Whose selector fits takes them over as they are.
    kubectl.deployment("2");
    assert_eq!(
        [&["replicasets"][..], &["pods"]].map(|kind| kubectl.uids(kind)),
        left
    );
    assert!(kubectl.items(&["replicasets"])[0]["metadata"]["ownerReferences"].is_array());

    // The owner is the last to go: once kubectl has seen that, nothing is left.
    kubectl.done(&[
        "delete",
        "deployment",
        "web",
        "--cascade=foreground",
        "--timeout=60s",
    ]);
    for kind in ["replicasets", "pods"] {
        assert!(kubectl.uids(&[kind]).is_empty(), "{kind}");
    }

    kubectl.deployment("2");
    kubectl.done(&["delete", "deployment", "web", "--cascade=background"]);
    kubectl.gone("replicasets");
    kubectl.gone("pods");
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_drains_a_node_within_a_disruption_budget() {
    let setup = Setup::new();
    let _cluster = cluster(&setup).await;
    let kubectl = Kubectl(&setup);
    kubectl.deployment("4");
    let budget = ["create", "poddisruptionbudget", "web", "--selector=app=web"];
    kubectl.done(&[&budget[..], &["--min-available=3"]].concat());
    let node = "fake-00000";
    let of_node = format!("spec.nodeName={node}");
    let on_node = ["pods", "--field-selector", &of_node];
    assert!(!kubectl.uids(&on_node).is_empty(), "nothing to drain");

    let bare = format!("--overrides={{\"spec\": {{\"nodeName\": \"{node}\"}}}}");
    kubectl.done(&["run", "bare", "--image=i", &bare]);
    let refused = kubectl.run(&["drain", node]);
    assert!(!refused.status.success());
    let words = "declare no controller (use --force to override)";
    assert!(text(&refused).contains(words), "{}", text(&refused));
    // By then it takes no pods already.
    assert_eq!(kubectl.items(&["nodes"])[0]["spec"]["unschedulable"], true);

    let told = kubectl.run(&["drain", node, "--force", "--timeout=60s"]);
    assert!(told.status.success(), "{}", text(&told));
    assert!(
        text(&told).contains("node/fake-00000 drained"),
        "{}",
        text(&told)
    );
    assert!(kubectl.uids(&on_node).is_empty());
    kubectl.done(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    let pods = kubectl.items(&["pods", "-l", "app=web"]);
    let elsewhere = pods
        .iter()
        .filter(|pod| pod["spec"]["nodeName"] == "fake-00001");
    assert_eq!((pods.len(), elsewhere.count()), (4, 4));

    // A budget that lets nobody go holds a drain up until it gives up.
    kubectl.done(&["uncordon", node]);
    kubectl.done(&[
        "patch",
        "pdb",
        "web",
        "-p",
        "{\"spec\": {\"minAvailable\": 4}}",
    ]);
    let refused = kubectl.run(&["drain", "fake-00001", "--timeout=3s"]);
    assert!(!refused.status.success());
    let words = "Cannot evict pod as it would violate the pod's disruption budget.";
    assert!(text(&refused).contains(words), "{}", text(&refused));
    assert_eq!(kubectl.uids(&["pods", "-l", "app=web"]).len(), 4);
}

const CONTROLLER: &str = r#"
apiVersion: v1
kind: ReplicationController
metadata: {name: primary}
spec:
  replicas: 1
  selector: {app: store}
  template:
    metadata: {labels: {app: store}}
    spec:
      containers:
      - {name: c, image: "i:1", ports: [{name: server, containerPort: 6379}]}
"#;

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_describes_exposes_replaces_and_runs() {
    let setup = Setup::new();
    let _cluster = cluster(&setup).await;
    let kubectl = Kubectl(&setup);
    assert!(
        kubectl
            .done(&["api-versions"])
            .lines()
            .any(|line| line == "v1")
    );
    let info = kubectl.done(&["cluster-info"]);
    assert!(info.contains("Kubernetes control plane"), "{info}");

    kubectl.applied("create", CONTROLLER);
    let ready = "--for=jsonpath={.status.readyReplicas}=1";
    kubectl.done(&["wait", "rc/primary", ready, "--timeout=60s"]);
    let pod = kubectl.done(&["get", "pods", "-l", "app=store", "-o", "name"]);
    let pod = pod.trim();
    kubectl.describes(
        &[pod],
        &[
            "Node: fake-0000",
            "Labels: app=store",
            "Status: Running",
            "Controlled By: ReplicationController/primary",
            "Image: i:1",
            "State: Running",
            "QoS Class: BestEffort",
        ],
    );
    kubectl.describes(
        &["rc", "primary"],
        &[
            "Selector: app=store",
            "Replicas: 1 current / 1 desired",
            "Pods Status: 1 Running / 0 Waiting / 0 Succeeded / 0 Failed",
            "Pod Template:",
            "SuccessfulCreate",
        ],
    );
    let node = [
        "Name: fake-00000",
        "CreationTimestamp:",
        "Conditions:",
        "Capacity:",
        "Kubelet Version:",
    ];
    kubectl.describes(&["node", "fake-00000"], &node);
    kubectl.describes(
        &["namespace", "default"],
        &["Name: default", "Status: Active"],
    );

    let ports = ["--port=1234", "--target-port=6379"];
    kubectl.done(&[&["expose", "rc", "primary", "--name=first"], &ports[..]].concat());
    kubectl.done(&[&["expose", "service", "first", "--name=second"], &ports[..]].concat());
    for service in ["first", "second"] {
        let slice = format!("kubernetes.io/service-name={service}");
        let filled = "--for=jsonpath={.endpoints[0].conditions.ready}=true";
        // A slice has its endpoints when it is made.
        let begun = Instant::now();
        while !kubectl
            .run(&[
                "wait",
                "endpointslices",
                "-l",
                &slice,
                filled,
                "--timeout=1s",
            ])
            .status
            .success()
        {
            assert!(begun.elapsed() < DEADLINE, "no endpoints of {service}");
        }
        let slices = kubectl.items(&["endpointslices", "-l", &slice]);
        assert_eq!(slices[0]["ports"][0]["port"], 6379);
        kubectl.describes(
            &["service", service],
            &["Selector: app=store", "TargetPort: 6379/TCP"],
        );
    }

    kubectl.done(&[
        "patch",
        pod,
        "-p",
        r#"{"metadata": {"annotations": {"x": "y"}}}"#,
    ]);
    assert_eq!(kubectl.field(pod, ".metadata.annotations.x"), "y");

    kubectl.done(&["run", "single", "--image=i:1", "--restart=Never"]);
    assert_eq!(kubectl.field("pod/single", ".spec.restartPolicy"), "Never");
    let image = ".spec.containers[0].image";
    let manifest = kubectl.done(&["get", "pod/single", "-o", "json"]);
    kubectl.applied("replace", &manifest.replace("\"i:1\"", "\"i:2\""));
    assert_eq!(kubectl.field("pod/single", image), "i:2");
    let other = r#"{"spec": {"containers": [{"name": "single", "image": "i:3"}]}}"#;
    kubectl.done(&["patch", "pod/single", "--dry-run=server", "-p", other]);
    assert_eq!(kubectl.field("pod/single", image), "i:2");
}
