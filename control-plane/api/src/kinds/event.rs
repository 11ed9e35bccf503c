//! Event, in its two versions: `v1` (which is what is stored) and `events.k8s.io/v1`.

use std::borrow::Cow;

use serde_json::{Value, json};

use crate::{
    ObjectExt,
    field::{Errors, Path},
    names, registry,
    table::{self, Column},
    time,
};

pub(super) struct Strategy;
pub(super) struct EventsV1Strategy;

const COLUMNS: &[Column] = &[
    table::column("Last Seen", "When it happened last."),
    table::column("Type", "Normal or Warning."),
    table::column("Reason", "What happened, in one word."),
    table::column("Object", "What it happened to."),
    table::wide("Subobject", "The part of the object."),
    table::wide("Source", "Who says so."),
    table::column("Message", "What happened."),
    table::wide("First Seen", "When it happened first."),
    table::wide("Count", "How often it happened."),
    Column {
        priority: 1,
        ..table::NAME
    },
];

const SELECTABLE: &[&str] = &[
    "involvedObject.kind",
    "involvedObject.namespace",
    "involvedObject.name",
    "involvedObject.uid",
    "involvedObject.apiVersion",
    "involvedObject.resourceVersion",
    "involvedObject.fieldPath",
    "reason",
    "reportingComponent",
    "source",
    "type",
];

impl registry::Strategy for Strategy {
    fn validate(&self, object: &Value, errors: &mut Errors) {
        let involved = object.str_at("/involvedObject/namespace");
        let namespace = object.namespace();
        let cluster_scoped = involved.is_empty() && matches!(namespace, "default" | "kube-system");
        if involved != namespace && !cluster_scoped {
            errors.invalid(
                &Path::new("involvedObject.namespace"),
                involved,
                "does not match event.namespace",
            );
        }
        for why in names::label(namespace) {
            errors.invalid(&Path::new("namespace"), namespace, why);
        }
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        SELECTABLE
    }

    fn field_value<'a>(&self, object: &'a Value, field: &str) -> Option<Cow<'a, str>> {
        (field == "source").then(|| {
            let component = object.str_at("/source/component");
            Cow::from(if component.is_empty() {
                object.str_at("/reportingComponent")
            } else {
                component
            })
        })
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        row(object, now)
    }
}

impl registry::Strategy for EventsV1Strategy {
    fn validate(&self, object: &Value, errors: &mut Errors) {
        let path = Path::default();
        if object.str_at("/eventTime").is_empty() {
            // Events of the older version have none.
            if object.get("deprecatedFirstTimestamp").is_none() {
                errors.required(&path.child("eventTime"), "");
            }
            return;
        }
        for field in [
            "reportingController",
            "reportingInstance",
            "action",
            "reason",
        ] {
            if object.str_at(&format!("/{field}")).is_empty() {
                errors.required(&path.child(field), "");
            }
        }
        errors.check_supported(
            &path.child("type"),
            object.str_at("/type"),
            &["Normal", "Warning"],
        );
        if object.str_at("/note").len() > 1024 {
            errors.too_long(&path.child("note"), 1024);
        }
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        SELECTABLE
    }

    fn field_value<'a>(&self, object: &'a Value, field: &str) -> Option<Cow<'a, str>> {
        let pointer = match field {
            "source" | "reportingComponent" => "/reportingController".to_string(),
            _ => format!(
                "/{}",
                field
                    .replace("involvedObject", "regarding")
                    .replace('.', "/")
            ),
        };
        Some(Cow::from(object.str_at(&pointer)))
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        row(&to_core(object.clone()), now)
    }
}

fn row(event: &Value, now: jiff::Timestamp) -> Vec<Value> {
    let event_time = event.str_at("/eventTime");
    let or_event_time = |text: &'static str| match event.str_at(text) {
        "" => event_time,
        text => text,
    };
    let first = time::age(or_event_time("/firstTimestamp"), now);
    let last = match event.str_at("/series/lastObservedTime") {
        "" => match event.str_at("/lastTimestamp") {
            "" => first.clone(),
            text => time::age(text, now),
        },
        text => time::age(text, now),
    };
    let object = format!(
        "{}/{}",
        event.str_at("/involvedObject/kind").to_lowercase(),
        event.str_at("/involvedObject/name")
    );
    let component = match event.str_at("/source/component") {
        "" => event.str_at("/reportingComponent"),
        text => text,
    };
    let source: Vec<&str> = [component, event.str_at("/source/host")]
        .into_iter()
        .filter(|part| !part.is_empty())
        .collect();
    let count = event
        .int_at("/series/count")
        .or(event.int_at("/count").filter(|count| *count > 0))
        .unwrap_or(1);
    vec![
        Value::from(last),
        Value::from(event.str_at("/type")),
        Value::from(event.str_at("/reason")),
        Value::from(object),
        Value::from(event.str_at("/involvedObject/fieldPath")),
        Value::from(source.join(", ")),
        Value::from(event.str_at("/message").trim()),
        Value::from(first),
        Value::from(count),
        Value::from(event.name()),
    ]
}

/// `v1` name and `events.k8s.io/v1` name of the fields that differ.
const RENAMED: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("reportingComponent", "reportingController"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
];

pub(super) fn to_events_v1(mut event: Value) -> Value {
    if let Value::Object(map) = &mut event {
        for (core, events) in RENAMED {
            if let Some(value) = map.remove(core) {
                map.insert(events.to_string(), value);
            }
        }
        map.insert("apiVersion".to_string(), json!("events.k8s.io/v1"));
    }
    event
}

pub(super) fn to_core(mut event: Value) -> Value {
    if let Value::Object(map) = &mut event {
        for (core, events) in RENAMED {
            if let Some(value) = map.remove(events) {
                map.insert(core.to_string(), value);
            }
        }
        map.insert("apiVersion".to_string(), json!("v1"));
    }
    event
}
