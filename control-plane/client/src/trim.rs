//! What is kept of a watched object: not who owns its fields, which is half of many an object and
//! which no client inside the control plane reads. An update without it leaves it as it is.

use kube::Resource;

/// Drops what nobody here reads, and the spare room that reading left in texts and lists.
pub fn trim<K: Resource + Clone>(object: &mut K) {
    object.meta_mut().managed_fields = None;
    // A copy is as large as it has to be.
    *object = object.clone();
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::{from_value, json};

    use super::*;

    #[test]
    fn only_managed_fields_and_spare_room_go() {
        let plain = json!({"metadata": {"name": "p", "labels": {"a": "b"}},
            "spec": {"containers": [{"name": "c", "args": ["1", "2", "3", "4", "5"]}]}});
        let mut full = plain.clone();
        full["metadata"]["managedFields"] = json!([{"manager": "m", "fieldsV1": {"f:spec": {}}}]);
        let mut pod: Pod = from_value(full).unwrap();
        pod.metadata.name.as_mut().unwrap().reserve(100);
        trim(&mut pod);
        assert_eq!(pod, from_value(plain).unwrap());
        assert_eq!(pod.metadata.name.unwrap().capacity(), 1);
    }
}
