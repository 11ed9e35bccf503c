//! Kubernetes' Event (audit.k8s.io/v1).

use std::net::IpAddr;

use bytes::Bytes;
use http::{HeaderMap, Uri, header};
use hull_api::{ObjectExt, time};
use serde_json::{Map, Value, json};

use super::policy::{Decision, Level, Stage};
use crate::{
    UserInfo,
    http::{RequestInfo, Target, value_of},
};

/// Longest user agent that is recorded, in characters.
const MAX_USER_AGENT: usize = 1024;

/// What is known of a request so far.
pub(super) struct Record {
    audit_id: String,
    request_uri: String,
    verb: &'static str,
    user: Value,
    impersonated: Option<Value>,
    source: Option<IpAddr>,
    user_agent: String,
    object: Option<Value>,
    received: jiff::Timestamp,
    request_object: Option<Value>,
    response_object: Option<Value>,
    /// What authorizers and admission said, by key.
    annotations: Map<String, Value>,
}

fn user_value(user: &UserInfo) -> Value {
    let mut value = json!({"username": user.name, "groups": user.groups});
    if !user.uid.is_empty() {
        value["uid"] = json!(user.uid);
    }
    if !user.extra.is_empty() {
        value["extra"] = json!(user.extra);
    }
    value
}

fn object_reference(info: &RequestInfo) -> Option<Value> {
    let (group, version, resource, subresource, namespace, name) = match &info.target {
        Target::Resource {
            kind,
            namespace,
            name,
            ..
        } => {
            let part = info.subresource();
            (kind.group, kind.version, kind.plural, part, namespace, name)
        }
        Target::Extension(target) if !target.resource.is_empty() => (
            target.group.as_str(),
            target.version.as_str(),
            target.resource.as_str(),
            target.subresource.as_str(),
            &target.namespace,
            &target.name,
        ),
        Target::Extension(_) | Target::Path(_) => return None,
    };
    let mut reference = Map::new();
    for (field, text) in [
        ("resource", resource),
        ("namespace", namespace.as_str()),
        ("name", name.as_str()),
        ("apiGroup", group),
        ("apiVersion", version),
        ("subresource", subresource),
    ] {
        if !text.is_empty() {
            reference.insert(field.into(), Value::from(text));
        }
    }
    Some(Value::Object(reference))
}

impl Record {
    pub(super) fn new(
        info: &RequestInfo,
        uri: &Uri,
        headers: &HeaderMap,
        source: Option<IpAddr>,
    ) -> Self {
        let agent = headers.get(header::USER_AGENT);
        let agent = agent.and_then(|agent| agent.to_str().ok()).unwrap_or("");
        Record {
            audit_id: uuid::Uuid::new_v4().to_string(),
            // Of an absolute one, as in HTTP/2, only what is asked of this server.
            request_uri: uri
                .path_and_query()
                .map_or_else(|| uri.path().to_owned(), ToString::to_string),
            verb: info.verb,
            user: json!({}),
            impersonated: None,
            source,
            user_agent: agent.chars().take(MAX_USER_AGENT).collect(),
            object: object_reference(info),
            received: jiff::Timestamp::now(),
            request_object: None,
            response_object: None,
            annotations: Map::new(),
        }
    }

    pub(super) fn set_user(&mut self, user: &UserInfo) {
        self.user = user_value(user);
    }

    pub(super) fn set_impersonated(&mut self, user: &UserInfo) {
        self.impersonated = Some(user_value(user));
    }

    pub(super) fn set_decision(&mut self, allowed: bool, reason: &str) {
        let decision = if allowed { "allow" } else { "forbid" };
        for (key, value) in [("decision", decision), ("reason", reason)] {
            self.annotate(&format!("authorization.k8s.io/{key}"), value.to_string());
        }
    }

    pub(super) fn annotate(&mut self, key: &str, value: String) {
        match self.annotations.get(key) {
            None => drop(self.annotations.insert(key.to_string(), Value::from(value))),
            Some(old) if *old != value => {
                tracing::warn!(key, "an audit annotation is not overwritten");
            }
            Some(_) => {}
        }
    }

    /// Patches too.
    pub(super) fn set_request_object(&mut self, headers: &HeaderMap, body: &Bytes) {
        self.request_object = value_of(headers, body);
    }

    pub(super) fn set_response_object(&mut self, headers: &HeaderMap, body: &Bytes) {
        self.response_object = value_of(headers, body);
    }

    /// `None`: the policy leaves this one out.
    pub(super) fn event(
        &self,
        decision: &Decision,
        stage: Stage,
        code: Option<u16>,
    ) -> Option<Value> {
        if decision.level == Level::None || decision.omit_stages.contains(&stage) {
            return None;
        }
        let mut event = json!({
            "kind": "Event",
            "apiVersion": "audit.k8s.io/v1",
            "level": format!("{:?}", decision.level),
            "auditID": self.audit_id,
            "stage": format!("{stage:?}"),
            "requestURI": self.request_uri,
            "verb": self.verb,
            "user": self.user,
            "requestReceivedTimestamp": time::to_micros(self.received),
            "stageTimestamp": time::to_micros(jiff::Timestamp::now()),
        });
        let mut set = |field: &str, value: Option<Value>| {
            if let Some(value) = value {
                event[field] = value;
            }
        };
        set("impersonatedUser", self.impersonated.clone());
        set(
            "sourceIPs",
            self.source.map(|source| json!([source.to_string()])),
        );
        let agent = (!self.user_agent.is_empty()).then(|| Value::from(self.user_agent.as_str()));
        set("userAgent", agent);
        set("objectRef", self.object.clone());
        set(
            "responseStatus",
            code.map(|code| json!({"metadata": {}, "code": code})),
        );
        let annotations = (!self.annotations.is_empty()).then(|| json!(self.annotations));
        set("annotations", annotations);
        if stage != Stage::RequestReceived {
            let kept = |object: &Option<Value>, from: Level| {
                let object = object.clone().filter(|_| decision.level >= from)?;
                Some(if decision.omit_managed_fields {
                    without_managed_fields(object)
                } else {
                    object
                })
            };
            set("requestObject", kept(&self.request_object, Level::Request));
            set(
                "responseObject",
                kept(&self.response_object, Level::RequestResponse),
            );
        }
        Some(event)
    }
}

/// Of an object, and of each of a list's.
fn without_managed_fields(mut object: Value) -> Value {
    if !object.is_object() {
        return object;
    }
    object.remove_at(&["metadata", "managedFields"]);
    if let Some(items) = object.get_mut("items").and_then(Value::as_array_mut) {
        for item in items.iter_mut().filter(|item| item.is_object()) {
            item.remove_at(&["metadata", "managedFields"]);
        }
    }
    object
}
