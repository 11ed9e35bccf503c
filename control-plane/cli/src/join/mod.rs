//! `hull node join`: makes this machine a node of a cluster that runs elsewhere, and runs it.
//!
//! ```text
//! --ca-hash ─► ca.rs        the cluster's CA, recognised by its hash
//! --token ───► identity.rs  certificate request ─► client certificate, serving certificate
//!                 │ renewed at 70 % of their lives; the node's parts start anew with them,
//!                 │ its pods run on
//!                 ▼
//!              node agent, hull-shim, netd
//! ```
//! The command may be given again at any time (a service manager does): with a certificate that
//! still counts it needs no token.

pub mod ca;
mod identity;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use tokio_util::sync::CancellationToken;

use crate::files::lock_data_dir;
use crate::server::{Tasks, finish};
use crate::settings::{Resolved, Settings};
use crate::{agent, netd, signals};
use identity::Identity;

/// Time between two looks at the certificates' ages.
const RENEWAL_PERIOD: Duration = Duration::from_secs(3600);
/// The API server's port when the address names none.
const DEFAULT_PORT: u16 = 6443;

/// The arguments of `hull node join`.
#[derive(Debug, Args)]
pub struct JoinArgs {
    /// The API server: https://HOST:PORT
    #[arg(value_name = "SERVER")]
    pub server: String,
    /// A token of `hull token create`; not needed again once the node has joined
    #[arg(
        long,
        env = "HULL_JOIN_TOKEN",
        value_name = "TOKEN",
        hide_env_values = true
    )]
    pub token: Option<String>,
    /// The hash of the cluster's CA, as `hull token create` prints it
    #[arg(long, env = "HULL_JOIN_CA_HASH", value_name = "sha256:HEX")]
    pub ca_hash: Option<String>,
    /// The node's settings
    #[command(flatten)]
    pub settings: Settings,
}

/// What of the arguments is not a setting.
pub struct Invitation {
    host: String,
    port: u16,
    token: Option<String>,
    ca_hash: Option<String>,
}

impl Invitation {
    /// Checks the arguments.
    pub fn of(
        server: &str,
        token: Option<String>,
        ca_hash: Option<String>,
    ) -> anyhow::Result<Self> {
        let wrong = || format!("the server {server:?} is not of the form https://HOST:PORT");
        let rest = match server.split_once("://") {
            Some(("https", rest)) => rest,
            Some(_) => bail!(wrong()),
            None => server,
        };
        let authority: http::uri::Authority =
            rest.trim_end_matches('/').parse().with_context(wrong)?;
        if let Some(hash) = &ca_hash {
            ca::check_form(hash)?;
        }
        Ok(Invitation {
            host: authority.host().trim_matches(['[', ']']).to_owned(),
            port: authority.port_u16().unwrap_or(DEFAULT_PORT),
            token,
            ca_hash,
        })
    }

    fn url(&self) -> String {
        match self.host.contains(':') {
            true => format!("https://[{}]:{}", self.host, self.port),
            false => format!("https://{}:{}", self.host, self.port),
        }
    }
}

async fn admit(identity: &Identity, invitation: &Invitation) -> anyhow::Result<()> {
    if identity.is_joined() {
        return recognise(identity, invitation).await;
    }
    let (Some(token), Some(hash)) = (&invitation.token, &invitation.ca_hash) else {
        bail!(
            "this node has no certificate yet: --token and --ca-hash are needed (`hull token \
             create` on the server prints both)"
        );
    };
    tracing::info!(server = invitation.url(), "joining");
    let Some(ca) = ca::fetch(&invitation.host, invitation.port, hash).await? else {
        bail!(
            "the API server at {} shows no certificate of the CA {hash}: this is another \
             cluster, or somebody stands between",
            invitation.url()
        );
    };
    identity.keep_ca(&ca)?;
    let client = identity.client_with_token(token).await?;
    identity.join(&client).await
}

