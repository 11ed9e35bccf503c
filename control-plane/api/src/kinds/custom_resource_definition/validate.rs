//! What a definition must be.

use serde_json::{Value, json};

use crate::{
    ObjectExt,
    custom::{Definition, JsonPath, check_schema},
    field::{Errors, Path},
    names,
};

const SCOPES: [&str; 2] = ["Cluster", "Namespaced"];
const STRATEGIES: [&str; 2] = ["None", "Webhook"];
const REVIEW_VERSIONS: [&str; 2] = ["v1", "v1beta1"];
const COLUMN_TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
const COLUMN_FORMATS: [&str; 9] = [
    "binary",
    "byte",
    "date",
    "date-time",
    "double",
    "float",
    "int32",
    "int64",
    "password",
];
const MAX_SELECTABLE_FIELDS: usize = 8;
const MAX_WARNING_BYTES: usize = 256;
const APPROVAL: &str = "api-approved.kubernetes.io";

/// Rules of any definition.
pub(super) fn definition(object: &Value, errors: &mut Errors) {
    let definition = Definition(object);
    let wanted = format!("{}.{}", definition.plural(), definition.group());
    if object.name() != wanted {
        errors.invalid(
            &Path::new("metadata.name"),
            object.name(),
            "must be spec.names.plural+\".\"+spec.group",
        );
    }
    let spec = Path::new("spec");
    group(object, definition.group(), &spec.child("group"), errors);
    let scope = object.str_at("/spec/scope");
    if scope.is_empty() {
        errors.required(&spec.child("scope"), "");
    } else {
        errors.check_supported(&spec.child("scope"), scope, &SCOPES);
    }
    versions(definition, &spec, errors);
    check_names(object, &spec.child("names"), errors);
    conversion(object, &spec.child("conversion"), errors);
    if definition.preserves_unknown_fields() {
        errors.invalid(
            &spec.child("preserveUnknownFields"),
            true,
            "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead",
        );
    }
    stored_versions(object, errors);
}

fn group(object: &Value, group: &str, path: &Path, errors: &mut Errors) {
    if group.is_empty() {
        errors.required(path, "");
        return;
    }
    let wrong = names::subdomain(group);
    if !wrong.is_empty() {
        errors.invalid(path, group, wrong.join(","));
    } else if !group.contains('.') {
        errors.invalid(path, group, "should be a domain with at least one dot");
    }
    let is_protected = ["k8s.io", "kubernetes.io"]
        .iter()
        .any(|owner| group == *owner || group.ends_with(&format!(".{owner}")));
    let approval = object
        .map_at("/metadata/annotations")
        .and_then(|all| all.get(APPROVAL));
    if is_protected && approval.is_none() {
        errors.required(
            &Path::new("metadata.annotations").key(APPROVAL),
            "protected groups must have approval annotation \"api-approved.kubernetes.io\", see https://github.com/kubernetes/enhancements/pull/1111",
        );
    }
}

/// A part that every version has. Kubernetes speaks of parts that are the same in every version
/// as of one part of the spec.
fn of_versions(versions: &[Value], part: &str, hoisted: &str, mut check: impl FnMut(&Value, Path)) {
    let first = versions.first().and_then(|version| version.get(part));
    if let Some(first) = first
        && versions
            .iter()
            .all(|version| version.get(part) == Some(first))
    {
        check(first, Path::new("spec").child(hoisted));
        return;
    }
    for (index, version) in versions.iter().enumerate() {
        if let Some(value) = version.get(part) {
            let path = Path::new("spec.versions").index(index).child(part);
            check(value, path);
        }
    }
}

fn versions(definition: Definition<'_>, spec: &Path, errors: &mut Errors) {
    let versions = definition.versions();
    let path = spec.child("versions");
    let mut names_seen: Vec<&str> = Vec::new();
    for (index, version) in versions.iter().enumerate() {
        let at = path.index(index);
        let name = version.str_at("/name");
        let wrong = names::label_1035(name);
        if !wrong.is_empty() {
            errors.invalid(&at.child("name"), name, wrong.join(","));
        }
        if names_seen.contains(&name) {
            errors.invalid(&path, json!(versions), "must contain unique version names");
        }
        names_seen.push(name);
        if version.pointer("/schema/openAPIV3Schema").is_none() {
            errors.required(&at.child("schema.openAPIV3Schema"), "");
        }
        deprecation(version, &at.child("deprecationWarning"), errors);
        selectable_fields(version, &at.child("selectableFields"), errors);
    }
    if versions
        .iter()
        .filter(|version| version.bool_at("/storage"))
        .count()
        != 1
    {
        errors.invalid(
            &path,
            json!(versions),
            "must have exactly one version marked as storage version",
        );
    }
    of_versions(versions, "schema", "validation", |part, path| {
        if let Some(schema) = part.get("openAPIV3Schema") {
            check_schema(schema, &path.child("openAPIV3Schema"), errors);
        }
    });
    of_versions(versions, "subresources", "subresources", |part, path| {
        if let Some(scale) = part.get("scale") {
            check_scale(scale, &path.child("scale"), errors);
        }
    });
    let columns = "additionalPrinterColumns";
    of_versions(versions, columns, columns, |part, path| {
        for (index, column) in part.as_array().into_iter().flatten().enumerate() {
            check_column(column, &path.index(index), errors);
        }
    });
}

