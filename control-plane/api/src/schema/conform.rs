//! Checks an object against its type, drops what Kubernetes' decoder drops, and reports it.

use base64::Engine;
use serde_json::Value;

use super::{FieldType, JSON_SCHEMA, TypeId, schema};
use crate::{quantity::Quantity, time};

/// Unknown fields reported at most per object.
const MAX_UNKNOWN: usize = 64;

/// What was dropped.
#[derive(Debug, Default)]
pub struct Report {
    /// Paths of unknown fields, as `spec.containers[0].nmae`.
    pub unknown: Vec<String>,
}

/// A value that its field cannot hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TypeError(pub String);

/// Checks `value` against a type by its name (`core.Pod`); an unknown name accepts anything.
pub fn conform_named(name: &str, value: &mut Value) -> Result<Report, TypeError> {
    match schema().id(name) {
        Some(id) => conform(id, value),
        None => Ok(Report::default()),
    }
}

/// Checks `value` against a type, in place.
pub fn conform(id: TypeId, value: &mut Value) -> Result<Report, TypeError> {
    let mut walk = Walk {
        report: Report::default(),
        path: Vec::new(),
        owner: schema().object(id).name,
    };
    walk.value(&FieldType::Object(id), value)?;
    Ok(walk.report)
}

/// What Go's decoder calls a value that does not fit.
pub fn go_kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

enum Step {
    Field(String),
    Index(usize),
}

struct Walk {
    report: Report,
    path: Vec<Step>,
    /// The innermost type with fields: Go names it in its errors.
    owner: &'static str,
}

impl Walk {
    fn path(&self) -> String {
        let mut text = String::new();
        for step in &self.path {
            match step {
                Step::Field(name) => {
                    if !text.is_empty() {
                        text.push('.');
                    }
                    text.push_str(name);
                }
                Step::Index(index) => text.push_str(&format!("[{index}]")),
            }
        }
        text
    }

    /// Go's `json.UnmarshalTypeError`, which names fields without indexes.
    fn mismatch(&self, field_type: &FieldType, value: &Value) -> TypeError {
        let fields: Vec<&str> = self
            .path
            .iter()
            .filter_map(|step| match step {
                Step::Field(name) => Some(name.as_str()),
                Step::Index(_) => None,
            })
            .collect();
        let found = match value {
            Value::Number(number) if matches!(field_type, FieldType::Int32 | FieldType::Int64) => {
                format!("number {number}")
            }
            _ => go_kind(value).to_string(),
        };
        let wanted = go_type(field_type);
        if fields.is_empty() {
            return TypeError(format!(
                "json: cannot unmarshal {found} into Go value of type {wanted}"
            ));
        }
        TypeError(format!(
            "json: cannot unmarshal {found} into Go struct field {}.{} of type {wanted}",
            self.owner,
            fields.join(".")
        ))
    }

    fn value(&mut self, field_type: &FieldType, value: &mut Value) -> Result<(), TypeError> {
        match (field_type, &mut *value) {
            (FieldType::Any, _)
            | (FieldType::SchemaOrBool, Value::Bool(_))
            | (FieldType::SchemaOrStringArray, Value::Array(_))
            | (FieldType::String, Value::String(_))
            | (FieldType::Bool, Value::Bool(_))
            | (FieldType::Float, Value::Number(_))
            | (FieldType::IntOrString, Value::String(_))
            | (FieldType::FieldsV1, Value::Object(_)) => Ok(()),
            (FieldType::Int64, Value::Number(number)) if number.is_i64() => Ok(()),
            (FieldType::Int32 | FieldType::IntOrString, Value::Number(number))
                if number.as_i64().is_some_and(|n| i32::try_from(n).is_ok()) =>
            {
                Ok(())
            }
            (FieldType::Bytes, Value::String(text)) => check_base64(text),
            (FieldType::Time | FieldType::MicroTime, Value::String(text)) => {
                canonical_time(field_type, text)
            }
            (FieldType::Quantity, Value::String(_) | Value::Number(_)) => canonical_quantity(value),
            (FieldType::List(inner), Value::Array(items)) => self.list(inner, items),
            (FieldType::Map(inner), Value::Object(map)) => {
                for (key, item) in map.iter_mut() {
                    self.path.push(Step::Field(key.clone()));
                    if item.is_null() {
                        // Go decodes null into a map of values as the empty value.
                        *item = empty_value(inner);
                    } else {
                        self.map_item(inner, item)?;
                    }
                    self.path.pop();
                }
                Ok(())
            }
            (FieldType::Object(id), Value::Object(_)) => self.object(*id, value),
            (
                FieldType::SchemaOrBool | FieldType::SchemaOrArray | FieldType::SchemaOrStringArray,
                Value::Object(_),
            ) => match schema().id(JSON_SCHEMA) {
                Some(id) => self.object(id, value),
                None => Ok(()),
            },
            (FieldType::SchemaOrArray, Value::Array(items)) => match schema().id(JSON_SCHEMA) {
                Some(id) => self.list(&FieldType::Object(id), items),
                None => Ok(()),
            },
            (field_type, found) => Err(self.mismatch(field_type, found)),
        }
    }

