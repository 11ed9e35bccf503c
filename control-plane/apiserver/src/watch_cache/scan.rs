//! One pass over a stored object that finds a few texts in it and builds nothing.
//!
//! What is found are places in the bytes. A text with escapes has no place there: such an object
//! is [`Found::opaque`], and who asks parses it.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::fields::Fields;

/// A part of the bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Span {
    start: u32,
    end: u32,
}

impl Span {
    /// Where `part`, which is a part of `whole`, is.
    fn of(whole: &[u8], part: &str) -> Self {
        let start = part.as_ptr().addr().wrapping_sub(whole.as_ptr().addr());
        // Objects are smaller than that: see `limits::MAX_BODY_BYTES`.
        let narrow = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
        Span {
            start: narrow(start),
            end: narrow(start.saturating_add(part.len())),
        }
    }

    /// The text; "" when the span is none of these bytes.
    pub(super) fn text(self, whole: &[u8]) -> &str {
        let bytes = whole.get(self.start as usize..self.end as usize);
        std::str::from_utf8(bytes.unwrap_or_default()).unwrap_or("")
    }

    /// The bytes before and after it.
    pub(super) fn around(self, whole: &[u8]) -> (&[u8], &[u8]) {
        let at = |index: u32| (index as usize).min(whole.len());
        (&whole[..at(self.start)], &whole[at(self.end)..])
    }
}

/// Where an object's resourceVersion is, or would be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// It goes before this key of the metadata, whose place this empty span is.
    Before(Span),
    /// It takes the place of this value.
    Instead(Span),
}

/// What a pass found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// `None`: there is no metadata that it could be put in.
    pub place: Option<Place>,
    /// The values of the fields, in their order; those that are absent are empty.
    pub fields: Vec<Span>,
    /// Names and values.
    pub labels: Vec<(Span, Span)>,
    /// Something that was looked for has no place in the bytes.
    pub opaque: bool,
}

/// Looks for the fields in an object.
///
/// # Errors
/// When it is not JSON.
pub(super) fn scan(bytes: &[u8], fields: &Fields) -> Result<Found, serde_json::Error> {
    let mut scan = Scan {
        bytes,
        fields,
        found: Found {
            fields: vec![Span::default(); fields.0.len()],
            ..Found::default()
        },
        is_sorted: false,
    };
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let root = Level {
        scan: &mut scan,
        depth: 0,
        open: u32::MAX,
        inside: Inside::Root,
    };
    root.deserialize(&mut json)?;
    json.end()?;
    Ok(scan.found)
}

/// Some fields of the root, with their JSON; those that are not there are left out.
pub(super) fn parts<'a>(bytes: &'a [u8], names: &[&str]) -> Vec<(&'a str, &'a str)> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    json.deserialize_map(Parts(names)).unwrap_or_default()
}

