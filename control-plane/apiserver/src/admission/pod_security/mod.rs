//! Pod Security Standards by namespace label: `pod-security.kubernetes.io/enforce`, `warn` and
//! `audit` are `privileged`, `baseline` or `restricted`, each with a `-version`.
//!
//! ```text
//!  policy.rs     labels ─► levels and versions
//!  baseline.rs   a pod's spec ─► what the baseline level forbids of it
//!  restricted.rs … what the restricted level forbids besides
//!  check.rs      pods are refused or warned of, templates and namespaces warned of
//! ```

mod baseline;
mod check;
mod policy;
mod restricted;

use hull_api::ObjectExt;
use serde_json::Value;

pub(super) use check::{check_create, check_update};
use policy::{Level, Standard};

/// A broken rule.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Violation {
    rule: &'static str,
    detail: String,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.rule, self.detail)
    }
}

impl Standard {
    /// What a pod does that the standard forbids, in the order in which Kubernetes names it.
    fn violations(self, spec: &Value) -> Vec<Violation> {
        let minor = self.version.minor();
        match self.level {
            Level::Privileged => Vec::new(),
            Level::Baseline => baseline::check(spec, minor, false),
            Level::Restricted => {
                let mut found = baseline::check(spec, minor, true);
                found.extend(restricted::check(spec, minor));
                found
            }
        }
    }
}

/// A rule and the words of its breach, if there is one.
type Rule = (&'static str, Option<String>);

fn broken(rules: impl IntoIterator<Item = Rule>) -> Vec<Violation> {
    let rules = rules.into_iter();
    rules
        .filter_map(|(rule, detail)| detail.map(|detail| Violation { rule, detail }))
        .collect()
}

/// All containers of a pod.
fn containers(spec: &Value) -> impl Iterator<Item = &Value> {
    ["/initContainers", "/containers", "/ephemeralContainers"]
        .into_iter()
        .flat_map(|field| spec.list_at(field))
}

/// Names of containers that fulfil a condition.
fn named(spec: &Value, condition: impl Fn(&Value) -> bool) -> Vec<String> {
    containers(spec)
        .filter(|container| condition(container))
        .map(|container| format!("{:?}", container.str_at("/name")))
        .collect()
}

/// `container "a"` or `containers "a", "b"`.
fn subject(names: &[String]) -> String {
    format!(
        "{} {}",
        plural(names.len(), "container", "containers"),
        names.join(", ")
    )
}

/// `pod`, `container "a"` or `pod and container "a"`; `None`: nobody.
fn subjects(pod: bool, names: &[String]) -> Option<String> {
    match (pod, names.is_empty()) {
        (false, true) => None,
        (true, true) => Some("pod".to_string()),
        (false, false) => Some(subject(names)),
        (true, false) => Some(format!("pod and {}", subject(names))),
    }
}

fn plural<'a>(count: usize, one: &'a str, many: &'a str) -> &'a str {
    if count == 1 { one } else { many }
}

/// The words once each, in order.
fn distinct<'a>(words: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let mut words: Vec<String> = words.into_iter().map(|word| format!("{word:?}")).collect();
    words.sort();
    words.dedup();
    words
}

fn quoted<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    distinct(words).join(", ")
}

/// The pod has its own user namespace, where root is nobody on the node.
fn has_own_users(spec: &Value) -> bool {
    spec.get("hostUsers") == Some(&Value::Bool(false))
}

#[cfg(test)]
mod tests;
