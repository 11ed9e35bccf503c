//! IngressClass.

use serde_json::Value;

use super::PLAIN;
use crate::{
    ObjectExt,
    field::{Errors, Path},
    object::default_text,
    registry::{self, Kind},
    table::{self, Column},
};

/// `networking.k8s.io/v1` IngressClass.
pub static INGRESS_CLASSES: Kind = Kind {
    group: "networking.k8s.io",
    kind: "IngressClass",
    plural: "ingressclasses",
    singular: "ingressclass",
    namespaced: false,
    schema: "networking.IngressClass",
    storage: "ingressclasses",
    strategy: &Strategy,
    ..PLAIN
};

struct Strategy;

const MAX_CONTROLLER: usize = 250;

const COLUMNS: &[Column] = &[
    table::NAME,
    table::column("Controller", "Who serves ingresses of this class."),
    table::column("Parameters", "More settings for the controller."),
    table::AGE,
];

impl registry::Strategy for Strategy {
    fn apply_defaults(&self, object: &mut Value) {
        if object.pointer("/spec/parameters").is_some() {
            default_text(object.map_mut(&["spec", "parameters"]), "scope", "Cluster");
        }
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        let spec = Path::new("spec");
        let controller = object.str_at("/spec/controller");
        if controller.is_empty() {
            errors.required(&spec.child("controller"), "");
        } else if controller.len() > MAX_CONTROLLER {
            errors.too_long(&spec.child("controller"), MAX_CONTROLLER);
        } else {
            let domain = controller
                .split_once('/')
                .filter(|(_, path)| !path.is_empty());
            let why = match domain {
                Some((domain, _)) => crate::names::subdomain(domain),
                None => {
                    vec!["must be a domain-prefixed path (such as \"acme.io/foo\")".to_string()]
                }
            };
            for why in why {
                errors.invalid(&spec.child("controller"), controller, why);
            }
        }
        let Some(parameters) = object.pointer("/spec/parameters") else {
            return;
        };
        let path = spec.child("parameters");
        for field in ["kind", "name"] {
            if parameters.str_at(&format!("/{field}")).is_empty() {
                errors.required(&path.child(field), "");
            }
        }
        let scope = parameters.str_at("/scope");
        errors.check_supported(&path.child("scope"), scope, &["Cluster", "Namespace"]);
        let namespace = parameters.str_at("/namespace");
        if scope == "Namespace" && namespace.is_empty() {
            errors.required(
                &path.child("namespace"),
                "`parameters.scope` is set to 'Namespace'",
            );
        } else if scope == "Cluster" && !namespace.is_empty() {
            errors.forbidden(
                &path.child("namespace"),
                "`parameters.scope` is set to 'Cluster'",
            );
        }
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut Errors) {
        errors.check_immutable(
            &Path::new("spec.controller"),
            new.pointer("/spec/controller"),
            old.pointer("/spec/controller"),
        );
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        let parameters = match object.pointer("/spec/parameters") {
            None => "<none>".to_string(),
            Some(parameters) => {
                let group = parameters.str_at("/apiGroup");
                let dot = if group.is_empty() { "" } else { "." };
                format!(
                    "{}{dot}{group}/{}",
                    parameters.str_at("/kind"),
                    parameters.str_at("/name")
                )
            }
        };
        vec![
            Value::from(object.name()),
            Value::from(object.str_at("/spec/controller")),
            Value::from(parameters),
            table::age_cell(object, now),
        ]
    }
}
