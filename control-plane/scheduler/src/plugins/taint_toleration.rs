//! TaintToleration: taints that the pod does not tolerate refuse it (`NoSchedule`, `NoExecute`)
//! or make the node less wanted (`PreferNoSchedule`).

use hull_client::taints::tolerates;
use k8s_openapi::api::core::v1::Taint;

use crate::{
    cache::NodeInfo,
    framework::{CycleState, Event, Filter, Plugin, Rejection, Score, Sees, normalize_linear},
    pod::PodInfo,
};

/// See the module.
pub struct TaintToleration;

fn taints(node: &NodeInfo) -> impl Iterator<Item = &Taint> {
    let spec = node.node.as_ref().and_then(|node| node.spec.as_ref());
    spec.and_then(|spec| spec.taints.as_ref())
        .into_iter()
        .flatten()
}

impl Plugin for TaintToleration {
    fn name(&self) -> &'static str {
        "TaintToleration"
    }
}

impl Filter for TaintToleration {
    fn filter(&self, _: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Result<(), Rejection> {
        let untolerated = taints(node).find(|taint| {
            matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute")
                && !tolerates(pod.spec().tolerations.as_ref(), taint)
        });
        match untolerated {
            None => Ok(()),
            Some(taint) => {
                let value = taint.value.as_deref().unwrap_or_default();
                Err(Rejection::for_good(format!(
                    "node(s) had untolerated taint {{{}: {value}}}",
                    taint.key
                )))
            }
        }
    }

    fn sees(&self, _: &CycleState) -> Sees {
        Sees::NoPods
    }

    fn ignores(&self, event: &Event<'_>) -> bool {
        matches!(event, Event::PodAdded(_) | Event::PodRemoved { .. })
    }

    fn is_cured_by(&self, pod: &PodInfo, event: &Event<'_>) -> bool {
        let node = match event {
            Event::NodeAdded(node) => node,
            Event::NodeUpdated { node, changes } if changes.taints => node,
            _ => return false,
        };
        self.filter(&CycleState::default(), pod, node).is_ok()
    }
}

impl Score for TaintToleration {
    fn weight(&self) -> i64 {
        3
    }

    fn score(&self, _: &CycleState, pod: &PodInfo, node: &NodeInfo) -> i64 {
        let unwanted = taints(node).filter(|taint| {
            taint.effect == "PreferNoSchedule" && !tolerates(pod.spec().tolerations.as_ref(), taint)
        });
        i64::try_from(unwanted.count()).unwrap_or(i64::MAX)
    }

    fn normalize(&self, _: &CycleState, scores: &mut [i64]) {
        normalize_linear(scores, true);
    }
}
