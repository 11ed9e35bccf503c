//! The rules of a custom kind: those of its [`CustomResource`] of the moment.

use std::{borrow::Cow, sync::Arc};

use parking_lot::RwLock;
use serde_json::{Map, Value};

use super::CustomResource;
use crate::{
    ObjectExt,
    field::{Errors, Path},
    registry,
    table::{self, Column},
};

#[derive(Debug, Default)]
pub(super) struct Strategy {
    current: RwLock<Arc<CustomResource>>,
}

impl Strategy {
    pub(super) fn set(&self, resource: Arc<CustomResource>) {
        *self.current.write() = resource;
    }

    fn get(&self) -> Arc<CustomResource> {
        self.current.read().clone()
    }
}

/// The object without what does not count as a change of what is wanted.
fn wanted(object: &Value, has_status: bool) -> Map<String, Value> {
    let mut map = object.as_object().cloned().unwrap_or_default();
    map.remove("metadata");
    if has_status {
        map.remove("status");
    }
    map
}

impl registry::Strategy for Strategy {
    fn custom(&self) -> Option<Arc<CustomResource>> {
        Some(self.get())
    }

    fn apply_defaults(&self, object: &mut Value) {
        self.get().apply_defaults(object);
    }

    fn prepare_create(&self, object: &mut Value) {
        if self.get().has_status {
            object.remove_at(&["status"]);
        }
        object.set_at(&["metadata", "generation"], Value::from(1));
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        let has_status = self.get().has_status;
        if has_status {
            match old.get("status").cloned() {
                Some(status) => new.set_at(&["status"], status),
                None => drop(new.remove_at(&["status"])),
            }
        }
        let generation = old.int_at("/metadata/generation").unwrap_or(0);
        let changed = wanted(new, has_status) != wanted(old, has_status);
        let next = generation + i64::from(changed);
        new.set_at(&["metadata", "generation"], Value::from(next));
    }

    fn prepare_status_update(&self, new: &mut Value, old: &Value) {
        let status = new.remove_at(&["status"]);
        *new = old.clone();
        match status {
            Some(status) => new.set_at(&["status"], status),
            None => drop(new.remove_at(&["status"])),
        }
        self.get().apply_defaults(new);
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        let resource = self.get();
        errors.extend(resource.validate(object, None));
        check_scale(&resource, object, errors);
    }

    fn validate_change(&self, new: &Value, old: &Value, errors: &mut Errors) {
        let resource = self.get();
        errors.extend(resource.validate(new, Some(old)));
        check_scale(&resource, new, errors);
    }

    fn validate_status_update(&self, new: &Value, old: &Value, errors: &mut Errors) {
        errors.extend(self.get().validate(new, Some(old)));
    }

    fn is_selectable(&self, field: &str) -> bool {
        self.get().selectable.iter().any(|known| known == field)
    }

    fn field_value<'a>(&self, _object: &'a Value, _field: &str) -> Option<Cow<'a, str>> {
        None
    }

    fn column_definitions(&self) -> Value {
        let resource = self.get();
        std::iter::once(table::definition(&table::NAME))
            .chain(resource.columns.iter().map(|column| column.definition()))
            .collect()
    }

    fn columns(&self) -> &'static [Column] {
        &[table::NAME]
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        let resource = self.get();
        std::iter::once(Value::from(object.name()))
            .chain(
                resource
                    .columns
                    .iter()
                    .map(|column| column.cell(object, now)),
            )
            .collect()
    }
}

/// With the subresource, the replicas are numbers that make sense.
fn check_scale(resource: &CustomResource, object: &Value, errors: &mut Errors) {
    if let Some(scale) = &resource.scale {
        errors.check_non_negative(
            &Path::new(scale.spec_replicas_path()),
            scale.spec_replicas(object),
        );
    }
}
