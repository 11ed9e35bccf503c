//! Clients of an API server that runs elsewhere.

use anyhow::Context;
use kube::config::{KubeConfigOptions, Kubeconfig};

use crate::settings::Resolved;

/// A client as the settings' kubeconfig says.
pub async fn client(settings: &Resolved) -> anyhow::Result<kube::Client> {
    let kubeconfig = Kubeconfig::read_from(&settings.kubeconfig)
        .with_context(|| format!("kubeconfig {}", settings.kubeconfig.display()))?;
    let config =
        kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    Ok(kube::Client::try_from(config)?)
}
