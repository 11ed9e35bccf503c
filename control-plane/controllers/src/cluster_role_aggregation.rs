//! ClusterRoles with an aggregation rule: their rules are those of all roles that match it.

use std::sync::Arc;

use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use serde_json::json;

use crate::{
    adopt::{parse_selector, selects},
    runtime::{Action, Controller, Informer, Key, ReconcileError, WorkQueue, Writer},
};

/// See the module.
pub struct ClusterRoleAggregationController {
    writer: Arc<dyn Writer>,
    roles: Arc<Informer<ClusterRole>>,
    queue: Arc<WorkQueue>,
}

impl ClusterRoleAggregationController {
    /// Connects the controller to its informer.
    pub fn new(writer: Arc<dyn Writer>, roles: Arc<Informer<ClusterRole>>) -> Arc<Self> {
        let queue = Arc::new(WorkQueue::default());
        roles.on_change({
            let (queue, all) = (queue.clone(), roles.clone());
            // Labels may have changed: any aggregated role may win or lose one.
            move |_| {
                for role in all.all() {
                    if role.aggregation_rule.is_some() {
                        queue.add(Key::of(&*role));
                    }
                }
            }
        });
        Arc::new(ClusterRoleAggregationController {
            writer,
            roles,
            queue,
        })
    }

    /// The rules that the role should have, in the order of the names of the roles they are from.
    fn wanted(&self, role: &ClusterRole) -> Result<Vec<PolicyRule>, ReconcileError> {
        let rule = role.aggregation_rule.as_ref();
        let selectors = rule.and_then(|rule| rule.cluster_role_selectors.as_ref());
        let mut sources = self.roles.all();
        sources.retain(|source| source.metadata.name != role.metadata.name);
        sources.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
        let mut rules: Vec<PolicyRule> = Vec::new();
        for selector in selectors.into_iter().flatten() {
            let name = role.metadata.name.as_deref().unwrap_or_default();
            let selector = parse_selector(selector, &format!("clusterrole {name}"))?;
            for source in sources
                .iter()
                .filter(|source| selects(&selector, &***source))
            {
                for rule in source.rules.iter().flatten() {
                    if !rules.contains(rule) {
                        rules.push(rule.clone());
                    }
                }
            }
        }
        Ok(rules)
    }
}

#[async_trait::async_trait]
impl Controller for ClusterRoleAggregationController {
    fn name(&self) -> &'static str {
        "clusterrole-aggregation"
    }

    fn queue(&self) -> &Arc<WorkQueue> {
        &self.queue
    }

    async fn reconcile(&self, key: &Key) -> Result<Action, ReconcileError> {
        let Some(role) = self.roles.get(key) else {
            return Ok(Action::Done);
        };
        if role.aggregation_rule.is_none() || role.metadata.deletion_timestamp.is_some() {
            return Ok(Action::Done);
        }
        let rules = self.wanted(&role)?;
        if role.rules.clone().unwrap_or_default() == rules {
            return Ok(Action::Done);
        }
        let patch = json!({
            "metadata": {
                "uid": role.metadata.uid, "resourceVersion": role.metadata.resource_version
            },
            "rules": rules,
        });
        match self.writer.patch_object(&*role, None, patch).await {
            Err(error) if !error.is_not_found() => Err(error.into()),
            _ => Ok(Action::Done),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::fake::{FakeApi, settle};

    fn role(api: &FakeApi, name: &str, label: &str, resource: &str) {
        api.seed::<ClusterRole>(json!({
            "metadata": {"name": name, "labels": {label: "true"}},
            "rules": [{"apiGroups": [""], "resources": [resource], "verbs": ["get"]}]
        }));
    }

    fn resources(api: &FakeApi, name: &str) -> Vec<String> {
        let roles = api.all::<ClusterRole>();
        let role = roles
            .iter()
            .find(|role| role.metadata.name.as_deref() == Some(name));
        let rules = role.unwrap().rules.iter().flatten();
        rules
            .flat_map(|rule| rule.resources.clone().unwrap_or_default())
            .collect()
    }

    #[tokio::test]
    async fn an_aggregated_role_has_the_rules_of_all_that_match_through_several_levels() {
        let api = FakeApi::new();
        let controller = ClusterRoleAggregationController::new(api.clone(), Arc::default());
        for (name, own, of) in [
            ("admin", "to-root", "to-admin"),
            ("edit", "to-admin", "to-edit"),
        ] {
            api.seed::<ClusterRole>(json!({
                "metadata": {"name": name, "labels": {own: "true"}},
                "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {of: "true"}}]}
            }));
        }
        role(&api, "b", "to-edit", "pods");
        role(&api, "a", "to-edit", "secrets");
        role(&api, "c", "other", "nodes");
        settle(&*controller, || api.pump(&controller.roles)).await;
        assert_eq!(resources(&api, "edit"), ["secrets", "pods"]);
        assert_eq!(resources(&api, "admin"), ["secrets", "pods"]);

        api.remove("clusterroles", &Key::new("", "a"));
        settle(&*controller, || api.pump(&controller.roles)).await;
        assert_eq!(resources(&api, "admin"), ["pods"]);
        api.take_requests();
        controller.queue.add(Key::new("", "edit"));
        settle(&*controller, || api.pump(&controller.roles)).await;
        assert!(api.take_requests().is_empty(), "nothing is written in vain");
    }
}
