//! The wiring: changes in, tables out.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::runtime::watcher;
use kube::{Api, Client};
use parking_lot::RwLock;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::NetdConfig;
use crate::conntrack;
use crate::dns;
use crate::dns::forward::{self, Forwarder};
use crate::dns::metrics::DnsMetrics;
use crate::dns::server::Resolver;
use crate::dns::zone::Zone;
use crate::metrics::Metrics;
use crate::nft::Nft;
use crate::policy;
use crate::policy::index::PolicyIndex;
use crate::ports::attachment::{InterfaceName, Mac};
use crate::ports::watch::Attachments;
use crate::ports::{self, bridge};
use crate::server::{self, Ready};
use crate::service_link;
use crate::services::endpoints::Place;
use crate::services::health::HealthServers;
use crate::services::index::{ServiceIndex, UdpChange};
use crate::services::model::ServiceKey;
use crate::services::ruleset;
use crate::services::stale::is_stale;
use crate::sync::Synced;
use crate::sysctl;
use crate::watch::{Change, follow, id};

/// Changes waiting; the watches stop reading when it is full.
const INPUT_QUEUE: usize = 4096;
/// Changes that one transaction holds at most.
const INPUT_BURST: usize = 4096;
/// How often a table that could not be written is tried again.
const RETRY: Duration = Duration::from_secs(5);
/// How often is looked whether somebody took the tables away.
const AUDIT: Duration = Duration::from_secs(30);
/// A label of nodes.
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

