//! Discovery, `/version` and OpenAPI, all made from the registry.

use std::{
    borrow::Cow,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use hull_api::{Kind, ObjectExt, Registry, openapi, registry::Keeping};
use serde_json::{Value, json};

use crate::{
    ApiBody,
    aggregation::Extension,
    custom_resources::Served,
    http::{json_response, text_response},
    open_api, resource_metrics,
};

/// The Kubernetes version whose API this is.
const MINOR: &str = "36";
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// Answers a discovery path; `None` when it is none.
pub(crate) fn respond(
    served: &Served,
    extensions: &[Arc<Extension>],
    path: &str,
    headers: &HeaderMap,
) -> Option<Response<ApiBody>> {
    let registry = &served.registry;
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let value = match parts.as_slice() {
        ["version"] => version(),
        ["api"] if wants_aggregated(headers) => {
            return Some(aggregated(served, &[], true, headers));
        }
        ["apis"] if wants_aggregated(headers) => {
            return Some(aggregated(served, extensions, false, headers));
        }
        ["api"] => json!({
            "kind": "APIVersions",
            "versions": ["v1"],
            "serverAddressByClientCIDRs": [],
        }),
        ["apis"] => json!({
            "kind": "APIGroupList",
            "apiVersion": "v1",
            "groups": groups(registry, extensions).iter().map(|(group, versions)| api_group(group, versions)).collect::<Vec<_>>(),
        }),
        ["apis", group] => {
            let groups = groups(registry, extensions);
            let (group, versions) = groups.iter().find(|(name, _)| name == group)?;
            let mut value = api_group(group, versions);
            value["kind"] = json!("APIGroup");
            value["apiVersion"] = json!("v1");
            value
        }
        ["api", version] => resource_list(registry, "", version)?,
        ["apis", resource_metrics::GROUP, resource_metrics::VERSION] => {
            resource_metrics::resource_list()
        }
        ["apis", group, version] => resource_list(registry, group, version)?,
        ["openapi", "v2"] => return Some(open_api::v2(served, headers)),
        ["openapi", "v3"] => {
            let hash_of = |group: &str, version: &str| open_api::hash(served, group, version);
            let mut index = openapi::index(registry, hash_of);
            for (extension, text) in described(extensions) {
                let root = extension.root();
                let url = format!("/openapi/v3{root}?hash={}", hash(&text));
                let path = root.trim_start_matches('/');
                index["paths"][path] = json!({"serverRelativeURL": url});
            }
            index
        }
        ["openapi", "v3", "api", version] => return open_api::v3(served, "", version, headers),
        ["openapi", "v3", "apis", group, version] => {
            let mut others = described(extensions);
            return match others.find(|(one, _)| one.group == *group && one.version == *version) {
                Some((_, text)) => {
                    let etag = hash(&text);
                    let response = json_response(StatusCode::OK, text);
                    Some(with_etag(response, &etag, headers))
                }
                None => open_api::v3(served, group, version, headers),
            };
        }
        [] => paths(registry),
        _ => return None,
    };
    Some(json_response(StatusCode::OK, value.to_string()))
}

/// Extensions with an OpenAPI document.
fn described(extensions: &[Arc<Extension>]) -> impl Iterator<Item = (&Extension, Bytes)> {
    let extensions = extensions.iter();
    extensions.filter_map(|one| Some((one.as_ref(), one.known().open_api?)))
}

/// Named groups.
fn groups(registry: &Registry, extensions: &[Arc<Extension>]) -> Vec<(String, Vec<String>)> {
    let mut groups: Vec<(String, Vec<String>)> = Vec::new();
    let mut add = |group: &str, version: &str| match groups.iter_mut().find(|(g, _)| g == group) {
        Some((_, versions)) if versions.iter().any(|one| one == version) => {}
        Some((_, versions)) => versions.push(version.to_string()),
        None => groups.push((group.to_string(), vec![version.to_string()])),
    };
    for (group, versions) in registry.groups() {
        for version in versions.into_iter().filter(|_| !group.is_empty()) {
            add(group, version);
        }
    }
    add(resource_metrics::GROUP, resource_metrics::VERSION);
    for extension in extensions {
        add(&extension.group, &extension.version);
    }
    groups
}

fn version() -> Value {
    json!({
        "major": "1",
        "minor": MINOR,
        "gitVersion": format!("v1.{MINOR}.0+hull.{}", env!("CARGO_PKG_VERSION")),
        "gitCommit": "",
        "gitTreeState": "",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        }),
    })
}

