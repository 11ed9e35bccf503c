//! Kubernetes' Policy (audit.k8s.io/v1): of its rules the first that fits a request decides.

use serde::Deserialize;

use crate::UserInfo;

/// How much of a request is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub enum Level {
    /// Nothing.
    None,
    /// Who, what, when, and the status.
    Metadata,
    /// Also the object that was sent.
    Request,
    /// Also the object that was answered.
    RequestResponse,
}

/// When an event is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Stage {
    /// Before the request is handled.
    RequestReceived,
    /// An answer that lasts has begun.
    ResponseStarted,
    /// The answer is complete.
    ResponseComplete,
    /// The handler failed.
    Panic,
}

/// Why a policy cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// No YAML, or not of this shape.
    #[error("audit policy: {0}")]
    Syntax(String),
    /// Another kind or version.
    #[error("audit policy: it is {kind} of {api_version}, not Policy of audit.k8s.io/v1")]
    Kind {
        /// What it says it is.
        kind: String,
        /// Of which version.
        api_version: String,
    },
    /// It would record nothing and say nothing.
    #[error("audit policy: it has no rules")]
    Empty,
    /// A rule is about both objects and paths.
    #[error("audit policy: rules[{0}] names both resources (or namespaces) and nonResourceURLs")]
    Mixed(usize),
}

/// The rules.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Policy {
    api_version: String,
    kind: String,
    #[serde(default, rename = "metadata")]
    _metadata: serde::de::IgnoredAny,
    #[serde(default)]
    rules: Vec<Rule>,
    #[serde(default)]
    omit_stages: Vec<Stage>,
    #[serde(default)]
    omit_managed_fields: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Rule {
    level: Level,
    #[serde(default)]
    users: Vec<String>,
    #[serde(default)]
    user_groups: Vec<String>,
    #[serde(default)]
    verbs: Vec<String>,
    #[serde(default)]
    resources: Vec<GroupResources>,
    #[serde(default)]
    namespaces: Vec<String>,
    #[serde(default, rename = "nonResourceURLs")]
    non_resource_urls: Vec<String>,
    #[serde(default)]
    omit_stages: Vec<Stage>,
    omit_managed_fields: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct GroupResources {
    #[serde(default)]
    group: String,
    #[serde(default)]
    resources: Vec<String>,
    #[serde(default)]
    resource_names: Vec<String>,
}

/// What a rule looks at.
pub(super) struct Subject<'a> {
    pub user: &'a UserInfo,
    pub verb: &'a str,
    /// When it is about no object.
    pub path: &'a str,
    pub resource: Option<Resource<'a>>,
}

pub(super) struct Resource<'a> {
    pub group: &'a str,
    pub plural: &'a str,
    pub subresource: &'a str,
    pub namespace: &'a str,
    pub name: &'a str,
}

/// What is recorded of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Decision {
    pub level: Level,
    pub omit_stages: Vec<Stage>,
    pub omit_managed_fields: bool,
}

impl Policy {
    /// Reads a policy.
    ///
    /// # Errors
    /// When it is malformed.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        let policy: Policy =
            serde_saphyr::from_str(text).map_err(|error| PolicyError::Syntax(error.to_string()))?;
        if policy.kind != "Policy" || policy.api_version != "audit.k8s.io/v1" {
            return Err(PolicyError::Kind {
                kind: policy.kind,
                api_version: policy.api_version,
            });
        }
        if policy.rules.is_empty() {
            return Err(PolicyError::Empty);
        }
        for (position, rule) in policy.rules.iter().enumerate() {
            let objects = !rule.resources.is_empty() || !rule.namespaces.is_empty();
            if objects && !rule.non_resource_urls.is_empty() {
                return Err(PolicyError::Mixed(position));
            }
        }
        Ok(policy)
    }

    pub(super) fn decide(&self, subject: &Subject<'_>) -> Decision {
        let rule = self.rules.iter().find(|rule| rule.fits(subject));
        let mut omit_stages = self.omit_stages.clone();
        if let Some(rule) = rule {
            omit_stages.extend_from_slice(&rule.omit_stages);
        }
        Decision {
            level: rule.map_or(Level::None, |rule| rule.level),
            omit_stages,
            omit_managed_fields: rule
                .and_then(|rule| rule.omit_managed_fields)
                .unwrap_or(self.omit_managed_fields),
        }
    }
}

impl Rule {
    fn fits(&self, subject: &Subject<'_>) -> bool {
        let user = subject.user;
        let has = |list: &[String], text: &str| list.is_empty() || list.iter().any(|l| l == text);
        let in_group = self.user_groups.is_empty()
            || user
                .groups
                .iter()
                .any(|group| self.user_groups.contains(group));
        if !has(&self.users, &user.name) || !in_group || !has(&self.verbs, subject.verb) {
            return false;
        }
        match &subject.resource {
            Some(resource) => {
                self.non_resource_urls.is_empty()
                    && has(&self.namespaces, resource.namespace)
                    && (self.resources.is_empty()
                        || self.resources.iter().any(|group| group.fits(resource)))
            }
            None => {
                self.resources.is_empty()
                    && self.namespaces.is_empty()
                    && (self.non_resource_urls.is_empty()
                        || self
                            .non_resource_urls
                            .iter()
                            .any(|url| url_fits(url, subject.path)))
            }
        }
    }
}

