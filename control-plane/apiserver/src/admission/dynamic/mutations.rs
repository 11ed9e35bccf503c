//! MutatingAdmissionPolicy: expressions that change the object, by a configuration to apply or by
//! a JSON patch.

use hull_api::{
    ApiError, Kind, ObjectExt,
    cel::{Program, Value as Cel},
    kinds::{
        ExpressionPurpose, MUTATING_ADMISSION_POLICIES, MUTATING_ADMISSION_POLICY_BINDINGS,
        compile_policy_expression,
    },
    managed::{self, Apply, Reset, Write},
    patch,
    status::Reason,
};
use serde_json::Value;

use super::{
    Attributes, Operation,
    conditions::{self, Budget, Seen},
    current, is_same,
    policies::{Bound, read_all},
};
use crate::handlers::Context;

/// Whose fields a configuration touches while it is merged; nobody sees the name.
const MANAGER: &str = "mutating-admission-policy";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Apply,
    JsonPatch,
}

/// One change.
#[derive(Debug)]
pub(super) struct Mutation {
    how: How,
    program: Program,
}

impl Mutation {
    pub(super) fn read(mutation: &Value, with_params: bool) -> Result<Self, String> {
        let (how, pointer) = match mutation.str_at("/patchType") {
            "JSONPatch" => (How::JsonPatch, "/jsonPatch/expression"),
            _ => (How::Apply, "/applyConfiguration/expression"),
        };
        let text = mutation.str_at(pointer);
        let program = compile_policy_expression(text, ExpressionPurpose::Mutation, with_params)
            .map_err(|error| error.to_string())?;
        Ok(Mutation { how, program })
    }

    /// The object as it is to be.
    fn apply(&self, context: &Context<'_>, object: &Value, made: Value) -> Result<Value, String> {
        if self.how == How::JsonPatch {
            let mut patched = object.clone();
            patch::json_patch(&mut patched, &made).map_err(|error| error.to_string())?;
            return Ok(patched);
        }
        let mut config = made;
        if !config.is_object() {
            return Err("the expression does not make an object".to_string());
        }
        for field in ["apiVersion", "kind"] {
            config[field] = object.get(field).cloned().unwrap_or_default();
        }
        // Who owns what is found out after admission.
        let mut live = object.clone();
        let owners = live.remove_at(&["metadata", "managedFields"]);
        let request = Apply {
            live: &live,
            config: &config,
            force: true,
        };
        let write = Write {
            manager: MANAGER,
            api_version: object.str_at("/apiVersion"),
            subresource: context.through,
            reset: Reset::Nothing,
            now: jiff::Timestamp::now(),
        };
        let body_type = context.body_type().ok_or_else(|| {
            "unimplemented: a configuration to apply to the options of a connection".to_string()
        })?;
        let mut merged =
            managed::apply(request, body_type, &write).map_err(|error| error.to_string())?;
        match owners {
            Some(owners) => merged.set_at(&["metadata", "managedFields"], owners),
            None => drop(merged.remove_at(&["metadata", "managedFields"])),
        }
        Ok(merged)
    }
}

/// Lets every policy that is bound to such a write change the object; `again`: only those that
/// want to see what webhooks changed. True: something changed.
pub(super) fn mutate(
    context: &Context<'_>,
    operation: Operation,
    object: &mut Value,
    old: Option<&Value>,
    dry_run: bool,
    again: bool,
) -> Result<bool, ApiError> {
    let backend = context.backend;
    let kinds: [&'static Kind; 2] = [
        &MUTATING_ADMISSION_POLICIES,
        &MUTATING_ADMISSION_POLICY_BINDINGS,
    ];
    let kept = &backend.dynamic.mutations;
    let bound = current(kept, &backend.cache, &kinds, || read_all(backend, kinds));
    // The policy that changed the object last.
    let mut changed_by: Option<usize> = None;
    for round in 0..2 {
        let last_before = changed_by;
        for (index, one) in bound.iter().enumerate() {
            let behind = last_before.is_some_and(|last| last > index);
            let skipped = (again || round > 0) && !one.policy.reinvoked;
            if skipped || (round > 0 && !behind) {
                continue;
            }
            let before = object.clone();
            let write = (operation, old, dry_run);
            match one.change(context, write, object) {
                Ok(()) if *object != before => changed_by = Some(index),
                Ok(()) => {}
                Err(why) if one.policy.fails_closed => {
                    return Err(one.denial(context, object, &why));
                }
                Err(why) => {
                    tracing::warn!(
                        policy = one.policy.name,
                        why,
                        "policy failed, which its failurePolicy ignores"
                    );
                    *object = before;
                }
            }
        }
    }
    Ok(changed_by.is_some())
}

impl Bound {
    fn change(
        &self,
        context: &Context<'_>,
        (operation, old, dry_run): (Operation, Option<&Value>, bool),
        object: &mut Value,
    ) -> Result<(), String> {
        let policy = &self.policy;
        let params = {
            let attributes = Attributes {
                context,
                operation,
                object: Some(object),
                old,
                dry_run,
            };
            if !self.concerns(&attributes) {
                return Ok(());
            }
            self.params(&attributes)?
        };
        if let Some(why) = &policy.broken {
            return Err(why.clone());
        }
        let mut budget = Budget::default();
        // Conditions look at the object before the policy changes it.
        let original = object.clone();
        for params in &params {
            let attributes = Attributes {
                context,
                operation,
                object: Some(&original),
                old,
                dry_run,
            };
            let seen = Seen::of(&attributes);
            let mut names = seen.names(&attributes);
            names.push(("params", params.as_ref().map_or(Cel::Null, Cel::json)));
            let mut of_conditions = Budget::of_conditions();
            if !conditions::hold(&policy.conditions, &names, &mut of_conditions)? {
                continue;
            }
            for mutation in &policy.mutations {
                let made = {
                    let attributes = Attributes {
                        context,
                        operation,
                        object: Some(object),
                        old,
                        dry_run,
                    };
                    let seen = Seen::of(&attributes);
                    let mut names = seen.names(&attributes);
                    names.push(("params", params.as_ref().map_or(Cel::Null, Cel::json)));
                    self.variables(&mut names, &mut budget);
                    let made = budget.evaluate(&mutation.program, &names);
                    made.map_err(|error| error.to_string())?.to_json()
                };
                let changed = mutation.apply(context, object, made)?;
                if !is_same(&changed, object) {
                    return Err("the mutation changes what the object is".to_string());
                }
                *object = changed;
            }
        }
        Ok(())
    }

    fn denial(&self, context: &Context<'_>, object: &Value, why: &str) -> ApiError {
        let words = format!(
            "policy '{}' with binding '{}' denied request: {why}",
            self.policy.name, self.name
        );
        let mut error = ApiError::forbidden(context.kind.resource(), object.name(), &words);
        error.reason = Reason::Invalid;
        error
    }
}
