//! Which names of a definition are free, and what its status says about that.

use std::collections::HashMap;

use hull_api::{ObjectExt, custom::Definition, kinds::definition_condition};
use serde_json::{Value, json};

/// Names that definitions of the same group have been given: who has which.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// Plural, singular and short names.
    resources: HashMap<(String, String), String>,
    /// Kinds and kinds of lists.
    kinds: HashMap<(String, String), String>,
}

fn lists(names: &Value) -> (Vec<&str>, Vec<&str>) {
    let text = |field: &str| names.get(field).and_then(Value::as_str);
    let short = names.get("shortNames").and_then(Value::as_array);
    let resources = ["plural", "singular"]
        .into_iter()
        .filter_map(text)
        .chain(short.into_iter().flatten().filter_map(Value::as_str))
        .filter(|name| !name.is_empty())
        .collect();
    let kinds = ["kind", "listKind"]
        .into_iter()
        .filter_map(text)
        .filter(|name| !name.is_empty())
        .collect();
    (resources, kinds)
}

impl Names {
    /// Notes the names that a definition has.
    pub(super) fn claim(&mut self, object: &Value) {
        let group = Definition(object).group().to_string();
        let owner = object.name().to_string();
        let none = Value::Null;
        let names = object.pointer("/status/acceptedNames").unwrap_or(&none);
        let (resources, kinds) = lists(names);
        for name in resources {
            let key = (group.clone(), name.to_string());
            self.resources.entry(key).or_insert_with(|| owner.clone());
        }
        for name in kinds {
            let key = (group.clone(), name.to_string());
            self.kinds.entry(key).or_insert_with(|| owner.clone());
        }
    }

    fn is_taken(&self, object: &Value, is_kind: bool, name: &str) -> bool {
        let key = (Definition(object).group().to_string(), name.to_string());
        let names = if is_kind {
            &self.kinds
        } else {
            &self.resources
        };
        names.get(&key).is_some_and(|owner| owner != object.name())
    }

    /// Gives a definition the names that are free, and says so in its status.
    pub(super) fn accept(&mut self, object: &mut Value) {
        let requested = object.pointer("/spec/names").cloned().unwrap_or_default();
        let mut accepted = object
            .pointer("/status/acceptedNames")
            .cloned()
            .unwrap_or_else(|| json!({}));
        let mut conflict: Option<(String, String)> = None;
        for (field, reason) in [
            ("plural", "PluralConflict"),
            ("singular", "SingularConflict"),
            ("shortNames", "ShortNamesConflict"),
            ("kind", "KindConflict"),
            ("listKind", "ListKindConflict"),
        ] {
            let is_kind = field.ends_with("ind");
            let single = json!({ field: requested.get(field).cloned().unwrap_or_default() });
            let (resources, kinds) = lists(&single);
            let names = if is_kind { kinds } else { resources };
            let taken: Vec<String> = names
                .into_iter()
                .filter(|name| self.is_taken(object, is_kind, name))
                .map(|name| format!("{name:?} is already in use"))
                .collect();
            if taken.is_empty() {
                put(&mut accepted, field, requested.get(field));
            } else {
                conflict = Some((reason.to_string(), taken.join(", ")));
            }
        }
        put(&mut accepted, "categories", requested.get("categories"));
        object.set_at(&["status", "acceptedNames"], accepted);
        self.claim(object);
        match conflict {
            None => {
                definition_condition(
                    object,
                    "NamesAccepted",
                    true,
                    "NoConflicts",
                    "no conflicts found",
                );
                if !Definition(object).is("Established") {
                    definition_condition(
                        object,
                        "Established",
                        true,
                        "InitialNamesAccepted",
                        "the initial names have been accepted",
                    );
                }
            }
            Some((reason, message)) => {
                definition_condition(object, "NamesAccepted", false, &reason, &message);
                if !Definition(object).is("Established") {
                    definition_condition(
                        object,
                        "Established",
                        false,
                        "NotAccepted",
                        "not all names are accepted",
                    );
                }
            }
        }
    }
}

fn put(map: &mut Value, field: &str, value: Option<&Value>) {
    match value {
        Some(value) => map.set_at(&[field], value.clone()),
        None => drop(map.remove_at(&[field])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(plural: &str, kind: &str, short: &[&str]) -> Value {
        json!({"metadata": {"name": format!("{plural}.example.com")},
            "spec": {"group": "example.com", "names": {"plural": plural, "singular": plural,
                "kind": kind, "listKind": format!("{kind}List"), "shortNames": short}}})
    }

    #[test]
    fn the_first_definition_gets_a_name() {
        let mut names = Names::default();
        let mut first = definition("as", "A", &["x"]);
        names.accept(&mut first);
        assert!(Definition(&first).is("Established"));
        assert_eq!(first["status"]["acceptedNames"]["shortNames"], json!(["x"]));
        let mut second = definition("bs", "A", &["x"]);
        names.accept(&mut second);
        assert!(!Definition(&second).is("Established"));
        let why = Definition(&second).condition("NamesAccepted").unwrap();
        assert_eq!(why["reason"], "ListKindConflict");
        assert_eq!(why["message"], "\"AList\" is already in use");
        // Its own names are no conflict, also the second time.
        names.accept(&mut first);
        assert!(Definition(&first).is("NamesAccepted"));
    }

    #[test]
    fn what_was_accepted_stays_when_the_new_name_is_taken() {
        let mut names = Names::default();
        let (mut a, mut b) = (definition("as", "A", &["x"]), definition("bs", "B", &["y"]));
        names.accept(&mut a);
        names.accept(&mut b);
        b["spec"]["names"]["shortNames"] = json!(["x"]);
        names.accept(&mut b);
        assert!(Definition(&b).is("Established") && !Definition(&b).is("NamesAccepted"));
        assert_eq!(b["status"]["acceptedNames"]["shortNames"], json!(["y"]));
    }
}
