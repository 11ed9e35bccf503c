//! NodeVolumeLimits: no more volumes of a CSI driver on a node than the driver can attach there,
//! as the node's CSINode says.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use crate::{
    cache::{Cache, NodeInfo},
    framework::{CycleState, Event, Filter, Plugin, PreFilter, Rejection, Sees},
    pod::PodInfo,
    volumes::{Attachable, Known},
};

/// See the module.
pub struct NodeVolumeLimits;

/// What the pod attaches, and where to look up what others do.
struct Wanted {
    volumes: HashSet<Attachable>,
    known: Arc<Known>,
}

impl Plugin for NodeVolumeLimits {
    fn name(&self) -> &'static str {
        "NodeVolumeLimits"
    }
}

fn volumes_of<'a>(pod: &'a PodInfo, known: &'a Known) -> impl Iterator<Item = Attachable> + 'a {
    let claims = pod.claims.iter();
    claims.filter_map(|claim| known.attachable(pod.namespace(), &claim.name))
}

impl PreFilter for NodeVolumeLimits {
    fn pre_filter(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        cache: &Cache,
    ) -> Result<Option<Vec<String>>, Rejection> {
        let known = cache.volumes().known();
        let volumes: HashSet<Attachable> = volumes_of(pod, &known).collect();
        if !volumes.is_empty() {
            state.put(Wanted { volumes, known });
        }
        Ok(None)
    }
}

impl Filter for NodeVolumeLimits {
    fn filter(&self, state: &CycleState, _: &PodInfo, node: &NodeInfo) -> Result<(), Rejection> {
        let Some(wanted) = state.get::<Wanted>() else {
            return Ok(());
        };
        let Some(limits) = wanted.known.limits(node.name()) else {
            return Ok(());
        };
        let pods = node.pods.iter();
        let attached: HashSet<Attachable> = pods
            .flat_map(|pod| volumes_of(pod, &wanted.known))
            .collect();
        // A volume that the node has already does not count again, and a driver of which nothing
        // new is wanted does not matter.
        let mut new: HashMap<&str, usize> = HashMap::new();
        for volume in wanted.volumes.difference(&attached) {
            *new.entry(&volume.driver).or_default() += 1;
        }
        let fits = new.iter().all(|(driver, new)| {
            let of_driver = attached.iter().filter(|one| one.driver == *driver);
            let limit = limits.get(*driver);
            limit.is_none_or(|limit| of_driver.count() + new <= *limit)
        });
        if fits {
            return Ok(());
        }
        Err(Rejection::because("node(s) exceed max volume count"))
    }

    fn sees(&self, state: &CycleState) -> Sees {
        match state.get::<Wanted>() {
            Some(_) => Sees::PodsOfNode,
            None => Sees::NoPods,
        }
    }

    fn ignores(&self, event: &Event<'_>) -> bool {
        matches!(event, Event::PodAdded(_) | Event::NodeUpdated { .. })
    }

    fn is_cured_by(&self, pod: &PodInfo, event: &Event<'_>) -> bool {
        let cures = match event {
            Event::VolumesChanged | Event::NodeAdded(_) => true,
            Event::PodRemoved { pod: gone, .. } => !gone.claims.is_empty(),
            _ => false,
        };
        cures && !pod.claims.is_empty()
    }
}
