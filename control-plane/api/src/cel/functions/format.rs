//! `string.format`, as version 2 of CEL's library of text functions writes it: in American English
//! numbers, so that `%f` groups thousands and `%e` is `1.5 × 10⁰³`.

use std::fmt::Write as _;

use super::Outcome;
use crate::cel::{
    ast::{Expr, Kind, Literal},
    eval::{EvalError, Run, failed},
    value::{List, Map, Value, shortest_double},
};

/// Digits behind the point when a clause says nothing.
const DEFAULT_PRECISION: usize = 6;
/// Most digits behind the point: more say nothing of a double.
const MAX_PRECISION: usize = 100;
/// Deepest list or map that is written.
const MAX_DEPTH: usize = 32;
/// What stands around the multiplication sign: a narrow space that does not break.
const NARROW_SPACE: char = '\u{202f}';
const SUPERSCRIPTS: [char; 10] = ['⁰', '¹', '²', '³', '⁴', '⁵', '⁶', '⁷', '⁸', '⁹'];

/// What a clause makes of its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Clause {
    String,
    Decimal,
    Fixed(usize),
    Scientific(usize),
    Binary,
    Octal,
    Hex { upper: bool },
}

/// A piece of a format.
enum Piece<'f> {
    Text(&'f str),
    Clause(Clause),
}

/// The pieces of a format; `Err`: why it is none, with the number of values before.
fn pieces(format: &str, values: usize) -> Result<Vec<Piece<'_>>, String> {
    let mut out = Vec::new();
    let (mut rest, mut used) = (format, 0);
    while let Some(at) = rest.find('%') {
        out.push(Piece::Text(&rest[..at]));
        let tail = &rest[at + 1..];
        if let Some(after) = tail.strip_prefix('%') {
            out.push(Piece::Text("%"));
            rest = after;
            continue;
        }
        if used >= values {
            return Err(format!("index {used} out of range"));
        }
        if tail.is_empty() {
            return Err("unexpected end of string".to_string());
        }
        let (clause, after) =
            clause(tail).map_err(|why| format!("could not parse formatting clause: {why}"))?;
        out.push(Piece::Clause(clause));
        used += 1;
        rest = after;
    }
    out.push(Piece::Text(rest));
    Ok(out)
}

/// The clause that a text begins with, and the rest.
fn clause(text: &str) -> Result<(Clause, &str), String> {
    let (precision, rest) = match text.strip_prefix('.') {
        None => (DEFAULT_PRECISION, text),
        Some(tail) => {
            precision(tail).map_err(|why| format!("error while parsing precision: {why}"))?
        }
    };
    let mut letters = rest.chars();
    let clause = match letters.next() {
        Some('s') => Clause::String,
        Some('d') => Clause::Decimal,
        Some('f') => Clause::Fixed(precision),
        Some('e') => Clause::Scientific(precision),
        Some('b') => Clause::Binary,
        Some('o') => Clause::Octal,
        Some(letter @ ('x' | 'X')) => Clause::Hex {
            upper: letter == 'X',
        },
        Some(other) => return Err(format!("unrecognized formatting clause \"{other}\"")),
        None => return Err("unexpected end of string".to_string()),
    };
    Ok((clause, letters.as_str()))
}

fn precision(text: &str) -> Result<(usize, &str), String> {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .ok_or("could not find end of precision specifier")?;
    let digits: usize = text[..end].parse().map_err(|_| {
        format!(
            "error while converting precision to integer: strconv.Atoi: parsing {:?}: invalid syntax",
            &text[..end]
        )
    })?;
    if digits > MAX_PRECISION {
        return Err(format!(
            "precision {digits} exceeds maximum allowed precision {MAX_PRECISION}"
        ));
    }
    Ok((digits, &text[end..]))
}

/// What can be said of a call before there are values.
pub(in crate::cel) fn check(target: &Expr, arguments: &[Expr]) -> Result<(), String> {
    let (Kind::Literal(Literal::String(format)), [list]) = (&target.kind, arguments) else {
        return Ok(());
    };
    let Kind::List(items) = &list.kind else {
        return Ok(());
    };
    let pieces = pieces(format, items.len())?;
    let is_clause = |piece: &&Piece<'_>| matches!(piece, Piece::Clause(_));
    let wanted = pieces.iter().filter(is_clause).count();
    if items.len() > wanted {
        return Err(format!(
            "too many arguments supplied to string.format (expected {wanted}, got {})",
            items.len()
        ));
    }
    Ok(())
}

