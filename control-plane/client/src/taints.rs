//! Taints and tolerations (`k8s.io/component-helpers/scheduling/corev1`).

use k8s_openapi::api::core::v1::{Taint, Toleration};

/// Whether the toleration covers the taint.
pub fn covers(toleration: &Toleration, taint: &Taint) -> bool {
    let differs = |given: &Option<String>, of_taint: &str| {
        given
            .as_deref()
            .is_some_and(|given| !given.is_empty() && given != of_taint)
    };
    if differs(&toleration.effect, &taint.effect) || differs(&toleration.key, &taint.key) {
        return false;
    }
    let value = taint.value.as_deref().unwrap_or_default();
    let wanted = toleration.value.as_deref().unwrap_or_default();
    match toleration.operator.as_deref() {
        None | Some("" | "Equal") => value == wanted,
        Some("Exists") => true,
        Some(operator @ ("Lt" | "Gt")) => {
            let (Ok(value), Ok(wanted)) = (value.parse::<i64>(), wanted.parse::<i64>()) else {
                return false;
            };
            if operator == "Lt" {
                value < wanted
            } else {
                value > wanted
            }
        }
        Some(_) => false,
    }
}

/// Whether any of the tolerations covers the taint.
pub fn tolerates(tolerations: Option<&Vec<Toleration>>, taint: &Taint) -> bool {
    tolerations
        .into_iter()
        .flatten()
        .any(|toleration| covers(toleration, taint))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tolerated(toleration: serde_json::Value, taint: serde_json::Value) -> bool {
        covers(
            &serde_json::from_value(toleration).unwrap(),
            &serde_json::from_value(taint).unwrap(),
        )
    }

    #[test]
    fn operators_keys_and_effects_are_matched_as_in_kubernetes() {
        use serde_json::json;
        let taint = json!({"key": "gpu", "value": "a100", "effect": "NoSchedule"});
        for (toleration, expected) in [
            (
                json!({"key": "gpu", "value": "a100", "effect": "NoSchedule"}),
                true,
            ),
            (
                json!({"key": "gpu", "operator": "Equal", "value": "h100"}),
                false,
            ),
            (json!({"key": "gpu", "operator": "Exists"}), true),
            (
                json!({"key": "gpu", "operator": "Exists", "effect": "NoExecute"}),
                false,
            ),
            (json!({"key": "other", "operator": "Exists"}), false),
            (json!({"operator": "Exists"}), true),
            (json!({"key": "gpu", "operator": "Bogus"}), false),
        ] {
            assert_eq!(
                tolerated(toleration.clone(), taint.clone()),
                expected,
                "{toleration}"
            );
        }
        let level = json!({"key": "level", "value": "5", "effect": "NoSchedule"});
        let below = |value: &str| json!({"key": "level", "operator": "Lt", "value": value});
        assert!(tolerated(below("6"), level.clone()));
        assert!(!tolerated(below("5"), level));
    }
}
