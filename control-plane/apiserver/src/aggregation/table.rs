//! Which server answers for which version of which group.

use std::sync::Arc;

use bytes::Bytes;
use hull_api::{ObjectExt, kinds::API_SERVICES};
use hull_store::prefix_range;
use hull_tls::RenewableCertificate;
use parking_lot::RwLock;
use serde_json::{Value, json};

use crate::{watch_cache::WatchCache, webhook_client::Client};

/// What a server said when it was asked last.
#[derive(Debug, Clone, Default)]
pub(crate) struct Known {
    /// It answers.
    pub available: bool,
    /// Its APIResourceList; kept while it does not answer.
    pub resources: Option<Value>,
    /// Its OpenAPI v3 document.
    pub open_api: Option<Bytes>,
}

/// One version of a group that another server answers for.
pub(crate) struct Extension {
    /// Of the APIService.
    pub name: String,
    pub group: String,
    pub version: String,
    /// `spec` of the APIService.
    pub spec: Value,
    /// How to reach it, or why not.
    pub client: Result<Client, String>,
    known: RwLock<Known>,
}

impl Extension {
    fn read(object: &Value, identity: &RenewableCertificate) -> Self {
        let spec = object.get("spec").cloned().unwrap_or_default();
        Extension {
            name: object.name().to_string(),
            group: spec.str_at("/group").to_string(),
            version: spec.str_at("/version").to_string(),
            client: Client::read_as(&spec, Some(identity)).map_err(|error| error.to_string()),
            spec,
            known: RwLock::default(),
        }
    }

    pub(crate) fn known(&self) -> Known {
        self.known.read().clone()
    }

    pub(super) fn learn(&self, known: Known) {
        *self.known.write() = known;
    }

    /// What was known of the same server before its APIService changed counts until it is asked
    /// again.
    fn inherit(&self, before: &[Arc<Extension>]) {
        let same = |old: &&Arc<Extension>| {
            old.name == self.name && old.spec.get("service") == self.spec.get("service")
        };
        if let Some(old) = before.iter().find(same) {
            self.learn(old.known());
        }
    }

    /// `/apis/GROUP/VERSION`.
    pub(crate) fn root(&self) -> String {
        format!("/apis/{}/{}", self.group, self.version)
    }

    /// Its version in aggregated discovery; `None` as long as nothing is known of it.
    pub(crate) fn discovered(&self) -> Option<Value> {
        let known = self.known();
        let resources = known.resources?;
        let all = resources.list_at("/resources");
        let kind_of = |entry: &Value| {
            let or = |pointer: &str, own: &str| match entry.str_at(pointer) {
                "" => own.to_string(),
                other => other.to_string(),
            };
            json!({"group": or("/group", &self.group), "version": or("/version", &self.version),
                "kind": entry.str_at("/kind")})
        };
        let mut entries: Vec<Value> = Vec::new();
        for resource in all.iter().filter(|one| !one.str_at("/name").contains('/')) {
            let name = resource.str_at("/name");
            let mut entry = json!({
                "resource": name,
                "responseKind": kind_of(resource),
                "scope": if resource.bool_at("/namespaced") { "Namespaced" } else { "Cluster" },
                "singularResource": resource.str_at("/singularName"),
                "verbs": resource.list_at("/verbs"),
            });
            for field in ["shortNames", "categories"] {
                if let Some(names) = resource.get(field) {
                    entry[field] = names.clone();
                }
            }
            let prefix = format!("{name}/");
            let parts: Vec<Value> = all
                .iter()
                .filter_map(|one| Some((one, one.str_at("/name").strip_prefix(&prefix)?)))
                .map(|(one, part)| {
                    json!({"subresource": part, "responseKind": kind_of(one),
                        "verbs": one.list_at("/verbs")})
                })
                .collect();
            if !parts.is_empty() {
                entry["subresources"] = Value::Array(parts);
            }
            entries.push(entry);
        }
        let freshness = if known.available { "Current" } else { "Stale" };
        Some(json!({"version": self.version, "freshness": freshness, "resources": entries}))
    }
}

/// The extensions of the moment.
pub(crate) struct Aggregation {
    identity: RenewableCertificate,
    table: RwLock<Arc<Vec<Arc<Extension>>>>,
}

impl Aggregation {
    /// `identity` is what extensions are shown.
    pub(crate) fn new(identity: RenewableCertificate) -> Self {
        Aggregation {
            identity,
            table: RwLock::default(),
        }
    }

    pub(crate) fn current(&self) -> Arc<Vec<Arc<Extension>>> {
        self.table.read().clone()
    }

    /// The extension that answers for a version of a group.
    pub(crate) fn find(&self, group: &str, version: &str) -> Option<Arc<Extension>> {
        let table = self.table.read();
        let mut all = table.iter();
        all.find(|one| one.group == group && one.version == version)
            .cloned()
    }

    /// Reads the APIServices again; what is known of those that stay is kept.
    pub(super) fn refresh(&self, cache: &WatchCache) {
        let before = self.current();
        let range = prefix_range(&API_SERVICES.prefix(""));
        let objects = cache.snapshot(API_SERVICES.storage, range).objects;
        let mut table: Vec<Arc<Extension>> = objects
            .iter()
            .map(|object| object.kept())
            .filter(|object| object.pointer("/spec/service").is_some() && !object.is_deleting())
            // What this server lives by is its own.
            .filter(|object| !["", API_SERVICES.group].contains(&object.str_at("/spec/group")))
            .map(|object| {
                let same = before
                    .iter()
                    .find(|old| old.name == object.name() && Some(&old.spec) == object.get("spec"));
                match same {
                    Some(old) => old.clone(),
                    None => {
                        let new = Extension::read(object, &self.identity);
                        new.inherit(&before);
                        Arc::new(new)
                    }
                }
            })
            .collect();
        let priority = |one: &Extension| {
            let number = |pointer: &str| one.spec.int_at(pointer).unwrap_or(0);
            (number("/groupPriorityMinimum"), number("/versionPriority"))
        };
        table.sort_by_key(|one| std::cmp::Reverse(priority(one)));
        *self.table.write() = Arc::new(table);
    }
}