pub(super) fn call<'a>(run: &mut Run<'_, 'a>, format: &str, list: &List<'a>) -> Outcome<'a> {
    let pieces = pieces(format, list.len()).map_err(failed)?;
    let mut out = String::new();
    let mut values = list.iter();
    for piece in pieces {
        let before = out.len();
        match piece {
            Piece::Text(text) => out.push_str(text),
            Piece::Clause(clause) => {
                let value = values.next().unwrap_or(Value::Null);
                let mut writer = Writer { run, out: &mut out };
                writer.clause(clause, &value)?;
            }
        }
        run.spend(out.len() - before)?;
    }
    Ok(Value::owned(out))
}

struct Writer<'w, 'r, 'a> {
    run: &'w mut Run<'r, 'a>,
    out: &'w mut String,
}

fn refused(what: &str, value: &Value<'_>) -> EvalError {
    failed(format!(
        "error during formatting: {what}, was given {}",
        value.type_name()
    ))
}

impl Writer<'_, '_, '_> {
    fn clause(&mut self, clause: Clause, value: &Value<'_>) -> Result<(), EvalError> {
        match clause {
            Clause::String => return self.text(value, 0),
            Clause::Decimal => match value {
                Value::Int(number) => self.put(number),
                Value::Uint(number) => self.put(number),
                other => {
                    let what = "decimal clause can only be used on integers";
                    return Err(refused(what, other));
                }
            },
            Clause::Fixed(precision) => {
                let what = "fixed-point clause can only be used on doubles";
                let number = double(value).ok_or_else(|| refused(what, value))?;
                self.out.push_str(&fixed(number, precision));
            }
            Clause::Scientific(precision) => {
                let what = "scientific clause can only be used on doubles";
                let number = double(value).ok_or_else(|| refused(what, value))?;
                self.out.push_str(&scientific(number, precision));
            }
            Clause::Binary => match value {
                Value::Bool(yes) => self.put(u8::from(*yes)),
                Value::Int(number) => self.signed(*number, format!("{:b}", number.unsigned_abs())),
                Value::Uint(number) => self.put(format_args!("{number:b}")),
                other => {
                    let what = "only integers and bools can be formatted as binary";
                    return Err(refused(what, other));
                }
            },
            Clause::Octal => match value {
                Value::Int(number) => self.signed(*number, format!("{:o}", number.unsigned_abs())),
                Value::Uint(number) => self.put(format_args!("{number:o}")),
                other => {
                    let what = "octal clause can only be used on integers";
                    return Err(refused(what, other));
                }
            },
            Clause::Hex { upper } => {
                let start = self.out.len();
                match value {
                    Value::Int(number) => {
                        self.signed(*number, format!("{:x}", number.unsigned_abs()));
                    }
                    Value::Uint(number) => self.put(format_args!("{number:x}")),
                    Value::String(text) => self.bytes(text.as_str().as_bytes()),
                    Value::Bytes(bytes) => self.bytes(bytes),
                    other => {
                        let what =
                            "only integers, byte buffers, and strings can be formatted as hex";
                        return Err(refused(what, other));
                    }
                }
                if upper {
                    let made = self.out.split_off(start).to_ascii_uppercase();
                    self.out.push_str(&made);
                }
            }
        }
        Ok(())
    }

    fn put(&mut self, value: impl std::fmt::Display) {
        // Writing to a text does not fail.
        let _ = write!(self.out, "{value}");
    }

    fn signed(&mut self, number: i64, digits: String) {
        if number < 0 {
            self.out.push('-');
        }
        self.out.push_str(&digits);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.put(format_args!("{byte:02x}"));
        }
    }

    /// `%s`.
    fn text(&mut self, value: &Value<'_>, depth: usize) -> Result<(), EvalError> {
        match value {
            Value::Null => self.out.push_str("null"),
            Value::Double(number) => self.out.push_str(&shortest_double(*number)),
            Value::List(list) => return self.list(list, depth),
            Value::Map(map) => return self.map(map, depth),
            Value::Bool(_)
            | Value::Int(_)
            | Value::Uint(_)
            | Value::String(_)
            | Value::Bytes(_)
            | Value::Timestamp(_)
            | Value::Duration(_)
            | Value::Type(_) => {
                let text = value.to_text();
                let why = || {
                    failed(
                        "error during formatting: invalid UTF-8 in bytes, cannot convert to string",
                    )
                };
                self.out.push_str(&text.ok_or_else(why)?);
            }
            other => {
                let what = "string clause can only be used on strings, bools, bytes, ints, doubles, maps, lists, types, durations, and timestamps";
                return Err(refused(what, other));
            }
        }
        Ok(())
    }

    fn list(&mut self, list: &List<'_>, depth: usize) -> Result<(), EvalError> {
        self.run.spend(list.len())?;
        self.out.push('[');
        for (index, item) in list.iter().enumerate() {
            if index > 0 {
                self.out.push_str(", ");
            }
            self.literal(&item, depth)?;
        }
        self.out.push(']');
        Ok(())
    }

    /// Entries sorted by what their keys look like.
    fn map(&mut self, map: &Map<'_>, depth: usize) -> Result<(), EvalError> {
        self.run.spend(map.len())?;
        let mut entries = Vec::with_capacity(map.len());
        for (key, value) in map.entries() {
            let key = match &key {
                Value::String(text) => quoted(text.as_str()),
                Value::Bool(_) | Value::Int(_) | Value::Uint(_) => {
                    key.to_text().unwrap_or_default()
                }
                other => {
                    return Err(failed(format!(
                        "error during formatting: no formatting function for map key of type {}",
                        other.type_name()
                    )));
                }
            };
            let mut text = String::new();
            let mut writer = Writer {
                run: self.run,
                out: &mut text,
            };
            writer.literal(&value, depth)?;
            entries.push((key, text));
        }
        entries.sort_by(|a, b| a.0.cmp(&b.0));
        let entries: Vec<String> = entries.iter().map(|(k, v)| format!("{k}:{v}")).collect();
        self.put(format_args!("{{{}}}", entries.join(", ")));
        Ok(())
    }

    /// In a list or map values are written as CEL writes them.
    fn literal(&mut self, value: &Value<'_>, depth: usize) -> Result<(), EvalError> {
        if depth > MAX_DEPTH {
            return Err(failed("error during formatting: nested too deeply"));
        }
        let before = self.out.len();
        match value {
            Value::String(text) => self.out.push_str(&quoted(text.as_str())),
            Value::Bytes(bytes) => {
                let text = quoted(&String::from_utf8_lossy(bytes));
                self.put(format_args!("b{text}"));
            }
            Value::Double(number) if number.is_finite() => {
                self.put(format_args!("{number:.DEFAULT_PRECISION$}"));
            }
            Value::Double(number) => self.put(format_args!("\"{}\"", shortest_double(*number))),
            Value::Timestamp(_) | Value::Duration(_) => {
                let name = match value {
                    Value::Timestamp(_) => "timestamp",
                    _ => "duration",
                };
                let text = value.to_text().unwrap_or_default();
                self.put(format_args!("{name}(\"{text}\")"));
            }
            Value::Null
            | Value::Bool(_)
            | Value::Int(_)
            | Value::Uint(_)
            | Value::Type(_)
            | Value::List(_)
            | Value::Map(_) => self.text(value, depth + 1)?,
            other => {
                return Err(failed(format!(
                    "error during formatting: no formatting function for {}",
                    other.type_name()
                )));
            }
        }
        self.run.spend(self.out.len() - before)
    }
}

