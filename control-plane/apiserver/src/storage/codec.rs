//! Between stored bytes and objects.

use hull_api::ObjectExt;
use hull_store::Revision;
use serde_json::Value;

/// Parses a stored object and gives it its resourceVersion.
pub(crate) fn decode(bytes: &[u8], revision: Revision) -> Result<Value, serde_json::Error> {
    let mut value: Value = serde_json::from_slice(bytes)?;
    set_revision(&mut value, revision);
    Ok(value)
}

/// Sets the resourceVersion.
pub(crate) fn set_revision(object: &mut Value, revision: Revision) {
    object.set_at(
        &["metadata", "resourceVersion"],
        Value::from(revision.to_string()),
    );
}
