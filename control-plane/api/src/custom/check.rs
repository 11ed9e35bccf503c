//! The rules of a schema in a CustomResourceDefinition: what Kubernetes calls structural.

use serde_json::{Map, Value, json};

use super::{
    check_lists::{list, list_type, map_type},
    node::{CompileError, Node},
    prune, validate,
};
use crate::{
    ObjectExt,
    field::{Errors, Path},
};

const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];
/// Words that Kubernetes does not support.
const UNSUPPORTED: [&str; 6] = [
    "id",
    "additionalItems",
    "patternProperties",
    "definitions",
    "dependencies",
    "$ref",
];
/// Words that stand outside of `allOf` and the like only.
const STRUCTURE: [(&str, &str); 11] = [
    ("type", "must be empty to be structural"),
    ("additionalProperties", "must be undefined to be structural"),
    ("default", "must be undefined to be structural"),
    ("title", "must be empty to be structural"),
    ("description", "must be empty to be structural"),
    ("nullable", "must be false to be structural"),
    (
        "x-kubernetes-preserve-unknown-fields",
        "must be false to be structural",
    ),
    (
        "x-kubernetes-embedded-resource",
        "must be false to be structural",
    ),
    (
        "x-kubernetes-int-or-string",
        "must be false to be structural",
    ),
    (
        "x-kubernetes-list-type",
        "must be undefined to be structural",
    ),
    ("x-kubernetes-validations", "must be empty to be structural"),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Root,
    Item,
    Field,
}

/// Checks a schema at `path`, its defaults and patterns too.
pub fn check_schema(schema: &Value, path: &Path, errors: &mut Errors) {
    let mut found = Errors::default();
    if schema.bool_at("/nullable") {
        found.forbidden(
            &Path::new(format!("{path}.nullable")),
            "nullable cannot be true at the root",
        );
    }
    structure(schema, Level::Root, path, &mut found);
    words(schema, path, true, None, &mut found);
    if found.is_empty() {
        match Node::compile_at(schema, path, &mut found) {
            Ok(node) => defaults(&node, schema, path, true, &mut found),
            Err(CompileError::TooLarge) => {
                found.invalid(path, "", CompileError::TooLarge.to_string());
            }
            Err(CompileError::Pattern { pattern, source }) => found.invalid(
                &pattern_path(schema, path, &pattern),
                pattern.as_str(),
                format!("must be a valid regular expression, but isn't: {source}"),
            ),
        }
    }
    errors.append(found);
}

/// Where a pattern is.
fn pattern_path(schema: &Value, path: &Path, pattern: &str) -> Path {
    if schema.str_at("/pattern") == pattern {
        return path.child("pattern");
    }
    let mut found = None;
    children(schema, path, |inner, at| {
        if found.is_none() && inner.to_string().contains(&json!(pattern).to_string()) {
            found = Some(pattern_path(inner, &at, pattern));
        }
    });
    found.unwrap_or_else(|| path.child("pattern"))
}

/// Every schema directly in a schema.
fn children(schema: &Value, path: &Path, mut visit: impl FnMut(&Value, Path)) {
    for (name, inner) in schema.map_at("/properties").into_iter().flatten() {
        visit(inner, path.child("properties").key(name));
    }
    for word in ["items", "additionalProperties", "not"] {
        if let Some(inner @ Value::Object(_)) = schema.get(word) {
            visit(inner, path.child(word));
        }
    }
    for word in ["allOf", "anyOf", "oneOf"] {
        for (index, inner) in list(schema, word).iter().enumerate() {
            visit(inner, path.child(word).index(index));
        }
    }
}

/// The word is there and says something.
fn says(schema: &Value, word: &str) -> bool {
    match schema.get(word) {
        None | Some(Value::Null | Value::Bool(false)) => false,
        Some(Value::String(text)) => !text.is_empty(),
        Some(Value::Array(items)) => !items.is_empty(),
        Some(_) => true,
    }
}

