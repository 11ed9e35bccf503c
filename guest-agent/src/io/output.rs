//! What a process wrote, kept until it has been sent, plus the last [`REPLAY_BYTES`]
//! of what was sent, for a host that comes back.
//!
//! Offsets count the bytes that the process wrote since it started:
//!
//! ```text
//! 0 ........ start ─────────── sent ─────────── end
//!  forgotten       kept for          not yet sent;
//!                  replay            at most UNSENT_BYTES, then the pump stops reading
//! ```

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use hull_agent_protocol::stream::REPLAY_BYTES;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::fd::PollFd;

/// Unsent bytes after which a process's output is no longer read, so that it blocks.
pub const UNSENT_BYTES: usize = 256 * 1024;
/// Bytes that may be added after the process has ended: what its pipe still holds.
const LAST_BYTES: usize = 1024 * 1024;
/// Bytes read or sent at once.
const CHUNK_BYTES: usize = 32 * 1024;

/// One output stream of a process.
#[derive(Debug)]
pub struct Output {
    state: Mutex<State>,
    changed: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct State {
    kept: VecDeque<u8>,
    start: u64,
    sent: u64,
    closed: bool,
    process_ended: bool,
    /// Number of the newest reader; earlier ones end.
    reader: u64,
}

impl State {
    fn end(&self) -> u64 {
        self.start + self.kept.len() as u64
    }

    fn full(&self) -> bool {
        let limit = UNSENT_BYTES + if self.process_ended { LAST_BYTES } else { 0 };
        self.end() - self.sent >= limit as u64
    }
}

impl Output {
    /// An empty stream.
    pub fn new() -> Arc<Output> {
        Arc::new(Output {
            state: Mutex::default(),
            changed: watch::Sender::new(()),
        })
    }

    /// Reads `fd` into the buffer until its end, then closes the stream. Returns at once;
    /// the task lives until the end of file or [`Output::finish`].
    pub fn pump(self: &Arc<Self>, fd: Arc<PollFd>) {
        let output = Arc::clone(self);
        tokio::spawn(async move {
            let mut changed = output.changed.subscribe();
            tokio::select! {
                () = output.fill(&fd) => {}
                _ = changed.wait_for(|()| output.state.lock().closed) => {}
            }
            output.update(|state| state.closed = true);
        });
    }

    async fn fill(&self, fd: &PollFd) {
        let mut changed = self.changed.subscribe();
        let mut buffer = vec![0; CHUNK_BYTES];
        loop {
            if changed
                .wait_for(|()| !self.state.lock().full())
                .await
                .is_err()
            {
                return;
            }
            match fd.read(&mut buffer).await {
                Ok(0) => return,
                Ok(length) => self.push(&buffer[..length]),
                Err(error) => {
                    tracing::warn!(%error, "reading a process's output failed");
                    return;
                }
            }
        }
    }

    fn push(&self, bytes: &[u8]) {
        self.update(|state| state.kept.extend(bytes));
    }

    fn update<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.state.lock());
        self.changed.send_replace(());
        result
    }

    /// The process has ended: waits until all that it wrote is in the buffer, at most
    /// `patience` (a child that it left behind may hold the stream open, or nobody
    /// reads), then closes the stream. What is in the buffer can still be read.
    pub async fn finish(&self, patience: Duration) {
        self.update(|state| state.process_ended = true);
        let mut changed = self.changed.subscribe();
        let closed = changed.wait_for(|()| self.state.lock().closed);
        if tokio::time::timeout(patience, closed).await.is_err() {
            self.update(|state| state.closed = true);
        }
    }

    /// Starts to read at `offset` or, if that is no longer or not yet there, at the
    /// nearest byte that is. Returns where. Ends the reader before.
    pub fn attach(self: &Arc<Self>, offset: u64) -> (Reader, u64) {
        let (number, position) = self.update(|state| {
            state.reader += 1;
            (state.reader, offset.clamp(state.start, state.end()))
        });
        let reader = Reader {
            output: Arc::clone(self),
            changed: self.changed.subscribe(),
            number,
            position,
        };
        (reader, position)
    }
}

/// Reads an [`Output`] for one connection.
#[derive(Debug)]
pub struct Reader {
    output: Arc<Output>,
    changed: watch::Receiver<()>,
    number: u64,
    position: u64,
}

/// What a [`Reader`] has to do next.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// Send these bytes, then call [`Reader::sent`].
    Bytes(Vec<u8>),
    /// All is sent and nothing more comes.
    End,
    /// A newer reader took over.
    Superseded,
}

