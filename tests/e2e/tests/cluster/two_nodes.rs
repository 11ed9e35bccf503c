//! Two nodes: pods of one and of the other.

use anyhow::{Context, Result, ensure};
use hull_e2e::{
    cluster::Cluster,
    second::{self, SecondNode},
};

use serde_json::Value;

use crate::{
    Scenario,
    crashes::container_of,
    services::{PORT, answered, page_pod, text},
};

pub const ALL: &[Scenario] = &[(
    "node_that_joins_has_pods_that_reach_the_others_and_outlive_its_agent",
    pods_of_two_nodes,
)];

fn pods_of_two_nodes(cluster: &mut Cluster) -> Result<()> {
    cluster.open_to_others()?;
    let first = cluster.kubectl.list("nodes", &[])?.remove(0);
    let server = text(&first, "/status/addresses/0/address")?;
    let mut second = SecondNode::join(cluster, server)?;
    let before = second.traces()?;
    let met = meet(cluster, text(&first, "/metadata/name")?);
    let met = met.and_then(|service| outlive(cluster, &mut second, &service));
    let met = met.with_context(|| second.log_tail());
    let pods = ["page-a", "page-b"];
    let delete = [
        &["delete", "pod", "--ignore-not-found", "--wait=false"],
        &pods[..],
    ]
    .concat();
    cluster.kubectl.run(&delete)?;
    for pod in pods {
        cluster.kubectl.delete_pod(pod)?;
    }
    cluster.kubectl.run(&[
        "delete",
        "service",
        "far",
        "near",
        "apart",
        "--ignore-not-found",
    ])?;
    let clean = second.wait_for_no_more(&before);
    second.stop()?;
    met?;
    clean
}

/// A page pod that runs on this node.
fn page_on(name: &str, node: &str) -> String {
    page_pod(name).replace("spec:\n", &format!("spec:\n  nodeName: {node}\n"))
}

/// Pods of both nodes and the node itself reach each other. Returns the address of a Service of the
/// second node's pod.
fn meet(cluster: &Cluster, first: &str) -> Result<String> {
    let kubectl = &cluster.kubectl;
    kubectl.apply(&page_on("page-a", first))?;
    kubectl.apply(&page_on("page-b", second::NAME))?;
    let (near, far) = (kubectl.pod_ready("page-a")?, kubectl.pod_ready("page-b")?);
    let (near, far) = (text(&near, "/status/podIP")?, text(&far, "/status/podIP")?);
    let node = kubectl.get("nodes", second::NAME)?.context("no node")?;
    let cidr = text(&node, "/spec/podCIDR")?;
    let network = cidr.strip_suffix("0/24").context("another size")?;
    ensure!(far.starts_with(network), "{far} is not of {cidr}");

    answered(kubectl, "page-a", &format!("{far}:{PORT}"), "page-b")?;
    answered(kubectl, "page-b", &format!("{near}:{PORT}"), "page-a")?;
    let page = cluster.http_get(far, PORT.parse()?)?;
    ensure!(page.contains("page-b"), "from the first node: {page}");

    kubectl.run(&["label", "pod", "page-b", "far=yes"])?;
    let port = format!("--target-port={PORT}");
    let expose = ["expose", "pod", "page-b", "--name=far", "--port=80", &port];
    kubectl.run(&[&expose[..], &["--selector=far=yes"]].concat())?;
    let service = kubectl.get("services", "far")?.context("no service")?;
    let address = text(&service, "/spec/clusterIP")?;
    answered(kubectl, "page-a", address, "page-b")?;
    // The second node's own services and DNS.
    answered(kubectl, "page-b", "far.default", "page-b")?;
    Ok(address.to_owned())
}

/// kill -9 of the second node's agent and netd: its pod goes on and is reached, and what they take
/// care of is taken care of again once they are back.
fn outlive(cluster: &Cluster, second: &mut SecondNode, service: &str) -> Result<()> {
    let kubectl = &cluster.kubectl;
    let container = || -> Result<[Value; 3]> { Ok(container_of(&kubectl.pod_ready("page-b")?)) };
    let before = container()?;
    second.kill()?;
    answered(kubectl, "page-a", service, "page-b").context("without its agent")?;
    // What it has not heard of when it comes back.
    let port = format!("--target-port={PORT}");
    let expose = ["expose", "pod", "page-a", "--name=near", "--port=80", &port];
    kubectl.run(&[&expose[..], &["--selector=near=yes"]].concat())?;
    kubectl.run(&["label", "pod", "page-a", "near=yes"])?;
    second.start_again()?;
    answered(kubectl, "page-b", "near.default", "page-a").context("with its agent again")?;
    let after = container()?;
    ensure!(before == after, "disturbed: {before:?}, {after:?}");
    answered(kubectl, "page-a", service, "page-b")?;

    kubectl.run(&["delete", "service", "near"])?;
    apart(cluster, second).context("hull node and hull netd")?;
    let after = container()?;
    ensure!(before == after, "disturbed: {before:?}, {after:?}");
    answered(kubectl, "page-a", service, "page-b")
}

/// The second node's agent and netd do the same as programs of their own.
fn apart(cluster: &Cluster, second: &mut SecondNode) -> Result<()> {
    let kubectl = &cluster.kubectl;
    second.take_apart()?;
    let port = format!("--target-port={PORT}");
    let expose = ["expose", "pod", "page-a", "--name=apart", "--port=80"];
    kubectl.run(&[&expose[..], &[&port, "--selector=near=yes"]].concat())?;
    answered(kubectl, "page-b", "apart.default", "page-a")?;
    for path in ["/healthz", "/readyz"] {
        let answer = second.ask_netd(path)?;
        ensure!(answer == "ok", "{path}: {answer}");
    }
    let metrics = second.ask_netd("/metrics")?;
    let services = metrics
        .lines()
        .find_map(|line| line.strip_prefix("hull_netd_services "));
    let services: u32 = services.with_context(|| metrics.clone())?.parse()?;
    // `far` and `apart` at least.
    ensure!(services >= 2, "{metrics}");
    Ok(())
}