/// Rules of the structural part.
fn structure(schema: &Value, level: Level, path: &Path, errors: &mut Errors) {
    let value_type = schema.str_at("/type");
    let embedded = schema.bool_at("/x-kubernetes-embedded-resource");
    let preserve = schema.bool_at("/x-kubernetes-preserve-unknown-fields");
    let int_or_string = schema.bool_at("/x-kubernetes-int-or-string");
    match schema.get("items") {
        Some(items @ Value::Object(_)) => {
            structure(items, Level::Item, &path.child("items"), errors)
        }
        None if value_type == "array" => errors.required(&path.child("items"), "must be specified"),
        _ => {}
    }
    for (name, inner) in schema.map_at("/properties").into_iter().flatten() {
        let at = path.child("properties").key(name);
        structure(inner, Level::Field, &at, errors);
    }
    if let Some(additional) = schema.get("additionalProperties") {
        let at = path.child("additionalProperties");
        if level == Level::Root {
            errors.forbidden(&at, "must not be used at the root");
        }
        if embedded {
            errors.forbidden(
                &at,
                "must not be used if x-kubernetes-embedded-resource is set",
            );
        }
        if additional.is_object() {
            structure(additional, Level::Field, &at, errors);
        }
    }
    if int_or_string && preserve {
        errors.invalid(
            &path.child("x-kubernetes-preserve-unknown-fields"),
            true,
            "must be false if x-kubernetes-int-or-string is true",
        );
    }
    if int_or_string && embedded {
        errors.invalid(
            &path.child("x-kubernetes-embedded-resource"),
            true,
            "must be false if x-kubernetes-int-or-string is true",
        );
    }
    quantors(schema, schema, path, path, is_int_or_string(schema), errors);
    let at = path.child("type");
    if embedded && value_type != "object" {
        let why = "must be object if x-kubernetes-embedded-resource is true";
        if value_type.is_empty() {
            errors.required(&at, why);
        } else {
            errors.invalid(&at, value_type, why);
        }
    } else if value_type.is_empty() && !int_or_string && !preserve {
        errors.required(
            &at,
            match level {
                Level::Root => "must not be empty at the root",
                Level::Item => "must not be empty for specified array items",
                Level::Field => "must not be empty for specified object fields",
            },
        );
    }
    if level == Level::Root && !matches!(value_type, "" | "object") {
        errors.invalid(&at, value_type, "must be object at the root");
    }
    if embedded && !preserve && schema.map_at("/properties").is_none_or(Map::is_empty) {
        errors.required(
            &path.child("properties"),
            "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields",
        );
    }
    if level == Level::Root || embedded {
        resource_fields(schema, level, path, errors);
    }
}

/// `apiVersion`, `kind` and `metadata` are what they are everywhere.
fn resource_fields(schema: &Value, level: Level, path: &Path, errors: &mut Errors) {
    let properties = path.child("properties");
    for field in ["kind", "apiVersion"] {
        if let Some(inner) = schema.pointer(&format!("/properties/{field}"))
            && inner.str_at("/type") != "string"
        {
            errors.invalid(
                &properties.key(field).child("type"),
                inner.str_at("/type"),
                "must be string",
            );
        }
    }
    let Some(metadata) = schema.pointer("/properties/metadata") else {
        return;
    };
    let at = properties.key("metadata");
    if metadata.str_at("/type") != "object" {
        errors.invalid(
            &at.child("type"),
            metadata.str_at("/type"),
            "must be object",
        );
    }
    if level == Level::Root {
        let named = metadata
            .map_at("/properties")
            .into_iter()
            .flatten()
            .all(|(name, _)| matches!(name.as_str(), "name" | "generateName"));
        let others = metadata
            .as_object()
            .into_iter()
            .flatten()
            .any(|(word, _)| !matches!(word.as_str(), "type" | "properties" | "description"));
        if !named || others {
            errors.forbidden(
                &at,
                "must not specify anything other than name and generateName, but metadata is implicitly specified",
            );
        }
    }
}

/// The one pattern in which types may stand in `anyOf`.
fn is_int_or_string(schema: &Value) -> bool {
    let wanted = json!([{"type": "integer"}, {"type": "string"}]);
    schema.get("anyOf") == Some(&wanted)
}

/// Rules of what `allOf` and the like of `schema` hold; `outer` is the structure they are about.
fn quantors(
    schema: &Value,
    outer: &Value,
    path: &Path,
    outer_path: &Path,
    skip_any_of: bool,
    errors: &mut Errors,
) {
    for word in ["allOf", "anyOf", "oneOf"] {
        if word == "anyOf" && skip_any_of {
            continue;
        }
        for (index, inner) in list(schema, word).iter().enumerate() {
            let skip = word == "allOf" && index == 0 && is_int_or_string(inner);
            let at = path.child(word).index(index);
            nested(inner, Some(outer), &at, outer_path, skip, errors);
        }
    }
    if let Some(inner @ Value::Object(_)) = schema.get("not") {
        nested(
            inner,
            Some(outer),
            &path.child("not"),
            outer_path,
            false,
            errors,
        );
    }
}

