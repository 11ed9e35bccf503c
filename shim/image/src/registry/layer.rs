//! Downloading a layer and spooling it at the same time.

use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;

use bytes::{Buf, Bytes};
use tokio::sync::mpsc;

use super::blob::{BlobRequest, download};
use super::session::Session;
use crate::error::PullCause;
use crate::layer::{LayerDigests, UncompressedBudget, spool_layer};

/// Chunks between the download and the decompression. A chunk is what one read of the connection
/// brought, at most some tens of KiB.
const CHUNKS_AHEAD: usize = 32;

/// Downloads a layer into `spool`, uncompressed and verified, and gives the spool back.
pub(crate) async fn fetch_layer(
    session: &Session,
    request: &BlobRequest,
    digests: LayerDigests,
    budget: Arc<UncompressedBudget>,
    mut spool: File,
) -> Result<File, PullCause> {
    let (sender, receiver) = mpsc::channel(CHUNKS_AHEAD);
    let reader = ChannelReader {
        receiver,
        chunk: Bytes::new(),
    };
    let spooling = tokio::task::spawn_blocking(move || {
        spool_layer(reader, &digests, &budget, &mut spool)?;
        Ok(spool)
    });
    let downloaded = download(session, request, sender).await;
    let spooled = spooling.await.unwrap_or_else(|e| {
        Err(PullCause::Internal(format!(
            "unpacking {}: {e}",
            request.what
        )))
    });
    // A failed download cuts the stream short, which the digest notices too; it is the cause.
    downloaded?;
    spooled
}

/// The chunks of a channel as one stream. It ends when the sender goes.
struct ChannelReader {
    receiver: mpsc::Receiver<Bytes>,
    chunk: Bytes,
}

impl Read for ChannelReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() {
            match self.receiver.blocking_recv() {
                Some(chunk) => self.chunk = chunk,
                None => return Ok(0),
            }
        }
        let length = self.chunk.len().min(buffer.len());
        self.chunk
            .split_to(length)
            .copy_to_slice(buffer.get_mut(..length).unwrap_or_default());
        Ok(length)
    }
}
