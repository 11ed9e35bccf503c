//! Downloads of large blobs: streamed, bounded, and gone on with after a broken connection.

use bytes::Bytes;
use reqwest::header::CONTENT_RANGE;
use reqwest::{Response, StatusCode};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tracing::warn;

use super::session::{Session, reasons, silence};
use crate::config::{BLOB_ATTEMPTS, BLOB_RETRY_PAUSE, PROGRESS_TIMEOUT, scaled};
use crate::error::PullCause;

/// A blob to download, as its descriptor gives it.
#[derive(Clone, Debug)]
pub(crate) struct BlobRequest {
    /// What it is, for messages: `layer 3`.
    pub what: String,
    pub digest: String,
    pub size: u64,
}

/// Where a download stands.
struct Progress {
    received: u64,
    /// Attempts in a row that brought nothing.
    failures: u32,
}

/// How one attempt ended.
enum Attempt {
    /// The registry has sent all it has.
    Complete,
    /// Nobody wants the bytes any more.
    Unwanted,
    /// It broke, and another attempt may do better.
    Broken(String),
}

/// Sends the blob's bytes to `sink` in order, each once. The receiver verifies the digest: an
/// answer that is shorter than promised ends the stream early.
pub(crate) async fn download(
    session: &Session,
    request: &BlobRequest,
    sink: mpsc::Sender<Bytes>,
) -> Result<(), PullCause> {
    let mut progress = Progress {
        received: 0,
        failures: 0,
    };
    loop {
        let before = progress.received;
        let reason = match attempt(session, request, &mut progress, &sink).await? {
            Attempt::Complete | Attempt::Unwanted => return Ok(()),
            Attempt::Broken(reason) => reason,
        };
        progress.failures = if progress.received > before {
            1
        } else {
            progress.failures + 1
        };
        if progress.failures >= BLOB_ATTEMPTS {
            return Err(PullCause::Unavailable(format!(
                "{} broke off at {} of {} bytes, {BLOB_ATTEMPTS} times in a row: {reason}",
                request.what, progress.received, request.size
            )));
        }
        warn!(blob = %request.digest, received = progress.received, reason, "download broke off");
        sleep(BLOB_RETRY_PAUSE * (1 << progress.failures.min(8))).await;
    }
}

async fn attempt(
    session: &Session,
    request: &BlobRequest,
    progress: &mut Progress,
    sink: &mpsc::Sender<Bytes>,
) -> Result<Attempt, PullCause> {
    let mut response = match session.blob(&request.digest, progress.received).await {
        Ok(response) => response,
        Err(PullCause::Unavailable(reason)) => return Ok(Attempt::Broken(reason)),
        Err(cause) => return Err(cause),
    };
    // A server without ranges sends everything again; what is here already is passed over.
    let mut skip = match range_start(&response)? {
        start if start <= progress.received => progress.received - start,
        start => {
            return Err(PullCause::Protocol(format!(
                "{}: asked for bytes from {}, got them from {start}",
                request.what, progress.received
            )));
        }
    };
    let patience = scaled(PROGRESS_TIMEOUT);
    loop {
        let mut chunk = match timeout(patience, response.chunk()).await {
            Ok(Ok(Some(chunk))) => chunk,
            Ok(Ok(None)) => return Ok(Attempt::Complete),
            Ok(Err(e)) => return Ok(Attempt::Broken(reasons(e))),
            Err(_) => {
                return Ok(Attempt::Broken(
                    silence(&request.what, patience).to_string(),
                ));
            }
        };
        let passed_over = skip.min(chunk.len() as u64);
        skip -= passed_over;
        let chunk = chunk.split_off(usize::try_from(passed_over).unwrap_or(chunk.len()));
        if chunk.is_empty() {
            continue;
        }
        progress.received += chunk.len() as u64;
        if progress.received > request.size {
            return Err(PullCause::DigestMismatch {
                what: request.what.clone(),
                expected: format!("{} of {} bytes", request.digest, request.size),
                actual: "a longer one".to_owned(),
            });
        }
        if sink.send(chunk).await.is_err() {
            return Ok(Attempt::Unwanted);
        }
    }
}

/// The offset of the answer's first byte.
fn range_start(response: &Response) -> Result<u64, PullCause> {
    if response.status() != StatusCode::PARTIAL_CONTENT {
        return Ok(0);
    }
    let header = response
        .headers()
        .get(CONTENT_RANGE)
        .and_then(|value| value.to_str().ok());
    header
        .and_then(|text| text.strip_prefix("bytes "))
        .and_then(|text| text.split('-').next())
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| PullCause::Protocol("partial answer without a usable range".to_owned()))
}