fn nested(
    schema: &Value,
    outer: Option<&Value>,
    path: &Path,
    outer_path: &Path,
    skip_any_of: bool,
    errors: &mut Errors,
) {
    let Some(outer) = outer else {
        errors.required(outer_path, &format!("because it is defined in {path}"));
        return;
    };
    for (word, why) in STRUCTURE {
        if says(schema, word) {
            errors.forbidden(&path.child(word), why);
        }
    }
    quantors(schema, outer, path, outer_path, skip_any_of, errors);
    if let Some(items @ Value::Object(_)) = schema.get("items") {
        nested(
            items,
            outer.get("items").filter(|items| items.is_object()),
            &path.child("items"),
            &outer_path.child("items"),
            false,
            errors,
        );
    }
    for (name, inner) in schema.map_at("/properties").into_iter().flatten() {
        let at = path.child("properties").key(name);
        if name == "metadata" {
            errors.forbidden(&at, "must not be specified in a nested context");
        }
        let known = outer.get("properties").and_then(|all| all.get(name));
        let outer_at = outer_path.child("properties").key(name);
        nested(inner, known, &at, &outer_at, false, errors);
    }
}

/// Rules of the words of every schema.
fn words(schema: &Value, path: &Path, root: bool, no_default: Option<&str>, errors: &mut Errors) {
    let value_type = schema.str_at("/type");
    if value_type == "null" {
        errors.forbidden(
            &path.child("type"),
            "type cannot be set to null, use nullable as an alternative",
        );
    } else if !value_type.is_empty() && !TYPES.contains(&value_type) {
        errors.not_supported(&path.child("type"), value_type, &TYPES);
    }
    if let (Some(reason), true) = (no_default, schema.get("default").is_some()) {
        errors.forbidden(&path.child("default"), format!("must not be set {reason}"));
    }
    for word in UNSUPPORTED {
        if says(schema, word) {
            errors.forbidden(&path.child(word), format!("{word} is not supported"));
        }
    }
    if schema.get("items").is_some_and(Value::is_array) {
        errors.forbidden(
            &path.child("items"),
            "items must be a schema object and not an array",
        );
    }
    if schema.bool_at("/uniqueItems") {
        errors.forbidden(
            &path.child("uniqueItems"),
            "uniqueItems cannot be set to true since the runtime complexity becomes quadratic",
        );
    }
    if schema
        .map_at("/properties")
        .is_some_and(|map| !map.is_empty())
        && !matches!(
            schema.get("additionalProperties"),
            None | Some(Value::Bool(true))
        )
    {
        errors.forbidden(
            &path.child("additionalProperties"),
            "additionalProperties and properties are mutual exclusive",
        );
    }
    if schema.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(false)) {
        errors.invalid(
            &path.child("x-kubernetes-preserve-unknown-fields"),
            false,
            "must be true or undefined",
        );
    }
    map_type(schema, path, errors);
    list_type(schema, path, errors);
    children(schema, path, |inner, at| {
        let text = at.to_string();
        let reason = match text.strip_prefix(&path.to_string()) {
            Some(".properties[metadata]") if root => Some("in top-level metadata"),
            Some(".properties[apiVersion]") if root => Some("in top-level apiVersion"),
            Some(".properties[kind]") if root => Some("in top-level kind"),
            _ => no_default,
        };
        words(inner, &at, false, reason, errors);
    });
}

/// Defaults hold for their own schema, and hold nothing that would be pruned.
fn defaults(node: &Node, schema: &Value, path: &Path, root: bool, errors: &mut Errors) {
    if !node.has_defaults {
        return;
    }
    if let Some(default) = &node.default {
        let at = path.child("default");
        let mut pruned = json!({ "default": default });
        let holder = json!({"type": "object", "properties": {"default": schema}});
        if let Ok(holder) = Node::compile(&holder) {
            let unknown = match prune::prune(&holder, &mut pruned) {
                Ok(report) => !report.unknown.is_empty(),
                Err(_) => true,
            };
            if unknown {
                errors.invalid(&at, default.clone(), "must not have unknown fields");
            }
        }
        for error in validate::validate(node, default, None) {
            errors.invalid(&at, default.clone(), error.to_string());
        }
    }
    for (name, inner) in &node.properties {
        if root && matches!(name.as_str(), "apiVersion" | "kind" | "metadata") {
            continue;
        }
        if let Some(schema) = schema.get("properties").and_then(|all| all.get(name)) {
            let at = path.child("properties").key(name);
            defaults(inner, schema, &at, false, errors);
        }
    }
    if let (Some(inner), Some(schema)) = (&node.items, schema.get("items")) {
        defaults(inner, schema, &path.child("items"), false, errors);
    }
    if let (super::node::Additional::Schema(inner), Some(schema)) =
        (&node.additional, schema.get("additionalProperties"))
    {
        let at = path.child("additionalProperties");
        defaults(inner, schema, &at, false, errors);
    }
}
