//! A stock kubectl against the server: `HULL_KUBECTL`, or `kubectl` on the PATH. Without one
//! these tests fail.

use std::{path::PathBuf, process::Stdio};

use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::Command,
};

use crate::harness::{DEPLOYMENTS, PATIENCE, TestServer};

const POD: &str = "apiVersion: v1
kind: Pod
metadata: {name: nginx, labels: {app: nginx}}
spec:
  containers:
  - name: web
    image: nginx
    ports: [{name: web, containerPort: 80, protocol: TCP}]
";

pub struct Kubectl {
    program: PathBuf,
    kubeconfig: PathBuf,
    home: PathBuf,
}

pub struct Output {
    pub success: bool,
    pub stdout: String,
    pub stderr: String,
}

impl Kubectl {
    pub fn of(server: &TestServer) -> Self {
        let named = std::env::var_os("HULL_KUBECTL").map(PathBuf::from);
        let on_path = || {
            std::env::split_paths(&std::env::var_os("PATH")?)
                .map(|dir| dir.join("kubectl"))
                .find(|path| path.exists())
        };
        let program = named
            .or_else(on_path)
            .expect("no kubectl: scripts/deps.sh fetches one; PATH or HULL_KUBECTL leads to it");
        Kubectl {
            program,
            kubeconfig: server.kubeconfig(),
            home: server.dir.path().to_path_buf(),
        }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(arguments)
            .env("KUBECONFIG", &self.kubeconfig)
            .env("HOME", &self.home)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    pub async fn run_with(&self, arguments: &[&str], input: &str) -> Output {
        Self::run(self.command(arguments), input).await
    }

    /// Edits an object with `sed`.
    pub async fn edit(&self, script: &str, object: &[&str]) -> Output {
        let mut command = self.command(&["edit"]);
        command
            .args(object)
            .env("KUBE_EDITOR", format!("sed -i {script}"));
        Self::run(command, "").await
    }

    async fn run(mut command: Command, input: &str) -> Output {
        let mut child = command.spawn().unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(input.as_bytes())
            .await
            .unwrap();
        let output = tokio::time::timeout(PATIENCE * 4, child.wait_with_output())
            .await
            .unwrap()
            .unwrap();
        Output {
            success: output.status.success(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Runs a command that must succeed; its output.
    pub async fn ok(&self, arguments: &[&str]) -> String {
        self.ok_with(arguments, "").await
    }

    pub async fn ok_with(&self, arguments: &[&str], input: &str) -> String {
        let output = self.run_with(arguments, input).await;
        assert!(
            output.success,
            "kubectl {arguments:?}: {}{}",
            output.stdout, output.stderr
        );
        output.stdout
    }

    /// Runs a command that must fail; its complaint.
    pub async fn refused(&self, arguments: &[&str], input: &str) -> String {
        let output = self.run_with(arguments, input).await;
        assert!(
            !output.success,
            "kubectl {arguments:?} succeeded: {}",
            output.stdout
        );
        output.stderr
    }
}

const CONFIG_MAP: &str =
    "---\n{apiVersion: v1, kind: ConfigMap, metadata: {name: c}, data: {a: '1'}}";

pub const DEPLOYMENT: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: nginx, image: nginx}]}
";

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_applies_shows_changes_and_deletes_a_pod() {
    let server = TestServer::start().await;
    let kubectl = Kubectl::of(&server);
    assert_eq!(
        kubectl.ok_with(&["apply", "-f", "-"], POD).await,
        "pod/nginx created\n"
    );
    assert_eq!(
        kubectl.ok_with(&["apply", "-f", "-"], POD).await,
        "pod/nginx unchanged\n"
    );
    let table = kubectl.ok(&["get", "pods", "-o", "wide"]).await;
    assert!(table.starts_with("NAME    READY   STATUS    RESTARTS   AGE   IP       NODE     NOMINATED NODE   READINESS GATES\nnginx   0/1     Pending   0 "), "{table}");
    let changed = POD.replace("image: nginx", "image: nginx:1.27");
    assert_eq!(
        kubectl.ok_with(&["apply", "-f", "-"], &changed).await,
        "pod/nginx configured\n"
    );
    assert_eq!(
        kubectl
            .ok(&[
                "get",
                "pod",
                "nginx",
                "-o",
                "jsonpath={.spec.containers[0].image}"
            ])
            .await,
        "nginx:1.27"
    );
    assert_eq!(
        kubectl.ok(&["label", "pod", "nginx", "tier=front"]).await,
        "pod/nginx labeled\n"
    );
    assert_eq!(
        kubectl.ok(&["annotate", "pod", "nginx", "note=x"]).await,
        "pod/nginx annotated\n"
    );
    assert!(
        kubectl
            .ok(&["get", "po", "-l", "tier=front", "-o", "name"])
            .await
            .contains("pod/nginx")
    );
    let described = kubectl.ok(&["describe", "pod", "nginx"]).await;
    let class = described
        .lines()
        .find(|line| line.starts_with("QoS Class:"));
    assert!(
        class.is_some_and(|line| line.ends_with(" BestEffort")),
        "{described}"
    );
    assert!(
        kubectl
            .ok(&["get", "pod", "nginx", "-o", "yaml"])
            .await
            .contains("kind: Pod")
    );
    assert_eq!(
        kubectl
            .ok(&["delete", "pod", "nginx"])
            .await
            .lines()
            .next()
            .map(|l| l.starts_with("pod \"nginx\" deleted")),
        Some(true)
    );
    let gone = kubectl.refused(&["get", "pod", "nginx"], "").await;
    assert_eq!(
        gone,
        "Error from server (NotFound): pods \"nginx\" not found\n"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_shows_the_servers_refusals() {
    let server = TestServer::start().await;
    let kubectl = Kubectl::of(&server);
    let unknown = POD.replace("    image: nginx", "    imgae: nginx");
    let complaint = kubectl.refused(&["apply", "-f", "-"], &unknown).await;
    assert!(
        complaint.contains("strict decoding error: unknown field \"spec.containers[0].imgae\""),
        "{complaint}"
    );
    let invalid = POD.replace("containerPort: 80", "containerPort: 80000");
    let complaint = kubectl.refused(&["create", "-f", "-"], &invalid).await;
    assert_eq!(
        complaint,
        "The Pod \"nginx\" is invalid: spec.containers[0].ports[0].containerPort: Invalid value: 80000: must be between 1 and 65535, inclusive\n"
    );
    kubectl.ok_with(&["create", "-f", "-"], POD).await;
    let twice = kubectl.refused(&["create", "-f", "-"], POD).await;
    assert!(
        twice.contains("Error from server (AlreadyExists)")
            && twice.contains("pods \"nginx\" already exists"),
        "{twice}"
    );
    let missing = kubectl
        .refused(&["create", "-n", "nope", "-f", "-"], POD)
        .await;
    assert!(
        missing.contains("namespaces \"nope\" not found"),
        "{missing}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_drives_a_deployment() {
    let server = TestServer::start().await;
    let kubectl = Kubectl::of(&server);
    assert_eq!(
        kubectl.ok_with(&["create", "-f", "-"], DEPLOYMENT).await,
        "deployment.apps/web created\n"
    );
    assert_eq!(
        kubectl
            .ok(&["scale", "deployment", "web", "--replicas=2"])
            .await,
        "deployment.apps/web scaled\n"
    );
    assert_eq!(
        kubectl
            .ok(&["set", "image", "deployment/web", "nginx=nginx:2"])
            .await,
        "deployment.apps/web image updated\n"
    );
    let table = kubectl.ok(&["get", "deploy"]).await;
    assert!(table.contains("web    0/2     0            0 "), "{table}");
    // What the controller would report.
    let status = json!({"status": {"observedGeneration": 3, "replicas": 2, "updatedReplicas": 2, "readyReplicas": 2,
        "availableReplicas": 2, "conditions": [{"type": "Available", "status": "True"}]}});
    server
        .admin
        .patch(&format!("{DEPLOYMENTS}/web/status"), "merge-patch", &status)
        .await
        .ok();
    assert_eq!(
        kubectl
            .ok(&["rollout", "status", "deployment/web", "--timeout=20s"])
            .await,
        "deployment \"web\" successfully rolled out\n"
    );
    assert!(
        kubectl
            .ok(&["describe", "deployment", "web"])
            .await
            .contains("RollingUpdateStrategy:  25% max unavailable, 25% max surge")
    );
    assert!(
        kubectl
            .ok(&["get", "all"])
            .await
            .contains("deployment.apps/web")
    );
    kubectl
        .ok(&["delete", "deployment", "web", "--wait=false"])
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_handles_config_and_waits_and_explains() {
    let server = TestServer::start().await;
    let kubectl = Kubectl::of(&server);
    for manifest in [
        CONFIG_MAP,
        "---\n{apiVersion: v1, kind: Secret, metadata: {name: s}, stringData: {p: q}}",
        "---\n{apiVersion: v1, kind: Namespace, metadata: {name: shop}}",
        "---\n{apiVersion: v1, kind: ServiceAccount, metadata: {name: robot, namespace: shop}}",
    ] {
        kubectl.ok_with(&["create", "-f", "-"], manifest).await;
    }
    assert!(
        kubectl
            .ok(&["get", "cm,secret,ns"])
            .await
            .contains("namespace/kube-node-lease")
    );
    assert_eq!(
        kubectl
            .ok(&["get", "secret", "s", "-o", "jsonpath={.data.p}"])
            .await,
        "cQ=="
    );
    kubectl
        .ok(&[
            "patch",
            "cm",
            "c",
            "--type=json",
            "-p",
            "[{\"op\":\"add\",\"path\":\"/data/b\",\"value\":\"2\"}]",
        ])
        .await;
    kubectl
        .ok(&["patch", "cm", "c", "-p", "{\"data\":{\"a\":null}}"])
        .await;
    assert_eq!(
        kubectl
            .ok(&["get", "cm", "c", "-o", "jsonpath={.data}"])
            .await,
        "{\"b\":\"2\"}"
    );
    kubectl.ok_with(&["replace", "-f", "-"], "{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"metadata\":{\"name\":\"c\"},\"data\":{\"z\":\"1\"}}").await;
    let diff = kubectl
        .run_with(&["apply", "--dry-run=server", "-f", "-"], POD)
        .await;
    assert_eq!(
        diff.stdout, "pod/nginx created (server dry run)\n",
        "{}",
        diff.stderr
    );
    let explained = kubectl.ok(&["explain", "pod.spec.containers.image"]).await;
    assert!(explained.contains("FIELD: image <string>"), "{explained}");
    assert!(explained.contains("Container image name."), "{explained}");
    let explained = kubectl.ok(&["explain", "pods.spec.containers"]).await;
    for words in [
        "List of containers belonging to the pod.",
        "A single application container",
        "Entrypoint array.",
    ] {
        assert!(explained.contains(words), "{words}: {explained}");
    }
    let resources = kubectl.ok(&["api-resources"]).await;
    assert!(resources.contains("runtimeclasses"), "{resources}");
    assert!(
        kubectl
            .ok(&["version"])
            .await
            .contains("Server Version: v1.36.0")
    );
}

/// These send protobuf.
#[tokio::test(flavor = "multi_thread")]
async fn kubectl_generators_create_objects() {
    let server = TestServer::start().await;
    let kubectl = Kubectl::of(&server);
    for (command, answer) in [
        ("namespace shop", "namespace/shop created"),
        (
            "configmap c --from-literal=a=1 --from-literal=b=",
            "configmap/c created",
        ),
        ("secret generic s --from-literal=p=q", "secret/s created"),
        (
            "secret docker-registry d --docker-server=r --docker-username=u --docker-password=p",
            "secret/d created",
        ),
        (
            "serviceaccount robot -n shop",
            "serviceaccount/robot created",
        ),
        (
            "deployment web --image=nginx --replicas=2 --port=80",
            "deployment.apps/web created",
        ),
        (
            "priorityclass high --value=1000 --description=x",
            "priorityclass.scheduling.k8s.io/high created",
        ),
    ] {
        let mut arguments = vec!["create"];
        arguments.extend(command.split(' '));
        let output = kubectl.ok(&arguments).await;
        assert_eq!(output.trim_end(), answer);
    }
    let data = kubectl
        .ok(&["get", "cm", "c", "-o", "jsonpath={.data}"])
        .await;
    assert_eq!(data, "{\"a\":\"1\",\"b\":\"\"}");
    let web = server.admin.get(&format!("{DEPLOYMENTS}/web")).await.ok();
    assert_eq!(web["spec"]["replicas"], 2);
    let container = &web["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["ports"][0]["containerPort"], 80);
    assert_eq!(container["imagePullPolicy"], "Always");
    let pod = kubectl
        .ok(&["run", "one", "--image=nginx", "--restart=Never"])
        .await;
    assert_eq!(pod, "pod/one created\n");
    let again = kubectl.refused(&["create", "namespace", "shop"], "").await;
    assert_eq!(
        again,
        "Error from server (AlreadyExists): namespaces \"shop\" already exists\n"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_watches() {
    let server = TestServer::start().await;
    let kubectl = Kubectl::of(&server);
    let mut child = kubectl
        .command(&[
            "get",
            "cm",
            "-w",
            "--no-headers",
            "-o",
            "custom-columns=N:.metadata.name,D:.data.a",
        ])
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    kubectl.ok_with(&["create", "-f", "-"], CONFIG_MAP).await;
    kubectl
        .ok(&["patch", "cm", "c", "-p", "{\"data\":{\"a\":\"2\"}}"])
        .await;
    kubectl.ok(&["delete", "cm", "c"]).await;
    for expected in ["c 1", "c 2", "c 2"] {
        let line = tokio::time::timeout(PATIENCE, lines.next_line())
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(words.join(" "), expected);
    }
    child.kill().await.unwrap();
}
