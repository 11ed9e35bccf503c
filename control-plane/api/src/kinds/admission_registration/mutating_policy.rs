//! MutatingAdmissionPolicy.

use serde_json::{Value, json};

use super::{
    expressions::{self, Known, Purpose},
    policy::{check_policy, default_matching},
};
use crate::{
    ObjectExt,
    field::{Errors, Path},
    meta,
    object::default_text,
    registry,
};

const PATCH_TYPES: [&str; 2] = ["ApplyConfiguration", "JSONPatch"];
const REINVOCATION_POLICIES: [&str; 2] = ["IfNeeded", "Never"];

pub(super) struct PolicyStrategy;

impl registry::Strategy for PolicyStrategy {
    fn apply_defaults(&self, object: &mut Value) {
        default_text(object.map_mut(&["spec"]), "failurePolicy", "Fail");
        if object.pointer("/spec/matchConstraints").is_some() {
            default_matching(object, &["spec", "matchConstraints"]);
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        object.set_at(&["metadata", "generation"], json!(1));
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        meta::bump_generation(new, old);
    }

    /// What was accepted once by less strict rules may stay.
    fn validate_change(&self, new: &Value, old: &Value, errors: &mut Errors) {
        if new.get("spec") != old.get("spec") {
            self.validate(new, errors);
        }
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        let spec = Path::new("spec");
        let known = check_policy(object, Purpose::MutationVariable, errors);
        let again = object.str_at("/spec/reinvocationPolicy");
        let at = spec.child("reinvocationPolicy");
        if again.is_empty() {
            errors.required(&at, "");
        } else {
            errors.check_supported(&at, again, &REINVOCATION_POLICIES);
        }
        let mutations = object.list_at("/spec/mutations");
        if mutations.is_empty() {
            let words = "mutations must contain at least one item";
            errors.required(&spec.child("mutations"), words);
        }
        for (index, mutation) in mutations.iter().enumerate() {
            let at = spec.child("mutations").index(index);
            check_mutation(mutation, &at, &known, errors);
        }
    }
}

fn check_mutation(mutation: &Value, at: &Path, known: &Known, errors: &mut Errors) {
    let patch_type = mutation.str_at("/patchType");
    let fields = [
        ("ApplyConfiguration", "applyConfiguration"),
        ("JSONPatch", "jsonPatch"),
    ];
    if patch_type.is_empty() {
        errors.required(&at.child("patchType"), "");
        return;
    }
    errors.check_supported(&at.child("patchType"), patch_type, &PATCH_TYPES);
    for (name, field) in fields {
        let at = at.child(field);
        match (name == patch_type, mutation.get(field)) {
            (true, None) => errors.required(&at, &format!("required when patchType is {name}")),
            (false, Some(_)) => {
                errors.forbidden(&at, format!("must be empty when patchType is {patch_type}"));
            }
            (true, Some(holder)) => {
                let with = (Purpose::Mutation, known);
                expressions::check(holder, "expression", &at, with, errors);
            }
            (false, None) => {}
        }
    }
}
