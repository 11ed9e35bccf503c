//! The envelope around an object: four magic bytes and `runtime.Unknown`.

use super::{
    ProtobufError,
    wire::{self, Payload, Reader},
};

/// First bytes of every object.
pub const MAGIC: [u8; 4] = *b"k8s\0";

/// An object that is not yet decoded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Envelope<'a> {
    /// Its `apiVersion`.
    pub api_version: &'a str,
    /// Its `kind`.
    pub kind: &'a str,
    /// Its message.
    pub raw: &'a [u8],
}

fn bytes<'a>(payload: Payload<'a>, field: &str) -> Result<&'a [u8], ProtobufError> {
    match payload {
        Payload::Bytes(bytes) => Ok(bytes),
        other => Err(ProtobufError::WireType {
            field: field.to_string(),
            wire_type: other.wire_type(),
        }),
    }
}

fn text<'a>(payload: Payload<'a>, field: &str) -> Result<&'a str, ProtobufError> {
    std::str::from_utf8(bytes(payload, field)?).map_err(|_| ProtobufError::Content {
        field: field.to_string(),
        why: "it is not UTF-8".to_string(),
    })
}

/// Reads the envelope.
pub fn open(body: &[u8]) -> Result<Envelope<'_>, ProtobufError> {
    let rest = body
        .strip_prefix(MAGIC.as_slice())
        .ok_or(ProtobufError::NoMagic)?;
    let mut envelope = Envelope::default();
    let mut reader = Reader::new(rest);
    while let Some((number, payload)) = reader.field()? {
        match number {
            1 => {
                let mut inner = Reader::new(bytes(payload, "typeMeta")?);
                while let Some((number, payload)) = inner.field()? {
                    match number {
                        1 => envelope.api_version = text(payload, "apiVersion")?,
                        2 => envelope.kind = text(payload, "kind")?,
                        _ => {}
                    }
                }
            }
            2 => envelope.raw = bytes(payload, "raw")?,
            // contentEncoding, contentType: only plain protobuf comes in this envelope.
            3 | 4 => {
                let form = text(payload, "contentType")?;
                if !form.is_empty() && form != super::MEDIA_TYPE {
                    return Err(ProtobufError::ContentType(form.to_string()));
                }
            }
            _ => {}
        }
    }
    Ok(envelope)
}

/// Writes the envelope.
pub(super) fn seal(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let (mut out, tail) = envelope_around(api_version, kind, raw.len());
    out.reserve(raw.len() + tail.len());
    out.extend_from_slice(raw);
    out.extend_from_slice(&tail);
    out
}

/// What an envelope has before and after its content of `length` bytes.
pub(super) fn envelope_around(api_version: &str, kind: &str, length: usize) -> (Vec<u8>, Vec<u8>) {
    let mut type_meta = Vec::new();
    wire::put_bytes(&mut type_meta, 1, api_version.as_bytes());
    wire::put_bytes(&mut type_meta, 2, kind.as_bytes());
    let mut head = MAGIC.to_vec();
    wire::put_bytes(&mut head, 1, &type_meta);
    wire::put_length(&mut head, 2, length);
    let mut tail = Vec::new();
    wire::put_bytes(&mut tail, 3, b"");
    wire::put_bytes(&mut tail, 4, b"");
    (head, tail)
}
