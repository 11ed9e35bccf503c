//! `hull token`: what machines join the cluster with.

use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{DeleteParams, ListParams, PostParams};
use rand::Rng;

use crate::join::ca;
use crate::kubeconfig;
use crate::settings::{Resolved, Settings};

const NAMESPACE: &str = "kube-system";
const TYPE: &str = "bootstrap.kubernetes.io/token";
const ALPHABET: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789";
/// How long a token is good unless said otherwise, hours.
const DEFAULT_HOURS: u64 = 24;

/// `hull token ...`.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a token, and print the command that joins a machine with it
    Create(CreateArgs),
    /// List the tokens: identifier, end, description
    List(Settings),
    /// Delete a token
    Delete(DeleteArgs),
}

/// The arguments of `hull token create`.
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// Hours that the token is good; 0: for ever
    #[arg(long, value_name = "HOURS", default_value_t = DEFAULT_HOURS)]
    pub ttl_hours: u64,
    /// What the token is for
    #[arg(long, value_name = "TEXT")]
    pub description: Option<String>,
    /// Settings
    #[command(flatten)]
    pub settings: Settings,
}

/// The arguments of `hull token delete`.
#[derive(Debug, Args)]
pub struct DeleteArgs {
    /// The token, or its part before the dot
    pub token: String,
    /// Settings
    #[command(flatten)]
    pub settings: Settings,
}

fn random(characters: usize) -> String {
    let mut random = rand::rng();
    (0..characters)
        .map(|_| char::from(ALPHABET[random.random_range(0..ALPHABET.len())]))
        .collect()
}

async fn secrets(settings: &Resolved) -> anyhow::Result<Api<Secret>> {
    let client = kubeconfig::client(settings).await?;
    Ok(Api::namespaced(client, NAMESPACE))
}

/// `hull token create`.
pub async fn create(
    settings: Resolved,
    ttl_hours: u64,
    description: Option<String>,
) -> anyhow::Result<()> {
    let (id, secret) = (random(6), random(16));
    let mut data = vec![
        ("token-id", id.clone()),
        ("token-secret", secret.clone()),
        ("usage-bootstrap-authentication", "true".to_owned()),
    ];
    if ttl_hours > 0 {
        let life = Duration::from_secs(ttl_hours.saturating_mul(3600));
        let end = Timestamp::now()
            .checked_add(life)
            .context("--ttl-hours is too long")?;
        data.push(("expiration", format!("{end:.0}")));
    }
    if let Some(text) = description {
        data.push(("description", text));
    }
    let data = data
        .into_iter()
        .map(|(key, value)| (key.to_owned(), ByteString(value.into_bytes())));
    let object = Secret {
        metadata: ObjectMeta {
            name: Some(format!("bootstrap-token-{id}")),
            ..ObjectMeta::default()
        },
        type_: Some(TYPE.to_owned()),
        data: Some(data.collect()),
        ..Secret::default()
    };
    let config = kubeconfig::config(&settings).await?;
    let authority = config.root_cert.iter().flatten().next();
    let hash = ca::hash_of(authority.context("the kubeconfig has no CA")?)?;
    secrets(&settings)
        .await?
        .create(&PostParams::default(), &object)
        .await?;
    println!("{id}.{secret}");
    let port = config.cluster_url.port_u16().unwrap_or(6443);
    let host = match settings.node_ip {
        std::net::IpAddr::V6(address) => format!("[{address}]"),
        address => address.to_string(),
    };
    eprintln!("On the machine that joins, as root:");
    eprintln!("  hull node join https://{host}:{port} --token {id}.{secret} --ca-hash {hash}");
    eprintln!("(the server must listen there: hull up --listen 0.0.0.0:{port})");
    Ok(())
}

fn text(secret: &Secret, key: &str) -> String {
    let value = secret.data.as_ref().and_then(|data| data.get(key));
    value.map_or_else(String::new, |bytes| {
        String::from_utf8_lossy(&bytes.0).into_owned()
    })
}

/// `hull token list`.
pub async fn list(settings: Resolved) -> anyhow::Result<()> {
    let of_type = ListParams::default().fields(&format!("type={TYPE}"));
    let found = secrets(&settings).await?.list(&of_type).await?;
    println!("{:<8}  {:<22}  DESCRIPTION", "ID", "EXPIRES");
    for secret in found {
        let end = match text(&secret, "expiration") {
            end if end.is_empty() => "never".to_owned(),
            end => end,
        };
        println!(
            "{:<8}  {end:<22}  {}",
            text(&secret, "token-id"),
            text(&secret, "description")
        );
    }
    Ok(())
}

/// `hull token delete`.
pub async fn delete(settings: Resolved, token: &str) -> anyhow::Result<()> {
    let id = token.split('.').next().unwrap_or_default();
    let name = format!("bootstrap-token-{id}");
    let secrets = secrets(&settings).await?;
    match secrets.delete(&name, &DeleteParams::default()).await {
        Ok(_) => {
            println!("token {id} deleted");
            Ok(())
        }
        Err(kube::Error::Api(status)) if status.code == 404 => bail!("there is no token {id}"),
        Err(error) => Err(error.into()),
    }
}
