//! NodeResourcesBalancedAllocation: nodes whose cpu and memory would be used alike are better, so
//! that neither is left over when the other is gone.

use crate::{
    cache::NodeInfo,
    framework::{CycleState, MAX_SCORE, Plugin, Score},
    pod::PodInfo,
};

/// See the module.
pub struct NodeResourcesBalancedAllocation;

impl Plugin for NodeResourcesBalancedAllocation {
    fn name(&self) -> &'static str {
        "NodeResourcesBalancedAllocation"
    }
}

fn used_share(used: i64, offered: i64) -> f64 {
    if offered <= 0 {
        return 1.0;
    }
    (used as f64 / offered as f64).min(1.0)
}

impl Score for NodeResourcesBalancedAllocation {
    fn weight(&self) -> i64 {
        1
    }

    fn score(&self, _: &CycleState, pod: &PodInfo, node: &NodeInfo) -> i64 {
        let (wanted, used, offered) = (&pod.requests, &node.requested, &node.allocatable);
        if wanted.milli_cpu == 0 && wanted.memory == 0 {
            return 0;
        }
        let cpu = used_share(used.milli_cpu + wanted.milli_cpu, offered.milli_cpu);
        let memory = used_share(used.memory.saturating_add(wanted.memory), offered.memory);
        // The standard deviation of two values.
        let deviation = (cpu - memory).abs() / 2.0;
        ((1.0 - deviation) * MAX_SCORE as f64) as i64
    }
}
