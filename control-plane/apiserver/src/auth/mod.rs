//! Who makes a request: client certificate (`tls`), bearer token, or somebody that an
//! authorised user speaks for.

mod bearer;
mod bootstrap_token;
mod impersonation;
mod jws;
mod oidc;
pub(crate) mod tokens;

use std::collections::BTreeMap;

pub(crate) use bearer::{Credentials, bearer_user};
pub(crate) use impersonation::impersonate;
pub use oidc::{AuthenticationConfigError, JwtIssuers};

/// Who makes a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UserInfo {
    /// Name, e.g. `system:node:a`.
    pub name: String,
    /// Identifier that is never used twice, or "".
    pub uid: String,
    /// Groups, e.g. `system:nodes`.
    pub groups: Vec<String>,
    /// What else the authenticator knows.
    pub extra: BTreeMap<String, Vec<String>>,
}

const AUTHENTICATED: &str = "system:authenticated";
const ANONYMOUS: &str = "system:anonymous";

impl UserInfo {
    /// A user; `system:authenticated` is added to the groups.
    pub fn new(name: &str, mut groups: Vec<String>) -> Self {
        if !groups.iter().any(|group| group == AUTHENTICATED) {
            groups.push(AUTHENTICATED.to_string());
        }
        UserInfo {
            name: name.to_string(),
            groups,
            ..UserInfo::default()
        }
    }

    /// The administrator.
    pub fn admin() -> Self {
        Self::new("kubernetes-admin", vec!["system:masters".to_string()])
    }

    /// The scheduler, in process.
    pub fn scheduler() -> Self {
        Self::new("system:kube-scheduler", Vec::new())
    }

    /// The controllers, in process.
    pub fn controller_manager() -> Self {
        Self::new("system:kube-controller-manager", Vec::new())
    }

    /// The service network of a node, in process.
    pub fn service_network() -> Self {
        Self::new("system:kube-proxy", Vec::new())
    }

    /// The agent of a node.
    pub fn node(name: &str) -> Self {
        Self::new(
            &format!("system:node:{name}"),
            vec![crate::authorization::NODES_GROUP.to_string()],
        )
    }

    /// A service account.
    pub fn service_account(namespace: &str, name: &str) -> Self {
        Self::new(
            &format!("system:serviceaccount:{namespace}:{name}"),
            service_account_groups(namespace),
        )
    }

    /// Somebody without credentials.
    pub fn anonymous() -> Self {
        UserInfo {
            name: ANONYMOUS.to_string(),
            groups: vec!["system:unauthenticated".to_string()],
            ..UserInfo::default()
        }
    }

    /// No credentials were shown.
    pub fn is_anonymous(&self) -> bool {
        self.name == ANONYMOUS
    }

    pub(crate) fn in_group(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }

    /// As in a SelfSubjectReview and a TokenReview.
    pub(crate) fn to_value(&self) -> serde_json::Value {
        let mut value = serde_json::json!({"username": self.name, "groups": self.groups});
        if !self.uid.is_empty() {
            value["uid"] = serde_json::json!(self.uid);
        }
        if !self.extra.is_empty() {
            value["extra"] = serde_json::json!(self.extra);
        }
        value
    }
}

fn service_account_groups(namespace: &str) -> Vec<String> {
    vec![
        "system:serviceaccounts".to_string(),
        format!("system:serviceaccounts:{namespace}"),
    ]
}