/// Why netd ended.
#[derive(Debug, thiserror::Error)]
pub enum NetdError {
    /// The metrics server broke.
    #[error("serve metrics on {address}: {source}")]
    Server {
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A watch task ended although it retries for ever.
    #[error("the watches ended")]
    WatchesEnded,
}

enum Input {
    Service(Change<Service>),
    Slice(Change<EndpointSlice>),
    Node(Change<Node>),
    Attachments(Attachments),
    Policy(Change<NetworkPolicy>),
    Pod(Change<Pod>),
    Namespace(Change<Namespace>),
}

/// Runs netd until `shutdown`. The kernel's tables stay: traffic goes on.
///
/// # Errors
/// [`NetdError`].
pub async fn run(
    client: Client,
    config: NetdConfig,
    shutdown: CancellationToken,
) -> Result<(), NetdError> {
    let helpers = shutdown.child_token();
    let _stop = helpers.clone().drop_guard();
    let tasks = TaskTracker::new();
    let metrics = Metrics::default();
    let ready = Ready::default();
    sysctl::apply();
    let own = config.own_addresses();
    if let Err(error) = service_link::ensure(&own, &config.service_networks, &config.node_ips).await
    {
        tracing::warn!(%error, "the service interface is not complete");
    }
    let (input, inputs) = mpsc::channel(INPUT_QUEUE);
    watch(&client, &config, &input, &tasks, &helpers);
    drop(input);
    let mut served = tokio::spawn({
        let (listen, metrics, ready) = (config.metrics_listen, metrics.clone(), ready.clone());
        let helpers = helpers.clone();
        async move {
            match listen {
                Some(address) => server::run(address, metrics, ready, helpers)
                    .await
                    .map_err(|source| NetdError::Server { address, source }),
                None => {
                    helpers.cancelled().await;
                    Ok(())
                }
            }
        }
    });
    let daemon = Daemon::new(&config, metrics.clone(), ready);
    serve_dns(&config, &daemon, &metrics, &tasks, &helpers);
    let outcome = tokio::select! {
        outcome = daemon.run(inputs, &shutdown) => outcome,
        Ok(outcome) = &mut served => outcome,
    };
    helpers.cancel();
    tasks.close();
    tasks.wait().await;
    outcome
}

fn watch(
    client: &Client,
    config: &NetdConfig,
    input: &mpsc::Sender<Input>,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) {
    let services = Api::<Service>::all(client.clone());
    let slices = Api::<EndpointSlice>::all(client.clone());
    let nodes = Api::<Node>::all(client.clone());
    let everything = watcher::Config::default;
    let this_node = everything().fields(&format!("metadata.name={}", config.node_name));
    let input = || input.clone();
    tasks.spawn(stop.clone().run_until_cancelled_owned(follow(
        services,
        everything(),
        input(),
        Input::Service,
    )));
    tasks.spawn(stop.clone().run_until_cancelled_owned(follow(
        slices,
        everything(),
        input(),
        Input::Slice,
    )));
    tasks.spawn(stop.clone().run_until_cancelled_owned(follow(
        nodes,
        this_node,
        input(),
        Input::Node,
    )));
    let policies = Api::<NetworkPolicy>::all(client.clone());
    let pods = Api::<Pod>::all(client.clone());
    let namespaces = Api::<Namespace>::all(client.clone());
    tasks.spawn(stop.clone().run_until_cancelled_owned(follow(
        policies,
        everything(),
        input(),
        Input::Policy,
    )));
    tasks.spawn(stop.clone().run_until_cancelled_owned(follow(
        pods,
        everything(),
        input(),
        Input::Pod,
    )));
    tasks.spawn(stop.clone().run_until_cancelled_owned(follow(
        namespaces,
        everything(),
        input(),
        Input::Namespace,
    )));
    let (found, mut attachments) = mpsc::channel(1);
    tasks.spawn(
        stop.clone()
            .run_until_cancelled_owned(ports::watch::follow(config.cni_records.clone(), found)),
    );
    let input = input();
    tasks.spawn(stop.clone().run_until_cancelled_owned(async move {
        while let Some(found) = attachments.recv().await {
            if input.send(Input::Attachments(found)).await.is_err() {
                return;
            }
        }
    }));
}

fn serve_dns(
    config: &NetdConfig,
    daemon: &Daemon,
    metrics: &Metrics,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) {
    let own = config.own_addresses();
    let upstreams = if config.dns_upstreams.is_empty() {
        forward::system_servers(&config.resolv_conf, &own)
    } else {
        config.dns_upstreams.clone()
    };
    let forwarder = Forwarder::new(config.stub_domains.clone(), upstreams, config.timeout_scale);
    let figures = DnsMetrics::default();
    metrics.register(|registry| figures.register(registry));
    let resolver = Arc::new(Resolver::new(daemon.zone.clone(), forwarder, figures));
    for address in own {
        let address = SocketAddr::new(address, forward::PORT);
        tasks.spawn(dns::server::run(address, resolver.clone(), stop.clone()));
    }
}

struct Daemon {
    nft: Nft,
    metrics: Metrics,
    ready: Ready,
    zone: Arc<RwLock<Zone>>,
    services: ServiceIndex,
    service_table: Synced,
    policies: PolicyIndex,
    policy_table: Synced,
    /// Policies, pods and namespaces were read once.
    policy_lists: [bool; 3],
    port_table: Synced,
    /// Units of the port table that stand for attachments.
    port_units: BTreeSet<String>,
    attachments: Attachments,
    /// Attachments were read once.
    attachments_read: bool,
    ports_changed: bool,
    health: HealthServers,
    /// Flows to look at once the table is in force.
    udp: Vec<UdpChange>,
    services_synced: bool,
    slices_synced: bool,
}

impl Daemon {
    fn new(config: &NetdConfig, metrics: Metrics, ready: Ready) -> Self {
        let place = Place {
            node: config.node_name.clone(),
            zone: None,
        };
        let networks = [&config.pod_networks[..], &config.service_networks].concat();
        let mut table = ruleset::table();
        // Not a Service's name, which has a slash.
        table.set_fragment("pods", Some(ruleset::pod_networks(&config.pod_networks)));
        for name in config
            .bridges
            .iter()
            .filter_map(|name| InterfaceName::parse(name))
        {
            let guard = ruleset::guarded_bridge(&name);
            table.set_fragment(&format!("bridge {}", name.as_str()), Some(guard));
        }
        Daemon {
            nft: Nft::new(config.timeout_scale),
            metrics,
            ready,
            zone: Arc::new(RwLock::new(Zone::new(&config.cluster_domain, networks))),
            services: ServiceIndex::new(place, config.own_addresses()),
            service_table: Synced::new(table, "inet", "services"),
            policies: PolicyIndex::default(),
            policy_table: Synced::new(policy::rules::table(), "inet", "ingress"),
            policy_lists: [false; 3],
            port_table: Synced::new(ports::ruleset::table(), "bridge", "prerouting"),
            port_units: BTreeSet::new(),
            attachments: Attachments::new(),
            attachments_read: false,
            ports_changed: false,
            health: HealthServers::default(),
            udp: Vec::new(),
            services_synced: false,
            slices_synced: false,
        }
    }

