//! What clients may send: bytes become bodies, patches, applied configurations, expressions and
//! selectors. Nothing of it may panic, run without end, or break what is said of the outcome.
//!
//! ```text
//! bytes ── up to three parts, split at NUL ──► decoder ──► checks of the outcome
//! ```
//! The fuzz targets in `control-plane/api/fuzz` and the tests here play the same bytes.

#[cfg(test)]
mod tests;

use jiff::Timestamp;
use serde_json::Value;

use crate::{
    cel::{CALL_COST, Declared, Program, Value as CelValue},
    cron::Schedule,
    decode::parse_json,
    managed::{Apply, Reset, TypeRef, Write, apply, update},
    patch::{json_patch, merge_patch, strategic_merge},
    protobuf,
    quantity::Quantity,
    registry::Registry,
    schema::{conform_named, schema},
    selector::{FieldSelector, LabelSelector},
    time,
};

/// The type that patches and configurations are of.
const TYPE: &str = "core.Pod";

/// Something that takes hostile bytes.
pub struct Target {
    /// Name, of the fuzz target and its seeds too.
    pub name: &'static str,
    /// Plays the bytes; panics when something happened that must not.
    pub run: fn(&[u8]),
}

/// All of them.
pub const TARGETS: [Target; 6] = [
    Target {
        name: "json",
        run: json,
    },
    Target {
        name: "protobuf",
        run: protobuf,
    },
    Target {
        name: "patch",
        run: patch,
    },
    Target {
        name: "apply",
        run: apply_twice,
    },
    Target {
        name: "cel",
        run: cel,
    },
    Target {
        name: "text",
        run: text,
    },
];

/// Plays the bytes against the target of that name.
pub fn run(name: &str, data: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name);
    (target.unwrap().run)(data);
}

/// Two JSON documents.
fn two(data: &[u8]) -> Option<(Value, Value)> {
    let mut parts = data.splitn(2, |byte| *byte == 0);
    let mut next = || Some(parse_json(parts.next()?).ok()?.value);
    Some((next()?, next()?))
}

/// A body of a kind: it is what a plain parser reads, and conforms or is refused.
fn json(data: &[u8]) {
    let Ok(decoded) = parse_json(data) else {
        return;
    };
    let plain: Value = serde_json::from_slice(data).unwrap();
    assert_eq!(decoded.value, plain);
    for kind in Registry::get().kinds() {
        let mut value = plain.clone();
        if conform_named(kind.schema, &mut value).is_ok() {
            let once = value.clone();
            conform_named(kind.schema, &mut value).unwrap();
            assert_eq!(value, once, "what conforms does not change again");
        }
    }
}

/// A body in protobuf: what is read can be written, and is then read as the same.
fn protobuf(data: &[u8]) {
    let Ok(envelope) = protobuf::open(data) else {
        return;
    };
    let Some(id) = schema().by_kind(envelope.api_version, envelope.kind) else {
        return;
    };
    let Ok(value) = protobuf::decode(id, envelope.raw) else {
        return;
    };
    let Ok(written) = protobuf::encode(id, &value) else {
        return;
    };
    assert_eq!(protobuf::decode(id, &written), Ok(value));
}

/// A patch of each form.
fn patch(data: &[u8]) {
    let Some((object, patch)) = two(data) else {
        return;
    };
    let _ = json_patch(&mut object.clone(), &patch);
    let mut merged = object.clone();
    if merge_patch(&mut merged, &patch).is_ok() {
        let once = merged.clone();
        merge_patch(&mut merged, &patch).unwrap();
        assert_eq!(merged, once, "a merge patch is idempotent (RFC 7396)");
    }
    let _ = strategic_merge(TYPE, &mut object.clone(), &patch);
}

/// A write and a configuration, applied twice: the second time changes nothing.
fn apply_twice(data: &[u8]) {
    let Some((mut live, mut config)) = two(data) else {
        return;
    };
    let conforms = |value: &mut Value| value.is_object() && conform_named(TYPE, value).is_ok();
    if !conforms(&mut live) || !conforms(&mut config) {
        return;
    }
    let write = |manager| Write {
        manager,
        api_version: "v1",
        subresource: "",
        reset: Reset::Status,
        now: Timestamp::UNIX_EPOCH,
    };
    let root = TypeRef::named(TYPE);
    update(None, &mut live, None, root, &write("creator"));
    for force in [false, true] {
        let of = |live| Apply {
            live,
            config: &config,
            force,
        };
        let Ok(once) = apply(of(&live), root, &write("applier")) else {
            continue;
        };
        let twice = apply(of(&once), root, &write("applier")).unwrap();
        assert_eq!(twice, once);
    }
}

/// An expression about an object: it ends, with a value or an error.
fn cel(data: &[u8]) {
    let mut parts = data.splitn(2, |byte| *byte == 0);
    let Some(Ok(object)) = parts.next().map(parse_json) else {
        return;
    };
    let Some(Ok(source)) = parts.next().map(std::str::from_utf8) else {
        return;
    };
    let names = [Declared::any("self"), Declared::any("oldSelf")];
    let Ok(program) = Program::compile(source, &names) else {
        return;
    };
    let value = || CelValue::json(&object.value);
    let mut budget = CALL_COST;
    if let Ok(value) = program.evaluate(&[("self", value()), ("oldSelf", value())], &mut budget) {
        value.to_json();
    }
    assert!(budget <= CALL_COST, "nothing is paid back");
}

/// Texts with a grammar of their own.
fn text(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let _ = FieldSelector::parse(text);
    if let Ok(selector) = LabelSelector::parse(text) {
        selector.matches(None);
    }
    if let Ok(quantity) = text.parse::<Quantity>() {
        let written = quantity.to_string();
        assert_eq!(
            written.parse(),
            Ok(quantity),
            "{text} is written as {written}"
        );
    }
    if let Some(moment) = time::parse(text) {
        assert!(time::parse(&moment.to_string()).is_some(), "{moment}");
    }
    let _ = Schedule::parse(text);
}
