//! RoleBinding and ClusterRoleBinding.

use serde_json::{Value, json};

use super::GROUP;
use crate::{
    ObjectExt,
    field::{Errors, Path},
    names::NameRule,
    object::default_text,
    registry,
    table::{self, Column},
};

pub(super) struct Strategy {
    pub namespaced: bool,
}

const COLUMNS: &[Column] = &[
    table::NAME,
    table::column("Role", "The role that is granted."),
    table::AGE,
    table::wide("Users", "Users it is granted to."),
    table::wide("Groups", "Groups it is granted to."),
    table::wide("ServiceAccounts", "Service accounts it is granted to."),
];

impl registry::Strategy for Strategy {
    fn name_rule(&self) -> NameRule {
        NameRule::PathSegment
    }

    fn create_on_update(&self) -> bool {
        true
    }

    fn apply_defaults(&self, object: &mut Value) {
        default_text(object.map_mut(&["roleRef"]), "apiGroup", GROUP);
        let Some(Value::Array(subjects)) = object.get_mut("subjects") else {
            return;
        };
        for subject in subjects {
            if matches!(subject.str_at("/kind"), "User" | "Group") {
                default_text(subject.map_mut(&[]), "apiGroup", GROUP);
            }
        }
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        let path = Path::new("roleRef");
        let kinds: &[&str] = if self.namespaced {
            &["Role", "ClusterRole"]
        } else {
            &["ClusterRole"]
        };
        errors.check_supported(
            &path.child("apiGroup"),
            object.str_at("/roleRef/apiGroup"),
            &[GROUP],
        );
        errors.check_supported(&path.child("kind"), object.str_at("/roleRef/kind"), kinds);
        let name = object.str_at("/roleRef/name");
        if name.is_empty() {
            errors.required(&path.child("name"), "");
        } else {
            for why in NameRule::PathSegment.check(name, false) {
                errors.invalid(&path.child("name"), name, why);
            }
        }
        for (index, subject) in object.list_at("/subjects").iter().enumerate() {
            let path = Path::new("subjects").index(index);
            validate_subject(subject, self.namespaced, &path, errors);
        }
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut Errors) {
        if new.get("roleRef") != old.get("roleRef") {
            errors.invalid(
                &Path::new("roleRef"),
                new.get("roleRef").cloned().unwrap_or(json!({})),
                "cannot change roleRef",
            );
        }
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        let of = |kind: &str| -> Value {
            let names: Vec<String> = object
                .list_at("/subjects")
                .iter()
                .filter(|subject| subject.str_at("/kind") == kind)
                .map(|subject| match subject.str_at("/namespace") {
                    "" => subject.str_at("/name").to_string(),
                    namespace => format!("{namespace}/{}", subject.str_at("/name")),
                })
                .collect();
            Value::from(names.join(", "))
        };
        let role = format!(
            "{}/{}",
            object.str_at("/roleRef/kind"),
            object.str_at("/roleRef/name")
        );
        vec![
            Value::from(object.name()),
            Value::from(role),
            table::age_cell(object, now),
            of("User"),
            of("Group"),
            of("ServiceAccount"),
        ]
    }
}

fn validate_subject(subject: &Value, namespaced: bool, path: &Path, errors: &mut Errors) {
    let name = subject.str_at("/name");
    if name.is_empty() {
        errors.required(&path.child("name"), "");
    }
    let group = subject.str_at("/apiGroup");
    match subject.str_at("/kind") {
        "ServiceAccount" => {
            for why in NameRule::Subdomain.check(name, false) {
                if !name.is_empty() {
                    errors.invalid(&path.child("name"), name, why);
                }
            }
            if !group.is_empty() {
                errors.not_supported(&path.child("apiGroup"), group, &[""]);
            }
            if !namespaced && subject.str_at("/namespace").is_empty() {
                errors.required(&path.child("namespace"), "");
            }
        }
        "User" | "Group" => errors.check_supported(&path.child("apiGroup"), group, &[GROUP]),
        kind => errors.not_supported(
            &path.child("kind"),
            kind,
            &["ServiceAccount", "User", "Group"],
        ),
    }
}
