//! Scheduling gates: they hold a pod back until all are removed. Meanwhile its placement may
//! become narrower, never wider.

use serde_json::{Value, json};

use crate::{
    ObjectExt,
    field::{Errors, Path},
    names, time,
};

/// Reason of the condition `PodScheduled` while gates remain.
const GATED: &str = "SchedulingGated";

/// The gates are still there.
pub fn is_gated(pod: &Value) -> bool {
    !pod.list_at("/spec/schedulingGates").is_empty()
}

/// The condition of a new pod that waits for its gates; `None` when it has none.
pub(super) fn condition(pod: &Value) -> Option<Value> {
    is_gated(pod).then(|| {
        json!({
            "type": "PodScheduled",
            "status": "False",
            "lastProbeTime": null,
            "lastTransitionTime": time::to_seconds(jiff::Timestamp::now()),
            "reason": GATED,
            "message": "Scheduling is blocked due to non-empty scheduling gates",
        })
    })
}

/// Checks the gates of a pod's spec or that of a template.
pub(super) fn validate(spec: &Value, path: &Path, errors: &mut Errors) {
    let gates = spec.list_at("/schedulingGates");
    for (index, gate) in gates.iter().enumerate() {
        let path = path.child("schedulingGates").index(index);
        let name = gate.str_at("/name");
        for why in names::qualified_name(name) {
            errors.invalid(&path, name, why);
        }
        let mut earlier = gates.iter().take(index);
        if earlier.any(|other| other.str_at("/name") == name) {
            errors.duplicate(&path, name);
        }
    }
}

/// A new pod that is bound has nothing to wait for.
pub(super) fn validate_new(pod: &Value, errors: &mut Errors) {
    if is_gated(pod) && !pod.str_at("/spec/nodeName").is_empty() {
        errors.forbidden(
            &Path::new("spec.nodeName"),
            "cannot be set until all schedulingGates have been cleared",
        );
    }
}

/// Gates go, and never come.
pub(super) fn validate_update(new: &Value, old: &Value, errors: &mut Errors) {
    let before = old.list_at("/spec/schedulingGates");
    for (index, gate) in new.list_at("/spec/schedulingGates").iter().enumerate() {
        let name = gate.str_at("/name");
        if !before.iter().any(|other| other.str_at("/name") == name) {
            errors.forbidden(
                &Path::new("spec.schedulingGates").index(index).child("name"),
                format!("only deletion is allowed, but found new scheduling gate '{name}'"),
            );
        }
    }
}

/// What was asked of a node is still asked.
pub(super) fn validate_placement(new: &Value, old: &Value, errors: &mut Errors) {
    let kept = new.map_at("/spec/nodeSelector");
    let gone = old
        .map_at("/spec/nodeSelector")
        .into_iter()
        .flatten()
        .any(|(key, value)| kept.and_then(|kept| kept.get(key)) != Some(value));
    if gone {
        errors.invalid(
            &Path::new("spec.nodeSelector"),
            kept.cloned().map_or(Value::Null, Value::Object),
            "only additions to spec.nodeSelector are allowed (no mutations or deletions)",
        );
    }
    validate_node_affinity(new, old, errors);
}

fn validate_node_affinity(new: &Value, old: &Value, errors: &mut Errors) {
    const TERMS: &str = "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms";
    let path = Path::new(TERMS.trim_start_matches('/').replace('/', "."));
    let (before, after) = (old.list_at(TERMS), new.list_at(TERMS));
    // Whoever required nothing may begin to.
    if before.is_empty() {
        return;
    }
    if before.len() != after.len() {
        errors.invalid(
            &path,
            after.to_vec(),
            "no additions/deletions to non-empty NodeSelectorTerms list are allowed",
        );
        return;
    }
    for (index, (before, after)) in before.iter().zip(after).enumerate() {
        if !only_adds(after, before) {
            errors.invalid(
                &path.index(index),
                after.clone(),
                "only additions are allowed (no mutations or deletions)",
            );
        }
    }
}

/// The term begins with the requirements it had. One without any selects no node: with more it
/// would select some.
fn only_adds(after: &Value, before: &Value) -> bool {
    let lists = ["/matchExpressions", "/matchFields"];
    let none = |term: &Value| lists.iter().all(|list| term.list_at(list).is_empty());
    if none(before) {
        return none(after);
    }
    lists
        .iter()
        .all(|list| after.list_at(list).starts_with(before.list_at(list)))
}

/// Gives `allowed`, a changed pod, the placement that `old` has.
pub(super) fn keep_placement(allowed: &mut Value, old: &Value) {
    keep(allowed, old, &["spec", "nodeSelector"]);
    keep(allowed, old, &["spec", "affinity", "nodeAffinity"]);
    // A map that held nothing else came with what was added.
    let affinity = "/spec/affinity";
    let empty = |pod: &Value| pod.map_at(affinity).is_some_and(serde_json::Map::is_empty);
    if empty(allowed) && old.pointer(affinity).is_none() {
        allowed.remove_at(&["spec", "affinity"]);
    }
}

