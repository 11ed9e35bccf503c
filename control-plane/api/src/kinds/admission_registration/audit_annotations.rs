//! `spec.auditAnnotations` of a policy that validates.

use serde_json::{Value, json};

use super::expressions::{self, Known, Purpose};
use crate::{
    ObjectExt,
    field::{Errors, Path},
    names,
};

/// Annotations of one policy; Kubernetes' limit.
const MAX_ANNOTATIONS: usize = 20;
/// Longest expression of one, in bytes; Kubernetes' limit.
const MAX_EXPRESSION_BYTES: usize = 5 * 1024;

pub(super) fn check(object: &Value, known: &Known, errors: &mut Errors) {
    let path = Path::new("spec").child("auditAnnotations");
    let annotations = object.list_at("/spec/auditAnnotations");
    if annotations.len() > MAX_ANNOTATIONS {
        errors.invalid(
            &path,
            json!(annotations),
            format!("must not have more than {MAX_ANNOTATIONS} auditAnnotations"),
        );
    }
    for (index, annotation) in annotations.iter().enumerate() {
        let at = path.index(index);
        let key = annotation.str_at("/key");
        check_key(object.name(), key, &at.child("key"), errors);
        let field = "valueExpression";
        if annotation.str_at("/valueExpression").trim().len() > MAX_EXPRESSION_BYTES {
            let why = format!("must not exceed {MAX_EXPRESSION_BYTES} bytes in length");
            errors.required(&at.child(field), &why);
        } else {
            let with = (Purpose::AuditAnnotation, known);
            expressions::check(annotation, field, &at, with, errors);
        }
        let before = &annotations[..index];
        if before.iter().any(|other| other.str_at("/key") == key) {
            errors.duplicate(&at.child("key"), key);
        }
    }
}

/// With the policy's name it is a qualified name.
fn check_key(policy: &str, key: &str, at: &Path, errors: &mut Errors) {
    if policy.is_empty() {
        errors.invalid(at, key, "requires metadata.name be non-empty");
        return;
    }
    let full = format!("{policy}/{key}");
    for why in names::qualified_name(&full) {
        errors.invalid(at, full.as_str(), why);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(annotations: &Value) -> String {
        let policy = json!({"metadata": {"name": "p.example.com"},
            "spec": {"auditAnnotations": annotations}});
        let mut errors = Errors::default();
        check(&policy, &Known::default(), &mut errors);
        let errors: Vec<String> = errors.into_vec().iter().map(ToString::to_string).collect();
        errors.join("\n")
    }

    #[test]
    fn keys_and_expressions_are_checked() {
        let annotation =
            |key: &str, expression: &str| json!({"key": key, "valueExpression": expression});
        assert_eq!(
            wrong(&json!([annotation("a", "null"), annotation("b", "'x'")])),
            ""
        );
        for (annotations, words) in [
            (
                json!([annotation("", "'x'")]),
                "spec.auditAnnotations[0].key: Invalid value: \"p.example.com/\": ",
            ),
            (
                json!([annotation("a/b", "'x'")]),
                "spec.auditAnnotations[0].key: Invalid value: \"p.example.com/a/b\": ",
            ),
            (
                json!([annotation("a", " ")]),
                "spec.auditAnnotations[0].valueExpression: Required value: valueExpression is not specified",
            ),
            (
                json!([annotation(
                    "a",
                    &format!("'{}'", "x".repeat(MAX_EXPRESSION_BYTES))
                )]),
                "spec.auditAnnotations[0].valueExpression: Required value: must not exceed 5120 bytes in length",
            ),
            (
                json!([annotation("a", "nope")]),
                "spec.auditAnnotations[0].valueExpression: Invalid value: \"nope\": compilation failed: ",
            ),
            (
                json!([annotation("a", "'x'"), annotation("a", "'y'")]),
                "spec.auditAnnotations[1].key: Duplicate value: \"a\"",
            ),
            (
                json!(
                    (0..21)
                        .map(|n| annotation(&format!("k{n}"), "'x'"))
                        .collect::<Vec<_>>()
                ),
                "must not have more than 20 auditAnnotations",
            ),
        ] {
            let found = wrong(&annotations);
            assert!(found.contains(words), "{annotations}: {found}");
        }
    }
}
