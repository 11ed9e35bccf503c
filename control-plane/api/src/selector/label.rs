//! Label selectors: the text form (`app=web,tier in (a,b),!old`) and the object form
//! (`matchLabels`, `matchExpressions`).

use serde_json::{Map, Value};

use super::SelectorError;
use crate::{ObjectExt, field, names};

/// How a requirement compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// One of the values.
    In,
    /// None of the values, or no such label.
    NotIn,
    /// The label is there.
    Exists,
    /// The label is not there.
    DoesNotExist,
    /// The label is an integer above the value.
    GreaterThan,
    /// The label is an integer below the value.
    LessThan,
}

/// One requirement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    /// The label.
    pub key: String,
    /// The comparison.
    pub operator: Operator,
    /// What to compare with.
    pub values: Vec<String>,
}

impl Requirement {
    fn matches(&self, label: Option<&str>) -> bool {
        let among = |label: &str| self.values.iter().any(|value| value == label);
        let compare = |wanted: std::cmp::Ordering| {
            let label = label.and_then(|label| label.parse::<i64>().ok());
            let bound = self.values.first().and_then(|v| v.parse::<i64>().ok());
            label.zip(bound).is_some_and(|(l, b)| l.cmp(&b) == wanted)
        };
        match self.operator {
            Operator::In => label.is_some_and(among),
            Operator::NotIn => !label.is_some_and(among),
            Operator::Exists => label.is_some(),
            Operator::DoesNotExist => label.is_none(),
            Operator::GreaterThan => compare(std::cmp::Ordering::Greater),
            Operator::LessThan => compare(std::cmp::Ordering::Less),
        }
    }

    fn check(self) -> Result<Self, SelectorError> {
        let wrong = |words: String| SelectorError(format!("unable to parse requirement: {words}"));
        if let Some(why) = names::qualified_name(&self.key).first() {
            return Err(wrong(format!(
                "<nil>: Invalid value: {:?}: {why}",
                self.key
            )));
        }
        for value in &self.values {
            if matches!(self.operator, Operator::GreaterThan | Operator::LessThan) {
                if value.parse::<i64>().is_err() {
                    return Err(wrong(format!(
                        "values[0][{}]: Invalid value: {value:?}: for 'Gt', 'Lt' operators, the value must be an integer",
                        self.key
                    )));
                }
            } else if let Some(why) = names::label_value(value).first() {
                return Err(wrong(format!(
                    "values[0][{}]: Invalid value: {value:?}: {why}",
                    self.key
                )));
            }
        }
        Ok(self)
    }
}

/// All requirements must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
}

impl LabelSelector {
    /// Reads the text form.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut parser = Parser {
            tokens: tokens(text),
            next: 0,
        };
        let mut requirements = Vec::new();
        if parser.peek().is_some() {
            loop {
                requirements.push(parser.requirement()?.check()?);
                match parser.take().as_deref() {
                    None => break,
                    Some(",") => {}
                    Some(other) => {
                        return Err(SelectorError(format!(
                            "unable to parse requirement: found '{other}', expected: ',' or 'end of string'"
                        )));
                    }
                }
            }
        }
        Ok(LabelSelector { requirements })
    }

    /// Reads a `LabelSelector` object, which selects everything when empty.
    pub fn from_object(selector: &Value) -> Result<Self, SelectorError> {
        let mut requirements = Vec::new();
        for (key, value) in selector.map_at("/matchLabels").into_iter().flatten() {
            requirements.push(Requirement {
                key: key.clone(),
                operator: Operator::In,
                values: vec![value.as_str().unwrap_or("").to_string()],
            });
        }
        for expression in selector.list_at("/matchExpressions") {
            let operator = match expression.str_at("/operator") {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => {
                    return Err(SelectorError(format!(
                        "{other:?} is not a valid label selector operator"
                    )));
                }
            };
            requirements.push(Requirement {
                key: expression.str_at("/key").to_string(),
                operator,
                values: expression
                    .list_at("/values")
                    .iter()
                    .filter_map(|value| value.as_str().map(str::to_string))
                    .collect(),
            });
        }
        Ok(LabelSelector { requirements })
    }

    /// It selects everything.
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    /// Its requirements.
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// Every requirement holds.
    pub fn matches(&self, labels: Option<&Map<String, Value>>) -> bool {
        self.matches_with(|key| labels?.get(key)?.as_str())
    }

    /// The same, with `label` giving a label's value.
    pub fn matches_with<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        let mut all = self.requirements.iter();
        all.all(|requirement| requirement.matches(label(&requirement.key)))
    }
}

