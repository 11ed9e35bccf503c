//! Deployments, owners and namespaces.

use anyhow::{Result, ensure};
use hull_e2e::{cluster::Cluster, wait};

use crate::Scenario;

pub const ALL: &[Scenario] = &[
    (
        "node_deployment_rolls_out_scales_and_goes_with_its_pods",
        deployment,
    ),
    ("node_namespace_takes_its_content_with_it", namespace),
];

const DEPLOYMENT: &str = include_str!("../../../../examples/deployment.yaml");

fn deployment(cluster: &mut Cluster) -> Result<()> {
    let kubectl = cluster.kubectl.clone();
    let rollout = || kubectl.run(&["rollout", "status", "deployment/hello", "--timeout=300s"]);
    kubectl.apply(DEPLOYMENT)?;
    rollout()?;
    let pods = kubectl.list("pods", &[("labelSelector", "app=hello")])?;
    ensure!(pods.len() == 3, "{} pods", pods.len());

    kubectl.run(&["scale", "deployment", "hello", "--replicas=1"])?;
    let one_left = |what: &str| {
        wait::until(what, 60, || {
            let left = kubectl.list("pods", &[("labelSelector", "app=hello")])?;
            Ok(if left.len() == 1 {
                Ok(left[0].clone())
            } else {
                Err(format!("{} pods", left.len()))
            })
        })
    };
    let old = one_left("one pod after scaling")?;

    kubectl.run(&["set", "env", "deployment/hello", "VERSION=2"])?;
    rollout()?;
    let new = one_left("one pod after the update")?;
    ensure!(
        old["metadata"]["name"] != new["metadata"]["name"],
        "the update made no new pod"
    );

    kubectl.run(&["delete", "deployment", "hello"])?;
    wait::until(
        "the deployment's pods and replica sets to be collected",
        60,
        || {
            let left =
                kubectl.run(&["get", "pods,replicasets", "-l", "app=hello", "-o", "name"])?;
            Ok(if left.trim().is_empty() {
                Ok(())
            } else {
                Err(left)
            })
        },
    )
}

fn namespace(cluster: &mut Cluster) -> Result<()> {
    let kubectl = &cluster.kubectl;
    kubectl.apply("---\n{apiVersion: v1, kind: Namespace, metadata: {name: tenant}}")?;
    kubectl.apply_config_map("tenant", "thing", "a", "b")?;
    kubectl.run(&["delete", "namespace", "tenant", "--wait=false"])?;
    wait::until("the namespace to be gone", 30, || {
        Ok(match kubectl.get("namespaces", "tenant")? {
            None => Ok(()),
            Some(namespace) => Err(namespace["status"].to_string()),
        })
    })
}
