//! When each node was last heard of.
//!
//! What counts is when *we* saw a lease or status change, not the time written in it: nodes'
//! clocks may be wrong.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use k8s_openapi::{
    api::{coordination::v1::Lease, core::v1::Node},
    jiff::Timestamp,
};
use parking_lot::Mutex;

#[derive(Debug, PartialEq, Eq)]
struct Sign {
    lease: Option<Timestamp>,
    status: Option<Timestamp>,
    uid: Option<String>,
}

/// All nodes' last signs of life.
#[derive(Default)]
pub(super) struct Health {
    nodes: Mutex<HashMap<String, (Sign, Instant)>>,
}

impl Health {
    /// Takes note of the node's newest sign; gives for how long it has been the newest. A node
    /// seen for the first time (also after our own restart) counts from now.
    pub(super) fn observe(&self, node: &Node, lease: Option<&Lease>, now: Instant) -> Duration {
        let name = node.metadata.name.clone().unwrap_or_default();
        let renewed = lease.and_then(|lease| lease.spec.as_ref()?.renew_time.as_ref());
        let heartbeat = super::ready(node).and_then(|ready| ready.last_heartbeat_time.as_ref());
        let sign = Sign {
            lease: renewed.map(|time| time.0),
            status: heartbeat.map(|time| time.0),
            uid: node.metadata.uid.clone(),
        };
        let mut nodes = self.nodes.lock();
        match nodes.get(&name) {
            Some((known, since)) if *known == sign => now.saturating_duration_since(*since),
            _ => {
                nodes.insert(name, (sign, now));
                Duration::ZERO
            }
        }
    }

    pub(super) fn forget(&self, name: &str) {
        self.nodes.lock().remove(name);
    }
}