/// Gives the field of `to` the value that it has in `from`.
pub(super) fn keep(to: &mut Value, from: &Value, field: &[&str]) {
    match from.pointer(&format!("/{}", field.join("/"))) {
        Some(value) => to.set_at(field, value.clone()),
        None => {
            to.remove_at(field);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(spec: Value) -> Value {
        let mut pod = json!({"spec": {"containers": [{"name": "c", "image": "i"}]}});
        for (key, value) in spec.as_object().unwrap() {
            pod["spec"][key] = value.clone();
        }
        pod
    }

    fn changed(old: Value, new: Value) -> Vec<String> {
        let mut errors = Errors::default();
        crate::kinds::pod::update::validate(&pod(new), &pod(old), &mut errors);
        errors.into_vec().iter().map(ToString::to_string).collect()
    }

    fn affinity(terms: Value) -> Value {
        let required = json!({"nodeSelectorTerms": terms});
        json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}})
    }

    fn with_gate(field: &str, value: Value) -> Value {
        json!({"schedulingGates": [{"name": "g"}], field: value})
    }

    #[test]
    fn gates_go_and_do_not_come() {
        let two = json!({"schedulingGates": [{"name": "a"}, {"name": "b"}]});
        let one = json!({"schedulingGates": [{"name": "b"}]});
        assert!(changed(two.clone(), one.clone()).is_empty());
        assert!(changed(one.clone(), json!({})).is_empty());
        assert_eq!(
            changed(one, two),
            [
                "spec.schedulingGates[0].name: Forbidden: only deletion is allowed, but found new scheduling gate 'a'"
            ]
        );
    }

    #[test]
    fn a_gated_pod_may_ask_for_more_of_its_node() {
        let (a, b) = (
            json!({"key": "a", "operator": "Exists"}),
            json!({"key": "b", "operator": "Exists"}),
        );
        let terms = |list: Value| affinity(json!([{"matchExpressions": list}]));
        let selector = |value: Value| with_gate("nodeSelector", value);
        let gated = json!({"schedulingGates": [{"name": "g"}]});
        for (old, new) in [
            (gated.clone(), selector(json!({"a": "b"}))),
            (
                selector(json!({"a": "b"})),
                selector(json!({"a": "b", "c": "d"})),
            ),
            (gated, with_gate("affinity", terms(json!([a])))),
            (
                with_gate("affinity", terms(json!([a]))),
                with_gate("affinity", terms(json!([a, b]))),
            ),
        ] {
            assert_eq!(changed(old, new.clone()), [""; 0], "{new}");
        }
        let path = "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms";
        for (old, new, words) in [
            (
                selector(json!({"a": "b"})),
                selector(json!({"a": "c"})),
                "spec.nodeSelector: Invalid value: {\"a\":\"c\"}: only additions to spec.nodeSelector are allowed (no mutations or deletions)".to_string(),
            ),
            (
                with_gate("affinity", terms(json!([a]))),
                with_gate("affinity", terms(json!([b]))),
                format!("{path}[0]: Invalid value: {{\"matchExpressions\":[{{\"key\":\"b\",\"operator\":\"Exists\"}}]}}: only additions are allowed (no mutations or deletions)"),
            ),
            (
                with_gate("affinity", terms(json!([a]))),
                with_gate("affinity", affinity(json!([]))),
                format!("{path}: Invalid value: []: no additions/deletions to non-empty NodeSelectorTerms list are allowed"),
            ),
        ] {
            assert_eq!(changed(old, new), [words]);
        }
    }

    #[test]
    fn without_gates_the_placement_stays() {
        let told = changed(json!({}), json!({"nodeSelector": {"a": "b"}}));
        assert!(
            told[0].starts_with("spec: Forbidden: pod updates may not change fields"),
            "{told:?}"
        );
        let other = json!({"affinity": {"podAffinity": {}}, "schedulingGates": [{"name": "g"}]});
        let told = changed(json!({"schedulingGates": [{"name": "g"}]}), other);
        assert!(told[0].starts_with("spec: Forbidden"), "{told:?}");
    }

    #[test]
    fn names_of_gates_are_qualified_and_differ() {
        let spec =
            json!({"schedulingGates": [{"name": "a.b/c"}, {"name": "a.b/c"}, {"name": "?"}]});
        let mut errors = Errors::default();
        validate(&spec, &Path::new("spec"), &mut errors);
        let told: Vec<String> = errors.into_vec().iter().map(ToString::to_string).collect();
        assert_eq!(
            told[0],
            "spec.schedulingGates[1]: Duplicate value: \"a.b/c\""
        );
        assert!(
            told[1].starts_with("spec.schedulingGates[2]: Invalid value: \"?\""),
            "{told:?}"
        );
    }
}
