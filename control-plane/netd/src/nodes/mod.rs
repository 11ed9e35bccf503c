//! The way from this node's pods to those of the other nodes.
//!
//! ```text
//!  Nodes ──► index: who has which pod networks and addresses
//!              │        kernel: is that address on a link of ours?
//!              ▼             ▼
//!            plan: pod network ─┬─► route over the link they share
//!                               └─► tunnel: VXLAN device, forwarding and neighbour entries, route
//!              │
//!              └──► ruleset: masquerading, who may send into the tunnel
//! ```
//! Invariants:
//! - What is as it should be is not touched: a restart of this process disturbs no flow, and what
//!   it made stays when it ends.
//! - Nothing is taken away before all Nodes were read. Only what is ours goes: routes of our
//!   protocol number, and the device of our name.
//! - A Node gets no route but into the cluster's pod networks, and none into another's.

pub mod kernel;
pub mod model;
pub mod plan;
pub mod ruleset;
mod tunnel;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use crate::service_link::LinkError;
use kernel::Kernel;
use model::NodeIndex;
use plan::{Plan, Reach};

/// How pods of different nodes reach each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NodeLinks {
    /// Routes where nodes share a link and the tunnel elsewhere, as long as the pods' network is
    /// Hull's own.
    #[default]
    Auto,
    /// Routes; nodes elsewhere are not reached.
    Routes,
    /// The tunnel to all.
    Vxlan,
    /// Somebody else sees to it.
    None,
}

impl std::str::FromStr for NodeLinks {
    type Err = UnknownLinks;

    fn from_str(text: &str) -> Result<Self, UnknownLinks> {
        match text {
            "auto" => Ok(NodeLinks::Auto),
            "routes" => Ok(NodeLinks::Routes),
            "vxlan" => Ok(NodeLinks::Vxlan),
            "none" => Ok(NodeLinks::None),
            other => Err(UnknownLinks(other.to_owned())),
        }
    }
}

/// Not one of the ways.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is none of auto, routes, vxlan and none")]
pub struct UnknownLinks(String);

/// What of this node counts here.
#[derive(Debug, Clone)]
pub struct Here<'a> {
    /// The node's name.
    pub name: &'a str,
    /// Its addresses.
    pub addresses: &'a [IpAddr],
    /// The cluster's pod networks.
    pub pod_networks: &'a [IpNet],
    /// How the others are reached.
    pub links: NodeLinks,
}

/// Brings the kernel up to the Nodes. Gives what it was brought to, and the [`LinkError`] of the
/// first step that failed; the others were done.
///
/// # Errors
/// [`LinkError`] where the kernel cannot be spoken to: there is no plan then.
pub async fn connect(
    here: &Here<'_>,
    nodes: &NodeIndex,
) -> Result<(Plan, Result<(), LinkError>), LinkError> {
    let kernel = Kernel::open()?;
    let mut reach = BTreeMap::new();
    if here.links != NodeLinks::None {
        let addresses: BTreeSet<IpAddr> = nodes
            .others(here.name)
            .flat_map(|node| node.addresses.iter().copied())
            .collect();
        for address in addresses {
            // An address without any route is as good as one behind a router.
            let found = kernel.reach(address).await.unwrap_or(Reach::Routed);
            reach.insert(address, found);
        }
    }
    let plan = plan::plan(here, nodes, &reach);
    let done = kernel.apply(&plan).await;
    Ok((plan, done))
}
