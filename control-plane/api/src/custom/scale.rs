//! The `scale` subresource of custom resources: where the replicas are.

use serde_json::Value;

use super::json_path::JsonPath;
use crate::ObjectExt;

/// Paths of fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScalePaths {
    spec_replicas: Vec<String>,
    status_replicas: Vec<String>,
    selector: Option<Vec<String>>,
}

fn fields(path: &str) -> Option<Vec<String>> {
    let parsed = JsonPath::parse(path).ok()?;
    let fields = parsed.fields()?;
    Some(fields.into_iter().map(str::to_string).collect())
}

fn at<'v>(object: &'v Value, path: &[String]) -> Option<&'v Value> {
    path.iter()
        .try_fold(object, |value, name| value.get(name.as_str()))
}

impl ScalePaths {
    /// From `subresources.scale`; `None` when its paths are not those of fields.
    pub(super) fn read(scale: &Value) -> Option<Self> {
        Some(ScalePaths {
            spec_replicas: fields(scale.str_at("/specReplicasPath"))?,
            status_replicas: fields(scale.str_at("/statusReplicasPath"))?,
            selector: match scale.str_at("/labelSelectorPath") {
                "" => None,
                path => fields(path),
            },
        })
    }

    /// The wanted replicas.
    pub fn spec_replicas(&self, object: &Value) -> Option<i64> {
        at(object, &self.spec_replicas).and_then(Value::as_i64)
    }

    /// The replicas that are there.
    pub fn status_replicas(&self, object: &Value) -> Option<i64> {
        at(object, &self.status_replicas).and_then(Value::as_i64)
    }

    /// The selector of the pods, as text.
    pub fn selector<'v>(&self, object: &'v Value) -> &'v str {
        self.selector
            .as_deref()
            .and_then(|path| at(object, path))
            .and_then(Value::as_str)
            .unwrap_or("")
    }

    /// Writes the wanted replicas.
    pub fn set_spec_replicas(&self, object: &mut Value, replicas: i64) {
        let path: Vec<&str> = self.spec_replicas.iter().map(String::as_str).collect();
        object.set_at(&path, Value::from(replicas));
    }

    /// The wanted replicas' path as text.
    pub fn spec_replicas_path(&self) -> String {
        self.spec_replicas.join(".")
    }
}
