//! Replacing pods of old revisions.

use std::sync::Arc;

use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::util::intstr::IntOrString};

use super::{DaemonSetController, View, leaves, nodes};
use crate::{
    int_or_percent::resolve,
    pod_control::Failure,
    pods::{is_active, is_terminal},
};

/// Old and new pod of a node, without those on their way out.
struct Pair<'a> {
    name: &'a str,
    old: Option<&'a Arc<Pod>>,
    new: Option<&'a Arc<Pod>>,
    /// One is on its way out.
    leaving: bool,
    should_run: bool,
}

impl View<'_> {
    fn bound(&self, value: Option<&IntOrString>, default: i32) -> usize {
        let wanted = self
            .nodes
            .values()
            .filter(|node| nodes::fit(self, node).should_run);
        let wanted = i32::try_from(wanted.count()).unwrap_or(i32::MAX);
        let bound = value.map_or(default, |value| resolve(value, wanted, true));
        usize::try_from(bound).unwrap_or(0)
    }

    /// Pods that may be there above one per node.
    pub fn max_surge(&self) -> usize {
        if !self.is_rolling() {
            return 0;
        }
        let strategy = self.spec.update_strategy.as_ref();
        let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
        self.bound(rolling.and_then(|rolling| rolling.max_surge.as_ref()), 0)
    }

    /// Nodes that may be without an available pod; at least one if nothing may surge.
    fn max_unavailable(&self) -> usize {
        let strategy = self.spec.update_strategy.as_ref();
        let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
        let most = self.bound(
            rolling.and_then(|rolling| rolling.max_unavailable.as_ref()),
            1,
        );
        if most == 0 && self.max_surge() == 0 {
            1
        } else {
            most
        }
    }

    fn pairs(&self) -> Vec<Pair<'_>> {
        self.nodes
            .values()
            .filter_map(|node| {
                let fit = nodes::fit(self, node);
                let pods = self.on(node);
                let find = |current: bool| {
                    pods.iter()
                        .find(|pod| is_active(pod) && self.is_current(pod) == current)
                };
                fit.should_continue.then(|| Pair {
                    name: self.name(node),
                    old: find(false),
                    new: find(true),
                    leaving: pods.iter().any(|pod| leaves(pod) && !is_terminal(pod)),
                    should_run: fit.should_run,
                })
            })
            .collect()
    }
}

impl DaemonSetController {
    pub(super) async fn roll(&self, view: &View<'_>) -> Result<(), Failure> {
        if view.max_surge() > 0 {
            self.surge(view).await
        } else {
            self.replace(view).await
        }
    }

    /// Old pods go, as many as may be away; those that are away already go at once.
    async fn replace(&self, view: &View<'_>) -> Result<(), Failure> {
        let pairs = view.pairs();
        let is_up = |pair: &&Pair<'_>| {
            let pods = [pair.old, pair.new];
            pods.into_iter().flatten().any(|pod| view.is_available(pod))
        };
        let away = pairs
            .iter()
            .filter(|pair| pair.should_run && !is_up(pair))
            .count();
        let mut left = view.max_unavailable().saturating_sub(away);
        let mut doomed = Vec::new();
        for pair in &pairs {
            let (Some(old), None) = (pair.old, pair.new) else {
                continue;
            };
            if view.is_available(old) {
                if left == 0 {
                    continue;
                }
                left -= 1;
            }
            doomed.push(old.clone());
        }
        self.control.change(view.set, Vec::new(), &doomed).await
    }

    /// New pods come beside old ones; an old one goes when its new one is available.
    async fn surge(&self, view: &View<'_>) -> Result<(), Failure> {
        let pairs = view.pairs();
        let both = pairs
            .iter()
            .filter(|pair| pair.new.is_some() && (pair.old.is_some() || pair.leaving))
            .count();
        let mut left = view.max_surge().saturating_sub(both);
        let (mut doomed, mut new) = (Vec::new(), Vec::new());
        for pair in &pairs {
            match (pair.old, pair.new) {
                (Some(old), Some(new)) if view.is_available(new) => doomed.push(old.clone()),
                (Some(_), None) if pair.should_run && left > 0 => {
                    left -= 1;
                    new.push(view.new_pod(pair.name));
                }
                // One that does not serve can make room at once.
                (Some(old), None) if !view.is_available(old) && !pair.should_run => {
                    doomed.push(old.clone());
                }
                _ => {}
            }
        }
        self.control.change(view.set, new, &doomed).await
    }
}
