//! What the rules of a definition may cost.

use super::node::Node;
use crate::{
    cel::cost::{self, DEFINITION_LIMIT, MAX_REQUEST_BYTES, RULE_LIMIT, Size},
    field::{Errors, Path},
};

/// Of rules that cost too much together, so many are named.
const NAMED: usize = 4;
/// Above this the factor says no more.
const LARGE_FACTOR: f64 = 100.0;
/// Below this one digit behind the point would say that nothing is wrong.
const SMALL_FACTOR: f64 = 1.5;

/// What the expressions at one place of a schema may cost.
pub(super) struct Cost<'n> {
    size: Size<'n>,
    /// How many values there may be that they are evaluated for.
    count: u64,
}

impl<'n> Cost<'n> {
    /// `cardinality`: how many such values there may be; `None`: as many as fit into a request.
    pub(super) fn of(node: &'n Node, root: bool, cardinality: Option<u64>) -> Self {
        let fitting = || MAX_REQUEST_BYTES / cost::smallest_bytes(node).saturating_add(1);
        Cost {
            size: Size::of_schema(node, root || node.embedded),
            count: cardinality.unwrap_or_else(fitting),
        }
    }

    fn most(&self, text: &str) -> u64 {
        let names = ["self", "oldSelf"].map(|name| (name, self.size.clone()));
        // What is no expression was said elsewhere.
        let once = cost::most_cost(text, &names).unwrap_or(0);
        once.saturating_mul(self.count)
    }

    pub(super) fn check_message(&self, text: &str, at: &Path, errors: &mut Errors) {
        let most = self.most(text);
        if most > RULE_LIMIT {
            let what = "estimated messageExpression cost";
            errors.forbidden(at, exceeds(what, most, RULE_LIMIT));
        }
    }
}

/// The costs of all rules.
#[derive(Default)]
pub(super) struct Costs(Vec<(u64, Path)>);

impl Costs {
    pub(super) fn rule(&mut self, cost: &Cost<'_>, text: &str, at: &Path, errors: &mut Errors) {
        let most = cost.most(text);
        if most > RULE_LIMIT {
            errors.forbidden(at, exceeds("estimated rule cost", most, RULE_LIMIT));
        }
        self.0.push((most, at.clone()));
    }

    /// They must not cost too much together either.
    pub(super) fn check(mut self, schema: &Path, errors: &mut Errors) {
        let sum = |sum: u64, (cost, _): &(u64, Path)| sum.saturating_add(*cost);
        let total = self.0.iter().fold(0, sum);
        if total <= DEFINITION_LIMIT {
            return;
        }
        self.0.sort_by_key(|(cost, _)| std::cmp::Reverse(*cost));
        for (_, at) in self.0.iter().take(NAMED) {
            let why = "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema";
            errors.forbidden(at, why);
        }
        let what = "estimated rule cost total for entire OpenAPIv3 schema";
        errors.forbidden(schema, exceeds(what, total, DEFINITION_LIMIT));
    }
}

#[allow(clippy::cast_precision_loss)] // A factor for people.
fn exceeds(what: &str, cost: u64, limit: u64) -> String {
    let factor = cost as f64 / limit as f64;
    let factor = match factor {
        factor if factor > LARGE_FACTOR => "more than 100x".to_string(),
        factor if factor < SMALL_FACTOR => format!("{factor:.6}x"),
        factor => format!("{factor:.1}x"),
    };
    format!(
        "{what} exceeds budget by factor of {factor} (try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)"
    )
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn wrong(schema: &Value) -> Vec<String> {
        let mut errors = Errors::default();
        Node::compile_at(schema, &Path::new("s"), &mut errors).unwrap();
        errors.into_vec().iter().map(ToString::to_string).collect()
    }

    fn list(limit: Option<u64>, rule: &str) -> Value {
        let mut list = json!({"type": "array", "items": {"type": "string", "maxLength": 10}});
        if let Some(limit) = limit {
            list["maxItems"] = json!(limit);
        }
        json!({"type": "object", "properties": {"l": list},
            "x-kubernetes-validations": [{"rule": rule}]})
    }

    #[test]
    fn rules_that_may_cost_too_much_are_refused() {
        let nested = "self.l.all(a, self.l.all(b, a == b || a != b))";
        assert!(wrong(&list(Some(100), nested)).is_empty());
        let found = wrong(&list(None, nested));
        assert_eq!(
            found[0],
            "s.x-kubernetes-validations[0].rule: Forbidden: estimated rule cost exceeds budget by factor of more than 100x (try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)"
        );
        assert!(
            found.iter().any(|one| one.starts_with(
                "s: Forbidden: estimated rule cost total for entire OpenAPIv3 schema exceeds budget by factor of more than 100x"
            )),
            "{found:?}"
        );
        assert!(
            found
                .iter()
                .any(|one| one.contains("contributed to estimated rule cost total"))
        );
    }

    #[test]
    fn rules_of_elements_are_counted_as_often_as_there_are_elements() {
        let schema = |limit: Option<u64>| {
            let mut list = json!({"type": "array", "items": {"type": "string",
                "x-kubernetes-validations": [{"rule": "self.contains(self)"}]}});
            if let Some(limit) = limit {
                list["maxItems"] = json!(limit);
                list["items"]["maxLength"] = json!(100);
            }
            json!({"type": "object", "properties": {"l": list}})
        };
        assert!(wrong(&schema(Some(1000))).is_empty());
        let found = wrong(&schema(None));
        assert!(
            found[0].contains("estimated rule cost exceeds budget"),
            "{found:?}"
        );
    }

    #[test]
    fn factors_are_written_as_kubernetes_writes_them() {
        for (cost, factor) in [
            (11_000_000, "1.100000x"),
            (25_000_000, "2.5x"),
            (2_000_000_000, "more than 100x"),
        ] {
            let words = exceeds("x", cost, RULE_LIMIT);
            assert!(
                words.starts_with(&format!("x exceeds budget by factor of {factor} (")),
                "{words}"
            );
        }
    }
}
