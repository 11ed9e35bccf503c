//! A stock Helm on a control plane whose nodes run nothing (`hull fake-nodes`): the release's
//! whole life, with a definition and a hook in the chart. `HULL_HELM`, or `helm` on the PATH.

use serde_json::Value;

use super::*;

const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/up/chart");
/// How long Helm waits for the chart's objects, as it writes it.
const HELM_TIMEOUT: &str = "60s";

struct Helm<'a>(&'a Setup);

impl Helm<'_> {
    fn run(&self, arguments: &[&str]) -> Output {
        let program = std::env::var_os("HULL_HELM").unwrap_or_else(|| "helm".into());
        let output = Command::new(program)
            .args(arguments)
            .env("KUBECONFIG", self.0.path("home/kubeconfig"))
            // Its caches and settings.
            .env("HOME", self.0.path("home"))
            .stdin(Stdio::null())
            .output();
        output.expect("no helm: scripts/deps.sh fetches one; PATH or HULL_HELM leads to it")
    }

    fn done(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", text(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let printed = self.done(&[arguments, &["-o", "json"]].concat());
        serde_json::from_str(&printed).unwrap()
    }

    /// Changes the release and waits until its objects are ready.
    fn change(&self, arguments: &[&str]) {
        self.done(&[arguments, &["--wait", "--timeout", HELM_TIMEOUT]].concat());
    }
}

async fn get(client: &kube::Client, path: &str) -> Option<Value> {
    let text = client.request_text(http_get(path)).await.ok()?;
    Some(serde_json::from_str(&text).unwrap())
}

const DEPLOYMENT: &str = "/apis/apps/v1/namespaces/shop/deployments/web";
const WIDGET: &str = "/apis/example.com/v1/namespaces/shop/widgets/web";

async fn replicas_and_colour(client: &kube::Client) -> (u64, String) {
    let deployment = get(client, DEPLOYMENT).await.unwrap();
    let ready = deployment["status"]["readyReplicas"].as_u64().unwrap();
    assert_eq!(deployment["spec"]["replicas"], ready);
    let widget = get(client, WIDGET).await.unwrap();
    (ready, widget["spec"]["colour"].as_str().unwrap().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn helm_installs_upgrades_rolls_back_and_uninstalls() {
    let setup = Setup::new();
    let _server = setup.server("embedded");
    let client = setup.client().await;
    let mut nodes = hull();
    nodes
        .args(["fake-nodes", "2", "--job-seconds", "0.1", "--kubeconfig"])
        .arg(setup.path("home/kubeconfig"));
    let _nodes = Running(nodes.stdout(Stdio::null()).spawn().unwrap());
    let helm = Helm(&setup);
    let expected = |replicas: u64, colour: &str| (replicas, colour.to_owned());

    helm.change(&["install", "web", CHART, "-n", "shop", "--create-namespace"]);
    assert_eq!(replicas_and_colour(&client).await, expected(2, "red"));
    let status = helm.json(&["status", "web", "-n", "shop"]);
    assert_eq!(status["hooks"][0]["last_run"]["phase"], "Succeeded");
    let jobs = "/apis/batch/v1/namespaces/shop/jobs";
    let jobs = get(&client, jobs).await.unwrap();
    assert_eq!(jobs["items"], serde_json::json!([]), "the hook is left");

    let values = ["--set", "replicas=3,colour=blue"];
    helm.change(&[&["upgrade", "web", CHART, "-n", "shop"][..], &values].concat());
    assert_eq!(replicas_and_colour(&client).await, expected(3, "blue"));

    // What the server refuses, Helm tells in the server's words.
    let values = ["--set", "colour=violet"];
    let refused = helm.run(&[&["upgrade", "web", CHART, "-n", "shop"][..], &values].concat());
    assert!(!refused.status.success());
    let words = "spec.colour: Unsupported value: \"violet\"";
    assert!(text(&refused).contains(words), "{}", text(&refused));

    helm.change(&["rollback", "web", "1", "-n", "shop"]);
    assert_eq!(replicas_and_colour(&client).await, expected(2, "red"));
    let history = helm.json(&["history", "web", "-n", "shop"]);
    let states: Vec<&str> = history
        .as_array()
        .unwrap()
        .iter()
        .map(|revision| revision["status"].as_str().unwrap())
        .collect();
    assert_eq!(states, ["superseded", "superseded", "failed", "deployed"]);
    let list = helm.json(&["list", "-n", "shop"]);
    assert_eq!(
        (&list[0]["name"], &list[0]["status"]),
        (&"web".into(), &"deployed".into())
    );

    helm.change(&["uninstall", "web", "-n", "shop"]);
    for path in [DEPLOYMENT, WIDGET, "/api/v1/namespaces/shop/services/web"] {
        assert!(get(&client, path).await.is_none(), "{path} is left");
    }
    assert_eq!(helm.json(&["list", "-n", "shop"]), serde_json::json!([]));
    // Definitions are the cluster's: Helm leaves them.
    let widgets = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/widgets.example.com";
    assert!(get(&client, widgets).await.is_some());
}