    /// In Go's errors the path stops at the map that holds a wrong value.
    fn map_item(&mut self, inner: &FieldType, item: &mut Value) -> Result<(), TypeError> {
        let scalar = !matches!(
            inner,
            FieldType::Object(_) | FieldType::List(_) | FieldType::Map(_)
        );
        let key = if scalar { self.path.pop() } else { None };
        let result = self.value(inner, item);
        if let Some(key) = key {
            self.path.push(key);
        }
        result
    }

    fn list(&mut self, inner: &FieldType, items: &mut [Value]) -> Result<(), TypeError> {
        for (index, item) in items.iter_mut().enumerate() {
            self.path.push(Step::Index(index));
            if item.is_null() {
                *item = empty_value(inner);
            } else {
                self.value(inner, item)?;
            }
            self.path.pop();
        }
        Ok(())
    }

    fn object(&mut self, id: TypeId, value: &mut Value) -> Result<(), TypeError> {
        let object = schema().object(id);
        let outer = std::mem::replace(&mut self.owner, object.name);
        let Value::Object(map) = value else {
            return Ok(());
        };
        let mut dropped = Vec::new();
        for (key, item) in map.iter_mut() {
            self.path.push(Step::Field(key.clone()));
            match object.field(key) {
                Some(_) if item.is_null() => dropped.push(key.clone()),
                Some(field) => self.value(&field.field_type, item)?,
                None => {
                    if self.report.unknown.len() < MAX_UNKNOWN {
                        self.report.unknown.push(self.path());
                    }
                    dropped.push(key.clone());
                }
            }
            self.path.pop();
        }
        for key in dropped {
            map.remove(&key);
        }
        self.owner = outer;
        Ok(())
    }
}

fn empty_value(field_type: &FieldType) -> Value {
    match field_type {
        FieldType::String | FieldType::Bytes => Value::from(""),
        FieldType::Quantity => Value::from("0"),
        FieldType::Bool => Value::Bool(false),
        FieldType::Int32 | FieldType::Int64 | FieldType::Float | FieldType::IntOrString => {
            Value::from(0)
        }
        FieldType::List(_) => Value::Array(Vec::new()),
        FieldType::Map(_) | FieldType::Object(_) | FieldType::FieldsV1 => {
            Value::Object(serde_json::Map::new())
        }
        FieldType::Time
        | FieldType::MicroTime
        | FieldType::Any
        | FieldType::SchemaOrBool
        | FieldType::SchemaOrArray
        | FieldType::SchemaOrStringArray => Value::Null,
    }
}

/// The field's type as Go's decoder names it.
fn go_type(field_type: &FieldType) -> String {
    match field_type {
        FieldType::String => "string".to_string(),
        FieldType::Bytes => "[]uint8".to_string(),
        FieldType::Bool => "bool".to_string(),
        FieldType::Int32 => "int32".to_string(),
        FieldType::Int64 => "int64".to_string(),
        FieldType::Float => "float64".to_string(),
        FieldType::Time => "v1.Time".to_string(),
        FieldType::MicroTime => "v1.MicroTime".to_string(),
        FieldType::Quantity => "resource.Quantity".to_string(),
        FieldType::IntOrString => "intstr.IntOrString".to_string(),
        FieldType::FieldsV1 => "v1.FieldsV1".to_string(),
        FieldType::Any => "interface {}".to_string(),
        FieldType::SchemaOrBool => "v1.JSONSchemaPropsOrBool".to_string(),
        FieldType::SchemaOrArray => "v1.JSONSchemaPropsOrArray".to_string(),
        FieldType::SchemaOrStringArray => "v1.JSONSchemaPropsOrStringArray".to_string(),
        FieldType::List(inner) => format!("[]{}", go_type(inner)),
        FieldType::Map(inner) => format!("map[string]{}", go_type(inner)),
        FieldType::Object(id) => format!("v1.{}", schema().object(*id).name),
    }
}

