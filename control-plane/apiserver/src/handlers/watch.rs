//! WATCH: a stream of changes, from the cache's ring or, for what is older, from the
//! store's history.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Response, StatusCode, header};
use hull_api::{ApiError, Kind, ObjectExt, protobuf, table};
use hull_store::{Revision, WatchEvent};
use rand::Rng;
use serde_json::{Value, json};
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior},
};

use super::{
    Backend, Context, HandlerResult,
    list::{parse_version, selected, wait_for_newest},
    selection::Selection,
};
use crate::{
    ApiBody, body,
    http::{Accept, Encoding},
    limits,
    storage::{codec, store_error},
    watch_cache::{CachedObject, Change, Changes, Form, Frames, RESOURCE_VERSION_BYTES, Revisions},
};

/// Pieces that wait for a slow client before its watch waits.
const CHANNEL: usize = 64;
/// About what an event takes besides its object, in bytes.
const EVENT_BYTES: usize = 40;
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

pub(super) async fn watch(context: &Context<'_>) -> HandlerResult {
    let selection = Selection::read(context)?;
    let bookmarks = context.query.flag("allowWatchBookmarks");
    let send_initial = context.query.flag("sendInitialEvents");
    check_options(context, send_initial)?;
    let lifetime = lifetime(context)?;
    let version = context.query.get("resourceVersion");
    let encoder = Encoder {
        kind: context.kind,
        accept: context.accept,
        columns_sent: false,
    };
    let mut initial = Initial::default();
    let legacy_initial =
        matches!(version, "" | "0") && context.query.get("sendInitialEvents") != "false";
    let position = if send_initial || legacy_initial {
        match version {
            "" => wait_for_newest(context).await?,
            "0" => {}
            version => {
                context
                    .backend
                    .cache
                    .wait_for(parse_version(version)?)
                    .await?
            }
        }
        let snapshot = selected(context, &selection).await?;
        initial.objects = snapshot.objects;
        initial.end = (send_initial && bookmarks).then_some(snapshot.revision);
        snapshot.revision
    } else if matches!(version, "" | "0") {
        context.backend.cache.revision()
    } else {
        let version = parse_version(version)?;
        // Of a revision that never was here (the cluster moved to another store), a watch would
        // be silent until there are as many.
        context.backend.cache.wait_for(version).await?;
        version
    };
    let (sender, receiver) = mpsc::channel(CHANNEL);
    let watcher = Watcher {
        backend: context.backend.clone(),
        kind: context.kind,
        selection,
        encoder,
        bookmarks,
        position,
        sender,
        deadline: Instant::now() + lifetime,
    };
    tokio::spawn(watcher.run(initial));
    Ok(respond(receiver, is_protobuf(context.accept)))
}

fn is_protobuf(accept: Accept) -> bool {
    matches!(
        accept,
        Accept::Object(Encoding::Protobuf) | Accept::Metadata(Encoding::Protobuf)
    )
}

fn respond(receiver: mpsc::Receiver<Bytes>, protobuf: bool) -> Response<ApiBody> {
    let stream = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let mut response = Response::new(body::stream(stream));
    *response.status_mut() = StatusCode::OK;
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static(if protobuf {
            "application/vnd.kubernetes.protobuf;stream=watch"
        } else {
            "application/json"
        }),
    );
    headers.insert(
        header::CACHE_CONTROL,
        header::HeaderValue::from_static("no-cache, private"),
    );
    response
}

fn check_options(context: &Context<'_>, send_initial: bool) -> Result<(), ApiError> {
    let version_match = context.query.get("resourceVersionMatch");
    let mut errors = hull_api::field::Errors::default();
    let path = hull_api::field::Path::new("resourceVersionMatch");
    if send_initial && version_match != "NotOlderThan" {
        errors.forbidden(
            &hull_api::field::Path::new("sendInitialEvents"),
            "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
        );
    } else if !version_match.is_empty() && context.query.get("sendInitialEvents").is_empty() {
        errors.forbidden(
            &path,
            "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
        );
    }
    if errors.is_empty() {
        return Ok(());
    }
    Err(ApiError::invalid(
        "meta.k8s.io",
        "ListOptions",
        "",
        errors.into_vec(),
    ))
}

