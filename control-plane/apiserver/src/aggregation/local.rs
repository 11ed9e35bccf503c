//! APIServices of what this server answers itself, and what extensions must know of it.

use hull_api::{ApiError, Kind, ObjectExt, kinds, kinds::API_SERVICES, meta};
use serde_json::{Value, json};

use crate::{
    handlers::Backend,
    pki::{ClusterPki, FRONT_PROXY},
    resource_metrics,
    storage::{Outcome, Storage},
};

/// Label of APIServices that this server keeps.
const MANAGED: &str = "kube-aggregator.kubernetes.io/automanaged";
/// Its value for built-in groups, and for those of custom resources, which go again.
const BUILT_IN: &str = "onstart";
const CUSTOM: &str = "true";
/// Priorities of groups and versions of custom resources, as Kubernetes has them.
const CUSTOM_PRIORITY: (i64, i64) = (1000, 100);
/// Those of metrics.k8s.io, as its usual server has them.
const METRICS_PRIORITY: (i64, i64) = (100, 100);
/// Groups in the order of Kubernetes' discovery: higher ones come first.
const GROUP_PRIORITIES: [(&str, i64); 21] = [
    ("", 18_000),
    ("apps", 17_800),
    ("events.k8s.io", 17_750),
    ("authentication.k8s.io", 17_700),
    ("authorization.k8s.io", 17_600),
    ("autoscaling", 17_500),
    ("batch", 17_400),
    ("certificates.k8s.io", 17_300),
    ("networking.k8s.io", 17_200),
    ("policy", 17_100),
    ("rbac.authorization.k8s.io", 17_000),
    ("storage.k8s.io", 16_800),
    ("apiextensions.k8s.io", 16_700),
    ("admissionregistration.k8s.io", 16_700),
    ("scheduling.k8s.io", 16_600),
    ("coordination.k8s.io", 16_500),
    ("node.k8s.io", 16_300),
    ("discovery.k8s.io", 16_200),
    ("flowcontrol.apiserver.k8s.io", 16_100),
    ("resource.k8s.io", 15_900),
    ("apiregistration.k8s.io", 15_800),
];
const BUILT_IN_VERSION_PRIORITY: i64 = 15;
/// The second version of autoscaling, before the first one.
const NEWER_VERSION_PRIORITY: i64 = 30;

fn wanted(group: &str, version: &str, managed: &str, (groups, versions): (i64, i64)) -> Value {
    let kind = &API_SERVICES;
    let mut object = json!({
        "apiVersion": kind.group_version(),
        "kind": kind.kind,
        "metadata": {"name": format!("{version}.{group}"), "labels": {MANAGED: managed}},
        "spec": {"group": group, "version": version,
            "groupPriorityMinimum": groups, "versionPriority": versions},
    });
    kind.strategy.prepare_create(&mut object);
    object
}

/// One for each version of each group.
fn all_wanted(backend: &Backend) -> Vec<Value> {
    let served = backend.kinds.current();
    let mut objects = vec![wanted(
        resource_metrics::GROUP,
        resource_metrics::VERSION,
        BUILT_IN,
        METRICS_PRIORITY,
    )];
    for (group, versions) in served.registry.groups() {
        let priority = GROUP_PRIORITIES.iter().find(|(name, _)| *name == group);
        for version in versions {
            objects.push(match priority {
                Some((_, priority)) => {
                    let newer = version == "v2";
                    let of_version = if newer {
                        NEWER_VERSION_PRIORITY
                    } else {
                        BUILT_IN_VERSION_PRIORITY
                    };
                    wanted(group, version, BUILT_IN, (*priority, of_version))
                }
                None => wanted(group, version, CUSTOM, CUSTOM_PRIORITY),
            });
        }
    }
    objects
}

/// Makes what is missing, and removes what custom resources left behind. Those that name a
/// service are somebody else's.
pub(super) async fn reconcile(backend: &Backend) -> Result<(), ApiError> {
    let kind: &Kind = &API_SERVICES;
    let wanted = all_wanted(backend);
    for object in &wanted {
        if backend
            .cache
            .get(kind.storage, &kind.key("", object.name()))
            .is_some()
        {
            continue;
        }
        let mut object = object.clone();
        let (now, uid) = (jiff::Timestamp::now(), uuid::Uuid::new_v4().to_string());
        meta::fill_on_create(&mut object, now, uid);
        // A conflict: it is there meanwhile.
        backend.storage.create(kind, &mut object).await?;
    }
    let range = hull_store::prefix_range(&kind.prefix(""));
    for found in backend.cache.snapshot(kind.storage, range).objects {
        let object = found.kept();
        let ours = object
            .labels()
            .and_then(|labels| labels.get(MANAGED))
            .is_some_and(|value| value == CUSTOM);
        let served = wanted.iter().any(|one| one.name() == object.name());
        if ours && !served && object.pointer("/spec/service").is_none() {
            let removed = backend
                .storage
                .remove(kind, "", object.name(), found.revision);
            removed.await?;
        }
    }
    Ok(())
}

/// Writes what extensions need to believe this server: `kube-system/extension-apiserver-authentication`.
pub(crate) async fn publish_authentication(
    storage: &Storage,
    pki: &ClusterPki,
) -> Result<(), ApiError> {
    const NAME: &str = "extension-apiserver-authentication";
    const NAMESPACE: &str = "kube-system";
    let kind: &Kind = &kinds::CONFIG_MAPS;
    let list = |value: &str| json!([value]).to_string();
    let data = json!({
        "client-ca-file": pki.ca_pem(),
        "requestheader-allowed-names": list(FRONT_PROXY),
        "requestheader-client-ca-file": pki.front_proxy_ca_pem(),
        "requestheader-extra-headers-prefix": list("X-Remote-Extra-"),
        "requestheader-group-headers": list("X-Remote-Group"),
        "requestheader-uid-headers": list("X-Remote-Uid"),
        "requestheader-username-headers": list("X-Remote-User"),
    });
    loop {
        let outcome = match storage.get(kind, NAMESPACE, NAME).await? {
            Some(found) if found.object.get("data") == Some(&data) => return Ok(()),
            Some(found) => {
                let mut object = found.object.clone();
                object.set_at(&["data"], data.clone());
                storage.replace(kind, &mut object, found.revision).await?
            }
            None => {
                let mut object = json!({
                    "apiVersion": "v1",
                    "kind": kind.kind,
                    "metadata": {"name": NAME, "namespace": NAMESPACE},
                    "data": data,
                });
                let (now, uid) = (jiff::Timestamp::now(), uuid::Uuid::new_v4().to_string());
                meta::fill_on_create(&mut object, now, uid);
                storage.create(kind, &mut object).await?
            }
        };
        if let Outcome::Done(_) = outcome {
            return Ok(());
        }
    }
}