fn check_base64(text: &str) -> Result<(), TypeError> {
    use base64::{DecodeError, engine::general_purpose::STANDARD};
    // Go's decoder skips line breaks.
    let compact: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
    STANDARD
        .decode(compact.as_bytes())
        .map(drop)
        .map_err(|error| {
            let at = match error {
                DecodeError::InvalidByte(at, _) | DecodeError::InvalidLastSymbol(at, _) => at,
                DecodeError::InvalidLength(length) => length,
                DecodeError::InvalidPadding => compact.trim_end_matches('=').len(),
            };
            TypeError(format!("illegal base64 data at input byte {at}"))
        })
}

fn canonical_time(field_type: &FieldType, text: &mut String) -> Result<(), TypeError> {
    let Some(parsed) = time::parse(text) else {
        return Err(TypeError(format!(
            "parsing time {text:?} as \"2006-01-02T15:04:05Z07:00\": cannot parse {text:?} as a date and time"
        )));
    };
    *text = match field_type {
        FieldType::MicroTime => time::to_micros(parsed),
        _ => time::to_seconds(parsed),
    };
    Ok(())
}

fn canonical_quantity(value: &mut Value) -> Result<(), TypeError> {
    let text = match &*value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let parsed: Quantity = text
        .parse()
        .map_err(|error| TypeError(format!("{error}")))?;
    *value = Value::from(parsed.to_string());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn unknown_fields_are_dropped_and_reported() {
        let mut pod = json!({
            "metadata": {"name": "a", "labels": {"x": "y"}, "nope": 1},
            "spec": {"containers": [{"name": "c", "imgae": "x"}], "nodeName": null},
        });
        let report = conform_named("core.Pod", &mut pod).unwrap();
        assert_eq!(
            report.unknown,
            ["metadata.nope", "spec.containers[0].imgae"]
        );
        assert_eq!(
            pod,
            json!({"metadata": {"name": "a", "labels": {"x": "y"}}, "spec": {"containers": [{"name": "c"}]}})
        );
    }

    #[test]
    fn wrong_types_are_named_in_gos_words() {
        for (pod, message) in [
            (
                json!({"spec": {"containers": "x"}}),
                "json: cannot unmarshal string into Go struct field PodSpec.spec.containers of type []v1.Container",
            ),
            (
                json!({"spec": {"containers": [{"image": 5}]}}),
                "json: cannot unmarshal number into Go struct field Container.spec.containers.image of type string",
            ),
            (
                json!({"metadata": {"labels": {"a": true}}}),
                "json: cannot unmarshal bool into Go struct field ObjectMeta.metadata.labels of type string",
            ),
            (
                json!([]),
                "json: cannot unmarshal array into Go value of type v1.Pod",
            ),
            (
                json!({"spec": {"containers": [{"ports": [{"containerPort": 1.5}]}]}}),
                "json: cannot unmarshal number 1.5 into Go struct field ContainerPort.spec.containers.ports.containerPort of type int32",
            ),
        ] {
            let mut pod = pod;
            assert_eq!(conform_named("core.Pod", &mut pod).unwrap_err().0, message);
        }
    }

    #[test]
    fn quantities_and_times_become_canonical() {
        let mut pod = json!({"metadata": {"creationTimestamp": "2026-01-01T01:00:00.9+01:00"},
            "spec": {"containers": [{"resources": {"limits": {"cpu": 0.5, "memory": "1024Mi"}}}]}});
        conform_named("core.Pod", &mut pod).unwrap();
        assert_eq!(pod["metadata"]["creationTimestamp"], "2026-01-01T00:00:00Z");
        assert_eq!(
            pod["spec"]["containers"][0]["resources"]["limits"],
            json!({"cpu": "500m", "memory": "1Gi"})
        );
        let mut secret = json!({"data": {"a": "***"}});
        assert_eq!(
            conform_named("core.Secret", &mut secret).unwrap_err().0,
            "illegal base64 data at input byte 0"
        );
    }
}