fn deprecation(version: &Value, path: &Path, errors: &mut Errors) {
    let Some(Value::String(warning)) = version.get("deprecationWarning") else {
        return;
    };
    let mut refuse = |why: &str| errors.invalid(path, warning.as_str(), why);
    if !version.bool_at("/deprecated") {
        refuse("can only be set for deprecated versions");
    }
    if warning.len() > MAX_WARNING_BYTES {
        refuse("must be <= 256 characters long");
    }
    if warning.is_empty() {
        refuse("must not be an empty string");
    }
    if let Some((index, _)) = warning.char_indices().find(|(_, c)| c.is_control()) {
        refuse(&format!(
            "must only contain printable UTF-8 characters; non-printable character found at index {index}"
        ));
    }
}

fn selectable_fields(version: &Value, path: &Path, errors: &mut Errors) {
    let fields = version.list_at("/selectableFields");
    if fields.len() > MAX_SELECTABLE_FIELDS {
        errors.too_many(path, fields.len(), MAX_SELECTABLE_FIELDS);
    }
    let mut seen = Vec::new();
    for (index, field) in fields.iter().enumerate() {
        let at = path.index(index).child("jsonPath");
        let text = field.str_at("/jsonPath");
        if text.is_empty() {
            errors.required(&at, "");
            continue;
        }
        let parsed = JsonPath::parse(text);
        let Some(names) = parsed.as_ref().ok().and_then(JsonPath::fields) else {
            errors.invalid(
                &at,
                text,
                "is an invalid path: must be a simple path of fields",
            );
            continue;
        };
        if names.first() == Some(&"metadata") {
            errors.invalid(&at, text, "must not point to fields in metadata");
        }
        let schema = names.iter().try_fold(
            version
                .pointer("/schema/openAPIV3Schema")
                .unwrap_or(&Value::Null),
            |schema, name| schema.get("properties")?.get(*name),
        );
        match schema {
            None => errors.invalid(
                &at,
                text,
                "is an invalid path: does not refer to a valid field",
            ),
            Some(schema) if !matches!(schema.str_at("/type"), "string" | "boolean" | "integer") => {
                errors.invalid(
                    &at,
                    text,
                    "must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.",
                );
            }
            Some(_) => {}
        }
        if seen.contains(&text) {
            errors.duplicate(&at, text);
        }
        seen.push(text);
    }
}

fn simple_path(text: &str, path: &Path, under: &[&str], words: &str, errors: &mut Errors) {
    if !text.starts_with('.') {
        errors.invalid(path, text, "must be a simple json path starting with .");
    } else if !under.iter().any(|prefix| text.starts_with(prefix)) {
        errors.invalid(path, text, words);
    } else if JsonPath::parse(text).is_ok_and(|path| path.fields().is_none())
        || JsonPath::parse(text).is_err()
    {
        errors.invalid(path, text, "must be a json path in the dot notation");
    }
}

fn check_scale(scale: &Value, path: &Path, errors: &mut Errors) {
    for (field, under, words) in [
        (
            "specReplicasPath",
            ".spec.",
            "should be a json path under .spec",
        ),
        (
            "statusReplicasPath",
            ".status.",
            "should be a json path under .status",
        ),
    ] {
        match scale.get(field).and_then(Value::as_str).unwrap_or("") {
            "" => errors.required(&path.child(field), ""),
            text => simple_path(text, &path.child(field), &[under], words, errors),
        }
    }
    let selector = scale.str_at("/labelSelectorPath");
    if !selector.is_empty() {
        simple_path(
            selector,
            &path.child("labelSelectorPath"),
            &[".spec.", ".status."],
            "should be a json path under either .spec or .status",
            errors,
        );
    }
}

fn check_column(column: &Value, path: &Path, errors: &mut Errors) {
    if column.str_at("/name").is_empty() {
        errors.required(&path.child("name"), "");
    }
    let one_of = |words: &[&str]| format!("must be one of {}", words.join(","));
    match column.str_at("/type") {
        "" => errors.required(&path.child("type"), &one_of(&COLUMN_TYPES)),
        text if !COLUMN_TYPES.contains(&text) => {
            errors.invalid(&path.child("type"), text, one_of(&COLUMN_TYPES));
        }
        _ => {}
    }
    let format = column.str_at("/format");
    if !format.is_empty() && !COLUMN_FORMATS.contains(&format) {
        errors.invalid(&path.child("format"), format, one_of(&COLUMN_FORMATS));
    }
    let at = path.child("JSONPath");
    match column.str_at("/jsonPath") {
        "" => errors.required(&at, ""),
        text if !text.starts_with('.') => {
            errors.invalid(&at, text, "must be a simple json path starting with .");
        }
        text => {
            if let Err(error) = JsonPath::parse(text) {
                errors.invalid(&at, text, error.to_string());
            }
        }
    }
}

