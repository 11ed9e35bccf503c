//! Reading a CustomResourceDefinition.

use std::cmp::{Ordering, Reverse};

use serde_json::Value;

use crate::ObjectExt;

/// A definition's parts.
#[derive(Debug, Clone, Copy)]
pub struct Definition<'a>(pub &'a Value);

impl<'a> Definition<'a> {
    /// API group.
    pub fn group(self) -> &'a str {
        self.0.str_at("/spec/group")
    }

    /// Plural name, as in paths.
    pub fn plural(self) -> &'a str {
        self.0.str_at("/spec/names/plural")
    }

    /// Kind.
    pub fn kind(self) -> &'a str {
        self.0.str_at("/spec/names/kind")
    }

    /// Singular name.
    pub fn singular(self) -> &'a str {
        self.0.str_at("/spec/names/singular")
    }

    /// Kind of lists.
    pub fn list_kind(self) -> &'a str {
        self.0.str_at("/spec/names/listKind")
    }

    /// Objects live in namespaces.
    pub fn is_namespaced(self) -> bool {
        self.0.str_at("/spec/scope") == "Namespaced"
    }

    /// `spec.preserveUnknownFields`.
    pub fn preserves_unknown_fields(self) -> bool {
        self.0.bool_at("/spec/preserveUnknownFields")
    }

    /// Every version.
    pub fn versions(self) -> &'a [Value] {
        self.0.list_at("/spec/versions")
    }

    /// The name of the version that is stored.
    pub fn storage_version(self) -> &'a str {
        self.versions()
            .iter()
            .find(|version| version.bool_at("/storage"))
            .map_or("", |version| version.str_at("/name"))
    }

    /// A condition is true.
    pub fn is(self, condition: &str) -> bool {
        self.condition(condition)
            .is_some_and(|found| found.str_at("/status") == "True")
    }

    /// A condition by its type.
    pub fn condition(self, condition: &str) -> Option<&'a Value> {
        self.0
            .list_at("/status/conditions")
            .iter()
            .find(|found| found.str_at("/type") == condition)
    }

    /// It is being deleted.
    pub fn is_terminating(self) -> bool {
        self.0.is_deleting() || self.is("Terminating")
    }

    /// Path segment under `/registry/` of the objects.
    pub fn storage(self) -> String {
        format!("{}/{}", self.group(), self.plural())
    }

    /// Every text in a list of names.
    pub fn texts(self, pointer: &str) -> impl Iterator<Item = &'a str> {
        self.0.list_at(pointer).iter().filter_map(Value::as_str)
    }
}

/// The order in which versions of a group are offered: `v2`, `v1`, `v2beta1`, `v1alpha1`, others
/// by name (Kubernetes: version priority).
pub fn version_order(a: &str, b: &str) -> Ordering {
    match (priority(a), priority(b)) {
        (Some(a), Some(b)) => Reverse(a).cmp(&Reverse(b)),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => a.cmp(b),
    }
}

/// Stability, major and minor number.
fn priority(version: &str) -> Option<(u8, u64, u64)> {
    let rest = version.strip_prefix('v')?;
    let end = rest
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(rest.len());
    let major = rest[..end].parse().ok()?;
    let (level, minor) = match &rest[end..] {
        "" => return Some((2, major, 0)),
        tail => tail
            .strip_prefix("beta")
            .map(|minor| (1, minor))
            .or_else(|| tail.strip_prefix("alpha").map(|minor| (0, minor)))?,
    };
    Some((level, major, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stable_and_newer_versions_come_first() {
        let mut versions = [
            "v11alpha2",
            "foo1",
            "v3beta1",
            "v1",
            "v12alpha1",
            "v10",
            "v11beta2",
            "v10beta3",
            "v2",
            "foo10",
        ];
        versions.sort_by(|a, b| version_order(a, b));
        assert_eq!(
            versions,
            [
                "v10",
                "v2",
                "v1",
                "v11beta2",
                "v10beta3",
                "v3beta1",
                "v12alpha1",
                "v11alpha2",
                "foo1",
                "foo10"
            ]
        );
    }
}
