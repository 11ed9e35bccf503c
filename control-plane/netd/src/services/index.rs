//! Services and their slices as the last watch event left them, and which Services must be looked
//! at again.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;

use super::endpoints::{Place, choose};
use super::health::Health;
use super::model::{Endpoint, Protocol, ServiceKey, ServiceModel, endpoints};
use super::ruleset::fragment;
use super::stale::{UdpPorts, may_leave_stale};
use crate::nft::Table;

/// See the module.
#[derive(Default)]
pub struct ServiceIndex {
    place: Place,
    own_addresses: Vec<IpAddr>,
    services: HashMap<ServiceKey, Arc<Service>>,
    slices: HashMap<ServiceKey, BTreeMap<String, Arc<EndpointSlice>>>,
    /// Which Service a slice counted for, by the slice's namespace and name.
    slice_of: HashMap<(String, String), ServiceKey>,
    dirty: BTreeSet<ServiceKey>,
    udp: HashMap<ServiceKey, UdpPorts>,
    health: BTreeMap<u16, Health>,
}

/// UDP flows of a Service before and after; see [`super::stale`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UdpChange {
    /// Before.
    pub old: UdpPorts,
    /// After.
    pub new: UdpPorts,
}

/// What came of looking at the changed Services.
#[derive(Debug, Default)]
pub struct Update {
    /// How many were looked at.
    pub services: usize,
    /// Flows that may have to be forgotten once the table is in force.
    pub udp: Vec<UdpChange>,
}

fn slice_id(slice: &EndpointSlice) -> (String, String) {
    (
        slice.metadata.namespace.clone().unwrap_or_default(),
        slice.metadata.name.clone().unwrap_or_default(),
    )
}

impl ServiceIndex {
    /// An index for a node. `own_addresses` are answered by this process itself.
    pub fn new(place: Place, own_addresses: Vec<IpAddr>) -> Self {
        ServiceIndex {
            place,
            own_addresses,
            ..Default::default()
        }
    }

    /// The node's zone, as its labels say. Every Service is looked at again when it changes.
    pub fn set_zone(&mut self, zone: Option<String>) {
        if self.place.zone != zone {
            self.place.zone = zone;
            self.dirty.extend(self.services.keys().cloned());
        }
    }

    /// A Service came or changed.
    pub fn apply_service(&mut self, service: Arc<Service>) {
        let key = ServiceKey::of(&service);
        self.dirty.insert(key.clone());
        self.services.insert(key, service);
    }

    /// A Service went.
    pub fn remove_service(&mut self, key: &ServiceKey) {
        self.services.remove(key);
        self.dirty.insert(key.clone());
    }

    /// A slice came or changed.
    pub fn apply_slice(&mut self, slice: Arc<EndpointSlice>) {
        let id = slice_id(&slice);
        let key = ServiceKey::of_slice(&slice);
        if self.slice_of.get(&id) != key.as_ref() {
            self.forget_slice(&id);
        }
        let Some(key) = key else { return };
        self.dirty.insert(key.clone());
        self.slice_of.insert(id.clone(), key.clone());
        self.slices.entry(key).or_default().insert(id.1, slice);
    }

    /// A slice went.
    pub fn remove_slice(&mut self, namespace: &str, name: &str) {
        self.forget_slice(&(namespace.to_string(), name.to_string()));
    }

    fn forget_slice(&mut self, id: &(String, String)) {
        let Some(key) = self.slice_of.remove(id) else {
            return;
        };
        if let Some(slices) = self.slices.get_mut(&key) {
            slices.remove(&id.1);
            if slices.is_empty() {
                self.slices.remove(&key);
            }
        }
        self.dirty.insert(key);
    }

    /// A Service.
    pub fn service(&self, key: &ServiceKey) -> Option<&Arc<Service>> {
        self.services.get(key)
    }

    /// How many Services there are.
    pub fn len(&self) -> usize {
        self.services.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.services.is_empty()
    }

