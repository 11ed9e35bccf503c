//! VolumeZone: volumes that say by their labels in which zone and region they are.

use crate::{
    cache::NodeInfo,
    framework::{CycleState, Event, Filter, Plugin, Rejection, Sees},
    plugins::{volume_binding::PodVolumes, volume_events},
    pod::PodInfo,
};

/// See the module.
pub struct VolumeZone;

const TOPOLOGIES: [&str; 2] = [
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
];
/// Between the zones of a volume that is in several.
const SEPARATOR: &str = "__";

impl Plugin for VolumeZone {
    fn name(&self) -> &'static str {
        "VolumeZone"
    }
}

impl Filter for VolumeZone {
    fn filter(&self, state: &CycleState, _: &PodInfo, node: &NodeInfo) -> Result<(), Rejection> {
        let (Some(volumes), Some(node)) = (state.get::<PodVolumes>(), &node.node) else {
            return Ok(());
        };
        let here = node.metadata.labels.as_ref();
        for volume in volumes.bound.iter().flatten() {
            let Some(labels) = &volume.metadata.labels else {
                continue;
            };
            let reached = TOPOLOGIES.iter().all(|key| {
                labels.get(*key).is_none_or(|zones| {
                    let here = here.and_then(|labels| labels.get(*key));
                    here.is_some_and(|here| zones.split(SEPARATOR).any(|zone| zone == here))
                })
            });
            if !reached {
                return Err(Rejection::for_good("node(s) had no available volume zone"));
            }
        }
        Ok(())
    }

    fn sees(&self, _: &CycleState) -> Sees {
        Sees::NoPods
    }

    fn ignores(&self, event: &Event<'_>) -> bool {
        volume_events::ignores(event)
    }

    fn is_cured_by(&self, pod: &PodInfo, event: &Event<'_>) -> bool {
        volume_events::cures(pod, event)
    }
}
