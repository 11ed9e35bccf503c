//! What expressions cost at most.

use serde_json::json;

use super::*;
use crate::custom::Node;

fn schema() -> Node {
    Node::compile(&json!({"type": "object", "properties": {
        "count": {"type": "integer"},
        "short": {"type": "string", "maxLength": 10},
        "color": {"type": "string", "enum": ["red", "green"]},
        "long": {"type": "string"},
        "few": {"type": "array", "maxItems": 5, "items": {"type": "string", "maxLength": 5}},
        "many": {"type": "array", "items": {"type": "integer"}},
        "labels": {"type": "object", "maxProperties": 3, "additionalProperties": {"type": "string", "maxLength": 5}}}}))
    .unwrap()
}

fn cost(source: &str) -> u64 {
    let node = schema();
    let size = Size::of_schema(&node, true);
    most_cost(source, &[("self", size)]).unwrap()
}

#[test]
fn costs_follow_the_sizes_that_the_schema_allows() {
    const LONG: u64 = MAX_REQUEST_BYTES - 2;
    for (source, most) in [
        ("true", 0),
        ("self.count", 2),
        // Two selections, a constant and a comparison.
        ("self.count > 1", 3),
        ("self.short == 'abc'", 3),
        ("self.short.startsWith('abc')", 3),
        ("self.short.contains('abc')", 2 + 4),
        ("self.short.matches('abcd')", 2 + 5),
        ("self.color == self.short", 2 + 2 + 1),
        ("self.long == self.long", 4 + LONG.div_ceil(10)),
        ("has(self.count)", 1),
        ("self.few.all(x, x == 'a')", 2 + 1 + 5 * (3 + 1 + 1)),
        ("self.few.exists(x, x == 'a')", 2 + 1 + 5 * (4 + 1 + 1)),
        ("self.few.map(x, x)", 2 + 11 + 5 * (12 + 1)),
        ("self.labels.all(k, k != '')", 2 + 1 + 3 * (3 + 1)),
        ("'a' in self.few", 2 + 5),
        ("[1, 2]", 10),
        ("self.count == 1 || self.count == 2", 6),
        ("self.short + self.short", 4 + 8),
        ("self.few.join(',')", 2 + 11),
        ("self.many.sum()", 2 + LONG / 2),
    ] {
        assert_eq!(cost(source), most, "{source}");
    }
}

#[test]
fn loops_in_loops_over_lists_without_limits_cost_too_much() {
    let nested = "self.many.all(a, self.many.all(b, a != b || a == 1))";
    assert!(cost(nested) > 100 * RULE_LIMIT);
    assert!(cost("self.few.all(a, self.few.all(b, a != b || a == 'x'))") < RULE_LIMIT);
    let deep = format!("{}true{}", "self.many.all(a, ".repeat(20), ")".repeat(20));
    assert_eq!(cost(&deep), u64::MAX);
}

#[test]
fn the_smallest_form_counts_what_is_required() {
    let node = Node::compile(&json!({"type": "object", "required": ["name", "on", "set"],
        "properties": {"name": {"type": "string"}, "on": {"type": "boolean"},
            "set": {"type": "integer", "default": 1}}}))
    .unwrap();
    assert_eq!(smallest_bytes(&node), 2 + (4 + 2 + 4) + (2 + 4 + 4));
}
