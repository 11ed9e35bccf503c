//! The downward API: fields of the pod and resources of its containers as text.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, ResourceFieldSelector};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::pod::identity::PodIdentity;
use crate::quantity;

/// A field that cannot be given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    /// Not a field of the downward API.
    #[error("unsupported fieldPath: {0}")]
    Path(String),
    /// Not a resource of the downward API.
    #[error("unsupported container resource: {0}")]
    Resource(String),
    /// No container of that name.
    #[error("container {0} not found")]
    Container(String),
    /// A divisor that is zero or malformed.
    #[error("invalid divisor {0}")]
    Divisor(String),
}

/// What is known of a pod beyond its API object.
#[derive(Debug, Clone)]
pub struct PodFacts<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// Its identity.
    pub identity: PodIdentity,
    /// The host name its processes see.
    pub hostname: String,
    /// The node's name.
    pub node_name: String,
    /// The node's address.
    pub host_ip: String,
    /// The sandbox's addresses.
    pub pod_ips: Vec<String>,
    /// The node's allocatable cpu, milli-cores: the limit of a container without one.
    pub allocatable_cpu_milli: i64,
    /// The node's allocatable memory, bytes.
    pub allocatable_memory: i64,
}

impl PodFacts<'_> {
    /// A fieldRef in an environment variable.
    pub fn field(&self, path: &str) -> Result<String, FieldError> {
        let spec = self.pod.spec.as_ref();
        Ok(match path {
            "metadata.name" => self.identity.name.clone(),
            "metadata.namespace" => self.identity.namespace.clone(),
            "metadata.uid" => self.identity.uid.clone(),
            "spec.nodeName" => self.node_name.clone(),
            "spec.serviceAccountName" => spec
                .and_then(|spec| spec.service_account_name.clone())
                .unwrap_or_default(),
            "status.hostIP" | "status.hostIPs" => self.host_ip.clone(),
            "status.podIP" => self.pod_ips.first().cloned().unwrap_or_default(),
            "status.podIPs" => self.pod_ips.join(","),
            _ => {
                let metadata = &self.pod.metadata;
                if let Some(key) = subscript(path, "metadata.labels") {
                    return Ok(entry(metadata.labels.as_ref(), key));
                }
                if let Some(key) = subscript(path, "metadata.annotations") {
                    return Ok(entry(metadata.annotations.as_ref(), key));
                }
                return Err(FieldError::Path(path.to_owned()));
            }
        })
    }

    /// A fieldRef in a file: also whole label and annotation maps.
    pub fn file_field(&self, path: &str) -> Result<String, FieldError> {
        let metadata = &self.pod.metadata;
        match path {
            "metadata.labels" => Ok(lines(metadata.labels.as_ref())),
            "metadata.annotations" => Ok(lines(metadata.annotations.as_ref())),
            _ => self.field(path),
        }
    }

    /// A resourceFieldRef; in files it names its container.
    pub fn resource(
        &self,
        container: &Container,
        reference: &ResourceFieldSelector,
    ) -> Result<String, FieldError> {
        let container = match reference
            .container_name
            .as_deref()
            .filter(|name| !name.is_empty())
        {
            Some(name) => self
                .container(name)
                .ok_or_else(|| FieldError::Container(name.to_owned()))?,
            None => container,
        };
        let resources = container.resources.clone().unwrap_or_default();
        let limits = resources.limits.unwrap_or_default();
        let mut requests = resources.requests.unwrap_or_default();
        for (name, limit) in &limits {
            requests
                .entry(name.clone())
                .or_insert_with(|| limit.clone());
        }
        let (section, name) = reference
            .resource
            .split_once('.')
            .ok_or_else(|| FieldError::Resource(reference.resource.clone()))?;
        let found = match section {
            "limits" => limits.get(name).and_then(quantity::milli),
            "requests" => requests.get(name).and_then(quantity::milli),
            _ => None,
        };
        let milli = found
            .or_else(|| self.default_milli(section, name))
            .ok_or_else(|| FieldError::Resource(reference.resource.clone()))?;
        divide(milli, reference.divisor.as_ref())
    }

    fn default_milli(&self, section: &str, name: &str) -> Option<i128> {
        match (section, name) {
            ("limits", "cpu") => Some(i128::from(self.allocatable_cpu_milli)),
            ("limits", "memory") => Some(i128::from(self.allocatable_memory) * 1000),
            ("requests", "cpu" | "memory" | "ephemeral-storage") => Some(0),
            _ => None,
        }
    }

    /// A container or init container by name.
    pub fn container(&self, name: &str) -> Option<&Container> {
        let spec = self.pod.spec.as_ref()?;
        spec.containers
            .iter()
            .chain(spec.init_containers.iter().flatten())
            .find(|container| container.name == name)
    }
}

