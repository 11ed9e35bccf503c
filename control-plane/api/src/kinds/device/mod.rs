//! Dynamic resource allocation (`resource.k8s.io`): classes of devices, claims on them, and
//! what nodes have.

mod claim;
mod class;
mod request;
mod slice;

pub use claim::{RESOURCE_CLAIM_TEMPLATES, RESOURCE_CLAIMS};
pub use class::DEVICE_CLASSES;
pub use slice::RESOURCE_SLICES;

use serde_json::Value;

use crate::{
    ObjectExt,
    field::{Errors, Path},
    names,
};

/// Longest expression that selects devices, in bytes.
const MAX_EXPRESSION: usize = 10 * 1024;
/// Most selectors in one place.
const MAX_SELECTORS: usize = 32;

/// The name of a driver: a domain.
fn check_driver(name: &str, path: &Path, errors: &mut Errors) {
    if name.is_empty() {
        return errors.required(path, "");
    }
    for why in names::subdomain(name) {
        errors.invalid(path, name, why);
    }
}

/// Expressions that select devices. They are compiled where they are used.
fn validate_selectors(selectors: &[Value], path: &Path, errors: &mut Errors) {
    if selectors.len() > MAX_SELECTORS {
        errors.too_many(path, selectors.len(), MAX_SELECTORS);
    }
    for (index, selector) in selectors.iter().enumerate() {
        let path = path.index(index).child("cel");
        let expression = selector.str_at("/cel/expression");
        if selector.get("cel").is_none() {
            errors.required(&path, "");
        } else if expression.is_empty() {
            errors.required(&path.child("expression"), "");
        } else if expression.len() > MAX_EXPRESSION {
            errors.too_long(&path.child("expression"), MAX_EXPRESSION);
        }
    }
}

/// Settings that only the driver understands.
fn validate_config(config: &[Value], path: &Path, errors: &mut Errors) {
    for (index, entry) in config.iter().enumerate() {
        let path = path.index(index).child("opaque");
        match entry.get("opaque") {
            None => errors.required(&path, ""),
            Some(opaque) => {
                check_driver(opaque.str_at("/driver"), &path.child("driver"), errors);
                if !opaque.get("parameters").is_some_and(Value::is_object) {
                    errors.required(&path.child("parameters"), "");
                }
            }
        }
    }
}
