//! The service network: netd.

use anyhow::Context;
use hull_netd::NetdConfig;
use hull_netd::config::OwnNetwork;
use hull_node::pod_network::{BRIDGE, others};
use tokio_util::sync::CancellationToken;

use crate::files::lock_data_dir;
use crate::kubeconfig;
use crate::server::{Tasks, finish};
use crate::settings::Resolved;
use crate::signals;

fn config(settings: &Resolved) -> NetdConfig {
    let mut config = NetdConfig::new(settings.node_name.clone(), vec![settings.node_ip]);
    config.pod_networks = settings.cluster_network.all();
    config.service_networks = settings.service_networks.clone();
    config.cni_records.push(settings.data_dir.join("shim/cni"));
    config.node_links = settings.cluster_network.links;
    let directory = settings.cni_conf_dir.clone();
    config.own_network = OwnNetwork::new(move || others(&directory).is_empty());
    config.bridges = vec![BRIDGE.to_string()];
    config.dns_upstreams = settings.dns_upstreams.clone();
    config.stub_domains = settings.stub_domains.clone();
    config.metrics_listen = settings.netd_listen;
    config.timeout_scale = hull_client::timeouts::timeout_scale();
    config
}

/// Starts netd; it ends with `shutdown`, and what it told the kernel stays.
pub fn start(
    settings: &Resolved,
    client: kube::Client,
    tasks: &mut Tasks,
    shutdown: &CancellationToken,
) -> anyhow::Result<()> {
    let config = config(settings);
    let stop = shutdown.clone();
    tasks.spawn(async move {
        hull_netd::run(client, config, stop)
            .await
            .context("service network")
    });
    Ok(())
}

/// Makes the Service of cluster DNS known, some time.
pub fn publish_dns(settings: &Resolved, client: kube::Client, shutdown: &CancellationToken) {
    let mut networks = settings.service_networks.iter().copied();
    let Some(address) = networks.find_map(hull_netd::config::dns_address) else {
        return;
    };
    let publish = hull_netd::dns::service::publish(client, address);
    tokio::spawn(shutdown.clone().run_until_cancelled_owned(publish));
}

/// `hull netd`.
pub async fn run(settings: Resolved) -> anyhow::Result<()> {
    let _lock = lock_data_dir(&settings.data_dir, "netd")?;
    let client = kubeconfig::client(&settings).await?;
    let shutdown = signals::shutdown()?;
    let mut tasks = Tasks::new();
    start(&settings, client, &mut tasks, &shutdown)?;
    finish(tasks, shutdown).await
}
