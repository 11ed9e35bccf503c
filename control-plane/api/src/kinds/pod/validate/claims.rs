//! Devices that a pod claims (`spec.resourceClaims`).

use serde_json::Value;

use crate::{
    ObjectExt,
    field::{Errors, Path},
    names,
};

pub(super) fn validate_claims(spec: &Value, path: &Path, errors: &mut Errors) {
    let mut seen: Vec<&str> = Vec::new();
    for (index, claim) in spec.list_at("/resourceClaims").iter().enumerate() {
        let path = path.index(index);
        let name = claim.str_at("/name");
        if name.is_empty() {
            errors.required(&path.child("name"), "");
        } else if seen.contains(&name) {
            errors.duplicate(&path.child("name"), name);
        } else {
            for why in names::label(name) {
                errors.invalid(&path.child("name"), name, why);
            }
        }
        seen.push(name);
        const SOURCES: [&str; 2] = ["resourceClaimName", "resourceClaimTemplateName"];
        match SOURCES.map(|source| claim.get(source).is_some()) {
            [true, true] => errors.invalid(
                &path,
                claim.clone(),
                "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified",
            ),
            [false, false] => errors.invalid(
                &path,
                claim.clone(),
                "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`",
            ),
            _ => {}
        }
        for source in SOURCES {
            if let Some(value) = claim.get(source).and_then(Value::as_str) {
                for why in names::subdomain(value) {
                    errors.invalid(&path.child(source), value, why);
                }
            }
        }
    }
}

/// What a container takes of the pod's claims has to be among them.
pub(super) fn validate_taken(container: &Value, claims: &[&str], path: &Path, errors: &mut Errors) {
    let mut seen: Vec<(&str, &str)> = Vec::new();
    for (index, taken) in container.list_at("/resources/claims").iter().enumerate() {
        let path = path.index(index);
        let (name, request) = (taken.str_at("/name"), taken.str_at("/request"));
        if name.is_empty() {
            errors.required(&path, "");
            continue;
        }
        if seen.contains(&(name, request)) {
            let key = if request.is_empty() {
                name.to_string()
            } else {
                format!("{name}/{request}")
            };
            errors.duplicate(&path, key);
        }
        seen.push((name, request));
        if !claims.contains(&name) {
            let which = match claims {
                [] => " which is empty".to_string(),
                _ => format!(": {}", claims.join(", ")),
            };
            errors.not_found_among(
                &path,
                name,
                format!("must be one of the names in pod.spec.resourceClaims{which}"),
            );
        }
    }
}
