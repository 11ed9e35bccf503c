//! What is asked about: an `admission.k8s.io/v1` AdmissionRequest.

use hull_api::ObjectExt;
use serde_json::{Value, json};

use crate::handlers::Context;

/// What is being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Create,
    Update,
    Delete,
    /// A stream to a pod is opened.
    Connect,
}

impl Operation {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Operation::Create => "CREATE",
            Operation::Update => "UPDATE",
            Operation::Delete => "DELETE",
            Operation::Connect => "CONNECT",
        }
    }

    /// The kind of the options; a connection has none.
    fn options(self) -> Option<&'static str> {
        match self {
            Operation::Create => Some("CreateOptions"),
            Operation::Update => Some("UpdateOptions"),
            Operation::Delete => Some("DeleteOptions"),
            Operation::Connect => None,
        }
    }
}

/// One write.
#[derive(Clone, Copy)]
pub(crate) struct Attributes<'a> {
    pub context: &'a Context<'a>,
    pub operation: Operation,
    pub object: Option<&'a Value>,
    pub old: Option<&'a Value>,
    pub dry_run: bool,
}

impl<'a> Attributes<'a> {
    /// The object, or what is left of it.
    pub(super) fn any(&self) -> Option<&'a Value> {
        self.object.or(self.old)
    }

    pub(super) fn name(&self) -> &'a str {
        match self.any().map_or("", ObjectExt::name) {
            "" => self.context.name,
            name => name,
        }
    }

    pub(super) fn namespace(&self) -> &'a str {
        // A request about a collection may be about many namespaces.
        match self.any().map_or("", ObjectExt::namespace) {
            "" if self.context.kind.namespaced => self.context.namespace,
            namespace => namespace,
        }
    }

    /// `pods` or `pods/status`.
    pub(super) fn resource(&self) -> String {
        match self.context.through {
            "" => self.context.kind.plural.to_string(),
            part => format!("{}/{part}", self.context.kind.plural),
        }
    }

    /// Group, version and kind of the object: those of the resource, or of what its subresource
    /// takes.
    fn object_kind(&self) -> (&'static str, &'static str, &'static str) {
        let kind = self.context.kind;
        let part = self.context.subresource.and_then(|part| part.info().kind);
        part.unwrap_or((kind.group, kind.version, kind.kind))
    }

    /// The options of the request, as far as its parameters say them; a connection has none.
    fn options(&self) -> Value {
        let Some(kind) = self.operation.options() else {
            return Value::Null;
        };
        let mut options = json!({"kind": kind, "apiVersion": "meta.k8s.io/v1"});
        if self.dry_run {
            options["dryRun"] = json!(["All"]);
        }
        for name in ["fieldManager", "fieldValidation"] {
            let value = self.context.query.get(name);
            if !value.is_empty() && self.operation != Operation::Delete {
                options[name] = json!(value);
            }
        }
        options
    }

    /// The request without the objects.
    pub(super) fn request(&self, uid: &str) -> Value {
        let kind = self.context.kind;
        let user = self.context.user;
        let (group, version, object_kind) = self.object_kind();
        let gvk = json!({"group": group, "version": version, "kind": object_kind});
        let gvr = json!({"group": kind.group, "version": kind.version, "resource": kind.plural});
        let mut request = json!({
            "uid": uid,
            "kind": gvk,
            "resource": gvr,
            "requestKind": gvk,
            "requestResource": gvr,
            "name": self.name(),
            "operation": self.operation.as_str(),
            "userInfo": {
                "username": user.name,
                "uid": user.uid,
                "groups": user.groups,
                "extra": user.extra,
            },
            "dryRun": self.dry_run,
            "options": self.options(),
        });
        if !self.namespace().is_empty() {
            request["namespace"] = json!(self.namespace());
        }
        if !self.context.through.is_empty() {
            request["subResource"] = json!(self.context.through);
            request["requestSubResource"] = json!(self.context.through);
        }
        request
    }
}