fn divide(milli: i128, divisor: Option<&Quantity>) -> Result<String, FieldError> {
    // The API server's default divisor is "0", which means 1.
    let divisor_milli = match divisor {
        None => 1000,
        Some(quantity) => match quantity::milli(quantity) {
            Some(0) => 1000,
            Some(milli) if milli > 0 => milli,
            _ => return Err(FieldError::Divisor(quantity.0.clone())),
        },
    };
    let quotient = milli.div_euclid(divisor_milli);
    let up = if milli.rem_euclid(divisor_milli) == 0 {
        quotient
    } else {
        quotient + 1
    };
    Ok(up.to_string())
}

fn subscript<'p>(path: &'p str, map: &str) -> Option<&'p str> {
    path.strip_prefix(map)?
        .strip_prefix("['")?
        .strip_suffix("']")
}

fn entry(map: Option<&BTreeMap<String, String>>, key: &str) -> String {
    map.and_then(|map| map.get(key))
        .cloned()
        .unwrap_or_default()
}

fn lines(map: Option<&BTreeMap<String, String>>) -> String {
    let lines: Vec<String> = map
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", serde_json::Value::from(value.as_str())))
        .collect();
    lines.join("\n")
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    pub(crate) fn facts(pod: &Pod) -> PodFacts<'_> {
        PodFacts {
            pod,
            identity: PodIdentity::of(pod).unwrap(),
            hostname: pod.metadata.name.clone().unwrap(),
            node_name: "n1".into(),
            host_ip: "192.0.2.1".into(),
            pod_ips: vec!["10.42.0.7".into()],
            allocatable_cpu_milli: 2000,
            allocatable_memory: 4 << 30,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn resources_divide_and_default_to_the_node() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "d", "uid": "u", "labels": {"b": "2", "a": "1\n"}},
            "spec": {"containers": [
                {"name": "c", "resources": {"limits": {"cpu": "1500m", "memory": "64Mi"}}}, {"name": "free"}]}
        }))
        .unwrap();
        let facts = testing::facts(&pod);
        let container = facts.container("c").unwrap();
        let ask = |name: &str, resource: &str, divisor: Option<&str>| {
            let reference = ResourceFieldSelector {
                container_name: Some(name.into()),
                resource: resource.into(),
                divisor: divisor.map(|text| Quantity(text.into())),
            };
            facts
                .resource(container, &reference)
                .map_err(|error| error.to_string())
        };
        assert_eq!(ask("c", "limits.cpu", None).unwrap(), "2");
        assert_eq!(ask("c", "limits.cpu", Some("1m")).unwrap(), "1500");
        assert_eq!(ask("c", "requests.memory", Some("1Mi")).unwrap(), "64");
        assert_eq!(ask("free", "limits.cpu", Some("0")).unwrap(), "2");
        assert_eq!(ask("free", "requests.cpu", None).unwrap(), "0");
        assert_eq!(
            ask("gone", "limits.cpu", None).unwrap_err(),
            "container gone not found"
        );
        assert_eq!(
            facts.file_field("metadata.labels").unwrap(),
            "a=\"1\\n\"\nb=\"2\""
        );
    }
}
