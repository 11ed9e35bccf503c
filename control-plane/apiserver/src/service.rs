//! The one way into the server, for requests from a socket and from within the process.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context as TaskContext, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use hull_api::{ApiError, selector::FieldSelector, status::Reason};
use hyper::upgrade::OnUpgrade;
use parking_lot::Mutex;
use rustls::ClientConfig;
use tokio::sync::oneshot;

use crate::{
    ApiBody, UserInfo,
    aggregation::{self, Forwarded},
    audit::{Audit, Recorder},
    auth::{self, tokens::Tokens},
    authorization, body,
    connect::{self, Connection},
    custom_resources::Served,
    discovery,
    flow_control::Admitted,
    handlers::{self, Backend, Context, own_namespaces},
    health,
    http::{
        Accept, Encoding, ExtensionTarget, RequestInfo, Streamed, Target, accepts_gzip,
        add_warning, compress, error_response, error_response_as, json_response, prefers_protobuf,
        text_response,
    },
    resource_metrics::{ResourceMetrics, Wanted},
    timeout::in_time,
};

/// What every request needs.
pub(crate) struct Shared {
    pub backend: Arc<Backend>,
    pub node_tls: Arc<ClientConfig>,
    pub resource_metrics: ResourceMetrics,
    pub audit: Option<Arc<Audit>>,
}

/// The server as a tower service, for one user. Cheap to clone.
#[derive(Clone)]
pub struct LocalService {
    shared: Arc<Shared>,
    user: Arc<UserInfo>,
}

impl LocalService {
    pub(crate) fn new(shared: Arc<Shared>, user: UserInfo) -> Self {
        LocalService {
            shared,
            user: Arc::new(user),
        }
    }
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

impl<B> tower::Service<Request<B>> for LocalService
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<ApiBody>;
    type Error = std::convert::Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (shared, user) = (self.shared.clone(), self.user.clone());
        Box::pin(async move { Ok(serve(&shared, &user, request).await) })
    }
}

/// Answers one request.
pub(crate) async fn serve<B>(
    shared: &Shared,
    user: &UserInfo,
    request: Request<B>,
) -> Response<ApiBody>
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let started = Instant::now();
    let metrics = &shared.backend.metrics;
    let served = shared.backend.kinds.current();
    let (method, uri) = (request.method(), request.uri());
    let extension = ExtensionTarget::parse(uri.path()).filter(|target| {
        let aggregation = &shared.backend.aggregation;
        aggregation.find(&target.group, &target.version).is_some()
    });
    let parsed = match extension {
        Some(target) => RequestInfo::of_extension(target, method, uri),
        None => RequestInfo::parse(&served.registry, method, uri),
    };
    let info = match parsed {
        Ok(info) => info,
        Err(error) => {
            metrics.request_done("", ("", "", ""), error.code(), None);
            return error_response(&error);
        }
    };
    let path = request.uri().path().to_string();
    let gzip = accepts_gzip(request.headers());
    let error_encoding = if prefers_protobuf(request.headers()) {
        Encoding::Protobuf
    } else {
        Encoding::Json
    };
    let long = info.is_long_running();
    let recorder = shared
        .audit
        .as_ref()
        .map(|audit| audit.begin(&info, &request));
    let guard = (!long).then(|| metrics.request_started());
    let mut admitted = None;
    let warnings = Mutex::default();
    let incoming = Incoming {
        info: &info,
        recorder: recorder.as_ref(),
        admitted: &mut admitted,
        warnings: &warnings,
    };
    let answered = answer(shared, &served, user, incoming, request);
    let outcome = if long {
        answered.await
    } else {
        in_time(&info, shared.backend.request_timeout, answered).await
    };
    let mut response = match outcome {
        Ok(response) => response,
        Err(error) => error_response_as(&error, error_encoding),
    };
    for warning in warnings.into_inner() {
        add_warning(response.headers_mut(), &warning);
    }
    if let Some(admitted) = &admitted {
        admitted.tell(response.headers_mut());
    }
    let response = match recorder {
        Some(recorder) => recorder.answered(&info, response).await,
        None => response,
    };
    let response = if gzip && !long {
        compress(response).await
    } else {
        response
    };
    drop(guard);
    let response = match admitted {
        Some(seat) if response.extensions().get::<Streamed>().is_some() => {
            response.map(|body| keep_seat(body, seat, shared.backend.request_timeout))
        }
        _ => response,
    };
    let (group, resource) = match &info.target {
        Target::Resource { kind, .. } => (kind.group, kind.plural),
        // The group is an APIService's; the resource is whatever the client wrote.
        Target::Extension(target) => (target.group.as_str(), ""),
        Target::Path(_) => ("", ""),
    };
    let elapsed = started.elapsed();
    let code = response.status().as_u16();
    metrics.request_done(
        info.verb,
        (group, resource, info.subresource()),
        code,
        (!long).then_some(elapsed),
    );
    tracing::debug!(
        verb = info.verb,
        path,
        user = user.name,
        code,
        elapsed_us = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX),
        "request"
    );
    response
}

