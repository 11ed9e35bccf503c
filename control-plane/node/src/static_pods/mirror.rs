//! Mirrors: for each static pod a pod in the API that shows it. Nothing happens to the static pod
//! when its mirror is changed or deleted; the mirror is made anew.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, ListParams, PostParams, Preconditions};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::source::StaticPods;
use super::{MIRROR, mirrored};
use crate::context::NodeContext;

/// Keeps mirrors until cancelled; `changed` says that one was changed in the API.
pub(crate) async fn run(
    node: Arc<NodeContext>,
    mut pods: StaticPods,
    changed: Arc<Notify>,
    shutdown: CancellationToken,
) {
    // Without a directory there is nothing to mirror, and what an earlier run with one left is
    // still taken away once.
    let lonely = node.config.static_pod_dir.is_none();
    loop {
        let present = pods.borrow_and_update().clone();
        let kept = match present {
            Some(present) => keep(&node, &present).await,
            None => Ok(()),
        };
        let failed = kept.is_err();
        if let Err(error) = kept {
            tracing::warn!(%error, "mirrors of static pods not kept, trying again");
        } else if lonely {
            return;
        }
        let retry = if failed {
            node.config.timings.sync_retry
        } else {
            node.config.timings.resync_interval
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            Ok(()) = pods.changed() => {}
            () = changed.notified() => {}
            () = tokio::time::sleep(retry) => {}
        }
    }
}

/// Makes the mirrors in the API those of `pods`.
async fn keep(node: &NodeContext, pods: &[Arc<Pod>]) -> Result<(), kube::Error> {
    let all: Api<Pod> = Api::all(node.client.clone());
    let fields = format!("spec.nodeName={}", node.config.node_name);
    let found = all.list(&ListParams::default().fields(&fields)).await?;
    let same = |one: &Pod, other: &Pod| {
        one.metadata.name == other.metadata.name
            && one.metadata.namespace == other.metadata.namespace
    };
    for mirror in found.items.iter().filter(|pod| mirrored(pod).is_some()) {
        let current = pods.iter().any(|pod| {
            same(pod, mirror)
                && mirrored(mirror) == pod.metadata.uid.as_deref()
                && mirror.metadata.deletion_timestamp.is_none()
        });
        if !current {
            delete(node, mirror).await?;
        }
    }
    for pod in pods {
        let shown = found.items.iter().any(|mirror| {
            same(pod, mirror)
                && mirrored(mirror) == pod.metadata.uid.as_deref()
                && mirror.metadata.deletion_timestamp.is_none()
        });
        if !shown {
            create(node, pod).await?;
        }
    }
    Ok(())
}

fn api(node: &NodeContext, pod: &Pod) -> Api<Pod> {
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    Api::namespaced(node.client.clone(), &namespace)
}

async fn delete(node: &NodeContext, mirror: &Pod) -> Result<(), kube::Error> {
    let parameters = DeleteParams {
        grace_period_seconds: Some(0),
        preconditions: Some(Preconditions {
            uid: mirror.metadata.uid.clone(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let name = mirror.metadata.name.clone().unwrap_or_default();
    match api(node, mirror).delete(&name, &parameters).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(error)) if error.code == 404 || error.code == 409 => Ok(()),
        Err(error) => Err(error),
    }
}

async fn create(node: &NodeContext, pod: &Pod) -> Result<(), kube::Error> {
    let mut mirror = pod.clone();
    let hash = mirror.metadata.uid.take().unwrap_or_default();
    let annotations = mirror.metadata.annotations.get_or_insert_default();
    annotations.insert(MIRROR.into(), hash);
    let created = api(node, pod).create(&PostParams::default(), &mirror).await;
    match created {
        Ok(_) => Ok(()),
        // A pod that is no mirror has the name; its owner has to give way.
        Err(kube::Error::Api(error)) if error.code == 409 => {
            tracing::warn!(name = ?pod.metadata.name, "another pod has a static pod's name");
            Ok(())
        }
        Err(error) => Err(error),
    }
}
