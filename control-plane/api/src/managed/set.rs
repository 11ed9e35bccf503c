//! A set of field paths, in the form of `FieldsV1`: `{"f:metadata":{"f:labels":{".":{},"f:a":{}}}}`.
//!
//! An element is `f:NAME` (field), `k:{"KEY":VALUE}` (list element by its keys) or `v:VALUE`
//! (element of a set). A node without children is a member; a node with children is one when
//! it has the child `.`.

use serde_json::{Map, Value};

const SELF: &str = ".";

/// A set of paths.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldSet(Map<String, Value>);

type Node = Map<String, Value>;

fn is_member(node: &Node) -> bool {
    node.is_empty() || node.contains_key(SELF)
}

fn children(node: &Node) -> impl Iterator<Item = (&String, &Node)> {
    node.iter()
        .filter(|(key, _)| *key != SELF)
        .filter_map(|(key, value)| value.as_object().map(|child| (key, child)))
}

/// The node's form for these children and this membership; `None`: nothing is left.
fn node(mut children: Node, member: bool) -> Option<Node> {
    if children.is_empty() {
        return member.then_some(children);
    }
    if member {
        children.insert(SELF.to_string(), Value::Object(Map::new()));
    }
    Some(children)
}

/// Combines the children of two nodes; `both` sees what each side has under an element.
fn combine(
    a: &Node,
    b: &Node,
    both: &impl Fn(Option<&Node>, Option<&Node>) -> Option<Node>,
) -> Node {
    let mut out = Map::new();
    for (key, child) in children(a) {
        let other = b.get(key).and_then(Value::as_object);
        if let Some(result) = both(Some(child), other) {
            out.insert(key.clone(), Value::Object(result));
        }
    }
    for (key, child) in children(b).filter(|(key, _)| !a.contains_key(*key)) {
        if let Some(result) = both(None, Some(child)) {
            out.insert(key.clone(), Value::Object(result));
        }
    }
    out
}

fn union(a: Option<&Node>, b: Option<&Node>) -> Option<Node> {
    match (a, b) {
        (Some(a), Some(b)) => node(combine(a, b, &union), is_member(a) || is_member(b)),
        (Some(one), None) | (None, Some(one)) => Some(one.clone()),
        (None, None) => None,
    }
}

fn difference(a: Option<&Node>, b: Option<&Node>) -> Option<Node> {
    match (a, b) {
        (Some(a), Some(b)) => node(combine(a, b, &difference), is_member(a) && !is_member(b)),
        (Some(a), None) => Some(a.clone()),
        (None, _) => None,
    }
}

fn intersection(a: Option<&Node>, b: Option<&Node>) -> Option<Node> {
    match (a, b) {
        (Some(a), Some(b)) => node(combine(a, b, &intersection), is_member(a) && is_member(b)),
        _ => None,
    }
}

impl FieldSet {
    /// Reads what a client sent; what is no path element is dropped.
    pub fn parse(value: &Value) -> Self {
        fn canonical(key: &str) -> Option<String> {
            match key.split_once(':')? {
                ("f", _) => Some(key.to_string()),
                (kind @ ("k" | "v" | "i"), text) => {
                    let value: Value = serde_json::from_str(text).ok()?;
                    Some(format!("{kind}:{value}"))
                }
                _ => None,
            }
        }
        fn read(value: &Node) -> Node {
            let member = is_member(value);
            let mut out = Map::new();
            for (key, child) in children(value) {
                if let Some(key) = canonical(key) {
                    out.insert(key, Value::Object(read(child)));
                }
            }
            node(out, member).unwrap_or_default()
        }
        match value.as_object() {
            Some(map) => {
                let mut root = read(map);
                root.remove(SELF);
                FieldSet(root)
            }
            None => FieldSet::default(),
        }
    }

    /// Takes over a set that is already in canonical form.
    pub(super) fn from_stored(map: Map<String, Value>) -> Self {
        FieldSet(map)
    }

    /// The children of a node, with whether the node itself belongs to the set.
    pub(super) fn child(&mut self, element: String, child: FieldSet, member: bool) {
        if let Some(node) = node(child.0, member) {
            self.0.insert(element, Value::Object(node));
        }
    }

