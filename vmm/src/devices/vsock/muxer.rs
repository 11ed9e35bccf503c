//! All connections of the device, and what is to be told to the guest.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;

use vmm_sys_util::epoll::EventSet;

use super::connection::{BUFFER_BYTES, Connection, State};
use super::listener::{Greeting, read_greeting};
use super::metrics::VsockMetrics;
use super::packet::{HOST_CID, Header, Operation, TYPE_STREAM};
use crate::events::DevicePoller;

/// Most connections at a time.
pub const MAX_CONNECTIONS: usize = 1023;
/// Most host programs that have connected and not yet named a port.
const MAX_GREETINGS: usize = 64;
/// Most resets for unknown connections that wait to be told; beyond, they are dropped.
const MAX_STRAY_RESETS: usize = 256;
/// Host ports given to host programs; below are those that guests know by number.
const FIRST_HOST_PORT: u32 = 1 << 30;
/// The event of the listener; queues have 0 to 2.
pub const EVENT_LISTENER: u32 = 3;
const FIRST_SOCKET_EVENT: u32 = 4;

/// A connection by its (host port, guest port).
type Key = (u32, u32);

enum Source {
    Greeting(UnixStream),
    Connection(Key),
}

/// See the module.
pub struct Muxer {
    guest_cid: u64,
    prefix: String,
    listener: UnixListener,
    poller: DevicePoller,
    sources: HashMap<u32, Source>,
    greetings: usize,
    next_event: u32,
    next_host_port: u32,
    connections: HashMap<Key, (u32, Connection)>,
    ready: VecDeque<Key>,
    stray_resets: VecDeque<Key>,
    metrics: Arc<VsockMetrics>,
}

