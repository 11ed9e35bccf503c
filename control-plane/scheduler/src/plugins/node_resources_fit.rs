//! NodeResourcesFit: what the pod requests must be free; the emptier node is better, or the fuller
//! one (least or most allocated, cpu and memory alike).

use crate::{
    cache::NodeInfo,
    framework::{CycleState, Event, Filter, MAX_SCORE, Plugin, Rejection, Score},
    pod::PodInfo,
    resources::Resources,
};

/// Which nodes are better.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ScoringStrategy {
    /// The emptier ones: pods spread.
    #[default]
    LeastAllocated,
    /// The fuller ones: pods are packed.
    MostAllocated,
}

/// See the module.
#[derive(Debug, Default)]
pub struct NodeResourcesFit {
    /// How nodes compare.
    pub strategy: ScoringStrategy,
}

impl Plugin for NodeResourcesFit {
    fn name(&self) -> &'static str {
        "NodeResourcesFit"
    }
}

impl Filter for NodeResourcesFit {
    fn filter(&self, _: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Result<(), Rejection> {
        let mut rejection = Rejection {
            reasons: Vec::new(),
            // More than the node has at all no departure gives.
            resolvable: !exceeds(&pod.requests, &node.allocatable),
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
            let of = |amounts: &Resources| amounts.extended.get(name).copied().unwrap_or(0);
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

    fn ignores(&self, event: &Event<'_>) -> bool {
        matches!(event, Event::PodAdded(_))
    }

    fn is_cured_by(&self, pod: &PodInfo, event: &Event<'_>) -> bool {
        let node = match event {
            Event::NodeAdded(node) => node,
            Event::NodeUpdated { node, changes } if changes.allocatable => node,
            // Room elsewhere does not help; it must be enough where it came.
            Event::PodRemoved {
                node: Some(node), ..
            } => node,
            _ => return false,
        };
        self.filter(&CycleState::default(), pod, node).is_ok()
    }
}

fn exceeds(wanted: &Resources, offered: &Resources) -> bool {
    let extended = wanted
        .extended
        .iter()
        .any(|(name, amount)| *amount > offered.extended.get(name).copied().unwrap_or(0));
    wanted.milli_cpu > offered.milli_cpu
        || wanted.memory > offered.memory
        || wanted.ephemeral_storage > offered.ephemeral_storage
        || offered.pods < 1
        || extended
}

impl ScoringStrategy {
    fn of(self, used: i64, offered: i64) -> i64 {
        if offered <= 0 || used > offered {
            return 0;
        }
        let counted = match self {
            ScoringStrategy::LeastAllocated => offered - used,
            ScoringStrategy::MostAllocated => used,
        };
        (i128::from(counted) * i128::from(MAX_SCORE) / i128::from(offered)) as i64
    }
}

impl Score for NodeResourcesFit {
    fn weight(&self) -> i64 {
        1
    }

    fn score(&self, _: &CycleState, pod: &PodInfo, node: &NodeInfo) -> i64 {
        let (wanted, used, offered) = (&pod.compared_requests, &node.compared, &node.allocatable);
        let strategy = self.strategy;
        let cpu = strategy.of(used.milli_cpu + wanted.milli_cpu, offered.milli_cpu);
        let memory = strategy.of(used.memory.saturating_add(wanted.memory), offered.memory);
        (cpu + memory) / 2
    }
}
