//! The service account of a pod: it exists, and its token is mounted.

use hull_api::{
    ApiError, ObjectExt, kinds,
    object::{default_text, default_to},
};
use serde_json::{Value, json};

use crate::{limits, names::random_suffix, storage::Storage};

const DEFAULT_ACCOUNT: &str = "default";
const MIRROR: &str = "kubernetes.io/config.mirror";
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const VOLUME_PREFIX: &str = "kube-api-access-";
/// An hour and a bit: Kubernetes' own value.
const TOKEN_SECONDS: i64 = 3607;
const FILE_MODE: i64 = 0o644;

fn is_mirror(pod: &Value) -> bool {
    pod.map_at("/metadata/annotations")
        .is_some_and(|annotations| annotations.contains_key(MIRROR))
}

/// Names the account `default` where the pod names none.
pub(super) fn name(pod: &mut Value) {
    if is_mirror(pod) {
        return;
    }
    let spec = pod.map_mut(&["spec"]);
    default_text(spec, "serviceAccountName", DEFAULT_ACCOUNT);
    if let Some(account) = spec.get("serviceAccountName").cloned() {
        default_to(spec, "serviceAccount", account);
    }
}

/// Finds the account, and takes over what it gives to its pods.
pub(super) async fn admit_pod(storage: &Storage, pod: &mut Value) -> Result<(), ApiError> {
    if is_mirror(pod) {
        return Ok(());
    }
    let name = pod.str_at("/spec/serviceAccountName").to_string();
    let namespace = pod.namespace().to_string();
    let Some(account) = find(storage, &namespace, &name).await? else {
        return Err(ApiError::forbidden(
            kinds::PODS.resource(),
            pod.name(),
            &format!(
                "error looking up service account {namespace}/{name}: serviceaccount {name:?} not found"
            ),
        ));
    };
    if pod.list_at("/spec/imagePullSecrets").is_empty() {
        let secrets = account.list_at("/imagePullSecrets");
        if !secrets.is_empty() {
            pod.set_at(&["spec", "imagePullSecrets"], json!(secrets));
        }
    }
    if mounts_token(pod, &account) {
        mount_token(pod);
    }
    Ok(())
}

/// The account; one of a new namespace is waited for.
async fn find(storage: &Storage, namespace: &str, name: &str) -> Result<Option<Value>, ApiError> {
    for attempt in 0..limits::ACCOUNT_TRIES {
        if attempt > 0 {
            tokio::time::sleep(limits::ACCOUNT_RETRY).await;
        }
        let found = storage
            .get(&kinds::SERVICE_ACCOUNTS, namespace, name)
            .await?;
        if let Some(account) = found {
            return Ok(Some(account.object));
        }
        // Only this one is made by a controller.
        if name != DEFAULT_ACCOUNT {
            break;
        }
    }
    Ok(None)
}

/// The pod's wish, else the account's, else yes.
fn mounts_token(pod: &Value, account: &Value) -> bool {
    let wish = |object: &Value, pointer: &str| object.pointer(pointer).and_then(Value::as_bool);
    wish(pod, "/spec/automountServiceAccountToken")
        .or_else(|| wish(account, "/automountServiceAccountToken"))
        .unwrap_or(true)
}

fn mount_token(pod: &mut Value) {
    let volume = format!("{VOLUME_PREFIX}{}", random_suffix());
    let mut needed = false;
    for field in ["initContainers", "containers"] {
        let Some(Value::Array(containers)) = pod.map_mut(&["spec"]).get_mut(field) else {
            continue;
        };
        for container in containers {
            let mut mounts = container.list_at("/volumeMounts").to_vec();
            if mounts
                .iter()
                .any(|mount| mount.str_at("/mountPath") == MOUNT_PATH)
            {
                continue;
            }
            needed = true;
            mounts.push(json!({"name": volume, "readOnly": true, "mountPath": MOUNT_PATH}));
            container.set_at(&["volumeMounts"], Value::Array(mounts));
        }
    }
    if !needed {
        return;
    }
    let mut volumes = pod.list_at("/spec/volumes").to_vec();
    volumes.push(json!({
        "name": volume,
        "projected": {
            "defaultMode": FILE_MODE,
            "sources": [
                {"serviceAccountToken": {"path": "token", "expirationSeconds": TOKEN_SECONDS}},
                {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                {"downwardAPI": {"items": [{"path": "namespace",
                    "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
            ],
        },
    }));
    pod.set_at(&["spec", "volumes"], Value::Array(volumes));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_container_without_its_own_mount_gets_the_token() {
        let own = json!([{"name": "mine", "mountPath": MOUNT_PATH}]);
        let mut pod = json!({"spec": {"containers": [{"name": "a"}, {"name": "b", "volumeMounts": own}],
            "initContainers": [{"name": "i"}]}});
        mount_token(&mut pod);
        let volume = pod.str_at("/spec/volumes/0/name").to_string();
        assert!(volume.starts_with(VOLUME_PREFIX));
        assert_eq!(pod.str_at("/spec/containers/0/volumeMounts/0/name"), volume);
        assert_eq!(
            pod.str_at("/spec/initContainers/0/volumeMounts/0/name"),
            volume
        );
        assert_eq!(pod.list_at("/spec/containers/1/volumeMounts").len(), 1);
        let mut none = json!({"spec": {"containers": [{"name": "b", "volumeMounts": own}]}});
        mount_token(&mut none);
        assert!(none.pointer("/spec/volumes").is_none());
    }

    #[test]
    fn the_pod_decides_before_the_account() {
        let object = |value: Option<bool>| match value {
            Some(value) => {
                json!({"spec": {"automountServiceAccountToken": value}, "automountServiceAccountToken": value})
            }
            None => json!({}),
        };
        for (pod, account, expected) in [
            (None, None, true),
            (None, Some(false), false),
            (Some(true), Some(false), true),
            (Some(false), None, false),
        ] {
            assert_eq!(mounts_token(&object(pod), &object(account)), expected);
        }
    }
}