impl std::fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (position, requirement) in self.requirements.iter().enumerate() {
            if position > 0 {
                f.write_str(",")?;
            }
            let key = &requirement.key;
            let values = requirement.values.join(",");
            match requirement.operator {
                Operator::In if requirement.values.len() == 1 => write!(f, "{key}={values}"),
                Operator::In => write!(f, "{key} in ({values})"),
                Operator::NotIn => write!(f, "{key} notin ({values})"),
                Operator::Exists => f.write_str(key),
                Operator::DoesNotExist => write!(f, "!{key}"),
                Operator::GreaterThan => write!(f, "{key}>{values}"),
                Operator::LessThan => write!(f, "{key}<{values}"),
            }?;
        }
        Ok(())
    }
}

/// Checks a `LabelSelector` object in a spec.
pub(crate) fn validate_object(
    selector: Option<&Value>,
    path: &field::Path,
    errors: &mut field::Errors,
) {
    let Some(selector) = selector else { return };
    validate_labels(
        selector.map_at("/matchLabels"),
        &path.child("matchLabels"),
        errors,
    );
    for (index, expression) in selector.list_at("/matchExpressions").iter().enumerate() {
        let path = path.child("matchExpressions").index(index);
        let count = expression.list_at("/values").len();
        match expression.str_at("/operator") {
            "In" | "NotIn" if count == 0 => errors.required(
                &path.child("values"),
                "must be specified when `operator` is 'In' or 'NotIn'",
            ),
            "Exists" | "DoesNotExist" if count > 0 => errors.forbidden(
                &path.child("values"),
                "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
            ),
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => errors.invalid(
                &path.child("operator"),
                other,
                "not a valid selector operator",
            ),
        }
        let key = expression.str_at("/key");
        for why in names::qualified_name(key) {
            errors.invalid(&path.child("key"), key, why);
        }
        for (at, value) in expression.list_at("/values").iter().enumerate() {
            let value = value.as_str().unwrap_or("");
            for why in names::label_value(value) {
                errors.invalid(&path.child("values").index(at), value, why);
            }
        }
    }
}

/// Checks a map of labels.
pub(crate) fn validate_labels(
    labels: Option<&Map<String, Value>>,
    path: &field::Path,
    errors: &mut field::Errors,
) {
    for (key, value) in labels.into_iter().flatten() {
        for why in names::qualified_name(key) {
            errors.invalid(path, key.as_str(), why);
        }
        let value = value.as_str().unwrap_or("");
        for why in names::label_value(value) {
            errors.invalid(path, value, why);
        }
    }
}

/// Words and the symbols `, ! = == != ( ) < >`.
fn tokens(text: &str) -> Vec<String> {
    let mut tokens: Vec<String> = Vec::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            c if c.is_whitespace() => {}
            '=' | '!' => {
                let mut symbol = c.to_string();
                if chars.next_if_eq(&'=').is_some() {
                    symbol.push('=');
                }
                tokens.push(symbol);
            }
            ',' | '(' | ')' | '<' | '>' => tokens.push(c.to_string()),
            c => {
                let mut word = c.to_string();
                while let Some(next) =
                    chars.next_if(|c| !c.is_whitespace() && !",()=!<>".contains(*c))
                {
                    word.push(next);
                }
                tokens.push(word);
            }
        }
    }
    tokens
}

struct Parser {
    tokens: Vec<String>,
    next: usize,
}

fn is_symbol(token: &str) -> bool {
    token.starts_with([',', '(', ')', '=', '!', '<', '>'])
}

impl Parser {
    fn peek(&self) -> Option<&str> {
        self.tokens.get(self.next).map(String::as_str)
    }

