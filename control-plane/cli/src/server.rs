//! The control plane: store, API server, scheduler, controllers.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use hull_apiserver::audit::{Audit, AuditFile, AuditLog, AuditWebhook, BATCH_WAIT, Policy};
use hull_apiserver::pki::ClusterPki;
use hull_apiserver::{ApiServer, ApiServerConfig, JwtIssuers, ServiceNetwork, UserInfo};
use hull_client::leader::LeaderElection;
use hull_controllers::certificates::SigningCa;
use hull_controllers::{ControllersConfig, ControllersMetrics};
use hull_scheduler::{SchedulerConfig, SchedulerMetrics};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::certificates::Renewal;
use crate::client::in_process;
use crate::doors::{Doors, listen_early};
use crate::files::{lock_data_dir, make_private_dir, write_atomically};
use crate::follow::Followed;
use crate::settings::{AuditSettings, Resolved};
use crate::signals;
use crate::store;

/// The tasks of a process; the first that fails ends it.
pub type Tasks = JoinSet<anyhow::Result<()>>;

/// The running control plane.
pub struct ControlPlane {
    /// The API server, for in-process clients.
    pub api: Arc<ApiServer>,
    /// Its certificates.
    pub pki: ClusterPki,
}

/// What Services are given: the IPv4 network of the settings.
fn service_network(settings: &Resolved) -> anyhow::Result<ServiceNetwork> {
    let mut network = ServiceNetwork::default();
    let mut all = settings.service_networks.iter();
    if let Some(ipv4) = all.find(|network| network.addr().is_ipv4()) {
        network.addresses = ipv4.to_string().parse().context("service_cidr")?;
    }
    Ok(network)
}

/// Opens the certificates below the data directory.
pub fn pki(settings: &Resolved) -> anyhow::Result<ClusterPki> {
    let mut names = settings.tls_san.clone();
    names.push(settings.node_name.clone());
    names.push(settings.node_ip.to_string());
    if !settings.listen.ip().is_unspecified() {
        names.push(settings.listen.ip().to_string());
    }
    names.push(service_network(settings)?.addresses.first().to_string());
    ClusterPki::load_or_create(settings.data_dir.join("pki"), &names).context("certificates")
}

/// The administrator's kubeconfig. It names the loopback address, which every certificate holds.
pub fn admin_kubeconfig(settings: &Resolved) -> anyhow::Result<String> {
    let directory = settings.data_dir.join("pki");
    anyhow::ensure!(
        directory.join("ca.crt").exists(),
        "there is no cluster in {}: run `hull up` or `hull server` first",
        settings.data_dir.display()
    );
    kubeconfig_of(settings, &pki(settings)?)
}

pub fn kubeconfig_of(settings: &Resolved, pki: &ClusterPki) -> anyhow::Result<String> {
    let admin = pki.admin().context("administrator's certificate")?;
    let server = format!("https://127.0.0.1:{}", settings.listen.port());
    Ok(pki.kubeconfig(&server, "kubernetes-admin", &admin))
}

/// Tells this process from every other, also from its predecessor.
fn instance_identity(settings: &Resolved) -> String {
    let started = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    format!(
        "{}_{}_{}",
        settings.node_name,
        std::process::id(),
        started.as_nanos()
    )
}

/// Reads the policy, opens the log and starts to send.
fn audit(settings: &AuditSettings) -> anyhow::Result<Arc<Audit>> {
    let read = |path: &Path| {
        std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))
    };
    let policy = &settings.policy;
    let parsed = Policy::parse(&read(policy)?).with_context(|| policy.display().to_string())?;
    let open = |log: &AuditFile| {
        AuditLog::open(log.clone())
            .with_context(|| format!("open the audit log {}", log.path.display()))
    };
    let send = |path: &PathBuf| {
        let folder = path.parent().unwrap_or(Path::new("/"));
        AuditWebhook::start(&read(path)?, folder, BATCH_WAIT)
            .with_context(|| path.display().to_string())
    };
    let log = settings.log.as_ref().map(open).transpose()?;
    let webhook = settings.webhook_config.as_ref().map(send).transpose()?;
    Ok(Arc::new(Audit::to(parsed, log, webhook)))
}

