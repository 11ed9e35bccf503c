//! Semantic versions (semver.org 2.0.0).

use std::{cmp::Ordering, fmt};

use super::Outcome;
use crate::cel::{eval::failed, value::Value};

/// A version. What was built how does not matter to its order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// Major, minor, patch.
    numbers: [u64; 3],
    pre: Vec<Identifier>,
    build: String,
}

/// A part of a pre-release's name. Numbers come before texts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Identifier {
    Number(u64),
    Text(String),
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [major, minor, patch] = self.numbers;
        write!(f, "{major}.{minor}.{patch}")?;
        for (index, part) in self.pre.iter().enumerate() {
            let mark = if index == 0 { '-' } else { '.' };
            match part {
                Identifier::Number(number) => write!(f, "{mark}{number}")?,
                Identifier::Text(text) => write!(f, "{mark}{text}")?,
            }
        }
        match self.build.as_str() {
            "" => Ok(()),
            build => write!(f, "+{build}"),
        }
    }
}

impl Version {
    /// As versions follow each other.
    pub(in crate::cel) fn order(&self, other: &Version) -> Ordering {
        let by_number = self.numbers.cmp(&other.numbers);
        by_number.then_with(|| match (self.pre.is_empty(), other.pre.is_empty()) {
            // The release comes after what led to it.
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            _ => self.pre.cmp(&other.pre),
        })
    }
}

fn number(part: &str, name: &str) -> Result<u64, String> {
    if part.is_empty() || !part.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!(
            "Invalid character(s) found in {name} number {part:?}"
        ));
    }
    if part.len() > 1 && part.starts_with('0') {
        return Err(format!(
            "{name} number must not contain leading zeroes {part:?}"
        ));
    }
    part.parse()
        .map_err(|_| format!("{name} number is too large {part:?}"))
}

fn is_identifier(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

fn identifier(text: &str) -> Result<Identifier, String> {
    if !is_identifier(text) {
        return Err(format!("Invalid character(s) found in prerelease {text:?}"));
    }
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return number(text, "Prerelease").map(Identifier::Number);
    }
    Ok(Identifier::Text(text.to_string()))
}

fn parse(text: &str) -> Result<Version, String> {
    if text.is_empty() {
        return Err("Version string empty".to_string());
    }
    let (rest, build) = text.split_once('+').unwrap_or((text, ""));
    if rest.len() < text.len() && !build.split('.').all(is_identifier) {
        return Err(format!(
            "Invalid character(s) found in build meta data {build:?}"
        ));
    }
    let (core, pre) = match rest.split_once('-') {
        Some((core, pre)) => (
            core,
            pre.split('.').map(identifier).collect::<Result<_, _>>()?,
        ),
        None => (rest, Vec::new()),
    };
    let parts: Vec<&str> = core.split('.').collect();
    let [major, minor, patch] = parts.as_slice() else {
        return Err("No Major.Minor.Patch elements found".to_string());
    };
    Ok(Version {
        numbers: [
            number(major, "Major")?,
            number(minor, "Minor")?,
            number(patch, "Patch")?,
        ],
        pre,
        build: build.to_string(),
    })
}

/// Takes off a leading `v` and leading zeros, and fills up what is missing.
fn parse_normalized(text: &str) -> Result<Version, String> {
    let text = text.strip_prefix('v').unwrap_or(text);
    let mut parts: Vec<String> = text.splitn(3, '.').map(without_zeros).collect();
    if parts.len() < 3 && parts.last().is_some_and(|last| last.contains(['+', '-'])) {
        return Err("short version cannot contain PreRelease/Build meta data".to_string());
    }
    parts.resize(3, "0".to_string());
    parse(&parts.join("."))
}

fn without_zeros(part: &str) -> String {
    if part.len() < 2 {
        return part.to_string();
    }
    let rest = part.trim_start_matches('0');
    if rest.starts_with(|c: char| c.is_ascii_digit()) {
        return rest.to_string();
    }
    format!("0{rest}")
}

/// `semver` and `isSemver`.
pub(super) fn convert<'a>(name: &str, values: &[Value<'a>]) -> Option<Outcome<'a>> {
    let (text, normalizes) = match values {
        [Value::String(text)] => (text, false),
        [Value::String(text), Value::Bool(normalizes)] => (text, *normalizes),
        _ => return None,
    };
    let parsed = if normalizes {
        parse_normalized(text.as_str())
    } else {
        parse(text.as_str())
    };
    Some(match name {
        "isSemver" => Ok(Value::Bool(parsed.is_ok())),
        _ => parsed
            .map(|version| Value::Semver(version.into()))
            .map_err(failed),
    })
}

pub(super) fn call<'a>(name: &str, version: &Version, rest: &[Value<'a>]) -> Option<Outcome<'a>> {
    let part = |index: usize| Value::Int(i64::try_from(version.numbers[index]).unwrap_or(i64::MAX));
    Some(Ok(match (name, rest) {
        ("major", []) => part(0),
        ("minor", []) => part(1),
        ("patch", []) => part(2),
        (_, [Value::Semver(other)]) => {
            let order = version.order(other);
            match name {
                "isGreaterThan" => Value::Bool(order == Ordering::Greater),
                "isLessThan" => Value::Bool(order == Ordering::Less),
                "compareTo" => Value::Int(order as i64),
                _ => return None,
            }
        }
        _ => return None,
    }))
}