fn paths(registry: &Registry) -> Value {
    let mut paths = vec!["/api".to_string(), "/apis".to_string()];
    for (group, versions) in registry.groups() {
        for version in versions {
            paths.push(format!("/{}", openapi::group_path(group, version)));
        }
    }
    for path in [
        "/healthz",
        "/livez",
        "/metrics",
        "/openapi/v2",
        "/openapi/v3",
        "/readyz",
        "/version",
    ] {
        paths.push(path.to_string());
    }
    json!({ "paths": paths })
}

fn api_group(group: &str, versions: &[String]) -> Value {
    let versions: Vec<Value> = versions
        .iter()
        .map(|version| json!({"groupVersion": format!("{group}/{version}"), "version": version}))
        .collect();
    json!({"name": group, "versions": versions, "preferredVersion": versions.first()})
}

fn resource_list(registry: &Registry, group: &str, version: &str) -> Option<Value> {
    let kinds = registry.in_group(group, version);
    let first = kinds.first()?;
    let mut resources = Vec::new();
    for kind in &kinds {
        resources.push(legacy_resource(kind));
        for subresource in kind.subresources {
            let info = subresource.info();
            let mut entry = json!({
                "name": format!("{}/{}", kind.plural, info.name),
                "singularName": "",
                "namespaced": kind.namespaced,
                "kind": info.kind.map_or(kind.kind, |(_, _, name)| name),
                "verbs": info.verbs,
            });
            if let Some((group, version, _)) = info.kind
                && group != kind.group
            {
                entry["group"] = json!(group);
                entry["version"] = json!(version);
            }
            resources.push(entry);
        }
    }
    Some(json!({
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": first.group_version(),
        "resources": resources,
    }))
}

fn legacy_resource(kind: &Kind) -> Value {
    let mut entry = json!({
        "name": kind.plural,
        "singularName": kind.singular,
        "namespaced": kind.namespaced,
        "kind": kind.kind,
        "verbs": kind.verbs(),
    });
    if kind.keeping == Keeping::Stored {
        entry["storageVersionHash"] = json!(hash((kind.storage, kind.schema)));
    }
    if !kind.short_names.is_empty() {
        entry["shortNames"] = json!(kind.short_names);
    }
    if !kind.categories.is_empty() {
        entry["categories"] = json!(kind.categories);
    }
    entry
}

pub(crate) fn hash(value: impl Hash) -> String {
    // Only has to differ where the content differs: no cryptography needed.
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    format!("{:016X}", hasher.finish())
}

fn wants_aggregated(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|range| {
            let has = |part: &str| range.split(';').any(|p| p.trim() == part);
            has("as=APIGroupDiscoveryList") && has("v=v2") && has("g=apidiscovery.k8s.io")
        })
}

pub(crate) fn with_etag(
    mut response: Response<ApiBody>,
    etag: &str,
    headers: &HeaderMap,
) -> Response<ApiBody> {
    let quoted = format!("\"{etag}\"");
    let unchanged = headers
        .get(header::IF_NONE_MATCH)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.split(',').any(|tag| tag.trim() == quoted));
    if unchanged {
        // RFC 9110 §15.4.5: a cache replaces its stored headers by these, so the type stays.
        let media_type = response.headers().get(header::CONTENT_TYPE).cloned();
        response = text_response(StatusCode::NOT_MODIFIED, "");
        if let Some(media_type) = media_type {
            response
                .headers_mut()
                .insert(header::CONTENT_TYPE, media_type);
        }
    }
    if let Ok(value) = HeaderValue::from_str(&quoted) {
        response.headers_mut().insert(header::ETAG, value);
    }
    let vary = HeaderValue::from_static("Accept");
    response.headers_mut().insert(header::VARY, vary);
    response
}

