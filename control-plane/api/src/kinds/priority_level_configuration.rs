//! PriorityLevelConfiguration: how many requests of a level are served at once.

use serde_json::Value;

use super::PLAIN;
use crate::{
    ObjectExt,
    field::{Errors, Path},
    object::default_to,
    registry::{self, Kind, Subresource},
    table::{self, Column},
};

/// `flowcontrol.apiserver.k8s.io/v1` PriorityLevelConfiguration.
pub static PRIORITY_LEVEL_CONFIGURATIONS: Kind = Kind {
    group: "flowcontrol.apiserver.k8s.io",
    kind: "PriorityLevelConfiguration",
    plural: "prioritylevelconfigurations",
    singular: "prioritylevelconfiguration",
    namespaced: false,
    subresources: &[Subresource::Status],
    schema: "flowcontrol.PriorityLevelConfiguration",
    storage: "prioritylevelconfigurations",
    strategy: &Strategy,
    ..PLAIN
};

struct Strategy;

const SHARES: i64 = 30;
const QUEUES: i64 = 64;
const HAND_SIZE: i64 = 8;
const QUEUE_LENGTH: i64 = 50;
const MAX_QUEUES: i64 = 10_000_000;

const COLUMNS: &[Column] = &[
    table::NAME,
    table::column("Type", "Limited or Exempt."),
    table::column("NominalConcurrencyShares", "Its part of the server."),
    table::column("Queues", "How many queues its requests wait in."),
    table::column("HandSize", "How many of them one flow may use."),
    table::column("QueueLengthLimit", "How many requests wait in one."),
    table::AGE,
];

impl registry::Strategy for Strategy {
    fn apply_defaults(&self, object: &mut Value) {
        if object.pointer("/spec/exempt").is_some() {
            let exempt = object.map_mut(&["spec", "exempt"]);
            default_to(exempt, "nominalConcurrencyShares", 0);
            default_to(exempt, "lendablePercent", 0);
        }
        if object.pointer("/spec/limited").is_none() {
            return;
        }
        let limited = object.map_mut(&["spec", "limited"]);
        default_to(limited, "nominalConcurrencyShares", SHARES);
        default_to(limited, "lendablePercent", 0);
        let queuing = object.pointer("/spec/limited/limitResponse/queuing");
        if queuing.is_some() {
            let queuing = object.map_mut(&["spec", "limited", "limitResponse", "queuing"]);
            default_to(queuing, "queues", QUEUES);
            default_to(queuing, "handSize", HAND_SIZE);
            default_to(queuing, "queueLengthLimit", QUEUE_LENGTH);
        }
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        let spec = Path::new("spec");
        let level_type = object.str_at("/spec/type");
        errors.check_supported(&spec.child("type"), level_type, &["Exempt", "Limited"]);
        let limited = object.pointer("/spec/limited");
        match (level_type, limited) {
            ("Exempt", Some(_)) => errors.forbidden(
                &spec.child("limited"),
                "must be nil if the type is not Limited",
            ),
            ("Limited", None) => errors.required(
                &spec.child("limited"),
                "must not be empty when type is Limited",
            ),
            ("Limited", Some(limited)) => validate_limited(limited, &spec.child("limited"), errors),
            _ => {}
        }
        if level_type == "Limited" && object.pointer("/spec/exempt").is_some() {
            errors.forbidden(&spec.child("exempt"), "must be nil if the type is Limited");
        }
    }

    fn has_status(&self) -> bool {
        true
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        let number = |pointer: &str| match object.int_at(pointer) {
            Some(number) => Value::from(number.to_string()),
            None => Value::from("<none>"),
        };
        let queuing = "/spec/limited/limitResponse/queuing";
        vec![
            Value::from(object.name()),
            Value::from(object.str_at("/spec/type")),
            number("/spec/limited/nominalConcurrencyShares"),
            number(&format!("{queuing}/queues")),
            number(&format!("{queuing}/handSize")),
            number(&format!("{queuing}/queueLengthLimit")),
            table::age_cell(object, now),
        ]
    }
}

fn validate_limited(limited: &Value, path: &Path, errors: &mut Errors) {
    errors.check_non_negative(
        &path.child("nominalConcurrencyShares"),
        limited.int_at("/nominalConcurrencyShares"),
    );
    let lendable = limited.int_at("/lendablePercent").unwrap_or(0);
    if !(0..=100).contains(&lendable) {
        errors.invalid(
            &path.child("lendablePercent"),
            lendable,
            "must be between 0 and 100, inclusive",
        );
    }
    errors.check_non_negative(
        &path.child("borrowingLimitPercent"),
        limited.int_at("/borrowingLimitPercent"),
    );
    let path = path.child("limitResponse");
    let queuing = limited.pointer("/limitResponse/queuing");
    match (limited.str_at("/limitResponse/type"), queuing) {
        ("Reject", Some(_)) => errors.forbidden(
            &path.child("queuing"),
            "must be nil if limited.limitResponse.type is not Limited",
        ),
        ("Queue", None) => errors.required(
            &path.child("queuing"),
            "must not be empty if limited.limitResponse.type is Limited",
        ),
        ("Queue", Some(queuing)) => validate_queuing(queuing, &path.child("queuing"), errors),
        ("Reject", None) => {}
        ("", _) => errors.required(&path.child("type"), ""),
        (other, _) => errors.not_supported(&path.child("type"), other, &["Queue", "Reject"]),
    }
}

fn validate_queuing(queuing: &Value, path: &Path, errors: &mut Errors) {
    for field in ["queueLengthLimit", "queues", "handSize"] {
        let value = queuing.int_at(&format!("/{field}")).unwrap_or(0);
        if value <= 0 {
            errors.invalid(&path.child(field), value, "must be positive");
        }
    }
    let (queues, hand) = (
        queuing.int_at("/queues").unwrap_or(0),
        queuing.int_at("/handSize").unwrap_or(0),
    );
    if queues > MAX_QUEUES {
        errors.invalid(
            &path.child("queues"),
            queues,
            format!("must not be greater than {MAX_QUEUES}"),
        );
    }
    if hand > queues {
        errors.invalid(
            &path.child("handSize"),
            hand,
            format!("should not be greater than queues ({queues})"),
        );
    }
}
