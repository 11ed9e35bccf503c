//! NodeResourcesFit: what the pod requests must be free; the emptier node is better
//! (least allocated, cpu and memory alike).

use crate::{
    cache::NodeInfo,
    framework::{ClusterEvent, CycleState, Filter, MAX_SCORE, Plugin, Rejection, Score},
    pod::PodInfo,
};

/// See the module.
pub struct NodeResourcesFit;

impl Plugin for NodeResourcesFit {
    fn name(&self) -> &'static str {
        "NodeResourcesFit"
    }
}

impl Filter for NodeResourcesFit {
    fn filter(&self, _: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Result<(), Rejection> {
        let mut rejection = Rejection {
            reasons: Vec::new(),
        };
        let (wanted, used, offered) = (&pod.requests, &node.requested, &node.allocatable);
        if used.pods + 1 > offered.pods {
            rejection.reasons.push("Too many pods".into());
        }
        let lacks = |wanted: i64, used: i64, offered: i64| wanted > 0 && wanted > offered - used;
        if lacks(wanted.milli_cpu, used.milli_cpu, offered.milli_cpu) {
            rejection.reasons.push("Insufficient cpu".into());
        }
        if lacks(wanted.memory, used.memory, offered.memory) {
            rejection.reasons.push("Insufficient memory".into());
        }
        if lacks(
            wanted.ephemeral_storage,
            used.ephemeral_storage,
            offered.ephemeral_storage,
        ) {
            rejection
                .reasons
                .push("Insufficient ephemeral-storage".into());
        }
        for (name, wanted) in &wanted.extended {
            let of = |amounts: &crate::resources::Resources| {
                amounts.extended.get(name).copied().unwrap_or(0)
            };
            if lacks(*wanted, of(used), of(offered)) {
                rejection
                    .reasons
                    .push(format!("Insufficient {name}").into());
            }
        }
        if rejection.reasons.is_empty() {
            Ok(())
        } else {
            Err(rejection)
        }
    }

    fn is_cured_by(&self, _: ClusterEvent) -> bool {
        true
    }
}

fn free_share(used: i64, offered: i64) -> i64 {
    if offered <= 0 || used > offered {
        return 0;
    }
    ((offered - used) as i128 * i128::from(MAX_SCORE) / i128::from(offered)) as i64
}

impl Score for NodeResourcesFit {
    fn weight(&self) -> i64 {
        1
    }

    fn score(&self, _: &CycleState, pod: &PodInfo, node: &NodeInfo) -> i64 {
        let (wanted, used, offered) = (&pod.compared_requests, &node.compared, &node.allocatable);
        let cpu = free_share(used.milli_cpu + wanted.milli_cpu, offered.milli_cpu);
        let memory = free_share(used.memory.saturating_add(wanted.memory), offered.memory);
        (cpu + memory) / 2
    }
}
