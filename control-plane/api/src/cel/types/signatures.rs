//! What operators and functions take and make.

use std::{collections::HashMap, sync::LazyLock};

use super::Type;

mod table;

pub(super) const AUTHORIZER: &str = "kubernetes.authorization.Authorizer";
pub(super) const RESOURCE_CHECK: &str = "kubernetes.authorization.ResourceCheck";

/// Names of the table for types that only have functions.
const OPAQUE: [(&str, &str); 11] = [
    ("quantity", "kubernetes.Quantity"),
    ("ip", "net.IP"),
    ("cidr", "net.CIDR"),
    ("url", "kubernetes.URL"),
    ("semver", "kubernetes.Semver"),
    ("format", "kubernetes.NamedFormat"),
    ("authorizer", AUTHORIZER),
    ("pathcheck", "kubernetes.authorization.PathCheck"),
    ("groupcheck", "kubernetes.authorization.GroupCheck"),
    ("check", RESOURCE_CHECK),
    ("decision", "kubernetes.authorization.Decision"),
];

/// One overload. The value that a function is called on is the first of what it takes.
pub(super) struct Signature {
    pub(super) on_value: bool,
    pub(super) takes: Vec<Type<'static>>,
    /// As many more as there are.
    variadic: bool,
    pub(super) makes: Type<'static>,
}

static SIGNATURES: LazyLock<HashMap<&'static str, Vec<Signature>>> = LazyLock::new(|| {
    let mut all: HashMap<&'static str, Vec<Signature>> = HashMap::new();
    for line in lines() {
        if let Some((name, signature)) = parse(line) {
            all.entry(name).or_default().push(signature);
        }
    }
    all
});

fn lines() -> impl Iterator<Item = &'static str> {
    let tables = [table::OPERATORS, table::FUNCTIONS, table::KUBERNETES];
    tables
        .into_iter()
        .flat_map(str::lines)
        .map(str::trim)
        .filter(|line| !line.is_empty())
}

/// Every overload of a name.
pub(super) fn overloads(name: &str) -> &'static [Signature] {
    SIGNATURES.get(name).map_or(&[], Vec::as_slice)
}

impl Signature {
    pub(super) fn takes_so_many(&self, count: usize) -> bool {
        self.takes.len() == count || (self.variadic && count >= self.takes.len())
    }

    /// The type of an argument by its place.
    pub(super) fn at(&self, place: usize) -> Option<&Type<'static>> {
        self.takes
            .get(place.min(self.takes.len().saturating_sub(1)))
    }
}

/// Whether a call fits a function, by the number of its arguments.
pub(in crate::cel) enum Known {
    /// It does.
    Yes,
    /// There is one of that name, with other arguments.
    OtherArguments,
    /// There is none.
    No,
}

/// Looks a call up; `arguments` does not count the value that it is called on.
pub(in crate::cel) fn known(name: &str, on_value: bool, arguments: usize) -> Known {
    let overloads = overloads(name);
    let count = arguments + usize::from(on_value);
    let fits = |one: &Signature| one.on_value == on_value && one.takes_so_many(count);
    if overloads.iter().any(fits) {
        return Known::Yes;
    }
    if overloads.is_empty() {
        Known::No
    } else {
        Known::OtherArguments
    }
}

/// A line: `name(types) type`, or `type:name(types) type`.
fn parse(line: &'static str) -> Option<(&'static str, Signature)> {
    let (call, makes) = line.rsplit_once(' ')?;
    // The bracket before the arguments is the one that the last one closes.
    let open = matching_bracket(call)?;
    let inside = call.get(open + 1..call.len() - 1)?;
    let (target, name) = match call[..open].rsplit_once(':') {
        // An operator has colons of its own.
        Some((target, name)) if !call.starts_with('_') => (Some(target), name),
        _ => (None, &call[..open]),
    };
    let mut takes: Vec<Type<'static>> = Vec::new();
    if let Some(target) = target {
        takes.push(type_named(target)?);
    }
    let (inside, variadic) = match inside.strip_suffix("...") {
        Some(inside) => (inside, true),
        None => (inside, false),
    };
    for part in split(inside) {
        takes.push(type_named(part)?);
    }
    let makes = type_named(makes)?;
    let signature = Signature {
        on_value: target.is_some(),
        takes,
        variadic,
        makes,
    };
    Some((name, signature))
}

fn matching_bracket(call: &str) -> Option<usize> {
    let mut depth = 0;
    for (at, byte) in call.bytes().enumerate().rev() {
        match byte {
            b')' => depth += 1,
            b'(' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(at);
        }
    }
    None
}

/// The parts between commas, brackets being respected.
fn split(text: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0, 0);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'(' => depth += 1,
            b')' => depth -= 1,
            b',' if depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    if !text.is_empty() {
        parts.push(&text[start..]);
    }
    parts
}

fn type_named(text: &str) -> Option<Type<'static>> {
    if let Some((name, inside)) = text.split_once('(') {
        let parts: Option<Vec<_>> = split(inside.strip_suffix(')')?)
            .into_iter()
            .map(type_named)
            .collect();
        let mut parts = parts?.into_iter();
        return match name {
            "list" => Some(Type::list(parts.next()?)),
            "map" => Some(Type::map(parts.next()?, parts.next()?)),
            "optional" => Some(Type::Optional(parts.next()?.into())),
            _ => None,
        };
    }
    Some(match text {
        "dyn" => Type::Dyn,
        "bool" => Type::Bool,
        "int" => Type::Int,
        "uint" => Type::Uint,
        "double" => Type::Double,
        "string" => Type::String,
        "bytes" => Type::Bytes,
        "timestamp" => Type::Timestamp,
        "duration" => Type::Duration,
        "type" => Type::Type,
        _ => match text.as_bytes() {
            [letter @ b'A'..=b'Z'] => Type::Parameter(char::from(*letter)),
            _ => {
                let found = OPAQUE.into_iter().find(|(name, _)| *name == text);
                Type::Opaque(found?.1)
            }
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_tables_can_be_read() {
        for line in lines() {
            assert!(parse(line).is_some(), "{line}");
        }
        assert!(matches!(known("size", true, 0), Known::Yes));
        assert!(matches!(known("size", true, 1), Known::OtherArguments));
        assert!(matches!(known("nope", false, 0), Known::No));
        assert!(matches!(known("math.greatest", false, 7), Known::Yes));
        assert!(matches!(
            known("math.greatest", false, 0),
            Known::OtherArguments
        ));
        let ternary = &overloads("_?_:_")[0];
        assert_eq!(ternary.takes.len(), 3);
        let index = &overloads("_[_]")[0];
        assert_eq!(index.takes[0].to_string(), "list(A)");
    }
}
