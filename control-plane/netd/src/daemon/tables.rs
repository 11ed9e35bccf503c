//! The kernel's tables and what depends on them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;

use super::state::Daemon;
use crate::conntrack;
use crate::ports;
use crate::ports::attachment::{InterfaceName, Mac};
use crate::ports::bridge;
use crate::services::ruleset;
use crate::services::stale::is_stale;

impl Daemon {
    /// Looks whether somebody took a table away; the next sync writes it again.
    pub(super) async fn audit(&mut self) {
        // Links and addresses may have changed, too.
        self.nodes_changed = true;
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
    pub(super) async fn set_ports(&mut self) {
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
    pub(super) async fn sync(&mut self) -> bool {
        let connected = self.connect_nodes().await;
        // Policies before the ports through which a new pod speaks.
        let policies = self.sync_policies().await;
        let ports = self.sync_ports().await;
        self.sync_services().await && ports && policies && connected
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

    /// What the services' table is made of was read. Without the Nodes it would close the tunnel
    /// to those that use it, and end masquerading.
    pub(super) fn knows_services(&self) -> bool {
        self.services_synced && self.slices_synced && self.connected.is_some()
    }

    async fn sync_services(&mut self) -> bool {
        if !self.knows_services() {
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
