//! Runs a command inside a node from the host: streams, signals, exit code.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::frame::{self, CHUNK, Frame, FrameError, Kind, STDIN_WINDOW};
use crate::protocol::{Exit, Request};

/// How long a connection to the forwarded port may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a command could not be run to its end.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The agent's port does not answer.
    #[error("connecting to the node's agent: {0}")]
    Connect(#[source] io::Error),
    /// The channel failed.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The request cannot be written as JSON.
    #[error("encoding the request: {0}")]
    Encode(#[from] serde_json::Error),
    /// The agent refused, or could not start the command.
    #[error("{0}")]
    Refused(String),
    /// The connection ended before the command did.
    #[error("the node went away while the command ran")]
    Lost,
    /// Our own standard output or error is closed.
    #[error("writing the command's output: {0}")]
    Output(#[source] io::Error),
}

/// Connects to an agent and sends the request.
pub fn connect(port: u16, request: &Request) -> Result<TcpStream, ClientError> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream =
        TcpStream::connect_timeout(&address, CONNECT_TIMEOUT).map_err(ClientError::Connect)?;
    stream.set_nodelay(true).map_err(ClientError::Connect)?;
    frame::write(&mut stream, Kind::Request, &serde_json::to_vec(request)?)?;
    Ok(stream)
}

/// Sends signals and terminal sizes to a command that runs.
#[derive(Debug, Clone)]
pub struct Control(Arc<Mutex<TcpStream>>);

impl Control {
    /// Wraps the connection of a command.
    pub fn new(stream: &TcpStream) -> Result<Self, ClientError> {
        Ok(Self(Arc::new(Mutex::new(
            stream.try_clone().map_err(ClientError::Connect)?,
        ))))
    }

    /// Signals the command's process group.
    pub fn signal(&self, number: i32) -> Result<(), ClientError> {
        self.send(Kind::Signal, &number.to_be_bytes())
    }

    /// Sets the size of the command's terminal.
    pub fn resize(&self, rows: u16, columns: u16) -> Result<(), ClientError> {
        let [a, b] = rows.to_be_bytes();
        let [c, d] = columns.to_be_bytes();
        self.send(Kind::Resize, &[a, b, c, d])
    }

    /// Gives the command up: the agent kills it when the connection is gone.
    pub fn disconnect(&self) {
        let stream = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = stream.shutdown(Shutdown::Both);
    }

    fn send(&self, kind: Kind, payload: &[u8]) -> Result<(), ClientError> {
        let mut stream = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(frame::write(&mut *stream, kind, payload)?)
    }
}

/// Bytes of standard input that may still be sent.
#[derive(Debug, Default)]
struct Window {
    sent: Mutex<usize>,
    freed: Condvar,
}

impl Window {
    fn reserve(&self, bytes: usize) {
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        while *sent + bytes > STDIN_WINDOW {
            sent = self
                .freed
                .wait(sent)
                .unwrap_or_else(PoisonError::into_inner);
        }
        *sent += bytes;
    }

    fn release(&self, bytes: usize) {
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        *sent = sent.saturating_sub(bytes);
        self.freed.notify_one();
    }
}

/// Streams a command to its end. `stdin` is read on a thread of its own, which may
/// outlive the command while it waits for input.
pub fn stream(
    mut connection: TcpStream,
    control: &Control,
    stdin: impl Read + Send + 'static,
    stdout: &mut impl Write,
    stderr: &mut impl Write,
) -> Result<Exit, ClientError> {
    let window = Arc::new(Window::default());
    let mut stdin = Some(stdin);
    while let Some(frame) = frame::read(&mut connection)? {
        match frame.kind {
            Kind::Started => {
                if let Some(stdin) = stdin.take() {
                    start_stdin(stdin, control.clone(), Arc::clone(&window));
                }
            }
            Kind::Stdout => copy(&frame, stdout)?,
            Kind::Stderr => copy(&frame, stderr)?,
            Kind::StdinTaken => window.release(frame.as_u32().unwrap_or(0) as usize),
            Kind::Exit => return Ok(serde_json::from_slice(&frame.payload)?),
            Kind::Failed => {
                let reason = String::from_utf8_lossy(&frame.payload).into_owned();
                return Err(ClientError::Refused(reason));
            }
            _ => {}
        }
    }
    Err(ClientError::Lost)
}

fn copy(frame: &Frame, to: &mut impl Write) -> Result<(), ClientError> {
    to.write_all(&frame.payload)
        .and_then(|()| to.flush())
        .map_err(ClientError::Output)
}

fn start_stdin(mut stdin: impl Read + Send + 'static, control: Control, window: Arc<Window>) {
    thread::spawn(move || {
        let mut buffer = vec![0; CHUNK];
        while let Ok(length) = stdin.read(&mut buffer) {
            let Some(bytes) = buffer.get(..length).filter(|bytes| !bytes.is_empty()) else {
                break;
            };
            window.reserve(bytes.len());
            if control.send(Kind::Stdin, bytes).is_err() {
                return;
            }
        }
        let _ = control.send(Kind::StdinEnd, &[]);
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (near, listener.accept().unwrap().0)
    }

    #[test]
    fn streams_stay_apart_and_the_exit_is_returned() {
        let (near, mut far) = pair();
        frame::write(&mut far, Kind::Stdout, b"out").unwrap();
        frame::write(&mut far, Kind::Stderr, b"err").unwrap();
        let exit = serde_json::to_vec(&Exit::Code(7)).unwrap();
        frame::write(&mut far, Kind::Exit, &exit).unwrap();
        let control = Control::new(&near).unwrap();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let exit = stream(near, &control, io::empty(), &mut out, &mut err).unwrap();
        assert_eq!(
            (exit, out.as_slice(), err.as_slice()),
            (Exit::Code(7), &b"out"[..], &b"err"[..])
        );
    }

    #[test]
    fn a_connection_that_ends_early_is_not_a_success() {
        let (near, mut far) = pair();
        frame::write(&mut far, Kind::Started, &1i32.to_be_bytes()).unwrap();
        drop(far);
        let control = Control::new(&near).unwrap();
        let result = stream(
            near,
            &control,
            io::empty(),
            &mut io::sink(),
            &mut io::sink(),
        );
        assert!(result.is_err());
    }

    #[test]
    fn input_beyond_the_window_waits_for_the_command() {
        let (near, mut far) = pair();
        frame::write(&mut far, Kind::Started, &1i32.to_be_bytes()).unwrap();
        let control = Control::new(&near).unwrap();
        let input = io::repeat(b'x').take(2 * STDIN_WINDOW as u64);
        let client =
            thread::spawn(move || stream(near, &control, input, &mut io::sink(), &mut io::sink()));
        let mut got = 0;
        while got < STDIN_WINDOW {
            got += frame::read(&mut far).unwrap().unwrap().payload.len();
        }
        assert_eq!(got, STDIN_WINDOW);
        far.set_read_timeout(Some(Duration::from_millis(100)))
            .unwrap();
        assert!(frame::read(&mut far).is_err(), "sent more than the window");
        far.set_read_timeout(None).unwrap();
        frame::write(
            &mut far,
            Kind::StdinTaken,
            &(STDIN_WINDOW as u32).to_be_bytes(),
        )
        .unwrap();
        loop {
            let frame = frame::read(&mut far).unwrap().unwrap();
            if frame.kind == Kind::StdinEnd {
                break;
            }
            got += frame.payload.len();
        }
        assert_eq!(got, 2 * STDIN_WINDOW);
        let exit = serde_json::to_vec(&Exit::Code(0)).unwrap();
        frame::write(&mut far, Kind::Exit, &exit).unwrap();
        assert_eq!(client.join().unwrap().unwrap(), Exit::Code(0));
    }
}
