//! One file per plugin; the default set.

mod default_binder;
mod default_preemption;
mod image_locality;
mod inter_pod_affinity;
mod node_affinity;
mod node_name;
mod node_ports;
mod node_resources_balanced_allocation;
mod node_resources_fit;
mod node_unschedulable;
mod node_volume_limits;
mod pod_topology_spread;
mod priority_sort;
mod scheduling_gates;
mod taint_toleration;
mod volume_binding;
mod volume_events;
mod volume_restrictions;
mod volume_zone;

pub use default_binder::DefaultBinder;
pub use default_preemption::DefaultPreemption;
pub use image_locality::ImageLocality;
pub(crate) use image_locality::normalized;
pub use inter_pod_affinity::InterPodAffinity;
pub use node_affinity::NodeAffinity;
pub use node_name::NodeName;
pub use node_ports::NodePorts;
pub use node_resources_balanced_allocation::NodeResourcesBalancedAllocation;
pub use node_resources_fit::{NodeResourcesFit, ScoringStrategy};
pub use node_unschedulable::NodeUnschedulable;
pub use node_volume_limits::NodeVolumeLimits;
pub use pod_topology_spread::PodTopologySpread;
pub use priority_sort::PrioritySort;
pub use scheduling_gates::SchedulingGates;
pub use taint_toleration::TaintToleration;
pub use volume_binding::{VolumeBinder, VolumeBinding};
pub use volume_restrictions::VolumeRestrictions;
pub use volume_zone::VolumeZone;

use crate::framework::Framework;

/// What runs when nothing else is configured, in Kubernetes' order.
pub fn default_framework(strategy: ScoringStrategy) -> Framework {
    Framework {
        pre_enqueues: vec![Box::new(SchedulingGates)],
        queue_sort: Box::new(PrioritySort),
        pre_filters: vec![
            Box::new(NodeAffinity),
            Box::new(VolumeRestrictions),
            Box::new(NodeVolumeLimits),
            Box::new(VolumeBinding),
            Box::new(PodTopologySpread),
            Box::new(InterPodAffinity),
        ],
        filters: vec![
            Box::new(NodeUnschedulable),
            Box::new(NodeName),
            Box::new(TaintToleration),
            Box::new(NodeAffinity),
            Box::new(NodePorts),
            Box::new(NodeResourcesFit { strategy }),
            Box::new(VolumeRestrictions),
            Box::new(NodeVolumeLimits),
            Box::new(VolumeBinding),
            Box::new(VolumeZone),
            Box::new(PodTopologySpread),
            Box::new(InterPodAffinity),
        ],
        post_filters: vec![Box::new(DefaultPreemption)],
        scores: vec![
            Box::new(TaintToleration),
            Box::new(NodeAffinity),
            Box::new(NodeResourcesFit { strategy }),
            Box::new(PodTopologySpread),
            Box::new(InterPodAffinity),
            Box::new(NodeResourcesBalancedAllocation),
            Box::new(ImageLocality),
        ],
        reserves: vec![Box::new(VolumeBinding)],
        pre_binds: Vec::new(),
    }
}
