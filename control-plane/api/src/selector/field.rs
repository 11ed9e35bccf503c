//! Field selectors: `spec.nodeName=a,status.phase!=Running`.

use super::SelectorError;

/// One term.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Term {
    field: String,
    equal: bool,
    value: String,
}

/// All terms must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldSelector {
    terms: Vec<Term>,
}

impl FieldSelector {
    /// Reads a selector; `\` escapes `,`, `=` and itself.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut terms = Vec::new();
        for part in split_terms(text) {
            if part.is_empty() {
                continue;
            }
            terms.push(parse_term(&part).ok_or_else(|| {
                SelectorError(format!(
                    "invalid selector: {part:?}; can't understand {part:?}"
                ))
            })?);
        }
        Ok(FieldSelector { terms })
    }

    /// It selects everything.
    pub fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    /// The fields it asks about.
    pub fn fields(&self) -> impl Iterator<Item = &str> {
        self.terms.iter().map(|term| term.field.as_str())
    }

    /// The value that a field must have, when the selector says so.
    pub fn required(&self, field: &str) -> Option<&str> {
        self.terms
            .iter()
            .find(|term| term.equal && term.field == field)
            .map(|term| term.value.as_str())
    }

    /// Every term holds, with `value_of` giving a field's value.
    pub fn matches<'a>(
        &self,
        value_of: impl Fn(&str) -> Option<std::borrow::Cow<'a, str>>,
    ) -> bool {
        self.terms.iter().all(|term| {
            let value = value_of(&term.field).unwrap_or_default();
            (value == term.value.as_str()) == term.equal
        })
    }
}

/// Splits at commas that are not escaped; escapes stay.
fn split_terms(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut escaped = false;
    for c in text.chars() {
        if c == ',' && !escaped {
            parts.push(String::new());
            continue;
        }
        escaped = c == '\\' && !escaped;
        if let Some(last) = parts.last_mut() {
            last.push(c);
        }
    }
    parts
}

fn parse_term(part: &str) -> Option<Term> {
    let at = part.find('=')?;
    let (left, right) = part.split_at(at);
    let (field, equal) = match left.strip_suffix('!') {
        Some(field) => (field, false),
        None => (left, true),
    };
    let right = &right[1..];
    let value = if equal {
        right.strip_prefix('=').unwrap_or(right)
    } else {
        right
    };
    Some(Term {
        field: field.trim().to_string(),
        equal,
        value: unescape(value)?,
    })
}

/// An unescaped `=` is an error, as is a lone `\`.
fn unescape(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(next @ ('\\' | ',' | '=')) => out.push(next),
                _ => return None,
            },
            '=' => return None,
            c => out.push(c),
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::borrow::Cow;

    fn matches(selector: &str) -> bool {
        FieldSelector::parse(selector)
            .unwrap()
            .matches(|field| match field {
                "spec.nodeName" => Some(Cow::from("a")),
                "metadata.name" => Some(Cow::from("x,y")),
                _ => None,
            })
    }

    #[test]
    fn terms_are_anded() {
        for (selector, expected) in [
            ("", true),
            ("spec.nodeName=a", true),
            ("spec.nodeName==a", true),
            ("spec.nodeName!=a", false),
            ("spec.nodeName=a,status.phase=Running", false),
            ("status.phase!=Running", true),
            ("status.phase=", true),
            ("metadata.name=x\\,y", true),
        ] {
            assert_eq!(matches(selector), expected, "{selector}");
        }
    }

    #[test]
    fn unreadable_selectors_are_errors() {
        for bad in ["a", "a=b=c", "a=\\", "a=\\x"] {
            assert!(FieldSelector::parse(bad).is_err(), "{bad}");
        }
    }
}
