//! The patch formats: JSON patch (RFC 6902), merge patch (RFC 7386) and Kubernetes'
//! strategic merge patch.

mod strategic;

use json_patch::PatchOperation;
use serde_json::Value;

use crate::schema::go_kind;

pub use strategic::strategic_merge;

/// A patch that cannot be applied.
#[derive(Debug, thiserror::Error)]
pub enum PatchError {
    /// The patch itself is wrong.
    #[error("{0}")]
    Malformed(String),
    /// It asks for too much.
    #[error("{0}")]
    TooLarge(String),
    /// It does not fit the object (a failed `test`, a path that is not there).
    #[error("the server rejected our request due to an error in our request")]
    DoesNotApply(#[source] json_patch::PatchError),
}

/// Operations per JSON patch; the limit of Kubernetes.
pub const MAX_JSON_PATCH_OPERATIONS: usize = 10_000;
/// Bytes of JSON that the `copy` operations of a patch may add; the limit of Kubernetes. Each
/// could double the object.
pub const MAX_JSON_PATCH_COPIED_BYTES: usize = 3 * 1024 * 1024;

/// Applies a JSON patch.
pub fn json_patch(object: &mut Value, patch: &Value) -> Result<(), PatchError> {
    if !patch.is_array() {
        return Err(PatchError::Malformed(format!(
            "error decoding patch: json: cannot unmarshal {} into Go value of type []handlers.jsonPatchOp",
            go_kind(patch)
        )));
    }
    let operations: json_patch::Patch = serde_json::from_value(patch.clone())
        .map_err(|error| PatchError::Malformed(format!("error decoding patch: {error}")))?;
    if operations.0.len() > MAX_JSON_PATCH_OPERATIONS {
        return Err(PatchError::TooLarge(format!(
            "The allowed maximum operations in a JSON patch is {MAX_JSON_PATCH_OPERATIONS}, got {}",
            operations.0.len()
        )));
    }
    let mut patched = object.clone();
    let mut copied = 0;
    for (index, operation) in operations.0.iter().enumerate() {
        if tests_absence(&patched, operation) {
            continue;
        }
        copied += copied_bytes(&patched, operation);
        if copied > MAX_JSON_PATCH_COPIED_BYTES {
            return Err(PatchError::TooLarge(format!(
                "Unable to complete the copy, the accumulated size increase of copy is {copied}, exceeding the limit {MAX_JSON_PATCH_COPIED_BYTES}"
            )));
        }
        json_patch::patch(&mut patched, std::slice::from_ref(operation)).map_err(|mut error| {
            error.operation = index;
            PatchError::DoesNotApply(error)
        })?;
    }
    *object = patched;
    Ok(())
}

/// A `test` for null of a field that is not there, in an object that is: it holds in Kubernetes
/// (its Go library knows no difference), though not by RFC 6902. Controllers rely on it when they
/// add the first finalizer.
fn tests_absence(object: &Value, operation: &PatchOperation) -> bool {
    let PatchOperation::Test(test) = operation else {
        return false;
    };
    let path = test.path.as_str();
    let parent = path.rfind('/').map(|end| &path[..end]);
    let parent = parent.and_then(|parent| object.pointer(parent));
    test.value.is_null() && parent.is_some_and(Value::is_object) && object.pointer(path).is_none()
}

/// What an operation would copy, before it does.
fn copied_bytes(object: &Value, operation: &PatchOperation) -> usize {
    let PatchOperation::Copy(copy) = operation else {
        return 0;
    };
    let source = object.pointer(copy.from.as_str());
    source.map_or(0, |value| value.to_string().len())
}

/// Applies a merge patch.
pub fn merge_patch(object: &mut Value, patch: &Value) -> Result<(), PatchError> {
    if !patch.is_object() {
        return Err(PatchError::Malformed(format!(
            "error decoding patch: json: cannot unmarshal {} into Go value of type map[string]interface {{}}",
            go_kind(patch)
        )));
    }
    json_patch::merge(object, patch);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn json_patch_applies_or_says_why_not() {
        let mut object = json!({"a": {"b": 1}});
        json_patch(
            &mut object,
            &json!([{"op": "replace", "path": "/a/b", "value": 2}]),
        )
        .unwrap();
        assert_eq!(object, json!({"a": {"b": 2}}));
        assert!(matches!(
            json_patch(
                &mut object,
                &json!([{"op": "test", "path": "/a/b", "value": 3}])
            ),
            Err(PatchError::DoesNotApply(_))
        ));
        // What a controller sends for the first finalizer.
        let first = json!([
            {"op": "test", "path": "/a/c", "value": null},
            {"op": "add", "path": "/a/c", "value": ["x"]},
        ]);
        json_patch(&mut object, &first).unwrap();
        assert_eq!(object, json!({"a": {"b": 2, "c": ["x"]}}));
        for (number, test) in [
            ("/a/c", json!(null)),
            ("/x/y", json!(null)),
            ("/a/d", json!(1)),
        ]
        .into_iter()
        .enumerate()
        {
            let patch = json!([
                {"op": "add", "path": "/a/b", "value": number},
                {"op": "test", "path": test.0, "value": test.1},
            ]);
            let Err(PatchError::DoesNotApply(error)) = json_patch(&mut object, &patch) else {
                panic!("{test:?} holds");
            };
            assert_eq!(error.operation, 1);
            assert_eq!(object["a"]["b"], 2, "half a patch stays");
        }
        assert!(matches!(
            json_patch(&mut object, &json!({"op": "test"})),
            Err(PatchError::Malformed(_))
        ));
    }

    #[test]
    fn copies_that_double_an_object_again_and_again_are_stopped() {
        let mut object = json!({"a": "x".repeat(1000)});
        let double = |number| json!({"op": "copy", "from": "", "path": format!("/{number}")});
        let few: Vec<Value> = (0..3).map(double).collect();
        json_patch(&mut object.clone(), &Value::from(few)).unwrap();
        let many: Vec<Value> = (0..100).map(double).collect();
        let before = object.clone();
        assert!(matches!(
            json_patch(&mut object, &Value::from(many)),
            Err(PatchError::TooLarge(_))
        ));
        assert_eq!(object, before);
    }

    #[test]
    fn merge_patch_removes_with_null() {
        let mut object = json!({"a": 1, "b": {"c": 1, "d": 2}});
        merge_patch(&mut object, &json!({"a": null, "b": {"c": 3}})).unwrap();
        assert_eq!(object, json!({"b": {"c": 3, "d": 2}}));
        assert!(merge_patch(&mut object, &json!([])).is_err());
    }
}
