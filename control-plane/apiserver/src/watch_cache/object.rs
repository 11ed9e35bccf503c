//! An object as it is kept: the store's own bytes, and where in them the little is that is looked
//! at often. Whoever needs more parses it, for a moment or for good.

use std::{
    borrow::Cow,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use hull_api::{Kind, ObjectExt, selector::LabelSelector};
use hull_store::{KeyValue, Revision};
use serde::de::Error;
use serde_json::Value;

use super::{
    fields::Fields,
    scan::{Place, Span, parts, scan},
};
use crate::storage::codec;

/// An object as it was at some revision.
#[derive(Debug)]
pub(crate) struct CachedObject {
    pub key: Arc<str>,
    pub revision: Revision,
    /// Without its resourceVersion, or with another than `revision`.
    json: Bytes,
    /// Where the resourceVersion belongs.
    version: Place,
    fields: &'static Fields,
    /// The values of `fields`, then names and values of the labels in turn.
    spans: Box<[Span]>,
    /// Some of the spans are missing.
    opaque: bool,
    /// For those who read it again and again.
    kept: OnceLock<Box<Value>>,
}

impl CachedObject {
    /// A stored one, of which the store's bytes are shared.
    ///
    /// # Errors
    /// When it is not JSON.
    pub(crate) fn new(pair: &KeyValue) -> Result<Self, serde_json::Error> {
        let (json, revision) = (pair.value.clone(), pair.mod_revision);
        let object = CachedObject::read(pair.key.as_str().into(), revision, json)?;
        if let Some(object) = object
            && !object.opaque
        {
            return Ok(object);
        }
        // It has no metadata, or something has escapes: most of them need not be.
        let value = codec::decode(&pair.value, revision)?;
        CachedObject::of_value(pair.key.as_str().into(), revision, &value)
    }

    /// One that is made of another, with its resourceVersion.
    ///
    /// # Errors
    /// When it has no resourceVersion.
    pub(crate) fn of_value(
        key: Arc<str>,
        revision: Revision,
        value: &Value,
    ) -> Result<Self, serde_json::Error> {
        let json = Bytes::from(serde_json::to_vec(value)?.into_boxed_slice());
        let object = CachedObject::read(key, revision, json)?;
        object.ok_or_else(|| Error::custom("it has no metadata"))
    }

    fn read(
        key: Arc<str>,
        revision: Revision,
        json: Bytes,
    ) -> Result<Option<Self>, serde_json::Error> {
        let fields = Fields::of_key(&key);
        let found = scan(&json, fields)?;
        let labels = found
            .labels
            .iter()
            .flat_map(|(name, value)| [*name, *value]);
        let spans = found.fields.iter().copied().chain(labels).collect();
        Ok(found.place.map(|version| CachedObject {
            key,
            revision,
            json,
            version,
            fields,
            spans,
            opaque: found.opaque,
            kept: OnceLock::new(),
        }))
    }

    /// About the length of its JSON, in bytes.
    pub(crate) fn json_len(&self) -> usize {
        self.json.len()
    }

    /// Adds its JSON.
    pub(crate) fn write_json(&self, out: &mut Vec<u8>) {
        self.write_json_at(self.revision, out);
    }

    /// The same with another resourceVersion; 0: without one, as of what nobody stores.
    pub(crate) fn write_json_at(&self, revision: Revision, out: &mut Vec<u8>) {
        if revision == 0 {
            return out.extend_from_slice(&self.json);
        }
        let (span, name, end) = match self.version {
            Place::Before(span) => (span, "\"resourceVersion\":", ","),
            Place::Instead(span) => (span, "", ""),
        };
        let (head, tail) = span.around(&self.json);
        out.extend_from_slice(head);
        out.extend_from_slice(format!("{name}\"{revision}\"{end}").as_bytes());
        out.extend_from_slice(tail);
    }

    /// Its JSON.
    pub(crate) fn to_json(&self) -> Bytes {
        let mut json = Vec::with_capacity(self.json.len() + RESOURCE_VERSION_BYTES);
        self.write_json(&mut json);
        json.into()
    }

    /// Parses it.
    pub(crate) fn parsed(&self) -> Value {
        let value = codec::decode(&self.json, self.revision);
        value.unwrap_or_else(|error| {
            // It was read once already; only numbers and nesting beyond all limits get here.
            tracing::error!(key = %self.key, %error, "stored object cannot be parsed");
            Value::Null
        })
    }

    /// Parses it once and keeps what it is made of, which takes several times the memory of its
    /// JSON: for kinds of which there are few.
    pub(crate) fn kept(&self) -> &Value {
        self.kept.get_or_init(|| Box::new(self.parsed()))
    }

    /// Some fields of its root.
    pub(crate) fn parts(&self, names: &[&str]) -> Value {
        let found = parts(&self.json, names).into_iter();
        let parsed = found.filter_map(|(name, text)| {
            let part = serde_json::from_str(text).ok()?;
            Some((name.to_owned(), part))
        });
        let mut value = Value::Object(parsed.collect());
        if value.get("metadata").is_some() {
            codec::set_revision(&mut value, self.revision);
        }
        value
    }

    /// The JSON of a field of its root, as stored: metadata is without its resourceVersion.
    pub(crate) fn raw(&self, name: &str) -> Option<&str> {
        let (_, text) = parts(&self.json, &[name]).pop()?;
        Some(text)
    }

    /// What a field selector of the kind, which is served as it is stored, compares with.
    pub(crate) fn field(&self, kind: &Kind, name: &str) -> Option<Cow<'_, str>> {
        match self.fields.position(kind, name) {
            Some(at) if !self.opaque => {
                let span = self.spans.get(at)?;
                Some(Cow::from(span.text(&self.json)))
            }
            _ => {
                let value = kind.field_value(&self.parsed(), name)?.into_owned();
                Some(Cow::from(value))
            }
        }
    }

    /// A field that every object may have, or "".
    fn common(&self, name: &str) -> &str {
        if self.opaque {
            return self.kept().str_at(&format!("/{}", name.replace('.', "/")));
        }
        let mut fields = self.fields.0.iter().zip(&self.spans);
        let found = fields.find(|(field, _)| field.name == name);
        found.map_or("", |(_, span)| span.text(&self.json))
    }

    /// `metadata.name`.
    pub(crate) fn name(&self) -> &str {
        self.common("metadata.name")
    }

    /// `metadata.namespace`.
    pub(crate) fn namespace(&self) -> &str {
        self.common("metadata.namespace")
    }

    /// `metadata.uid`.
    pub(crate) fn uid(&self) -> &str {
        self.common("metadata.uid")
    }

    /// `metadata.deletionTimestamp`, or "".
    pub(crate) fn deletion_timestamp(&self) -> &str {
        self.common("metadata.deletionTimestamp")
    }

    /// A label's value.
    pub(crate) fn label(&self, name: &str) -> Option<&str> {
        if self.opaque {
            return self.kept().labels()?.get(name)?.as_str();
        }
        let labels = self.spans.get(self.fields.0.len()..)?;
        // Of several the last counts.
        let mut pairs = labels.rchunks_exact(2);
        pairs.find_map(|pair| match pair {
            [key, value] if key.text(&self.json) == name => Some(value.text(&self.json)),
            _ => None,
        })
    }

    /// Its labels are selected.
    pub(crate) fn has_labels(&self, selector: &LabelSelector) -> bool {
        selector.is_empty() || selector.matches_with(|name| self.label(name))
    }
}