impl Muxer {
    /// Serves `listener` and connects to `<prefix>_<port>` in the current directory.
    pub fn new(
        guest_cid: u32,
        prefix: String,
        listener: UnixListener,
        poller: DevicePoller,
        metrics: Arc<VsockMetrics>,
    ) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        poller.add(listener.as_raw_fd(), EVENT_LISTENER, EventSet::IN)?;
        Ok(Self {
            guest_cid: u64::from(guest_cid),
            prefix,
            listener,
            poller,
            sources: HashMap::new(),
            greetings: 0,
            next_event: FIRST_SOCKET_EVENT,
            next_host_port: FIRST_HOST_PORT,
            connections: HashMap::new(),
            ready: VecDeque::new(),
            stray_resets: VecDeque::new(),
            metrics,
        })
    }

    /// Forgets all connections; the host programs see them end.
    pub fn reset(&mut self) {
        self.sources.clear();
        self.connections.clear();
        self.ready.clear();
        self.stray_resets.clear();
        self.greetings = 0;
    }

    /// Whether the guest may have to be told something.
    pub fn has_pending(&self) -> bool {
        !self.ready.is_empty() || !self.stray_resets.is_empty()
    }

    /// Takes new host programs; refuses them while no guest listens.
    pub fn accept(&mut self, active: bool) {
        loop {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return,
            };
            if !active || self.greetings >= MAX_GREETINGS || stream.set_nonblocking(true).is_err() {
                self.metrics.resets.add(1);
                continue;
            }
            if let Some(event) = self.watch(&stream) {
                self.greetings += 1;
                self.sources.insert(event, Source::Greeting(stream));
                // The line may be there already.
                self.greet(event);
            }
        }
    }

    fn watch(&mut self, stream: &UnixStream) -> Option<u32> {
        let mut event = self.next_event;
        while self.sources.contains_key(&event) {
            event = event.wrapping_add(1).max(FIRST_SOCKET_EVENT);
        }
        self.next_event = event.wrapping_add(1).max(FIRST_SOCKET_EVENT);
        let set = EventSet::IN | EventSet::OUT | EventSet::READ_HANG_UP;
        self.poller.add(stream.as_raw_fd(), event, set).ok()?;
        Some(event)
    }

    /// A socket is ready.
    pub fn socket_ready(&mut self, event: u32, ready: u32) {
        match self.sources.get(&event) {
            None => {}
            Some(Source::Greeting(_)) => self.greet(event),
            Some(Source::Connection(key)) => {
                let key = *key;
                let end = EventSet::READ_HANG_UP | EventSet::HANG_UP | EventSet::ERROR;
                let readable = ready & (EventSet::IN | end).bits() != 0;
                let writable = ready & (EventSet::OUT | end).bits() != 0;
                if let Some((_, connection)) = self.connections.get_mut(&key) {
                    connection.socket_ready(readable, writable);
                    if ready & end.bits() != 0 && connection.host_gave_up() {
                        connection.close();
                    }
                }
                self.schedule(key);
            }
        }
    }

    fn greet(&mut self, event: u32) {
        let Some(Source::Greeting(stream)) = self.sources.get_mut(&event) else {
            return;
        };
        let greeting = read_greeting(stream);
        if greeting == Greeting::Incomplete {
            return;
        }
        self.greetings = self.greetings.saturating_sub(1);
        let Some(Source::Greeting(stream)) = self.sources.remove(&event) else {
            return;
        };
        let (Greeting::Port(guest_port), true) =
            (greeting, self.connections.len() < MAX_CONNECTIONS)
        else {
            self.metrics.resets.add(1);
            return;
        };
        let host_port = self.free_host_port(guest_port);
        let mut connection = Connection::from_host(stream, host_port);
        // Edges before this point were for the greeting.
        connection.socket_ready(true, false);
        self.insert((host_port, guest_port), event, connection);
    }

    fn free_host_port(&mut self, guest_port: u32) -> u32 {
        loop {
            let port = self.next_host_port;
            self.next_host_port = port.wrapping_add(1).max(FIRST_HOST_PORT);
            if !self.connections.contains_key(&(port, guest_port)) {
                return port;
            }
        }
    }

    fn insert(&mut self, key: Key, event: u32, connection: Connection) {
        self.sources.insert(event, Source::Connection(key));
        self.connections.insert(key, (event, connection));
        self.schedule(key);
    }

    fn schedule(&mut self, key: Key) {
        if let Some((_, connection)) = self.connections.get_mut(&key)
            && connection.next_operation().is_some()
            && connection.enqueue()
        {
            self.ready.push_back(key);
        }
    }

    fn remove(&mut self, key: Key) {
        if let Some((event, connection)) = self.connections.remove(&key) {
            self.sources.remove(&event);
            let _ = self.poller.remove(connection.fd());
        }
    }

    fn stray_reset(&mut self, key: Key) {
        self.metrics.resets.add(1);
        if self.stray_resets.len() < MAX_STRAY_RESETS {
            self.stray_resets.push_back(key);
        }
    }

    /// Most payload that is worth copying for a packet: more can never be within credit.
    pub fn payload_limit() -> usize {
        BUFFER_BYTES as usize
    }

    /// A packet of the guest. `payload` is `None` when it is longer than
    /// [`Muxer::payload_limit`].
    pub fn packet(&mut self, header: &Header, payload: Option<&[u8]>) {
        if header.source_cid != self.guest_cid || header.destination_cid != HOST_CID {
            return;
        }
        let key = (header.destination_port, header.source_port);
        tracing::trace!(?header, "Packet of the guest");
        let operation = Operation::from_wire(header.operation);
        if header.kind != TYPE_STREAM {
            if operation != Some(Operation::Reset) {
                self.stray_reset(key);
            }
            return;
        }
        let Some((_, connection)) = self.connections.get_mut(&key) else {
            match operation {
                Some(Operation::Request) => self.open(key, header),
                Some(Operation::Reset) => {}
                _ => self.stray_reset(key),
            }
            return;
        };
        connection.learn_credit(header.buffer_size, header.forwarded);
        match operation {
            Some(Operation::Reset) => {
                if connection.state() == State::Requested {
                    self.metrics.resets.add(1);
                }
                self.remove(key);
                return;
            }
            Some(Operation::Response) => {
                if connection.accept() {
                    self.metrics.connections.add(1);
                } else {
                    connection.close();
                }
            }
            Some(Operation::Data) => {
                let sent = payload.map(|data| (data.len(), connection.send(data)));
                match sent {
                    Some((bytes, Ok(()))) => self.metrics.sent_bytes.add(bytes as u64),
                    other => {
                        tracing::debug!(?key, outcome = ?other, "Connection reset: the guest broke the rules");
                        self.metrics.resets.add(1);
                        connection.close();
                    }
                }
            }
            Some(Operation::Shutdown) => connection.shutdown(header.flags),
            Some(Operation::CreditRequest) => connection.ask_credit(),
            Some(Operation::CreditUpdate) => {}
            Some(Operation::Request) | None => connection.close(),
        }
        self.schedule(key);
    }

    /// The guest wants a connection to a host port.
    fn open(&mut self, key: Key, header: &Header) {
        let stream = if self.connections.len() < MAX_CONNECTIONS {
            connect(&format!("{}_{}", self.prefix, key.0)).ok()
        } else {
            None
        };
        let Some(stream) = stream else {
            self.stray_reset(key);
            return;
        };
        let Some(event) = self.watch(&stream) else {
            self.stray_reset(key);
            return;
        };
        self.metrics.connections.add(1);
        let connection = Connection::from_guest(stream, header.buffer_size, header.forwarded);
        self.insert(key, event, connection);
    }

    /// Makes the next packet for the guest; its payload goes to the front of `buffer`.
    pub fn next_packet(&mut self, buffer: &mut [u8]) -> Option<Header> {
        if let Some(key) = self.stray_resets.pop_front() {
            return Some(self.header(key, Operation::Reset, 0, 0, (0, 0)));
        }
        while let Some(key) = self.ready.pop_front() {
            let Some((_, connection)) = self.connections.get_mut(&key) else {
                continue;
            };
            connection.dequeue();
            let Some(operation) = connection.next_operation() else {
                continue;
            };
            let mut length = 0;
            if operation == Operation::Data {
                length = connection.receive(buffer);
                if length == 0 {
                    self.schedule(key);
                    continue;
                }
            }
            let flags = if operation == Operation::Shutdown {
                connection.shutdown_flags()
            } else {
                0
            };
            connection.told(operation);
            let credit = connection.tell_credit();
            self.metrics.received_bytes.add(length as u64);
            if operation == Operation::Reset {
                self.remove(key);
            } else {
                self.schedule(key);
            }
            tracing::trace!(
                ?key,
                ?operation,
                length,
                flags,
                ?credit,
                "Packet to the guest"
            );
            return Some(self.header(key, operation, length as u32, flags, credit));
        }
        None
    }

    fn header(
        &self,
        key: Key,
        operation: Operation,
        length: u32,
        flags: u32,
        credit: (u32, u32),
    ) -> Header {
        Header {
            source_cid: HOST_CID,
            destination_cid: self.guest_cid,
            source_port: key.0,
            destination_port: key.1,
            length,
            kind: TYPE_STREAM,
            operation: operation as u16,
            flags,
            buffer_size: credit.0,
            forwarded: credit.1,
        }
    }
}

/// Connects without blocking; a listener whose backlog is full refuses.
fn connect(path: &str) -> io::Result<UnixStream> {
    use std::os::fd::{FromRawFd, OwnedFd};
    // SAFETY: plain system call; the result is checked.
    let raw = unsafe {
        libc::socket(
            libc::AF_UNIX,
            libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC,
            0,
        )
    };
    if raw < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: raw is a descriptor that nothing else owns.
    let fd = unsafe { OwnedFd::from_raw_fd(raw) };
    // SAFETY: all-zero bytes are a valid sockaddr_un.
    let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    address.sun_family = libc::AF_UNIX as libc::sa_family_t;
    if path.len() >= address.sun_path.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (target, byte) in address.sun_path.iter_mut().zip(path.bytes()) {
        *target = byte as libc::c_char;
    }
    let length = size_of::<libc::sockaddr_un>() as libc::socklen_t;
    // SAFETY: the address is initialised and as long as said.
    let outcome = unsafe { libc::connect(raw, (&raw const address).cast(), length) };
    if outcome < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(UnixStream::from(fd))
}

#[cfg(test)]
mod tests;
