//! Which requests a FlowSchema is about.

use std::hash::{DefaultHasher, Hash, Hasher};

use hull_api::ObjectExt;
use serde_json::Value;

use crate::{UserInfo, authorization::Attributes};

/// What tells the flows of a schema apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Distinguisher {
    User,
    Namespace,
    Nothing,
}

/// One FlowSchema.
#[derive(Debug)]
pub(super) struct Schema {
    pub name: String,
    pub uid: String,
    /// The name of its level.
    pub level: String,
    pub precedence: i64,
    distinguisher: Distinguisher,
    rules: Vec<Value>,
}

fn holds(list: &[Value], wanted: &str) -> bool {
    list.iter().any(|one| one == "*" || one == wanted)
}

impl Schema {
    pub(super) fn read(object: &Value) -> Self {
        Schema {
            name: object.name().to_string(),
            uid: object.uid().to_string(),
            level: object
                .str_at("/spec/priorityLevelConfiguration/name")
                .to_string(),
            precedence: object.int_at("/spec/matchingPrecedence").unwrap_or(1000),
            distinguisher: match object.str_at("/spec/distinguisherMethod/type") {
                "ByUser" => Distinguisher::User,
                "ByNamespace" => Distinguisher::Namespace,
                _ => Distinguisher::Nothing,
            },
            rules: object.list_at("/spec/rules").to_vec(),
        }
    }

    pub(super) fn matches(&self, user: &UserInfo, attributes: &Attributes<'_>) -> bool {
        self.rules.iter().any(|rule| {
            let subjects = rule.list_at("/subjects");
            let about = match attributes.path {
                Some(path) => rule
                    .list_at("/nonResourceRules")
                    .iter()
                    .any(|rule| is_about_path(rule, attributes.verb, path)),
                None => rule
                    .list_at("/resourceRules")
                    .iter()
                    .any(|rule| is_about(rule, attributes)),
            };
            about && subjects.iter().any(|subject| is_subject(subject, user))
        })
    }

    /// The flow of a request: the same number for the same tenant.
    pub(super) fn flow(&self, user: &UserInfo, attributes: &Attributes<'_>) -> u64 {
        let tenant = match self.distinguisher {
            Distinguisher::User => user.name.as_str(),
            Distinguisher::Namespace => attributes.namespace,
            Distinguisher::Nothing => "",
        };
        let mut hasher = DefaultHasher::new();
        (&self.name, tenant).hash(&mut hasher);
        hasher.finish()
    }
}

fn is_subject(subject: &Value, user: &UserInfo) -> bool {
    let is = |pointer: &str, name: &str| {
        matches!(subject.str_at(pointer), "*") || subject.str_at(pointer) == name
    };
    match subject.str_at("/kind") {
        "User" => is("/user/name", &user.name),
        "Group" => {
            subject.str_at("/group/name") == "*"
                || user.groups.iter().any(|group| is("/group/name", group))
        }
        "ServiceAccount" => {
            let account = user.name.strip_prefix("system:serviceaccount:");
            account
                .and_then(|account| account.split_once(':'))
                .is_some_and(|(namespace, name)| {
                    subject.str_at("/serviceAccount/namespace") == namespace
                        && is("/serviceAccount/name", name)
                })
        }
        _ => false,
    }
}

fn is_about(rule: &Value, attributes: &Attributes<'_>) -> bool {
    let in_scope = match attributes.namespace {
        "" => rule.bool_at("/clusterScope"),
        namespace => holds(rule.list_at("/namespaces"), namespace),
    };
    in_scope
        && holds(rule.list_at("/verbs"), attributes.verb)
        && holds(rule.list_at("/apiGroups"), attributes.group)
        && holds(rule.list_at("/resources"), &attributes.full_resource())
}

fn is_about_path(rule: &Value, verb: &str, path: &str) -> bool {
    let urls = rule.list_at("/nonResourceURLs").iter();
    let fits = |url: &str| match url.strip_suffix('*') {
        Some(prefix) => path.starts_with(prefix),
        None => path.trim_end_matches('/') == url.trim_end_matches('/'),
    };
    holds(rule.list_at("/verbs"), verb) && urls.filter_map(Value::as_str).any(fits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn rules_look_at_who_what_and_where() {
        let schema = Schema::read(&json!({"metadata": {"name": "s"}, "spec": {
            "distinguisherMethod": {"type": "ByNamespace"},
            "priorityLevelConfiguration": {"name": "l"},
            "rules": [{"subjects": [{"kind": "ServiceAccount",
                    "serviceAccount": {"namespace": "kube-system", "name": "*"}}],
                "resourceRules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods/status"],
                    "namespaces": ["*"]}],
                "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/healthz", "/openapi/*"]}]}]}}));
        let account = UserInfo::service_account("kube-system", "dns");
        let attributes = Attributes {
            verb: "get",
            resource: "pods",
            subresource: "status",
            namespace: "a",
            ..Attributes::default()
        };
        assert!(schema.matches(&account, &attributes));
        assert!(!schema.matches(&UserInfo::service_account("default", "dns"), &attributes));
        let cluster = Attributes {
            namespace: "",
            ..attributes
        };
        assert!(!schema.matches(&account, &cluster));
        let whole = Attributes {
            subresource: "",
            ..attributes
        };
        assert!(!schema.matches(&account, &whole));
        let path = |path: &'static str| Attributes {
            verb: "get",
            path: Some(path),
            ..Attributes::default()
        };
        assert!(schema.matches(&account, &path("/openapi/v3")));
        assert!(!schema.matches(&account, &path("/metrics")));
        let other = Attributes {
            namespace: "b",
            ..attributes
        };
        assert_ne!(
            schema.flow(&account, &attributes),
            schema.flow(&account, &other)
        );
    }
}
