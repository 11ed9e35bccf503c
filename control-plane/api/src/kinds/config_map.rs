//! ConfigMap.

use serde_json::Value;

use crate::{
    ObjectExt,
    field::{Errors, Path},
    names, registry,
    table::{self, Column},
};

/// All values of a ConfigMap or Secret together.
pub(super) const MAX_DATA_BYTES: usize = 1024 * 1024;

pub(super) struct Strategy;

const COLUMNS: &[Column] = &[
    table::NAME,
    table::column("Data", "Number of keys."),
    table::AGE,
];

impl registry::Strategy for Strategy {
    fn validate(&self, object: &Value, errors: &mut Errors) {
        let mut total = 0;
        for field in ["data", "binaryData"] {
            for (key, value) in object.map_at(&format!("/{field}")).into_iter().flatten() {
                for why in names::config_key(key) {
                    errors.invalid(&Path::new(field).key(key), key.as_str(), why);
                }
                total += value.as_str().map_or(0, str::len);
            }
        }
        for (key, _) in object.map_at("/binaryData").into_iter().flatten() {
            if object
                .map_at("/data")
                .is_some_and(|data| data.contains_key(key))
            {
                errors.invalid(
                    &Path::new("data").key(key),
                    key.as_str(),
                    "duplicate of key present in binaryData",
                );
            }
        }
        if total > MAX_DATA_BYTES {
            errors.too_long(&Path::default(), MAX_DATA_BYTES);
        }
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut Errors) {
        check_immutable_data(new, old, &["data", "binaryData"], errors);
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        let keys = ["/data", "/binaryData"]
            .iter()
            .filter_map(|field| object.map_at(field))
            .map(serde_json::Map::len)
            .sum::<usize>();
        vec![
            Value::from(object.name()),
            Value::from(keys),
            table::age_cell(object, now),
        ]
    }
}

/// Once `immutable` is true, it and the data stay.
pub(super) fn check_immutable_data(new: &Value, old: &Value, fields: &[&str], errors: &mut Errors) {
    if !old.bool_at("/immutable") {
        return;
    }
    if !new.bool_at("/immutable") {
        errors.forbidden(
            &Path::new("immutable"),
            "field is immutable when `immutable` is set",
        );
    }
    for field in fields {
        if new.get(*field) != old.get(*field) {
            errors.forbidden(
                &Path::new(*field),
                "field is immutable when `immutable` is set",
            );
        }
    }
}
