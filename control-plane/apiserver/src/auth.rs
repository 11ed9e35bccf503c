//! Who may do what. A static table: `system:masters` everything, the system's own
//! components what they need, nobody else anything.

use hull_api::{ApiError, registry::Kind};

use crate::http::{RequestInfo, Target};

/// Who makes a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserInfo {
    /// Name, e.g. `system:node:a`.
    pub name: String,
    /// Groups, e.g. `system:nodes`.
    pub groups: Vec<String>,
}

const MASTERS: &str = "system:masters";
const NODES: &str = "system:nodes";
const ANONYMOUS: &str = "system:anonymous";
const SCHEDULER: &str = "system:kube-scheduler";
const SERVICE_NETWORK: &str = "system:kube-proxy";
const CONTROLLER_MANAGER: &str = "system:kube-controller-manager";

impl UserInfo {
    /// A user; `system:authenticated` is added to the groups.
    pub fn new(name: &str, mut groups: Vec<String>) -> Self {
        groups.push("system:authenticated".to_string());
        UserInfo {
            name: name.to_string(),
            groups,
        }
    }

    /// The administrator.
    pub fn admin() -> Self {
        Self::new("kubernetes-admin", vec![MASTERS.to_string()])
    }

    /// The scheduler, in process.
    pub fn scheduler() -> Self {
        Self::new(SCHEDULER, Vec::new())
    }

    /// The controllers, in process.
    pub fn controller_manager() -> Self {
        Self::new(CONTROLLER_MANAGER, Vec::new())
    }

    /// The service network of a node, in process.
    pub fn service_network() -> Self {
        Self::new(SERVICE_NETWORK, Vec::new())
    }

    /// The agent of a node.
    pub fn node(name: &str) -> Self {
        Self::new(&format!("system:node:{name}"), vec![NODES.to_string()])
    }

    /// Somebody without credentials.
    pub fn anonymous() -> Self {
        UserInfo {
            name: ANONYMOUS.to_string(),
            groups: vec!["system:unauthenticated".to_string()],
        }
    }

    /// No credentials were shown.
    pub fn is_anonymous(&self) -> bool {
        self.name == ANONYMOUS
    }

    fn in_group(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }
}

/// Verbs and `resource` or `resource/subresource` (of any group).
type Rule = (&'static [&'static str], &'static [&'static str]);

const READ: &[&str] = &["get", "list", "watch"];
const WRITE: &[&str] = &["create", "update", "patch"];
const ANY: &[&str] = &[
    "get",
    "list",
    "watch",
    "create",
    "update",
    "patch",
    "delete",
    "deletecollection",
];

const NODE_RULES: &[Rule] = &[
    (
        READ,
        &[
            "pods",
            "nodes",
            "configmaps",
            "secrets",
            "serviceaccounts",
            "runtimeclasses",
            "namespaces",
        ],
    ),
    (WRITE, &["nodes", "nodes/status", "events"]),
    (&["update", "patch", "get"], &["pods/status"]),
    (&["create", "delete"], &["pods"]),
    (&["create"], &["pods/eviction"]),
    (&["get", "create", "update", "patch", "delete"], &["leases"]),
];

const SCHEDULER_RULES: &[Rule] = &[
    (
        READ,
        &[
            "pods",
            "nodes",
            "namespaces",
            "replicasets",
            "deployments",
            "priorityclasses",
            "runtimeclasses",
        ],
    ),
    (&["create"], &["pods/binding"]),
    (&["update", "patch"], &["pods/status"]),
    (&["delete"], &["pods"]),
    (WRITE, &["events"]),
    (ANY, &["leases"]),
];

const SERVICE_NETWORK_RULES: &[Rule] = &[(
    READ,
    &[
        "pods",
        "nodes",
        "namespaces",
        "services",
        "endpointslices",
        "networkpolicies",
    ],
)];

/// May the user do this?
pub(crate) fn authorize(user: &UserInfo, request: &RequestInfo) -> Result<(), ApiError> {
    if user.in_group(MASTERS) || is_public(request) {
        return Ok(());
    }
    if user.is_anonymous() {
        return Err(ApiError::new(
            hull_api::status::Reason::Unauthorized,
            "Unauthorized",
        ));
    }
    match &request.target {
        Target::Resource { kind, .. } => {
            if component_may(user, kind, request) {
                Ok(())
            } else {
                Err(refuse(user, kind, request))
            }
        }
        Target::Path(path) => {
            // Discovery is for every authenticated user.
            let discovery = ["/api", "/apis", "/openapi", "/version"]
                .iter()
                .any(|prefix| {
                    path.strip_prefix(prefix)
                        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
                });
            if discovery && request.verb == "get" {
                return Ok(());
            }
            Err(ApiError::new(
                hull_api::status::Reason::Forbidden,
                format!(
                    "forbidden: User {:?} cannot {} path {path:?}",
                    user.name, request.verb
                ),
            ))
        }
    }
}

/// Health and version need no credentials.
fn is_public(request: &RequestInfo) -> bool {
    let Target::Path(path) = &request.target else {
        return false;
    };
    request.verb == "get"
        && (path == "/version"
            || ["/healthz", "/livez", "/readyz"].iter().any(|prefix| {
                path.strip_prefix(prefix)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }))
}

fn component_may(user: &UserInfo, kind: &Kind, request: &RequestInfo) -> bool {
    let resource = request.full_resource(kind);
    let allows = |rules: &[Rule]| {
        rules.iter().any(|(verbs, resources)| {
            verbs.contains(&request.verb) && resources.contains(&resource.as_str())
        })
    };
    match user.name.as_str() {
        SCHEDULER => allows(SCHEDULER_RULES),
        SERVICE_NETWORK => allows(SERVICE_NETWORK_RULES),
        // Garbage collection and namespaces reach every kind; streams into pods do not
        // belong to it.
        CONTROLLER_MANAGER => {
            ANY.contains(&request.verb)
                && !matches!(
                    request.subresource(),
                    "exec" | "attach" | "portforward" | "log"
                )
        }
        _ if user.in_group(NODES) => allows(NODE_RULES),
        _ => false,
    }
}

fn refuse(user: &UserInfo, kind: &Kind, request: &RequestInfo) -> ApiError {
    let scope = match request.namespace() {
        "" => "at the cluster scope".to_string(),
        namespace => format!("in the namespace {namespace:?}"),
    };
    let resource = request.full_resource(kind);
    ApiError::forbidden(
        kind.resource(),
        request.name(),
        &format!(
            "User {:?} cannot {} resource {resource:?} in API group {:?} {scope}",
            user.name, request.verb, kind.group
        ),
    )
}
