//! What bound policies make of a write: refusals, warnings and annotations of the audit.

use hull_api::{
    ApiError,
    cel::{EvalError, Value as Cel},
    status::{Cause, Reason},
};
use serde_json::Value;

use super::{
    Attributes,
    annotations::{Action, AuditedFailure, Collected, NoValue},
    conditions::{self, Budget, Seen},
    policies::{Bound, bound},
};

/// Longest message that an expression may make, in bytes; Kubernetes' limit.
const MAX_MESSAGE_BYTES: usize = 5 * 1024;
const OUT_OF_BUDGET: &str =
    "validation failed due to running out of cost budget, no further validation rules will be run";

/// Asks every policy that is bound to such a write. All of them are asked, so that what they
/// warn of and annotate does not depend on their order; the first refusal is the answer.
pub(super) fn check(attributes: &Attributes<'_>) -> Result<(), ApiError> {
    let bound = bound(attributes.context.backend);
    if bound.is_empty() {
        return Ok(());
    }
    let seen = Seen::of(attributes);
    let mut verdict = Verdict {
        attributes,
        denial: None,
        collected: Collected::default(),
    };
    for one in bound.iter() {
        if one.concerns(attributes) {
            verdict.ask(one, &seen);
        }
    }
    verdict.collected.record(attributes.context);
    verdict.denial.map_or(Ok(()), Err)
}

/// A validation that does not hold, or a policy that cannot tell.
struct Failure {
    /// Of the validation.
    index: usize,
    message: String,
    reason: Reason,
}

impl Failure {
    /// Of a policy that cannot tell.
    fn error(index: usize, message: String) -> Self {
        Failure {
            index,
            message,
            reason: Reason::Invalid,
        }
    }
}

/// What came of one evaluation of a policy.
#[derive(Default)]
struct Evaluated {
    failures: Vec<Failure>,
    /// Keys and values.
    annotations: Vec<(String, String)>,
    /// Annotations that could not be made, which denies whatever the binding says.
    denials: Vec<String>,
}

struct Verdict<'v, 'a> {
    attributes: &'v Attributes<'a>,
    /// The first.
    denial: Option<ApiError>,
    collected: Collected,
}

impl Verdict<'_, '_> {
    fn ask(&mut self, bound: &Bound, seen: &Seen<'_>) {
        let params = match bound.params(self.attributes) {
            Ok(params) => params,
            Err(why) => {
                if bound.policy.fails_closed {
                    self.deny(bound, &why, Reason::Invalid);
                }
                return;
            }
        };
        for params in &params {
            let evaluated = bound.evaluate(self.attributes, seen, params.as_ref());
            for failure in evaluated.failures {
                self.act(bound, &failure);
            }
            for (key, value) in evaluated.annotations {
                self.collected.add(&bound.policy.name, &key, value);
            }
            for why in evaluated.denials {
                self.deny(bound, &why, Reason::Invalid);
            }
        }
    }

    /// Does what the binding says.
    fn act(&mut self, bound: &Bound, failure: &Failure) {
        let context = self.attributes.context;
        let (policy, binding) = (&bound.policy.name, &bound.name);
        for action in &bound.actions {
            match action {
                Action::Deny => self.deny(bound, &failure.message, failure.reason),
                Action::Warn => context.warn(format!(
                    "Validation failed for ValidatingAdmissionPolicy '{policy}' with binding '{binding}': {}",
                    failure.message
                )),
                Action::Audit => AuditedFailure {
                    message: &failure.message,
                    policy,
                    binding,
                    expression_index: failure.index,
                    validation_actions: &bound.actions,
                }
                .record(context),
            }
        }
    }

    fn deny(&mut self, bound: &Bound, why: &str, reason: Reason) {
        let context = self.attributes.context;
        let message = format!(
            "ValidatingAdmissionPolicy '{}' with binding '{}' denied request: {why}",
            bound.policy.name, bound.name
        );
        let name = self.attributes.name();
        self.denial.get_or_insert_with(|| {
            let mut error = ApiError::forbidden(context.kind.resource(), name, &message);
            error.reason = reason;
            error.details.causes.push(Cause {
                reason: String::new(),
                message,
                field: String::new(),
            });
            error
        });
    }
}