fn lifetime(context: &Context<'_>) -> Result<Duration, ApiError> {
    Ok(match context.query.number("timeoutSeconds")? {
        Some(seconds) if seconds > 0 => Duration::from_secs(seconds).min(limits::MIN_WATCH * 48),
        // Spread, so that watches that began together do not come back together.
        _ => limits::MIN_WATCH.mul_f64(1.0 + rand::rng().random::<f64>()),
    })
}

/// Writes events in the form the client asked for.
struct Encoder {
    kind: &'static Kind,
    accept: Accept,
    columns_sent: bool,
}

impl Encoder {
    /// One event as JSON, of an object of about `length` bytes.
    fn line(event: &str, length: usize, write: impl FnOnce(&mut Vec<u8>)) -> Bytes {
        let mut out = Vec::with_capacity(length + EVENT_BYTES);
        out.extend_from_slice(b"{\"type\":\"");
        out.extend_from_slice(event.as_bytes());
        out.extend_from_slice(b"\",\"object\":");
        write(&mut out);
        out.extend_from_slice(b"}\n");
        Bytes::from(out)
    }

    /// One event in the form of the stream; `object` is in the shape to be sent.
    fn frame(&self, event: &str, object: &Value) -> Bytes {
        if !is_protobuf(self.accept) {
            let text = object.to_string();
            return Self::line(event, text.len(), |out| {
                out.extend_from_slice(text.as_bytes());
            });
        }
        match protobuf::encode_object(object) {
            Ok(bytes) => Bytes::from(protobuf::encode_watch_event(event, &bytes)),
            Err(error) => {
                let status = ApiError::internal(error).to_value();
                let bytes = protobuf::encode_object(&status).unwrap_or_default();
                Bytes::from(protobuf::encode_watch_event("ERROR", &bytes))
            }
        }
    }

    /// An event of an object at a revision, which is its own or that of its end.
    fn event(&mut self, event: &str, object: &CachedObject, revision: Revision) -> Bytes {
        let as_written = matches!(self.accept, Accept::Object(_)) && !is_protobuf(self.accept);
        if as_written && self.kind.is_served_as_stored() {
            let length = object.json_len() + RESOURCE_VERSION_BYTES;
            return Self::line(event, length, |out| object.write_json_at(revision, out));
        }
        let mut stored = match self.accept {
            Accept::Metadata(_) => object.parts(&["metadata"]),
            _ => object.parsed(),
        };
        codec::set_revision(&mut stored, revision);
        let object = match self.accept {
            Accept::Metadata(_) => stored,
            _ => self.kind.to_served(stored),
        };
        let shaped = match self.accept {
            Accept::Object(_) => object,
            Accept::Metadata(_) => table::partial_metadata(&object),
            Accept::Table(include) => {
                let columns = (!self.columns_sent).then(|| table::column_definitions(self.kind));
                self.columns_sent = true;
                let row = table::row(self.kind, &object, include, jiff::Timestamp::now());
                let metadata = json!({"resourceVersion": object.resource_version()});
                table::table(columns, metadata, vec![row])
            }
        };
        self.frame(event, &shaped)
    }

    fn bookmark(&mut self, revision: Revision, initial_end: bool) -> Bytes {
        let mut metadata = json!({
            "resourceVersion": revision.to_string(),
            "creationTimestamp": null,
        });
        if initial_end {
            metadata["annotations"] = json!({INITIAL_EVENTS_END: "true"});
        }
        let object = match self.accept {
            Accept::Object(_) => json!({
                "kind": self.kind.kind,
                "apiVersion": self.kind.group_version(),
                "metadata": metadata,
            }),
            Accept::Metadata(_) => table::partial_metadata(&json!({ "metadata": metadata })),
            Accept::Table(_) => table::table(None, metadata, Vec::new()),
        };
        self.frame("BOOKMARK", &object)
    }
}

