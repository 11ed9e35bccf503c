//! Chooses addresses and ports for a service (Kubernetes: registry/core/service/storage/alloc.go).

use std::collections::HashSet;

use hull_api::{
    ApiError, Kind, ObjectExt,
    field::{Errors, Path},
    kinds::{self, service},
};
use hull_store::prefix_range;
use rand::Rng;
use serde_json::{Value, json};

use super::{
    ServiceNetwork,
    claims::{NODE_PORTS, address_key, port_key},
};
use crate::storage::{Storage, store_error};

/// Random tries before the taken ones are listed.
const RANDOM_TRIES: usize = 16;

/// Fills in what the service asks for and does not name; `old` is what it was before. Objects of
/// other kinds pass.
pub(crate) async fn allocate(
    storage: &Storage,
    network: &ServiceNetwork,
    kind: &Kind,
    new: &mut Value,
    old: Option<&Value>,
) -> Result<(), ApiError> {
    if kind.storage != kinds::SERVICES.storage || !service::wants_cluster_ip(new) {
        return Ok(());
    }
    let nothing = Value::Null;
    let allocator = Allocator {
        storage,
        network,
        old: old.unwrap_or(&nothing),
    };
    let mut errors = Errors::default();
    set_families(new, &mut errors);
    if errors.is_empty() && !service::is_headless(new) {
        allocator.address(new, &mut errors).await?;
    }
    if errors.is_empty() && service::wants_node_ports(new) {
        allocator.ports(new, &mut errors).await?;
    }
    if errors.is_empty() && service::wants_health_check_port(new) {
        allocator.health_check_port(new, &mut errors).await?;
    }
    if errors.is_empty() {
        return Ok(());
    }
    Err(ApiError::invalid(
        kind.group,
        kind.kind,
        new.name(),
        errors.into_vec(),
    ))
}

/// There is one family of addresses: IPv4. A headless service without a selector has whatever
/// its endpoints have.
fn set_families(new: &mut Value, errors: &mut Errors) {
    let spec = Path::new("spec");
    let unselected = new
        .map_at("/spec/selector")
        .is_none_or(serde_json::Map::is_empty);
    let free = service::is_headless(new) && unselected;
    let policy = new.str_at("/spec/ipFamilyPolicy").to_string();
    if policy.is_empty() {
        let policy = if free {
            "RequireDualStack"
        } else {
            "SingleStack"
        };
        new.set_at(&["spec", "ipFamilyPolicy"], Value::from(policy));
    } else if policy == "RequireDualStack" && !free {
        errors.invalid(
            &spec.child("ipFamilyPolicy"),
            policy,
            "this cluster is not configured for dual-stack services",
        );
        return;
    }
    let families = new.list_at("/spec/ipFamilies").to_vec();
    if families.is_empty() {
        let families = if free && new.str_at("/spec/ipFamilyPolicy") == "RequireDualStack" {
            json!(["IPv4", "IPv6"])
        } else {
            json!(["IPv4"])
        };
        new.set_at(&["spec", "ipFamilies"], families);
    } else if !free {
        for (index, family) in families.iter().enumerate() {
            if family != "IPv4" {
                errors.invalid(
                    &spec.child("ipFamilies").index(index),
                    family.clone(),
                    "not configured on this cluster",
                );
            }
        }
    }
}

struct Allocator<'a> {
    storage: &'a Storage,
    network: &'a ServiceNetwork,
    old: &'a Value,
}

