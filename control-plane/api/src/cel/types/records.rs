//! The objects that policies see besides the one that is written.

use std::sync::Arc;

use super::{Record, Type};

type Field = (&'static str, Type<'static>);

fn record<const N: usize>(name: &'static str, fields: [Field; N]) -> Type<'static> {
    let fields = fields.map(|(name, field)| (name.to_string(), field));
    Type::Record(Arc::new(Record {
        name,
        fields: fields.to_vec(),
    }))
}

fn texts() -> Type<'static> {
    Type::list(Type::String)
}

impl Type<'static> {
    /// The variable `request`.
    pub fn request() -> Self {
        request()
    }

    /// The variable `namespaceObject`.
    pub fn namespace() -> Self {
        namespace()
    }
}

fn request() -> Type<'static> {
    let named = |name, last| {
        let fields = ["group", "version", last].map(|field| (field, Type::String));
        record(name, fields)
    };
    let kind = || named("kubernetes.GroupVersionKind", "kind");
    let resource = || named("kubernetes.GroupVersionResource", "resource");
    let user = record(
        "kubernetes.UserInfo",
        [
            ("username", Type::String),
            ("uid", Type::String),
            ("groups", texts()),
            ("extra", Type::map(Type::String, texts())),
        ],
    );
    record(
        "kubernetes.AdmissionRequest",
        [
            ("kind", kind()),
            ("resource", resource()),
            ("subResource", Type::String),
            ("requestKind", kind()),
            ("requestResource", resource()),
            ("requestSubResource", Type::String),
            ("name", Type::String),
            ("namespace", Type::String),
            ("operation", Type::String),
            ("userInfo", user),
            ("dryRun", Type::Bool),
            ("options", Type::Dyn),
        ],
    )
}

fn namespace() -> Type<'static> {
    let labels = || Type::map(Type::String, Type::String);
    let metadata = record(
        "kubernetes.NamespaceMetadata",
        [
            ("name", Type::String),
            ("generateName", Type::String),
            ("namespace", Type::String),
            ("labels", labels()),
            ("annotations", labels()),
            ("UID", Type::String),
            ("creationDyn", Type::Dyn),
            ("deletionGracePeriodSeconds", Type::Int),
            ("deletionDyn", Type::Dyn),
            ("generation", Type::Int),
            ("resourceVersion", Type::String),
            ("finalizers", texts()),
        ],
    );
    let condition = record(
        "kubernetes.NamespaceCondition",
        [
            ("status", Type::String),
            ("type", Type::String),
            ("lastTransitionTime", Type::Dyn),
            ("message", Type::String),
            ("reason", Type::String),
        ],
    );
    let status = record(
        "kubernetes.NamespaceStatus",
        [
            ("conditions", Type::list(condition)),
            ("phase", Type::String),
        ],
    );
    record(
        "kubernetes.Namespace",
        [
            ("metadata", metadata),
            (
                "spec",
                record("kubernetes.NamespaceSpec", [("finalizers", texts())]),
            ),
            ("status", status),
        ],
    )
}