struct Parts<'n>(&'n [&'n str]);

impl<'de> Visitor<'de> for Parts<'_> {
    type Value = Vec<(&'de str, &'de str)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = Vec::with_capacity(self.0.len());
        while let Some(key) = map.next_key_seed(Text)? {
            match key.filter(|key| self.0.contains(key)) {
                Some(key) => found.push((key, map.next_value::<&'de RawValue>()?.get())),
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(found)
    }
}

struct Scan<'de, 'f> {
    bytes: &'de [u8],
    fields: &'f Fields,
    found: Found,
    /// The place that was found is before a key that comes after resourceVersion.
    is_sorted: bool,
}

impl<'de> Scan<'de, '_> {
    /// Of the `open` fields, those that end at this key and those that go on below it.
    fn wanted(&self, open: u32, depth: usize, key: &str) -> (u32, u32) {
        let (mut here, mut below) = (0, 0);
        for (index, field) in self.fields.0.iter().enumerate() {
            let bit = 1 << index;
            if open & bit != 0 && field.path.get(depth) == Some(&key) {
                if field.path.len() == depth + 1 {
                    here |= bit;
                } else {
                    below |= bit;
                }
            }
        }
        (here, below)
    }

    /// A string's text, or a number's or truth value's; anything else has none.
    fn scalar(&mut self, raw: &'de str) -> Option<Span> {
        match raw.as_bytes() {
            [b'"', .., b'"'] if raw.contains('\\') => {
                self.found.opaque = true;
                None
            }
            [b'"', .., b'"'] => Some(Span::of(self.bytes, &raw[1..raw.len() - 1])),
            [b'{' | b'[' | b'n', ..] => None,
            // As they are written when they are parsed first.
            [b'-' | b'0'..=b'9', ..] if raw.contains(['.', 'e', 'E']) => {
                self.found.opaque = true;
                None
            }
            _ => Some(Span::of(self.bytes, raw)),
        }
    }

    fn keep(&mut self, wanted: u32, raw: &'de str) {
        let span = self.scalar(raw).unwrap_or_default();
        for (index, field) in self.found.fields.iter_mut().enumerate() {
            if wanted & (1 << index) != 0 {
                *field = span;
            }
        }
    }

    /// The resourceVersion goes where it keeps sorted keys sorted, else to the front.
    fn note_key(&mut self, key: &'de str) {
        let follows = key > RESOURCE_VERSION;
        match self.found.place {
            Some(Place::Instead(_)) => return,
            Some(Place::Before(_)) if self.is_sorted || !follows => return,
            _ => {}
        }
        // The quote before it.
        let start = Span::of(self.bytes, key).start.saturating_sub(1);
        self.found.place = Some(Place::Before(Span { start, end: start }));
        self.is_sorted = follows;
    }
}

const RESOURCE_VERSION: &str = "resourceVersion";

/// Which map a [`Level`] is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Inside {
    Root,
    Metadata,
    Other,
}

/// A value that may be a map with fields that are looked for.
struct Level<'s, 'de, 'f> {
    scan: &'s mut Scan<'de, 'f>,
    depth: usize,
    /// A bit per field: it may be here or below.
    open: u32,
    inside: Inside,
}

impl<'de> DeserializeSeed<'de> for Level<'_, 'de, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Level<'_, 'de, '_> {
    fn value<A: MapAccess<'de>>(&mut self, key: &'de str, map: &mut A) -> Result<(), A::Error> {
        if self.inside == Inside::Metadata {
            if key == RESOURCE_VERSION {
                let raw = map.next_value::<&'de RawValue>()?.get();
                let span = Span::of(self.scan.bytes, raw);
                self.scan.found.place = Some(Place::Instead(span));
                return Ok(());
            }
            self.scan.note_key(key);
            if key == "labels" {
                self.scan.found.labels.clear();
                return map.next_value_seed(Labels(self.scan));
            }
        }
        let inside = match (self.inside, key) {
            (Inside::Root, "metadata") => Inside::Metadata,
            _ => Inside::Other,
        };
        let (here, below) = self.scan.wanted(self.open, self.depth, key);
        if here != 0 {
            let raw = map.next_value::<&'de RawValue>()?.get();
            self.scan.keep(here, raw);
        } else if below != 0 || inside == Inside::Metadata {
            if inside == Inside::Metadata {
                self.scan.found.place = None;
                self.scan.is_sorted = false;
            }
            map.next_value_seed(Level {
                scan: self.scan,
                depth: self.depth + 1,
                open: below,
                inside,
            })?;
        } else {
            map.next_value::<IgnoredAny>()?;
        }
        Ok(())
    }
}

/// What is no map has no fields.
macro_rules! no_fields {
    ($($visit:ident: $type:ty),*) => {$(
        fn $visit<E>(self, _: $type) -> Result<(), E> {
            Ok(())
        }
    )*};
}

