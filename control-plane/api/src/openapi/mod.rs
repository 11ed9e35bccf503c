//! The OpenAPI documents, made from the registry and the schema.
//!
//! ```text
//!  schema tables ─► schemas ─┐      with descriptions
//!                            ├─► document (v3, one per group and version) ─► v2 (one for all)
//!  registry ──────► paths ───┘                                                │
//!                                                         v2_protobuf ◄───────┘
//! ```

mod descriptions;
mod identity;
mod paths;
mod schemas;
pub mod v2;
mod v2_protobuf;

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::{
    registry::{Kind, Registry},
    schema::schema,
};

/// The index at `/openapi/v3`; `hash` makes each document's address change with its content.
pub fn index(registry: &Registry, hash: impl Fn(&str, &str) -> String) -> Value {
    let mut paths = Map::new();
    for (group, versions) in registry.groups() {
        for version in versions {
            let path = group_path(group, version);
            let url = format!("/openapi/v3/{path}?hash={}", hash(group, version));
            paths.insert(path, json!({ "serverRelativeURL": url }));
        }
    }
    json!({ "paths": paths })
}

/// `api/v1` or `apis/apps/v1`.
pub fn group_path(group: &str, version: &str) -> String {
    match group {
        "" => format!("api/{version}"),
        group => format!("apis/{group}/{version}"),
    }
}

/// The document of one group and version.
pub fn document(registry: &Registry, group: &str, version: &str) -> Option<Value> {
    let kinds = registry.in_group(group, version);
    if kinds.is_empty() {
        return None;
    }
    let (mut paths, mut lists) = (Map::new(), Map::new());
    let mut needed = BTreeSet::new();
    for name in ["meta.DeleteOptions", "meta.ListMeta", "meta.Status"] {
        needed.extend(schema().id(name));
    }
    for kind in kinds {
        needed.extend(schema().id(kind.schema));
        if let Some(custom) = kind.strategy.custom() {
            needed.extend(schema().id("meta.ObjectMeta"));
            let metadata = schemas::named("meta.ObjectMeta");
            lists.insert(schemas::own_name(kind), custom.published_schema(metadata));
        }
        for subresource in kind.subresources {
            if let Some((group, version, name)) = subresource.info().kind {
                needed.extend(schemas::type_of(group, version, name));
            }
        }
        paths::add_paths(kind, &mut paths);
        lists.insert(schemas::list_name(kind), schemas::list_schema(kind));
    }
    let mut components = schemas::components(needed);
    components.append(&mut lists);
    Some(json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": "unversioned"},
        "paths": paths,
        "components": {"schemas": components},
    }))
}

fn gvk(kind: &Kind) -> Value {
    json!({"group": kind.group, "version": kind.version, "kind": kind.kind})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reference_resolves() {
        for (group, versions) in Registry::get().groups() {
            for version in versions {
                let document = document(Registry::get(), group, version).unwrap();
                let text = document.to_string();
                for part in text.split("#/components/schemas/").skip(1) {
                    let name = part.split('"').next().unwrap();
                    assert!(
                        document["components"]["schemas"].get(name).is_some(),
                        "{name}"
                    );
                }
            }
        }
        assert!(document(Registry::get(), "no.such", "v1").is_none());
    }

    #[test]
    fn types_and_lists_are_described_as_kubernetes_does() {
        let document = document(Registry::get(), "apps", "v1").unwrap();
        let schemas = &document["components"]["schemas"];
        let rolling = &schemas["io.k8s.api.apps.v1.RollingUpdateDeployment"]["properties"];
        assert_eq!(
            rolling["maxSurge"]["allOf"][0]["$ref"],
            "#/components/schemas/io.k8s.apimachinery.pkg.util.intstr.IntOrString"
        );
        let conditions =
            &schemas["io.k8s.api.apps.v1.DeploymentStatus"]["properties"]["conditions"];
        assert_eq!(conditions["x-kubernetes-list-map-keys"], json!(["type"]));
        assert_eq!(conditions["x-kubernetes-patch-merge-key"], "type");
        let list = &schemas["io.k8s.api.apps.v1.DeploymentList"];
        assert_eq!(list["required"], json!(["items"]));
        assert_eq!(
            list["x-kubernetes-group-version-kind"],
            json!([{"group": "apps", "version": "v1", "kind": "DeploymentList"}])
        );
        let scale =
            &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}/scale"];
        assert_eq!(
            scale["put"]["x-kubernetes-group-version-kind"]["kind"],
            "Scale"
        );
    }

    #[test]
    fn types_and_fields_carry_their_descriptions() {
        let document = document(Registry::get(), "apps", "v1").unwrap();
        let schemas = &document["components"]["schemas"];
        let text = |pointer: &str| {
            let found = schemas.pointer(pointer).and_then(Value::as_str);
            found.unwrap_or_else(|| panic!("{pointer}")).to_owned()
        };
        let deployment = "/io.k8s.api.apps.v1.Deployment";
        assert!(text(&format!("{deployment}/description")).starts_with("Deployment enables"));
        let spec = text(&format!("{deployment}/properties/spec/description"));
        assert!(
            spec.starts_with("Specification of the desired behavior"),
            "{spec}"
        );
        text("/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta/properties/labels/description");
        text("/io.k8s.apimachinery.pkg.util.intstr.IntOrString/description");
    }

    #[test]
    fn patch_operations_offer_field_validation() {
        let document = document(Registry::get(), "", "v1").unwrap();
        let patch = &document["paths"]["/api/v1/namespaces/{namespace}/pods/{name}"]["patch"];
        assert_eq!(patch["x-kubernetes-group-version-kind"]["kind"], "Pod");
        assert!(
            patch["parameters"]
                .as_array()
                .unwrap()
                .iter()
                .any(|p| p["name"] == "fieldValidation")
        );
    }
}
