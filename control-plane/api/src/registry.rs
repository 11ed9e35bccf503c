//! The table of served kinds. Everything that depends on a kind reads it here.

use std::{
    borrow::Cow,
    sync::{Arc, LazyLock},
};

use serde_json::Value;

use crate::{
    ObjectExt, custom::CustomResource, field::Errors, kinds, names::NameRule, status::ResourceName,
    table::Column,
};

/// A part of an object with its own path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subresource {
    /// `status`: what was observed.
    Status,
    /// `scale`: the number of replicas.
    Scale,
    /// `binding`: the scheduler's decision.
    Binding,
    /// `eviction`: a polite delete.
    Eviction,
    /// `finalize`: removal of `spec.finalizers` of a namespace.
    Finalize,
    /// `log` of a container.
    Log,
    /// `exec` in a container.
    Exec,
    /// `attach` to a container.
    Attach,
    /// `portforward` to a pod.
    PortForward,
    /// `ephemeralcontainers`: containers added to a running pod.
    EphemeralContainers,
    /// `resize`: other resources for running containers.
    Resize,
    /// `approval` of a request for a certificate.
    Approval,
    /// `token` of a service account.
    Token,
    /// `proxy` of a pod: HTTP to it.
    PodProxy,
    /// `proxy` of a service: HTTP to one of its pods.
    ServiceProxy,
    /// `proxy` of a node: HTTP to it.
    NodeProxy,
}

/// How a subresource appears in discovery.
#[derive(Debug, Clone, Copy)]
pub struct SubresourceInfo {
    /// The path segment.
    pub name: &'static str,
    /// Verbs.
    pub verbs: &'static [&'static str],
    /// Group, version and kind of its objects; `None`: those of the parent.
    pub kind: Option<(&'static str, &'static str, &'static str)>,
}

impl Subresource {
    /// Every subresource.
    pub const ALL: [Subresource; 16] = [
        Subresource::Status,
        Subresource::Scale,
        Subresource::Binding,
        Subresource::Eviction,
        Subresource::Finalize,
        Subresource::Log,
        Subresource::Exec,
        Subresource::Attach,
        Subresource::PortForward,
        Subresource::EphemeralContainers,
        Subresource::Resize,
        Subresource::Approval,
        Subresource::Token,
        Subresource::PodProxy,
        Subresource::ServiceProxy,
        Subresource::NodeProxy,
    ];

    /// What discovery says.
    pub fn info(self) -> SubresourceInfo {
        const EDIT: &[&str] = &["get", "patch", "update"];
        const CREATE: &[&str] = &["create"];
        const STREAM: &[&str] = &["create", "get"];
        const PROXY: &[&str] = &["create", "delete", "get", "patch", "update"];
        let (name, verbs, kind) = match self {
            Subresource::Status => ("status", EDIT, None),
            Subresource::Scale => ("scale", EDIT, Some(("autoscaling", "v1", "Scale"))),
            Subresource::Binding => ("binding", CREATE, Some(("", "v1", "Binding"))),
            Subresource::Eviction => ("eviction", CREATE, Some(("policy", "v1", "Eviction"))),
            Subresource::Finalize => ("finalize", &["update"][..], None),
            Subresource::Log => ("log", &["get"][..], None),
            Subresource::Exec => ("exec", STREAM, Some(("", "v1", "PodExecOptions"))),
            Subresource::Attach => ("attach", STREAM, Some(("", "v1", "PodAttachOptions"))),
            Subresource::Token => (
                "token",
                CREATE,
                Some(("authentication.k8s.io", "v1", "TokenRequest")),
            ),
            Subresource::PortForward => (
                "portforward",
                STREAM,
                Some(("", "v1", "PodPortForwardOptions")),
            ),
            Subresource::EphemeralContainers => ("ephemeralcontainers", EDIT, None),
            Subresource::Resize => ("resize", EDIT, None),
            Subresource::Approval => ("approval", EDIT, None),
            Subresource::PodProxy => ("proxy", PROXY, Some(("", "v1", "PodProxyOptions"))),
            Subresource::ServiceProxy => ("proxy", PROXY, Some(("", "v1", "ServiceProxyOptions"))),
            Subresource::NodeProxy => ("proxy", PROXY, Some(("", "v1", "NodeProxyOptions"))),
        };
        SubresourceInfo { name, verbs, kind }
    }