/// About what a resourceVersion takes with its name, in bytes.
pub(crate) const RESOURCE_VERSION_BYTES: usize = 40;

#[cfg(test)]
mod tests {
    use hull_api::kinds::PODS;
    use serde_json::json;

    use super::*;

    fn stored(bytes: &[u8]) -> CachedObject {
        let pair = KeyValue {
            key: PODS.key("n", "p"),
            value: Bytes::copy_from_slice(bytes),
            create_revision: 3,
            mod_revision: 12,
        };
        CachedObject::new(&pair).unwrap()
    }

    fn pod() -> Value {
        json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "p", "namespace": "n", "uid": "u", "labels": {"app": "web", "é": "ü"}},
            "spec": {"nodeName": "a", "hostNetwork": true}, "status": {"podIPs": [{"ip": "10.0.0.1"}]}})
    }

    #[test]
    fn the_bytes_are_the_stores_and_show_their_revision() {
        let bytes = Bytes::from(pod().to_string());
        let pair = KeyValue {
            key: PODS.key("n", "p"),
            value: bytes.clone(),
            create_revision: 3,
            mod_revision: 12,
        };
        let object = CachedObject::new(&pair).unwrap();
        assert_eq!(object.json.as_ptr(), bytes.as_ptr());
        let mut expected = pod();
        codec::set_revision(&mut expected, 12);
        assert_eq!(object.to_json(), expected.to_string());
        assert_eq!(object.parsed(), expected);
        assert_eq!(object.kept(), &expected);
        assert_eq!(
            object.parts(&["metadata"])["metadata"],
            expected["metadata"]
        );
        let mut later = Vec::new();
        object.write_json_at(13, &mut later);
        codec::set_revision(&mut expected, 13);
        assert_eq!(later, expected.to_string().into_bytes());
    }

    #[test]
    fn any_form_of_metadata_gets_a_revision() {
        for text in [
            r#"{"metadata":{"name":"p"}}"#,
            r#"{"metadata":{"name":"p","resourceVersion":"5"}}"#,
            r#"{"metadata": { "uid" : "u", "name" : "p" } , "kind":"Pod"}"#,
            r#"{"metadata":{}}"#,
            r#"{"kind":"Pod"}"#,
            r#"{"m\u0065tadata":{"name":"p"}}"#,
        ] {
            let object = stored(text.as_bytes());
            let json: Value = serde_json::from_slice(&object.to_json()).unwrap();
            assert_eq!(json, codec::decode(text.as_bytes(), 12).unwrap(), "{text}");
            assert_eq!(json, object.parsed(), "{text}");
        }
    }

    #[test]
    fn selectors_see_what_the_parsed_object_has() {
        let escaped = pod().to_string().replace("\"a\"", "\"\\u0061\"");
        for object in [
            stored(pod().to_string().as_bytes()),
            stored(escaped.as_bytes()),
        ] {
            let value = object.parsed();
            assert_eq!(
                (object.name(), object.namespace(), object.uid()),
                ("p", "n", "u")
            );
            assert_eq!(object.deletion_timestamp(), "");
            assert_eq!(object.label("app"), Some("web"));
            assert_eq!(object.label("é"), Some("ü"));
            assert_eq!(object.label("none"), None);
            let of_kind = PODS.strategy.selectable_fields().iter();
            for name in of_kind.chain(&["metadata.name", "metadata.namespace"]) {
                let expected = PODS.field_value(&value, name).unwrap_or_default();
                assert_eq!(
                    object.field(&PODS, name).unwrap_or_default(),
                    expected,
                    "{name}"
                );
            }
        }
    }
}