impl Bound {
    fn evaluate(
        &self,
        attributes: &Attributes<'_>,
        seen: &Seen<'_>,
        params: Option<&Value>,
    ) -> Evaluated {
        let policy = &self.policy;
        let mut evaluated = Evaluated::default();
        if let Some(why) = &policy.broken {
            let why = format!("compilation failed: {why}");
            evaluated.fail(policy.fails_closed, 0, why);
            return evaluated;
        }
        let mut names = seen.names(attributes);
        names.push(("params", params.map_or(Cel::Null, Cel::json)));
        match conditions::hold(&policy.conditions, &names, &mut Budget::of_conditions()) {
            Ok(true) => {}
            Ok(false) => return evaluated,
            Err(why) => {
                evaluated.fail(policy.fails_closed, 0, why);
                return evaluated;
            }
        }
        let mut budget = Budget::default();
        self.variables(&mut names, &mut budget);
        self.validate(&names, &mut budget, &mut evaluated);
        if !policy.annotations.is_empty() {
            self.annotate(&names, &mut evaluated);
        }
        evaluated
    }

    fn validate<'a>(
        &'a self,
        names: &[(&str, Cel<'a>)],
        budget: &mut Budget,
        evaluated: &mut Evaluated,
    ) {
        let closed = self.policy.fails_closed;
        for (index, validation) in self.policy.validations.iter().enumerate() {
            let expression = &validation.expression;
            match budget.evaluate(&validation.program, names) {
                Ok(Cel::Bool(true)) => {}
                Ok(Cel::Bool(false)) => {
                    let made = validation.message_expression.as_ref().and_then(|program| {
                        let made = budget.evaluate(program, names).ok()?;
                        made.as_str().and_then(usable)
                    });
                    evaluated.failures.push(Failure {
                        index,
                        message: made.unwrap_or_else(|| validation.says()),
                        reason: validation.reason,
                    });
                }
                Ok(other) => {
                    let kind = other.type_name();
                    let why =
                        format!("expression '{expression}' resulted in {kind} instead of bool");
                    evaluated.fail(closed, index, why);
                }
                // Nothing is left for the others either.
                Err(EvalError::Cost) if budget.is_spent() => {
                    evaluated.failures.clear();
                    evaluated.fail(closed, 0, OUT_OF_BUDGET.to_string());
                    return;
                }
                Err(error) => {
                    let why = format!("expression '{expression}' resulted in error: {error}");
                    evaluated.fail(closed, index, why);
                }
            }
        }
    }

    /// Annotations have a budget of their own.
    fn annotate<'a>(&'a self, names: &[(&'static str, Cel<'a>)], evaluated: &mut Evaluated) {
        let mut budget = Budget::default();
        for annotation in &self.policy.annotations {
            match annotation.value(names, &mut budget) {
                Ok(value) => evaluated.annotations.push((annotation.key.clone(), value)),
                Err(NoValue::Omitted) => {}
                Err(NoValue::Failed(why)) if self.policy.fails_closed => {
                    evaluated.denials.push(why);
                }
                Err(NoValue::Failed(_)) => {}
                Err(NoValue::Unsupported(why)) => evaluated.denials.push(why),
            }
        }
    }
}

impl Evaluated {
    /// Something could not be told.
    fn fail(&mut self, fails_closed: bool, index: usize, why: String) {
        if fails_closed {
            self.failures.push(Failure::error(index, why));
        }
    }
}

/// A message that an expression made, if it may be shown.
fn usable(text: &str) -> Option<String> {
    let text = text.trim();
    let fits = !text.is_empty() && text.len() <= MAX_MESSAGE_BYTES && !text.contains('\n');
    fits.then(|| text.to_string())
}
