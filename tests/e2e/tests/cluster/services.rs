//! The service network as pods in virtual machines and the node see it.

use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hull_e2e::{cluster::Cluster, kubectl::Kubectl, wait};
use serde_json::Value;

use crate::{Scenario, pods::shell_pod};

pub const ALL: &[Scenario] = &[
    (
        "node_service_reaches_its_pods_from_the_node_and_from_virtual_machines",
        service_addresses,
    ),
    (
        "node_network_policy_cuts_a_virtual_machine_off_and_lets_it_back",
        network_policy,
    ),
];

/// Seconds for the cluster to act on a change, on hardware.
const CHANGE_S: u64 = 30;
/// Seconds that a pod's client waits for an answer.
const ANSWER_S: &str = "5";
/// Of the pages' pods.
pub const PORT: &str = "8080";

/// A pod that answers `GET /` with its name.
pub fn page_pod(name: &str) -> String {
    let command = "mkdir /www && hostname > /www/index.html && exec httpd -f -p 8080 -h /www";
    shell_pod(name, command).replace(
        &format!("name: {name}"),
        &format!("name: {name}, labels: {{app: page}}"),
    )
}

fn expose(kubectl: &Kubectl) -> Result<Value> {
    kubectl.run(&[
        "expose",
        "pod",
        "page-a",
        "--name=page",
        "--selector=app=page",
        "--type=NodePort",
        "--port=80",
        &format!("--target-port={PORT}"),
    ])?;
    kubectl.get("services", "page")?.context("no service")
}

/// What a pod gets from `host`.
fn fetch(kubectl: &Kubectl, pod: &str, host: &str) -> Result<Result<String, String>> {
    let url = format!("http://{host}/");
    let wget = ["timeout", ANSWER_S, "wget", "-q", "-O", "-", &url];
    let printed = kubectl.try_run(&[&["exec", pod, "--"], &wget[..]].concat(), "")?;
    Ok(if printed.code == 0 {
        Ok(printed.stdout.trim().to_string())
    } else {
        Err(printed.stderr)
    })
}

/// Waits until `pod` gets the page of `name` from `host`.
pub fn answered(kubectl: &Kubectl, pod: &str, host: &str, name: &str) -> Result<()> {
    let what = format!("{pod} to be answered at {host} by {name}");
    wait::until(&what, CHANGE_S, || {
        Ok(match fetch(kubectl, pod, host)? {
            Ok(page) if page == name => Ok(()),
            Ok(other) => Err(other),
            Err(error) => Err(error),
        })
    })
}

/// Waits until `pod` gets nothing from `host`.
fn silent(kubectl: &Kubectl, pod: &str, host: &str) -> Result<()> {
    let what = format!("{pod} to get no answer from {host}");
    wait::until(&what, CHANGE_S, || {
        Ok(match fetch(kubectl, pod, host)? {
            Ok(page) => Err(page),
            Err(_) => Ok(()),
        })
    })
}

pub fn text<'a>(object: &'a Value, path: &str) -> Result<&'a str> {
    let found = object.pointer(path).and_then(Value::as_str);
    found.with_context(|| format!("no {path} in {object}"))
}

fn service_addresses(cluster: &mut Cluster) -> Result<()> {
    let kubectl = cluster.kubectl.clone();
    kubectl.apply(&page_pod("page-a"))?;
    kubectl.apply(&shell_pod("client", "exec sleep 100000"))?;
    kubectl.pod_ready("page-a")?;
    kubectl.pod_ready("client")?;
    let service = expose(&kubectl)?;
    let address = text(&service, "/spec/clusterIP")?;

    answered(&kubectl, "client", address, "page-a")?;
    for name in ["page", "page.default.svc.cluster.local"] {
        answered(&kubectl, "client", name, "page-a")?;
    }
    // To itself, around the corner.
    answered(&kubectl, "page-a", address, "page-a")?;

    let page = cluster.http_get(address, 80)?;
    ensure!(page.contains("page-a"), "from the node: {page}");
    let node_port = service.pointer("/spec/ports/0/nodePort");
    let node_port = node_port.and_then(Value::as_u64).context("no node port")?;
    let node = kubectl.list("nodes", &[])?.remove(0);
    let node_address = text(&node, "/status/addresses/0/address")?;
    let page = cluster.http_get(node_address, u16::try_from(node_port)?)?;
    ensure!(page.contains("page-a"), "at the node port: {page}");
    answered(
        &kubectl,
        "client",
        &format!("{node_address}:{node_port}"),
        "page-a",
    )?;

    api_server(&kubectl)?;

    // Another pod takes over; the address stays.
    kubectl.apply(&page_pod("page-b"))?;
    kubectl.pod_ready("page-b")?;
    kubectl.delete_pod("page-a")?;
    answered(&kubectl, "client", address, "page-b")?;
    kubectl.delete_pod("page-b")?;
    kubectl.run(&["delete", "service", "page"])?;
    kubectl.delete_pod("client")
}

/// Pods and the node reach the API server by its Service.
fn api_server(kubectl: &Kubectl) -> Result<()> {
    let reach = "nc -w 5 kubernetes.default 443 </dev/null && echo reached";
    let printed = kubectl.run(&["exec", "client", "--", "sh", "-c", reach])?;
    ensure!(printed.contains("reached"), "from a pod: {printed}");
    let service = kubectl
        .get("services", "kubernetes")?
        .context("no service")?;
    let address = text(&service, "/spec/clusterIP")?;
    let address = format!("{address}:443").parse()?;
    TcpStream::connect_timeout(&address, Duration::from_secs(20)).context("from the node")?;
    let dns = kubectl.run(&[
        "get",
        "service",
        "--namespace=kube-system",
        "kube-dns",
        "-o",
        "name",
    ])?;
    ensure!(dns.contains("kube-dns"), "{dns}");
    Ok(())
}

const POLICY: &str = r#"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: friends-only}
spec:
  podSelector: {matchLabels: {app: page}}
  policyTypes: [Ingress]
  ingress:
  - from: [{podSelector: {matchLabels: {friend: "yes"}}}]
"#;

fn network_policy(cluster: &mut Cluster) -> Result<()> {
    let kubectl = cluster.kubectl.clone();
    kubectl.apply(&page_pod("page-a"))?;
    kubectl.apply(&shell_pod("client", "exec sleep 100000"))?;
    let pod = kubectl.pod_ready("page-a")?;
    kubectl.pod_ready("client")?;
    let direct = format!("{}:{PORT}", text(&pod, "/status/podIP")?);
    let service = expose(&kubectl)?;
    let address = text(&service, "/spec/clusterIP")?;
    for host in [&direct, address] {
        answered(&kubectl, "client", host, "page-a")?;
    }

    kubectl.apply(POLICY)?;
    for host in [&direct, address] {
        silent(&kubectl, "client", host)?;
    }
    // The node always reaches its pods.
    let page = cluster.http_get(address, 80)?;
    ensure!(page.contains("page-a"), "from the node: {page}");

    kubectl.run(&["label", "pod", "client", "friend=yes"])?;
    for host in [&direct, address] {
        answered(&kubectl, "client", host, "page-a")?;
    }
    kubectl.run(&["delete", "networkpolicy", "friends-only"])?;
    kubectl.run(&["delete", "service", "page"])?;
    kubectl.delete_pod("page-a")?;
    kubectl.delete_pod("client")
}
