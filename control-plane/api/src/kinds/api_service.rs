//! APIService: who serves a version of a group.

use serde_json::{Value, json};

use super::{PLAIN, definition_condition};
use crate::{
    ObjectExt,
    field::{Errors, Path},
    names::{self, NameRule},
    object::default_to,
    registry::{self, Kind, Subresource},
    table::{self, Column},
};

/// `apiregistration.k8s.io/v1` APIService.
pub static API_SERVICES: Kind = Kind {
    group: "apiregistration.k8s.io",
    kind: "APIService",
    plural: "apiservices",
    singular: "apiservice",
    categories: &["api-extensions"],
    namespaced: false,
    subresources: &[Subresource::Status],
    schema: "apiregistration.APIService",
    storage: "apiregistration.k8s.io/apiservices",
    strategy: &Strategy,
    ..PLAIN
};

/// The condition that says whether requests can be answered.
pub const AVAILABLE: &str = "Available";

const MAX_GROUP_PRIORITY: i64 = 20_000;
const MAX_VERSION_PRIORITY: i64 = 1000;
const PORT: i64 = 443;

struct Strategy;

const COLUMNS: &[Column] = &[
    table::NAME,
    table::column("Service", "The service that serves it, or Local."),
    table::column("Available", "Whether it can be reached."),
    table::AGE,
];

/// What this server answers itself is always there.
fn note_local(object: &mut Value) {
    if object.pointer("/spec/service").is_none() {
        let words = "Local APIServices are always available";
        definition_condition(object, AVAILABLE, true, "Local", words);
    }
}

impl registry::Strategy for Strategy {
    fn name_rule(&self) -> NameRule {
        NameRule::PathSegment
    }

    fn apply_defaults(&self, object: &mut Value) {
        if let Some(Value::Object(service)) = object.pointer_mut("/spec/service") {
            default_to(service, "port", PORT);
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        object.set_at(&["status"], json!({}));
        note_local(object);
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        let status = old.get("status").cloned();
        new.set_at(&["status"], status.unwrap_or_default());
        note_local(new);
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        let spec = Path::new("spec");
        let (group, version) = (object.str_at("/spec/group"), object.str_at("/spec/version"));
        let required = format!("{version}.{group}");
        if object.name() != required {
            errors.invalid(
                &Path::new("metadata.name"),
                object.name(),
                format!("must be `spec.version+\".\"+spec.group`: {required:?}"),
            );
        }
        if group.is_empty() && version != "v1" {
            let words = "only v1 may have an empty group and it's better to be legacy kube";
            errors.required(&spec.child("group"), words);
        } else if !group.is_empty() {
            for why in names::subdomain(group) {
                errors.invalid(&spec.child("group"), group, why);
            }
        }
        for why in names::label_1035(version) {
            errors.invalid(&spec.child("version"), version, why);
        }
        for (field, most) in [
            ("groupPriorityMinimum", MAX_GROUP_PRIORITY),
            ("versionPriority", MAX_VERSION_PRIORITY),
        ] {
            let value = object.int_at(&format!("/spec/{field}")).unwrap_or(0);
            if !(1..=most).contains(&value) {
                let words = format!("must be positive and less than {most}");
                errors.invalid(&spec.child(field), value, words);
            }
        }
        service(object, &spec, errors);
    }

    fn has_status(&self) -> bool {
        true
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        let service = match object.pointer("/spec/service") {
            None => "Local".to_string(),
            Some(service) => {
                format!(
                    "{}/{}",
                    service.str_at("/namespace"),
                    service.str_at("/name")
                )
            }
        };
        let conditions = object.list_at("/status/conditions").iter();
        let available = conditions
            .filter(|one| one.str_at("/type") == AVAILABLE)
            .map(|one| match (one.str_at("/status"), one.str_at("/reason")) {
                ("True", _) => "True".to_string(),
                (status, reason) => format!("{status} ({reason})"),
            })
            .next();
        vec![
            Value::from(object.name()),
            Value::from(service),
            Value::from(available.unwrap_or_else(|| "Unknown".to_string())),
            table::age_cell(object, now),
        ]
    }
}

fn service(object: &Value, spec: &Path, errors: &mut Errors) {
    let bundle = object.str_at("/spec/caBundle");
    let insecure = object.bool_at("/spec/insecureSkipTLSVerify");
    let at_insecure = spec.child("insecureSkipTLSVerify");
    let Some(service) = object.pointer("/spec/service") else {
        if !bundle.is_empty() {
            let words = "local APIServices may not have a caBundle";
            errors.invalid(&spec.child("caBundle"), bundle, words);
        }
        if insecure {
            let words = "local APIServices may not have insecureSkipTLSVerify";
            errors.invalid(&at_insecure, true, words);
        }
        return;
    };
    for field in ["namespace", "name"] {
        if service.str_at(&format!("/{field}")).is_empty() {
            errors.required(&spec.child("service").child(field), "");
        }
    }
    if let Some(port) = service.int_at("/port")
        && let Some(why) = names::port_number(port)
    {
        let words = format!("port is not valid: {why}");
        errors.invalid(&spec.child("service").child("port"), port, words);
    }
    if insecure && !bundle.is_empty() {
        let words = "may not be true if caBundle is present";
        errors.invalid(&at_insecure, true, words);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Strategy as _;

    fn errors(object: &Value) -> Vec<String> {
        let mut errors = Errors::default();
        Strategy.validate(object, &mut errors);
        let errors = errors.into_vec();
        errors
            .iter()
            .map(|one| format!("{}: {}", one.field, one.body()))
            .collect()
    }

    #[test]
    fn the_name_is_version_and_group() {
        let mut object = json!({"metadata": {"name": "v1.a.example.com"},
            "spec": {"group": "a.example.com", "version": "v1", "groupPriorityMinimum": 100, "versionPriority": 10}});
        assert!(errors(&object).is_empty(), "{:?}", errors(&object));
        object["metadata"]["name"] = json!("a");
        object["spec"]["versionPriority"] = json!(0);
        object["spec"]["insecureSkipTLSVerify"] = json!(true);
        assert_eq!(
            errors(&object),
            [
                "metadata.name: Invalid value: \"a\": must be `spec.version+\".\"+spec.group`: \"v1.a.example.com\"",
                "spec.versionPriority: Invalid value: 0: must be positive and less than 1000",
                "spec.insecureSkipTLSVerify: Invalid value: true: local APIServices may not have insecureSkipTLSVerify",
            ]
        );
    }
}
