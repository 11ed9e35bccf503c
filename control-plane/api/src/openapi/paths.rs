//! The paths of the documents: which verbs a kind has, with their parameters and bodies.

use serde_json::{Map, Value, json};

use super::{
    group_path, gvk,
    identity::identify,
    schemas::{list_name, named, own, reference, type_name_of},
};
use crate::registry::Kind;

const PATCHES: [&str; 4] = [
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
];
/// Those of custom resources: without merge keys there is no strategic merge.
const CUSTOM_PATCHES: &[&str] = PATCHES.split_at(3).0;
const FORMATS: [&str; 3] = [
    "application/json",
    "application/vnd.kubernetes.protobuf",
    "application/yaml",
];
/// Parameters of everything that writes.
const WRITE: &[&str] = &["dryRun", "fieldManager", "fieldValidation"];
const PATCH: &[&str] = &["dryRun", "fieldManager", "fieldValidation", "force"];
const DELETE: &[&str] = &[
    "dryRun",
    "gracePeriodSeconds",
    "ignoreStoreReadErrorWithClusterBreakingPotential",
    "orphanDependents",
    "propagationPolicy",
];
const LIST: &[&str] = &[
    "allowWatchBookmarks",
    "continue",
    "fieldSelector",
    "labelSelector",
    "limit",
    "resourceVersion",
    "resourceVersionMatch",
    "sendInitialEvents",
    "timeoutSeconds",
    "watch",
];

/// What an operation takes as its body.
enum Body {
    None,
    Object(Value),
    Options,
    Patch(&'static [&'static str]),
}

fn parameter(name: &str) -> Value {
    let value_type = match name {
        "allowWatchBookmarks"
        | "force"
        | "ignoreStoreReadErrorWithClusterBreakingPotential"
        | "orphanDependents"
        | "sendInitialEvents"
        | "watch" => "boolean",
        "gracePeriodSeconds" | "limit" | "timeoutSeconds" => "integer",
        _ => "string",
    };
    json!({"name": name, "in": "query", "schema": {"type": value_type, "uniqueItems": true}})
}

fn path_parameter(name: &str) -> Value {
    json!({"name": name, "in": "path", "required": true,
        "schema": {"type": "string", "uniqueItems": true}})
}

fn content(media: &[&str], schema: &Value) -> Value {
    media
        .iter()
        .map(|media| ((*media).to_string(), json!({ "schema": schema })))
        .collect::<Map<_, _>>()
        .into()
}

/// One verb at one path.
struct Operation<'a> {
    action: &'a str,
    codes: &'a [&'a str],
    parameters: &'a [&'a str],
    body: Body,
    answer: Value,
    /// Group, version and kind, as `x-kubernetes-group-version-kind` has them.
    about: Value,
}

impl Operation<'_> {
    fn render(self) -> Value {
        let responses: Map<String, Value> = self
            .codes
            .iter()
            .map(|code| {
                let words = match *code {
                    "201" => "Created",
                    "202" => "Accepted",
                    _ => "OK",
                };
                let response =
                    json!({"description": words, "content": content(&FORMATS, &self.answer)});
                ((*code).to_string(), response)
            })
            .collect();
        let mut out = json!({
            "parameters": self.parameters.iter().map(|name| parameter(name)).collect::<Vec<_>>(),
            "responses": responses,
            "x-kubernetes-action": self.action,
            "x-kubernetes-group-version-kind": self.about,
        });
        match self.body {
            Body::None => {}
            Body::Object(schema) => {
                out["requestBody"] =
                    json!({"required": true, "content": content(&["*/*"], &schema)});
            }
            Body::Options => {
                let schema = named("meta.DeleteOptions");
                out["requestBody"] = json!({"content": content(&["*/*"], &schema)});
            }
            Body::Patch(media) => {
                let schema = json!({"$ref": reference(super::schemas::PATCH)});
                out["requestBody"] = json!({"required": true, "content": content(media, &schema)});
            }
        }
        out
    }
}

