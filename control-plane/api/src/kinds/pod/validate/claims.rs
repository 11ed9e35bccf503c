//! Devices that a pod claims (`spec.resourceClaims`).

use std::collections::{BTreeSet, HashSet};

use serde_json::Value;

use crate::{
    ObjectExt,
    field::{Errors, Path},
    names,
};

/// Claims that an error names: it is there once for each mistake.
const SHOWN_CLAIMS: usize = 8;

pub(super) fn validate_claims(spec: &Value, path: &Path, errors: &mut Errors) {
    let mut seen: HashSet<&str> = HashSet::new();
    for (index, claim) in spec.list_at("/resourceClaims").iter().enumerate() {
        let path = path.index(index);
        let name = claim.str_at("/name");
        if name.is_empty() {
            errors.required(&path.child("name"), "");
        } else if !seen.insert(name) {
            errors.duplicate(&path.child("name"), name);
        } else {
            for why in names::label(name) {
                errors.invalid(&path.child("name"), name, why);
            }
        }
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
pub(super) fn validate_taken(
    container: &Value,
    claims: &BTreeSet<&str>,
    path: &Path,
    errors: &mut Errors,
) {
    let mut seen: HashSet<(&str, &str)> = HashSet::new();
    for (index, taken) in container.list_at("/resources/claims").iter().enumerate() {
        let path = path.index(index);
        let (name, request) = (taken.str_at("/name"), taken.str_at("/request"));
        if name.is_empty() {
            errors.required(&path, "");
            continue;
        }
        if !seen.insert((name, request)) {
            let key = if request.is_empty() {
                name.to_string()
            } else {
                format!("{name}/{request}")
            };
            errors.duplicate(&path, key);
        }
        if !claims.contains(name) {
            let shown: Vec<&str> = claims.iter().copied().take(SHOWN_CLAIMS).collect();
            let which = match shown.as_slice() {
                [] => " which is empty".to_string(),
                some => format!(": {}", some.join(", ")),
            };
            errors.not_found_among(
                &path,
                name,
                format!("must be one of the names in pod.spec.resourceClaims{which}"),
            );
        }
    }
}