    fn take(&mut self) -> Option<String> {
        let token = self.tokens.get(self.next).cloned();
        self.next += 1;
        token
    }

    fn expected(found: Option<&str>, what: &str) -> SelectorError {
        SelectorError(format!(
            "unable to parse requirement: found '{}', expected: {what}",
            found.unwrap_or("")
        ))
    }

    fn word(&mut self) -> Result<String, SelectorError> {
        match self.take() {
            Some(word) if !is_symbol(&word) => Ok(word),
            other => Err(Self::expected(other.as_deref(), "identifier")),
        }
    }

    fn requirement(&mut self) -> Result<Requirement, SelectorError> {
        if self.peek() == Some("!") {
            self.next += 1;
            return Ok(Requirement {
                key: self.word()?,
                operator: Operator::DoesNotExist,
                values: Vec::new(),
            });
        }
        let key = self.word()?;
        let operator = match self.peek() {
            None | Some(",") => {
                return Ok(Requirement {
                    key,
                    operator: Operator::Exists,
                    values: Vec::new(),
                });
            }
            Some("=" | "==") => Operator::In,
            Some("!=") => Operator::NotIn,
            Some(">") => Operator::GreaterThan,
            Some("<") => Operator::LessThan,
            Some(word @ ("in" | "notin")) => {
                let operator = if word == "in" {
                    Operator::In
                } else {
                    Operator::NotIn
                };
                self.next += 1;
                let values = self.set()?;
                return Ok(Requirement {
                    key,
                    operator,
                    values,
                });
            }
            other => {
                return Err(Self::expected(other, "in, notin, =, ==, !=, gt, lt"));
            }
        };
        self.next += 1;
        // Nothing after the sign means the empty value.
        let value = match self.peek() {
            None | Some(",") => String::new(),
            Some(_) => self.word()?,
        };
        Ok(Requirement {
            key,
            operator,
            values: vec![value],
        })
    }

    fn set(&mut self) -> Result<Vec<String>, SelectorError> {
        match self.take().as_deref() {
            Some("(") => {}
            other => return Err(Self::expected(other, "'('")),
        }
        let mut values = Vec::new();
        loop {
            // An empty place is the empty value, as in `in (a,)`.
            match self.peek() {
                Some("," | ")") => values.push(String::new()),
                _ => values.push(self.word()?),
            }
            match self.take().as_deref() {
                Some(",") => {}
                Some(")") => return Ok(values),
                other => return Err(Self::expected(other, "',' or ')'")),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn selectors_select_by_labels() {
        let labels = json!({"app": "web", "tier": "1", "empty": ""});
        for (selector, expected) in [
            ("", true),
            ("app=web", true),
            ("app==web", true),
            ("app = web , tier", true),
            ("app!=web", false),
            ("missing!=x", true),
            ("app in (db, web)", true),
            ("app notin (db,web)", false),
            ("missing notin (a)", true),
            ("app", true),
            ("!app", false),
            ("!missing", true),
            ("tier>0", true),
            ("tier<1", false),
            ("empty=", true),
            ("app=web,tier=2", false),
            ("empty in ()", true),
        ] {
            let parsed = LabelSelector::parse(selector).unwrap();
            assert_eq!(parsed.matches(labels.as_object()), expected, "{selector}");
        }
    }

    #[test]
    fn unreadable_selectors_are_errors() {
        for bad in [
            "=", "a=b=c", "a in", "a in b", "a in (b", "a,", ",", "a b", "-x", "a=/", "a>x",
        ] {
            assert!(LabelSelector::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn objects_select_like_their_text() {
        let selector = json!({"matchLabels": {"app": "web"},
            "matchExpressions": [{"key": "tier", "operator": "In", "values": ["1", "2"]}]});
        let parsed = LabelSelector::from_object(&selector).unwrap();
        assert_eq!(parsed.to_string(), "app=web,tier in (1,2)");
        assert!(parsed.matches(json!({"app": "web", "tier": "2"}).as_object()));
        assert!(!parsed.matches(json!({"app": "web"}).as_object()));
    }
}
