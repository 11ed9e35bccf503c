//! Roles and bindings, indexed by subject.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use hull_api::{
    ObjectExt,
    kinds::rbac::{CLUSTER_ROLE_BINDINGS, CLUSTER_ROLES, ROLE_BINDINGS, ROLES},
};
use parking_lot::RwLock;
use serde_json::Value;

use super::{
    Attributes, Decision, Rule,
    follow::{Follower, Step},
};
use crate::{UserInfo, watch_cache::WatchCache};

const ACCOUNT_PREFIX: &str = "system:serviceaccount:";

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Subject {
    User(String),
    Group(String),
    /// Namespace and name.
    Account(String, String),
}

impl Subject {
    fn parse(subject: &Value, binding_namespace: &str) -> Option<Self> {
        let name = subject.str_at("/name").to_string();
        match subject.str_at("/kind") {
            "User" => Some(Subject::User(name)),
            "Group" => Some(Subject::Group(name)),
            "ServiceAccount" => {
                let namespace = match subject.str_at("/namespace") {
                    "" => binding_namespace,
                    namespace => namespace,
                };
                Some(Subject::Account(namespace.to_string(), name))
            }
            _ => None,
        }
    }

    /// What a user is to bindings.
    fn of_user(user: &UserInfo) -> Vec<Self> {
        let mut subjects = vec![Subject::User(user.name.clone())];
        subjects.extend(user.groups.iter().cloned().map(Subject::Group));
        let account = user.name.strip_prefix(ACCOUNT_PREFIX);
        if let Some((namespace, name)) = account.and_then(|rest| rest.split_once(':')) {
            subjects.push(Subject::Account(namespace.to_string(), name.to_string()));
        }
        subjects
    }
}

impl std::fmt::Display for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Subject::User(name) => write!(f, "User {name:?}"),
            Subject::Group(name) => write!(f, "Group {name:?}"),
            Subject::Account(namespace, name) => {
                write!(f, "ServiceAccount \"{name}/{namespace}\"")
            }
        }
    }
}

#[derive(Debug)]
struct Binding {
    /// "" for a ClusterRoleBinding.
    namespace: String,
    name: String,
    role_kind: String,
    role_name: String,
    /// The key of the role in the store.
    role_key: String,
    subjects: Vec<Subject>,
}

impl Binding {
    fn parse(value: &Value) -> Self {
        let namespace = value.namespace().to_string();
        let role_kind = value.str_at("/roleRef/kind").to_string();
        let role_name = value.str_at("/roleRef/name").to_string();
        Binding {
            role_key: role_key(&role_kind, &namespace, &role_name),
            subjects: value
                .list_at("/subjects")
                .iter()
                .filter_map(|subject| Subject::parse(subject, &namespace))
                .collect(),
            name: value.name().to_string(),
            namespace,
            role_kind,
            role_name,
        }
    }

    fn reason(&self, subject: &Subject) -> String {
        let kind = if self.namespace.is_empty() {
            format!("ClusterRoleBinding {:?}", self.name)
        } else {
            format!("RoleBinding \"{}/{}\"", self.name, self.namespace)
        };
        format!(
            "RBAC: allowed by {kind} of {} {:?} to {subject}",
            self.role_kind, self.role_name
        )
    }
}

fn role_key(kind: &str, namespace: &str, name: &str) -> String {
    if kind == ROLES.kind {
        ROLES.key(namespace, name)
    } else {
        CLUSTER_ROLES.key("", name)
    }
}

#[derive(Default)]
struct Index {
    roles: HashMap<String, Arc<Vec<Rule>>>,
    bindings: HashMap<String, Binding>,
    by_subject: HashMap<Subject, BTreeSet<String>>,
}

impl Index {
    fn take_role(&mut self, step: &Step<'_>) {
        match step.after {
            Some(role) => {
                let rules = Arc::new(Rule::of_role(&role.parsed()));
                self.roles.insert(step.key.to_string(), rules);
            }
            None => {
                self.roles.remove(step.key);
            }
        }
    }

    fn take_binding(&mut self, step: &Step<'_>) {
        if let Some(old) = self.bindings.remove(step.key) {
            for subject in &old.subjects {
                if let Some(keys) = self.by_subject.get_mut(subject) {
                    keys.remove(step.key);
                    if keys.is_empty() {
                        self.by_subject.remove(subject);
                    }
                }
            }
        }
        let Some(binding) = step.after.map(|object| Binding::parse(&object.parsed())) else {
            return;
        };
        for subject in &binding.subjects {
            self.by_subject
                .entry(subject.clone())
                .or_default()
                .insert(step.key.to_string());
        }
        self.bindings.insert(step.key.to_string(), binding);
    }

    /// Bindings of a user that count in a namespace, with the rules they give.
    fn grants<'a>(
        &'a self,
        subjects: &'a [Subject],
        namespace: &'a str,
    ) -> impl Iterator<Item = (&'a Subject, &'a Binding, &'a Arc<Vec<Rule>>)> {
        subjects
            .iter()
            .flat_map(|subject| {
                self.by_subject
                    .get(subject)
                    .into_iter()
                    .flatten()
                    .map(move |key| (subject, key))
            })
            .filter_map(|(subject, key)| Some((subject, self.bindings.get(key)?)))
            .filter(move |(_, binding)| {
                binding.namespace.is_empty() || binding.namespace == namespace
            })
            .filter_map(|(subject, binding)| {
                Some((subject, binding, self.roles.get(&binding.role_key)?))
            })
    }
}

