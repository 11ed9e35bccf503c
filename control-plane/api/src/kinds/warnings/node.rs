//! Nodes, and labels of nodes wherever they are asked for.

use serde_json::Value;

use super::Warnings;
use crate::{ObjectExt, field::Path, names};

/// Labels that nodes have no more, and what to use.
const DEPRECATED_LABELS: [(&str, &str); 8] = [
    (
        "beta.kubernetes.io/arch",
        "deprecated since v1.14; use \"kubernetes.io/arch\" instead",
    ),
    (
        "beta.kubernetes.io/os",
        "deprecated since v1.14; use \"kubernetes.io/os\" instead",
    ),
    (
        "failure-domain.beta.kubernetes.io/region",
        "deprecated since v1.17; use \"topology.kubernetes.io/region\" instead",
    ),
    (
        "failure-domain.beta.kubernetes.io/zone",
        "deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead",
    ),
    (
        "beta.kubernetes.io/instance-type",
        "deprecated since v1.17; use \"node.kubernetes.io/instance-type\" instead",
    ),
    ("app.kubernetes.io/created-by", "deprecated since v1.9"),
    (
        "scheduler.alpha.kubernetes.io/preferAvoidPods",
        "deprecated since v1.22; use Taints and Tolerations instead",
    ),
    (
        "node-role.kubernetes.io/master",
        "use \"node-role.kubernetes.io/control-plane\" instead",
    ),
];

/// What is said of a label of nodes.
pub(super) fn deprecated_label(key: &str) -> Option<&'static str> {
    let mut known = DEPRECATED_LABELS.iter();
    known
        .find(|(label, _)| *label == key)
        .map(|(_, words)| *words)
}

pub(super) fn of_node(node: &Value, out: &mut Warnings) {
    if node
        .pointer("/spec/configSource")
        .is_some_and(|source| !source.is_null())
    {
        out.tell("spec.configSource: the feature is removed");
    }
    if !node.str_at("/spec/externalID").is_empty() {
        out.tell("spec.externalID: this field is deprecated, and is unused by Kubernetes");
    }
}

pub(super) fn of_runtime_class(class: &Value, out: &mut Warnings) {
    let selector = class.map_at("/scheduling/nodeSelector");
    for words in selector
        .into_iter()
        .flatten()
        .filter_map(|(key, _)| deprecated_label(key))
    {
        out.at(&Path::new("scheduling.nodeSelector"), words);
    }
}

/// What the values of a term's expressions are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Values {
    /// Validated already.
    Checked,
    /// Never validated: of preferences.
    Unchecked,
}

/// A term of a selector of nodes.
pub(super) fn of_term(term: &Value, values: Values, path: &Path, out: &mut Warnings) {
    for (index, expression) in term.list_at("/matchExpressions").iter().enumerate() {
        let path = path.child("matchExpressions").index(index);
        of_expression(expression, &path, out);
        if values == Values::Checked {
            continue;
        }
        for (index, value) in expression.list_at("/values").iter().enumerate() {
            let value = value.as_str().unwrap_or_default();
            for why in names::label_value(value) {
                let path = path.child("values").index(index);
                out.at(&path, format!("{value} is invalid, {why}"));
            }
        }
    }
}

fn of_expression(expression: &Value, path: &Path, out: &mut Warnings) {
    let key = expression.str_at("/key");
    if let Some(words) = deprecated_label(key) {
        out.at(&path.child("key"), format!("{key} is {words}"));
    }
}

/// A label selector for nodes.
pub(super) fn of_selector(selector: &Value, path: &Path, out: &mut Warnings) {
    for (index, expression) in selector.list_at("/matchExpressions").iter().enumerate() {
        of_expression(
            expression,
            &path.child("matchExpressions").index(index),
            out,
        );
    }
    for key in selector
        .map_at("/matchLabels")
        .into_iter()
        .flatten()
        .map(|(key, _)| key)
    {
        if let Some(words) = deprecated_label(key) {
            out.at(&path.child("matchLabels").child(key), words);
        }
    }
}
