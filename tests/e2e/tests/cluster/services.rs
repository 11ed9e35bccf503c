//! Services: an address that outlives the pods behind it.

use anyhow::{Context, Result, ensure};
use hull_e2e::{cluster::Cluster, wait};

use crate::{Scenario, pods::shell_pod};

pub const ALL: &[Scenario] = &[(
    "node_service_reaches_its_pods_from_the_node_and_from_virtual_machines",
    cluster_address,
)];

/// A pod that answers `GET /` with its name.
fn page_pod(name: &str) -> String {
    let command = "mkdir /www && hostname > /www/index.html && exec httpd -f -p 8080 -h /www";
    shell_pod(name, command).replace(
        &format!("name: {name}"),
        &format!("name: {name}, labels: {{app: page}}"),
    )
}

fn cluster_address(cluster: &mut Cluster) -> Result<()> {
    let kubectl = cluster.kubectl.clone();
    kubectl.apply(&page_pod("page-a"))?;
    kubectl.apply(&shell_pod("client", "exec sleep 100000"))?;
    kubectl.pod_ready("page-a")?;
    kubectl.pod_ready("client")?;
    kubectl.run(&[
        "expose",
        "pod",
        "page-a",
        "--name=page",
        "--selector=app=page",
        "--port=80",
        "--target-port=8080",
    ])?;
    let service = kubectl.get("service", "page")?.context("no service")?;
    let address = service["spec"]["clusterIP"]
        .as_str()
        .context("no cluster address")?;
    let from_pod = || {
        let url = format!("http://{address}/");
        kubectl.run(&[
            "exec", "client", "--", "wget", "-q", "-T", "5", "-O", "-", &url,
        ])
    };
    let answered_by = |name: &str| {
        wait::until(&format!("the service to answer from {name}"), 30, || {
            Ok(match from_pod() {
                Ok(page) if page.trim() == name => Ok(()),
                Ok(page) => Err(page),
                Err(error) => Err(format!("{error:#}")),
            })
        })
    };
    answered_by("page-a")?;
    let page = cluster.http_get(address, 80)?;
    ensure!(page.contains("page-a"), "from the node: {page}");

    // Another pod takes over; the address stays.
    kubectl.apply(&page_pod("page-b"))?;
    kubectl.pod_ready("page-b")?;
    kubectl.delete_pod("page-a")?;
    answered_by("page-b")?;
    kubectl.delete_pod("page-b")?;
    kubectl.run(&["delete", "service", "page"])?;
    kubectl.delete_pod("client")
}
