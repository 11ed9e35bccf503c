//! `rbac.authorization.k8s.io/v1` PolicyRule.

use hull_api::ObjectExt;
use serde_json::{Map, Value, json};

use super::Attributes;

const ANY: &str = "*";

/// A rule.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Rule {
    pub verbs: Vec<String>,
    pub groups: Vec<String>,
    pub resources: Vec<String>,
    pub names: Vec<String>,
    pub paths: Vec<String>,
}

fn words(value: &Value, pointer: &str) -> Vec<String> {
    value
        .list_at(pointer)
        .iter()
        .filter_map(|word| word.as_str().map(str::to_string))
        .collect()
}

fn has(list: &[String], word: &str) -> bool {
    list.iter().any(|item| item == ANY || item == word)
}

fn path_matches(pattern: &str, path: &str) -> bool {
    pattern == ANY
        || pattern == path
        || pattern
            .strip_suffix(ANY)
            .is_some_and(|prefix| path.starts_with(prefix.trim_end_matches(ANY)))
}

impl Rule {
    /// Every verb on every resource.
    pub(crate) fn everything() -> Self {
        let any = || vec![ANY.to_string()];
        Rule {
            verbs: any(),
            groups: any(),
            resources: any(),
            ..Rule::default()
        }
    }

    /// Every verb on every path.
    pub(crate) fn every_path() -> Self {
        Rule {
            verbs: vec![ANY.to_string()],
            paths: vec![ANY.to_string()],
            ..Rule::default()
        }
    }

    pub(crate) fn parse(value: &Value) -> Self {
        Rule {
            verbs: words(value, "/verbs"),
            groups: words(value, "/apiGroups"),
            resources: words(value, "/resources"),
            names: words(value, "/resourceNames"),
            paths: words(value, "/nonResourceURLs"),
        }
    }

    /// The rules of a role.
    pub(crate) fn of_role(role: &Value) -> Vec<Self> {
        role.list_at("/rules").iter().map(Self::parse).collect()
    }

    /// As in a role, and in a SelfSubjectRulesReview.
    pub(crate) fn to_value(&self) -> Value {
        let mut map = Map::new();
        for (key, list) in [
            ("verbs", &self.verbs),
            ("apiGroups", &self.groups),
            ("resources", &self.resources),
            ("resourceNames", &self.names),
            ("nonResourceURLs", &self.paths),
        ] {
            if !list.is_empty() {
                map.insert(key.to_string(), json!(list));
            }
        }
        Value::Object(map)
    }

    /// The rule allows this.
    pub(crate) fn allows(&self, wanted: &Attributes<'_>) -> bool {
        if !has(&self.verbs, wanted.verb) {
            return false;
        }
        if let Some(path) = wanted.path {
            return self.paths.iter().any(|pattern| path_matches(pattern, path));
        }
        has(&self.groups, wanted.group)
            && self.allows_resource(wanted.resource, wanted.subresource)
            && (self.names.is_empty() || self.names.iter().any(|name| name == wanted.name))
    }

    fn allows_resource(&self, resource: &str, subresource: &str) -> bool {
        self.resources.iter().any(|pattern| {
            if pattern == ANY {
                return true;
            }
            match pattern.split_once('/') {
                None => subresource.is_empty() && pattern == resource,
                Some((outer, inner)) => {
                    !subresource.is_empty()
                        && inner == subresource
                        && (outer == ANY || outer == resource)
                }
            }
        })
    }

    /// The rule, one verb and one resource at a time.
    fn parts(&self) -> Vec<Rule> {
        let mut parts = Vec::new();
        for verb in &self.verbs {
            for path in &self.paths {
                parts.push(Rule {
                    verbs: vec![verb.clone()],
                    paths: vec![path.clone()],
                    ..Rule::default()
                });
            }
            for group in &self.groups {
                for resource in &self.resources {
                    let one = Rule {
                        verbs: vec![verb.clone()],
                        groups: vec![group.clone()],
                        resources: vec![resource.clone()],
                        ..Rule::default()
                    };
                    if self.names.is_empty() {
                        parts.push(one);
                        continue;
                    }
                    parts.extend(self.names.iter().map(|name| Rule {
                        names: vec![name.clone()],
                        ..one.clone()
                    }));
                }
            }
        }
        parts
    }

