//! The cluster's names, and what they mean. Pure: objects in, answers out.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

use crate::services::model::ServiceKey;

/// The version of the specification, at `dns-version`.
const SPECIFICATION: &str = "1.1.0";

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Want {
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
    /// Ports.
    Srv,
    /// A name for an address.
    Ptr,
    /// Text.
    Txt,
    /// Another type: names answer that they exist, and no more.
    Other,
}

/// One record's data.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Data {
    /// An address.
    Address(IpAddr),
    /// A port of a target.
    Srv {
        /// The port.
        port: u16,
        /// The target's name.
        target: String,
        /// The target's addresses, given along.
        addresses: Vec<IpAddr>,
    },
    /// A name.
    Ptr(String),
    /// The name stands for another one.
    Cname(String),
    /// Text.
    Text(&'static str),
}

/// What the zone says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Records; none when the name exists without that type.
    Records(Vec<Data>),
    /// There is no such name.
    NoName,
    /// Not a name of the cluster.
    NotOurs,
}

/// See the module.
pub struct Zone {
    /// Whether everything that the API server has was read once: before that, nothing is said not
    /// to exist.
    complete: bool,
    domain: Vec<String>,
    /// Addresses whose reverse names are the cluster's.
    networks: Vec<IpNet>,
    services: HashMap<ServiceKey, Arc<Service>>,
    slices: HashMap<ServiceKey, BTreeMap<String, Arc<EndpointSlice>>>,
    slice_of: HashMap<(String, String), ServiceKey>,
    /// Services by namespace.
    namespaces: HashMap<String, HashSet<String>>,
    /// Services by cluster address, and headless ones by endpoint.
    by_address: HashMap<IpAddr, HashSet<ServiceKey>>,
}

fn cluster_ips(service: &Service) -> Vec<IpAddr> {
    let Some(spec) = &service.spec else {
        return Vec::new();
    };
    let mut texts: Vec<&String> = spec.cluster_ips.iter().flatten().collect();
    if texts.is_empty() {
        texts.extend(&spec.cluster_ip);
    }
    texts.into_iter().filter_map(|ip| ip.parse().ok()).collect()
}

fn external_name(service: &Service) -> Option<&str> {
    let spec = service.spec.as_ref()?;
    let name = spec.external_name.as_deref()?;
    (spec.type_.as_deref() == Some("ExternalName")).then_some(name)
}

fn is_ready(endpoint: &Endpoint) -> bool {
    let conditions = endpoint.conditions.as_ref();
    conditions.and_then(|c| c.ready).unwrap_or(true)
}

fn endpoint_addresses(endpoint: &Endpoint) -> impl Iterator<Item = IpAddr> + '_ {
    endpoint.addresses.iter().filter_map(|ip| ip.parse().ok())
}

/// `10-42-0-5`, or `fd42--5`.
fn dashed(address: IpAddr) -> String {
    address.to_string().replace(['.', ':'], "-")
}

fn undashed(label: &str) -> Option<IpAddr> {
    let v4 = label.replace('-', ".").parse::<Ipv4Addr>();
    let v6 = || label.replace('-', ":").parse::<Ipv6Addr>();
    v4.map(IpAddr::from)
        .or_else(|_| v6().map(IpAddr::from))
        .ok()
}

fn endpoint_label(endpoint: &Endpoint, address: IpAddr) -> String {
    let hostname = endpoint.hostname.as_deref().filter(|name| !name.is_empty());
    hostname.map_or_else(|| dashed(address), str::to_lowercase)
}

fn addresses(ips: impl IntoIterator<Item = IpAddr>, want: Want) -> Vec<Data> {
    let fits = |ip: &IpAddr| match want {
        Want::A => ip.is_ipv4(),
        Want::Aaaa => ip.is_ipv6(),
        _ => false,
    };
    ips.into_iter().filter(fits).map(Data::Address).collect()
}

impl Zone {
    /// An empty zone. `networks` are the pods' and the Services'.
    pub fn new(domain: &str, networks: Vec<IpNet>) -> Self {
        let labels = domain.trim_matches('.').split('.');
        Zone {
            complete: false,
            domain: labels.map(str::to_lowercase).collect(),
            networks,
            services: HashMap::new(),
            slices: HashMap::new(),
            slice_of: HashMap::new(),
            namespaces: HashMap::new(),
            by_address: HashMap::new(),
        }
    }

    /// Says that everything was read once.
    pub fn set_complete(&mut self) {
        self.complete = true;
    }

    /// Whether an answer can be given: one that denies something needs the whole zone.
    pub fn knows(&self, answer: &Answer) -> bool {
        let denies = match answer {
            Answer::NoName => true,
            Answer::Records(records) => records.is_empty(),
            Answer::NotOurs => false,
        };
        self.complete || !denies
    }

    /// The cluster's domain.
    pub fn domain(&self) -> String {
        self.domain.join(".")
    }

