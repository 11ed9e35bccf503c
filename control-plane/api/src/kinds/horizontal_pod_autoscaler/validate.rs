//! Rules of an autoscaler (Kubernetes: pkg/apis/autoscaling/validation).

use serde_json::Value;

use crate::{
    ObjectExt,
    field::{Errors, Path},
    names,
    quantity::Quantity,
};

/// Longest window that is looked back at, in seconds.
const MAX_WINDOW_SECONDS: i64 = 3600;
/// Longest period of a policy, in seconds.
const MAX_PERIOD_SECONDS: i64 = 1800;

pub(super) fn validate(object: &Value, errors: &mut Errors) {
    let spec = Path::new("spec");
    let least = object.int_at("/spec/minReplicas").unwrap_or(1);
    let most = object.int_at("/spec/maxReplicas").unwrap_or(0);
    if least < 1 {
        errors.invalid(
            &spec.child("minReplicas"),
            least,
            "must be greater than or equal to 1",
        );
    }
    if most < 1 {
        errors.invalid(&spec.child("maxReplicas"), most, "must be greater than 0");
    }
    if most < least {
        errors.invalid(
            &spec.child("maxReplicas"),
            most,
            "must be greater than or equal to `minReplicas`",
        );
    }
    let path = spec.child("scaleTargetRef");
    for field in ["kind", "name"] {
        let value = object.str_at(&format!("/spec/scaleTargetRef/{field}"));
        if value.is_empty() {
            errors.required(&path.child(field), "");
        } else {
            for why in names::path_segment(value) {
                errors.invalid(&path.child(field), value, why);
            }
        }
    }
    for (index, metric) in object.list_at("/spec/metrics").iter().enumerate() {
        validate_metric(metric, &spec.child("metrics").index(index), errors);
    }
    for direction in ["scaleUp", "scaleDown"] {
        if let Some(rules) = object.pointer(&format!("/spec/behavior/{direction}")) {
            validate_rules(rules, &spec.child("behavior").child(direction), errors);
        }
    }
}

fn validate_metric(metric: &Value, path: &Path, errors: &mut Errors) {
    let metric_type = metric.str_at("/type");
    if metric_type.is_empty() {
        return errors.required(&path.child("type"), "must specify a metric source type");
    }
    let source = match metric_type {
        "Resource" => "resource",
        "ContainerResource" => "containerResource",
        "Pods" => "pods",
        "Object" => "object",
        "External" => "external",
        other => {
            return errors.not_supported(
                &path.child("type"),
                other,
                &[
                    "ContainerResource",
                    "External",
                    "Object",
                    "Pods",
                    "Resource",
                ],
            );
        }
    };
    let Some(content) = metric.get(source) else {
        return errors.required(
            &path.child(source),
            &format!("must populate information for the given metric source ({metric_type})"),
        );
    };
    let path = path.child(source);
    let named = match source {
        "resource" | "containerResource" => "/name",
        _ => "/metric/name",
    };
    if content.str_at(named).is_empty() {
        errors.required(
            &path.child(named.trim_start_matches('/').replace('/', ".").as_str()),
            "",
        );
    }
    validate_target(content, &path.child("target"), errors);
}

fn validate_target(content: &Value, path: &Path, errors: &mut Errors) {
    let Some(target) = content.get("target") else {
        return errors.required(path, "");
    };
    let target_type = target.str_at("/type");
    if target_type.is_empty() {
        errors.required(&path.child("type"), "must specify a metric target type");
    } else {
        let supported = ["AverageValue", "Utilization", "Value"];
        errors.check_supported(&path.child("type"), target_type, &supported);
    }
    if let Some(percent) = target.int_at("/averageUtilization")
        && percent < 1
    {
        errors.invalid(
            &path.child("averageUtilization"),
            percent,
            "must be greater than 0",
        );
    }
    for field in ["value", "averageValue"] {
        let text = target.str_at(&format!("/{field}"));
        let positive = text
            .parse::<Quantity>()
            .is_ok_and(|amount| amount > Quantity::from_units(0));
        if !text.is_empty() && !positive {
            errors.invalid(&path.child(field), text, "must be positive");
        }
    }
}

fn validate_rules(rules: &Value, path: &Path, errors: &mut Errors) {
    if let Some(seconds) = rules.int_at("/stabilizationWindowSeconds") {
        let path = path.child("stabilizationWindowSeconds");
        if seconds < 0 {
            errors.invalid(&path, seconds, "must be greater than or equal to zero");
        } else if seconds > MAX_WINDOW_SECONDS {
            errors.invalid(
                &path,
                seconds,
                format!("must be less than or equal to {MAX_WINDOW_SECONDS}"),
            );
        }
    }
    let select = rules.str_at("/selectPolicy");
    if !select.is_empty() {
        errors.check_supported(
            &path.child("selectPolicy"),
            select,
            &["Disabled", "Max", "Min"],
        );
    }
    let policies = rules.list_at("/policies");
    let list = path.child("policies");
    if policies.is_empty() {
        errors.required(&list, "must specify at least one Policy");
    }
    for (index, policy) in policies.iter().enumerate() {
        let path = list.index(index);
        errors.check_supported(
            &path.child("type"),
            policy.str_at("/type"),
            &["Percent", "Pods"],
        );
        for (field, most) in [("value", i64::MAX), ("periodSeconds", MAX_PERIOD_SECONDS)] {
            let value = policy.int_at(&format!("/{field}")).unwrap_or(0);
            if value <= 0 {
                errors.invalid(&path.child(field), value, "must be greater than zero");
            } else if value > most {
                errors.invalid(
                    &path.child(field),
                    value,
                    format!("must be less than or equal to {most}"),
                );
            }
        }
    }
}
