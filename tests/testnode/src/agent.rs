//! The guest agent: serves commands to the host over TCP, one connection each.
//!
//! ```text
//!   connection ─► reader ─┬─ Stdin ──► stdin writer ─► command
//!                         └─ Signal, Resize ─────────► command
//!   connection ◄─ waiter ◄─ pumps (stdout, stderr) ◄── command
//! ```
//!
//! When the connection breaks before the command ended, everything in the command's
//! cgroup is killed. A command that ended leaves its background processes alone.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::cache::{CacheError, io_error};
use crate::child::{self, Child, Handle};
use crate::frame::{self, CHUNK, FrameError, Kind};
use crate::protocol::{AGENT_PORT, Action, Command, Exit, READY_LINE, Request};
use crate::{cpus, guest_init, heartbeat};

/// How long a new connection may take to say what it wants.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// After the command ended: how long its streams may be silent, when a background
/// process still holds them, before the exit is reported.
const DRAIN_IDLE: Duration = Duration::from_millis(300);
/// After the command ended: how long its streams are read at most.
const DRAIN_LIMIT: Duration = Duration::from_secs(5);

/// The terminal's default end-of-file character, Control-D.
const END_OF_TRANSMISSION: u8 = 4;

/// Why the agent does not serve.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The token could not be read.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// The port is not to be had.
    #[error("listening on port {AGENT_PORT}: {0}")]
    Listen(std::io::Error),
}

/// Serves until the machine ends.
pub fn serve(token_file: &Path) -> Result<(), AgentError> {
    let token = fs::read_to_string(token_file).map_err(io_error("reading", token_file))?;
    let token: Arc<str> = token.into();
    if let Err(error) = cpus::own().and_then(|cpus| heartbeat::start(&cpus)) {
        tracing::warn!(%error, "no heartbeat: interrupts that the emulator loses stay lost");
    }
    let listener =
        TcpListener::bind((Ipv4Addr::UNSPECIFIED, AGENT_PORT)).map_err(AgentError::Listen)?;
    // Standard output is the node's console. The host looks there before it connects.
    let _ = writeln!(std::io::stdout(), "{READY_LINE}");
    for connection in listener.incoming().filter_map(Result::ok) {
        let token = Arc::clone(&token);
        thread::spawn(move || {
            if let Err(error) = serve_connection(connection, &token) {
                tracing::warn!(%error, "connection failed");
            }
        });
    }
    Ok(())
}

#[derive(Clone)]
struct Output(Arc<Mutex<TcpStream>>);

impl Output {
    fn send(&self, kind: Kind, payload: &[u8]) -> Result<(), FrameError> {
        let mut stream = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        frame::write(&mut *stream, kind, payload)
    }

    fn send_exit(&self, exit: Exit) -> Result<(), FrameError> {
        let payload = serde_json::to_vec(&exit).map_err(std::io::Error::other)?;
        self.send(Kind::Exit, &payload)
    }

    fn close(&self) {
        let stream = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = stream.shutdown(Shutdown::Both);
    }
}

fn serve_connection(mut stream: TcpStream, token: &str) -> Result<(), FrameError> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(REQUEST_TIMEOUT))?;
    let output = Output(Arc::new(Mutex::new(stream.try_clone()?)));
    let Some(first) = frame::read(&mut stream)? else {
        return Ok(());
    };
    let request = serde_json::from_slice::<Request>(&first.payload);
    let action = match request {
        Ok(request) if first.kind == Kind::Request && same(&request.token, token) => request.action,
        Ok(_) => return output.send(Kind::Failed, b"wrong token"),
        Err(error) => return output.send(Kind::Failed, error.to_string().as_bytes()),
    };
    stream.set_read_timeout(None)?;
    match action {
        Action::Ping => output.send_exit(Exit::Code(0)),
        Action::Run(command) => run(stream, output, &command),
    }
}

/// Compares secrets in time that does not depend on where they differ.
fn same(a: &str, b: &str) -> bool {
    a.len() == b.len()
        && a.bytes()
            .zip(b.bytes())
            .fold(0, |sum, (x, y)| sum | (x ^ y))
            == 0
}

fn run(mut stream: TcpStream, output: Output, command: &Command) -> Result<(), FrameError> {
    for path in &command.live {
        if let Err(error) = guest_init::make_live(path) {
            return output.send(Kind::Failed, error.to_string().as_bytes());
        }
    }
    let mut child = match Child::spawn(command) {
        Ok(child) => child,
        Err(error) => return output.send(Kind::Failed, error.to_string().as_bytes()),
    };
    output.send(Kind::Started, &child.pid().to_be_bytes())?;
    let handle = child.handle();
    let terminal = child.terminal.take();
    let input = start_stdin(child.stdin.take(), terminal.is_some(), output.clone());
    let ended = Arc::new(AtomicBool::new(false));
    let waiter = start_waiter(child, output, Arc::clone(&ended));
    read_frames(&mut stream, &handle, input, terminal.as_ref());
    if !ended.load(Ordering::Acquire) {
        handle.kill_all();
    }
    drop(terminal);
    let _ = waiter.join();
    Ok(())
}

