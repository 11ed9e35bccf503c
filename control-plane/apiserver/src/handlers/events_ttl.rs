//! Events do not live for ever.

use std::time::Duration;

use hull_api::{ApiError, ObjectExt, kinds, time};
use hull_store::prefix_range;
use serde_json::Value;

use super::Backend;

/// Removes events that were last written longer ago than `ttl`; returns how many.
pub(crate) async fn sweep_events(
    backend: &Backend,
    ttl: Duration,
    now: jiff::Timestamp,
) -> Result<usize, ApiError> {
    let kind = &kinds::EVENTS;
    let found = backend
        .cache
        .snapshot(kind.storage, prefix_range(&kind.prefix("")));
    let oldest = now.as_second() - i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX);
    let mut removed = 0;
    for object in found.objects {
        if last_written(&object.parts(&TIMED)) >= oldest {
            continue;
        }
        let (namespace, name) = (object.namespace(), object.name());
        // One that was written meanwhile stays.
        backend
            .storage
            .remove(kind, namespace, name, object.revision)
            .await?;
        removed += 1;
    }
    Ok(removed)
}

/// The fields of an event's root that have times.
const TIMED: [&str; 5] = [
    "metadata",
    "firstTimestamp",
    "lastTimestamp",
    "eventTime",
    "series",
];

/// The newest time in an event, in seconds.
fn last_written(event: &Value) -> i64 {
    [
        "/metadata/creationTimestamp",
        "/firstTimestamp",
        "/lastTimestamp",
        "/eventTime",
        "/series/lastObservedTime",
    ]
    .iter()
    .filter_map(|field| time::parse(event.str_at(field)))
    .map(jiff::Timestamp::as_second)
    .max()
    .unwrap_or(0)
}