    /// Health check ports that must be served, with their answers.
    pub fn health(&self) -> &BTreeMap<u16, Health> {
        &self.health
    }

    /// Brings the table up to the changed Services.
    pub fn update(&mut self, table: &mut Table) -> Update {
        let mut update = Update::default();
        for key in std::mem::take(&mut self.dirty) {
            update.services += 1;
            let model = self.services.get(&key).and_then(|s| ServiceModel::of(s));
            let found = self.port_endpoints(&key, model.as_ref());
            let of_port = |name: &str, protocol| {
                let port = found.get(&(name.to_string(), protocol));
                port.cloned().unwrap_or_default()
            };
            let new = model.as_ref().map(|model| {
                let endpoints =
                    |port: &super::model::ServicePort| of_port(&port.name, port.protocol);
                fragment(table, model, endpoints, &self.place, &self.own_addresses)
            });
            table.set_fragment(&key.to_string(), new);
            self.note_health(&key, model.as_ref(), &found);
            let udp = model.as_ref().map(|m| self.udp_ports(m, &found));
            self.note_udp(key, udp.unwrap_or_default(), &mut update);
        }
        update
    }

    fn port_endpoints(
        &self,
        key: &ServiceKey,
        model: Option<&ServiceModel>,
    ) -> BTreeMap<(String, Protocol), Vec<Endpoint>> {
        let slices = || self.slices.get(key).into_iter().flat_map(BTreeMap::values);
        let ports = model.into_iter().flat_map(|model| &model.ports);
        ports
            .map(|port| {
                let slices = slices().map(Arc::as_ref);
                let found = endpoints(slices, &port.name, port.protocol, &self.place.node);
                ((port.name.clone(), port.protocol), found)
            })
            .collect()
    }

    fn note_health(
        &mut self,
        key: &ServiceKey,
        model: Option<&ServiceModel>,
        found: &BTreeMap<(String, Protocol), Vec<Endpoint>>,
    ) {
        self.health.retain(|_, health| health.service != *key);
        let Some(port) = model.and_then(|model| model.health_check_port) else {
            return;
        };
        let local: BTreeSet<IpAddr> = found
            .values()
            .flatten()
            .filter(|endpoint| endpoint.local && endpoint.ready)
            .map(|endpoint| endpoint.address)
            .collect();
        let health = Health {
            service: key.clone(),
            local_endpoints: local.len(),
        };
        // Ports are the API server's to give out; the first Service keeps a doubled one.
        self.health.entry(port).or_insert(health);
    }

    fn udp_ports(
        &self,
        model: &ServiceModel,
        found: &BTreeMap<(String, Protocol), Vec<Endpoint>>,
    ) -> UdpPorts {
        let mut udp = UdpPorts::default();
        let addresses = || {
            let cluster = model.cluster_ips.iter().chain(&model.external_ips);
            cluster.chain(&model.load_balancer_ips)
        };
        for port in &model.ports {
            if port.protocol != Protocol::Udp {
                continue;
            }
            udp.destinations
                .extend(addresses().map(|ip| (Some(*ip), port.port)));
            udp.destinations
                .extend(port.node_port.map(|port| (None, port)));
            let key = (port.name.clone(), port.protocol);
            if let Some(endpoints) = found.get(&key) {
                for ipv6 in [false, true] {
                    let chosen = choose(endpoints, ipv6, &self.place);
                    udp.endpoints.extend(chosen.cluster);
                    udp.endpoints.extend(chosen.local);
                }
            }
        }
        udp
    }

