//! The types whose protobuf messages JSON writes as something else.

use jiff::Timestamp;
use serde_json::Value;

use super::{
    MAX_DEPTH, ProtobufError,
    wire::{self, Payload, Reader},
};
use crate::{decode::parse_json, schema::FieldType, time};

/// `0001-01-01T00:00:00Z`, the earliest time that RFC 3339 can write.
const EARLIEST_SECOND: i64 = -62_135_596_800;

fn content(field: &str, why: impl std::fmt::Display) -> ProtobufError {
    ProtobufError::Content {
        field: field.to_string(),
        why: why.to_string(),
    }
}

pub(super) fn utf8<'a>(field: &str, bytes: &'a [u8]) -> Result<&'a str, ProtobufError> {
    std::str::from_utf8(bytes).map_err(|_| content(field, "string field contains invalid UTF-8"))
}

/// The last bytes and number of each of the first three fields of a small message.
#[derive(Default)]
struct Small<'a> {
    bytes: [Option<&'a [u8]>; 4],
    numbers: [u64; 4],
}

fn small<'a>(bytes: &'a [u8]) -> Result<Small<'a>, ProtobufError> {
    let mut out = Small::default();
    let mut reader = Reader::new(bytes);
    while let Some((number, payload)) = reader.field()? {
        let index = usize::try_from(number).unwrap_or(usize::MAX);
        match payload {
            Payload::Bytes(bytes) => {
                if let Some(slot) = out.bytes.get_mut(index) {
                    *slot = Some(bytes);
                }
            }
            Payload::Varint(value) => {
                if let Some(slot) = out.numbers.get_mut(index) {
                    *slot = value;
                }
            }
            Payload::Fixed64(_) | Payload::Fixed32 => {}
        }
    }
    Ok(out)
}

/// Reads a message of a type that is no plain message in JSON; `None`: absent.
pub(super) fn decode(
    field_type: &FieldType,
    field: &str,
    bytes: &[u8],
) -> Result<Option<Value>, ProtobufError> {
    let message = small(bytes)?;
    Ok(match field_type {
        FieldType::Time | FieldType::MicroTime if bytes.is_empty() => None,
        FieldType::Time | FieldType::MicroTime => {
            let nanoseconds = i32::try_from(message.numbers[2]).unwrap_or(-1);
            let when = Timestamp::new(message.numbers[1].cast_signed(), nanoseconds)
                .ok()
                .filter(|when| nanoseconds >= 0 && when.as_second() >= EARLIEST_SECOND)
                .ok_or_else(|| content(field, "the time is out of range"))?;
            Some(Value::from(match field_type {
                FieldType::MicroTime => time::to_micros(when),
                _ => time::to_seconds(when),
            }))
        }
        FieldType::Quantity => {
            let text = utf8(field, message.bytes[1].unwrap_or(b"0"))?;
            Some(Value::from(if text.is_empty() { "0" } else { text }))
        }
        FieldType::IntOrString => Some(match message.numbers[1] {
            0 => Value::from(int32(field, message.numbers[2])?),
            1 => Value::from(utf8(field, message.bytes[3].unwrap_or(b""))?),
            _ => return Err(content(field, "impossible IntOrString.Type")),
        }),
        _ => match message.bytes[1] {
            None | Some([]) => None,
            Some(raw) => Some(
                parse_json(raw)
                    .map_err(|error| content(field, error))?
                    .value,
            ),
        },
    })
}

pub(super) fn int32(field: &str, value: u64) -> Result<i32, ProtobufError> {
    // Negative numbers come with their sign extended to 64 bits.
    i32::try_from(value.cast_signed()).map_err(|_| content(field, "it is more than 32 bits"))
}

/// Writes such a message.
pub(super) fn encode(
    field_type: &FieldType,
    field: &str,
    value: &Value,
) -> Result<Vec<u8>, ProtobufError> {
    let mut out = Vec::new();
    match (field_type, value) {
        (FieldType::Time | FieldType::MicroTime, Value::String(text)) => {
            let when = time::parse(text).ok_or_else(|| content(field, "it is no time"))?;
            wire::put_number(&mut out, 1, when.as_second().cast_unsigned());
            let nanoseconds = when.subsec_nanosecond();
            wire::put_number(&mut out, 2, i64::from(nanoseconds).cast_unsigned());
        }
        (FieldType::Quantity, Value::String(text)) => wire::put_bytes(&mut out, 1, text.as_bytes()),
        (FieldType::Quantity, Value::Number(number)) => {
            wire::put_bytes(&mut out, 1, number.to_string().as_bytes());
        }
        (FieldType::IntOrString, Value::Number(number)) => {
            let number = number
                .as_i64()
                .ok_or_else(|| content(field, "it is no whole number"))?;
            wire::put_number(&mut out, 1, 0);
            wire::put_number(&mut out, 2, number.cast_unsigned());
            wire::put_bytes(&mut out, 3, b"");
        }
        (FieldType::IntOrString, Value::String(text)) => {
            wire::put_number(&mut out, 1, 1);
            wire::put_number(&mut out, 2, 0);
            wire::put_bytes(&mut out, 3, text.as_bytes());
        }
        (FieldType::FieldsV1 | FieldType::Any, value) => {
            wire::put_bytes(&mut out, 1, value.to_string().as_bytes());
        }
        _ => return Err(content(field, "it is of the wrong type")),
    }
    Ok(out)
}

/// One level deeper, or an error.
pub(super) fn deeper(depth: usize) -> Result<usize, ProtobufError> {
    if depth >= MAX_DEPTH {
        return Err(ProtobufError::TooDeep);
    }
    Ok(depth + 1)
}
