//! The service network: netd.

use anyhow::Context;
use hull_netd::NetdConfig;
use tokio_util::sync::CancellationToken;

use crate::cni;
use crate::files::lock_data_dir;
use crate::kubeconfig;
use crate::server::{Tasks, finish};
use crate::settings::Resolved;
use crate::signals;

fn config(settings: &Resolved) -> anyhow::Result<NetdConfig> {
    let mut config = NetdConfig::new(settings.node_name.clone(), vec![settings.node_ip]);
    let pods = &settings.pod_cidr;
    let pods = pods.parse().with_context(|| format!("pod_cidr {pods:?}"))?;
    config.pod_networks = vec![pods];
    config.service_networks = settings.service_networks.clone();
    config.cni_records.push(settings.data_dir.join("shim/cni"));
    config.bridges = vec![cni::BRIDGE.to_string()];
    config.metrics_listen = settings.netd_listen;
    config.timeout_scale = hull_node::config::timeout_scale();
    Ok(config)
}

/// Starts netd; it ends with `shutdown`, and what it told the kernel stays.
pub fn start(
    settings: &Resolved,
    client: kube::Client,
    tasks: &mut Tasks,
    shutdown: &CancellationToken,
) -> anyhow::Result<()> {
    let config = config(settings)?;
    let stop = shutdown.clone();
    tasks.spawn(async move {
        hull_netd::run(client, config, stop)
            .await
            .context("service network")
    });
    Ok(())
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
