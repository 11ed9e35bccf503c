//! Lease.

use serde_json::Value;

use crate::{
    ObjectExt,
    field::{Errors, Path},
    registry,
    table::{self, Column},
};

pub(super) struct Strategy;

const COLUMNS: &[Column] = &[
    table::NAME,
    table::column("Holder", "Who holds the lease."),
    table::AGE,
];

impl registry::Strategy for Strategy {
    fn create_on_update(&self) -> bool {
        true
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        let spec = Path::new("spec");
        if let Some(seconds) = object.int_at("/spec/leaseDurationSeconds")
            && seconds <= 0
        {
            errors.invalid(
                &spec.child("leaseDurationSeconds"),
                seconds,
                "must be greater than 0",
            );
        }
        errors.check_non_negative(
            &spec.child("leaseTransitions"),
            object.int_at("/spec/leaseTransitions"),
        );
        if let Some(Value::String(holder)) = object.pointer("/spec/holderIdentity")
            && holder.is_empty()
            && object.pointer("/spec/preferredHolder").is_none()
        {
            errors.invalid(&spec.child("holderIdentity"), "", "must not be empty");
        }
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        vec![
            Value::from(object.name()),
            Value::from(object.str_at("/spec/holderIdentity")),
            table::age_cell(object, now),
        ]
    }
}
