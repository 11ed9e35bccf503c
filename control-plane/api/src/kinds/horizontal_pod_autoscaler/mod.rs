//! HorizontalPodAutoscaler, `autoscaling/v2`; `v1` is the same object in an older form.

mod print;
mod v1;
mod validate;

use serde_json::{Value, json};

use super::PLAIN;
use crate::{
    ObjectExt,
    field::Errors,
    object::{default_text, default_to},
    registry::{self, Conversion, Kind, Subresource},
    table::Column,
};

/// `autoscaling/v2` HorizontalPodAutoscaler.
pub static HORIZONTAL_POD_AUTOSCALERS: Kind = Kind {
    group: "autoscaling",
    version: "v2",
    kind: "HorizontalPodAutoscaler",
    plural: "horizontalpodautoscalers",
    singular: "horizontalpodautoscaler",
    short_names: &["hpa"],
    categories: &["all"],
    subresources: &[Subresource::Status],
    schema: "autoscalingv2.HorizontalPodAutoscaler",
    storage: "horizontalpodautoscalers",
    strategy: &Strategy,
    ..PLAIN
};

/// `autoscaling/v1` HorizontalPodAutoscaler, stored as `v2`.
pub static HORIZONTAL_POD_AUTOSCALERS_V1: Kind = Kind {
    version: "v1",
    schema: "autoscaling.HorizontalPodAutoscaler",
    conversion: Some(Conversion {
        from_storage: v1::from_v2,
        to_storage: v1::to_v2,
    }),
    strategy: &v1::Strategy,
    ..HORIZONTAL_POD_AUTOSCALERS
};

struct Strategy;

/// Use of CPU that is aimed at when nothing else is given, in percent.
const CPU_PERCENT: i64 = 80;
/// How long scaling down waits for the load to come back, in seconds.
const SCALE_UP_PERIOD_SECONDS: i64 = 15;

impl registry::Strategy for Strategy {
    fn apply_defaults(&self, object: &mut Value) {
        let spec = object.map_mut(&["spec"]);
        default_to(spec, "minReplicas", 1);
        if spec
            .get("metrics")
            .and_then(Value::as_array)
            .is_none_or(Vec::is_empty)
        {
            spec.insert(
                "metrics".to_string(),
                json!([{"type": "Resource", "resource": {"name": "cpu",
                    "target": {"type": "Utilization", "averageUtilization": CPU_PERCENT}}}]),
            );
        }
        if object.pointer("/spec/behavior").is_some() {
            default_behavior(object);
        }
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        validate::validate(object, errors);
    }

    fn has_status(&self) -> bool {
        true
    }

    fn columns(&self) -> &'static [Column] {
        print::COLUMNS
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        print::row(object, now)
    }
}

/// Once one direction is given, both are written out.
fn default_behavior(object: &mut Value) {
    let up = object.map_mut(&["spec", "behavior", "scaleUp"]);
    default_to(up, "stabilizationWindowSeconds", 0);
    default_text(up, "selectPolicy", "Max");
    default_to(
        up,
        "policies",
        json!([
            {"type": "Pods", "value": 4, "periodSeconds": SCALE_UP_PERIOD_SECONDS},
            {"type": "Percent", "value": 100, "periodSeconds": SCALE_UP_PERIOD_SECONDS},
        ]),
    );
    let down = object.map_mut(&["spec", "behavior", "scaleDown"]);
    default_text(down, "selectPolicy", "Max");
    default_to(
        down,
        "policies",
        json!([{"type": "Percent", "value": 100, "periodSeconds": SCALE_UP_PERIOD_SECONDS}]),
    );
}
