//! A joined node's certificates: asked for with a token the first time, with the node's own
//! certificate from then on.
//!
//! ```text
//! DATA_DIR/node-pki/  ca.crt
//!                     client.pem    system:node:NAME, to the API server
//!                     serving.pem   logs and exec
//!                     netd.pem      system:kube-proxy, for the service network
//! ```
//! Key and certificate are one file, replaced in one step: a crash or a full disk leaves the old
//! pair or the new one, and a join that was cut off is simply done again.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use base64::{Engine, engine::general_purpose::STANDARD};
use hull_client::timeouts::scaled;
use hull_controllers::certificates::{CLIENT_SIGNER, NODE_CLIENT_SIGNER, NODE_SERVING_SIGNER};
use hull_node::ServerTls;
use hull_tls::RenewableCertificate;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use kube::api::PostParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::wait::await_condition;
use kube::{Api, Client};
use rcgen::{CertificateParams, DnType, KeyPair, PublicKeyData, SanType, string::Ia5String};
use serde_json::{Value, json};
use x509_parser::prelude::FromDer;

use crate::files::{make_private_dir, write_atomically};

/// How long a request for a certificate is waited for: a person may have to approve it.
const APPROVAL_TIMEOUT: Duration = Duration::from_secs(10 * 60);
/// After this time the user is told what is waited for.
const PATIENCE: Duration = Duration::from_secs(5);
/// A certificate is renewed when this part of its life is over, percent.
const RENEW_AT_PERCENT: i64 = 70;

const CERTIFICATE_START: &str = "-----BEGIN CERTIFICATE-----";

/// See the module.
pub struct Identity {
    directory: PathBuf,
    /// `https://host:port`.
    server: String,
    node: String,
    address: IpAddr,
}

/// One of the pairs of files.
#[derive(Debug, Clone, Copy)]
enum Pair {
    Client,
    Serving,
    Netd,
}

impl Pair {
    fn name(self) -> &'static str {
        match self {
            Pair::Client => "client",
            Pair::Serving => "serving",
            Pair::Netd => "netd",
        }
    }

    fn file(self) -> String {
        format!("{}.pem", self.name())
    }

    fn signer(self) -> &'static str {
        match self {
            Pair::Client => NODE_CLIENT_SIGNER,
            Pair::Serving => NODE_SERVING_SIGNER,
            Pair::Netd => CLIENT_SIGNER,
        }
    }

    fn usages(self) -> [&'static str; 2] {
        match self {
            Pair::Client | Pair::Netd => ["digital signature", "client auth"],
            Pair::Serving => ["digital signature", "server auth"],
        }
    }
}

impl Identity {
    /// Of the node `node` at `address`, kept below the data directory.
    pub fn new(data_dir: &std::path::Path, server: String, node: String, address: IpAddr) -> Self {
        Identity {
            directory: data_dir.join("node-pki"),
            server,
            node,
            address,
        }
    }

    fn path(&self, file: &str) -> PathBuf {
        self.directory.join(file)
    }

    /// A pair's key and certificate, PEM.
    fn read_pair(&self, pair: Pair) -> anyhow::Result<(String, String)> {
        let file = pair.file();
        let both = self.read(&file)?;
        let start = both.find(CERTIFICATE_START);
        let (key, certificate) = both.split_at(start.with_context(|| format!("{file} is broken"))?);
        Ok((key.to_owned(), certificate.to_owned()))
    }

    fn read(&self, file: &str) -> anyhow::Result<String> {
        let path = self.path(file);
        std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
    }

    /// The node has joined already, and its certificate still counts.
    pub fn is_joined(&self) -> bool {
        self.path("ca.crt").exists() && self.life_used(Pair::Client).is_some_and(|used| used < 100)
    }

    /// Where the certificates are.
    pub fn directory(&self) -> &std::path::Path {
        &self.directory
    }

    /// The hash of the cluster's CA, as [`super::ca::hash_of`] writes it.
    pub fn ca_hash(&self) -> anyhow::Result<String> {
        let path = self.path("ca.crt");
        let (_, pem) = x509_parser::pem::parse_x509_pem(self.read("ca.crt")?.as_bytes())
            .with_context(|| format!("{} is no certificate", path.display()))?;
        super::ca::hash_of(&pem.contents)
    }

