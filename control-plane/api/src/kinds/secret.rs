//! Secret.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::Value;

use super::config_map::{MAX_DATA_BYTES, check_immutable_data};
use crate::{
    ObjectExt,
    field::{Errors, Path},
    names,
    object::default_text,
    registry,
    table::{self, Column},
};

pub(super) struct Strategy;

const COLUMNS: &[Column] = &[
    table::NAME,
    table::column("Type", "What the secret is for."),
    table::column("Data", "Number of keys."),
    table::AGE,
];

impl registry::Strategy for Strategy {
    fn apply_defaults(&self, object: &mut Value) {
        default_text(object.map_mut(&[]), "type", "Opaque");
        // stringData is for writing only.
        if let Some(Value::Object(plain)) = object.remove_at(&["stringData"]) {
            let data = object.map_mut(&["data"]);
            for (key, value) in plain {
                let encoded = STANDARD.encode(value.as_str().unwrap_or(""));
                data.insert(key, Value::from(encoded));
            }
        }
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        let data = object.map_at("/data");
        let mut total = 0;
        for (key, value) in data.into_iter().flatten() {
            for why in names::config_key(key) {
                errors.invalid(&Path::new("data").key(key), key.as_str(), why);
            }
            total += value.as_str().map_or(0, str::len) / 4 * 3;
        }
        if total > MAX_DATA_BYTES {
            errors.too_long(&Path::new("data"), MAX_DATA_BYTES);
        }
        for key in required_keys(object.str_at("/type")) {
            if !data.is_some_and(|data| data.contains_key(*key)) {
                errors.required(&Path::new("data").key(key), "");
            }
        }
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut Errors) {
        errors.check_immutable(&Path::new("type"), new.get("type"), old.get("type"));
        check_immutable_data(new, old, &["data"], errors);
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        &["type"]
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        vec![
            Value::from(object.name()),
            Value::from(object.str_at("/type")),
            Value::from(object.map_at("/data").map_or(0, serde_json::Map::len)),
            table::age_cell(object, now),
        ]
    }
}

fn required_keys(secret_type: &str) -> &'static [&'static str] {
    match secret_type {
        "kubernetes.io/tls" => &["tls.crt", "tls.key"],
        "kubernetes.io/dockerconfigjson" => &[".dockerconfigjson"],
        "kubernetes.io/dockercfg" => &[".dockercfg"],
        "kubernetes.io/ssh-auth" => &["ssh-privatekey"],
        _ => &[],
    }
}