/// A double, or one of the texts that stand for one.
fn double(value: &Value<'_>) -> Option<f64> {
    match value {
        Value::Double(number) => Some(*number),
        Value::String(text) => match text.as_str() {
            "NaN" => Some(f64::NAN),
            "Infinity" => Some(f64::INFINITY),
            "-Infinity" => Some(f64::NEG_INFINITY),
            _ => None,
        },
        _ => None,
    }
}

fn not_finite(number: f64) -> &'static str {
    match number {
        number if number.is_nan() => "NaN",
        number if number > 0.0 => "∞",
        _ => "-∞",
    }
}

fn fixed(number: f64, precision: usize) -> String {
    if !number.is_finite() {
        return not_finite(number).to_string();
    }
    let plain = format!("{number:.precision$}");
    let (sign, plain) = match plain.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", plain.as_str()),
    };
    let (whole, part) = plain.split_at(plain.find('.').unwrap_or(plain.len()));
    let mut out = sign.to_string();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out + part
}

fn scientific(number: f64, precision: usize) -> String {
    if !number.is_finite() {
        return not_finite(number).to_string();
    }
    let plain = format!("{number:.precision$e}");
    let (mantissa, exponent) = plain.split_once('e').unwrap_or((&plain, "0"));
    let mut out = format!("{mantissa}{NARROW_SPACE}×{NARROW_SPACE}10");
    let digits = match exponent.strip_prefix('-') {
        Some(digits) => {
            out.push('⁻');
            digits
        }
        None => exponent,
    };
    for digit in format!("{digits:0>2}").chars() {
        let value = digit
            .to_digit(10)
            .and_then(|value| usize::try_from(value).ok());
        out.extend(value.and_then(|value| SUPERSCRIPTS.get(value)));
    }
    out
}

/// In double quotes, with Go's escapes.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for letter in text.chars() {
        match letter {
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            '\\' | '"' => {
                out.push('\\');
                out.push(letter);
            }
            letter if letter.is_ascii_control() => {
                let _ = write!(out, "\\x{:02x}", u32::from(letter));
            }
            letter if letter.is_control() => {
                let _ = write!(out, "\\u{:04x}", u32::from(letter));
            }
            letter => out.push(letter),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
#[path = "format_tests.rs"]
mod tests;