impl Reader {
    /// Waits for bytes or the end.
    pub async fn next(&mut self) -> Next {
        loop {
            self.changed.borrow_and_update();
            if let Some(next) = self.poll() {
                return next;
            }
            if self.changed.changed().await.is_err() {
                return Next::End;
            }
        }
    }

    /// Resolves when a newer reader took over.
    pub async fn superseded(&self) {
        let mut changed = self.output.changed.subscribe();
        let newer = |(): &()| self.output.state.lock().reader != self.number;
        if changed.wait_for(newer).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    fn poll(&self) -> Option<Next> {
        let state = self.output.state.lock();
        if state.reader != self.number {
            return Some(Next::Superseded);
        }
        let from = usize::try_from(self.position.saturating_sub(state.start)).unwrap_or(usize::MAX);
        let bytes: Vec<u8> = state
            .kept
            .range(from.min(state.kept.len())..)
            .take(CHUNK_BYTES)
            .copied()
            .collect();
        match bytes.is_empty() {
            false => Some(Next::Bytes(bytes)),
            true if state.closed => Some(Next::End),
            true => None,
        }
    }

    /// `count` bytes have been sent: frees what is no longer kept for replay.
    pub fn sent(&mut self, count: usize) {
        self.position += count as u64;
        let (position, number) = (self.position, self.number);
        self.output.update(|state| {
            if state.reader != number {
                return;
            }
            state.sent = state.sent.max(position);
            let start = state
                .sent
                .saturating_sub(REPLAY_BYTES as u64)
                .max(state.start);
            let forget = usize::try_from(start - state.start).unwrap_or(usize::MAX);
            state.kept.drain(..forget.min(state.kept.len()));
            state.start = start;
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::unistd::{pipe, write};
    use std::os::fd::OwnedFd;

    async fn read_all(reader: &mut Reader) -> Vec<u8> {
        let mut all = Vec::new();
        while let Next::Bytes(bytes) = reader.next().await {
            reader.sent(bytes.len());
            all.extend(bytes);
        }
        all
    }

    fn pumped() -> (Arc<Output>, OwnedFd) {
        let (read, write) = pipe().unwrap();
        let output = Output::new();
        output.pump(Arc::new(PollFd::new(read).unwrap()));
        (output, write)
    }

    #[tokio::test]
    async fn reader_gets_everything_then_the_end() {
        let (output, pipe) = pumped();
        write(&pipe, b"hello").unwrap();
        drop(pipe);
        let (mut reader, offset) = output.attach(0);
        assert_eq!(offset, 0);
        assert_eq!(read_all(&mut reader).await, b"hello");
    }

    #[tokio::test]
    async fn reader_that_comes_back_gets_sent_bytes_again() {
        let (output, pipe) = pumped();
        write(&pipe, b"0123456789").unwrap();
        drop(pipe);
        read_all(&mut output.attach(0).0).await;
        let (mut again, offset) = output.attach(4);
        assert_eq!(offset, 4);
        assert_eq!(read_all(&mut again).await, b"456789");
    }

    #[tokio::test]
    async fn newer_reader_ends_the_older() {
        let (output, _pipe) = pumped();
        let (mut old, _) = output.attach(0);
        let (_new, _) = output.attach(0);
        assert_eq!(old.next().await, Next::Superseded);
    }

    #[tokio::test]
    async fn writer_blocks_when_nobody_reads_and_nothing_is_lost() {
        let (output, pipe) = pumped();
        let total = UNSENT_BYTES * 4;
        let writer = std::thread::spawn(move || {
            let chunk = vec![7; 4096];
            for _ in 0..total / chunk.len() {
                assert_eq!(write(&pipe, &chunk).unwrap(), chunk.len());
            }
        });
        let mut changed = output.changed.subscribe();
        changed
            .wait_for(|()| output.state.lock().full())
            .await
            .unwrap();
        assert!(!writer.is_finished());
        assert!(output.state.lock().kept.len() <= UNSENT_BYTES + CHUNK_BYTES);
        let (mut reader, _) = output.attach(0);
        assert_eq!(read_all(&mut reader).await.len(), total);
        writer.join().unwrap();
        assert!(output.state.lock().kept.len() <= REPLAY_BYTES);
        assert_eq!(output.attach(0).1, (total - REPLAY_BYTES) as u64);
    }

    #[tokio::test]
    async fn stream_held_open_by_a_child_is_closed_after_patience() {
        let (output, pipe) = pumped();
        write(&pipe, b"x").unwrap();
        let (mut reader, _) = output.attach(0);
        assert_eq!(reader.next().await, Next::Bytes(b"x".to_vec()));
        reader.sent(1);
        output.finish(Duration::from_millis(20)).await;
        assert_eq!(reader.next().await, Next::End);
        drop(pipe);
    }
}