/// An answer that is written while it is sent keeps its seat meanwhile, but no longer than a
/// request may take: who does not read must not keep others out.
fn keep_seat(body: ApiBody, seat: Admitted, most: Duration) -> ApiBody {
    let (over, sent) = oneshot::channel::<()>();
    tokio::spawn(async move {
        // An error too says that the body is gone.
        let _ = tokio::time::timeout(most, sent).await;
        drop(seat);
    });
    body.map_frame(move |frame| {
        let _alive = &over;
        frame
    })
    .boxed_unsync()
}

/// What goes with a request while it is answered.
struct Incoming<'a> {
    info: &'a RequestInfo,
    recorder: Option<&'a Recorder>,
    /// Its seat, kept until the answer is there.
    admitted: &'a mut Option<Admitted>,
    /// What the client is told beside the answer, be that an error.
    warnings: &'a Mutex<Vec<String>>,
}

async fn answer<B>(
    shared: &Shared,
    served: &Served,
    user: &UserInfo,
    incoming: Incoming<'_>,
    request: Request<B>,
) -> Result<Response<ApiBody>, ApiError>
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let Incoming {
        info,
        recorder,
        admitted,
        warnings,
    } = incoming;
    let (mut parts, request_body) = request.into_parts();
    let authorizer = &shared.backend.authorizer;
    let (bearer, impersonated);
    let user = if user.is_anonymous() {
        bearer = auth::bearer_user(shared.backend.credentials(), &parts.headers).await?;
        bearer.as_ref().unwrap_or(user)
    } else {
        user
    };
    if let Some(recorder) = recorder {
        recorder.authenticated(info, user).await;
    }
    let user = if is_public(info) {
        user
    } else {
        if user.is_anonymous() {
            return Err(ApiError::new(Reason::Unauthorized, "Unauthorized"));
        }
        impersonated = auth::impersonate(authorizer, user, &parts.headers)?;
        if let (Some(recorder), Some(user)) = (recorder, &impersonated) {
            recorder.impersonates(user);
        }
        let user = impersonated.as_ref().unwrap_or(user);
        // A selector that cannot be read selects nothing here, and is refused by its handler.
        let selector = FieldSelector::parse(info.query.get("fieldSelector")).unwrap_or_default();
        let attributes = match measured(info) {
            Some(wanted) => wanted.attributes(),
            None => info.attributes(&selector),
        };
        if !info.is_long_running() {
            let backend = &shared.backend;
            let turn = backend
                .flow_control
                .admit(&backend.cache, user, &attributes);
            *admitted = Some(turn.await?);
        }
        let decision = if asks_for_own(info) {
            authorization::Decision::plain_yes()
        } else {
            authorizer.authorize(user, &attributes)
        };
        if let Some(recorder) = recorder {
            recorder.authorized(&decision);
        }
        authorization::enforce(decision, user, &attributes)?;
        user
    };
    if let Target::Extension(target) = &info.target {
        let aggregation = &shared.backend.aggregation;
        let extension = aggregation
            .find(&target.group, &target.version)
            .ok_or_else(ApiError::no_such_resource)?;
        let body = body::collect(request_body).await?;
        if let Some(recorder) = recorder {
            recorder.request_body(&parts.headers, &body);
        }
        let forwarded = Forwarded {
            user,
            method: parts.method.clone(),
            uri: &parts.uri,
            headers: &parts.headers,
            body,
            upgrade: parts.extensions.remove::<OnUpgrade>(),
            long: info.is_long_running(),
            limit: shared.backend.extension_timeout,
        };
        return aggregation::forward(&shared.backend.cache, &extension, forwarded).await;
    }
    let Target::Resource {
        kind,
        namespace,
        name,
        subresource,
    } = &info.target
    else {
        return non_resource(shared, served, info, &parts).await;
    };
    if let Some(part) = subresource.filter(|part| connect::leads_elsewhere(*part)) {
        let connection = Connection {
            user,
            info,
            kind,
            namespace,
            name,
            part,
            recorder,
        };
        return connection.open(shared, parts, request_body).await;
    }
    let accept = Accept::parse(&parts.headers, &info.query, kind)?;
    let reads = matches!(info.verb, "get" | "list" | "watch");
    let request_body = if reads {
        Bytes::new()
    } else {
        body::collect(request_body).await?
    };
    if let Some(recorder) = recorder {
        recorder.request_body(&parts.headers, &request_body);
    }
    let custom = kind.strategy.custom();
    let deprecated = match &custom {
        Some(custom) => custom.warning.as_deref(),
        None => kind.deprecated,
    };
    warnings.lock().extend(deprecated.map(str::to_owned));
    let context = Context {
        backend: &shared.backend,
        user,
        kind,
        custom: custom.clone(),
        namespace,
        name,
        subresource: *subresource,
        through: info.subresource(),
        query: &info.query,
        headers: &parts.headers,
        body: request_body,
        accept,
        warnings,
        recorder,
    };
    handlers::handle(info.verb, context).await
}