    /// As stored.
    pub fn into_value(self) -> Value {
        Value::Object(self.0)
    }

    /// Nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Paths in either.
    pub fn union(&self, other: &FieldSet) -> FieldSet {
        FieldSet(combine(&self.0, &other.0, &union))
    }

    /// Paths here and not there.
    pub fn difference(&self, other: &FieldSet) -> FieldSet {
        FieldSet(combine(&self.0, &other.0, &difference))
    }

    /// Paths in both.
    pub fn intersection(&self, other: &FieldSet) -> FieldSet {
        FieldSet(combine(&self.0, &other.0, &intersection))
    }

    /// The nodes below the root.
    pub(super) fn root(&self) -> &Map<String, Value> {
        &self.0
    }

    /// Removes everything under an element of the root.
    pub(super) fn remove(&mut self, element: &str) {
        self.0.remove(element);
    }

    /// Keeps only these elements of the root.
    pub(super) fn retain(&mut self, keep: &[&str]) {
        self.0.retain(|key, _| keep.contains(&key.as_str()));
    }

    /// Removes fields of a struct below the root, and the struct's own membership.
    pub(super) fn remove_fields(&mut self, parent: &str, fields: &[&str]) {
        let Some(Value::Object(map)) = self.0.get_mut(parent) else {
            return;
        };
        map.remove(SELF);
        for field in fields {
            map.remove(*field);
        }
        if map.is_empty() {
            self.0.remove(parent);
        }
    }

    /// Every path, as messages write it: `.spec.containers[name="a"].image`.
    pub fn paths(&self) -> Vec<String> {
        fn walk(map: &Node, prefix: &str, out: &mut Vec<String>) {
            for (key, child) in children(map) {
                let path = format!("{prefix}{}", display(key));
                if is_member(child) {
                    out.push(path.clone());
                }
                walk(child, &path, out);
            }
        }
        let mut out = Vec::new();
        walk(&self.0, "", &mut out);
        out
    }
}

/// Whether a node in stored form is a member itself.
pub(super) fn node_is_member(node: &Map<String, Value>) -> bool {
    is_member(node)
}

/// The children of a node in stored form.
pub(super) fn node_children(
    node: &Map<String, Value>,
) -> impl Iterator<Item = (&String, &Map<String, Value>)> {
    children(node)
}

fn display(element: &str) -> String {
    match element.split_once(':') {
        Some(("f", name)) => format!(".{name}"),
        Some(("v", value)) => format!("[={value}]"),
        Some(("k", keys)) => match serde_json::from_str::<Map<String, Value>>(keys) {
            Ok(keys) => {
                let parts: Vec<String> = keys.iter().map(|(k, v)| format!("{k}={v}")).collect();
                format!("[{}]", parts.join(","))
            }
            Err(_) => format!("[{keys}]"),
        },
        _ => format!("[{element}]"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn set(value: Value) -> FieldSet {
        FieldSet::parse(&value)
    }

    #[test]
    fn a_node_with_children_is_a_member_only_with_the_dot() {
        let labels = set(json!({"f:metadata": {"f:labels": {"f:a": {}, ".": {}}}}));
        let only_a = set(json!({"f:metadata": {"f:labels": {"f:a": {}}}}));
        assert_eq!(
            labels.difference(&only_a).into_value(),
            json!({"f:metadata": {"f:labels": {}}})
        );
        assert_eq!(only_a.difference(&labels), FieldSet::default());
        assert_eq!(only_a.union(&labels), labels);
        assert_eq!(only_a.intersection(&labels), only_a);
    }

    #[test]
    fn sets_from_clients_become_canonical() {
        let parsed = set(json!({
            "f:spec": {"f:ports": {r#"k:{"protocol": "TCP",  "port":80}"#: {".": {}}}},
            "nonsense": {}, "k:{": {}, "f:bad": 3, ".": {},
        }));
        assert_eq!(
            parsed.clone().into_value(),
            json!({"f:spec": {"f:ports": {r#"k:{"port":80,"protocol":"TCP"}"#: {}}}})
        );
        assert_eq!(parsed.paths(), [r#".spec.ports[port=80,protocol="TCP"]"#]);
    }
}
