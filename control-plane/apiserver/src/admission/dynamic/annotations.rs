//! What validating policies write into audit events.

use std::collections::BTreeMap;

use hull_api::cel::{Program, Value as Cel};
use serde::Serialize;

use super::conditions::Budget;
use crate::handlers::Context;

/// Where a failure is written that a binding wants audited.
const VALIDATION_FAILURE: &str = "validation.policy.admission.k8s.io/validation_failure";
/// Longest value of an annotation, in bytes; Kubernetes' limit.
const MAX_VALUE_BYTES: usize = 10 * 1024;

/// What a binding does about a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) enum Action {
    Deny,
    Warn,
    Audit,
}

impl Action {
    pub(super) fn parse(text: &str) -> Option<Self> {
        match text {
            "Deny" => Some(Action::Deny),
            "Warn" => Some(Action::Warn),
            "Audit" => Some(Action::Audit),
            _ => None,
        }
    }
}

/// A failure as it is written: fields in Kubernetes' order.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct AuditedFailure<'a> {
    pub message: &'a str,
    pub policy: &'a str,
    pub binding: &'a str,
    pub expression_index: usize,
    pub validation_actions: &'a [Action],
}

impl AuditedFailure<'_> {
    /// Of several failures the first is kept.
    pub(super) fn record(&self, context: &Context<'_>) {
        match serde_json::to_string(&[self]) {
            Ok(value) => context.annotate(VALIDATION_FAILURE, value),
            Err(error) => tracing::warn!(%error, "a failure cannot be written for the audit"),
        }
    }
}

/// One of `auditAnnotations`.
#[derive(Debug)]
pub(super) struct AuditAnnotation {
    pub key: String,
    pub expression: String,
    pub program: Program,
}

/// Why an annotation has no value.
pub(super) enum NoValue {
    /// It is to be left out.
    Omitted,
    /// Its expression failed; the policy's failurePolicy decides.
    Failed(String),
    /// Its expression makes something that is no annotation.
    Unsupported(String),
}

impl AuditAnnotation {
    pub(super) fn value<'a>(
        &'a self,
        names: &[(&str, Cel<'a>)],
        budget: &mut Budget,
    ) -> Result<String, NoValue> {
        match budget.evaluate(&self.program, names) {
            Ok(Cel::Null) => Err(NoValue::Omitted),
            Ok(Cel::String(text)) => match text.as_str().trim() {
                "" => Err(NoValue::Omitted),
                text => Ok(shortened(text).to_string()),
            },
            Ok(other) => Err(NoValue::Unsupported(format!(
                "valueExpression '{}' resulted in unsupported return type: {}. Return type must be either string or null.",
                self.expression,
                other.type_name()
            ))),
            Err(error) => Err(NoValue::Failed(format!(
                "expression '{}' resulted in error: {error}",
                self.expression.trim()
            ))),
        }
    }
}

fn shortened(text: &str) -> &str {
    let mut end = text.len().min(MAX_VALUE_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Annotations by key: each value once, in the order in which bindings and parameters made them.
#[derive(Default)]
pub(super) struct Collected(BTreeMap<String, Vec<String>>);

impl Collected {
    pub(super) fn add(&mut self, policy: &str, key: &str, value: String) {
        let values = self.0.entry(format!("{policy}/{key}")).or_default();
        if !values.contains(&value) {
            values.push(value);
        }
    }

    pub(super) fn record(self, context: &Context<'_>) {
        for (key, values) in self.0 {
            context.annotate(&key, values.join(", "));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_written_as_kubernetes_writes_them() {
        let failure = AuditedFailure {
            message: "no",
            policy: "p",
            binding: "b",
            expression_index: 1,
            validation_actions: &[Action::Warn, Action::Audit],
        };
        assert_eq!(
            serde_json::to_string(&[failure]).unwrap(),
            r#"[{"message":"no","policy":"p","binding":"b","expressionIndex":1,"validationActions":["Warn","Audit"]}]"#
        );
    }

    #[test]
    fn values_are_kept_once_and_short() {
        let mut collected = Collected::default();
        for value in ["x", "y", "x"] {
            collected.add("p", "k", value.to_string());
        }
        assert_eq!(collected.0["p/k"].join(", "), "x, y");
        let long = "é".repeat(MAX_VALUE_BYTES);
        assert_eq!(shortened(&long).len(), MAX_VALUE_BYTES);
        assert_eq!(shortened(&format!("x{long}")).len(), MAX_VALUE_BYTES - 1);
    }
}
