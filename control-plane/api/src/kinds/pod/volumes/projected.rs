//! Volumes of several sources (`projected`).

use std::collections::HashSet;

use serde_json::Value;

use super::files::{validate_downward_items, validate_key_items, validate_relative};
use crate::{
    ObjectExt,
    field::{Errors, Path},
    selector::label,
};

/// A token lives at least ten minutes and at most 2^32 seconds.
const TOKEN_MIN_S: i64 = 10 * 60;
const TOKEN_MAX_S: i64 = 1 << 32;
const CONFLICT: &str = "conflicting duplicate paths";

pub(super) fn validate(volume: &Value, path: &Path, errors: &mut Errors) {
    let mut taken: HashSet<&str> = HashSet::new();
    for (index, source) in volume.list_at("/projected/sources").iter().enumerate() {
        let at = path.child("sources").index(index);
        for kind in ["secret", "configMap"] {
            if source.get(kind).is_some() && source.str_at(&format!("/{kind}/name")).is_empty() {
                errors.required(&at.child(kind).child("name"), "");
            }
            let items = source.list_at(&format!("/{kind}/items"));
            validate_key_items(items, &at.child(kind).child("items"), errors);
        }
        let items = source.list_at("/downwardAPI/items");
        let downward = at.child("downwardAPI").child("items");
        validate_downward_items(items, &downward, errors);
        validate_token(source, path, &at, errors);
        validate_bundle(source, &at, errors);
        if source.as_object().is_some_and(|given| given.len() > 1) {
            errors.forbidden(&at, "may not specify more than 1 volume type per source");
        }
        for (shown, file) in files(source) {
            if !file.is_empty() && !taken.insert(file) {
                errors.invalid(path, shown, CONFLICT);
            }
        }
    }
}

/// The files of a source, each with what is shown of it when another has the same path.
fn files(source: &Value) -> Vec<(&str, &str)> {
    let mut all = Vec::new();
    for kind in ["secret", "configMap"] {
        let name = source.str_at(&format!("/{kind}/name"));
        let items = source.list_at(&format!("/{kind}/items")).iter();
        all.extend(items.map(|item| (name, item.str_at("/path"))));
    }
    let items = source.list_at("/downwardAPI/items").iter();
    all.extend(items.map(|item| (item.str_at("/path"), item.str_at("/path"))));
    let bundle = source.str_at("/clusterTrustBundle/path");
    all.push((bundle, bundle));
    all
}

/// `path` is the volume's, where a missing path of the token is told.
fn validate_token(source: &Value, path: &Path, at: &Path, errors: &mut Errors) {
    let Some(token) = source.get("serviceAccountToken") else {
        return;
    };
    let seconds = token.int_at("/expirationSeconds").unwrap_or(0);
    let why = match seconds {
        ..TOKEN_MIN_S => Some("may not specify a duration less than 10 minutes"),
        TOKEN_MIN_S..=TOKEN_MAX_S => None,
        _ => Some("may not specify a duration larger than 2^32 seconds"),
    };
    if let Some(why) = why {
        let path = at.child("serviceAccountToken").child("expirationSeconds");
        errors.invalid(&path, seconds, why);
    }
    match token.str_at("/path") {
        "" => errors.required(&path.child("path"), ""),
        file => validate_relative(file, &path.child("path"), errors),
    }
}

fn validate_bundle(source: &Value, at: &Path, errors: &mut Errors) {
    let Some(bundle) = source.get("clusterTrustBundle") else {
        return;
    };
    let path = at.child("clusterTrustBundle");
    let given = ["name", "signerName"].map(|field| bundle.get(field).is_some());
    match given {
        [true, true] => {
            let why = "only one of name and signerName may be used";
            errors.invalid(&path, bundle.clone(), why);
        }
        [false, false] => {
            errors.required(&path, "either name or signerName must be specified");
        }
        [true, false] => {
            if bundle.str_at("/name").is_empty() {
                errors.required(&path.child("name"), "must be a valid object name");
            }
            if let Some(selector) = bundle.get("labelSelector") {
                let why = "labelSelector must be unset if name is specified";
                errors.invalid(&path.child("labelSelector"), selector.clone(), why);
            }
        }
        [false, true] => {
            if bundle.str_at("/signerName").is_empty() {
                errors.required(&path.child("signerName"), "must be a valid signer name");
            }
            let selector = bundle.get("labelSelector");
            label::validate_object(selector, &path.child("labelSelector"), errors);
        }
    }
    match bundle.str_at("/path") {
        "" => errors.required(&path.child("path"), ""),
        file => validate_relative(file, &path.child("path"), errors),
    }
}