/// Hands frames to the command until the connection ends.
fn read_frames(
    stream: &mut TcpStream,
    handle: &Handle,
    input: Sender<Vec<u8>>,
    terminal: Option<&File>,
) {
    let mut input = Some(input);
    while let Ok(Some(frame)) = frame::read(stream) {
        match frame.kind {
            Kind::Stdin => {
                if let Some(input) = &input {
                    let _ = input.send(frame.payload);
                }
            }
            Kind::StdinEnd => input = None,
            Kind::Signal => frame
                .as_i32()
                .into_iter()
                .for_each(|number| handle.signal(number)),
            Kind::Resize => {
                if let (Some(terminal), Some((rows, columns))) = (terminal, frame.as_size()) {
                    child::resize(terminal, rows, columns);
                }
            }
            _ => return,
        }
    }
}

/// The queue is bounded by the client's window, [`frame::STDIN_WINDOW`].
fn start_stdin(stdin: Option<File>, is_terminal: bool, output: Output) -> Sender<Vec<u8>> {
    let (sender, receiver) = mpsc::channel::<Vec<u8>>();
    thread::spawn(move || {
        let mut stdin = stdin;
        for chunk in receiver {
            // A command that closed its input still lets the client's input flow away.
            if stdin
                .as_mut()
                .is_some_and(|file| file.write_all(&chunk).is_err())
            {
                stdin = None;
            }
            let taken = u32::try_from(chunk.len()).unwrap_or(u32::MAX);
            let _ = output.send(Kind::StdinTaken, &taken.to_be_bytes());
        }
        // A pipe ends by being closed; on a terminal the end is a character.
        if let Some(mut terminal) = stdin.filter(|_| is_terminal) {
            let _ = terminal.write_all(&[END_OF_TRANSMISSION]);
        }
    });
    sender
}

fn start_waiter(
    mut child: Child,
    output: Output,
    ended: Arc<AtomicBool>,
) -> thread::JoinHandle<()> {
    let (activity, silence) = mpsc::sync_channel(1);
    if let Ok(stdout) = child.stdout.try_clone() {
        start_pump(stdout, Kind::Stdout, output.clone(), activity.clone());
    }
    if let Some(stderr) = child.stderr.take() {
        start_pump(stderr, Kind::Stderr, output.clone(), activity);
    }
    thread::spawn(move || {
        let exit = child.wait().unwrap_or(Exit::Code(-1));
        ended.store(true, Ordering::Release);
        drain(&silence);
        let _ = output.send_exit(exit);
        output.close();
    })
}

/// Waits until both pumps saw the end of their stream, or have nothing more to read.
fn drain(activity: &Receiver<()>) {
    let deadline = Instant::now() + DRAIN_LIMIT;
    while Instant::now() < deadline {
        match activity.recv_timeout(DRAIN_IDLE) {
            Ok(()) => {}
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return,
        }
    }
}

fn start_pump(mut from: File, kind: Kind, output: Output, activity: SyncSender<()>) {
    thread::spawn(move || {
        let mut buffer = vec![0; CHUNK];
        let mut connected = true;
        // A terminal whose far end closed reads as EIO, which is an end like any other.
        while let Ok(length) = from.read(&mut buffer) {
            let Some(bytes) = buffer.get(..length).filter(|bytes| !bytes.is_empty()) else {
                return;
            };
            // Without a client the stream is still read: a process that the command
            // left in the background must not die of a closed pipe.
            connected = connected && output.send(kind, bytes).is_ok();
            let _ = activity.try_send(());
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_compare_by_content() {
        assert!(same("abc", "abc"));
        assert!(!same("abc", "abd"));
        assert!(!same("abc", "ab"));
    }

    #[test]
    fn a_wrong_token_runs_nothing() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            serve_connection(stream, "right").unwrap();
        });
        let mut stream = TcpStream::connect(address).unwrap();
        let request = Request {
            token: "wrong".into(),
            action: Action::Ping,
        };
        frame::write(
            &mut stream,
            Kind::Request,
            &serde_json::to_vec(&request).unwrap(),
        )
        .unwrap();
        let answer = frame::read(&mut stream).unwrap().unwrap();
        assert_eq!(
            (answer.kind, answer.payload.as_slice()),
            (Kind::Failed, &b"wrong token"[..])
        );
        server.join().unwrap();
    }
}
