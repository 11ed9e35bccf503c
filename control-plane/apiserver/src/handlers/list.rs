//! LIST: from the cache; pages after the first and lists at an exact revision from the store.

use std::{borrow::Cow, sync::Arc};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{Response, StatusCode};
use hull_api::{ApiError, Kind, protobuf, schema::schema, table};
use hull_store::Revision;
use serde_json::{Map, Value, json};

use super::{Context, HandlerResult, selection::Selection};
use crate::{
    ApiBody,
    http::{Accept, Encoding, json_response, protobuf_response},
    storage::store_error,
    watch_cache::{CachedObject, Snapshot},
};

/// One page of a list.
struct Page {
    objects: Vec<Arc<CachedObject>>,
    revision: Revision,
    /// Where the next page starts.
    next: Option<String>,
    /// Objects after this page, where that is known.
    remaining: Option<u64>,
}

pub(super) async fn list(context: &Context<'_>) -> HandlerResult {
    let selection = Selection::read(context)?;
    let limit = usize::try_from(context.query.number("limit")?.unwrap_or(0)).unwrap_or(0);
    let page = match context.query.get("continue") {
        "" => first_page(context, &selection, limit).await?,
        token => {
            let (revision, start) = read_token(token)?;
            stored_page(context, &selection, limit, revision, Some(start)).await?
        }
    };
    Ok(respond(context, page))
}

/// Every selected object, as new as can be.
pub(super) async fn everything(
    context: &Context<'_>,
    selection: &Selection,
) -> Result<Snapshot, ApiError> {
    wait_for_newest(context).await?;
    selected(context, selection).await
}

/// The selected objects in the cache, converted if they need a webhook for that.
pub(super) async fn selected(
    context: &Context<'_>,
    selection: &Selection,
) -> Result<Snapshot, ApiError> {
    let (backend, kind) = (context.backend, context.kind);
    let range = selection.range.clone();
    let mut snapshot = backend.cache.snapshot(kind.storage, range);
    snapshot.objects = backend.converted(kind, snapshot.objects).await?;
    if !selection.is_everything() {
        snapshot
            .objects
            .retain(|object| selection.matches(&object.value));
    }
    Ok(snapshot)
}

pub(super) async fn wait_for_newest(context: &Context<'_>) -> Result<(), ApiError> {
    let newest = context
        .backend
        .storage
        .store()
        .revision()
        .await
        .map_err(store_error)?;
    context.backend.cache.wait_for(newest).await
}

/// A resource version given by the client.
pub(super) fn parse_version(text: &str) -> Result<Revision, ApiError> {
    text.parse().map_err(|_| {
        ApiError::bad_request(format!(
            "resourceVersion: Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: invalid syntax"
        ))
    })
}

async fn first_page(
    context: &Context<'_>,
    selection: &Selection,
    limit: usize,
) -> Result<Page, ApiError> {
    let version = context.query.get("resourceVersion");
    let version_match = context.query.get("resourceVersionMatch");
    match (version, version_match) {
        ("", "") => wait_for_newest(context).await?,
        ("", _) => {
            return Err(invalid_match(
                "resourceVersionMatch is forbidden unless resourceVersion is provided",
            ));
        }
        ("0", "" | "NotOlderThan") => {}
        (version, "" | "NotOlderThan") => {
            context
                .backend
                .cache
                .wait_for(parse_version(version)?)
                .await?;
        }
        ("0", "Exact") => {
            return Err(invalid_match(
                "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
            ));
        }
        (version, "Exact") => {
            let revision = parse_version(version)?;
            return stored_page(context, selection, limit, revision, None).await;
        }
        (_, other) => {
            let mut errors = hull_api::field::Errors::default();
            errors.not_supported(
                &hull_api::field::Path::new("resourceVersionMatch"),
                other,
                &["Exact", "NotOlderThan"],
            );
            return Err(ApiError::invalid(
                "meta.k8s.io",
                "ListOptions",
                "",
                errors.into_vec(),
            ));
        }
    }
    let Snapshot {
        mut objects,
        revision,
    } = selected(context, selection).await?;
    let total = objects.len();
    let (mut next, mut remaining) = (None, None);
    if limit > 0 && total > limit {
        objects.truncate(limit);
        next = objects.last().map(|object| format!("{}\0", object.key));
        if selection.is_everything() {
            remaining = u64::try_from(total - limit).ok();
        }
    }
    Ok(Page {
        objects,
        revision,
        next,
        remaining,
    })
}

