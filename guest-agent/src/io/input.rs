//! A process's standard input.

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::watch;

use super::fd::PollFd;

/// Bytes copied at once.
const CHUNK_BYTES: usize = 32 * 1024;

/// The write end of a process's standard input.
#[derive(Debug)]
pub struct Input {
    fd: Mutex<Option<Arc<PollFd>>>,
    /// Whether the end of a stream closes the process's input.
    close_at_end: bool,
    /// Number of the newest stream; earlier ones end.
    stream: watch::Sender<u64>,
}

impl Input {
    /// Standard input through `fd`.
    pub fn new(fd: Arc<PollFd>, close_at_end: bool) -> Arc<Input> {
        Arc::new(Input {
            fd: Mutex::new(Some(fd)),
            close_at_end,
            stream: watch::Sender::new(0),
        })
    }

    /// Copies `from` to the process until its end, the process's end, or a newer stream.
    ///
    /// # Errors
    /// From reading the connection; a process that no longer reads is no error.
    pub async fn copy_from(&self, mut from: impl AsyncRead + Unpin) -> io::Result<()> {
        let mut number = 0;
        self.stream.send_modify(|newest| {
            *newest += 1;
            number = *newest;
        });
        let Some(fd) = self.fd.lock().clone() else {
            return Ok(());
        };
        let mut newest = self.stream.subscribe();
        let ended = tokio::select! {
            ended = copy(&mut from, &fd) => ended,
            _ = newest.wait_for(|newest| *newest != number) => return Ok(()),
        };
        drop(fd);
        if ended.is_err() || self.close_at_end {
            self.close();
        }
        match ended {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            other => other,
        }
    }

    /// Closes the process's input.
    pub fn close(&self) {
        self.fd.lock().take();
    }
}

async fn copy(from: &mut (impl AsyncRead + Unpin), to: &PollFd) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        let length = match from.read(&mut buffer).await {
            Ok(0) => return Ok(()),
            Ok(length) => length,
            // The host went away: as good as an end.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(()),
            Err(error) => return Err(error),
        };
        to.write_all(&buffer[..length]).await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::unistd::{pipe, read};

    fn input(close_at_end: bool) -> (Arc<Input>, std::os::fd::OwnedFd) {
        let (reader, writer) = pipe().unwrap();
        let fd = Arc::new(PollFd::new(writer).unwrap());
        (Input::new(fd, close_at_end), reader)
    }

    #[tokio::test]
    async fn end_of_the_stream_closes_the_input() {
        let (input, reader) = input(true);
        input.copy_from(&b"abc"[..]).await.unwrap();
        let mut buffer = [0; 8];
        assert_eq!(read(&reader, &mut buffer).unwrap(), 3);
        assert_eq!(read(&reader, &mut buffer).unwrap(), 0);
    }

    #[tokio::test]
    async fn input_that_stays_open_takes_a_second_stream() {
        let (input, reader) = input(false);
        input.copy_from(&b"a"[..]).await.unwrap();
        input.copy_from(&b"b"[..]).await.unwrap();
        let mut buffer = [0; 8];
        assert_eq!(read(&reader, &mut buffer).unwrap(), 2);
    }

    #[tokio::test]
    async fn process_that_does_not_read_any_more_is_no_error() {
        let (input, reader) = input(true);
        drop(reader);
        input.copy_from(&b"abc"[..]).await.unwrap();
    }

    #[tokio::test]
    async fn newer_stream_takes_over_from_one_that_hangs() {
        let (input, _reader) = input(false);
        let (_host, hanging) = tokio::io::duplex(8);
        let first = {
            let input = Arc::clone(&input);
            tokio::spawn(async move { input.copy_from(hanging).await })
        };
        let mut stream = input.stream.subscribe();
        stream.wait_for(|newest| *newest == 1).await.unwrap();
        input.copy_from(&b"b"[..]).await.unwrap();
        first.await.unwrap().unwrap();
    }
}