    /// Keeps the cluster's CA.
    pub fn keep_ca(&self, der: &[u8]) -> anyhow::Result<()> {
        make_private_dir(&self.directory)?;
        let pem = pem_of("CERTIFICATE", der);
        write_atomically(&self.path("ca.crt"), &pem, 0o600)
    }

    /// A client that shows a bootstrap token.
    pub async fn client_with_token(&self, token: &str) -> anyhow::Result<Client> {
        self.client_with(json!({"token": token})).await
    }

    /// A client that shows the node's certificate.
    pub async fn client(&self) -> anyhow::Result<Client> {
        self.client_of(Pair::Client).await
    }

    /// A client that shows the service network's certificate.
    pub async fn netd_client(&self) -> anyhow::Result<Client> {
        self.client_of(Pair::Netd).await
    }

    async fn client_of(&self, pair: Pair) -> anyhow::Result<Client> {
        let (key, certificate) = self.read_pair(pair)?;
        self.client_with(json!({
            "client-certificate-data": STANDARD.encode(certificate),
            "client-key-data": STANDARD.encode(key),
        }))
        .await
    }

    async fn client_with(&self, user: Value) -> anyhow::Result<Client> {
        let ca = STANDARD.encode(self.read("ca.crt")?);
        let kubeconfig: Kubeconfig = serde_json::from_value(json!({
            "clusters": [{"name": "hull", "cluster": {
                "server": self.server, "certificate-authority-data": ca,
            }}],
            "users": [{"name": "node", "user": user}],
            "contexts": [{"name": "hull", "context": {"cluster": "hull", "user": "node"}}],
            "current-context": "hull",
        }))?;
        let options = KubeConfigOptions::default();
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await?;
        Ok(Client::try_from(config)?)
    }

    /// Asks for the node's first certificate with a client that shows a token.
    pub async fn join(&self, client: &Client) -> anyhow::Result<()> {
        self.ask(client, Pair::Client).await
    }

    /// Renews what is missing or has lived most of its life; true when anything changed.
    pub async fn renew(&self, client: &Client) -> anyhow::Result<bool> {
        let mut changed = false;
        for pair in [Pair::Client, Pair::Serving, Pair::Netd] {
            if self
                .life_used(pair)
                .is_none_or(|used| used >= RENEW_AT_PERCENT)
            {
                self.ask(client, pair).await?;
                changed = true;
            }
        }
        Ok(changed)
    }

    /// What logs and exec are served with.
    pub fn server_tls(&self) -> anyhow::Result<ServerTls> {
        let (key, certificate) = self.read_pair(Pair::Serving)?;
        Ok(ServerTls {
            certificate: RenewableCertificate::from_pem(certificate.as_bytes(), key.as_bytes())
                .context("serving certificate")?,
            client_ca_pem: self.read("ca.crt")?.into_bytes(),
        })
    }