fn aggregated(
    served: &Served,
    extensions: &[Arc<Extension>],
    core: bool,
    headers: &HeaderMap,
) -> Response<ApiBody> {
    let text = if extensions.is_empty() {
        let texts = served
            .aggregated
            .get_or_init(|| [true, false].map(|core| aggregated_text(&served.registry, &[], core)));
        Cow::Borrowed(&texts[usize::from(!core)])
    } else {
        // What is known of them changes without notice.
        Cow::Owned(aggregated_text(&served.registry, extensions, core))
    };
    let mut response = json_response(StatusCode::OK, text.to_string());
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(AGGREGATED));
    with_etag(response, &hash(&text), headers)
}

fn aggregated_text(registry: &Registry, extensions: &[Arc<Extension>], core: bool) -> String {
    let mut items: Vec<Value> = registry
        .groups()
        .into_iter()
        .filter(|(group, _)| group.is_empty() == core)
        .map(|(group, versions)| aggregated_group(registry, group, &versions))
        .collect();
    if !core {
        items.push(resource_metrics::aggregated_group());
    }
    for extension in extensions {
        add_version(&mut items, extension);
    }
    json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": "apidiscovery.k8s.io/v2",
        "metadata": {},
        "items": items,
    })
    .to_string()
}

/// Adds what is known of an extension, in place of what has the same name.
fn add_version(items: &mut Vec<Value>, extension: &Extension) {
    let Some(discovered) = extension.discovered() else {
        return;
    };
    let group = items
        .iter_mut()
        .find(|item| item.str_at("/metadata/name") == extension.group);
    let Some(group) = group else {
        let metadata = json!({"name": extension.group, "creationTimestamp": null});
        items.push(json!({"metadata": metadata, "versions": [discovered]}));
        return;
    };
    let mut versions = group.list_at("/versions").to_vec();
    versions.retain(|one| one.str_at("/version") != extension.version);
    versions.push(discovered);
    group["versions"] = Value::Array(versions);
}

fn aggregated_group(registry: &Registry, group: &str, versions: &[&str]) -> Value {
    let mut metadata = json!({"creationTimestamp": null});
    if !group.is_empty() {
        metadata["name"] = json!(group);
    }
    let versions: Vec<Value> = versions
        .iter()
        .map(|version| {
            let kinds = registry.in_group(group, version);
            json!({
                "version": version,
                "freshness": "Current",
                "resources": kinds.iter().map(|kind| aggregated_resource(kind)).collect::<Vec<_>>(),
            })
        })
        .collect();
    json!({"metadata": metadata, "versions": versions})
}

fn aggregated_resource(kind: &Kind) -> Value {
    let response_kind = |name: &str, group: &str, version: &str| json!({"group": group, "version": version, "kind": name});
    let mut entry = json!({
        "resource": kind.plural,
        "responseKind": response_kind(kind.kind, kind.group, kind.version),
        "scope": if kind.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": kind.singular,
        "verbs": kind.verbs(),
    });
    if !kind.short_names.is_empty() {
        entry["shortNames"] = json!(kind.short_names);
    }
    if !kind.categories.is_empty() {
        entry["categories"] = json!(kind.categories);
    }
    let subresources: Vec<Value> = kind
        .subresources
        .iter()
        .map(|subresource| {
            let info = subresource.info();
            let (group, version, name) = info.kind.unwrap_or((kind.group, kind.version, kind.kind));
            json!({
                "subresource": info.name,
                "responseKind": response_kind(name, group, version),
                "verbs": info.verbs,
            })
        })
        .collect();
    if !subresources.is_empty() {
        entry["subresources"] = Value::Array(subresources);
    }
    entry
}
