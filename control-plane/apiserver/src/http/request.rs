//! What a request asks for, read from its method and path
//! (`/api/v1/namespaces/NS/pods/NAME/SUBRESOURCE`).

use http::Method;
use hull_api::{ApiError, Kind, Registry, registry::Subresource, selector::FieldSelector};

use super::query::{Query, decode};
use crate::{authorization::Attributes, resource_metrics};

/// What a request is about.
#[derive(Debug, Clone)]
pub(crate) enum Target {
    /// Objects.
    Resource {
        /// Of this kind.
        kind: &'static Kind,
        /// In this namespace; empty: in all, or the kind has none.
        namespace: String,
        /// Of this name; empty: the collection.
        name: String,
        /// This part of the object.
        subresource: Option<Subresource>,
    },
    /// Objects of a server that extends the API.
    Extension(ExtensionTarget),
    /// Anything else.
    Path(String),
}

/// What a request to a server that extends the API is about; the parts are empty where the path
/// has none.
#[derive(Debug, Clone, Default)]
pub(crate) struct ExtensionTarget {
    pub path: String,
    pub group: String,
    pub version: String,
    pub resource: String,
    pub namespace: String,
    pub name: String,
    pub subresource: String,
}

impl ExtensionTarget {
    /// Reads `/apis/GROUP/VERSION/...`. The extension gets the path as it is, and may decode it
    /// before it takes it apart: a path that then means something else than what is authorised
    /// here is none of an extension.
    pub(crate) fn parse(path: &str) -> Option<Self> {
        let inner = path.strip_prefix('/')?;
        let inner = inner.strip_suffix('/').unwrap_or(inner);
        let parts: Vec<String> = inner.split('/').map(|part| decode(part, false)).collect();
        let odd = |part: &String| matches!(part.as_str(), "" | "." | "..") || part.contains('/');
        if parts.iter().any(odd) {
            return None;
        }
        let borrowed: Vec<&str> = parts.iter().map(String::as_str).collect();
        let ["apis", group, version, rest @ ..] = borrowed.as_slice() else {
            return None;
        };
        let (namespace, rest) = match rest {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (*namespace, rest),
            rest => ("", rest),
        };
        let part = |index: usize| rest.get(index).copied().unwrap_or("").to_string();
        Some(ExtensionTarget {
            path: path.to_string(),
            group: (*group).to_string(),
            version: (*version).to_string(),
            resource: part(0),
            namespace: namespace.to_string(),
            name: part(1),
            subresource: part(2),
        })
    }
}

