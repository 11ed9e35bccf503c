//! Parts of objects that lead elsewhere: logs and streams of containers, and proxies. Policies
//! and webhooks are asked first; `node_proxy` and `proxy` pass the request on.

use std::io;

use bytes::Bytes;
use http::{Response, request::Parts};
use http_body_util::BodyExt;
use hull_api::{ApiError, Kind, registry::Subresource};
use hyper::upgrade::OnUpgrade;
use parking_lot::Mutex;

use crate::{
    ApiBody, UserInfo,
    admission::admit_connect,
    audit::Recorder,
    handlers::Context,
    http::{Accept, Encoding, Query, RequestInfo},
    node_proxy, proxy,
    service::Shared,
};

/// What is asked for.
pub(crate) struct Connection<'a> {
    pub user: &'a UserInfo,
    pub info: &'a RequestInfo,
    pub kind: &'static Kind,
    pub namespace: &'a str,
    pub name: &'a str,
    pub part: Subresource,
    pub recorder: Option<&'a Recorder>,
}

/// Such a part.
pub(crate) fn leads_elsewhere(part: Subresource) -> bool {
    part.is_proxy()
        || matches!(
            part,
            Subresource::Log | Subresource::Exec | Subresource::Attach | Subresource::PortForward
        )
}

impl Connection<'_> {
    /// Opens it, once policies and webhooks agree.
    pub(crate) async fn open<B>(
        self,
        shared: &Shared,
        mut parts: Parts,
        body: B,
    ) -> Result<Response<ApiBody>, ApiError>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (part, query) = (self.part, &self.info.query);
        if part == Subresource::Log && self.info.verb != "get" {
            return Err(ApiError::method_not_allowed(Some(self.kind.resource())));
        }
        let upgrade = parts.extensions.remove::<OnUpgrade>();
        let changed = match part {
            Subresource::Log => None,
            _ => self.admit(shared, &parts).await?,
        };
        if part.is_proxy() {
            let proxied = proxy::Proxied {
                part,
                namespace: self.namespace,
                id: self.name,
                method: parts.method,
                uri: &parts.uri,
                headers: &parts.headers,
                body: body.map_err(io::Error::other).boxed_unsync(),
                upgrade,
            };
            return proxy::serve(shared, proxied).await;
        }
        let changed_query = changed.as_deref().map(Query::parse);
        let proxied = node_proxy::Proxied {
            namespace: self.namespace,
            name: self.name,
            subresource: part,
            method: parts.method.clone(),
            query: changed_query.as_ref().unwrap_or(query),
            raw_query: changed.as_deref().or(parts.uri.query()).unwrap_or(""),
            headers: &parts.headers,
            upgrade,
        };
        node_proxy::proxy(&shared.backend, &shared.node_tls, proxied).await
    }

    /// The parameters, when somebody changed them.
    async fn admit(&self, shared: &Shared, parts: &Parts) -> Result<Option<String>, ApiError> {
        let context = Context {
            backend: &shared.backend,
            user: self.user,
            kind: self.kind,
            custom: None,
            namespace: self.namespace,
            name: self.name,
            subresource: Some(self.part),
            through: self.info.subresource(),
            query: &self.info.query,
            headers: &parts.headers,
            body: Bytes::new(),
            accept: Accept::Object(Encoding::Json),
            warnings: &Mutex::default(),
            recorder: self.recorder,
        };
        admit_connect(&context, parts.uri.path()).await
    }
}