    /// `proxy` of whatever kind.
    pub fn is_proxy(self) -> bool {
        matches!(
            self,
            Subresource::PodProxy | Subresource::ServiceProxy | Subresource::NodeProxy
        )
    }
}

/// A served kind.
pub struct Kind {
    /// API group, "" for core.
    pub group: &'static str,
    /// Version.
    pub version: &'static str,
    /// Kind, e.g. `Pod`.
    pub kind: &'static str,
    /// Resource, e.g. `pods`.
    pub plural: &'static str,
    /// e.g. `pod`.
    pub singular: &'static str,
    /// e.g. `po`.
    pub short_names: &'static [&'static str],
    /// e.g. `all`.
    pub categories: &'static [&'static str],
    /// Objects live in namespaces.
    pub namespaced: bool,
    /// Many can be deleted in one request.
    pub delete_collection: bool,
    /// Its subresources.
    pub subresources: &'static [Subresource],
    /// Its type in [`crate::schema`].
    pub schema: &'static str,
    /// Path segment under `/registry/` in the store.
    pub storage: &'static str,
    /// Changes an object as stored to this version; `None`: it is stored as served.
    pub conversion: Option<Conversion>,
    /// What becomes of its objects.
    pub keeping: Keeping,
    /// What whoever uses it is told, in Kubernetes' words, when it is deprecated.
    pub deprecated: Option<&'static str>,
    /// The rules of the kind.
    pub strategy: &'static dyn Strategy,
}

/// What becomes of a kind's objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keeping {
    /// They are stored.
    Stored,
    /// They are questions or orders: created, answered and forgotten.
    Answered,
    /// They are made when somebody reads them.
    Computed,
}

/// Two kinds that share their storage.
#[derive(Clone, Copy)]
pub struct Conversion {
    /// From the stored to the served form.
    pub from_storage: fn(Value) -> Value,
    /// From the served to the stored form.
    pub to_storage: fn(Value) -> Value,
}

impl std::fmt::Debug for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}, Kind={}", self.group_version(), self.kind)
    }
}

impl Kind {
    /// `v1` or `apps/v1`.
    pub fn group_version(&self) -> String {
        match self.group {
            "" => self.version.to_string(),
            group => format!("{group}/{}", self.version),
        }
    }

    /// For errors.
    pub fn resource(&self) -> ResourceName<'static> {
        ResourceName {
            group: self.group,
            resource: self.plural,
        }
    }

    /// The kind of its lists.
    pub fn list_kind(&self) -> String {
        match self.strategy.custom() {
            Some(custom) => custom.list_kind.clone(),
            None => format!("{}List", self.kind),
        }
    }

    /// What is stored is what is served.
    pub fn is_served_as_stored(&self) -> bool {
        self.conversion.is_none() && self.strategy.custom().is_none()
    }

    /// A stored object in this version.
    pub fn to_served(&self, object: Value) -> Value {
        match (self.conversion, self.strategy.custom()) {
            (Some(conversion), _) => (conversion.from_storage)(object),
            (None, Some(custom)) => custom.served(object),
            (None, None) => object,
        }
    }

    /// An object of this version as it is stored.
    pub fn to_storage(&self, object: Value) -> Value {
        match (self.conversion, self.strategy.custom()) {
            (Some(conversion), _) => (conversion.to_storage)(object),
            (None, Some(custom)) => custom.stored(object),
            (None, None) => object,
        }
    }

    /// Verbs of the resource itself, sorted.
    pub fn verbs(&self) -> &'static [&'static str] {
        const ALL: &[&str] = &[
            "create",
            "delete",
            "deletecollection",
            "get",
            "list",
            "patch",
            "update",
            "watch",
        ];
        const WITHOUT_COLLECTION: &[&str] = &[
            "create", "delete", "get", "list", "patch", "update", "watch",
        ];
        match self.keeping {
            Keeping::Answered => &["create"],
            Keeping::Computed => &["get", "list"],
            Keeping::Stored if self.delete_collection => ALL,
            Keeping::Stored => WITHOUT_COLLECTION,
        }
    }

    /// A subresource by its path segment.
    pub fn subresource(&self, name: &str) -> Option<Subresource> {
        self.subresources
            .iter()
            .copied()
            .find(|subresource| subresource.info().name == name)
    }

    /// Prefix of the keys of all objects, or of those in one namespace.
    pub fn prefix(&self, namespace: &str) -> String {
        match namespace {
            "" => format!("/registry/{}/", self.storage),
            namespace => format!("/registry/{}/{namespace}/", self.storage),
        }
    }

    /// The key of one object.
    pub fn key(&self, namespace: &str, name: &str) -> String {
        format!(
            "{}{name}",
            self.prefix(if self.namespaced { namespace } else { "" })
        )
    }

    /// A field selector may ask about this field.
    pub fn is_selectable(&self, field: &str) -> bool {
        field == "metadata.name"
            || (self.namespaced && field == "metadata.namespace")
            || self.strategy.is_selectable(field)
    }

    /// The value that a field selector compares with.
    pub fn field_value<'a>(&self, object: &'a Value, field: &str) -> Option<Cow<'a, str>> {
        if let Some(value) = self.strategy.field_value(object, field) {
            return Some(value);
        }
        let pointer = format!("/{}", field.replace('.', "/"));
        match object.pointer(&pointer) {
            Some(Value::String(text)) => Some(Cow::from(text.as_str())),
            Some(Value::Bool(value)) => Some(Cow::from(if *value { "true" } else { "false" })),
            Some(Value::Number(number)) => Some(Cow::from(number.to_string())),
            _ => None,
        }
    }
}