    /// A Service came or changed.
    pub fn apply_service(&mut self, service: Arc<Service>) {
        let key = ServiceKey::of(&service);
        self.forget_addresses(&key);
        let names = self.namespaces.entry(key.namespace.clone()).or_default();
        names.insert(key.name.clone());
        self.services.insert(key.clone(), service);
        self.note_addresses(&key);
    }

    /// A Service went.
    pub fn remove_service(&mut self, key: &ServiceKey) {
        self.forget_addresses(key);
        self.services.remove(key);
        if let Some(names) = self.namespaces.get_mut(&key.namespace) {
            names.remove(&key.name);
            if names.is_empty() {
                self.namespaces.remove(&key.namespace);
            }
        }
    }

    /// A slice came or changed.
    pub fn apply_slice(&mut self, slice: Arc<EndpointSlice>) {
        let namespace = slice.metadata.namespace.clone().unwrap_or_default();
        let name = slice.metadata.name.clone().unwrap_or_default();
        self.remove_slice(&namespace, &name);
        let Some(key) = ServiceKey::of_slice(&slice) else {
            return;
        };
        self.forget_addresses(&key);
        self.slice_of.insert((namespace, name.clone()), key.clone());
        self.slices
            .entry(key.clone())
            .or_default()
            .insert(name, slice);
        self.note_addresses(&key);
    }

    /// A slice went.
    pub fn remove_slice(&mut self, namespace: &str, name: &str) {
        let id = (namespace.to_string(), name.to_string());
        let Some(key) = self.slice_of.remove(&id) else {
            return;
        };
        self.forget_addresses(&key);
        if let Some(slices) = self.slices.get_mut(&key) {
            slices.remove(name);
            if slices.is_empty() {
                self.slices.remove(&key);
            }
        }
        self.note_addresses(&key);
    }

    fn reverse_addresses(&self, key: &ServiceKey) -> Vec<IpAddr> {
        let Some(service) = self.services.get(key) else {
            return Vec::new();
        };
        let own = cluster_ips(service);
        if !own.is_empty() {
            return own;
        }
        self.ready_endpoints(key)
            .flat_map(endpoint_addresses)
            .collect()
    }

    fn note_addresses(&mut self, key: &ServiceKey) {
        for address in self.reverse_addresses(key) {
            self.by_address
                .entry(address)
                .or_default()
                .insert(key.clone());
        }
    }

    fn forget_addresses(&mut self, key: &ServiceKey) {
        for address in self.reverse_addresses(key) {
            if let Some(keys) = self.by_address.get_mut(&address) {
                keys.remove(key);
                if keys.is_empty() {
                    self.by_address.remove(&address);
                }
            }
        }
    }

    fn ready_endpoints(&self, key: &ServiceKey) -> impl Iterator<Item = &Endpoint> {
        let slices = self.slices.get(key).into_iter().flat_map(BTreeMap::values);
        slices
            .filter(|slice| slice.address_type != "FQDN")
            .flat_map(|slice| slice.endpoints.iter().flatten())
            .filter(|endpoint| is_ready(endpoint))
    }

    /// What a name means. Labels are in lower case, the first one first.
    pub fn answer(&self, labels: &[String], want: Want) -> Answer {
        if let Some(address) = reverse_address(labels) {
            return self.reverse(address, want);
        }
        let Some(inner) = labels.strip_suffix(self.domain.as_slice()) else {
            return Answer::NotOurs;
        };
        let inner: Vec<&str> = inner.iter().map(String::as_str).collect();
        match inner.as_slice() {
            [] | ["svc"] | ["pod"] => Answer::Records(Vec::new()),
            ["dns-version"] if want == Want::Txt => {
                Answer::Records(vec![Data::Text(SPECIFICATION)])
            }
            ["dns-version"] => Answer::Records(Vec::new()),
            [namespace, "svc" | "pod"] if self.namespaces.contains_key(*namespace) => {
                Answer::Records(Vec::new())
            }
            [ip, _namespace, "pod"] => match undashed(ip) {
                Some(ip) if self.networks.iter().any(|net| net.contains(&ip)) => {
                    Answer::Records(addresses([ip], want))
                }
                _ => Answer::NoName,
            },
            [rest @ .., name, namespace, "svc"] => self.of_service(rest, name, namespace, want),
            _ => Answer::NoName,
        }
    }

    fn of_service(&self, rest: &[&str], name: &str, namespace: &str, want: Want) -> Answer {
        let key = ServiceKey {
            namespace: namespace.to_string(),
            name: name.to_string(),
        };
        let Some(service) = self.services.get(&key) else {
            return Answer::NoName;
        };
        if let Some(target) = external_name(service) {
            let target = target.trim_end_matches('.').to_lowercase();
            return match rest {
                [] => Answer::Records(vec![Data::Cname(target)]),
                _ => Answer::NoName,
            };
        }
        let own = cluster_ips(service);
        match rest {
            [] if own.is_empty() => {
                let endpoints = self.ready_endpoints(&key).flat_map(endpoint_addresses);
                Answer::Records(addresses(endpoints, want))
            }
            [] => Answer::Records(addresses(own, want)),
            [protocol] if protocol.starts_with('_') => Answer::Records(Vec::new()),
            [port, protocol] if port.starts_with('_') && protocol.starts_with('_') => {
                self.ports(&key, &own, &port[1..], &protocol[1..], want)
            }
            // Endpoints have names only under Services without an address of their own.
            [host] if own.is_empty() => self.of_endpoint(&key, host, want),
            _ => Answer::NoName,
        }
    }