    /// This rule grants all of a rule with one part each.
    fn covers_part(&self, part: &Rule) -> bool {
        let first = |list: &[String]| list.first().cloned().unwrap_or_default();
        if !has(&self.verbs, &first(&part.verbs)) {
            return false;
        }
        if let Some(path) = part.paths.first() {
            return self.paths.iter().any(|pattern| path_matches(pattern, path));
        }
        let resource = first(&part.resources);
        let covers_resource = self.resources.iter().any(|own| {
            own == ANY
                || *own == resource
                || own.strip_prefix("*/").is_some_and(|inner| {
                    resource
                        .split_once('/')
                        .is_some_and(|(_, subresource)| subresource == inner)
                })
        });
        covers_resource
            && has(&self.groups, &first(&part.groups))
            && (self.names.is_empty()
                || part
                    .names
                    .first()
                    .is_some_and(|name| self.names.contains(name)))
    }
}

/// The parts of `wanted` that `owned` does not grant.
pub(super) fn uncovered(owned: &[Rule], wanted: &[Rule]) -> Vec<Rule> {
    wanted
        .iter()
        .flat_map(Rule::parts)
        .filter(|part| !owned.iter().any(|rule| rule.covers_part(part)))
        .collect()
}

/// A rule in the words of a refusal: `{APIGroups:[""], Resources:["pods"], Verbs:["get"]}`.
pub(super) fn compact(rule: &Rule) -> String {
    let mut parts = Vec::new();
    for (name, list) in [
        ("APIGroups", &rule.groups),
        ("Resources", &rule.resources),
        ("ResourceNames", &rule.names),
        ("NonResourceURLs", &rule.paths),
        ("Verbs", &rule.verbs),
    ] {
        if !list.is_empty() {
            let words: Vec<String> = list.iter().map(|word| format!("{word:?}")).collect();
            parts.push(format!("{name}:[{}]", words.join(" ")));
        }
    }
    format!("{{{}}}", parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(verbs: &[&str], groups: &[&str], resources: &[&str], names: &[&str]) -> Rule {
        let list = |words: &[&str]| words.iter().map(|word| (*word).to_string()).collect();
        Rule {
            verbs: list(verbs),
            groups: list(groups),
            resources: list(resources),
            names: list(names),
            paths: Vec::new(),
        }
    }

    fn wants<'a>(
        verb: &'a str,
        resource: &'a str,
        subresource: &'a str,
        name: &'a str,
    ) -> Attributes<'a> {
        Attributes {
            verb,
            resource,
            subresource,
            name,
            ..Attributes::default()
        }
    }

    #[test]
    fn resources_subresources_and_names_match_exactly() {
        let pods = rule(&["get"], &[""], &["pods"], &[]);
        assert!(pods.allows(&wants("get", "pods", "", "x")));
        assert!(!pods.allows(&wants("get", "pods", "log", "x")));
        assert!(!pods.allows(&wants("list", "pods", "", "")));
        let scales = rule(&["*"], &["*"], &["*/scale"], &[]);
        assert!(scales.allows(&wants("update", "deployments", "scale", "x")));
        assert!(!scales.allows(&wants("update", "deployments", "", "x")));
        let named = rule(&["get"], &[""], &["secrets"], &["a"]);
        assert!(named.allows(&wants("get", "secrets", "", "a")));
        assert!(!named.allows(&wants("get", "secrets", "", "b")));
    }

    #[test]
    fn paths_match_exactly_or_by_prefix() {
        let mut rule = Rule {
            verbs: vec!["get".into()],
            paths: vec!["/healthz".into(), "/api/*".into()],
            ..Rule::default()
        };
        let wants = |path: &'static str| Attributes {
            verb: "get",
            path: Some(path),
            ..Attributes::default()
        };
        assert!(rule.allows(&wants("/healthz")));
        assert!(rule.allows(&wants("/api/v1")));
        assert!(!rule.allows(&wants("/metrics")));
        rule.paths = vec!["*".into()];
        assert!(rule.allows(&wants("/metrics")));
    }

    #[test]
    fn nobody_grants_more_than_they_have() {
        let owned = [
            rule(&["get", "list"], &[""], &["pods"], &[]),
            rule(&["get"], &[""], &["secrets"], &["a"]),
        ];
        assert!(uncovered(&owned, &[rule(&["get"], &[""], &["pods"], &["x"])]).is_empty());
        let missing = uncovered(&owned, &[rule(&["get", "watch"], &[""], &["pods"], &[])]);
        assert_eq!(missing, [rule(&["watch"], &[""], &["pods"], &[])]);
        assert_eq!(
            compact(&missing[0]),
            r#"{APIGroups:[""], Resources:["pods"], Verbs:["watch"]}"#
        );
        assert_eq!(
            uncovered(&owned, &[rule(&["get"], &[""], &["secrets"], &[])]).len(),
            1
        );
        assert_eq!(uncovered(&owned, &[Rule::everything()]).len(), 1);
        assert!(uncovered(&[Rule::everything()], &owned).is_empty());
    }
}
