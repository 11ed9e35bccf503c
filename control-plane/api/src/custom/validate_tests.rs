//! Values and what is said about them.

use super::*;
use serde_json::json;

fn messages(schema: Value, object: Value) -> Vec<String> {
    let node = Node::compile(&schema).unwrap();
    validate(&node, &object, None)
        .iter()
        .map(ToString::to_string)
        .collect()
}

fn spec(fields: Value) -> Value {
    json!({"type": "object", "properties": {"spec": {"type": "object", "properties": fields}}})
}

#[test]
fn wrong_values_are_named_in_kubernetes_words() {
    for (schema, value, message) in [
        (
            json!({"type": "integer"}),
            json!("x"),
            "spec.x: Invalid value: \"string\": spec.x in body must be of type integer: \"string\"",
        ),
        (
            json!({"type": "string"}),
            json!(null),
            "spec.x: Invalid value: \"null\": spec.x in body must be of type string: \"null\"",
        ),
        (
            json!({"x-kubernetes-int-or-string": true}),
            json!(true),
            "spec.x: Invalid value: \"boolean\": spec.x in body must be of type integer,string: \"boolean\"",
        ),
        (
            json!({"type": "integer", "minimum": 1}),
            json!(0),
            "spec.x: Invalid value: 0: spec.x in body should be greater than or equal to 1",
        ),
        (
            json!({"type": "number", "maximum": 1.5, "exclusiveMaximum": true}),
            json!(1.5),
            "spec.x: Invalid value: 1.5: spec.x in body should be less than 1.5",
        ),
        (
            json!({"type": "integer", "multipleOf": 5}),
            json!(7),
            "spec.x: Invalid value: 7: spec.x in body should be a multiple of 5",
        ),
        (
            json!({"type": "string", "pattern": "^a+$"}),
            json!("b"),
            "spec.x: Invalid value: \"b\": spec.x in body should match '^a+$'",
        ),
        (
            json!({"type": "string", "maxLength": 2}),
            json!("abc"),
            "spec.x: Too long: may not be more than 2 bytes",
        ),
        (
            json!({"type": "string", "minLength": 2}),
            json!("a"),
            "spec.x: Invalid value: \"a\": spec.x in body should be at least 2 chars long",
        ),
        (
            json!({"type": "string", "enum": ["b", "a"]}),
            json!("c"),
            "spec.x: Unsupported value: \"c\": supported values: \"b\", \"a\"",
        ),
        (
            json!({"type": "string", "format": "ipv4"}),
            json!("x"),
            "spec.x: Invalid value: \"x\": spec.x in body must be of type ipv4: \"x\"",
        ),
        (
            json!({"type": "array", "maxItems": 1, "items": {"type": "string"}}),
            json!(["a", "b"]),
            "spec.x: Too many: 2: must have at most 1 items",
        ),
        (
            json!({"type": "array", "items": {"type": "string"}}),
            json!(["a", 1]),
            "spec.x[1]: Invalid value: \"integer\": spec.x[1] in body must be of type string: \"integer\"",
        ),
        (
            json!({"type": "object", "required": ["y"]}),
            json!({}),
            "spec.x.y: Required value",
        ),
        (
            json!({"type": "object", "additionalProperties": {"type": "boolean"}}),
            json!({"k": 1}),
            "spec.x.k: Invalid value: \"integer\": spec.x.k in body must be of type boolean: \"integer\"",
        ),
        (
            json!({"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}}),
            json!(["a", "a"]),
            "spec.x[1]: Duplicate value: \"a\"",
        ),
        (
            json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["n"],
                "items": {"type": "object", "properties": {"n": {"type": "string"}}}}),
            json!([{"n": "a", "v": 1}, {"n": "a", "v": 2}]),
            "spec.x[1]: Duplicate value: {\"n\":\"a\"}",
        ),
        (
            json!({"type": "object", "x-kubernetes-embedded-resource": true,
                "x-kubernetes-preserve-unknown-fields": true}),
            json!({"apiVersion": "v1"}),
            "spec.x.kind: Required value: must not be empty",
        ),
    ] {
        let found = messages(
            spec(json!({ "x": schema })),
            json!({"spec": {"x": value.clone()}}),
        );
        assert_eq!(found, [message], "{value}");
    }
}

#[test]
fn alternatives_are_counted() {
    let either = json!({"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}},
        "oneOf": [{"required": ["a"]}, {"required": ["b"]}]});
    let schema = spec(json!({ "x": either }));
    assert_eq!(
        messages(schema.clone(), json!({"spec": {"x": {"a": "1"}}})),
        Vec::<String>::new()
    );
    assert_eq!(
        messages(schema.clone(), json!({"spec": {"x": {}}})),
        [
            "<nil>: Invalid value: \"\": \"spec.x\" must validate one and only one schema (oneOf). Found none valid",
            "spec.x.a: Required value",
        ]
    );
    assert_eq!(
        messages(schema, json!({"spec": {"x": {"a": "1", "b": "2"}}})),
        [
            "<nil>: Invalid value: \"\": \"spec.x\" must validate one and only one schema (oneOf). Found 2 valid alternatives"
        ]
    );
    let not = spec(json!({"x": {"type": "string", "not": {"enum": ["no"]}}}));
    assert_eq!(
        messages(not, json!({"spec": {"x": "no"}})),
        ["<nil>: Invalid value: \"\": \"spec.x\" must not validate the schema (not)"]
    );
}

#[test]
fn what_was_wrong_before_and_did_not_change_is_tolerated() {
    let node = Node::compile(&spec(json!({
        "a": {"type": "string", "maxLength": 1}, "b": {"type": "string", "maxLength": 1}})))
    .unwrap();
    let old = json!({"spec": {"a": "long", "b": "x"}});
    let same = json!({"spec": {"a": "long", "b": "y"}});
    assert!(validate(&node, &same, Some(&old)).is_empty());
    let worse = json!({"spec": {"a": "longer", "b": "y"}});
    assert_eq!(validate(&node, &worse, Some(&old)).len(), 1);
}

#[test]
fn endless_errors_and_endless_work_are_bounded() {
    let node = Node::compile(&spec(
        json!({"x": {"type": "array", "items": {"type": "string"}}}),
    ))
    .unwrap();
    let many = vec![json!(1); 10_000];
    let errors = validate(&node, &json!({"spec": {"x": many}}), None);
    assert_eq!(errors.len(), MAX_ERRORS);
    let alternatives = vec![json!({"minLength": 1}); 5_000];
    let node = Node::compile(&spec(
        json!({"x": {"type": "array", "items": {"type": "string", "allOf": alternatives}}}),
    ))
    .unwrap();
    let many = vec![json!("a"); 10_000];
    let errors = validate(&node, &json!({"spec": {"x": many}}), None);
    assert!(errors[0].to_string().contains("too large to be validated"));
}