impl GroupResources {
    fn fits(&self, resource: &Resource<'_>) -> bool {
        if self.group != resource.group {
            return false;
        }
        let named = self.resource_names.is_empty()
            || self.resource_names.iter().any(|name| name == resource.name);
        named
            && (self.resources.is_empty()
                || self
                    .resources
                    .iter()
                    .any(|wanted| resource_fits(wanted, resource)))
    }
}

/// `pods`, `pods/log`, `pods/*`, `*/scale` or `*`.
fn resource_fits(wanted: &str, resource: &Resource<'_>) -> bool {
    if wanted == "*" {
        return true;
    }
    match wanted.split_once('/') {
        None => wanted == resource.plural && resource.subresource.is_empty(),
        Some(("*", part)) => part == resource.subresource,
        Some((plural, "*")) => plural == resource.plural,
        Some((plural, part)) => plural == resource.plural && part == resource.subresource,
    }
}

/// `/metrics`, `/healthz/*` or `*`.
fn url_fits(wanted: &str, path: &str) -> bool {
    match wanted.strip_suffix('*') {
        Some(prefix) => path.starts_with(prefix),
        None => wanted == path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(rules: &str) -> Result<Policy, PolicyError> {
        Policy::parse(&format!(
            "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules:\n{rules}"
        ))
    }

    fn decide(policy: &Policy, user: &str, verb: &str, what: &str, name: &str) -> Level {
        let user = UserInfo {
            name: user.into(),
            uid: String::new(),
            groups: vec![format!("{user}s")],
            extra: std::collections::BTreeMap::new(),
        };
        let (plural, subresource) = what.split_once('/').unwrap_or((what, ""));
        let resource = (!what.starts_with('/')).then_some(Resource {
            group: "",
            plural,
            subresource,
            namespace: "ns",
            name,
        });
        let path = if resource.is_none() { what } else { "" };
        let subject = Subject {
            user: &user,
            verb,
            path,
            resource,
        };
        policy.decide(&subject).level
    }

    #[test]
    fn the_first_rule_that_fits_decides() {
        let policy = policy(
            "- {level: None, users: [proxy], verbs: [watch]}
- {level: None, userGroups: [nodes], resources: [{resources: [endpoints]}]}
- {level: Request, resources: [{resources: [pods/log, pods/status]}]}
- {level: Metadata, resources: [{resources: [configmaps], resourceNames: [lock]}]}
- {level: RequestResponse, resources: [{resources: [pods]}], namespaces: [ns]}
- {level: None, nonResourceURLs: ['/healthz*', /version]}
- {level: Metadata, resources: [{group: apps}], omitStages: [ResponseStarted]}
- {level: Metadata, nonResourceURLs: ['*']}
",
        )
        .unwrap();
        for (user, verb, what, name, level) in [
            ("proxy", "watch", "pods", "", Level::None),
            ("proxy", "list", "pods", "", Level::RequestResponse),
            ("node", "get", "endpoints", "a", Level::None),
            ("user", "get", "endpoints", "a", Level::None),
            ("user", "get", "pods/log", "a", Level::Request),
            ("user", "get", "pods/exec", "a", Level::None),
            ("user", "update", "configmaps", "lock", Level::Metadata),
            ("user", "update", "configmaps", "other", Level::None),
            ("user", "get", "/healthz/etcd", "", Level::None),
            ("user", "get", "/version", "", Level::None),
            ("user", "get", "/metrics", "", Level::Metadata),
        ] {
            assert_eq!(
                decide(&policy, user, verb, what, name),
                level,
                "{user} {verb} {what}"
            );
        }
    }

    #[test]
    fn malformed_policies_are_refused_with_the_reason() {
        for (rules, reason) in [
            ("- {level: Loud}", "Loud"),
            ("- {level: None, user: [a]}", "user"),
            (
                "- {level: None, namespaces: [a], nonResourceURLs: [b]}",
                "rules[0] names both",
            ),
        ] {
            let error = policy(rules).unwrap_err().to_string();
            assert!(error.contains(reason), "{rules}: {error}");
        }
        let other = Policy::parse("apiVersion: v1\nkind: Pod\nrules: []").unwrap_err();
        assert!(matches!(other, PolicyError::Kind { .. }));
        let empty = Policy::parse("apiVersion: audit.k8s.io/v1\nkind: Policy").unwrap_err();
        assert!(matches!(empty, PolicyError::Empty));
    }
}
