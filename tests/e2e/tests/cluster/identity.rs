//! What a pod is given to find and talk to the API server.

use anyhow::{Context, Result, ensure};
use hull_e2e::cluster::Cluster;
use serde_json::Value;

use crate::{Scenario, pods::shell_pod};

pub const ALL: &[Scenario] = &[(
    "node_pod_has_the_token_of_its_service_account",
    token_of_its_account,
)];

const PLACE: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

fn token_of_its_account(cluster: &mut Cluster) -> Result<()> {
    cluster
        .kubectl
        .apply(&shell_pod("talker", "exec sleep 100000"))?;
    cluster.kubectl.pod_ready("talker")?;
    let read = |file: &str| {
        let path = format!("{PLACE}/{file}");
        cluster.kubectl.run(&["exec", "talker", "--", "cat", &path])
    };
    ensure!(read("namespace")? == "default", "the pod's namespace");
    ensure!(
        read("ca.crt")?.starts_with("-----BEGIN CERTIFICATE-----"),
        "the cluster's CA"
    );
    let review = format!(
        "{{apiVersion: authentication.k8s.io/v1, kind: TokenReview, spec: {{token: {}}}}}",
        read("token")?
    );
    let answer = cluster
        .kubectl
        .run_with(&["create", "-o", "json", "-f", "-"], &review)?;
    let answer: Value = serde_json::from_str(&answer).context("the review is not JSON")?;
    let user = &answer["status"]["user"];
    ensure!(
        user["username"] == "system:serviceaccount:default:default",
        "{answer}"
    );
    ensure!(
        user["extra"]["authentication.kubernetes.io/pod-name"][0] == "talker",
        "{answer}"
    );
    let host = cluster.kubectl.run(&[
        "exec",
        "talker",
        "--",
        "sh",
        "-c",
        "echo $KUBERNETES_SERVICE_HOST",
    ])?;
    let service = cluster
        .kubectl
        .get("services", "kubernetes")?
        .context("the API server has no Service")?;
    ensure!(
        service["spec"]["clusterIP"] == host.trim(),
        "{host} is not the Service's address"
    );
    cluster.kubectl.delete_pod("talker")
}