    fn note_udp(&mut self, key: ServiceKey, new: UdpPorts, update: &mut Update) {
        let old = self.udp.remove(&key).unwrap_or_default();
        if may_leave_stale(&old, &new) {
            update.udp.push(UdpChange {
                old,
                new: new.clone(),
            });
        }
        if new != UdpPorts::default() {
            self.udp.insert(key, new);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn service(protocol: &str) -> Arc<Service> {
        let service = serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "a"},
            "spec": {
                "type": "LoadBalancer", "clusterIP": "10.43.0.5", "clusterIPs": ["10.43.0.5"],
                "externalTrafficPolicy": "Local", "healthCheckNodePort": 31000,
                "ports": [{"port": 80, "protocol": protocol, "targetPort": 8080}],
            },
        }));
        Arc::new(service.unwrap())
    }

    fn slice(name: &str, protocol: &str, addresses: &[&str]) -> Arc<EndpointSlice> {
        let endpoints: Vec<_> = addresses
            .iter()
            .map(|ip| json!({"addresses": [ip], "nodeName": "n1"}))
            .collect();
        let slice = serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "a", "labels": {SERVICE: "web"}},
            "addressType": "IPv4",
            "ports": [{"port": 8080, "protocol": protocol}], "endpoints": endpoints,
        }));
        Arc::new(slice.unwrap())
    }
    const SERVICE: &str = crate::services::model::SERVICE_NAME_LABEL;

    fn index() -> (ServiceIndex, Table) {
        let place = Place {
            node: "n1".into(),
            zone: None,
        };
        let index = ServiceIndex::new(place, Vec::new());
        (index, crate::services::ruleset::table())
    }

    #[test]
    fn slices_of_a_service_are_joined_in_any_order() {
        let (mut index, mut table) = index();
        index.apply_slice(slice("web-1", "TCP", &["10.42.0.5"]));
        index.apply_service(service("TCP"));
        index.apply_slice(slice("web-2", "TCP", &["10.42.0.6"]));
        assert_eq!(index.update(&mut table).services, 1);
        let endpoints = |table: &Table| {
            let fragment = table.fragment("a/web").unwrap();
            fragment.elements_of("endpoints4").count()
        };
        assert_eq!(endpoints(&table), 2);
        index.remove_slice("a", "web-1");
        index.update(&mut table);
        assert_eq!(endpoints(&table), 1);
        index.remove_service(&ServiceKey::of(&service("TCP")));
        index.update(&mut table);
        assert!(table.fragment("a/web").is_none());
        assert_eq!(table.element_count(), 0);
    }

    #[test]
    fn only_changed_services_are_looked_at() {
        let (mut index, mut table) = index();
        index.apply_service(service("TCP"));
        assert_eq!(index.update(&mut table).services, 1);
        assert_eq!(index.update(&mut table).services, 0);
        index.set_zone(Some("z1".into()));
        assert_eq!(index.update(&mut table).services, 1);
    }

    #[test]
    fn health_counts_ready_addresses_of_this_node() {
        let (mut index, mut table) = index();
        index.apply_service(service("TCP"));
        index.apply_slice(slice("web-1", "TCP", &["10.42.0.5", "10.42.0.6"]));
        index.update(&mut table);
        assert_eq!(index.health()[&31000].local_endpoints, 2);
        index.remove_service(&ServiceKey::of(&service("TCP")));
        index.update(&mut table);
        assert!(index.health().is_empty());
    }

    #[test]
    fn udp_changes_are_reported_when_flows_may_be_stale() {
        let (mut index, mut table) = index();
        index.apply_service(service("UDP"));
        assert!(index.update(&mut table).udp.is_empty());
        index.apply_slice(slice("web-1", "UDP", &["10.42.0.5"]));
        assert_eq!(index.update(&mut table).udp.len(), 1, "first endpoint");
        index.apply_slice(slice("web-1", "UDP", &["10.42.0.5", "10.42.0.6"]));
        assert!(index.update(&mut table).udp.is_empty(), "one more");
        index.apply_slice(slice("web-1", "UDP", &["10.42.0.6"]));
        assert_eq!(index.update(&mut table).udp.len(), 1, "one less");
    }
}