struct State {
    index: Index,
    roles: [Follower; 2],
    bindings: [Follower; 2],
}

impl State {
    fn is_behind(&self, cache: &WatchCache) -> bool {
        let mut followers = self.roles.iter().chain(&self.bindings);
        followers.any(|follower| follower.is_behind(cache))
    }

    fn catch_up(&mut self, cache: &WatchCache) {
        let State {
            index,
            roles,
            bindings,
        } = self;
        let mut anew = false;
        for follower in &mut *roles {
            anew |= follower.catch_up(cache, &mut |step| index.take_role(&step));
        }
        for follower in &mut *bindings {
            anew |= follower.catch_up(cache, &mut |step| index.take_binding(&step));
        }
        if !anew {
            return;
        }
        *index = Index::default();
        for follower in roles {
            follower.load(cache, &mut |step| index.take_role(&step));
        }
        for follower in bindings {
            follower.load(cache, &mut |step| index.take_binding(&step));
        }
    }
}

/// The index and what it follows.
pub(super) struct RbacIndex {
    cache: Arc<WatchCache>,
    state: RwLock<State>,
}

impl RbacIndex {
    pub(super) fn new(cache: Arc<WatchCache>) -> Self {
        RbacIndex {
            cache,
            state: RwLock::new(State {
                index: Index::default(),
                roles: [
                    Follower::new(CLUSTER_ROLES.storage),
                    Follower::new(ROLES.storage),
                ],
                bindings: [
                    Follower::new(CLUSTER_ROLE_BINDINGS.storage),
                    Follower::new(ROLE_BINDINGS.storage),
                ],
            }),
        }
    }

    fn with<T>(&self, read: impl FnOnce(&Index) -> T) -> T {
        {
            let state = self.state.read();
            if !state.is_behind(&self.cache) {
                return read(&state.index);
            }
        }
        let mut state = self.state.write();
        state.catch_up(&self.cache);
        read(&state.index)
    }

    pub(super) fn authorize(&self, user: &UserInfo, wanted: &Attributes<'_>) -> Decision {
        let subjects = Subject::of_user(user);
        let namespace = if wanted.path.is_some() {
            ""
        } else {
            wanted.namespace
        };
        self.with(|index| {
            let grant = index
                .grants(&subjects, namespace)
                .find(|(_, _, rules)| rules.iter().any(|rule| rule.allows(wanted)));
            Decision {
                allowed: grant.is_some(),
                reason: grant
                    .map_or_else(String::new, |(subject, binding, _)| binding.reason(subject)),
            }
        })
    }

    pub(super) fn rules_of(&self, user: &UserInfo, namespace: &str) -> Vec<Rule> {
        let subjects = Subject::of_user(user);
        self.with(|index| {
            index
                .grants(&subjects, namespace)
                .flat_map(|(_, _, rules)| rules.iter().cloned())
                .collect()
        })
    }

    pub(super) fn rules_of_role(
        &self,
        kind: &str,
        namespace: &str,
        name: &str,
    ) -> Option<Arc<Vec<Rule>>> {
        let key = role_key(kind, namespace, name);
        self.with(|index| index.roles.get(&key).cloned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch_cache::CachedObject;
    use serde_json::json;

    fn step<'a>(key: &'a str, after: Option<&'a CachedObject>) -> Step<'a> {
        Step {
            key,
            before: None,
            after,
        }
    }

    #[test]
    fn a_binding_that_changes_or_goes_takes_its_grant_along() {
        let mut index = Index::default();
        let stored = |value: &Value| CachedObject::of_value("".into(), 1, value).unwrap();
        let role = stored(&json!({"metadata": {"name": "r"},
            "rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]}));
        index.take_role(&step(&ROLES.key("a", "r"), Some(&role)));
        let key = ROLE_BINDINGS.key("a", "b");
        let binding = |user: &str| {
            stored(&json!({"metadata": {"name": "b", "namespace": "a"},
                "roleRef": {"kind": "Role", "name": "r"},
                "subjects": [{"kind": "User", "name": user}]}))
        };
        let grants = |index: &Index, user: &str, namespace: &str| {
            let subjects = Subject::of_user(&UserInfo::new(user, Vec::new()));
            index.grants(&subjects, namespace).count()
        };
        index.take_binding(&step(&key, Some(&binding("jane"))));
        assert_eq!(grants(&index, "jane", "a"), 1);
        assert_eq!(grants(&index, "jane", "b"), 0);
        index.take_binding(&step(&key, Some(&binding("joe"))));
        assert_eq!(grants(&index, "jane", "a"), 0);
        assert_eq!(grants(&index, "joe", "a"), 1);
        index.take_role(&step(&ROLES.key("a", "r"), None));
        assert_eq!(grants(&index, "joe", "a"), 0);
        index.take_binding(&step(&key, None));
        assert!(index.by_subject.is_empty());
    }

    #[test]
    fn a_service_account_is_its_own_subject() {
        let user = UserInfo::new("system:serviceaccount:ns:bot", Vec::new());
        assert!(Subject::of_user(&user).contains(&Subject::Account("ns".into(), "bot".into())));
    }
}