/// What a watch begins with, written as it is sent.
#[derive(Default)]
struct Initial {
    objects: Vec<Arc<CachedObject>>,
    /// The revision of the bookmark after them, if one is wanted.
    end: Option<Revision>,
}

/// Where changes come from.
enum Source {
    Ring(tokio::sync::watch::Receiver<Revision>),
    History(Revisions),
}

struct Watcher {
    backend: Arc<Backend>,
    kind: &'static Kind,
    selection: Selection,
    encoder: Encoder,
    bookmarks: bool,
    /// Every change up to this revision was sent.
    position: Revision,
    sender: mpsc::Sender<Bytes>,
    deadline: Instant,
}

impl Watcher {
    async fn run(mut self, initial: Initial) {
        let _guard = self.backend.metrics.watcher();
        for object in initial.objects {
            let event = self.encoder.event("ADDED", &object, object.revision);
            if !self.send(event).await {
                return;
            }
        }
        if let Some(revision) = initial.end {
            let event = self.encoder.bookmark(revision, true);
            if !self.send(event).await {
                return;
            }
        }
        if let Err(error) = self.follow().await {
            let line = self.encoder.frame("ERROR", &error.to_value());
            // The client may be gone already.
            let _ = self.sender.send(line).await;
        }
    }

    async fn open(&self) -> Result<Source, ApiError> {
        let cache = &self.backend.cache;
        if let (Changes::Some(_), Some(changed)) = (
            cache.changes(self.kind.storage, self.position),
            cache.subscribe(self.kind.storage),
        ) {
            return Ok(Source::Ring(changed));
        }
        let history = self
            .backend
            .storage
            .store()
            .watch(self.selection.range.clone(), Some(self.position))
            .await
            .map_err(store_error)?;
        Ok(Source::History(Revisions::new(history)))
    }

