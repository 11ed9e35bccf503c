//! Disruption budgets, as preemption looks at them.

use std::{collections::HashMap, sync::Arc};

use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::core::{Selector, SelectorExt};

use crate::pod::PodInfo;

#[derive(Debug)]
struct Budget {
    selector: Selector,
    allowed: i32,
    /// Evictions that were granted already.
    disrupted: Vec<String>,
}

/// All budgets by namespace and name.
#[derive(Debug, Default)]
pub struct Budgets {
    budgets: HashMap<(String, String), Budget>,
}

fn key(budget: &PodDisruptionBudget) -> (String, String) {
    let meta = &budget.metadata;
    (
        meta.namespace.clone().unwrap_or_default(),
        meta.name.clone().unwrap_or_default(),
    )
}

impl Budgets {
    /// A list begins: forget all.
    pub fn clear(&mut self) {
        self.budgets.clear();
    }

    /// Created or changed.
    pub fn apply(&mut self, budget: &PodDisruptionBudget) {
        let selector = budget.spec.as_ref().and_then(|spec| spec.selector.clone());
        let Some(selector) = selector.and_then(|selector| Selector::try_from(selector).ok()) else {
            return;
        };
        let status = budget.status.clone().unwrap_or_default();
        let disrupted = status.disrupted_pods.unwrap_or_default();
        let budget_of = Budget {
            selector,
            allowed: status.disruptions_allowed.unwrap_or(0),
            disrupted: disrupted.into_keys().collect(),
        };
        self.budgets.insert(key(budget), budget_of);
    }

    /// Deleted.
    pub fn delete(&mut self, budget: &PodDisruptionBudget) {
        self.budgets.remove(&key(budget));
    }

    /// Those whose loss would break a budget, and the others; each in the order given.
    pub fn split(&self, pods: Vec<Arc<PodInfo>>) -> (Vec<Arc<PodInfo>>, Vec<Arc<PodInfo>>) {
        let mut left: HashMap<&(String, String), i32> = HashMap::new();
        pods.into_iter().partition(|pod| {
            let Some(labels) = &pod.pod.metadata.labels else {
                return false;
            };
            let mut breaks = false;
            for (key, budget) in &self.budgets {
                let about = key.0 == pod.namespace() && budget.selector.matches(labels);
                if !about || budget.disrupted.iter().any(|name| name == pod.name()) {
                    continue;
                }
                let left = left.entry(key).or_insert(budget.allowed);
                *left -= 1;
                breaks |= *left < 0;
            }
            breaks
        })
    }
}
