//! Functions on texts. Positions count characters.

use super::{Outcome, convert};
use crate::cel::{
    eval::{Run, failed},
    value::{Text, Value},
};

/// Pieces that `split` and `findAll` make at most.
const MAX_PIECES: usize = 100_000;

fn position(value: usize) -> Value<'static> {
    Value::Int(i64::try_from(value).unwrap_or(i64::MAX))
}

/// The byte at which a character begins.
fn byte_at(text: &str, character: i64) -> Option<usize> {
    let character = usize::try_from(character).ok()?;
    text.char_indices()
        .map(|(at, _)| at)
        .chain([text.len()])
        .nth(character)
}

/// The limit of `replace`, `split` and `findAll`; a negative one is none.
fn limit(value: Option<&Value<'_>>) -> Option<usize> {
    match value {
        None => Some(MAX_PIECES),
        Some(Value::Int(count)) => Some(usize::try_from(*count).unwrap_or(MAX_PIECES)),
        Some(_) => None,
    }
}

fn strs<'v>(values: &'v [Value<'_>]) -> Vec<&'v str> {
    values
        .iter()
        .map_while(|value| match value {
            Value::String(text) => Some(text.as_str()),
            _ => None,
        })
        .collect()
}

pub(super) fn call<'a>(
    run: &mut Run<'_, 'a>,
    name: &str,
    text: &str,
    arguments: &[Value<'a>],
) -> Option<Outcome<'a>> {
    let result = match (name, strs(arguments).as_slice(), arguments) {
        ("size", [], []) => {
            convert::size(&Value::String(Text::Borrowed(text))).and_then(|size| match size {
                Value::Int(size) => Some(Value::Int(size)),
                _ => None,
            })?
        }
        ("contains", [part], _) => Value::Bool(text.contains(part)),
        ("startsWith", [part], _) => Value::Bool(text.starts_with(part)),
        ("endsWith", [part], _) => Value::Bool(text.ends_with(part)),
        ("lowerAscii", [], []) => Value::owned(text.to_ascii_lowercase()),
        ("upperAscii", [], []) => Value::owned(text.to_ascii_uppercase()),
        ("trim", [], []) => Value::owned(text.trim()),
        ("reverse", [], []) => Value::owned(text.chars().rev().collect::<String>()),
        ("indexOf" | "lastIndexOf", [part], _) => {
            return index_of(name, text, part, &arguments[1..]);
        }
        ("charAt", _, [Value::Int(at)]) => return Some(char_at(text, *at)),
        ("substring", _, [Value::Int(from), rest @ ..]) => return substring(text, *from, rest),
        ("replace", [from, to, ..], _) => return replace(run, text, from, to, &arguments[2..]),
        ("split", [separator, ..], _) => {
            let limit = limit(arguments.get(1))?;
            let pieces: Vec<Value<'a>> = match limit {
                0 => Vec::new(),
                limit => text.splitn(limit, *separator).map(Value::owned).collect(),
            };
            // An empty separator gives the characters, without the empty ends.
            let pieces = if separator.is_empty() {
                text.chars()
                    .take(limit)
                    .map(|c| Value::owned(c.to_string()))
                    .collect()
            } else {
                pieces
            };
            Value::list(pieces)
        }
        ("matches" | "find" | "findAll", [pattern, ..], _) => {
            return Some(matching(run, name, text, pattern, &arguments[1..]));
        }
        _ => return None,
    };
    Some(Ok(result))
}

fn index_of<'a>(name: &str, text: &str, part: &str, rest: &[Value<'a>]) -> Option<Outcome<'a>> {
    let characters = |bytes: usize| position(text[..bytes].chars().count());
    let found = match (name, rest) {
        ("indexOf", []) => text.find(part),
        ("indexOf", [Value::Int(from)]) => match byte_at(text, *from) {
            Some(from) => text[from..].find(part).map(|at| at + from),
            None => return Some(Err(failed(format!("index out of range: {from}")))),
        },
        ("lastIndexOf", []) => text.rfind(part),
        ("lastIndexOf", [Value::Int(to)]) => match byte_at(text, *to) {
            Some(to) => text
                .char_indices()
                .map(|(at, _)| at)
                .chain([text.len()])
                .rfind(|at| *at <= to && text[*at..].starts_with(part)),
            None => return Some(Err(failed(format!("index out of range: {to}")))),
        },
        _ => return None,
    };
    Some(Ok(found.map_or(Value::Int(-1), characters)))
}

fn char_at<'a>(text: &str, at: i64) -> Outcome<'a> {
    match byte_at(text, at) {
        Some(byte) => Ok(Value::owned(
            text[byte..]
                .chars()
                .next()
                .map(String::from)
                .unwrap_or_default(),
        )),
        None => Err(failed(format!("index out of range: {at}"))),
    }
}

fn substring<'a>(text: &str, from: i64, rest: &[Value<'a>]) -> Option<Outcome<'a>> {
    let to = match rest {
        [] => Some(text.len()),
        [Value::Int(to)] => byte_at(text, *to),
        _ => return None,
    };
    Some(match (byte_at(text, from), to) {
        (Some(from), Some(to)) if from <= to => Ok(Value::owned(&text[from..to])),
        _ => Err(failed(format!("invalid substring range. start: {from}"))),
    })
}

fn replace<'a>(
    run: &mut Run<'_, 'a>,
    text: &str,
    from: &str,
    to: &str,
    rest: &[Value<'a>],
) -> Option<Outcome<'a>> {
    let count = limit(rest.first())?;
    let found = if from.is_empty() {
        text.chars().count() + 1
    } else {
        text.matches(from).take(count).count()
    };
    let size = text.len() + found.min(count) * to.len();
    Some(match run.spend(size) {
        Ok(()) => Ok(Value::owned(text.replacen(from, to, count))),
        Err(error) => Err(error),
    })
}

fn matching<'a>(
    run: &mut Run<'_, 'a>,
    name: &str,
    text: &str,
    pattern: &str,
    rest: &[Value<'a>],
) -> Outcome<'a> {
    // Matching takes time in proportion to text and pattern.
    run.spend(text.len().saturating_mul(1 + pattern.len() / 4))?;
    let regex = run.program.pattern(pattern).map_err(failed)?;
    Ok(match name {
        "matches" => Value::Bool(regex.is_match(text)),
        "find" => Value::owned(regex.find(text).map_or("", |found| found.as_str())),
        _ => {
            let Some(limit) = limit(rest.first()) else {
                return Err(failed("findAll: the limit is no number"));
            };
            run.spend(text.len() * 10)?;
            let found = regex.find_iter(text).take(limit);
            Value::list(found.map(|one| Value::owned(one.as_str())).collect())
        }
    })
}
