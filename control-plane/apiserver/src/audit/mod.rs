//! Audit by policy: what was asked, by whom, and what came of it, as JSON lines in a file.
//!
//! ```text
//! request ─► Recorder ──► policy: level and stages, once the user is known
//!               │ RequestReceived, ResponseStarted (what lasts), ResponseComplete
//!               ├► queue ─► the file's thread (sink.rs)
//!               └► queue ─► batches ─► a server elsewhere (webhook.rs)
//! ```
//! Policy and events are Kubernetes' (audit.k8s.io/v1). A full queue makes requests wait: none
//! is answered whose event is lost, except when the file cannot be written, which is logged and
//! counted. The webhook's queue makes nobody wait: what it has no room for is lost, and counted.

mod body;
mod event;
mod policy;
mod sink;
mod webhook;

use std::{net::IpAddr, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, Response};
use http_body_util::BodyExt;
use parking_lot::Mutex;
use serde_json::Value;

use crate::{
    ApiBody, UserInfo, authorization,
    http::{RequestInfo, Target},
};
use event::Record;
use policy::{Decision, Subject};

pub use policy::{Level, Policy, PolicyError, Stage};
pub use sink::{AuditFile, AuditLog};
pub use webhook::{AuditWebhook, BATCH_WAIT, WebhookConfigError};

/// Where a connection comes from; an extension of its requests.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Source(pub IpAddr);

/// What is audited, and where to.
pub struct Audit {
    policy: Policy,
    log: Option<AuditLog>,
    webhook: Option<AuditWebhook>,
}

impl std::fmt::Debug for Audit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Audit").finish_non_exhaustive()
    }
}

impl Audit {
    /// By this policy, into this log.
    pub fn new(policy: Policy, log: AuditLog) -> Self {
        Self::to(policy, Some(log), None)
    }

    /// By this policy, to both, one or none of these.
    pub fn to(policy: Policy, log: Option<AuditLog>, webhook: Option<AuditWebhook>) -> Self {
        Audit {
            policy,
            log,
            webhook,
        }
    }

    async fn send(&self, event: Value) {
        if let Some(webhook) = &self.webhook {
            webhook.send(&event);
        }
        if let Some(log) = &self.log {
            log.send(event).await;
        }
    }

    /// For where nobody can wait.
    fn send_now(&self, event: Option<Value>) {
        if let (Some(webhook), Some(event)) = (&self.webhook, &event) {
            webhook.send(event);
        }
        if let Some(log) = &self.log {
            log.send_now(event);
        }
    }

    /// Begins the record of a request.
    pub(crate) fn begin<B>(
        self: &Arc<Self>,
        info: &RequestInfo,
        request: &http::Request<B>,
    ) -> Recorder {
        let source = request.extensions().get::<Source>().map(|source| source.0);
        Recorder {
            audit: self.clone(),
            state: Arc::new(Mutex::new(State {
                record: Record::new(info, request.uri(), request.headers(), source),
                decision: None,
            })),
        }
    }
}

struct State {
    record: Record,
    decision: Option<Decision>,
}

/// One request's record.
#[derive(Clone)]
pub(crate) struct Recorder {
    audit: Arc<Audit>,
    state: Arc<Mutex<State>>,
}

impl Recorder {
    /// The user is known: the policy decides.
    pub(crate) async fn authenticated(&self, info: &RequestInfo, user: &UserInfo) {
        let event = {
            let mut state = self.state.lock();
            state.record.set_user(user);
            let decision = self.audit.policy.decide(&subject(info, user));
            let event = state.record.event(&decision, Stage::RequestReceived, None);
            state.decision = Some(decision);
            event
        };
        self.send(event).await;
    }

    /// The request acts as somebody else.
    pub(crate) fn impersonates(&self, user: &UserInfo) {
        self.state.lock().record.set_impersonated(user);
    }

    /// What the authorizers say.
    pub(crate) fn authorized(&self, decision: &authorization::Decision) {
        let mut state = self.state.lock();
        state
            .record
            .set_decision(decision.allowed, &decision.reason);
    }

    /// Admission has something to say; the first value of a key stays.
    pub(crate) fn annotate(&self, key: &str, value: String) {
        self.state.lock().record.annotate(key, value);
    }

    /// The body has arrived.
    pub(crate) fn request_body(&self, headers: &HeaderMap, body: &Bytes) {
        let mut state = self.state.lock();
        let wanted = state
            .decision
            .as_ref()
            .is_some_and(|decision| decision.level >= Level::Request);
        if wanted {
            state.record.set_request_object(headers, body);
        }
    }

    /// The answer is there: it is recorded before it is sent; of one that lasts also its end.
    pub(crate) async fn answered(
        self,
        info: &RequestInfo,
        response: Response<ApiBody>,
    ) -> Response<ApiBody> {
        let code = response.status().as_u16();
        let level = {
            let mut state = self.state.lock();
            let decision = state.decision.get_or_insert_with(|| {
                let nobody = UserInfo::anonymous();
                self.audit.policy.decide(&subject(info, &nobody))
            });
            decision.level
        };
        if level == Level::None {
            return response;
        }
        if info.is_long_running() {
            self.emit(Stage::ResponseStarted, code).await;
            let (parts, inner) = response.into_parts();
            let body = body::Ending::new(inner, move || {
                let event = self.event(Stage::ResponseComplete, code);
                self.audit.send_now(event);
            });
            return Response::from_parts(parts, body.boxed_unsync());
        }
        // An extension's answer has no end that is known.
        let whole = !matches!(info.target, Target::Extension(_));
        let response = if level == Level::RequestResponse && whole {
            self.with_response_object(response).await
        } else {
            response
        };
        self.emit(Stage::ResponseComplete, code).await;
        response
    }

    async fn with_response_object(&self, response: Response<ApiBody>) -> Response<ApiBody> {
        let (parts, body) = response.into_parts();
        let bytes = match body.collect().await {
            Ok(collected) => collected.to_bytes(),
            Err(error) => {
                tracing::warn!(%error, "an answer could not be read for the audit");
                Bytes::new()
            }
        };
        let mut state = self.state.lock();
        state.record.set_response_object(&parts.headers, &bytes);
        drop(state);
        Response::from_parts(parts, crate::body::full(bytes))
    }

    fn event(&self, stage: Stage, code: u16) -> Option<Value> {
        let state = self.state.lock();
        let decision = state.decision.as_ref()?;
        state.record.event(decision, stage, Some(code))
    }

    async fn emit(&self, stage: Stage, code: u16) {
        let event = self.event(stage, code);
        self.send(event).await;
    }

    async fn send(&self, event: Option<Value>) {
        if let Some(event) = event {
            self.audit.send(event).await;
        }
    }
}

fn subject<'a>(info: &'a RequestInfo, user: &'a UserInfo) -> Subject<'a> {
    let (path, resource) = match &info.target {
        Target::Path(path) => (path.as_str(), None),
        Target::Extension(target) if target.resource.is_empty() => (target.path.as_str(), None),
        Target::Extension(target) => {
            let resource = policy::Resource {
                group: &target.group,
                plural: &target.resource,
                subresource: &target.subresource,
                namespace: &target.namespace,
                name: &target.name,
            };
            ("", Some(resource))
        }
        Target::Resource {
            kind,
            namespace,
            name,
            ..
        } => {
            let resource = policy::Resource {
                group: kind.group,
                plural: kind.plural,
                subresource: info.subresource(),
                namespace,
                name,
            };
            ("", Some(resource))
        }
    };
    Subject {
        user,
        verb: info.verb,
        path,
        resource,
    }
}
