//! NodeName: a pod that names its node goes nowhere else.

use crate::{
    cache::NodeInfo,
    framework::{CycleState, Event, Filter, Plugin, Rejection, Sees},
    pod::PodInfo,
};

/// See the module.
pub struct NodeName;

impl Plugin for NodeName {
    fn name(&self) -> &'static str {
        "NodeName"
    }
}

impl Filter for NodeName {
    fn filter(&self, _: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Result<(), Rejection> {
        match pod.node_name() {
            Some(name) if name != node.name() => Err(Rejection::for_good(
                "node(s) didn't match the requested node name",
            )),
            _ => Ok(()),
        }
    }

    fn sees(&self, _: &CycleState) -> Sees {
        Sees::NoPods
    }

    fn ignores(&self, event: &Event<'_>) -> bool {
        !matches!(event, Event::NodeAdded(_) | Event::NodeUpdated { .. })
    }

    fn is_cured_by(&self, pod: &PodInfo, event: &Event<'_>) -> bool {
        matches!(event, Event::NodeAdded(node) if pod.node_name() == Some(node.name()))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cache::{Cache, NodeChanges};

    fn cache() -> Cache {
        let mut cache = Cache::default();
        for name in ["a", "b"] {
            let node = serde_json::from_value(json!({"metadata": {"name": name}}));
            cache.apply_node(node.unwrap());
        }
        cache
    }

    fn pod(node: &str) -> PodInfo {
        let pod = json!({"metadata": {"name": "p", "uid": "p"}, "spec": {"nodeName": node, "containers": []}});
        PodInfo::new(serde_json::from_value(pod).unwrap()).unwrap()
    }

    #[test]
    fn a_pod_goes_to_the_node_that_it_names_and_nowhere_else() {
        let (cache, state) = (cache(), CycleState::default());
        let verdict = |pod: &PodInfo, node: &str| {
            let refused = NodeName.filter(&state, pod, cache.node(node).unwrap());
            refused.map_err(|refused| (refused.reasons.concat(), refused.resolvable))
        };
        let words = "node(s) didn't match the requested node name".to_string();
        assert_eq!(verdict(&pod("a"), "a"), Ok(()));
        assert_eq!(verdict(&pod("a"), "b"), Err((words, false)));
        assert_eq!(verdict(&pod(""), "b"), Ok(()));
    }

    #[test]
    fn only_the_named_node_itself_can_help() {
        let (cache, pod) = (cache(), pod("a"));
        let helps =
            |event: &Event<'_>| !NodeName.ignores(event) && NodeName.is_cured_by(&pod, event);
        assert!(helps(&Event::NodeAdded(cache.node("a").unwrap())));
        assert!(!helps(&Event::NodeAdded(cache.node("b").unwrap())));
        let updated = Event::NodeUpdated {
            node: cache.node("a").unwrap(),
            changes: NodeChanges::default(),
        };
        assert!(!helps(&updated));
        assert!(!helps(&Event::PodRemoved {
            pod: &pod,
            node: None
        }));
    }
}
