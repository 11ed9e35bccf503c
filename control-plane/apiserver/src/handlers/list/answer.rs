//! A page of a list, written in the form that the client asked for.
//!
//! Small lists are written at once. Large ones are written while they are sent, a piece at a
//! time: the objects are the cache's own, so that a list costs the server a piece, however long
//! it is. YAML is the exception: nothing but people's eyes reads it.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Response, header};
use hull_api::{
    ApiError, Kind,
    protobuf::{self, ProtobufError},
    schema::{TypeId, schema},
    table,
};
use serde_json::{Map, Value, json};

use super::{Page, token::Token};
use crate::{
    ApiBody, body,
    handlers::Context,
    http::{Accept, Encoding, Streamed, error_response},
    watch_cache::CachedObject,
};

/// Lists of more JSON than this are written while they are sent.
const STREAM_ABOVE_BYTES: usize = 1024 * 1024;
/// About what is written before it is sent.
const PIECE_BYTES: usize = 64 * 1024;
/// Group and version of tables and lists of metadata.
const META_VERSION: &str = "meta.k8s.io/v1";
const METADATA_LIST: &str = "PartialObjectMetadataList";

pub(super) fn respond(context: &Context<'_>, page: Page) -> Response<ApiBody> {
    match written(context, page) {
        Ok(response) => response,
        Err(error) => error_response(&ApiError::internal(error)),
    }
}

fn written(context: &Context<'_>, page: Page) -> Result<Response<ApiBody>, ProtobufError> {
    let metadata = metadata_of(&page);
    let items = Items::of(context.kind, context.accept)?;
    let size: usize = page.objects.iter().map(|object| object.json_len()).sum();
    let yaml = matches!(context.accept, Accept::Object(Encoding::Yaml));
    let mut media = match items {
        Items::ProtobufObjects(..) | Items::ProtobufMetadata(_) => protobuf::MEDIA_TYPE,
        _ => "application/json",
    };
    let large = size > STREAM_ABOVE_BYTES && !yaml;
    let body = if large {
        let length = items.length_in_advance(&page.objects)?;
        let (head, tail) = items.around(context.kind, &metadata, length)?;
        body::stream(futures::stream::iter(Pieces {
            items,
            head: Some(head),
            objects: page.objects.into_iter(),
            first: true,
            tail: Some(tail),
        }))
    } else {
        let mut content = Vec::with_capacity(size);
        for (index, object) in page.objects.iter().enumerate() {
            items.write(object, index == 0, &mut content)?;
        }
        let (mut whole, tail) = items.around(context.kind, &metadata, content.len())?;
        whole.extend_from_slice(&content);
        whole.extend_from_slice(&tail);
        if yaml {
            media = "application/yaml";
            whole = yaml_of(&whole)?;
        }
        body::full(whole)
    };
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
    headers.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("no-cache, private"),
    );
    if large {
        response.extensions_mut().insert(Streamed);
    }
    Ok(response)
}

fn metadata_of(page: &Page) -> Value {
    let mut metadata = Map::new();
    metadata.insert("resourceVersion".into(), json!(page.revision.to_string()));
    if let Some(next) = &page.next {
        let token = Token {
            revision: Some(page.revision),
            start: next.clone(),
        };
        metadata.insert("continue".into(), json!(token.write()));
    }
    if let Some(remaining) = page.remaining {
        metadata.insert("remainingItemCount".into(), json!(remaining));
    }
    Value::Object(metadata)
}

fn yaml_of(json: &[u8]) -> Result<Vec<u8>, ProtobufError> {
    let failed = |error: &dyn std::fmt::Display| ProtobufError::Content {
        field: "items".to_owned(),
        why: error.to_string(),
    };
    let list: Value = serde_json::from_slice(json).map_err(|error| failed(&error))?;
    let text = serde_saphyr::to_string(&list).map_err(|error| failed(&error))?;
    Ok(text.into_bytes())
}

