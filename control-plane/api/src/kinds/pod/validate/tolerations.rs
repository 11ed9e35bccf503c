//! Tolerations.

use serde_json::Value;

use crate::{
    ObjectExt,
    field::{Errors, Path},
    names,
};

/// Checks tolerations.
pub(crate) fn validate_tolerations(tolerations: &[Value], path: &Path, errors: &mut Errors) {
    for (index, toleration) in tolerations.iter().enumerate() {
        let path = path.index(index);
        let (key, operator) = (toleration.str_at("/key"), toleration.str_at("/operator"));
        if !key.is_empty() {
            for why in names::qualified_name(key) {
                errors.invalid(&path.child("key"), key, why);
            }
        } else if operator != "Exists" {
            errors.invalid(
                &path.child("operator"),
                operator,
                "operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
            );
        }
        let effect = toleration.str_at("/effect");
        if toleration.get("tolerationSeconds").is_some() && effect != "NoExecute" {
            errors.invalid(
                &path.child("effect"),
                effect,
                "effect must be 'NoExecute' when `tolerationSeconds` is set",
            );
        }
        match operator {
            "" | "Equal" => {
                let value = toleration.str_at("/value");
                for why in names::label_value(value) {
                    errors.invalid(&path.child("operator"), value, why);
                }
            }
            "Exists" => {
                if !toleration.str_at("/value").is_empty() {
                    errors.invalid(
                        &path.child("operator"),
                        toleration.clone(),
                        "value must be empty when `operator` is 'Exists'",
                    );
                }
            }
            other => errors.not_supported(&path.child("operator"), other, &["Equal", "Exists"]),
        }
        if !effect.is_empty() {
            errors.check_supported(
                &path.child("effect"),
                effect,
                &["NoExecute", "NoSchedule", "PreferNoSchedule"],
            );
        }
    }
}
