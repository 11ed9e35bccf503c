//! NodePorts: two pods cannot have one port of a node.

use crate::{
    cache::NodeInfo,
    framework::{CycleState, Event, Filter, Plugin, Rejection},
    pod::PodInfo,
};

/// See the module.
pub struct NodePorts;

impl Plugin for NodePorts {
    fn name(&self) -> &'static str {
        "NodePorts"
    }
}

impl Filter for NodePorts {
    fn filter(&self, _: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Result<(), Rejection> {
        let taken = pod
            .host_ports
            .iter()
            .any(|wanted| node.host_ports.iter().any(|used| used.conflicts(wanted)));
        if taken {
            return Err(Rejection::because(
                "node(s) didn't have free ports for the requested pod ports",
            ));
        }
        Ok(())
    }

    fn ignores(&self, event: &Event<'_>) -> bool {
        matches!(event, Event::PodAdded(_))
    }

    fn is_cured_by(&self, pod: &PodInfo, event: &Event<'_>) -> bool {
        match event {
            Event::NodeAdded(_) => true,
            Event::PodRemoved { pod: gone, .. } => gone
                .host_ports
                .iter()
                .any(|freed| pod.host_ports.iter().any(|port| port.conflicts(freed))),
            _ => false,
        }
    }
}