/// Starts the control plane; it ends with `shutdown`.
pub async fn start(
    settings: &Resolved,
    tasks: &mut Tasks,
    shutdown: &CancellationToken,
) -> anyhow::Result<ControlPlane> {
    let pki = pki(settings)?;
    let doors = Doors::of(settings);
    let listener = TcpListener::bind(settings.listen)
        .await
        .with_context(|| format!("API server: listen on {}", settings.listen))?;
    let mut listeners = vec![listener];
    if let Some(address) = doors.for_pods {
        listeners.push(listen_early(address)?);
    }
    let store = settings.store.open().await?;
    store::offer(&settings.store, store.clone(), tasks, shutdown);
    let store = match &settings.encryption_config {
        Some(path) => store::encrypted(store, path.clone(), tasks, shutdown)?,
        None => store,
    };
    let mut config = ApiServerConfig::new(pki.clone());
    // The controllers make each namespace's default account, the node agent writes the tokens.
    config.service_account_admission = true;
    config.advertise = Some(doors.advertised);
    config.service_network = service_network(settings)?;
    if let Some(path) = &settings.authentication_config {
        let file = Followed::new(path.clone());
        config.issuers = file.read(|text| Ok(JwtIssuers::parse(text)?))?;
        let issuers = config.issuers.clone();
        file.follow(move |text| Ok(issuers.replace(text)?), tasks, shutdown);
    }
    if let Some(seconds) = settings.event_ttl {
        config.event_ttl = Duration::from_secs(seconds);
    }
    config.audit = settings.audit.as_ref().map(audit).transpose()?;
    let identity = instance_identity(settings);
    let election = |lease: &str| {
        settings
            .leader_elect
            .then(|| LeaderElection::new(lease, &identity))
    };
    let scheduler = SchedulerConfig {
        leader_election: election("kube-scheduler"),
        metrics: SchedulerMetrics::register(&mut config.registry),
        ..SchedulerConfig::default()
    };
    let controllers = ControllersConfig {
        leader_election: election("kube-controller-manager"),
        metrics: ControllersMetrics::register(&mut config.registry),
        cluster_ca: Some(pki.ca_pem().to_string()),
        signing_ca: Some(SigningCa {
            certificate: pki.ca_pem().to_string(),
            key: pki.ca_key_pem().to_string(),
            reserved_names: pki.server_names().to_vec(),
        }),
        load_balancer_pool: settings.load_balancer_pool.clone(),
        node_cidrs: settings
            .cluster_network
            .node_cidrs(&settings.service_networks)?,
        ..ControllersConfig::default()
    };
    let api = ApiServer::new(config, store)
        .await
        .context("start the API server")?;
    if let Some(parent) = settings.kubeconfig.parent() {
        make_private_dir(parent)?;
    }
    write_atomically(&settings.kubeconfig, &kubeconfig_of(settings, &pki)?, 0o600)?;
    tracing::info!(kubeconfig = %settings.kubeconfig.display(), "kubeconfig written");
    for listener in listeners {
        let server = api.clone();
        let stop = shutdown.clone();
        tasks.spawn(async move {
            server
                .serve(listener, stop.cancelled_owned())
                .await
                .context("API server")
        });
    }
    let client = in_process(&api, UserInfo::scheduler());
    let stop = shutdown.clone();
    tasks.spawn(async move {
        hull_scheduler::run(client, scheduler, stop)
            .await
            .context("scheduler")
    });
    let client = in_process(&api, UserInfo::controller_manager());
    let stop = shutdown.clone();
    tasks.spawn(async move {
        hull_controllers::run(client, controllers, stop)
            .await
            .context("controllers")
    });
    Ok(ControlPlane { api, pki })
}

/// Waits for every task; the first failure shuts the others down and is the answer.
pub async fn finish(mut tasks: Tasks, shutdown: CancellationToken) -> anyhow::Result<()> {
    let mut result = Ok(());
    while let Some(ended) = tasks.join_next().await {
        let ended = ended.context("task").and_then(|outcome| outcome);
        if ended.is_err() && result.is_ok() {
            result = ended;
        } else if let Err(error) = ended {
            tracing::error!("{error:#}");
        }
        if !shutdown.is_cancelled() {
            if result.is_ok() {
                result = Err(anyhow::anyhow!("a part of hull ended unasked"));
            }
            shutdown.cancel();
        }
    }
    result
}

/// `hull server`.
pub async fn run(mut settings: Resolved) -> anyhow::Result<()> {
    // It is another process that runs the service network.
    settings.netd = false;
    let _lock = lock_data_dir(&settings.data_dir, "server")?;
    let shutdown = signals::shutdown()?;
    let mut tasks = Tasks::new();
    let control_plane = start(&settings, &mut tasks, &shutdown).await?;
    Renewal::of(&settings, &control_plane, None).start(&mut tasks, &shutdown);
    tracing::info!(listen = %settings.listen, "control plane runs");
    finish(tasks, shutdown).await
}
