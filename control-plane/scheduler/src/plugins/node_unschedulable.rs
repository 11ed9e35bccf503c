//! NodeUnschedulable: cordoned nodes take only pods that tolerate it.

use hull_client::taints::tolerates;
use k8s_openapi::api::core::v1::Taint;

use crate::{
    cache::NodeInfo,
    framework::{CycleState, Event, Filter, Plugin, Rejection, Sees},
    pod::PodInfo,
};

/// See the module.
pub struct NodeUnschedulable;

const UNSCHEDULABLE_TAINT: &str = "node.kubernetes.io/unschedulable";

impl Plugin for NodeUnschedulable {
    fn name(&self) -> &'static str {
        "NodeUnschedulable"
    }
}

impl Filter for NodeUnschedulable {
    fn filter(&self, _: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Result<(), Rejection> {
        let spec = node.node.as_ref().and_then(|node| node.spec.as_ref());
        if spec.and_then(|spec| spec.unschedulable) != Some(true) {
            return Ok(());
        }
        let taint = Taint {
            key: UNSCHEDULABLE_TAINT.into(),
            effect: "NoSchedule".into(),
            ..Taint::default()
        };
        if tolerates(pod.spec().tolerations.as_ref(), &taint) {
            return Ok(());
        }
        Err(Rejection::for_good("node(s) were unschedulable"))
    }

    fn sees(&self, _: &CycleState) -> Sees {
        Sees::NoPods
    }

    fn ignores(&self, event: &Event<'_>) -> bool {
        matches!(event, Event::PodAdded(_) | Event::PodRemoved { .. })
    }

    fn is_cured_by(&self, _: &PodInfo, event: &Event<'_>) -> bool {
        match event {
            Event::NodeAdded(_) => true,
            Event::NodeUpdated { changes, .. } => changes.unschedulable || changes.taints,
            _ => false,
        }
    }
}
