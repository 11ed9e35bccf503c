//! Which writes a policy or webhook is about.

use hull_api::{ObjectExt, kinds, selector::LabelSelector};
use serde_json::Value;

use super::Attributes;

/// One rule; every list may hold `*`.
#[derive(Debug)]
struct Rule {
    operations: Vec<String>,
    groups: Vec<String>,
    versions: Vec<String>,
    resources: Vec<String>,
    names: Vec<String>,
    scope: String,
}

/// Rules and selectors.
#[derive(Debug)]
pub(super) struct Matcher {
    rules: Vec<Rule>,
    excluded: Vec<Rule>,
    /// Other versions of the resource count too.
    equivalent: bool,
    namespaces: LabelSelector,
    objects: LabelSelector,
}

fn texts(value: &Value, field: &str) -> Vec<String> {
    let list = value.list_at(&format!("/{field}"));
    let texts = list.iter().filter_map(Value::as_str);
    texts.map(str::to_string).collect()
}

fn rules(value: &Value, field: &str) -> Vec<Rule> {
    value
        .list_at(&format!("/{field}"))
        .iter()
        .map(|rule| Rule {
            operations: texts(rule, "operations"),
            groups: texts(rule, "apiGroups"),
            versions: texts(rule, "apiVersions"),
            resources: texts(rule, "resources"),
            names: texts(rule, "resourceNames"),
            scope: rule.str_at("/scope").to_string(),
        })
        .collect()
}

fn selector(value: &Value, field: &str) -> LabelSelector {
    let empty = Value::Null;
    let selector = value.get(field).unwrap_or(&empty);
    LabelSelector::from_object(selector).unwrap_or_default()
}

impl Matcher {
    /// Reads a webhook, whose rules are in `rules`, or match resources, which have
    /// `resourceRules`.
    pub(super) fn read(value: &Value, field: &str) -> Self {
        Matcher {
            rules: rules(value, field),
            excluded: rules(value, "excludeResourceRules"),
            equivalent: value.str_at("/matchPolicy") != "Exact",
            namespaces: selector(value, "namespaceSelector"),
            objects: selector(value, "objectSelector"),
        }
    }

    /// Without rules everything is matched (bindings), the selectors count all the same.
    pub(super) fn matches(&self, attributes: &Attributes<'_>) -> bool {
        let fits = |rule: &Rule| rule.matches(attributes, self.equivalent);
        (self.rules.is_empty() || self.rules.iter().any(fits))
            && !self.excluded.iter().any(fits)
            && self.selects_object(attributes)
            && self.selects_namespace(attributes)
    }

    /// A webhook without rules is about nothing.
    pub(super) fn has_rules(&self) -> bool {
        !self.rules.is_empty()
    }

    fn selects_object(&self, attributes: &Attributes<'_>) -> bool {
        // The options of a connection have no labels, which is not the same as having none set.
        let fits = |object: Option<&Value>| {
            object.is_some_and(|object| {
                object.get("metadata").is_some() && self.objects.matches(object.labels())
            })
        };
        self.objects.is_empty() || fits(attributes.object) || fits(attributes.old)
    }

    fn selects_namespace(&self, attributes: &Attributes<'_>) -> bool {
        if self.namespaces.is_empty() {
            return true;
        }
        let context = attributes.context;
        let kind = context.kind;
        if kind.storage == kinds::NAMESPACES.storage {
            let object = attributes.any();
            return object.is_some_and(|object| self.namespaces.matches(object.labels()));
        }
        if !kind.namespaced {
            return true;
        }
        let namespaces = &kinds::NAMESPACES;
        let key = namespaces.key("", attributes.namespace());
        let found = context.backend.cache.get(namespaces.storage, &key);
        match found {
            Some(found) => found.has_labels(&self.namespaces),
            None => self.namespaces.matches(None),
        }
    }
}

fn holds(list: &[String], wanted: &str) -> bool {
    list.iter().any(|one| one == "*" || one == wanted)
}

impl Rule {
    fn matches(&self, attributes: &Attributes<'_>, equivalent: bool) -> bool {
        let kind = attributes.context.kind;
        let scope = match self.scope.as_str() {
            "Namespaced" => kind.namespaced,
            "Cluster" => !kind.namespaced,
            _ => true,
        };
        let named = self.names.is_empty() || self.names.iter().any(|n| n == attributes.name());
        if !scope || !named || !holds(&self.operations, attributes.operation.as_str()) {
            return false;
        }
        let resource = attributes.resource();
        let direct = |group: &str, version: &str| {
            holds(&self.groups, group) && holds(&self.versions, version) && self.is_about(&resource)
        };
        if direct(kind.group, kind.version) {
            return true;
        }
        let registry = attributes.context.backend.kinds.current();
        equivalent
            && registry
                .registry
                .kinds()
                .iter()
                .any(|other| other.storage == kind.storage && direct(other.group, other.version))
    }

    fn is_about(&self, resource: &str) -> bool {
        let (plural, part) = resource.split_once('/').unwrap_or((resource, ""));
        self.resources
            .iter()
            .any(|pattern| match pattern.split_once('/') {
                None => part.is_empty() && (pattern == "*" || pattern == plural),
                Some((name, sub)) => {
                    (name == "*" || name == plural)
                        && (sub == part || (sub == "*" && (name == "*" || !part.is_empty())))
                }
            })
    }
}