    fn of_endpoint(&self, key: &ServiceKey, host: &str, want: Want) -> Answer {
        let named = self.ready_endpoints(key).flat_map(|endpoint| {
            endpoint_addresses(endpoint).map(move |ip| (endpoint_label(endpoint, ip), ip))
        });
        let found: Vec<IpAddr> = named
            .filter(|(label, _)| label == host)
            .map(|(_, ip)| ip)
            .collect();
        if found.is_empty() {
            return Answer::NoName;
        }
        Answer::Records(addresses(found, want))
    }

    fn ports(
        &self,
        key: &ServiceKey,
        own: &[IpAddr],
        port: &str,
        protocol: &str,
        want: Want,
    ) -> Answer {
        let full = self.name_of(key);
        let matches = |name: Option<&str>, transport: Option<&str>| {
            name.is_some_and(|name| name.eq_ignore_ascii_case(port))
                && transport.unwrap_or("TCP").eq_ignore_ascii_case(protocol)
        };
        let mut found = Vec::new();
        if own.is_empty() {
            let slices = self.slices.get(key).into_iter().flat_map(BTreeMap::values);
            for slice in slices.filter(|slice| slice.address_type != "FQDN") {
                let ports = slice.ports.iter().flatten();
                for number in ports
                    .filter(|p| matches(p.name.as_deref(), p.protocol.as_deref()))
                    .filter_map(|p| u16::try_from(p.port?).ok())
                {
                    let endpoints = slice.endpoints.iter().flatten();
                    for endpoint in endpoints.filter(|endpoint| is_ready(endpoint)) {
                        found.extend(endpoint_addresses(endpoint).map(|ip| Data::Srv {
                            port: number,
                            target: format!("{}.{full}", endpoint_label(endpoint, ip)),
                            addresses: vec![ip],
                        }));
                    }
                }
            }
        } else {
            let spec = self.services.get(key).and_then(|s| s.spec.as_ref());
            let ports = spec
                .and_then(|spec| spec.ports.as_ref())
                .into_iter()
                .flatten();
            found.extend(
                ports
                    .filter(|p| matches(p.name.as_deref(), p.protocol.as_deref()))
                    .filter_map(|p| u16::try_from(p.port).ok())
                    .map(|port| Data::Srv {
                        port,
                        target: full.clone(),
                        addresses: own.to_vec(),
                    }),
            );
        }
        if found.is_empty() {
            return Answer::NoName;
        }
        let wanted = want == Want::Srv;
        Answer::Records(if wanted { found } else { Vec::new() })
    }

    fn name_of(&self, key: &ServiceKey) -> String {
        format!("{}.{}.svc.{}", key.name, key.namespace, self.domain())
    }

    fn reverse(&self, address: IpAddr, want: Want) -> Answer {
        let Some(keys) = self.by_address.get(&address) else {
            let ours = self.networks.iter().any(|net| net.contains(&address));
            return if ours {
                Answer::NoName
            } else {
                Answer::NotOurs
            };
        };
        if want != Want::Ptr {
            return Answer::Records(Vec::new());
        }
        let mut names: Vec<String> = Vec::new();
        for key in keys {
            let full = self.name_of(key);
            let headless = self
                .services
                .get(key)
                .is_some_and(|service| cluster_ips(service).is_empty());
            if !headless {
                names.push(full);
                continue;
            }
            let endpoints = self.ready_endpoints(key);
            names.extend(
                endpoints
                    .filter(|endpoint| endpoint_addresses(endpoint).any(|ip| ip == address))
                    .map(|endpoint| format!("{}.{full}", endpoint_label(endpoint, address))),
            );
        }
        names.sort();
        Answer::Records(names.into_iter().map(Data::Ptr).collect())
    }
}

/// The address of a whole reverse name (RFC 1035 §3.5, RFC 3596 §2.5).
fn reverse_address(labels: &[String]) -> Option<IpAddr> {
    let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
    match labels.as_slice() {
        [d, c, b, a, "in-addr", "arpa"] => {
            let text = format!("{a}.{b}.{c}.{d}");
            text.parse::<Ipv4Addr>().ok().map(IpAddr::from)
        }
        [nibbles @ .., "ip6", "arpa"] if nibbles.len() == 32 => {
            let mut value = 0_u128;
            for nibble in nibbles.iter().rev() {
                if nibble.len() != 1 {
                    return None;
                }
                value = value << 4 | u128::from_str_radix(nibble, 16).ok()?;
            }
            Some(IpAddr::from(Ipv6Addr::from(value)))
        }
        _ => None,
    }
}

#[cfg(test)]
#[path = "zone_tests.rs"]
mod tests;