    /// Percent of the certificate's life that are over; `None`: there is no usable pair.
    fn life_used(&self, pair: Pair) -> Option<i64> {
        let (key, pem) = self.read_pair(pair).ok()?;
        let key = KeyPair::from_pem(&key).ok()?;
        let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).ok()?;
        let (_, certificate) =
            x509_parser::certificate::X509Certificate::from_der(&pem.contents).ok()?;
        if certificate.public_key().subject_public_key.data != key.der_bytes() {
            return None;
        }
        let is_for = certificate
            .subject()
            .iter_common_name()
            .next()?
            .as_str()
            .ok()?;
        if is_for != self.user(pair) {
            return None;
        }
        let start = certificate.validity().not_before.timestamp();
        let end = certificate.validity().not_after.timestamp();
        let now = x509_parser::time::ASN1Time::now().timestamp();
        Some((now - start) * 100 / (end - start).max(1))
    }

    async fn ask(&self, client: &Client, pair: Pair) -> anyhow::Result<()> {
        make_private_dir(&self.directory)?;
        let key = KeyPair::generate().context("generate a key")?;
        let request = self.request_pem(pair, &key)?;
        let certificate = self
            .signed(client, pair, &request)
            .await
            .with_context(|| format!("the node's {} certificate", pair.name()))?;
        let both = format!("{}{certificate}", key.serialize_pem());
        write_atomically(&self.path(&pair.file()), &both, 0o600)?;
        tracing::info!(
            certificate = pair.name(),
            node = self.node,
            "certificate issued"
        );
        Ok(())
    }

    fn user(&self, pair: Pair) -> String {
        match pair {
            Pair::Client | Pair::Serving => format!("system:node:{}", self.node),
            Pair::Netd => "system:kube-proxy".to_owned(),
        }
    }

    fn request_pem(&self, pair: Pair, key: &KeyPair) -> anyhow::Result<String> {
        let mut params = CertificateParams::default();
        let subject = &mut params.distinguished_name;
        *subject = rcgen::DistinguishedName::new();
        if !matches!(pair, Pair::Netd) {
            subject.push(DnType::OrganizationName, "system:nodes");
        }
        subject.push(DnType::CommonName, self.user(pair));
        if let Pair::Serving = pair {
            params.subject_alt_names = vec![
                SanType::DnsName(Ia5String::try_from(self.node.as_str())?),
                SanType::IpAddress(self.address),
            ];
        }
        Ok(params.serialize_request(key)?.pem()?)
    }

    /// Hands the request in and waits for the answer.
    async fn signed(&self, client: &Client, pair: Pair, pem: &str) -> anyhow::Result<String> {
        let requests: Api<CertificateSigningRequest> = Api::all(client.clone());
        let request = serde_json::from_value(json!({
            "metadata": {"generateName": "node-csr-"},
            "spec": {
                "request": STANDARD.encode(pem),
                "signerName": pair.signer(),
                "usages": pair.usages(),
            }
        }))?;
        let made = requests
            .create(&PostParams::default(), &request)
            .await
            .map_err(|error| match error {
                kube::Error::Api(status) if status.code == 401 => {
                    anyhow::anyhow!("the token is not valid (any more): see hull token list")
                }
                error => error.into(),
            })?;
        let name = made.metadata.name.unwrap_or_default();
        let answered = await_condition(requests, &name, |request: Option<&_>| {
            request.is_some_and(|request| answer(request).is_some())
        });
        let remind = async {
            tokio::time::sleep(scaled(PATIENCE)).await;
            tracing::info!(
                request = name,
                "waiting for approval: kubectl certificate approve {name} (a node that is \
                 registered already is not approved by itself; delete it first if this one \
                 replaces it)"
            );
            std::future::pending::<()>().await;
        };
        let waited = async {
            tokio::select! {
                found = answered => found,
                () = remind => Ok(None),
            }
        };
        let found = tokio::time::timeout(APPROVAL_TIMEOUT, waited)
            .await
            .with_context(|| {
                let minutes = APPROVAL_TIMEOUT.as_secs() / 60;
                format!("request {name} was not answered within {minutes} minutes")
            })??;
        match found.as_ref().and_then(answer) {
            Some(Ok(certificate)) => Ok(certificate),
            Some(Err(why)) => bail!("request {name} was refused: {why}"),
            None => bail!("request {name} was removed before it was answered"),
        }
    }
}

/// The certificate, or why there will be none.
fn answer(request: &CertificateSigningRequest) -> Option<Result<String, String>> {
    let status = request.status.as_ref()?;
    if let Some(certificate) = &status.certificate
        && !certificate.0.is_empty()
    {
        return Some(Ok(String::from_utf8_lossy(&certificate.0).into_owned()));
    }
    let refusal = status
        .conditions
        .iter()
        .flatten()
        .find(|condition| matches!(condition.type_.as_str(), "Denied" | "Failed"))?;
    let words = refusal.message.clone().or_else(|| refusal.reason.clone());
    Some(Err(words.unwrap_or_else(|| refusal.type_.clone())))
}

fn pem_of(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> = text
        .as_bytes()
        .chunks(64)
        .filter_map(|line| std::str::from_utf8(line).ok())
        .collect();
    format!(
        "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
        lines.join("\n")
    )
}
