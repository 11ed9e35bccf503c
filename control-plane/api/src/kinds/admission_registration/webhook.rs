//! MutatingWebhookConfiguration and ValidatingWebhookConfiguration.

use serde_json::{Value, json};

use super::{FAILURE_POLICIES, MATCH_POLICIES, check_conditions, check_rules, expressions::Known};
use crate::{
    ObjectExt,
    field::{Errors, Path},
    names,
    object::{default_text, default_to},
    registry,
    table::{self, Column},
};

const TIMEOUT_SECONDS: i64 = 10;
const MAX_TIMEOUT_SECONDS: i64 = 30;
const PORT: i64 = 443;
const SIDE_EFFECTS: [&str; 2] = ["None", "NoneOnDryRun"];
const REINVOCATION: [&str; 2] = ["IfNeeded", "Never"];
const REVIEW_VERSION: &str = "v1";

const COLUMNS: &[Column] = &[
    table::NAME,
    table::number("Webhooks", "The number of webhooks."),
    table::AGE,
];

pub(super) struct Strategy {
    pub mutating: bool,
}

impl registry::Strategy for Strategy {
    fn apply_defaults(&self, object: &mut Value) {
        let webhooks = object.get_mut("webhooks").and_then(Value::as_array_mut);
        for webhook in webhooks.into_iter().flatten() {
            let map = webhook.map_mut(&[]);
            default_text(map, "failurePolicy", "Fail");
            default_text(map, "matchPolicy", "Equivalent");
            default_to(map, "namespaceSelector", json!({}));
            default_to(map, "objectSelector", json!({}));
            default_to(map, "timeoutSeconds", TIMEOUT_SECONDS);
            if self.mutating {
                default_text(map, "reinvocationPolicy", "Never");
            }
            let rules = map.get_mut("rules").and_then(Value::as_array_mut);
            for rule in rules.into_iter().flatten() {
                default_text(rule.map_mut(&[]), "scope", "*");
            }
            if let Some(Value::Object(service)) = webhook.pointer_mut("/clientConfig/service") {
                default_to(service, "port", PORT);
            }
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        object.set_at(&["metadata", "generation"], Value::from(1));
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        let generation = old.int_at("/metadata/generation").unwrap_or(0);
        let changed = i64::from(new.get("webhooks") != old.get("webhooks"));
        new.set_at(
            &["metadata", "generation"],
            Value::from(generation + changed),
        );
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        let path = Path::new("webhooks");
        let webhooks = object.list_at("/webhooks");
        for (index, webhook) in webhooks.iter().enumerate() {
            let at = path.index(index);
            self.check(webhook, &at, errors);
            let name = webhook.str_at("/name");
            if webhooks[..index]
                .iter()
                .any(|other| other.str_at("/name") == name)
            {
                errors.duplicate(&at.child("name"), name);
            }
        }
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        vec![
            Value::from(object.name()),
            Value::from(object.list_at("/webhooks").len()),
            table::age_cell(object, now),
        ]
    }
}

impl Strategy {
    fn check(&self, webhook: &Value, at: &Path, errors: &mut Errors) {
        let name = webhook.str_at("/name");
        let wrong = names::subdomain(name);
        if name.is_empty() {
            errors.required(&at.child("name"), "");
        } else if !wrong.is_empty() {
            errors.invalid(&at.child("name"), name, wrong.join(","));
        } else if name.matches('.').count() < 2 {
            errors.invalid(
                &at.child("name"),
                name,
                "should be a domain with at least three segments separated by dots",
            );
        }
        check_rules(webhook.list_at("/rules"), &at.child("rules"), errors);
        for (field, supported) in [
            ("failurePolicy", &FAILURE_POLICIES[..]),
            ("matchPolicy", &MATCH_POLICIES[..]),
            ("sideEffects", &SIDE_EFFECTS[..]),
        ] {
            match webhook.str_at(&format!("/{field}")) {
                "" => errors.required(&at.child(field), "must specify one of the supported values"),
                value => errors.check_supported(&at.child(field), value, supported),
            }
        }
        if self.mutating {
            errors.check_supported(
                &at.child("reinvocationPolicy"),
                webhook.str_at("/reinvocationPolicy"),
                &REINVOCATION,
            );
        }
        let seconds = webhook.int_at("/timeoutSeconds").unwrap_or(TIMEOUT_SECONDS);
        if !(1..=MAX_TIMEOUT_SECONDS).contains(&seconds) {
            errors.invalid(
                &at.child("timeoutSeconds"),
                seconds,
                "the timeout value must be between 1 and 30 seconds",
            );
        }
        let versions = webhook.list_at("/admissionReviewVersions");
        let path = at.child("admissionReviewVersions");
        if versions.is_empty() {
            errors.required(&path, "must specify one of v1, v1beta1");
        } else if !versions.iter().any(|version| version == REVIEW_VERSION) {
            errors.invalid(
                &path,
                json!(versions),
                "must include at least one of v1, v1beta1",
            );
        }
        let config = at.child("clientConfig");
        let url = webhook.pointer("/clientConfig/url").and_then(Value::as_str);
        match (url, webhook.pointer("/clientConfig/service")) {
            (Some(url), None) if !url.starts_with("https://") => errors.invalid(
                &config.child("url"),
                url,
                "'https' is the only allowed URL scheme; desired format: https://host[/path]",
            ),
            (Some(_), None) | (None, Some(_)) => {}
            _ => errors.required(&config, "exactly one of url or service is required"),
        }
        check_conditions(
            webhook.list_at("/matchConditions"),
            &at.child("matchConditions"),
            &Known::default(),
            errors,
        );
    }
}
