//! What is known, and the loop that keeps the kernel up to it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use parking_lot::RwLock;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::NetdError;
use super::inputs::Input;
use crate::config::NetdConfig;
use crate::dns::zone::Zone;
use crate::metrics::Metrics;
use crate::nft::Nft;
use crate::nodes::model::NodeIndex;
use crate::nodes::plan::Plan;
use crate::policy;
use crate::policy::index::PolicyIndex;
use crate::ports;
use crate::ports::attachment::InterfaceName;
use crate::ports::watch::Attachments;
use crate::server::Ready;
use crate::services::endpoints::Place;
use crate::services::health::HealthServers;
use crate::services::index::{ServiceIndex, UdpChange};
use crate::services::model::ServiceKey;
use crate::services::ruleset;
use crate::sync::Synced;
use crate::watch::{Change, id};

/// Changes that one transaction holds at most.
const INPUT_BURST: usize = 4096;
/// How often a table that could not be written is tried again.
const RETRY: Duration = Duration::from_secs(5);
/// How often is looked whether somebody took the tables away.
const AUDIT: Duration = Duration::from_secs(30);
/// A label of nodes.
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

/// See the module.
pub(super) struct Daemon {
    pub(super) nft: Nft,
    pub(super) metrics: Metrics,
    pub(super) ready: Ready,
    pub(super) zone: Arc<RwLock<Zone>>,
    pub(super) services: ServiceIndex,
    pub(super) service_table: Synced,
    pub(super) policies: PolicyIndex,
    pub(super) policy_table: Synced,
    /// Policies, pods and namespaces were read once.
    pub(super) policy_lists: [bool; 3],
    pub(super) port_table: Synced,
    /// Units of the port table that stand for attachments.
    pub(super) port_units: BTreeSet<String>,
    pub(super) attachments: Attachments,
    /// Attachments were read once.
    pub(super) attachments_read: bool,
    pub(super) ports_changed: bool,
    pub(super) health: HealthServers,
    /// Flows to look at once the table is in force.
    pub(super) udp: Vec<UdpChange>,
    pub(super) services_synced: bool,
    pub(super) slices_synced: bool,
    pub(super) config: NetdConfig,
    pub(super) nodes: NodeIndex,
    pub(super) nodes_synced: bool,
    /// The way to other nodes is to be looked at.
    pub(super) nodes_changed: bool,
    /// What it was brought to; `None`: nothing yet.
    pub(super) connected: Option<Plan>,
}

impl Daemon {
    /// Nothing is known yet.
    pub(super) fn new(config: &NetdConfig, metrics: Metrics, ready: Ready) -> Self {
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
            config: config.clone(),
            nodes: NodeIndex::default(),
            nodes_synced: false,
            nodes_changed: true,
            connected: None,
        }
    }

    /// Follows `inputs` until `shutdown`.
    pub(super) async fn run(
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
                if id(&*node).1 == self.config.node_name {
                    let labels = node.metadata.labels.as_ref();
                    let zone = labels.and_then(|labels| labels.get(ZONE_LABEL).cloned());
                    self.services.set_zone(zone);
                }
                self.nodes_changed |= self.nodes.set(&node);
            }
            Input::Node(Change::Deleted(_, name)) => {
                self.nodes_changed |= self.nodes.remove(&name);
            }
            Input::Node(Change::Synced) => self.nodes_synced = true,
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::zone::{Answer, Data, Want};
    use crate::nodes::NodeLinks;
    use serde_json::json;

    #[test]
    fn the_table_is_not_written_before_the_way_to_other_nodes_is_known() {
        let config = NetdConfig::new("n1", Vec::new());
        let mut daemon = Daemon::new(&config, Metrics::default(), Ready::default());
        daemon.observe(Input::Service(Change::Synced));
        daemon.observe(Input::Slice(Change::Synced));
        assert!(!daemon.knows_services(), "the Nodes are missing");
        daemon.observe(Input::Node(Change::Synced));
        assert!(!daemon.knows_services(), "nothing was planned for them");
        daemon.plan_tables(Plan::default(), NodeLinks::None);
        assert!(daemon.knows_services());
    }

    #[tokio::test]
    async fn services_are_names_as_soon_as_they_are_seen() {
        let config = NetdConfig::new("n1", Vec::new());
        let mut daemon = Daemon::new(&config, Metrics::default(), Ready::default());
        let service = json!({"metadata": {"namespace": "a", "name": "web"},
            "spec": {"clusterIP": "10.43.0.5", "clusterIPs": ["10.43.0.5"]}});
        let service = Arc::new(serde_json::from_value(service).unwrap());
        daemon.observe(Input::Service(Change::Applied(service)));
        daemon.zone.write().set_complete();
        let ask = |daemon: &Daemon| {
            let name = ["web", "a", "svc", "cluster", "local"].map(String::from);
            daemon.zone.read().answer(&name, Want::A)
        };
        let address = Data::Address([10, 43, 0, 5].into());
        assert_eq!(ask(&daemon), Answer::Records(vec![address]));
        daemon.observe(Input::Service(Change::Deleted("a".into(), "web".into())));
        assert_eq!(ask(&daemon), Answer::NoName);
    }
}