fn check_names(object: &Value, path: &Path, errors: &mut Errors) {
    let text = |field: &str| object.str_at(&format!("/spec/names/{field}"));
    for field in ["plural", "singular", "kind", "listKind"] {
        let at = path.child(field);
        let name = text(field);
        if name.is_empty() {
            errors.required(&at, "");
            continue;
        }
        let wrong = names::label_1035(&name.to_lowercase()).join(",");
        let cased = field == "kind" || field == "listKind";
        if cased && !wrong.is_empty() {
            errors.invalid(
                &at,
                name,
                format!("may have mixed case, but should otherwise match: {wrong}"),
            );
        } else if !cased {
            let wrong = names::label_1035(name).join(",");
            if !wrong.is_empty() {
                errors.invalid(&at, name, wrong);
            }
        }
    }
    if !text("kind").is_empty() && text("kind") == text("listKind") {
        errors.invalid(
            &path.child("listKind"),
            text("listKind"),
            "kind and listKind may not be the same",
        );
    }
    for field in ["shortNames", "categories"] {
        let pointer = format!("/spec/names/{field}");
        for (index, name) in Definition(object).texts(&pointer).enumerate() {
            let wrong = names::label_1035(name);
            if !wrong.is_empty() {
                errors.invalid(&path.child(field).index(index), name, wrong.join(","));
            }
        }
    }
}

fn conversion(object: &Value, path: &Path, errors: &mut Errors) {
    let strategy = object.str_at("/spec/conversion/strategy");
    if strategy.is_empty() {
        errors.required(&path.child("strategy"), "");
        return;
    }
    errors.check_supported(&path.child("strategy"), strategy, &STRATEGIES);
    let at = path.child("webhookClientConfig");
    let config = object.pointer("/spec/conversion/webhook/clientConfig");
    if strategy != "Webhook" {
        if config.is_some() {
            errors.forbidden(&at, "should not be set when strategy is not set to Webhook");
        }
        return;
    }
    match config {
        None => errors.required(&at, "required when strategy is set to Webhook"),
        Some(config) => {
            let url = config.get("url").and_then(Value::as_str);
            match (url, config.get("service")) {
                (Some(url), None) => webhook_url(url, &at.child("url"), errors),
                (None, Some(_)) => {}
                _ => errors.required(&at, "exactly one of url or service is required"),
            }
        }
    }
    let reviews = path.child("conversionReviewVersions");
    let given = object.list_at("/spec/conversion/webhook/conversionReviewVersions");
    if given.is_empty() {
        errors.required(&reviews, "");
    } else if !given
        .iter()
        .filter_map(Value::as_str)
        .any(|version| REVIEW_VERSIONS.contains(&version))
    {
        errors.invalid(
            &reviews,
            json!(given),
            "must include at least one of v1, v1beta1",
        );
    }
}

fn webhook_url(url: &str, path: &Path, errors: &mut Errors) {
    const FORM: &str = "; desired format: https://host[/path]";
    match url.strip_prefix("https://") {
        None => errors.invalid(
            path,
            url,
            format!("'https' is the only allowed URL scheme{FORM}"),
        ),
        Some(rest) => {
            if rest.is_empty() || rest.starts_with('/') {
                errors.invalid(path, "", format!("host must be specified{FORM}"));
            }
            for (part, words) in [('#', "fragments are"), ('?', "query parameters are")] {
                if rest.contains(part) {
                    errors.invalid(path, url, format!("{words} not permitted in the URL"));
                }
            }
        }
    }
}

fn stored_versions(object: &Value, errors: &mut Errors) {
    let path = Path::new("status.storedVersions");
    let known: Vec<&str> = Definition(object)
        .versions()
        .iter()
        .map(|version| version.str_at("/name"))
        .collect();
    for (index, stored) in Definition(object)
        .texts("/status/storedVersions")
        .enumerate()
    {
        if !known.contains(&stored) {
            errors.invalid(
                &path.index(index),
                stored,
                format!(
                    "missing from spec.versions; {stored} was previously a storage version, and must remain in spec.versions until a storage migration ensures no data remains persisted in {stored} and removes {stored} from status.storedVersions"
                ),
            );
        }
    }
}

/// Rules of a change: names do not change under the objects.
pub(super) fn change(new: &Value, old: &Value, errors: &mut Errors) {
    let mut immutable = vec![
        ("spec.group", "/spec/group"),
        ("spec.names.plural", "/spec/names/plural"),
    ];
    if Definition(old).is("Established") {
        immutable.push(("spec.scope", "/spec/scope"));
        immutable.push(("spec.names.kind", "/spec/names/kind"));
    }
    for (path, pointer) in immutable {
        errors.check_immutable(&Path::new(path), new.pointer(pointer), old.pointer(pointer));
    }
}
