//! The older form: one metric, the use of CPU. What it cannot say travels in annotations, so
//! that reading and writing it loses nothing.

use serde_json::{Value, json};

use crate::{
    ObjectExt,
    field::Errors,
    object::default_to,
    registry::{self},
    table::Column,
};

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";

pub(super) struct Strategy;

/// A metric that the old form has a field for.
fn is_cpu(metric: &Value) -> bool {
    metric.str_at("/type") == "Resource"
        && metric.str_at("/resource/name") == "cpu"
        && metric
            .pointer("/resource/target/averageUtilization")
            .is_none_or(|value| value.is_number())
}

fn annotate(object: &mut Value, key: &str, value: Option<Value>) {
    if let Some(value) = value {
        object.set_at(
            &["metadata", "annotations", key],
            Value::from(value.to_string()),
        );
    }
}

fn take_annotation(object: &mut Value, key: &str) -> Option<Value> {
    let value = object.remove_at(&["metadata", "annotations", key])?;
    if object
        .map_at("/metadata/annotations")
        .is_some_and(serde_json::Map::is_empty)
    {
        object.remove_at(&["metadata", "annotations"]);
    }
    serde_json::from_str(value.as_str()?).ok()
}

fn non_empty(list: Vec<Value>) -> Option<Value> {
    (!list.is_empty()).then_some(Value::Array(list))
}

/// The stored form as `v1`.
pub(super) fn from_v2(mut object: Value) -> Value {
    object.set_at(&["apiVersion"], Value::from("autoscaling/v1"));
    let mut others = Vec::new();
    if let Some(Value::Array(metrics)) = object.remove_at(&["spec", "metrics"]) {
        for metric in metrics {
            let percent = metric.int_at("/resource/target/averageUtilization");
            match percent {
                Some(percent)
                    if is_cpu(&metric)
                        && object
                            .pointer("/spec/targetCPUUtilizationPercentage")
                            .is_none() =>
                {
                    object.set_at(
                        &["spec", "targetCPUUtilizationPercentage"],
                        Value::from(percent),
                    );
                }
                _ => others.push(metric),
            }
        }
    }
    annotate(&mut object, METRICS, non_empty(others));
    let behavior = object.remove_at(&["spec", "behavior"]);
    annotate(&mut object, BEHAVIOR, behavior);
    let conditions = object.remove_at(&["status", "conditions"]);
    annotate(&mut object, CONDITIONS, conditions);
    let current = object.remove_at(&["status", "currentMetrics"]);
    if let Some(Value::Array(metrics)) = &current {
        let percent = metrics
            .iter()
            .filter(|metric| metric.str_at("/resource/name") == "cpu")
            .find_map(|metric| metric.int_at("/resource/current/averageUtilization"));
        if let Some(percent) = percent {
            object.set_at(
                &["status", "currentCPUUtilizationPercentage"],
                Value::from(percent),
            );
        }
    }
    annotate(&mut object, CURRENT_METRICS, current);
    object
}

/// A `v1` object in the stored form.
pub(super) fn to_v2(mut object: Value) -> Value {
    object.set_at(&["apiVersion"], Value::from("autoscaling/v2"));
    let mut metrics = match take_annotation(&mut object, METRICS) {
        Some(Value::Array(metrics)) => metrics,
        _ => Vec::new(),
    };
    let percent = object.remove_at(&["spec", "targetCPUUtilizationPercentage"]);
    if let Some(percent) = percent.filter(Value::is_number) {
        metrics.insert(
            0,
            json!({"type": "Resource", "resource": {"name": "cpu",
                "target": {"type": "Utilization", "averageUtilization": percent}}}),
        );
    }
    if let Some(metrics) = non_empty(metrics) {
        object.set_at(&["spec", "metrics"], metrics);
    }
    if let Some(behavior) = take_annotation(&mut object, BEHAVIOR) {
        object.set_at(&["spec", "behavior"], behavior);
    }
    object.remove_at(&["status", "currentCPUUtilizationPercentage"]);
    for (key, field) in [
        (CONDITIONS, "conditions"),
        (CURRENT_METRICS, "currentMetrics"),
    ] {
        if let Some(value) = take_annotation(&mut object, key) {
            object.set_at(&["status", field], value);
        }
    }
    object
}

impl registry::Strategy for Strategy {
    fn apply_defaults(&self, object: &mut Value) {
        let spec = object.map_mut(&["spec"]);
        default_to(spec, "minReplicas", 1);
        let annotated = object
            .map_at("/metadata/annotations")
            .is_some_and(|annotations| annotations.contains_key(METRICS));
        if !annotated {
            default_to(
                object.map_mut(&["spec"]),
                "targetCPUUtilizationPercentage",
                super::CPU_PERCENT,
            );
        }
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        super::validate::validate(&to_v2(object.clone()), errors);
    }

    fn has_status(&self) -> bool {
        true
    }

    fn columns(&self) -> &'static [Column] {
        super::print::COLUMNS
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        super::print::row(&to_v2(object.clone()), now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_and_writing_the_older_form_loses_nothing() {
        let cpu = json!({"type": "Resource", "resource": {"name": "cpu",
            "target": {"type": "Utilization", "averageUtilization": 50}}});
        let memory = json!({"type": "Resource", "resource": {"name": "memory",
            "target": {"type": "AverageValue", "averageValue": "1Gi"}}});
        let stored = json!({
            "apiVersion": "autoscaling/v2",
            "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": "a"},
            "spec": {"maxReplicas": 3, "metrics": [cpu, memory], "behavior": {"scaleUp": {"selectPolicy": "Min"}}},
            "status": {"conditions": [{"type": "AbleToScale", "status": "True"}]},
        });
        let old = from_v2(stored.clone());
        assert_eq!(old["spec"]["targetCPUUtilizationPercentage"], 50);
        assert!(old["spec"].get("metrics").is_none());
        assert_eq!(to_v2(old), stored);
    }
}