    async fn run(
        mut self,
        mut inputs: mpsc::Receiver<Input>,
        shutdown: &CancellationToken,
    ) -> Result<(), NetdError> {
        let mut burst = Vec::with_capacity(INPUT_BURST);
        let mut audit = tokio::time::interval(AUDIT);
        let mut retry = false;
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return Ok(()),
                count = inputs.recv_many(&mut burst, INPUT_BURST) => {
                    if count == 0 {
                        return Err(NetdError::WatchesEnded);
                    }
                    for input in burst.drain(..) {
                        self.observe(input);
                    }
                    self.set_ports().await;
                }
                () = tokio::time::sleep(RETRY), if retry => {}
                _ = audit.tick() => self.audit().await,
            }
            retry = !self.sync().await;
        }
    }

    fn observe(&mut self, input: Input) {
        match input {
            Input::Service(Change::Applied(service)) => {
                self.zone.write().apply_service(service.clone());
                self.services.apply_service(service);
            }
            Input::Service(Change::Deleted(namespace, name)) => {
                let key = ServiceKey { namespace, name };
                self.zone.write().remove_service(&key);
                self.services.remove_service(&key);
            }
            Input::Service(Change::Synced) => self.services_synced = true,
            Input::Slice(Change::Applied(slice)) => {
                self.zone.write().apply_slice(slice.clone());
                self.services.apply_slice(slice);
            }
            Input::Slice(Change::Deleted(namespace, name)) => {
                self.zone.write().remove_slice(&namespace, &name);
                self.services.remove_slice(&namespace, &name);
            }
            Input::Slice(Change::Synced) => self.slices_synced = true,
            Input::Node(Change::Applied(node)) => {
                let labels = node.metadata.labels.as_ref();
                let zone = labels.and_then(|labels| labels.get(ZONE_LABEL).cloned());
                self.services.set_zone(zone);
            }
            Input::Node(Change::Deleted(..) | Change::Synced) => {}
            Input::Policy(change) => self.observe_policy(change),
            Input::Pod(change) => self.observe_pod(change),
            Input::Namespace(change) => self.observe_namespace(change),
            Input::Attachments(found) => {
                self.policies.set_attachments(found.clone());
                self.attachments = found;
                self.attachments_read = true;
                self.ports_changed = true;
            }
        }
    }

    fn observe_policy(&mut self, change: Change<NetworkPolicy>) {
        match change {
            Change::Applied(policy) => self.policies.set_policy(id(&*policy), Some(&policy)),
            Change::Deleted(namespace, name) => {
                self.policies.set_policy((namespace, name), None);
            }
            Change::Synced => self.policy_lists[0] = true,
        }
    }

    fn observe_pod(&mut self, change: Change<Pod>) {
        match change {
            Change::Applied(pod) => self.policies.set_pod(id(&*pod), Some(&pod)),
            Change::Deleted(namespace, name) => self.policies.set_pod((namespace, name), None),
            Change::Synced => self.policy_lists[1] = true,
        }
    }

    fn observe_namespace(&mut self, change: Change<Namespace>) {
        match change {
            Change::Applied(namespace) => {
                self.policies
                    .set_namespace(id(&*namespace).1, Some(&namespace));
            }
            Change::Deleted(_, name) => self.policies.set_namespace(name, None),
            Change::Synced => self.policy_lists[2] = true,
        }
    }

    async fn sync_policies(&mut self) -> bool {
        if !self.attachments_read || self.policy_lists.contains(&false) {
            return true;
        }
        self.policies.update(&mut self.policy_table.table);
        match self.policy_table.sync(&self.nft, &self.metrics).await {
            Ok(()) => true,
            Err(error) => {
                tracing::error!(%error, "network policies are not in force; trying again");
                false
            }
        }
    }

    async fn audit(&mut self) {
        let tables = [
            &mut self.service_table,
            &mut self.port_table,
            &mut self.policy_table,
        ];
        for table in tables {
            match table.vanished(&self.nft).await {
                Ok(true) => tracing::warn!(
                    table = table.table.id(),
                    "the table was taken away; it is written again"
                ),
                Ok(false) => {}
                Err(error) => tracing::warn!(%error, "cannot look at the kernel's tables"),
            }
        }
    }

    /// Brings the port table up to the attachments.
    async fn set_ports(&mut self) {
        if !std::mem::take(&mut self.ports_changed) {
            return;
        }
        let mut node_macs: BTreeMap<InterfaceName, Option<Mac>> = BTreeMap::new();
        let mut units = BTreeSet::new();
        for attachment in self.attachments.clone().values() {
            // Without a bridge the pod's frames reach nobody but the node.
            let Some(name) = &attachment.bridge else {
                continue;
            };
            if !node_macs.contains_key(name) {
                let mac = bridge::prepare(name).await.unwrap_or_else(|error| {
                    tracing::warn!(bridge = name.as_str(), %error, "bridge is not ready");
                    None
                });
                node_macs.insert(name.clone(), mac);
                let unit = format!("bridge {}", name.as_str());
                if mac.is_some() {
                    let guard = ruleset::guarded_bridge(name);
                    self.service_table.table.set_fragment(&unit, Some(guard));
                }
            }
            let Some(mac) = node_macs[name] else { continue };
            bridge::allow_hairpin(&attachment.port);
            let unit = format!("port {}", attachment.port.as_str());
            let fragment = ports::ruleset::port(attachment, mac);
            self.port_table.table.set_fragment(&unit, Some(fragment));
            units.insert(unit);
        }
        for gone in self.port_units.difference(&units) {
            self.port_table.table.set_fragment(gone, None);
        }
        self.port_units = units;
    }

    /// Whether everything is in force.
    async fn sync(&mut self) -> bool {
        // Policies before the ports through which a new pod speaks.
        let policies = self.sync_policies().await;
        let ports = self.sync_ports().await;
        self.sync_services().await && ports && policies
    }

    async fn sync_ports(&mut self) -> bool {
        if !self.attachments_read {
            return true;
        }
        match self.port_table.sync(&self.nft, &self.metrics).await {
            Ok(()) => true,
            Err(error) => {
                tracing::error!(%error, "the guard of pods' frames is not in force; trying again");
                false
            }
        }
    }

    async fn sync_services(&mut self) -> bool {
        if !(self.services_synced && self.slices_synced) {
            return true;
        }
        self.zone.write().set_complete();
        let update = self.services.update(&mut self.service_table.table);
        self.udp.extend(update.udp);
        let outcome = self.service_table.sync(&self.nft, &self.metrics).await;
        if let Err(error) = outcome {
            tracing::error!(%error, "services are not in force; trying again");
            return false;
        }
        self.metrics.services.set(self.services.len() as i64);
        let elements = self.service_table.table.element_count();
        self.metrics.elements.set(elements as i64);
        if !self.ready.swap(true, Ordering::AcqRel) {
            tracing::info!(
                services = self.services.len(),
                elements,
                "services are in force"
            );
        }
        self.forget_flows().await;
        self.health.set(self.services.health()).await;
        true
    }

    async fn forget_flows(&mut self) {
        if self.udp.is_empty() {
            return;
        }
        let changes = std::mem::take(&mut self.udp);
        let forgotten = tokio::task::spawn_blocking(move || {
            conntrack::forget_udp(|flow| {
                changes
                    .iter()
                    .any(|change| is_stale(flow, &change.old, &change.new))
            })
        })
        .await;
        match forgotten {
            Ok(Ok(flows)) => {
                self.metrics.flows_forgotten.inc_by(flows as u64);
                tracing::debug!(flows, "stale UDP flows forgotten");
            }
            Ok(Err(error)) => tracing::warn!(%error, "stale UDP flows stay"),
            Err(error) => tracing::warn!(%error, "stale UDP flows stay"),
        }
    }
}
