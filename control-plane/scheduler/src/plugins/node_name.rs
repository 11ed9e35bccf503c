//! NodeName: a pod that names its node goes nowhere else.

use crate::{
    cache::NodeInfo,
    framework::{CycleState, Event, Filter, Plugin, Rejection, Sees},
    pod::PodInfo,
};

/// See the module.
pub struct NodeName;

impl Plugin for NodeName {
    fn name(&self) -> &'static str {
        "NodeName"
    }
}

impl Filter for NodeName {
    fn filter(&self, _: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Result<(), Rejection> {
        match pod.node_name() {
            Some(name) if name != node.name() => Err(Rejection::for_good(
                "node(s) didn't match the requested node name",
            )),
            _ => Ok(()),
        }
    }

    fn sees(&self, _: &CycleState) -> Sees {
        Sees::NoPods
    }

    fn ignores(&self, event: &Event<'_>) -> bool {
        matches!(event, Event::PodAdded(_) | Event::PodRemoved { .. })
    }

    fn is_cured_by(&self, pod: &PodInfo, event: &Event<'_>) -> bool {
        matches!(event, Event::NodeAdded(node) if pod.node_name() == Some(node.name()))
    }
}
