//! The node: hull-shim and the node agent.

use std::time::Duration;

use anyhow::{Context, bail};
use hull_apiserver::pki::{CertPair, ClusterPki};
use hull_node::{NodeConfig, ServerTls};
use hull_tls::RenewableCertificate;
use tokio_util::sync::CancellationToken;

use crate::cni;
use crate::files::lock_data_dir;
use crate::kubeconfig;
use crate::server::{Tasks, finish};
use crate::settings::Resolved;
use crate::shim::Shim;
use crate::signals;

/// Starts hull-shim (unless another runtime is named) and the node agent.
pub async fn start(
    settings: &Resolved,
    client: kube::Client,
    tls: Option<ServerTls>,
    tasks: &mut Tasks,
    shutdown: &CancellationToken,
) -> anyhow::Result<()> {
    if settings.cri_endpoint.is_none() {
        let shim = Shim::prepare(settings).await?;
        let stop = shutdown.clone();
        tasks.spawn(async move {
            shim.supervise(stop).await;
            Ok(())
        });
    }
    let mut config = NodeConfig::new(settings.node_name.clone(), settings.node_ip);
    config.cri_endpoint = settings.cri_endpoint();
    config.root_dir = settings.data_dir.join("node");
    config.pod_log_dir = settings.pod_log_dir.clone();
    config.listen = settings.node_listen;
    config.server_tls = tls;
    config.labels = settings.node_labels.clone();
    config.pod_cidrs = settings.cluster_network.own.clone();
    if settings.cri_endpoint.is_none() {
        config.pod_network = Some(cni::pod_network(settings));
    }
    config.max_pods = settings.max_pods;
    config.static_pod_dir = settings.static_pod_dir.clone();
    if let Some(seconds) = settings.max_restart_backoff {
        config.timings.restart_backoff_max = Duration::from_secs(seconds);
    }
    if let Some(thresholds) = &settings.eviction {
        config.eviction.thresholds = thresholds.clone();
    }
    if settings.netd {
        let networks = settings.service_networks.iter().copied();
        config.cluster_dns = networks
            .filter_map(hull_netd::config::dns_address)
            .collect();
    }
    let stop = shutdown.clone();
    tasks.spawn(async move {
        hull_node::run(client, config, stop)
            .await
            .context("node agent")
    });
    Ok(())
}

/// The node server's certificate from the cluster's own CA.
pub fn own_certificate(settings: &Resolved, pki: &ClusterPki) -> anyhow::Result<CertPair> {
    let names = [
        settings.node_ip.to_string(),
        "127.0.0.1".into(),
        "localhost".into(),
    ];
    pki.kubelet_serving(&settings.node_name, &names)
        .context("node server's certificate")
}

/// What the node's server shows, and whom it serves.
pub fn own_tls(settings: &Resolved, pki: &ClusterPki) -> anyhow::Result<ServerTls> {
    Ok(ServerTls {
        certificate: own_certificate(settings, pki)?.renewable()?,
        client_ca_pem: pki.ca_pem().as_bytes().to_vec(),
    })
}

fn given_tls(settings: &Resolved) -> anyhow::Result<Option<ServerTls>> {
    let files = (
        &settings.node_cert,
        &settings.node_key,
        &settings.node_client_ca,
    );
    let (Some(certificate), Some(key), Some(ca)) = files else {
        if files.0.is_some() || files.1.is_some() || files.2.is_some() {
            bail!("node_cert, node_key and node_client_ca belong together");
        }
        tracing::warn!(
            "without --node-cert, --node-key and --node-client-ca logs and exec are not served (hull node join gets them by itself)"
        );
        return Ok(None);
    };
    let read = |path: &std::path::Path| {
        std::fs::read(path).with_context(|| format!("read {}", path.display()))
    };
    Ok(Some(ServerTls {
        certificate: RenewableCertificate::from_pem(&read(certificate)?, &read(key)?)
            .with_context(|| certificate.display().to_string())?,
        client_ca_pem: read(ca)?,
    }))
}

/// `hull node`.
pub async fn run(settings: Resolved) -> anyhow::Result<()> {
    let _lock = lock_data_dir(&settings.data_dir, "node")?;
    let client = kubeconfig::client(&settings).await?;
    let shutdown = signals::shutdown()?;
    let mut tasks = Tasks::new();
    let tls = given_tls(&settings)?;
    start(&settings, client, tls, &mut tasks, &shutdown).await?;
    finish(tasks, shutdown).await
}