/// What differs between kinds. Every rule has a default that fits a plain kind.
pub trait Strategy: Send + Sync {
    /// What is known about a custom resource; `None`: the kind is built in.
    fn custom(&self) -> Option<Arc<CustomResource>> {
        None
    }

    /// How objects are named.
    fn name_rule(&self) -> NameRule {
        NameRule::Subdomain
    }

    /// Fills in the version's defaults, on every write.
    fn apply_defaults(&self, _object: &mut Value) {}

    /// Sets what a client may not set: status, generation.
    fn prepare_create(&self, object: &mut Value) {
        if self.has_status() {
            object.set_at(&["status"], Value::Object(serde_json::Map::new()));
        }
        if self.has_generation() {
            object.set_at(&["metadata", "generation"], Value::from(1));
        }
    }

    /// Takes over what an update may not change: status.
    fn prepare_update(&self, new: &mut Value, old: &Value) {
        if self.has_status() {
            let status = old.get("status").cloned();
            new.set_at(&["status"], status.unwrap_or_default());
        }
        if self.has_generation() {
            crate::meta::bump_generation(new, old);
        }
    }

    /// Takes over everything that an update of `status` may not change.
    fn prepare_status_update(&self, new: &mut Value, old: &Value) {
        let status = new.get("status").cloned();
        let metadata = new.get("metadata").cloned();
        *new = old.clone();
        if let Value::Object(map) = new {
            match status {
                Some(status) => map.insert("status".to_string(), status),
                None => map.remove("status"),
            };
            if let Some(metadata) = metadata {
                map.insert("metadata".to_string(), metadata);
            }
        }
    }

    /// Takes over everything that an update through another part of the object (`resize`,
    /// `approval` …) may not change.
    fn prepare_part_update(&self, _part: Subresource, new: &mut Value, old: &Value) {
        *new = old.clone();
    }

    /// Rules of a change through such a part.
    fn validate_part_update(
        &self,
        _part: Subresource,
        _new: &Value,
        _old: &Value,
        _errors: &mut Errors,
    ) {
    }

    /// Rules of a new object.
    fn validate(&self, _object: &Value, _errors: &mut Errors) {}

    /// Rules of a change. [`Strategy::validate`] runs before it.
    fn validate_update(&self, _new: &Value, _old: &Value, _errors: &mut Errors) {}

    /// Every rule of an object that takes another's place.
    fn validate_change(&self, new: &Value, old: &Value, errors: &mut Errors) {
        self.validate(new, errors);
        self.validate_update(new, old, errors);
    }

    /// Rules of a new status.
    fn validate_status_update(&self, _new: &Value, _old: &Value, _errors: &mut Errors) {}

    /// The status is written through its own subresource only.
    fn has_status(&self) -> bool {
        false
    }