    async fn follow(&mut self) -> Result<(), ApiError> {
        let mut source = self.open().await?;
        let interval = self.backend.bookmark_interval;
        let mut bookmark = tokio::time::interval_at(Instant::now() + interval, interval);
        // A client that read nothing for a while does not get those of that time at once.
        bookmark.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let deadline = self.deadline;
            let changes = tokio::select! {
                () = self.sender.closed() => return Ok(()),
                () = tokio::time::sleep_until(deadline) => {
                    // So that the client's next watch begins near the present.
                    if self.bookmarks {
                        self.send_bookmark().await;
                    }
                    return Ok(());
                }
                _ = bookmark.tick(), if self.bookmarks => {
                    if !self.send_bookmark().await {
                        return Ok(());
                    }
                    continue;
                }
                changes = next(&self.backend, self.kind, self.position, &mut source) => changes?,
            };
            let Some(changes) = changes else {
                // The ring moved on without us: read on from the history.
                source = self.open().await?;
                continue;
            };
            let seen = changes.last().map_or(0, |change| change.revision);
            let changes = self.selectable(changes);
            let changes = tokio::select! {
                () = self.sender.closed() => return Ok(()),
                () = tokio::time::sleep_until(deadline) => return Ok(()),
                changes = self.backend.converted_changes(self.kind, changes) => changes?,
            };
            for change in changes {
                if let Some(line) = self.encode(&change)
                    && !self.send(line).await
                {
                    return Ok(());
                }
            }
            self.position = self.position.max(seen);
        }
    }

    /// The changes of objects that may be selected. The others are not this watch's business:
    /// they must not cost it a conversion, which can fail and end it.
    fn selectable(&self, mut changes: Vec<Arc<Change>>) -> Vec<Arc<Change>> {
        changes.retain(|change| {
            let mut states = change.current.iter().chain(&change.previous);
            states.any(|object| self.selection.contains_key(&object.key))
        });
        changes
    }

    /// False when the client is gone.
    async fn send_bookmark(&mut self) -> bool {
        let shown = self.backend.cache.revision();
        let pending = self.backend.cache.changes(self.kind.storage, self.position);
        // Only when nothing up to that revision is still to be sent.
        if matches!(pending, Changes::Some(changes) if changes.is_empty()) {
            self.position = self.position.max(shown);
        }
        let line = self.encoder.bookmark(self.position, false);
        self.send(line).await
    }

    /// False when the client is gone, or does not read.
    async fn send(&self, line: Bytes) -> bool {
        self.sender
            .send_timeout(line, limits::SLOW_WATCHER)
            .await
            .is_ok()
    }

    /// The event that a change is for this selection.
    fn encode(&mut self, change: &Change) -> Option<Bytes> {
        let selected = |object: &Option<Arc<CachedObject>>| {
            object
                .as_ref()
                .filter(|object| {
                    self.selection.contains_key(&object.key) && self.selection.matches(object)
                })
                .cloned()
        };
        let (event, object) = match (selected(&change.previous), selected(&change.current)) {
            (None, None) => return None,
            (None, Some(object)) => ("ADDED", object),
            (Some(_), Some(object)) => ("MODIFIED", object),
            (Some(object), None) => ("DELETED", object),
        };
        let form = Form {
            kind: self.kind,
            accept: self.encoder.accept,
            event,
        };
        let mut write = || {
            let revision = match event {
                // The last selected state, at the revision of the change.
                "DELETED" => change.revision,
                _ => object.revision,
            };
            self.encoder.event(event, &object, revision)
        };
        // A table says how old things are, and its first event what its columns are.
        if matches!(form.accept, Accept::Table(_)) {
            return Some(write());
        }
        let (frame, is_new) = change.frames.get_or_write(form, write);
        if is_new {
            self.backend.metrics.watch_event_written();
        }
        Some(frame)
    }
}

/// The next changes; `None`: the source has to be opened again.
async fn next(
    backend: &Backend,
    kind: &Kind,
    position: Revision,
    source: &mut Source,
) -> Result<Option<Vec<Arc<Change>>>, ApiError> {
    match source {
        Source::Ring(changed) => loop {
            changed.mark_unchanged();
            match backend.cache.changes(kind.storage, position) {
                Changes::TooOld => return Ok(None),
                Changes::Some(changes) if !changes.is_empty() => return Ok(Some(changes)),
                Changes::Some(_) => {}
            }
            if changed.changed().await.is_err() {
                // The kind is not served any more.
                return Err(ApiError::expired("the resource is not served any more"));
            }
        },
        Source::History(history) => match history.next().await {
            None => Err(ApiError::expired("the watch of the store ended")),
            Some(Err(error)) => Err(store_error(error)),
            Some(Ok(events)) => {
                // Caught up with the ring: the cheaper source.
                if matches!(events[..], [WatchEvent::Progress(_)]) {
                    return Ok(None);
                }
                let changes = events.into_iter().map(|event| convert(event).map(Arc::new));
                changes.collect::<Result<_, _>>().map(Some)
            }
        },
    }
}

fn convert(event: WatchEvent) -> Result<Change, ApiError> {
    let revision = event.revision();
    let parse = |pair: hull_store::KeyValue| {
        CachedObject::new(&pair)
            .map(Arc::new)
            .map_err(|error| ApiError::internal(format!("stored object {}: {error}", pair.key)))
    };
    let (current, previous) = match event {
        WatchEvent::Put { current, previous } => {
            (Some(parse(current)?), previous.map(parse).transpose()?)
        }
        WatchEvent::Delete { previous, .. } => (None, Some(parse(previous)?)),
        WatchEvent::Progress(_) => (None, None),
    };
    Ok(Change {
        revision,
        current,
        previous,
        frames: Frames::default(),
    })
}
