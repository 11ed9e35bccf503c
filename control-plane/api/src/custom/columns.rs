//! `additionalPrinterColumns`: what kubectl prints of a custom resource.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::json_path::JsonPath;
use crate::{ObjectExt, time};

/// One column.
#[derive(Debug)]
pub(super) struct CustomColumn {
    name: String,
    cell_type: String,
    format: String,
    description: String,
    priority: i64,
    /// `None`: the definition's path cannot be followed, the cells stay empty.
    path: Option<JsonPath>,
}

/// The columns of a version; without any, the age.
pub(super) fn read(version: &Value) -> Vec<CustomColumn> {
    let given = version.list_at("/additionalPrinterColumns");
    if given.is_empty() {
        return vec![CustomColumn {
            name: "Age".to_string(),
            cell_type: "date".to_string(),
            format: String::new(),
            description: "CreationTimestamp is a timestamp representing the server time when this object was created.".to_string(),
            priority: 0,
            path: JsonPath::parse(".metadata.creationTimestamp").ok(),
        }];
    }
    given
        .iter()
        .map(|column| CustomColumn {
            name: column.str_at("/name").to_string(),
            cell_type: column.str_at("/type").to_string(),
            format: column.str_at("/format").to_string(),
            description: match column.str_at("/description") {
                "" => format!(
                    "Custom resource definition column (in JSONPath format): {}",
                    column.str_at("/jsonPath")
                ),
                text => text.to_string(),
            },
            priority: column.int_at("/priority").unwrap_or(0),
            path: JsonPath::parse(column.str_at("/jsonPath")).ok(),
        })
        .collect()
}

impl CustomColumn {
    /// For the table's head.
    pub(super) fn definition(&self) -> Value {
        json!({
            "name": self.name,
            "type": self.cell_type,
            "format": self.format,
            "description": self.description,
            "priority": self.priority,
        })
    }

    /// The cell of an object.
    pub(super) fn cell(&self, object: &Value, now: Timestamp) -> Value {
        let found = self.path.as_ref().and_then(|path| {
            // A list of values is shown by its first.
            path.find(object).into_iter().next()
        });
        let Some(value) = found else {
            return Value::Null;
        };
        match (self.cell_type.as_str(), value) {
            ("date", Value::String(text)) => match time::parse(text) {
                Some(_) => Value::from(time::age(text, now)),
                None => Value::from("<invalid>"),
            },
            ("integer", Value::Number(number)) => match (number.as_i64(), number.as_f64()) {
                (Some(whole), _) => Value::from(whole),
                #[allow(clippy::cast_possible_truncation)] // Kubernetes cuts it off too.
                (None, Some(float)) => Value::from(float as i64),
                _ => Value::Null,
            },
            ("number", Value::Number(_)) | ("boolean", Value::Bool(_)) => value.clone(),
            ("string", Value::String(_)) => value.clone(),
            ("string", Value::Null) => Value::Null,
            ("string", other) => Value::from(other.to_string()),
            _ => Value::Null,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_have_the_type_of_their_column() {
        let column =
            |cell_type: &str, path: &str| json!({"name": "X", "type": cell_type, "jsonPath": path});
        let version = json!({"additionalPrinterColumns": [
            column("integer", ".spec.n"), column("integer", ".spec.s"), column("string", ".spec.n"),
            column("string", ".spec.l"), column("boolean", ".spec.b"), column("number", ".spec.f"),
            column("date", ".spec.t"), column("date", ".spec.s"), column("string", ".no"),
            column("string", "no path")]});
        let object = json!({"spec": {"n": 3, "s": "x", "l": ["a", 1], "b": true, "f": 1.5,
            "t": "2026-01-01T00:00:00Z"}});
        let now = time::parse("2026-01-01T00:01:00Z").unwrap();
        let cells: Vec<Value> = read(&version)
            .iter()
            .map(|c| c.cell(&object, now))
            .collect();
        assert_eq!(
            json!(cells),
            json!([
                3,
                null,
                "3",
                "[\"a\",1]",
                true,
                1.5,
                "60s",
                "<invalid>",
                null,
                null
            ])
        );
    }
}