    /// `metadata.generation` counts changes of the spec.
    fn has_generation(&self) -> bool {
        false
    }

    /// A PUT of a name that does not exist creates it.
    fn create_on_update(&self) -> bool {
        false
    }

    /// Seconds between the request to delete and the removal; 0 removes at once.
    fn grace_period(&self, _object: &Value, _asked: Option<i64>) -> i64 {
        0
    }

    /// The deleted object is the answer, rather than a Status.
    fn returns_deleted(&self) -> bool {
        false
    }

    /// Finalizers outside of the metadata (namespaces) still hold the object.
    fn held_by_spec(&self, _object: &Value) -> bool {
        false
    }

    /// Called before it is decided whether a delete removes the object or marks it.
    fn on_deletion_asked(&self, _object: &mut Value) {}

    /// Called when the deletion timestamp is set.
    fn on_deletion_marked(&self, _object: &mut Value) {}

    /// Fields besides name and namespace that field selectors know.
    fn selectable_fields(&self) -> &'static [&'static str] {
        &[]
    }

    /// A field selector may ask about this field.
    fn is_selectable(&self, field: &str) -> bool {
        self.selectable_fields().contains(&field)
    }

    /// The value of a field that is not simply read at its path.
    fn field_value<'a>(&self, _object: &'a Value, _field: &str) -> Option<Cow<'a, str>> {
        None
    }

    /// kubectl's columns.
    fn columns(&self) -> &'static [Column] {
        crate::table::NAME_AND_AGE
    }

    /// The columns as the head of a table has them.
    fn column_definitions(&self) -> Value {
        self.columns()
            .iter()
            .map(crate::table::definition)
            .collect()
    }

    /// An object's cells, one per column.
    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        vec![
            Value::from(object.name()),
            crate::table::age_cell(object, now),
        ]
    }
}

/// All served kinds.
#[derive(Debug)]
pub struct Registry {
    kinds: Vec<&'static Kind>,
}

static REGISTRY: LazyLock<Registry> = LazyLock::new(|| Registry {
    kinds: kinds::ALL.to_vec(),
});

impl Registry {
    /// The compiled-in registry.
    pub fn get() -> &'static Registry {
        &REGISTRY
    }

    /// The compiled-in kinds, and after them custom ones. A custom kind does not take the place
    /// of a compiled-in one.
    pub fn with_custom(custom: impl IntoIterator<Item = &'static Kind>) -> Registry {
        let mut kinds = kinds::ALL.to_vec();
        for kind in custom {
            let taken = |other: &&Kind| {
                other.plural == kind.plural
                    && other.group == kind.group
                    && other.version == kind.version
            };
            if !kinds.iter().any(taken) {
                kinds.push(kind);
            }
        }
        Registry { kinds }
    }

    /// In the order of discovery.
    pub fn kinds(&self) -> &[&'static Kind] {
        &self.kinds
    }

    /// A kind by its resource.
    pub fn by_resource(&self, group: &str, version: &str, plural: &str) -> Option<&'static Kind> {
        self.kinds
            .iter()
            .copied()
            .find(|k| k.plural == plural && k.group == group && k.version == version)
    }

    /// A kind by its name.
    pub fn by_kind(&self, api_version: &str, kind: &str) -> Option<&'static Kind> {
        self.kinds
            .iter()
            .copied()
            .find(|k| k.kind == kind && k.group_version() == api_version)
    }

    /// Groups with their versions, core ("") first, in the order of discovery.
    pub fn groups(&self) -> Vec<(&'static str, Vec<&'static str>)> {
        let mut groups: Vec<(&'static str, Vec<&'static str>)> = Vec::new();
        for kind in &self.kinds {
            match groups.iter_mut().find(|(group, _)| *group == kind.group) {
                Some((_, versions)) => {
                    if !versions.contains(&kind.version) {
                        versions.push(kind.version);
                    }
                }
                None => groups.push((kind.group, vec![kind.version])),
            }
        }
        groups
    }

    /// The kinds of a group's version.
    pub fn in_group(&self, group: &str, version: &str) -> Vec<&'static Kind> {
        self.kinds
            .iter()
            .copied()
            .filter(|k| k.group == group && k.version == version)
            .collect()
    }
}