/// A list of namespaces that holds what the user may read, whatever that is.
fn asks_for_own(info: &RequestInfo) -> bool {
    match &info.target {
        Target::Resource { kind, name, .. } => {
            name.is_empty() && own_namespaces::are_asked(kind, info.verb, &info.query)
        }
        _ => false,
    }
}

/// What a path of `metrics.k8s.io` asks for.
fn measured(info: &RequestInfo) -> Option<Wanted<'_>> {
    match &info.target {
        Target::Path(path) => Wanted::parse(path),
        Target::Resource { .. } | Target::Extension(_) => None,
    }
}

/// Health and version need no credentials.
fn is_public(info: &RequestInfo) -> bool {
    let Target::Path(path) = &info.target else {
        return false;
    };
    info.verb == "get"
        && (path == "/version"
            || ["/healthz", "/livez", "/readyz"].iter().any(|prefix| {
                path.strip_prefix(prefix)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }))
}

async fn non_resource(
    shared: &Shared,
    served: &Served,
    info: &RequestInfo,
    parts: &http::request::Parts,
) -> Result<Response<ApiBody>, ApiError> {
    let path = parts.uri.path();
    if info.verb != "get" {
        return Err(ApiError::method_not_allowed(None));
    }
    if let Some(wanted) = measured(info) {
        let metrics = &shared.resource_metrics;
        return metrics
            .respond(&shared.backend, &shared.node_tls, wanted, &info.query)
            .await;
    }
    if path == "/metrics" {
        return match shared
            .backend
            .metrics
            .render(&shared.backend.cache.counts())
        {
            Ok(text) => Ok(text_response(StatusCode::OK, text)),
            Err(error) => Err(ApiError::internal(error)),
        };
    }
    match path {
        "/.well-known/openid-configuration" => {
            let document = Tokens::discovery_document().to_string();
            return Ok(json_response(StatusCode::OK, document));
        }
        "/openid/v1/jwks" => {
            let document = shared.backend.tokens.key_set().to_string();
            let mut response = json_response(StatusCode::OK, document);
            response.headers_mut().insert(
                http::header::CONTENT_TYPE,
                http::HeaderValue::from_static("application/jwk-set+json"),
            );
            return Ok(response);
        }
        _ => {}
    }
    if let Some(response) = health::respond(&shared.backend, path, &info.query).await {
        return Ok(response);
    }
    let extensions = shared.backend.aggregation.current();
    discovery::respond(served, &extensions, path, &parts.headers)
        .ok_or_else(ApiError::no_such_resource)
}
