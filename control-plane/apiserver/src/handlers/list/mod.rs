//! LIST: from the cache; pages after the first and lists at an exact revision from the store.

mod answer;
mod token;

use std::sync::Arc;

use hull_api::{ApiError, ObjectExt};
use hull_store::{Revision, StoreError};
use serde_json::Value;

use super::{Context, HandlerResult, selection::Selection};
use crate::{
    storage::store_error,
    watch_cache::{CachedObject, Snapshot},
};
use token::Token;

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
        token => next_page(context, &selection, limit, Token::read(token)?).await?,
    };
    Ok(answer::respond(context, page))
}

/// Those that are selected of objects that nobody stores.
pub(super) fn computed(context: &Context<'_>, objects: Vec<Value>) -> HandlerResult {
    let selection = Selection::read(context)?;
    let made = objects.iter().map(|value| {
        let key = context.kind.key(value.namespace(), value.name());
        CachedObject::of_value(key.into(), 0, value).map(Arc::new)
    });
    let mut objects: Vec<_> = made.collect::<Result<_, _>>().map_err(ApiError::internal)?;
    objects.retain(|object| selection.matches(object));
    let page = Page {
        objects,
        revision: 0,
        next: None,
        remaining: None,
    };
    Ok(answer::respond(context, page))
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
        snapshot.objects.retain(|object| selection.matches(object));
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
            let page = stored_page(context, selection, limit, Some(revision), None).await;
            return page.map_err(|error| match error {
                PageError::Store(StoreError::Compacted { .. }) => {
                    ApiError::expired("The resourceVersion for the provided list is too old.")
                }
                other => other.into(),
            });
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

/// The page that a token leads to.
async fn next_page(
    context: &Context<'_>,
    selection: &Selection,
    limit: usize,
    token: Token,
) -> Result<Page, ApiError> {
    // A token of another list must not lead out of this one.
    if !selection.contains_key(&token.start) {
        return Err(ApiError::bad_request(
            "continue key is not valid: it is outside of the list",
        ));
    }
    let start = Some(token.start.clone());
    let page = stored_page(context, selection, limit, token.revision, start).await;
    page.map_err(|error| match error {
        PageError::Store(StoreError::Compacted { .. }) => token.expired(),
        other => other.into(),
    })
}

/// Why a page cannot be had.
enum PageError {
    Store(StoreError),
    Other(ApiError),
}

impl From<StoreError> for PageError {
    fn from(error: StoreError) -> Self {
        PageError::Store(error)
    }
}

impl From<ApiError> for PageError {
    fn from(error: ApiError) -> Self {
        PageError::Other(error)
    }
}

impl From<PageError> for ApiError {
    fn from(error: PageError) -> Self {
        match error {
            PageError::Store(error) => store_error(error),
            PageError::Other(error) => error,
        }
    }
}

/// A page from the store's history: at exactly `revision`, or at the newest.
async fn stored_page(
    context: &Context<'_>,
    selection: &Selection,
    limit: usize,
    mut revision: Option<Revision>,
    start: Option<String>,
) -> Result<Page, PageError> {
    let cache = &context.backend.cache;
    let mut range = selection.range.clone();
    if let Some(start) = start {
        range.start = start;
    }
    let mut page = Page {
        objects: Vec::new(),
        revision: 0,
        next: None,
        remaining: None,
    };
    loop {
        let found = context
            .backend
            .storage
            .store()
            .list(range.clone(), revision, limit)
            .await?;
        revision = Some(found.revision);
        page.revision = found.revision;
        let Some(last) = found.items.last() else {
            return Ok(page);
        };
        range.start = format!("{}\0", last.key);
        let mut objects = Vec::with_capacity(found.items.len());
        for pair in &found.items {
            let known = cache.get(context.kind.storage, &pair.key);
            if let Some(known) = known.filter(|known| known.revision == pair.mod_revision) {
                objects.push(known);
                continue;
            }
            let object = CachedObject::new(pair).map_err(|error| {
                ApiError::internal(format!("stored object {}: {error}", pair.key))
            })?;
            objects.push(Arc::new(object));
        }
        for object in context.backend.converted(context.kind, objects).await? {
            if !selection.matches(&object) {
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