/// How an object is written as an item.
enum Items {
    /// As it is stored.
    Stored,
    /// As the kind's version has it.
    Served(&'static Kind),
    /// As a row of a table, at this moment.
    Rows(&'static Kind, table::IncludeObject, jiff::Timestamp),
    Metadata,
    ProtobufObjects(&'static Kind, TypeId),
    ProtobufMetadata(TypeId),
}

impl Items {
    fn of(kind: &'static Kind, accept: Accept) -> Result<Self, ProtobufError> {
        Ok(match accept {
            Accept::Table(include) => Items::Rows(kind, include, jiff::Timestamp::now()),
            Accept::Metadata(Encoding::Protobuf) => {
                Items::ProtobufMetadata(type_of("meta.PartialObjectMetadata")?)
            }
            Accept::Metadata(_) => Items::Metadata,
            Accept::Object(Encoding::Protobuf) => {
                Items::ProtobufObjects(kind, type_of(kind.schema)?)
            }
            Accept::Object(_) if kind.is_served_as_stored() => Items::Stored,
            Accept::Object(_) => Items::Served(kind),
        })
    }

    /// Adds one item.
    fn write(
        &self,
        object: &CachedObject,
        first: bool,
        out: &mut Vec<u8>,
    ) -> Result<(), ProtobufError> {
        let json = |value: &Value, out: &mut Vec<u8>| {
            if !first {
                out.push(b',');
            }
            out.extend_from_slice(value.to_string().as_bytes());
        };
        match self {
            Items::Stored => {
                if !first {
                    out.push(b',');
                }
                object.write_json(out);
            }
            Items::Served(kind) => json(&served(kind, object), out),
            Items::Rows(kind, include, now) => {
                json(
                    &table::row(kind, &served(kind, object), *include, *now),
                    out,
                );
            }
            Items::Metadata => json(&metadata(object), out),
            Items::ProtobufObjects(kind, id) => {
                protobuf::encode_list_item(*id, &served(kind, object), out)?;
            }
            Items::ProtobufMetadata(id) => {
                protobuf::encode_list_item(*id, &metadata(object), out)?;
            }
        }
        Ok(())
    }

    /// Bytes of all items where they have to be known before the first: protobuf's envelope
    /// holds them. The items are written twice for that, each time one by one.
    fn length_in_advance(&self, objects: &[Arc<CachedObject>]) -> Result<usize, ProtobufError> {
        if !matches!(
            self,
            Items::ProtobufObjects(..) | Items::ProtobufMetadata(_)
        ) {
            return Ok(0);
        }
        let (mut length, mut item) = (0, Vec::new());
        for object in objects {
            item.clear();
            self.write(object, false, &mut item)?;
            length += item.len();
        }
        Ok(length)
    }

    /// What goes before and after items of this many bytes.
    fn around(
        &self,
        kind: &Kind,
        metadata: &Value,
        length: usize,
    ) -> Result<(Vec<u8>, Vec<u8>), ProtobufError> {
        let (group_version, list_kind) = (kind.group_version(), kind.list_kind());
        let list = |list_kind: &str, group_version: &str| {
            format!(
                "{{\"kind\":\"{list_kind}\",\"apiVersion\":\"{group_version}\",\
                 \"metadata\":{metadata},\"items\":["
            )
        };
        let head = match self {
            Items::ProtobufObjects(..) => {
                return protobuf::list_envelope(&group_version, &list_kind, metadata, length);
            }
            Items::ProtobufMetadata(_) => {
                return protobuf::list_envelope(META_VERSION, METADATA_LIST, metadata, length);
            }
            Items::Stored | Items::Served(_) => list(&list_kind, &group_version),
            Items::Metadata => list(METADATA_LIST, META_VERSION),
            Items::Rows(kind, ..) => format!(
                "{{\"kind\":\"Table\",\"apiVersion\":\"{META_VERSION}\",\"metadata\":{metadata},\
                 \"columnDefinitions\":{},\"rows\":[",
                table::column_definitions(kind)
            ),
        };
        Ok((head.into_bytes(), b"]}".to_vec()))
    }
}

fn type_of(name: &str) -> Result<TypeId, ProtobufError> {
    let id = schema().id(name);
    id.ok_or_else(|| ProtobufError::UnknownType(name.to_owned()))
}

/// An object as the kind's version has it.
fn served(kind: &Kind, object: &CachedObject) -> Value {
    kind.to_served(object.parsed())
}

fn metadata(object: &CachedObject) -> Value {
    table::partial_metadata(&object.parts(&["metadata"]))
}

/// A list that is written as it is asked for.
struct Pieces {
    items: Items,
    head: Option<Vec<u8>>,
    objects: std::vec::IntoIter<Arc<CachedObject>>,
    first: bool,
    tail: Option<Vec<u8>>,
}

impl Iterator for Pieces {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let mut out = self.head.take().unwrap_or_default();
        while out.len() < PIECE_BYTES {
            let Some(object) = self.objects.next() else {
                out.extend_from_slice(&self.tail.take().unwrap_or_default());
                break;
            };
            // What cannot be encoded was seen when the lengths were added up.
            if let Err(error) = self.items.write(&object, self.first, &mut out) {
                tracing::error!(key = %object.key, %error, "an item of a list is left out");
            }
            self.first = false;
        }
        (!out.is_empty()).then(|| out.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_small_and_make_one_list() {
        let object = |number: usize| {
            let value = json!({"metadata": {"name": format!("o{number}")}});
            let key = format!("/o{number}").into();
            Arc::new(CachedObject::of_value(key, 1, &value).unwrap())
        };
        let objects: Vec<_> = (0..20_000).map(object).collect();
        let largest = objects.iter().map(|object| object.to_json().len()).max();
        let pieces = Pieces {
            items: Items::Stored,
            head: Some(b"{\"items\":[".to_vec()),
            objects: objects.into_iter(),
            first: true,
            tail: Some(b"]}".to_vec()),
        };
        let pieces: Vec<Bytes> = pieces.collect();
        assert!(pieces.len() > 5);
        let limit = PIECE_BYTES + largest.unwrap() + 3;
        assert!(pieces.iter().all(|piece| piece.len() <= limit));
        let list: Value = serde_json::from_slice(&pieces.concat()).unwrap();
        assert_eq!(list["items"].as_array().unwrap().len(), 20_000);
        assert_eq!(list["items"][19_999]["metadata"]["name"], "o19999");
    }
}
