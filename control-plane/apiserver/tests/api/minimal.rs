//! The least that each kind accepts.

use serde_json::{Value, json};

use crate::certificates;

pub fn template(restart: &str) -> Value {
    json!({"metadata": {"labels": {"app": "a"}},
        "spec": {"restartPolicy": restart, "containers": [{"name": "c", "image": "nginx"}]}})
}

/// The least that the kind accepts beside its name; null for kinds that nobody creates.
pub fn minimal(kind: &str) -> Value {
    let selector = json!({"matchLabels": {"app": "a"}});
    let always = template("Always");
    let never = template("Never");
    let claim =
        json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}});
    match kind {
        "Pod" => json!({"spec": {"containers": [{"name": "c", "image": "nginx"}]}}),
        "Deployment" | "ReplicaSet" | "DaemonSet" | "StatefulSet" => {
            json!({"spec": {"selector": selector, "template": always}})
        }
        "ReplicationController" => json!({"spec": {"template": always}}),
        "PodTemplate" => json!({"template": always}),
        "Job" => json!({"spec": {"template": never}}),
        "CronJob" => {
            json!({"spec": {"schedule": "*/5 * * * *", "jobTemplate": {"spec": {"template": never}}}})
        }
        "ControllerRevision" => json!({"data": {"spec": 1}, "revision": 3}),
        "Service" => json!({"spec": {"ports": [{"port": 80}]}}),
        "Endpoints" => {
            json!({"subsets": [{"addresses": [{"ip": "10.1.2.3"}], "ports": [{"port": 80}]}]})
        }
        "EndpointSlice" => {
            json!({"addressType": "IPv4", "endpoints": [{"addresses": ["10.1.2.3"]}], "ports": [{"port": 80}]})
        }
        "PodDisruptionBudget" => json!({"spec": {"minAvailable": "50%", "selector": selector}}),
        "HorizontalPodAutoscaler" => {
            json!({"spec": {"maxReplicas": 3, "scaleTargetRef": {"kind": "Deployment", "name": "a", "apiVersion": "apps/v1"}}})
        }
        "ResourceQuota" => json!({"spec": {"hard": {"pods": "3"}}}),
        "LimitRange" => json!({"spec": {"limits": [{"type": "Container", "max": {"cpu": "1"}}]}}),
        "PersistentVolumeClaim" => json!({ "spec": claim }),
        "PersistentVolume" => {
            json!({"spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/x"}}})
        }
        "StorageClass" => json!({"provisioner": "example.com/disk"}),
        "VolumeAttachment" => {
            json!({"spec": {"attacher": "example.com", "nodeName": "n", "source": {"persistentVolumeName": "v"}}})
        }
        "CSINode" => json!({"spec": {"drivers": [{"name": "example.com", "nodeID": "n"}]}}),
        "CSIStorageCapacity" => json!({"storageClassName": "fast"}),
        "NetworkPolicy" => {
            json!({"spec": {"podSelector": {}, "ingress": [{"from": [{"podSelector": {}}]}]}})
        }
        "Ingress" => {
            json!({"spec": {"defaultBackend": {"service": {"name": "a", "port": {"number": 80}}}}})
        }
        "IngressClass" => json!({"spec": {"controller": "example.com/ingress"}}),
        "IPAddress" => {
            json!({"metadata": {"name": "10.1.2.3"}, "spec": {"parentRef": {"resource": "services", "namespace": "default", "name": "a"}}})
        }
        "ServiceCIDR" => json!({"spec": {"cidrs": ["10.9.0.0/16"]}}),
        "CertificateSigningRequest" => {
            json!({"spec": {"signerName": "example.com/signer", "usages": ["client auth"],
            "request": certificates::encoded_request("x")}})
        }
        "DeviceClass" => json!({"spec": {"selectors": [{"cel": {"expression": "true"}}]}}),
        "ResourceClaim" => {
            json!({"spec": {"devices": {"requests": [{"name": "r", "exactly": {"deviceClassName": "gpu"}}]}}})
        }
        "ResourceClaimTemplate" => {
            json!({"spec": {"spec": {"devices": {"requests": [{"name": "r", "exactly": {"deviceClassName": "gpu"}}]}}}})
        }
        "ResourceSlice" => {
            json!({"spec": {"driver": "example.com", "nodeName": "n", "pool": {"name": "p", "generation": 1, "resourceSliceCount": 1}, "devices": [{"name": "d"}]}})
        }
        "VolumeAttributesClass" => {
            json!({"driverName": "example.com", "parameters": {"iops": "100"}})
        }
        "FlowSchema" => json!({"spec": {"priorityLevelConfiguration": {"name": "a"}, "rules": [{
            "subjects": [{"kind": "User", "user": {"name": "*"}}],
            "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"]}]}]}}),
        "PriorityLevelConfiguration" => {
            json!({"spec": {"type": "Limited", "limited": {"limitResponse": {"type": "Queue", "queuing": {}}}}})
        }
        "PriorityClass" => json!({"value": 7}),
        "RuntimeClass" => json!({"handler": "microvm"}),
        "CSIDriver" | "Lease" | "ConfigMap" | "Secret" | "ServiceAccount" | "Namespace"
        | "Node" => json!({"spec": {}}),
        _ => Value::Null,
    }
}

/// A whole object of the kind; `None` for kinds that nobody creates.
pub fn named(kind: &hull_api::Kind, name: &str) -> Option<Value> {
    let mut object = match kind.kind {
        "ConfigMap" | "Secret" | "ServiceAccount" => json!({}),
        other => minimal(other),
    };
    if object.is_null() {
        return None;
    }
    object["apiVersion"] = json!(kind.group_version());
    object["kind"] = json!(kind.kind);
    if object.pointer("/metadata/name").is_none() {
        object["metadata"] = json!({"name": name});
    }
    Some(object)
}

/// The path of the kind's objects in the namespace `default`.
pub fn collection(kind: &hull_api::Kind) -> String {
    let prefix = if kind.group.is_empty() {
        "/api"
    } else {
        "/apis"
    };
    let namespace = if kind.namespaced {
        "/namespaces/default"
    } else {
        ""
    };
    format!(
        "{prefix}/{}{namespace}/{}",
        kind.group_version(),
        kind.plural
    )
}
