//! Clients of an API server that runs elsewhere.

use anyhow::Context;
use kube::config::{KubeConfigOptions, Kubeconfig};

use crate::settings::Resolved;

/// What the settings' kubeconfig says.
pub async fn config(settings: &Resolved) -> anyhow::Result<kube::Config> {
    let kubeconfig = Kubeconfig::read_from(&settings.kubeconfig)
        .with_context(|| format!("kubeconfig {}", settings.kubeconfig.display()))?;
    Ok(kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?)
}

/// A client as the settings' kubeconfig says.
pub async fn client(settings: &Resolved) -> anyhow::Result<kube::Client> {
    Ok(kube::Client::try_from(config(settings).await?)?)
}