impl Allocator<'_> {
    async fn is_taken(&self, key: &str) -> Result<bool, ApiError> {
        let found = self.storage.store().get(key).await.map_err(store_error)?;
        Ok(found.is_some())
    }

    /// The last part of every key below `prefix`.
    async fn taken(&self, prefix: &str) -> Result<HashSet<String>, ApiError> {
        let page = self
            .storage
            .store()
            .list(prefix_range(prefix), None, 0)
            .await
            .map_err(store_error)?;
        Ok(page
            .items
            .iter()
            .filter_map(|pair| pair.key.strip_prefix(prefix).map(str::to_string))
            .collect())
    }

    async fn address(&self, new: &mut Value, errors: &mut Errors) -> Result<(), ApiError> {
        let asked: Vec<String> = service::cluster_ips(new)
            .into_iter()
            .map(str::to_string)
            .collect();
        if asked.is_empty() {
            let address = self.free_address().await?;
            new.set_at(&["spec", "clusterIP"], Value::from(address.as_str()));
            new.set_at(&["spec", "clusterIPs"], json!([address]));
            return Ok(());
        }
        let held = service::cluster_ips(self.old);
        for address in &asked {
            if held.contains(&address.as_str()) {
                continue;
            }
            let why = match address.parse() {
                Ok(parsed) if self.network.addresses.contains(parsed) => {
                    if !self.is_taken(&address_key(address)).await? {
                        continue;
                    }
                    "provided IP is already allocated".to_string()
                }
                _ => format!(
                    "the provided IP ({address}) is not in the valid range. The range of valid IPs is {}",
                    self.network.addresses
                ),
            };
            errors.invalid(
                &Path::new("spec.clusterIPs"),
                json!(asked),
                format!("failed to allocate IP {address}: {why}"),
            );
        }
        new.set_at(&["spec", "clusterIP"], json!(asked[0]));
        Ok(())
    }

    async fn free_address(&self) -> Result<String, ApiError> {
        for _ in 0..RANDOM_TRIES {
            let start = rand::rng().random();
            if let Some(address) = self.network.addresses.candidates(start).next() {
                let address = address.to_string();
                if !self.is_taken(&address_key(&address)).await? {
                    return Ok(address);
                }
            }
        }
        let taken = self.taken(&kinds::IP_ADDRESSES.prefix("")).await?;
        self.network
            .addresses
            .candidates(rand::rng().random())
            .map(|address| address.to_string())
            .find(|address| !taken.contains(address))
            .ok_or_else(|| ApiError::internal("failed to allocate a serviceIP: range is full"))
    }

    async fn ports(&self, new: &mut Value, errors: &mut Errors) -> Result<(), ApiError> {
        let mut mine: Vec<u16> = service::node_ports(new);
        let held = service::node_ports(self.old);
        let count = new.list_at("/spec/ports").len();
        for index in 0..count {
            let asked = new
                .int_at(&format!("/spec/ports/{index}/nodePort"))
                .unwrap_or(0);
            if asked != 0 {
                let path = Path::new("spec.ports").index(index).child("nodePort");
                self.check_port(asked, &held, &path, errors).await?;
                continue;
            }
            // The same port of another protocol shares the node port.
            let port = match shared_port(new, index) {
                Some(port) => port,
                None => self.free_port(&mine).await?,
            };
            mine.push(port);
            if let Some(entry) = new.pointer_mut(&format!("/spec/ports/{index}")) {
                entry.set_at(&["nodePort"], Value::from(port));
            }
        }
        Ok(())
    }

    async fn health_check_port(
        &self,
        new: &mut Value,
        errors: &mut Errors,
    ) -> Result<(), ApiError> {
        let held = service::node_ports(self.old);
        match new.int_at("/spec/healthCheckNodePort").unwrap_or(0) {
            0 => {
                let port = self.free_port(&service::node_ports(new)).await?;
                new.set_at(&["spec", "healthCheckNodePort"], Value::from(port));
                Ok(())
            }
            asked => {
                let path = Path::new("spec.healthCheckNodePort");
                self.check_port(asked, &held, &path, errors).await
            }
        }
    }

    async fn check_port(
        &self,
        asked: i64,
        held: &[u16],
        path: &Path,
        errors: &mut Errors,
    ) -> Result<(), ApiError> {
        let range = &self.network.node_ports;
        match u16::try_from(asked)
            .ok()
            .filter(|port| range.contains(port))
        {
            Some(port) if held.contains(&port) => {}
            Some(port) => {
                if self.is_taken(&port_key(port)).await? {
                    errors.invalid(path, asked, "provided port is already allocated");
                }
            }
            None => errors.invalid(
                path,
                asked,
                format!(
                    "provided port is not in the valid range. The range of valid ports is {}-{}",
                    range.start(),
                    range.end()
                ),
            ),
        }
        Ok(())
    }

    async fn free_port(&self, mine: &[u16]) -> Result<u16, ApiError> {
        let range = self.network.node_ports.clone();
        for _ in 0..RANDOM_TRIES {
            let port = rand::rng().random_range(range.clone());
            if !mine.contains(&port) && !self.is_taken(&port_key(port)).await? {
                return Ok(port);
            }
        }
        let taken = self.taken(NODE_PORTS).await?;
        range
            .into_iter()
            .find(|port| !mine.contains(port) && !taken.contains(&port.to_string()))
            .ok_or_else(|| ApiError::internal("failed to allocate a nodePort: range is full"))
    }
}

/// The node port of another entry with the same port and another protocol.
fn shared_port(service: &Value, index: usize) -> Option<u16> {
    let ports = service.list_at("/spec/ports");
    let this = ports.get(index)?;
    ports
        .iter()
        .filter(|other| {
            other.get("port") == this.get("port") && other.get("protocol") != this.get("protocol")
        })
        .find_map(|other| u16::try_from(other.int_at("/nodePort")?).ok())
        .filter(|port| *port != 0)
}