fn invalid_match(why: &str) -> ApiError {
    let mut errors = hull_api::field::Errors::default();
    errors.forbidden(&hull_api::field::Path::new("resourceVersionMatch"), why);
    ApiError::invalid("meta.k8s.io", "ListOptions", "", errors.into_vec())
}

/// A page at exactly `revision`, from the store's history.
async fn stored_page(
    context: &Context<'_>,
    selection: &Selection,
    limit: usize,
    revision: Revision,
    start: Option<String>,
) -> Result<Page, ApiError> {
    let mut range = selection.range.clone();
    if let Some(start) = start {
        // A token of another list must not lead out of this one.
        if !selection.contains_key(&start) {
            return Err(ApiError::bad_request(
                "continue key is not valid: it is outside of the list",
            ));
        }
        range.start = start;
    }
    let mut page = Page {
        objects: Vec::new(),
        revision,
        next: None,
        remaining: None,
    };
    loop {
        let found = context
            .backend
            .storage
            .store()
            .list(range.clone(), Some(revision), limit)
            .await
            .map_err(store_error)?;
        let Some(last) = found.items.last() else {
            return Ok(page);
        };
        range.start = format!("{}\0", last.key);
        let mut objects = Vec::with_capacity(found.items.len());
        for pair in &found.items {
            let object = CachedObject::new(pair).map_err(|error| {
                ApiError::internal(format!("stored object {}: {error}", pair.key))
            })?;
            objects.push(Arc::new(object));
        }
        for object in context.backend.converted(context.kind, objects).await? {
            if !selection.matches(&object.value) {
                continue;
            }
            let here = format!("{}\0", object.key);
            page.objects.push(object);
            if limit > 0 && page.objects.len() == limit {
                let at_end = found.remaining == 0 && here == range.start;
                if !at_end {
                    page.next = Some(here);
                    page.remaining = selection.is_everything().then_some(found.remaining);
                }
                return Ok(page);
            }
        }
        if found.remaining == 0 {
            return Ok(page);
        }
    }
}

fn write_token(revision: Revision, start: &str) -> String {
    URL_SAFE_NO_PAD
        .encode(json!({"v": "meta.k8s.io/v1", "rv": revision, "start": start}).to_string())
}

fn read_token(token: &str) -> Result<(Revision, String), ApiError> {
    let invalid = || ApiError::bad_request("continue key is not valid");
    let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| invalid())?;
    let token: Value = serde_json::from_slice(&bytes).map_err(|_| invalid())?;
    let revision = token
        .get("rv")
        .and_then(Value::as_u64)
        .ok_or_else(invalid)?;
    let start = token
        .get("start")
        .and_then(Value::as_str)
        .ok_or_else(invalid)?;
    Ok((revision, start.to_string()))
}

