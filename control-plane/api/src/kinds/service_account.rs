//! ServiceAccount.

use serde_json::Value;

use crate::{
    ObjectExt, registry,
    table::{self, Column},
};

pub(super) struct Strategy;

const COLUMNS: &[Column] = &[
    table::NAME,
    table::column("Secrets", "Number of secrets."),
    table::AGE,
];

impl registry::Strategy for Strategy {
    fn returns_deleted(&self) -> bool {
        true
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        vec![
            Value::from(object.name()),
            Value::from(object.list_at("/secrets").len()),
            table::age_cell(object, now),
        ]
    }
}
