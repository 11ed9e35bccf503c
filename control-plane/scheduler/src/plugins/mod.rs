//! One file per plugin; the default set.

mod default_binder;
mod node_affinity;
mod node_name;
mod node_ports;
mod node_resources_fit;
mod node_unschedulable;
mod priority_sort;
mod taint_toleration;

pub use default_binder::DefaultBinder;
pub use node_affinity::NodeAffinity;
pub use node_name::NodeName;
pub use node_ports::NodePorts;
pub use node_resources_fit::NodeResourcesFit;
pub use node_unschedulable::NodeUnschedulable;
pub use priority_sort::PrioritySort;
pub use taint_toleration::TaintToleration;

use crate::framework::Framework;

/// What runs when nothing else is configured, in Kubernetes' order.
pub fn default_framework() -> Framework {
    Framework {
        queue_sort: Box::new(PrioritySort),
        pre_filters: vec![Box::new(NodeAffinity)],
        filters: vec![
            Box::new(NodeUnschedulable),
            Box::new(NodeName),
            Box::new(TaintToleration),
            Box::new(NodeAffinity),
            Box::new(NodePorts),
            Box::new(NodeResourcesFit),
        ],
        scores: vec![
            Box::new(TaintToleration),
            Box::new(NodeAffinity),
            Box::new(NodeResourcesFit),
        ],
        reserves: Vec::new(),
    }
}
