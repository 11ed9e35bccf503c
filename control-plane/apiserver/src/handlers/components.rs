//! `componentstatuses`: the parts of the control plane, asked when somebody reads them.
//!
//! The store is asked itself. Scheduler and controllers may be in other processes or on other
//! machines: whoever does their work keeps its Lease fresh. Without leader election there is no
//! Lease, and nothing is known of them here.

use http::StatusCode;
use hull_api::{ApiError, Kind, ObjectExt, kinds::LEASES, time};
use serde_json::{Value, json};

use super::{Context, HandlerResult, list};
use crate::http::Output;

const NAMESPACE: &str = "kube-system";
/// Components with their Leases.
const WORKERS: [(&str, &str); 2] = [
    ("controller-manager", "kube-controller-manager"),
    ("scheduler", "kube-scheduler"),
];
const STORE: &str = "etcd-0";

/// GET and LIST.
pub(super) async fn read(verb: &str, context: &Context<'_>) -> HandlerResult {
    match verb {
        "get" => {
            let found = components(context).await;
            let found = found.iter().find(|one| one.name() == context.name);
            let resource = context.kind.resource();
            Ok(Output {
                kind: context.kind,
                accept: context.accept,
                status: StatusCode::OK,
                object: found.ok_or_else(|| ApiError::not_found(resource, context.name))?,
                warnings: &[],
            }
            .into_response())
        }
        "list" => list::computed(context, components(context).await),
        _ => Err(ApiError::method_not_allowed(Some(context.kind.resource()))),
    }
}

async fn components(context: &Context<'_>) -> Vec<Value> {
    let backend = context.backend;
    let store = match backend.storage.store().revision().await {
        Ok(_) => ("True", "ok".to_string()),
        Err(error) => ("False", error.to_string()),
    };
    let leases: &Kind = &LEASES;
    let now = jiff::Timestamp::now();
    let workers = WORKERS.map(|(name, lease)| {
        let found = backend
            .cache
            .get(leases.storage, &leases.key(NAMESPACE, lease));
        let found = found.map(|found| found.parsed());
        (name, health(found.as_ref(), now))
    });
    workers
        .into_iter()
        .chain([(STORE, store)])
        .map(|(name, (status, message))| {
            json!({
                "apiVersion": context.kind.group_version(),
                "kind": context.kind.kind,
                "metadata": {"name": name},
                "conditions": [{"type": "Healthy", "status": status, "message": message}],
            })
        })
        .collect()
}

/// Status and message of whoever should hold the Lease.
fn health(lease: Option<&Value>, now: jiff::Timestamp) -> (&'static str, String) {
    let Some(lease) = lease else {
        return ("Unknown", "there is no lease to tell by".to_string());
    };
    let holder = lease.str_at("/spec/holderIdentity");
    let seconds = lease.int_at("/spec/leaseDurationSeconds").unwrap_or(0);
    match time::parse(lease.str_at("/spec/renewTime")) {
        _ if holder.is_empty() => ("False", "nobody holds the lease".to_string()),
        Some(renewed) if now.as_second() - renewed.as_second() <= seconds => {
            ("True", "ok".to_string())
        }
        _ => ("False", format!("{holder} does not renew its lease")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_tells_how_its_holder_is() {
        let now = time::parse("2026-01-01T00:01:00Z").unwrap();
        let lease = |renewed: &str| json!({"spec": {"holderIdentity": "a", "leaseDurationSeconds": 15, "renewTime": renewed}});
        for (lease, status) in [
            (None, "Unknown"),
            (Some(json!({"spec": {}})), "False"),
            (Some(lease("2026-01-01T00:00:50.000000Z")), "True"),
            (Some(lease("2026-01-01T00:00:40.000000Z")), "False"),
        ] {
            assert_eq!(health(lease.as_ref(), now).0, status, "{lease:?}");
        }
    }
}
