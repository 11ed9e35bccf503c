//! VolumeRestrictions: a ReadWriteOncePod claim has one pod at a time.

use crate::{
    cache::{Cache, NodeInfo},
    framework::{CycleState, Event, Filter, Plugin, PreFilter, Rejection, Sees},
    pod::PodInfo,
};

/// See the module.
pub struct VolumeRestrictions;

/// Another pod has one of the claims.
struct InUse(bool);

impl Plugin for VolumeRestrictions {
    fn name(&self) -> &'static str {
        "VolumeRestrictions"
    }
}

impl PreFilter for VolumeRestrictions {
    fn pre_filter(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        cache: &Cache,
    ) -> Result<Option<Vec<String>>, Rejection> {
        if pod.claims.is_empty() {
            return Ok(None);
        }
        let in_use = pod.claims.iter().any(|wanted| {
            let claim = cache.volumes().claim(pod.namespace(), &wanted.name);
            let spec = claim.and_then(|claim| claim.spec.as_ref());
            let modes = spec.and_then(|spec| spec.access_modes.as_ref());
            let alone =
                modes.is_some_and(|modes| modes.iter().any(|mode| mode == "ReadWriteOncePod"));
            alone && cache.pods_with_claim(pod.namespace(), &wanted.name) > 0
        });
        state.put(InUse(in_use));
        Ok(None)
    }
}

impl Filter for VolumeRestrictions {
    fn filter(&self, state: &CycleState, _: &PodInfo, _: &NodeInfo) -> Result<(), Rejection> {
        match state.get() {
            Some(InUse(true)) => Err(Rejection::because(
                "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode",
            )),
            _ => Ok(()),
        }
    }

    fn sees(&self, state: &CycleState) -> Sees {
        match state.get() {
            Some(InUse(true)) => Sees::AllPods,
            _ => Sees::NoPods,
        }
    }

    fn ignores(&self, event: &Event<'_>) -> bool {
        !matches!(event, Event::PodRemoved { .. } | Event::VolumesChanged)
    }

    fn is_cured_by(&self, pod: &PodInfo, event: &Event<'_>) -> bool {
        match event {
            Event::VolumesChanged => true,
            Event::PodRemoved { pod: gone, .. } => {
                gone.namespace() == pod.namespace()
                    && gone
                        .claims
                        .iter()
                        .any(|freed| pod.claims.iter().any(|wanted| wanted.name == freed.name))
            }
            _ => false,
        }
    }
}
