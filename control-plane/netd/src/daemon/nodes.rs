//! The way to the other nodes' pods.

use crate::metrics::WayLabels;
use crate::nodes::plan::Plan;
use crate::nodes::{Here, NodeLinks, connect, ruleset};

use super::state::Daemon;

impl Daemon {
    /// Brings routes and tunnel up to the Nodes; whether that is done.
    pub(super) async fn connect_nodes(&mut self) -> bool {
        if !self.nodes_synced || !std::mem::take(&mut self.nodes_changed) {
            return true;
        }
        let links = match self.config.node_links {
            NodeLinks::Auto if !self.config.own_network.ask() => NodeLinks::None,
            links => links,
        };
        let here = Here {
            name: &self.config.node_name,
            addresses: &self.config.node_ips,
            pod_networks: &self.config.pod_networks,
            links,
        };
        let outcome = match connect(&here, &self.nodes).await {
            Ok((plan, outcome)) => {
                self.plan_tables(plan, links);
                outcome
            }
            // What was planned before stays in force.
            Err(error) => Err(error),
        };
        if let Err(error) = outcome {
            tracing::warn!(%error, "the way to other nodes is not complete; trying again");
            self.nodes_changed = true;
            return false;
        }
        true
    }

    /// Brings the tables' part up to the plan.
    pub(super) fn plan_tables(&mut self, plan: Plan, links: NodeLinks) {
        let before = self.connected.as_ref().map(|plan| &plan.refused);
        for (network, (node, why)) in &plan.refused {
            if before.is_none_or(|before| !before.contains_key(network)) {
                tracing::warn!(%network, node, why, "no way to a node's pods");
            }
        }
        let (links_used, tunnel) = plan.counts();
        let refused = plan.refused.len();
        for (way, count) in [("link", links_used), ("tunnel", tunnel), ("none", refused)] {
            let gauge = self.metrics.node_networks.get_or_create(&WayLabels { way });
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        let table = &mut self.service_table.table;
        table.set_fragment("tunnel peers", Some(ruleset::peers(&plan)));
        let masqueraded =
            (links != NodeLinks::None).then(|| ruleset::masqueraded(&self.config.pod_networks));
        table.set_fragment("masquerade", masqueraded);
        self.connected = Some(plan);
    }
}
