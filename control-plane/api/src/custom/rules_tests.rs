//! Rules and what they say.

use serde_json::json;

use super::*;
use crate::field::{Errors, Path};

fn node(spec: Value) -> Node {
    Node::compile(&json!({"type": "object", "properties": {"spec": spec}})).unwrap()
}

fn messages(node: &Node, spec: Value, old: Option<Value>) -> Vec<String> {
    let mut errors = Vec::new();
    let old = old.map(|spec| json!({ "spec": spec }));
    check(node, &json!({ "spec": spec }), old.as_ref(), &mut errors);
    errors.iter().map(ToString::to_string).collect()
}

fn replicas(rules: Value) -> Node {
    node(
        json!({"type": "object", "x-kubernetes-validations": rules, "properties": {
        "min": {"type": "integer"}, "max": {"type": "integer"},
        "name": {"type": "string", "x-kubernetes-validations": [
            {"rule": "self == oldSelf", "message": "name is immutable"}]},
        "when": {"type": "string", "format": "date-time"},
        "ports": {"type": "array", "items": {"type": "object", "properties": {
            "port": {"type": "integer"}}}}}}),
    )
}

#[test]
fn rules_speak_with_their_message_reason_and_path() {
    let node = replicas(json!([
        {"rule": "self.min <= self.max"},
        {"rule": "self.max < 10", "messageExpression": "'max is ' + string(self.max)",
            "reason": "FieldValueForbidden", "fieldPath": ".max"},
    ]));
    assert!(messages(&node, json!({"min": 1, "max": 2}), None).is_empty());
    assert_eq!(
        messages(&node, json!({"min": 30, "max": 20}), None),
        [
            "spec: Invalid value: failed rule: self.min <= self.max",
            "spec.max: Forbidden: max is 20"
        ]
    );
    assert_eq!(
        messages(&node, json!({"min": 3}), None)[0],
        "spec: Invalid value: no such key: max evaluating rule: self.min <= self.max"
    );
}

#[test]
fn transition_rules_need_something_old() {
    let node = replicas(json!([
        {"rule": "oldSelf.hasValue() || self.min == 1", "optionalOldSelf": true, "message": "begins with 1"}]));
    let (a, b) = (
        json!({"name": "a", "min": 1}),
        json!({"name": "b", "min": 2}),
    );
    assert!(messages(&node, a.clone(), None).is_empty());
    assert_eq!(
        messages(&node, b.clone(), None),
        ["spec: Invalid value: begins with 1"]
    );
    assert_eq!(
        messages(&node, b, Some(a)),
        ["spec.name: Invalid value: \"b\": name is immutable"]
    );
}

#[test]
fn what_did_not_change_is_not_checked_again() {
    let node = replicas(json!([{"rule": "self.max < 10"}]));
    let wrong = json!({"max": 20});
    assert!(messages(&node, wrong.clone(), Some(wrong)).is_empty());
}

#[test]
fn expensive_rules_end_with_an_error() {
    let rule =
        "self.ports.all(a, self.ports.all(b, self.ports.all(c, a.port + b.port + c.port > 0)))";
    let node = replicas(json!([{ "rule": rule, "message": "all" }]));
    let ports: Vec<Value> = (1..400).map(|port| json!({ "port": port })).collect();
    let found = messages(&node, json!({ "ports": ports }), None);
    assert_eq!(
        found,
        [
            "spec: Invalid value: 'operation cancelled: actual cost limit exceeded': no further validation rules will be run due to call cost exceeds limit for rule: all"
        ]
    );
}

#[test]
fn rules_that_cannot_be_are_refused_with_the_definition() {
    let schema = |rule: Value| {
        json!({"type": "object", "x-kubernetes-validations": [rule], "properties": {
            "a": {"type": "string"},
            "l": {"type": "array", "items": {"type": "string",
                "x-kubernetes-validations": [{"rule": "self == oldSelf"}]}}}})
    };
    for (rule, message) in [
        (
            "self.b == 1",
            "compilation failed: ERROR: <input>:1:5: undefined field 'b'\n | self.b == 1\n | ....^",
        ),
        (
            "self.a == 1",
            "compilation failed: ERROR: <input>:1:8: found no matching overload for '_==_' applied to '(string, int)'",
        ),
        ("self.a", "cel expression must evaluate to a bool"),
        (
            "self.a.startsWith(oldSelf)",
            "found no matching overload for 'startsWith' applied to 'string.(object)'",
        ),
        (
            "self.a.nope()",
            "undeclared reference to 'nope' (in container '')",
        ),
        (
            "nope > 1",
            "undeclared reference to 'nope' (in container '')",
        ),
        (
            "self.a ==",
            "ERROR: <input>:1:10: Syntax error: mismatched input",
        ),
        (
            "self.a.startsWith()",
            "found no matching overload for 'startsWith'",
        ),
        (
            "self.a.matches('(')",
            "invalid matches argument: error parsing regexp",
        ),
    ] {
        let mut errors = Errors::default();
        Node::compile_at(
            &schema(json!({ "rule": rule })),
            &Path::new("s"),
            &mut errors,
        )
        .unwrap();
        let found: Vec<String> = errors.into_vec().iter().map(ToString::to_string).collect();
        assert!(found.iter().any(|one| one.contains(message)), "{found:?}");
        assert!(
            found
                .iter()
                .any(|one| one
                    .contains("uncorrelatable portion of the schema within s.properties[l]")),
            "{found:?}"
        );
    }
}

#[test]
fn rules_with_wrong_types_are_refused_and_yet_run_where_they_are() {
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object",
        "x-kubernetes-validations": [{"rule": "self.a == 1 ? true : self.b", "messageExpression": "self.b"}],
        "properties": {"a": {"type": "integer"}, "b": {"x-kubernetes-int-or-string": true}}}}});
    let mut errors = Errors::default();
    let node = Node::compile_at(&schema, &Path::new("s"), &mut errors).unwrap();
    let found: Vec<String> = errors.into_vec().iter().map(ToString::to_string).collect();
    let at = "s.properties[spec].x-kubernetes-validations[0]";
    for (found, field, why) in [
        (&found[0], "rule", "cel expression must evaluate to a bool"),
        (
            &found[1],
            "messageExpression",
            "messageExpression must evaluate to a string",
        ),
    ] {
        let begins = format!("{at}.{field}: Invalid value: ");
        assert!(
            found.starts_with(&begins) && found.ends_with(why),
            "{found}"
        );
    }
    let wrong = messages(&node, json!({"a": 2, "b": "x"}), None);
    assert_eq!(wrong.len(), 1, "{wrong:?}");
}