/// The operations on one object, or on a part of it.
fn object_operations(
    kind: &Kind,
    verbs: &[&str],
    schema: &Value,
    about: &Value,
) -> Map<String, Value> {
    let patches = match kind.strategy.custom() {
        Some(_) => CUSTOM_PATCHES,
        None => &PATCHES,
    };
    let mut out = Map::new();
    for verb in verbs {
        let (method, operation) = match *verb {
            "get" => ("get", ("get", &["200"][..], &[][..], Body::None)),
            "update" => (
                "put",
                (
                    "put",
                    &["200", "201"][..],
                    WRITE,
                    Body::Object(schema.clone()),
                ),
            ),
            "patch" => (
                "patch",
                ("patch", &["200", "201"][..], PATCH, Body::Patch(patches)),
            ),
            "create" => (
                "post",
                (
                    "post",
                    &["200", "201", "202"][..],
                    WRITE,
                    Body::Object(schema.clone()),
                ),
            ),
            _ => continue,
        };
        let (action, codes, parameters, body) = operation;
        let operation = Operation {
            action,
            codes,
            parameters,
            body,
            answer: schema.clone(),
            about: about.clone(),
        };
        out.insert(method.to_string(), operation.render());
    }
    out
}

/// Adds the paths of a kind.
pub(super) fn add_paths(kind: &Kind, paths: &mut Map<String, Value>) {
    let mut own = paths_of(kind);
    identify(kind, &mut own);
    paths.extend(own);
}

fn paths_of(kind: &Kind) -> Map<String, Value> {
    let mut paths = Map::new();
    let base = format!("/{}", group_path(kind.group, kind.version));
    let scope = if kind.namespaced {
        "/namespaces/{namespace}"
    } else {
        ""
    };
    let collection = format!("{base}{scope}/{}", kind.plural);
    let schema = own(kind);
    let about = gvk(kind);
    let mut in_path = Vec::new();
    if kind.namespaced {
        in_path.push(path_parameter("namespace"));
    }
    let list = Operation {
        action: "list",
        codes: &["200"],
        parameters: LIST,
        body: Body::None,
        answer: json!({"$ref": reference(&list_name(kind))}),
        about: about.clone(),
    }
    .render();
    let verbs = kind.verbs();
    let has = |verb: &str| verbs.contains(&verb);
    let of = |wanted: &[&'static str]| -> Vec<&'static str> {
        wanted.iter().copied().filter(|verb| has(verb)).collect()
    };
    let status = named("meta.Status");
    let mut on_collection = object_operations(kind, &of(&["create"]), &schema, &about);
    on_collection.insert("parameters".into(), json!(in_path));
    if has("list") {
        on_collection.insert("get".into(), list.clone());
    }
    if has("deletecollection") {
        let parameters: Vec<&str> = DELETE.iter().chain(LIST).copied().collect();
        let operation = Operation {
            action: "deletecollection",
            codes: &["200"],
            parameters: &parameters[..],
            body: Body::Options,
            answer: status.clone(),
            about: about.clone(),
        };
        on_collection.insert("delete".into(), operation.render());
    }
    if kind.namespaced && has("list") {
        paths.insert(format!("{base}/{}", kind.plural), json!({ "get": list }));
    }
    in_path.insert(0, path_parameter("name"));
    let of_object = of(&["get", "update", "patch"]);
    let mut on_object = object_operations(kind, &of_object, &schema, &about);
    on_object.insert("parameters".into(), json!(in_path));
    if has("delete") {
        let answer = if kind.strategy.returns_deleted() {
            schema.clone()
        } else {
            status
        };
        let delete = Operation {
            action: "delete",
            codes: &["200", "202"],
            parameters: DELETE,
            body: Body::Options,
            answer,
            about: about.clone(),
        };
        on_object.insert("delete".into(), delete.render());
    }
    for subresource in kind.subresources {
        let info = subresource.info();
        let (schema, about) = match info.kind {
            None => (schema.clone(), about.clone()),
            Some((group, version, name)) => {
                // Streams (exec, attach) have options in their query, no objects.
                let Some(type_name) = type_name_of(group, version, name) else {
                    continue;
                };
                let about = json!({"group": group, "version": version, "kind": name});
                (json!({"$ref": reference(&type_name)}), about)
            }
        };
        let mut operations = object_operations(kind, info.verbs, &schema, &about);
        operations.insert("parameters".into(), json!(in_path));
        let path = format!("{collection}/{{name}}/{}", info.name);
        paths.insert(path, Value::Object(operations));
    }
    if has("get") {
        paths.insert(format!("{collection}/{{name}}"), Value::Object(on_object));
    }
    paths.insert(collection, Value::Object(on_collection));
    paths
}