impl<'de> Visitor<'de> for Level<'_, 'de, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key_seed(Text)? {
            match key {
                Some(key) => self.value(key, &mut map)?,
                None => {
                    self.scan.found.opaque = true;
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<(), A::Error> {
        IgnoredAny.visit_seq(seq).map(drop)
    }

    no_fields!(visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_f64: f64, visit_str: &str);

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

/// The value of `metadata.labels`.
struct Labels<'s, 'de, 'f>(&'s mut Scan<'de, 'f>);

impl<'de> DeserializeSeed<'de> for Labels<'_, 'de, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Labels<'_, 'de, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let scan = self.0;
        while let Some(key) = map.next_key_seed(Text)? {
            let raw = map.next_value::<&'de RawValue>()?.get();
            let is_text = raw.starts_with('"');
            match key {
                None => scan.found.opaque = true,
                Some(key) if is_text => {
                    let name = Span::of(scan.bytes, key);
                    if let Some(value) = scan.scalar(raw) {
                        scan.found.labels.push((name, value));
                    }
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<(), A::Error> {
        IgnoredAny.visit_seq(seq).map(drop)
    }

    no_fields!(visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_f64: f64, visit_str: &str);

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

/// A key as it is in the bytes; `None`: it has escapes.
struct Text;

impl<'de> DeserializeSeed<'de> for Text {
    type Value = Option<&'de str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Text {
    type Value = Option<&'de str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Some(text))
    }

    fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use hull_api::kinds::PODS;

    use super::*;

    fn found(text: &str) -> Found {
        let fields = Fields::of_key(&PODS.key("a", "b"));
        scan(text.as_bytes(), fields).unwrap()
    }

    fn field<'a>(text: &'a str, name: &str) -> &'a str {
        let fields = Fields::of_key(&PODS.key("a", "b"));
        let at = fields.position(&PODS, name).unwrap();
        found(text).fields[at].text(text.as_bytes())
    }

    #[test]
    fn fields_and_labels_are_found_where_they_are() {
        let text = r#"{"a": {"nodeName": "x"}, "metadata": {"name": "p", "labels": {"k": "v", "n": 1}},
            "nodeName": "y", "spec": {"nodeName": "z", "more": {"nodeName": "w"}}, "status": null}"#;
        assert_eq!(field(text, "spec.nodeName"), "z");
        assert_eq!(field(text, "metadata.name"), "p");
        assert_eq!(field(text, "status.phase"), "");
        let labels = found(text).labels;
        let texts: Vec<_> = labels
            .iter()
            .map(|(name, value)| (name.text(text.as_bytes()), value.text(text.as_bytes())))
            .collect();
        assert_eq!(texts, [("k", "v")]);
        assert!(!found(text).opaque);
        let metadata = r#"{"name": "p", "labels": {"k": "v", "n": 1}}"#;
        let expected = [("metadata", metadata), ("nodeName", "\"y\"")];
        assert_eq!(
            parts(text.as_bytes(), &["nodeName", "metadata", "none"]),
            expected
        );
    }

    #[test]
    fn what_has_escapes_is_opaque() {
        for text in [
            r#"{"spec": {"nodeName": "a\"b"}}"#,
            r#"{"spec": {"nodeName": "\u0061"}}"#,
            r#"{"metadata": {"labels": {"a\u0062": "c"}}}"#,
            r#"{"metadata": {"labels": {"a": "\u0062"}}}"#,
            r#"{"spec": {"nodeName": 1e3}}"#,
        ] {
            assert!(found(text).opaque, "{text}");
        }
        assert!(!found(r#"{"spec": {"other": "a\"b"}}"#).opaque);
    }

    #[test]
    fn the_place_of_the_version_keeps_keys_sorted() {
        let before = |text: &str| match found(text).place {
            Some(Place::Before(span)) => span.around(text.as_bytes()).1.to_vec(),
            other => panic!("{other:?}"),
        };
        let rest = |text: &str| String::from_utf8(before(text)).unwrap();
        let text = r#"{"metadata":{"name":"a","selfLink":"b","uid":"c"}}"#;
        assert_eq!(rest(text), r#""selfLink":"b","uid":"c"}}"#);
        let text = r#"{"metadata":{"labels":{"uid":"x"},"name":"a"}}"#;
        assert_eq!(rest(text), r#""labels":{"uid":"x"},"name":"a"}}"#);
        let text = r#"{"metadata":{"uid":"c","name":"a"}}"#;
        assert_eq!(rest(text), r#""uid":"c","name":"a"}}"#);
        let text = r#"{"metadata":{"resourceVersion":"7","uid":"c"}}"#;
        let Some(Place::Instead(span)) = found(text).place else {
            panic!("{text}");
        };
        assert_eq!(span.text(text.as_bytes()), "\"7\"");
        for none in [
            "{}",
            r#"{"metadata":{}}"#,
            r#"{"metadata":null}"#,
            "[1]",
            "1",
        ] {
            assert_eq!(found(none).place, None, "{none}");
        }
    }

    #[test]
    fn what_is_not_json_is_an_error() {
        for bad in ["", "{", r#"{"a":1}}"#, r#"{"metadata":{"name":"a"}"#] {
            assert!(scan(bad.as_bytes(), Fields::of_key("")).is_err(), "{bad}");
        }
    }
}
