//! GET of one object.

use http::StatusCode;

use super::{Context, HandlerResult};
use crate::http::{Accept, Encoding, Output, json_response};

pub(super) async fn get(context: &Context<'_>) -> HandlerResult {
    let kind = context.kind;
    let cache = &context.backend.cache;
    // Any version will do: the cache has one.
    if context.query.get("resourceVersion") == "0"
        && kind.is_served_as_stored()
        && context.accept == Accept::Object(Encoding::Json)
        && let Some(object) = cache.get(kind.storage, &kind.key(context.namespace, context.name))
    {
        return Ok(json_response(StatusCode::OK, object.to_json()));
    }
    let stored = context
        .backend
        .storage
        .must_get(kind, context.namespace, context.name)
        .await?;
    Ok(Output {
        kind,
        accept: context.accept,
        status: StatusCode::OK,
        object: &context.backend.to_served(kind, stored.object).await?,
        warnings: &[],
    }
    .into_response())
}
