//! One file per verb. What is common to them: the context of a request and the reading of
//! objects from bodies.

mod components;
mod create;
mod delete;
mod events_ttl;
mod eviction;
mod get;
mod list;
pub(crate) mod own_namespaces;
mod owners;
mod patch;
mod read_body;
mod reviews;
mod scale;
mod selection;
mod server_side_apply;
mod subresources;
mod token_request;
mod update;
mod watch;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Response};
use hull_api::{
    ApiError, Kind,
    custom::CustomResource,
    kinds::{self, BINDINGS},
    registry::{Keeping, Subresource},
};
use parking_lot::Mutex;
use serde_json::Value;

use crate::{
    ApiBody, JwtIssuers, UserInfo,
    admission::{dynamic::Dynamic, resource_quota::QuotaTurns},
    aggregation::Aggregation,
    audit::Recorder,
    auth::{Credentials, tokens::Tokens},
    authorization::Authorizer,
    custom_resources::{Conversions, ServedKinds},
    flow_control::FlowControl,
    http::{Accept, Query},
    metrics::Metrics,
    service_network::ServiceNetwork,
    storage::Storage,
    watch_cache::WatchCache,
};

pub(crate) use delete::{DeleteOptions, delete_admitted};
pub(crate) use events_ttl::sweep_events;

/// What handlers work with.
pub(crate) struct Backend {
    pub storage: Storage,
    pub cache: Arc<WatchCache>,
    /// The kinds of the moment.
    pub kinds: Arc<ServedKinds>,
    pub metrics: Metrics,
    pub service_network: ServiceNetwork,
    pub authorizer: Authorizer,
    pub tokens: Tokens,
    /// Whose tokens are believed besides.
    pub issuers: JwtIssuers,
    pub quota_turns: QuotaTurns,
    /// Priority and fairness.
    pub flow_control: FlowControl,
    /// Servers that extend the API.
    pub aggregation: Aggregation,
    /// Webhooks of custom resources.
    pub conversions: Conversions,
    /// Policies and webhooks.
    pub dynamic: Dynamic,
    /// Time between bookmarks on a watch that asked for them.
    pub bookmark_interval: Duration,
    /// Longest answer of a server that extends the API.
    pub extension_timeout: Duration,
    pub request_timeout: Duration,
    pub service_account_admission: bool,
}

impl Backend {
    /// What tokens are checked with.
    pub(crate) fn credentials(&self) -> Credentials<'_> {
        Credentials {
            tokens: &self.tokens,
            issuers: &self.issuers,
        }
    }
}

/// One request about a resource.
pub(crate) struct Context<'a> {
    pub backend: &'a Arc<Backend>,
    pub user: &'a UserInfo,
    pub kind: &'static Kind,
    /// What is known of the kind when it is a custom one.
    pub custom: Option<Arc<CustomResource>>,
    pub namespace: &'a str,
    pub name: &'a str,
    pub subresource: Option<Subresource>,
    /// The subresource in the path, or "": what the owners of fields are told.
    pub through: &'static str,
    pub query: &'a Query,
    pub headers: &'a HeaderMap,
    pub body: Bytes,
    pub accept: Accept,
    /// What the client is told besides the answer.
    pub warnings: &'a Mutex<Vec<String>>,
    /// The request's record in the audit.
    pub recorder: Option<&'a Recorder>,
}

/// Warnings to a client at most.
const MAX_WARNINGS: usize = 64;

impl Context<'_> {
    /// Tells the client something besides the answer.
    pub(crate) fn warn(&self, warning: String) {
        let mut warnings = self.warnings.lock();
        if warnings.len() < MAX_WARNINGS && !warnings.contains(&warning) {
            warnings.push(warning);
        }
    }

    /// Tells the client what is doubtful about an object that is valid.
    fn warn_of(&self, new: &Value, old: Option<&Value>) {
        for warning in kinds::warnings(self.kind, new, old) {
            self.warn(warning);
        }
    }

    /// Writes an annotation into the audit event; the first of a key stays.
    pub(crate) fn annotate(&self, key: &str, value: String) {
        if let Some(recorder) = self.recorder {
            recorder.annotate(key, value);
        }
    }

    /// Brings an object that a webhook changed into the form of its kind.
    pub(crate) fn complete(&self, object: &mut Value) -> Result<(), ApiError> {
        let api_version = self.kind.group_version();
        let expected = read_body::Expected::own(self, &api_version);
        expected.conform_changed(object)?;
        self.kind.strategy.apply_defaults(object);
        Ok(())
    }
}

type HandlerResult = Result<Response<ApiBody>, ApiError>;

/// Routes on verb and subresource.
pub(crate) async fn handle(verb: &str, context: Context<'_>) -> HandlerResult {
    use Subresource::{
        Approval, Binding, EphemeralContainers, Eviction, Finalize, Resize, Scale, Status, Token,
    };
    match context.kind.keeping {
        Keeping::Stored => {}
        Keeping::Computed => return components::read(verb, &context).await,
        Keeping::Answered if context.kind.plural == BINDINGS.plural => {
            return subresources::bind_named(verb, &context).await;
        }
        Keeping::Answered => return reviews::review(verb, &context).await,
    }
    match (verb, context.subresource) {
        ("get", None | Some(Status | Approval | EphemeralContainers | Resize)) => {
            get::get(&context).await
        }
        ("list", None) => list::list(&context).await,
        ("watch", None) => watch::watch(&context).await,
        ("create", None) => create::create(&context).await,
        ("update", None | Some(Status | Finalize | Approval | EphemeralContainers | Resize)) => {
            update::update(&context).await
        }
        ("patch", None | Some(Status | Approval | EphemeralContainers | Resize)) => {
            patch::patch(&context).await
        }
        ("delete", None) => delete::delete(&context).await,
        ("deletecollection", None) if context.kind.delete_collection => {
            delete::delete_collection(&context).await
        }
        ("get" | "update" | "patch", Some(Scale)) => scale::scale(verb, &context).await,
        ("create", Some(Binding)) => subresources::bind(&context).await,
        ("create", Some(Token)) => token_request::create_token(&context).await,
        ("create", Some(Eviction)) => eviction::evict(&context).await,
        _ => Err(ApiError::method_not_allowed(Some(context.kind.resource()))),
    }
}
