//! Who may do what.
//!
//! ```text
//!   request ─► Attributes ─► system:masters? ─► node (nodes only) ─► rbac ─► allowed, or 403
//!                                                 │                   │
//!                                   graph of pods, followed    index of subjects, followed
//!                                        └──── watch cache ────────────┘
//! ```
//!
//! Both indexes take in what the watch cache saw since they were last asked
//! ([`follow::Follower`]); no request scans roles, bindings or pods.

mod bootstrap;
mod escalation;
mod follow;
mod node;
mod rbac;
mod rules;

use std::sync::Arc;

use hull_api::ApiError;

use crate::{UserInfo, watch_cache::WatchCache};

pub(crate) use bootstrap::reconcile;
pub(crate) use escalation::check_grant;
pub(crate) use node::{NODES_GROUP, node_name};
pub(crate) use rules::Rule;

const MASTERS: &str = "system:masters";

/// What is to be done, as policies see it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Attributes<'a> {
    pub verb: &'a str,
    pub group: &'a str,
    pub resource: &'a str,
    pub subresource: &'a str,
    pub namespace: &'a str,
    pub name: &'a str,
    /// Set for requests that are not about a resource.
    pub path: Option<&'a str>,
    /// The name that a field selector restricts a list or watch to.
    pub selected_name: &'a str,
    /// The node that a field selector restricts a list or watch of pods to.
    pub selected_node: &'a str,
}

impl Attributes<'_> {
    /// `pods` or `pods/status`.
    pub(crate) fn full_resource(&self) -> String {
        match self.subresource {
            "" => self.resource.to_string(),
            subresource => format!("{}/{subresource}", self.resource),
        }
    }

    /// The sentence that refuses it.
    pub(crate) fn refusal(&self, user: &UserInfo) -> String {
        if let Some(path) = self.path {
            return format!("User {:?} cannot {} path {path:?}", user.name, self.verb);
        }
        let scope = match self.namespace {
            "" => "at the cluster scope".to_string(),
            namespace => format!("in the namespace {namespace:?}"),
        };
        format!(
            "User {:?} cannot {} resource {:?} in API group {:?} {scope}",
            user.name,
            self.verb,
            self.full_resource(),
            self.group
        )
    }
}

/// What the policies say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Decision {
    pub allowed: bool,
    /// Why, for people.
    pub reason: String,
}

impl Decision {
    /// Yes, for a reason that needs no words.
    pub(crate) fn plain_yes() -> Self {
        Decision {
            allowed: true,
            reason: String::new(),
        }
    }
}

/// All authorizers.
pub(crate) struct Authorizer {
    rbac: rbac::RbacIndex,
    nodes: node::NodeAuthorizer,
}

impl Authorizer {
    pub(crate) fn new(cache: Arc<WatchCache>) -> Self {
        Authorizer {
            rbac: rbac::RbacIndex::new(cache.clone()),
            nodes: node::NodeAuthorizer::new(cache),
        }
    }

    /// May the user do this?
    pub(crate) fn authorize(&self, user: &UserInfo, attributes: &Attributes<'_>) -> Decision {
        if is_master(user) {
            return Decision::plain_yes();
        }
        let mut reason = String::new();
        if let Some(node) = node_name(user) {
            let decision = self.nodes.authorize(node, attributes);
            if decision.allowed {
                return decision;
            }
            reason = decision.reason;
        }
        let decision = self.rbac.authorize(user, attributes);
        if decision.allowed || decision.reason.is_empty() {
            return Decision {
                reason: if decision.allowed {
                    decision.reason
                } else {
                    reason
                },
                ..decision
            };
        }
        decision
    }

    /// Rules that bind a user in a namespace.
    pub(crate) fn rules_of(&self, user: &UserInfo, namespace: &str) -> Vec<Rule> {
        if is_master(user) {
            return vec![Rule::everything(), Rule::every_path()];
        }
        self.rbac.rules_of(user, namespace)
    }

    /// The rules of a role; `None`: there is no such role.
    pub(crate) fn rules_of_role(
        &self,
        kind: &str,
        namespace: &str,
        name: &str,
    ) -> Option<Arc<Vec<Rule>>> {
        self.rbac.rules_of_role(kind, namespace, name)
    }
}

/// The group that may do everything.
pub(crate) fn is_master(user: &UserInfo) -> bool {
    user.in_group(MASTERS)
}

/// Refuses what the user may not do.
pub(crate) fn require(
    authorizer: &Authorizer,
    user: &UserInfo,
    attributes: &Attributes<'_>,
) -> Result<(), ApiError> {
    enforce(authorizer.authorize(user, attributes), user, attributes)
}

/// The answer to what was decided to be refused.
pub(crate) fn enforce(
    decision: Decision,
    user: &UserInfo,
    attributes: &Attributes<'_>,
) -> Result<(), ApiError> {
    if decision.allowed {
        return Ok(());
    }
    if user.is_anonymous() {
        return Err(ApiError::new(
            hull_api::status::Reason::Unauthorized,
            "Unauthorized",
        ));
    }
    let mut words = attributes.refusal(user);
    if !decision.reason.is_empty() {
        words.push_str(": ");
        words.push_str(&decision.reason);
    }
    if attributes.path.is_some() {
        return Err(ApiError::new(
            hull_api::status::Reason::Forbidden,
            format!("forbidden: {words}"),
        ));
    }
    let resource = hull_api::status::ResourceName {
        group: attributes.group,
        resource: attributes.resource,
    };
    Err(ApiError::forbidden(resource, attributes.name, &words))
}
