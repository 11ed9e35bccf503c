//! `/containerLogs/{namespace}/{pod}/{container}`.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::{Refusal, Shared};
use crate::context::NodeContext;
use crate::cri::{ContainerPhase, ObservedContainer, container};
use crate::logs::reader::LogReader;
use crate::logs::select::{LogOptions, Streams};
use crate::pod::containers;
use crate::pod::identity::PodIdentity;

/// Pieces that may wait for a slow client.
const PIECES_IN_FLIGHT: usize = 4;

pub(super) async fn serve(
    State(shared): State<Shared>,
    Path((namespace, pod, name)): Path<(String, String, String)>,
    RawQuery(query): RawQuery,
) -> Result<Response, Refusal> {
    let options = options(query.as_deref().unwrap_or_default(), Timestamp::now())?;
    let pod = shared.pod(&namespace, &pod)?;
    let Some(identity) = PodIdentity::of(&pod) else {
        return Err(Refusal::new(StatusCode::NOT_FOUND, "pod has no identity"));
    };
    if containers::find(&pod, &name).is_none() {
        return Err(Refusal::new(
            StatusCode::BAD_REQUEST,
            format!("container {name} is not valid for pod {}", identity.name),
        ));
    }
    let observed = shared.node.cri.observe(&identity.uid).await?;
    let found = if options.previous {
        observed.previous(&name)
    } else {
        observed.latest(&name)
    };
    let found = found
        .filter(|container| container.phase != ContainerPhase::Created)
        .cloned();
    let Some(found) = found else {
        return Err(no_log(&identity, &name, &pod, options.previous));
    };
    let config = &shared.node.config;
    let directory = config.pod_log_dir(&identity.namespace, &identity.name, &identity.uid);
    let path = directory.join(container::log_path(&name, found.attempt));
    let reader = match LogReader::open(&path, options).await {
        Ok(reader) => reader,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(Refusal::new(
                StatusCode::NOT_FOUND,
                format!(
                    "log of container \"{name}\" does not exist: {}",
                    path.display()
                ),
            ));
        }
        Err(error) => return Err(io_refusal(&path, &error)),
    };
    Ok(stream(shared, identity, found, reader))
}

fn io_refusal(path: &std::path::Path, error: &std::io::Error) -> Refusal {
    Refusal::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        format!("read {}: {error}", path.display()),
    )
}

/// Why there is no log, with what the container waits for.
fn no_log(
    identity: &PodIdentity,
    name: &str,
    pod: &k8s_openapi::api::core::v1::Pod,
    previous: bool,
) -> Refusal {
    if previous {
        return Refusal::new(
            StatusCode::BAD_REQUEST,
            format!(
                "previous terminated container \"{name}\" in pod \"{}\" not found",
                identity.name
            ),
        );
    }
    let statuses = pod.status.iter().flat_map(|status| {
        status
            .container_statuses
            .iter()
            .flatten()
            .chain(status.init_container_statuses.iter().flatten())
            .chain(status.ephemeral_container_statuses.iter().flatten())
    });
    let waiting = statuses
        .filter(|status| status.name == name)
        .find_map(|status| status.state.as_ref()?.waiting.as_ref()?.reason.clone())
        .unwrap_or_else(|| "ContainerCreating".into());
    Refusal::new(
        StatusCode::BAD_REQUEST,
        format!(
            "container \"{name}\" in pod \"{}\" is waiting to start: {waiting}",
            identity.name
        ),
    )
}

fn stream(
    shared: Shared,
    identity: PodIdentity,
    found: ObservedContainer,
    mut reader: LogReader,
) -> Response {
    let (sender, receiver) = mpsc::channel::<Result<Bytes, std::io::Error>>(PIECES_IN_FLIGHT);
    tokio::spawn(async move {
        let ended = || has_ended(shared.node.clone(), identity.uid.clone(), found.id.clone());
        loop {
            let piece = tokio::select! {
                piece = reader.next(ended) => piece,
                () = sender.closed() => return,
                () = shared.shutdown.cancelled() => return,
            };
            let piece = match piece {
                Ok(Some(piece)) => Ok(Bytes::from(piece)),
                Ok(None) => return,
                Err(error) => Err(error),
            };
            let failed = piece.is_err();
            if sender.send(piece).await.is_err() || failed {
                return;
            }
        }
    });
    let body = Body::from_stream(ReceiverStream::new(receiver));
    ([("content-type", "text/plain")], body).into_response()
}

/// Whether nothing writes the container's log any longer.
async fn has_ended(node: Arc<NodeContext>, uid: String, id: String) -> bool {
    match node.cri.observe(&uid).await {
        Ok(observed) => !observed
            .containers
            .iter()
            .any(|c| c.id == id && c.phase == ContainerPhase::Running),
        // The runtime is away; the container may well run.
        Err(_) => false,
    }
}

/// PodLogOptions from a query.
fn options(query: &str, now: Timestamp) -> Result<LogOptions, Refusal> {
    let mut options = LogOptions::default();
    let bad = |key: &str, value: &str| {
        Refusal::new(
            StatusCode::BAD_REQUEST,
            format!("invalid log option {key}={value:?}"),
        )
    };
    for (key, value) in super::streaming::query_pairs(query) {
        let flag = || match value.as_str() {
            "true" | "1" | "" => Ok(true),
            "false" | "0" => Ok(false),
            _ => Err(bad(&key, &value)),
        };
        let number = || value.parse::<u64>().map_err(|_| bad(&key, &value));
        match key.as_str() {
            "follow" => options.follow = flag()?,
            "previous" => options.previous = flag()?,
            "timestamps" => options.timestamps = flag()?,
            "tailLines" => options.tail_lines = Some(number()?),
            "limitBytes" => options.limit_bytes = Some(number()?),
            "sinceSeconds" => {
                let seconds = i64::try_from(number()?).map_err(|_| bad(&key, &value))?;
                let since = now.checked_sub(jiff::SignedDuration::from_secs(seconds));
                options.since = Some(since.map_err(|_| bad(&key, &value))?);
            }
            "sinceTime" => options.since = Some(value.parse().map_err(|_| bad(&key, &value))?),
            "stream" => {
                options.streams = match value.as_str() {
                    "All" | "" => Streams::All,
                    "Stdout" => Streams::Stdout,
                    "Stderr" => Streams::Stderr,
                    _ => return Err(bad(&key, &value)),
                }
            }
            _ => {}
        }
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_become_options() {
        let now = "2026-11-22T05:00:10Z".parse().unwrap();
        let parsed = options(
            "follow=true&tailLines=5&sinceSeconds=10&timestamps=1&limitBytes=9&stream=Stderr&previous=false",
            now,
        )
        .ok()
        .unwrap();
        assert_eq!(
            parsed,
            LogOptions {
                follow: true,
                previous: false,
                tail_lines: Some(5),
                since: Some("2026-11-22T05:00:00Z".parse().unwrap()),
                timestamps: true,
                limit_bytes: Some(9),
                streams: Streams::Stderr,
            }
        );
        assert!(options("tailLines=-1", now).is_err());
        assert!(options("sinceTime=yesterday", now).is_err());
        let time = options("sinceTime=2026-11-22T04%3A00%3A00Z", now)
            .ok()
            .unwrap();
        assert_eq!(time.since, Some("2026-11-22T04:00:00Z".parse().unwrap()));
    }
}
