//! kubectl's columns of autoscalers.

use serde_json::Value;

use crate::{
    ObjectExt,
    kinds::workload::count,
    table::{self, Column},
};

/// Metrics shown in a cell.
const SHOWN: usize = 2;

pub(super) const COLUMNS: &[Column] = &[
    table::NAME,
    table::column("Reference", "What is scaled."),
    table::column("Targets", "Measured and wanted values."),
    table::column("MinPods", "Fewest pods."),
    table::column("MaxPods", "Most pods."),
    table::number("Replicas", "Pods now."),
    table::AGE,
];

pub(super) fn row(object: &Value, now: jiff::Timestamp) -> Vec<Value> {
    let least = match object.int_at("/spec/minReplicas") {
        Some(least) => least.to_string(),
        None => "<unset>".to_string(),
    };
    let reference = format!(
        "{}/{}",
        object.str_at("/spec/scaleTargetRef/kind"),
        object.str_at("/spec/scaleTargetRef/name")
    );
    let most = object.int_at("/spec/maxReplicas").unwrap_or(0).to_string();
    vec![
        Value::from(object.name()),
        Value::from(reference),
        Value::from(targets(object)),
        Value::from(least),
        Value::from(most),
        count(object, "/status/currentReplicas"),
        table::age_cell(object, now),
    ]
}

fn targets(object: &Value) -> String {
    let wanted = object.list_at("/spec/metrics");
    let measured = object.list_at("/status/currentMetrics");
    let mut cells: Vec<String> = wanted
        .iter()
        .enumerate()
        .map(|(index, metric)| cell(metric, measured.get(index)))
        .collect();
    match cells.len() {
        0 => "<none>".to_string(),
        count if count > SHOWN => {
            cells.truncate(SHOWN);
            format!("{} + {} more...", cells.join(", "), count - SHOWN)
        }
        _ => cells.join(", "),
    }
}

/// `cpu: 12%/80%`, `10/100`.
fn cell(metric: &Value, measured: Option<&Value>) -> String {
    let source = match metric.str_at("/type") {
        "Resource" => "resource",
        "ContainerResource" => "containerResource",
        "Pods" => "pods",
        "Object" => "object",
        "External" => "external",
        _ => return "<unknown type>".to_string(),
    };
    let current = measured.and_then(|measured| measured.pointer(&format!("/{source}/current")));
    let text = |holder: Option<&Value>, field: &str| -> Option<String> {
        match holder?.get(field)? {
            Value::String(text) => Some(text.clone()),
            number => Some(number.to_string()),
        }
    };
    let target = metric.pointer(&format!("/{source}/target"));
    let unknown = "<unknown>".to_string();
    let values = if let Some(wanted) = text(target, "averageUtilization") {
        let now = text(current, "averageUtilization").map_or(unknown, |value| format!("{value}%"));
        format!("{now}/{wanted}%")
    } else if let Some(wanted) = text(target, "averageValue") {
        let now = text(current, "averageValue").unwrap_or(unknown);
        let average = if matches!(source, "object" | "external") {
            " (avg)"
        } else {
            ""
        };
        format!("{now}/{wanted}{average}")
    } else {
        let now = text(current, "value").unwrap_or(unknown);
        format!("{now}/{}", text(target, "value").unwrap_or_default())
    };
    match metric.str_at(&format!("/{source}/name")) {
        "" => values,
        name => format!("{name}: {values}"),
    }
}