/// A node that has joined goes back to its own cluster only. One that does not answer now may
/// later: its pods run on.
async fn recognise(identity: &Identity, invitation: &Invitation) -> anyhow::Result<()> {
    let own = identity.ca_hash()?;
    let leave = format!(
        "to make it a node of another cluster, give another --data-dir or remove {}",
        identity.directory().display()
    );
    if let Some(asked) = &invitation.ca_hash
        && !asked.eq_ignore_ascii_case(&own)
    {
        bail!("this node has joined the cluster of the CA {own}, not of {asked}; {leave}");
    }
    match ca::fetch(&invitation.host, invitation.port, &own).await {
        Ok(Some(_)) => Ok(()),
        Ok(None) => bail!(
            "the API server at {} is not of the cluster that this node has joined (CA {own}); {leave}",
            invitation.url()
        ),
        Err(error) => {
            tracing::warn!("not reached yet: {error:#}");
            Ok(())
        }
    }
}

/// `hull node join`.
pub async fn run(settings: Resolved, invitation: Invitation) -> anyhow::Result<()> {
    let _lock = lock_data_dir(&settings.data_dir, "node")?;
    let shutdown = signals::shutdown()?;
    let identity = Arc::new(Identity::new(
        &settings.data_dir,
        invitation.url(),
        settings.node_name.clone(),
        settings.node_ip,
    ));
    let admitted = shutdown.run_until_cancelled(admit(&identity, &invitation));
    match admitted.await {
        Some(outcome) => outcome?,
        None => return Ok(()),
    }
    while !shutdown.is_cancelled() {
        let client = identity.client().await?;
        let renewed = shutdown.run_until_cancelled(identity.renew(&client)).await;
        if renewed.transpose()?.is_some_and(|changed| changed) {
            continue;
        }
        work(&settings, &identity, client, &shutdown).await?;
    }
    Ok(())
}

/// Runs the node's parts until the shutdown, or until a certificate was renewed.
async fn work(
    settings: &Resolved,
    identity: &Arc<Identity>,
    client: kube::Client,
    shutdown: &CancellationToken,
) -> anyhow::Result<()> {
    let stop = shutdown.child_token();
    let mut tasks = Tasks::new();
    let tls = identity.server_tls()?;
    agent::start(settings, client.clone(), Some(tls), &mut tasks, &stop).await?;
    if settings.netd {
        let client = identity.netd_client().await?;
        netd::start(settings, client, &mut tasks, &stop)?;
    }
    let renewal = renew(identity.clone(), client, stop.clone());
    tasks.spawn(async move {
        renewal.await;
        Ok(())
    });
    tracing::info!(node = settings.node_name, "node runs");
    finish(tasks, stop).await
}

/// Ends everything below `stop` once there are new certificates.
async fn renew(identity: Arc<Identity>, client: kube::Client, stop: CancellationToken) {
    loop {
        let pause = tokio::time::sleep(RENEWAL_PERIOD);
        if stop.run_until_cancelled(pause).await.is_none() {
            return;
        }
        match stop.run_until_cancelled(identity.renew(&client)).await {
            Some(Ok(true)) => {
                tracing::info!("certificates renewed: the node's parts start anew");
                stop.cancel();
            }
            Some(Ok(false)) => {}
            Some(Err(error)) => tracing::warn!("certificates not renewed: {error:#}"),
            None => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_a_host_and_a_port() {
        for (text, url) in [
            ("https://10.0.0.1:7443", "https://10.0.0.1:7443"),
            ("https://api.example/", "https://api.example:6443"),
            ("10.0.0.1", "https://10.0.0.1:6443"),
            ("https://[fd00::1]:6443", "https://[fd00::1]:6443"),
        ] {
            let invitation = Invitation::of(text, None, None).unwrap();
            assert_eq!(invitation.url(), url);
        }
        for text in ["http://10.0.0.1", "https://", "https://a b", "ftp://x"] {
            assert!(Invitation::of(text, None, None).is_err(), "{text}");
        }
    }
}
