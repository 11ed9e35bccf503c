//! StatefulSet.

use serde_json::{Value, json};

use super::{
    PLAIN, persistent_volume_claim, pod,
    workload::{self, CONTAINERS, IMAGES, TemplateRules},
};
use crate::{
    ObjectExt,
    field::{Errors, Path},
    names,
    object::{default_text, default_to},
    registry::{self, Kind, Subresource},
    table::{self, Column},
};

/// `apps/v1` StatefulSet.
pub static STATEFUL_SETS: Kind = Kind {
    group: "apps",
    kind: "StatefulSet",
    plural: "statefulsets",
    singular: "statefulset",
    short_names: &["sts"],
    categories: &["all"],
    subresources: &[Subresource::Scale, Subresource::Status],
    schema: "apps.StatefulSet",
    storage: "statefulsets",
    strategy: &Strategy,
    ..PLAIN
};

struct Strategy;

const TEMPLATE_RULES: TemplateRules = TemplateRules {
    kind: "StatefulSet",
    empty_selector: "empty selector is invalid for statefulset",
};

/// What an update may change.
const MUTABLE: [&str; 8] = [
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
    "serviceName",
];

const COLUMNS: &[Column] = &[
    table::NAME,
    table::column("Ready", "Ready pods of those wanted."),
    table::AGE,
    CONTAINERS,
    IMAGES,
];

impl registry::Strategy for Strategy {
    fn apply_defaults(&self, object: &mut Value) {
        let spec = object.map_mut(&["spec"]);
        default_text(spec, "podManagementPolicy", "OrderedReady");
        default_to(spec, "replicas", 1);
        default_to(spec, "revisionHistoryLimit", 10);
        default_text(
            object.map_mut(&["spec", "updateStrategy"]),
            "type",
            "RollingUpdate",
        );
        if object.str_at("/spec/updateStrategy/type") == "RollingUpdate" {
            let rolling = object.map_mut(&["spec", "updateStrategy", "rollingUpdate"]);
            default_to(rolling, "partition", 0);
        }
        let retention = object.map_mut(&["spec", "persistentVolumeClaimRetentionPolicy"]);
        default_text(retention, "whenDeleted", "Retain");
        default_text(retention, "whenScaled", "Retain");
        if let Some(Value::Array(claims)) = object.pointer_mut("/spec/volumeClaimTemplates") {
            for claim in claims {
                let map = claim.map_mut(&[]);
                default_text(map, "apiVersion", "v1");
                default_text(map, "kind", "PersistentVolumeClaim");
                persistent_volume_claim::default_spec(claim.map_mut(&["spec"]));
                default_text(claim.map_mut(&["status"]), "phase", "Pending");
            }
        }
        pod::default_template(object);
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        workload::validate_counts(
            object,
            "spec",
            &["replicas", "minReadySeconds", "revisionHistoryLimit"],
            errors,
        );
        workload::validate_selected_template(object, &TEMPLATE_RULES, errors);
        validate_policies(object, errors);
        let claims = Path::new("spec.volumeClaimTemplates");
        for (index, claim) in object
            .list_at("/spec/volumeClaimTemplates")
            .iter()
            .enumerate()
        {
            persistent_volume_claim::validate_spec(
                claim.get("spec").unwrap_or(&Value::Null),
                &claims.index(index).child("spec"),
                errors,
            );
        }
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut Errors) {
        let fixed = |object: &Value| {
            let mut spec = object.get("spec").cloned().unwrap_or(json!({}));
            for field in MUTABLE {
                if let Value::Object(map) = &mut spec {
                    map.remove(field);
                }
            }
            spec
        };
        if fixed(new) != fixed(old)
            || new.str_at("/spec/serviceName") != old.str_at("/spec/serviceName")
        {
            errors.forbidden(
                &Path::new("spec"),
                "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden",
            );
        }
    }

    fn validate_status_update(&self, new: &Value, old: &Value, errors: &mut Errors) {
        workload::validate_counts(
            new,
            "status",
            &[
                "replicas",
                "readyReplicas",
                "currentReplicas",
                "updatedReplicas",
                "availableReplicas",
                "observedGeneration",
                "collisionCount",
            ],
            errors,
        );
        workload::validate_collisions(new, old, errors);
        let status = Path::new("status");
        let total = new.int_at("/status/replicas").unwrap_or(0);
        for field in ["readyReplicas", "currentReplicas", "updatedReplicas"] {
            let value = new.int_at(&format!("/status/{field}")).unwrap_or(0);
            if value > total {
                errors.invalid(
                    &status.child(field),
                    value,
                    "cannot be greater than status.replicas",
                );
            }
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
        let ready = object.int_at("/status/readyReplicas").unwrap_or(0);
        let wanted = object.int_at("/spec/replicas").unwrap_or(0);
        let [containers, images, _] = workload::template_cells(object);
        vec![
            Value::from(object.name()),
            Value::from(format!("{ready}/{wanted}")),
            table::age_cell(object, now),
            containers,
            images,
        ]
    }
}

fn validate_policies(object: &Value, errors: &mut Errors) {
    let spec = Path::new("spec");
    match object.str_at("/spec/podManagementPolicy") {
        "" => errors.required(&spec.child("podManagementPolicy"), ""),
        "OrderedReady" | "Parallel" => {}
        other => errors.invalid(
            &spec.child("podManagementPolicy"),
            other,
            "must be 'OrderedReady' or 'Parallel'",
        ),
    }
    let path = spec.child("updateStrategy");
    match object.str_at("/spec/updateStrategy/type") {
        "" => errors.required(&path, ""),
        "OnDelete" => {
            if object
                .pointer("/spec/updateStrategy/rollingUpdate")
                .is_some()
            {
                errors.invalid(
                    &path.child("rollingUpdate"),
                    object
                        .pointer("/spec/updateStrategy/rollingUpdate")
                        .cloned()
                        .unwrap_or(Value::Null),
                    "only allowed for updateStrategy 'RollingUpdate'",
                );
            }
        }
        "RollingUpdate" => {
            let path = path.child("rollingUpdate");
            let rolling = object
                .pointer("/spec/updateStrategy/rollingUpdate")
                .unwrap_or(&Value::Null);
            errors.check_non_negative(&path.child("partition"), rolling.int_at("/partition"));
            let unavailable = workload::amount(rolling, "maxUnavailable", &path, errors);
            workload::check_at_most_all(rolling, "maxUnavailable", &path, errors);
            if unavailable == Some(0) {
                errors.invalid(
                    &path.child("maxUnavailable"),
                    rolling
                        .get("maxUnavailable")
                        .cloned()
                        .unwrap_or(Value::Null),
                    "cannot be 0",
                );
            }
        }
        other => errors.invalid(
            &path.child("type"),
            other,
            "must be 'RollingUpdate' or 'OnDelete'",
        ),
    }
    let path = spec.child("persistentVolumeClaimRetentionPolicy");
    for field in ["whenDeleted", "whenScaled"] {
        let value = object.str_at(&format!(
            "/spec/persistentVolumeClaimRetentionPolicy/{field}"
        ));
        errors.check_supported(&path.child(field), value, &["Delete", "Retain"]);
    }
    errors.check_non_negative(
        &spec.child("ordinals").child("start"),
        object.int_at("/spec/ordinals/start"),
    );
    let service = object.str_at("/spec/serviceName");
    if !service.is_empty() {
        for why in names::subdomain(service) {
            errors.invalid(&spec.child("serviceName"), service, why);
        }
    }
}
