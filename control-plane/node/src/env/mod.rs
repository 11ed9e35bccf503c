//! A container's environment: Services, then envFrom, then env in order, with `$(NAME)` expansion.

pub mod expand;
pub mod fields;
pub mod services;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, EnvVar, EnvVarSource};

use crate::objects::{ObjectKind, ObjectSnapshot};
use fields::PodFacts;

/// Why a container's configuration cannot be made; becomes CreateContainerConfigError.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A configMap or secret does not exist.
    #[error("{kind} \"{name}\" not found")]
    NotFound {
        /// `configmap` or `secret`.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// It exists but lacks the key.
    #[error("couldn't find key {key} in {kind} {namespace}/{name}")]
    NoKey {
        /// `ConfigMap` or `Secret`.
        kind: &'static str,
        /// The pod's namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// The missing key.
        key: String,
    },
    /// The API server could not be asked.
    #[error("failed to read {kind} \"{name}\": {message}")]
    Unavailable {
        /// `configmap` or `secret`.
        kind: &'static str,
        /// Its name.
        name: String,
        /// Why.
        message: String,
    },
    /// A value that an environment variable cannot hold.
    #[error("{what} is not valid UTF-8 text and cannot be an environment variable")]
    NotText {
        /// Which value.
        what: String,
    },
    /// A fieldRef or resourceFieldRef that this node agent does not know.
    #[error("{0}")]
    Field(#[from] fields::FieldError),
    /// A source this node agent does not have.
    #[error("unimplemented: {0}")]
    Unimplemented(String),
    /// The container or pod asks for something contradictory.
    #[error("{0}")]
    Invalid(String),
}

/// The environment of a container, in the order processes see it. `services` are the variables of
/// [`services::Services::environment`]; the container's own win over them.
pub fn environment(
    container: &Container,
    facts: &PodFacts<'_>,
    objects: &ObjectSnapshot,
    services: &[(String, String)],
) -> Result<Vec<(String, String)>, ConfigError> {
    let mut values: BTreeMap<String, String> = BTreeMap::new();
    let mut order: Vec<String> = Vec::new();
    let mut set = |values: &mut BTreeMap<String, String>, name: String, value: String| {
        if values.insert(name.clone(), value).is_none() {
            order.push(name);
        }
    };
    set(&mut values, "HOSTNAME".into(), facts.hostname.clone());
    for (name, value) in services {
        set(&mut values, name.clone(), value.clone());
    }
    for (name, value) in env_from(container, facts, objects)? {
        set(&mut values, name, value);
    }
    for variable in container.env.iter().flatten() {
        let value = match (&variable.value, &variable.value_from) {
            (_, Some(source)) => from_source(variable, source, container, facts, objects)?,
            (Some(value), None) => Some(expand::expand(value, |name| values.get(name).cloned())),
            (None, None) => Some(String::new()),
        };
        if let Some(value) = value {
            set(&mut values, variable.name.clone(), value);
        }
    }
    Ok(order
        .into_iter()
        .filter_map(|name| values.remove_entry(&name))
        .collect())
}

fn env_from(
    container: &Container,
    facts: &PodFacts<'_>,
    objects: &ObjectSnapshot,
) -> Result<Vec<(String, String)>, ConfigError> {
    let mut variables = Vec::new();
    for source in container.env_from.iter().flatten() {
        let prefix = source.prefix.clone().unwrap_or_default();
        let references = [
            source
                .config_map_ref
                .as_ref()
                .map(|reference| (ObjectKind::ConfigMap, &reference.name, reference.optional)),
            source
                .secret_ref
                .as_ref()
                .map(|reference| (ObjectKind::Secret, &reference.name, reference.optional)),
        ];
        for (kind, name, optional) in references.into_iter().flatten() {
            let Some(data) = objects.get(kind, name, optional.unwrap_or(false))? else {
                continue;
            };
            for (key, value) in &data.data {
                let name = format!("{prefix}{key}");
                if !is_variable_name(&name) {
                    tracing::warn!(pod = %facts.identity, container = container.name, key,
                        "envFrom key is not a variable name: skipped");
                    continue;
                }
                variables.push((name, text(value, || format!("{} key {key}", kind.title()))?));
            }
        }
    }
    Ok(variables)
}

fn from_source(
    variable: &EnvVar,
    source: &EnvVarSource,
    container: &Container,
    facts: &PodFacts<'_>,
    objects: &ObjectSnapshot,
) -> Result<Option<String>, ConfigError> {
    if let Some(reference) = &source.field_ref {
        return Ok(Some(facts.field(&reference.field_path)?));
    }
    if let Some(reference) = &source.resource_field_ref {
        return Ok(Some(facts.resource(container, reference)?));
    }
    let (kind, name, key, optional) = if let Some(reference) = &source.config_map_key_ref {
        (
            ObjectKind::ConfigMap,
            &reference.name,
            &reference.key,
            reference.optional,
        )
    } else if let Some(reference) = &source.secret_key_ref {
        (
            ObjectKind::Secret,
            &reference.name,
            &reference.key,
            reference.optional,
        )
    } else {
        return Err(ConfigError::Unimplemented(format!(
            "source of environment variable {}",
            variable.name
        )));
    };
    let optional = optional.unwrap_or(false);
    let Some(data) = objects.get(kind, name, optional)? else {
        return Ok(None);
    };
    match data.data.get(key) {
        Some(value) => Ok(Some(text(value, || format!("{} key {key}", kind.title()))?)),
        None if optional => Ok(None),
        None => Err(ConfigError::NoKey {
            kind: kind.title(),
            namespace: facts.identity.namespace.clone(),
            name: name.clone(),
            key: key.clone(),
        }),
    }
}

fn text(value: &[u8], what: impl Fn() -> String) -> Result<String, ConfigError> {
    String::from_utf8(value.to_vec()).map_err(|_| ConfigError::NotText { what: what() })
}

/// Kubernetes' relaxed rule: printable ASCII without `=`.
fn is_variable_name(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|byte| (b' '..=b'~').contains(&byte) && byte != b'=')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::testing::snapshot;
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::json;

    fn pod(container: serde_json::Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "d", "uid": "u", "labels": {"app": "web"}},
            "spec": {"nodeName": "n1", "serviceAccountName": "sa", "containers": [container]}
        }))
        .unwrap()
    }

    fn resolve(container: serde_json::Value) -> Result<Vec<(String, String)>, ConfigError> {
        let pod = pod(container);
        let facts = fields::testing::facts(&pod);
        let objects = snapshot(&[
            (ObjectKind::ConfigMap, "cm", &[("a", "1"), ("b", "2")]),
            (ObjectKind::Secret, "s", &[("password", "x")]),
        ]);
        let services = [("DB_SERVICE_HOST", "10.43.0.9"), ("P_a", "hidden")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()));
        let container = &pod.spec.as_ref().unwrap().containers[0];
        environment(container, &facts, &objects, &services)
    }

    fn lookup(environment: &[(String, String)], name: &str) -> String {
        environment
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.clone())
            .unwrap()
    }

    #[test]
    fn sources_and_expansion() {
        let environment = resolve(json!({"name": "c",
            "envFrom": [{"prefix": "P_", "configMapRef": {"name": "cm"}}, {"secretRef": {"name": "none", "optional": true}}],
            "env": [
                {"name": "A", "value": "v$(P_a)-$$(P_a)-$(NOPE)"},
                {"name": "PASS", "valueFrom": {"secretKeyRef": {"name": "s", "key": "password"}}},
                {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                {"name": "APP", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
                {"name": "MISSING", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "zz", "optional": true}}},
                {"name": "P_b", "value": "over"},
                {"name": "URL", "value": "db://$(DB_SERVICE_HOST)"}
            ]}))
        .unwrap();
        assert_eq!(lookup(&environment, "A"), "v1-$(P_a)-$(NOPE)");
        assert_eq!(lookup(&environment, "P_a"), "1");
        assert_eq!(lookup(&environment, "URL"), "db://10.43.0.9");
        assert_eq!(lookup(&environment, "PASS"), "x");
        assert_eq!(lookup(&environment, "IP"), "10.42.0.7");
        assert_eq!(lookup(&environment, "APP"), "web");
        assert_eq!(lookup(&environment, "P_b"), "over");
        assert_eq!(lookup(&environment, "HOSTNAME"), "p");
        assert!(!environment.iter().any(|(name, _)| name == "MISSING"));
    }

    #[test]
    fn missing_objects_and_keys_name_themselves() {
        let table = [
            (
                json!({"name": "c", "env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "gone", "key": "a"}}}]}),
                "configmap \"gone\" not found",
            ),
            (
                json!({"name": "c", "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "zz"}}}]}),
                "couldn't find key zz in Secret d/s",
            ),
            (
                json!({"name": "c", "envFrom": [{"secretRef": {"name": "gone"}}]}),
                "secret \"gone\" not found",
            ),
            (
                json!({"name": "c", "env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.nope"}}}]}),
                "unsupported fieldPath: spec.nope",
            ),
        ];
        for (container, message) in table {
            assert_eq!(resolve(container).unwrap_err().to_string(), message);
        }
    }
}
