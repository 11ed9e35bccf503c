//! ResourceQuota status: what the objects of the namespace use, counted anew.
//!
//! Admission charges `status.used` with each write that takes more; this controller gives back
//! what was deleted or has ended, and counts what was there before the quota. Both use the same
//! evaluation (`hull_api::quota`). Pods, claims and services are counted by what they ask for,
//! every other kind by number, from the garbage collector's graph of all objects.

use std::{sync::Arc, time::Duration};

use hull_api::{
    Kind,
    amounts::{Amounts, add, amounts},
    kinds,
    quantity::Quantity,
    quota::{Counted, scopes, usage},
};
use k8s_openapi::{
    api::core::v1::{PersistentVolumeClaim, Pod, ResourceQuota, ResourceQuotaStatus, Service},
    apimachinery::pkg::api::resource::Quantity as QuantityText,
};
use kube::{Resource, core::ApiResource};
use serde::Serialize;
use serde_json::Value;

use crate::{
    garbage::GarbageCollector,
    pods,
    runtime::{Action, Controller, Delta, Informer, Key, ReconcileError, WorkQueue, Writer},
};

/// Changes within this time are counted together.
const COALESCE: Duration = Duration::from_millis(500);
/// Every quota is counted anew after this time even if nothing seems to have changed.
const RESYNC: Duration = Duration::from_secs(300);

/// See the module.
pub struct ResourceQuotaController {
    writer: Arc<dyn Writer>,
    quotas: Arc<Informer<ResourceQuota>>,
    pods: Arc<Informer<Pod>>,
    claims: Arc<Informer<PersistentVolumeClaim>>,
    services: Arc<Informer<Service>>,
    objects: Arc<GarbageCollector>,
    queue: Arc<WorkQueue>,
}