fn respond(context: &Context<'_>, page: Page) -> Response<ApiBody> {
    let kind = context.kind;
    let mut metadata = Map::new();
    metadata.insert("resourceVersion".into(), json!(page.revision.to_string()));
    if let Some(next) = &page.next {
        metadata.insert("continue".into(), json!(write_token(page.revision, next)));
    }
    if let Some(remaining) = page.remaining {
        metadata.insert("remainingItemCount".into(), json!(remaining));
    }
    let metadata = Value::Object(metadata);
    match context.accept {
        Accept::Table(include) => {
            let now = jiff::Timestamp::now();
            let rows = page
                .objects
                .iter()
                .map(|object| table::row(kind, &served(kind, object), include, now))
                .collect();
            let columns = Some(table::column_definitions(kind));
            json_response(
                StatusCode::OK,
                table::table(columns, metadata, rows).to_string(),
            )
        }
        Accept::Metadata(encoding) => {
            let items: Vec<Value> = page
                .objects
                .iter()
                .map(|object| table::partial_metadata(&object.value))
                .collect();
            let list = json!({
                "kind": "PartialObjectMetadataList",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": metadata,
                "items": items,
            });
            match encoding {
                Encoding::Protobuf => {
                    protobuf_response(StatusCode::OK, protobuf::encode_object(&list))
                }
                _ => json_response(StatusCode::OK, list.to_string()),
            }
        }
        Accept::Object(Encoding::Protobuf) => protobuf_response(
            StatusCode::OK,
            protobuf_list(context, &page.objects, &metadata),
        ),
        Accept::Object(encoding) => {
            let bytes = list_bytes(context, &page.objects, &metadata);
            if encoding == Encoding::Json {
                return json_response(StatusCode::OK, bytes);
            }
            match serde_json::from_slice::<Value>(&bytes)
                .map_err(ApiError::internal)
                .and_then(|list| serde_saphyr::to_string(&list).map_err(ApiError::internal))
            {
                Ok(text) => {
                    let mut response = json_response(StatusCode::OK, text);
                    response.headers_mut().insert(
                        http::header::CONTENT_TYPE,
                        http::HeaderValue::from_static("application/yaml"),
                    );
                    response
                }
                Err(error) => crate::http::error_response(&error),
            }
        }
    }
}

fn protobuf_list(
    context: &Context<'_>,
    objects: &[Arc<CachedObject>],
    metadata: &Value,
) -> Result<Vec<u8>, protobuf::ProtobufError> {
    let kind = context.kind;
    let item_type = schema()
        .id(kind.schema)
        .ok_or_else(|| protobuf::ProtobufError::UnknownType(kind.schema.to_string()))?;
    let items: Vec<Cow<'_, Value>> = objects.iter().map(|object| served(kind, object)).collect();
    protobuf::encode_list(
        &kind.group_version(),
        &kind.list_kind(),
        item_type,
        metadata,
        items.iter().map(AsRef::as_ref),
    )
}

/// An object as the kind's version has it.
fn served<'a>(kind: &Kind, object: &'a CachedObject) -> Cow<'a, Value> {
    if kind.is_served_as_stored() {
        Cow::Borrowed(&object.value)
    } else {
        Cow::Owned(kind.to_served(object.value.clone()))
    }
}

/// The list as JSON: the objects are already written out.
fn list_bytes(context: &Context<'_>, objects: &[Arc<CachedObject>], metadata: &Value) -> Vec<u8> {
    let kind = context.kind;
    let size: usize = objects.iter().map(|object| object.json.len() + 1).sum();
    let mut out = Vec::with_capacity(size + 256);
    out.extend_from_slice(
        format!(
            "{{\"kind\":\"{}\",\"apiVersion\":\"{}\",\"metadata\":{metadata},\"items\":[",
            kind.list_kind(),
            kind.group_version()
        )
        .as_bytes(),
    );
    let as_stored = kind.is_served_as_stored();
    for (index, object) in objects.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        if as_stored {
            out.extend_from_slice(&object.json);
        } else {
            let served = kind.to_served(object.value.clone());
            out.extend_from_slice(served.to_string().as_bytes());
        }
    }
    out.extend_from_slice(b"]}");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn continue_tokens_come_back_whole_and_garbage_is_refused() {
        assert_eq!(
            read_token(&write_token(7, "/registry/pods/a/b\0")).unwrap(),
            (7, "/registry/pods/a/b\0".to_string())
        );
        for bad in ["", "!", "e30", "eyJydiI6LTF9"] {
            assert_eq!(read_token(bad).unwrap_err().code(), 400, "{bad}");
        }
    }
}