/// A request, understood.
#[derive(Debug, Clone)]
pub(crate) struct RequestInfo {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`; empty for
    /// OPTIONS.
    pub verb: &'static str,
    /// About what.
    pub target: Target,
    /// Parameters.
    pub query: Query,
}

impl RequestInfo {
    pub(crate) fn parse(
        registry: &Registry,
        method: &Method,
        uri: &http::Uri,
    ) -> Result<Self, ApiError> {
        let query = Query::parse(uri.query().unwrap_or(""));
        let target = parse_target(registry, uri.path())?;
        let verb = verb(method, &target, &query)?;
        Ok(RequestInfo {
            verb,
            target,
            query,
        })
    }

    /// A request to a server that extends the API.
    pub(crate) fn of_extension(
        target: ExtensionTarget,
        method: &Method,
        uri: &http::Uri,
    ) -> Result<Self, ApiError> {
        let query = Query::parse(uri.query().unwrap_or(""));
        let target = Target::Extension(target);
        let verb = verb(method, &target, &query)?;
        Ok(RequestInfo {
            verb,
            target,
            query,
        })
    }

    /// What policies are asked about. `selector` is the parsed field selector of the query.
    pub(crate) fn attributes<'a>(&'a self, selector: &'a FieldSelector) -> Attributes<'a> {
        match &self.target {
            Target::Resource {
                kind,
                namespace,
                name,
                ..
            } => Attributes {
                verb: self.verb,
                group: kind.group,
                resource: kind.plural,
                subresource: self.subresource(),
                // A namespace is in itself, for policies.
                namespace: match (kind.plural, kind.group) {
                    ("namespaces", "") => name,
                    _ => namespace,
                },
                name,
                path: None,
                selected_name: selector.required("metadata.name").unwrap_or(""),
                selected_node: selector.required("spec.nodeName").unwrap_or(""),
            },
            Target::Extension(target) if !target.resource.is_empty() => Attributes {
                verb: self.verb,
                group: &target.group,
                resource: &target.resource,
                subresource: &target.subresource,
                namespace: &target.namespace,
                name: &target.name,
                selected_name: selector.required("metadata.name").unwrap_or(""),
                ..Attributes::default()
            },
            Target::Extension(ExtensionTarget { path, .. }) | Target::Path(path) => Attributes {
                verb: self.verb,
                path: Some(path),
                ..Attributes::default()
            },
        }
    }

    #[cfg(test)]
    pub(crate) fn namespace(&self) -> &str {
        match &self.target {
            Target::Resource { namespace, .. } => namespace,
            _ => "",
        }
    }

    #[cfg(test)]
    pub(crate) fn name(&self) -> &str {
        match &self.target {
            Target::Resource { name, .. } => name,
            _ => "",
        }
    }

    /// The subresource's path segment, or "".
    pub(crate) fn subresource(&self) -> &'static str {
        match &self.target {
            Target::Resource {
                subresource: Some(subresource),
                ..
            } => subresource.info().name,
            _ => "",
        }
    }

    /// `pods` or `pods/status`.
    #[cfg(test)]
    pub(crate) fn full_resource(&self, kind: &Kind) -> String {
        match self.subresource() {
            "" => kind.plural.to_string(),
            subresource => format!("{}/{subresource}", kind.plural),
        }
    }

    /// It lasts: a watch, a stream into a container, or whatever goes through a proxy.
    pub(crate) fn is_long_running(&self) -> bool {
        let part = match &self.target {
            Target::Extension(target) => target.subresource.as_str(),
            _ => self.subresource(),
        };
        self.verb == "watch" || matches!(part, "exec" | "attach" | "portforward" | "log" | "proxy")
    }
}

fn verb(method: &Method, target: &Target, query: &Query) -> Result<&'static str, ApiError> {
    let (collection, subresource) = match target {
        Target::Resource {
            name, subresource, ..
        } => (name.is_empty(), *subresource),
        Target::Extension(target) => (!target.resource.is_empty() && target.name.is_empty(), None),
        Target::Path(_) => (false, None),
    };
    let stream = matches!(
        subresource,
        Some(Subresource::Exec | Subresource::Attach | Subresource::PortForward)
    );
    Ok(match *method {
        // A stream is a "create" whatever it was opened with: it changes the container.
        Method::GET | Method::POST if stream => "create",
        Method::GET | Method::HEAD if collection && query.flag("watch") => "watch",
        Method::GET | Method::HEAD if collection => "list",
        Method::GET | Method::HEAD => "get",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE if collection => "deletecollection",
        Method::DELETE => "delete",
        // No verb: whoever may do everything may do this too.
        Method::OPTIONS if subresource.is_some_and(Subresource::is_proxy) => "",
        _ => return Err(ApiError::method_not_allowed(None)),
    })
}

fn parse_target(registry: &Registry, path: &str) -> Result<Target, ApiError> {
    let mut parts: Vec<String> = path
        .split('/')
        .skip(1)
        .map(|part| decode(part, false))
        .collect();
    if parts.last().is_some_and(String::is_empty) {
        parts.pop();
    }
    let borrowed: Vec<&str> = parts.iter().map(String::as_str).collect();
    let (group, version, rest) = match borrowed.as_slice() {
        // Not stored, so not in the registry.
        ["apis", resource_metrics::GROUP, ..] => return Ok(Target::Path(path.to_string())),
        ["api", version, rest @ ..] if !rest.is_empty() => ("", *version, rest),
        ["apis", group, version, rest @ ..] if !rest.is_empty() => (*group, *version, rest),
        _ => return Ok(Target::Path(path.to_string())),
    };
    let find = |plural: &str| {
        registry
            .by_resource(group, version, plural)
            .ok_or_else(ApiError::no_such_resource)
    };
    // `namespaces/NS/pods`, but `namespaces/NS` and `namespaces/NS/status` are the namespace.
    let (namespace, rest) = match rest {
        ["namespaces", namespace, resource, more @ ..]
            if !(matches!(*resource, "status" | "finalize") && more.is_empty()) =>
        {
            (*namespace, &rest[2..])
        }
        _ => ("", rest),
    };
    let (kind, more) = match rest {
        [plural, more @ ..] => (find(plural)?, more),
        [] => return Err(ApiError::no_such_resource()),
    };
    // A namespaced object needs its namespace; only collections may go without.
    let fits = if kind.namespaced {
        !namespace.is_empty() || more.is_empty()
    } else {
        namespace.is_empty()
    };
    if !fits {
        return Err(ApiError::no_such_resource());
    }
    let (name, subresource, tail) = match more {
        [] => ("", None, &[][..]),
        [name] => (*name, None, &[][..]),
        [name, subresource, tail @ ..] => {
            let subresource = kind
                .subresource(subresource)
                .ok_or_else(ApiError::no_such_resource)?;
            (*name, Some(subresource), tail)
        }
    };
    // What comes after `proxy` is not ours.
    let tail_fits = tail.is_empty() || subresource.is_some_and(Subresource::is_proxy);
    if !tail_fits || (more.len() == 1 && name.is_empty()) {
        return Err(ApiError::no_such_resource());
    }
    Ok(Target::Resource {
        kind,
        namespace: namespace.to_string(),
        name: name.to_string(),
        subresource,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(method: Method, uri: &str) -> Result<RequestInfo, ApiError> {
        RequestInfo::parse(Registry::get(), &method, &uri.parse().unwrap())
    }

    #[test]
    fn paths_name_kind_namespace_name_and_subresource() {
        for (method, uri, verb, resource, namespace, name) in [
            (Method::GET, "/api/v1/pods", "list", "pods", "", ""),
            (
                Method::GET,
                "/api/v1/namespaces/a/pods?watch=true",
                "watch",
                "pods",
                "a",
                "",
            ),
            (
                Method::GET,
                "/api/v1/namespaces/a/pods/b",
                "get",
                "pods",
                "a",
                "b",
            ),
            (
                Method::PUT,
                "/api/v1/namespaces/a/pods/b/status",
                "update",
                "pods/status",
                "a",
                "b",
            ),
            (
                Method::GET,
                "/api/v1/namespaces/a",
                "get",
                "namespaces",
                "",
                "a",
            ),
            (
                Method::PUT,
                "/api/v1/namespaces/a/finalize",
                "update",
                "namespaces/finalize",
                "",
                "a",
            ),
            (
                Method::DELETE,
                "/api/v1/namespaces/a/configmaps",
                "deletecollection",
                "configmaps",
                "a",
                "",
            ),
            (
                Method::PATCH,
                "/apis/apps/v1/namespaces/a/deployments/b/scale",
                "patch",
                "deployments/scale",
                "a",
                "b",
            ),
            (
                Method::PUT,
                "/api/v1/namespaces/a/services/https:b:443/proxy/pods/c//?watch=true",
                "update",
                "services/proxy",
                "a",
                "https:b:443",
            ),
            (
                Method::OPTIONS,
                "/api/v1/nodes/b/proxy",
                "",
                "nodes/proxy",
                "",
                "b",
            ),
            (
                Method::GET,
                "/api/v1/namespaces/a/pods/b/exec?command=x",
                "create",
                "pods/exec",
                "a",
                "b",
            ),
        ] {
            let info = parse(method, uri).unwrap();
            let Target::Resource { kind, .. } = &info.target else {
                panic!("{uri}")
            };
            assert_eq!(info.verb, verb, "{uri}");
            assert_eq!(info.full_resource(kind), resource, "{uri}");
            assert_eq!((info.namespace(), info.name()), (namespace, name), "{uri}");
        }
    }

    #[test]
    fn unknown_paths_are_not_found() {
        for uri in [
            "/api/v1/nopes",
            "/apis/no.such/v1/pods",
            "/api/v1/pods/x",
            "/api/v1/namespaces/a/nodes",
            "/api/v1/namespaces/a/pods/b/nope",
            "/api/v1/namespaces/a/pods/b/log/more",
        ] {
            assert_eq!(parse(Method::GET, uri).unwrap_err().code(), 404, "{uri}");
        }
        assert!(matches!(
            parse(Method::GET, "/api/v1").unwrap().target,
            Target::Path(_)
        ));
    }
}