/// Wakes the quotas of the namespace that `concerns` some name in `spec.hard`.
fn wake(
    quotas: &Informer<ResourceQuota>,
    queue: &WorkQueue,
    namespace: &str,
    concerns: impl Fn(Counted<'_>) -> bool,
) {
    for quota in quotas.in_namespace(namespace) {
        let hard = quota.spec.as_ref().and_then(|spec| spec.hard.as_ref());
        let mut names = hard.into_iter().flat_map(|hard| hard.keys());
        if names.any(|name| Counted::by(name).is_some_and(&concerns)) {
            queue.add_after(Key::of(&*quota), COALESCE);
        }
    }
}

fn concerns(counted: Counted<'_>, resource: &ApiResource) -> bool {
    match counted {
        Counted::Pods => resource.group.is_empty() && resource.plural == "pods",
        Counted::Claims => resource.group.is_empty() && resource.plural == "persistentvolumeclaims",
        Counted::Services => resource.group.is_empty() && resource.plural == "services",
        Counted::Objects { group, plural } => resource.group == group && resource.plural == plural,
    }
}

impl ResourceQuotaController {
    /// Connects the controller to its informers and to the graph of all objects.
    pub fn new(
        writer: Arc<dyn Writer>,
        quotas: Arc<Informer<ResourceQuota>>,
        pods: Arc<Informer<Pod>>,
        claims: Arc<Informer<PersistentVolumeClaim>>,
        services: Arc<Informer<Service>>,
        objects: Arc<GarbageCollector>,
    ) -> Arc<Self> {
        let queue = Arc::new(WorkQueue::default());
        quotas.on_change({
            let queue = queue.clone();
            // Admission charges quotas itself: only another limit asks for a new count.
            move |delta| match delta {
                Delta::Updated { old, new } if old.spec == new.spec && !shows_other_limits(new) => {
                }
                _ => queue.add(Key::of(&**delta.newest())),
            }
        });
        objects.on_count({
            let (quotas, queue) = (quotas.clone(), queue.clone());
            move |namespace, resource| {
                wake(&quotas, &queue, namespace, |counted| {
                    concerns(counted, resource)
                });
            }
        });
        on_other_use(&pods, &quotas, &queue, Counted::Pods, |old: &Pod, new| {
            pods::is_terminal(old) != pods::is_terminal(new) || old.spec != new.spec
        });
        on_other_use(
            &claims,
            &quotas,
            &queue,
            Counted::Claims,
            |old: &PersistentVolumeClaim, new| old.spec != new.spec,
        );
        on_other_use(
            &services,
            &quotas,
            &queue,
            Counted::Services,
            |old: &Service, new| old.spec != new.spec,
        );
        Arc::new(ResourceQuotaController {
            writer,
            quotas,
            pods,
            claims,
            services,
            objects,
            queue,
        })
    }

    /// What is used of what the quota limits.
    fn used(&self, quota: &ResourceQuota, hard: &Amounts) -> Result<Amounts, ReconcileError> {
        let namespace = quota.metadata.namespace.as_deref().unwrap_or_default();
        let limits = to_value(quota)?;
        let counted: Vec<Counted<'_>> = hard.keys().filter_map(|name| Counted::by(name)).collect();
        let mut total = Amounts::new();
        if counted.contains(&Counted::Pods) {
            sum(
                &mut total,
                &limits,
                &kinds::PODS,
                &self.pods.in_namespace(namespace),
            )?;
        }
        if counted.contains(&Counted::Claims) {
            let claims = self.claims.in_namespace(namespace);
            sum(
                &mut total,
                &limits,
                &kinds::PERSISTENT_VOLUME_CLAIMS,
                &claims,
            )?;
        }
        if counted.contains(&Counted::Services) {
            sum(
                &mut total,
                &limits,
                &kinds::SERVICES,
                &self.services.in_namespace(namespace),
            )?;
        }
        let spec = quota.spec.as_ref();
        let has_scopes = spec.is_some_and(|spec| {
            spec.scope_selector.is_some() || spec.scopes.iter().flatten().next().is_some()
        });
        let mut used = Amounts::new();
        for name in hard.keys() {
            let amount = match Counted::by(name) {
                None => continue,
                Some(Counted::Objects { group, plural }) if !has_scopes => {
                    let number = self.objects.number_of(group, plural, namespace);
                    let number = number.ok_or_else(|| {
                        ReconcileError::Waiting("not all kinds have been listed yet".into())
                    })?;
                    Quantity::from_units(i64::try_from(number).unwrap_or(i64::MAX))
                }
                Some(_) => total
                    .remove(name)
                    .unwrap_or_else(|| Quantity::from_units(0)),
            };
            used.insert(name.clone(), amount);
        }
        Ok(used)
    }
}

/// The status is of other limits than the spec's.
fn shows_other_limits(quota: &ResourceQuota) -> bool {
    let wanted = quota.spec.as_ref().and_then(|spec| spec.hard.as_ref());
    let shown = quota
        .status
        .as_ref()
        .and_then(|status| status.hard.as_ref());
    wanted != shown
}

fn on_other_use<K>(
    objects: &Informer<K>,
    quotas: &Arc<Informer<ResourceQuota>>,
    queue: &Arc<WorkQueue>,
    kind: Counted<'static>,
    differs: impl Fn(&K, &K) -> bool + Send + Sync + 'static,
) where
    K: Resource + std::fmt::Debug + Send + Sync + 'static,
{
    let (quotas, queue) = (quotas.clone(), queue.clone());
    objects.on_change(move |delta| {
        // Objects that come and go are seen by the graph.
        if let Delta::Updated { old, new } = delta
            && differs(old, new)
        {
            let namespace = new.meta().namespace.as_deref().unwrap_or_default();
            wake(&quotas, &queue, namespace, |counted| counted == kind);
        }
    });
}

fn to_value<K: Serialize>(object: &K) -> Result<Value, ReconcileError> {
    serde_json::to_value(object).map_err(|error| ReconcileError::Invalid {
        object: std::any::type_name::<K>().into(),
        problem: error.to_string(),
    })
}

/// Adds what those of the objects use that the quota is about.
fn sum<K: Serialize>(
    total: &mut Amounts,
    quota: &Value,
    kind: &Kind,
    objects: &[Arc<K>],
) -> Result<(), ReconcileError> {
    for object in objects {
        let object = to_value(&**object)?;
        if scopes::matches(quota, kind, &object) {
            add(total, &usage::of(kind, &object));
        }
    }
    Ok(())
}

#[async_trait::async_trait]
impl Controller for ResourceQuotaController {
    fn name(&self) -> &'static str {
        "resource-quota"
    }

    fn queue(&self) -> &Arc<WorkQueue> {
        &self.queue
    }

    async fn reconcile(&self, key: &Key) -> Result<Action, ReconcileError> {
        let Some(quota) = self.quotas.get(key) else {
            return Ok(Action::Done);
        };
        if quota.metadata.deletion_timestamp.is_some() {
            return Ok(Action::Done);
        }
        let limits = quota.spec.as_ref().and_then(|spec| spec.hard.clone());
        let hard = amounts(Some(&to_value(&limits)?));
        let used = self.used(&quota, &hard)?;
        let shown = quota
            .status
            .as_ref()
            .and_then(|status| status.used.as_ref());
        if !shows_other_limits(&quota) && amounts(Some(&to_value(&shown)?)) == used {
            return Ok(Action::After(RESYNC));
        }
        let used = used.into_iter();
        let used = used.map(|(name, amount)| (name, QuantityText(amount.to_string())));
        let changed = ResourceQuota {
            status: Some(ResourceQuotaStatus {
                hard: limits,
                used: Some(used.collect()),
            }),
            ..(*quota).clone()
        };
        // With the version that was counted for: what admission charged meanwhile wins.
        match self.writer.replace_status(&changed).await {
            Err(error) if !error.is_not_found() => Err(error.into()),
            _ => Ok(Action::After(RESYNC)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::{
        fake::{FakeApi, refused, settle},
        writer::resource_of,
    };
    use k8s_openapi::api::core::v1::ConfigMap;
    use serde_json::json;

    struct Shop {
        api: Arc<FakeApi>,
        controller: Arc<ResourceQuotaController>,
        maps: Informer<ConfigMap>,
    }

    fn shop() -> Shop {
        let api = FakeApi::new();
        let objects = GarbageCollector::new(api.clone());
        objects.assume_listed();
        let maps = Informer::default();
        let controller = ResourceQuotaController::new(
            api.clone(),
            Arc::default(),
            Arc::default(),
            Arc::default(),
            Arc::default(),
            objects.clone(),
        );
        objects.follow(&maps);
        objects.follow(&controller.pods);
        Shop {
            api,
            controller,
            maps,
        }
    }

    impl Shop {
        fn quota(&self, name: &str, spec: Value) {
            self.api.seed::<ResourceQuota>(
                json!({"metadata": {"name": name, "namespace": "shop"}, "spec": spec}),
            );
        }

        fn pod(&self, name: &str, cpu: Option<&str>) {
            let requests = cpu.map(|cpu| json!({"cpu": cpu})).unwrap_or(json!({}));
            self.api.seed::<Pod>(json!({
                "metadata": {"name": name, "namespace": "shop"},
                "spec": {"containers": [{"name": "c", "resources": {"requests": requests}}]},
                "status": {"phase": "Running"}
            }));
        }

        async fn settle(&self) {
            let c = &self.controller;
            let pump = || {
                self.api.pump(&c.pods);
                self.api.pump(&c.claims);
                self.api.pump(&c.services);
                self.api.pump(&self.maps);
                self.api.pump(&c.quotas);
            };
            pump();
            // Coalesced changes are due after real time otherwise.
            for quota in c.quotas.all() {
                c.queue.add(Key::of(&*quota));
            }
            settle(&**c, pump).await;
        }

        fn used(&self, name: &str) -> Value {
            let quotas = self.api.all::<ResourceQuota>();
            let quota = quotas
                .iter()
                .find(|q| q.metadata.name.as_deref() == Some(name));
            let status = quota.unwrap().status.clone().unwrap();
            assert_eq!(status.hard, quota.unwrap().spec.clone().unwrap().hard);
            serde_json::to_value(status.used).unwrap()
        }
    }

    #[tokio::test]
    async fn counts_what_is_there_and_gives_back_what_ended_or_went() {
        let shop = shop();
        shop.quota(
            "q",
            json!({"hard": {"pods": "5", "requests.cpu": "4", "configmaps": "9",
            "count/deployments.apps": "3", "requests.storage": "10Gi"}}),
        );
        shop.pod("a", Some("1"));
        shop.pod("b", Some("500m"));
        for name in ["one", "two"] {
            shop.api
                .seed::<ConfigMap>(json!({"metadata": {"name": name, "namespace": "shop"}}));
        }
        shop.api.seed::<PersistentVolumeClaim>(json!({
            "metadata": {"name": "data", "namespace": "shop"},
            "spec": {"resources": {"requests": {"storage": "3Gi"}}}}));
        shop.settle().await;
        assert_eq!(
            shop.used("q"),
            json!({"pods": "2", "requests.cpu": "1500m", "configmaps": "2",
                "count/deployments.apps": "0", "requests.storage": "3Gi"})
        );

        let ended = json!({"status": {"phase": "Succeeded"}});
        shop.api.change("pods", &Key::new("shop", "a"), ended);
        shop.api.remove("configmaps", &Key::new("shop", "one"));
        shop.settle().await;
        let used = shop.used("q");
        assert_eq!(
            [&used["pods"], &used["requests.cpu"], &used["configmaps"]],
            ["1", "500m", "1"]
        );

        shop.api.take_requests();
        shop.settle().await;
        assert!(
            shop.api.take_requests().is_empty(),
            "nothing is written in vain"
        );
    }

    #[tokio::test]
    async fn a_scope_counts_only_its_pods() {
        let shop = shop();
        shop.quota(
            "best",
            json!({"hard": {"pods": "5"}, "scopes": ["BestEffort"]}),
        );
        shop.quota(
            "rest",
            json!({"hard": {"pods": "5", "cpu": "9"}, "scopes": ["NotBestEffort"]}),
        );
        shop.pod("a", Some("1"));
        shop.pod("b", None);
        shop.pod("c", None);
        shop.settle().await;
        assert_eq!(shop.used("best"), json!({"pods": "2"}));
        assert_eq!(shop.used("rest"), json!({"pods": "1", "cpu": "1"}));
    }

    #[tokio::test]
    async fn an_object_that_goes_wakes_the_quotas_that_count_it() {
        let shop = shop();
        shop.quota("pods", json!({"hard": {"pods": "5"}}));
        shop.quota("maps", json!({"hard": {"count/configmaps": "5"}}));
        shop.api
            .seed::<ConfigMap>(json!({"metadata": {"name": "one", "namespace": "shop"}}));
        shop.settle().await;
        shop.api.remove("configmaps", &Key::new("shop", "one"));
        shop.api.pump(&shop.maps);
        assert_eq!(shop.controller.queue.next().await, Key::new("shop", "maps"));
        assert!(shop.controller.queue.is_empty());
    }

    #[tokio::test]
    async fn what_admission_charged_meanwhile_is_not_overwritten() {
        let shop = shop();
        shop.quota("q", json!({"hard": {"pods": "5"}}));
        shop.api.fail(
            "replace resourcequotas",
            refused(409, "Conflict", "changed"),
        );
        shop.settle().await;
        assert_eq!(
            shop.used("q"),
            json!({"pods": "0"}),
            "tried again with the newer one"
        );
        assert_eq!(resource_of::<ResourceQuota>().plural, "resourcequotas");
    }
}
