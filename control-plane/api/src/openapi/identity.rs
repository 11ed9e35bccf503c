//! Names of operations (`listCoreV1NamespacedPod`) and their tags (`core_v1`), from which
//! generators of clients make functions and files.

use serde_json::{Map, Value, json};

use crate::registry::Kind;

/// Names the operations of a kind at its paths.
pub(super) fn identify(kind: &Kind, paths: &mut Map<String, Value>) {
    let all = format!("/{}", kind.plural);
    for (path, item) in paths {
        let tail = path.rsplit_once(&all).map_or("", |(_, tail)| tail);
        let part = tail.strip_prefix("/{name}");
        let place = Place {
            is_namespaced: path.contains("{namespace}"),
            is_object: part.is_some(),
            part: part.unwrap_or("").trim_start_matches('/'),
        };
        let methods = item.as_object_mut().into_iter().flatten();
        for (method, operation) in methods.filter(|(_, operation)| operation.is_object()) {
            operation["operationId"] = json!(operation_id(kind, method, &place));
            operation["tags"] = json!([tag(kind)]);
        }
    }
}

/// Where an operation is.
struct Place<'p> {
    is_namespaced: bool,
    /// It is about one object.
    is_object: bool,
    /// The subresource, or "".
    part: &'p str,
}

fn operation_id(kind: &Kind, method: &str, place: &Place<'_>) -> String {
    let verb = match (method, place.is_object) {
        ("get", false) => "list",
        ("get", true) => "read",
        ("post", _) => "create",
        ("put", _) => "replace",
        (other, _) => other,
    };
    let version = capital(kind.version);
    let group = group_words(kind, capital);
    let collection = if method == "delete" && !place.is_object {
        "Collection"
    } else {
        ""
    };
    let namespaced = if place.is_namespaced {
        "Namespaced"
    } else {
        ""
    };
    let part = capital(place.part);
    let everywhere = if kind.namespaced && !place.is_namespaced {
        "ForAllNamespaces"
    } else {
        ""
    };
    let name = kind.kind;
    format!("{verb}{group}{version}{collection}{namespaced}{name}{part}{everywhere}")
}

/// `rbacAuthorization_v1`.
fn tag(kind: &Kind) -> String {
    let mut first = true;
    let group = group_words(kind, |word| {
        if std::mem::take(&mut first) {
            word.to_string()
        } else {
            capital(word)
        }
    });
    format!("{group}_{}", kind.version)
}

/// The group's words in one.
fn group_words(kind: &Kind, word: impl FnMut(&str) -> String) -> String {
    let group = match kind.group {
        "" => "core",
        group => group.strip_suffix(".k8s.io").unwrap_or(group),
    };
    group.split(['.', '-']).map(word).collect()
}

fn capital(word: &str) -> String {
    let mut letters = word.chars();
    match letters.next() {
        Some(first) => first.to_ascii_uppercase().to_string() + letters.as_str(),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{openapi::paths::add_paths, registry::Registry};

    #[test]
    fn operations_have_the_names_that_kubernetes_gives_them() {
        for (group, kind, path, method, name, tag) in [
            (
                "v1",
                "Pod",
                "/api/v1/pods",
                "get",
                "listCoreV1PodForAllNamespaces",
                "core_v1",
            ),
            (
                "v1",
                "Pod",
                "/api/v1/namespaces/{namespace}/pods/{name}/status",
                "put",
                "replaceCoreV1NamespacedPodStatus",
                "core_v1",
            ),
            (
                "v1",
                "Namespace",
                "/api/v1/namespaces",
                "post",
                "createCoreV1Namespace",
                "core_v1",
            ),
            (
                "v1",
                "Namespace",
                "/api/v1/namespaces/{name}/finalize",
                "put",
                "replaceCoreV1NamespaceFinalize",
                "core_v1",
            ),
            (
                "apps/v1",
                "Deployment",
                "/apis/apps/v1/namespaces/{namespace}/deployments",
                "delete",
                "deleteAppsV1CollectionNamespacedDeployment",
                "apps_v1",
            ),
            (
                "rbac.authorization.k8s.io/v1",
                "ClusterRole",
                "/apis/rbac.authorization.k8s.io/v1/clusterroles/{name}",
                "get",
                "readRbacAuthorizationV1ClusterRole",
                "rbacAuthorization_v1",
            ),
        ] {
            let kind = Registry::get().by_kind(group, kind).unwrap();
            let mut paths = Map::new();
            add_paths(kind, &mut paths);
            let operation = &paths[path][method];
            assert_eq!(operation["operationId"], name);
            assert_eq!(operation["tags"], json!([tag]));
        }
    }
}
