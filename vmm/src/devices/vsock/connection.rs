//! One connection: its state, the credit of both directions, and what the guest must be
//! told next.
//!
//! Credit (virtio 1.2 §5.10.6.3). To the guest: never more than `peer_buffer` bytes beyond
//! what it says it has forwarded. From the guest: it may have `BUFFER_BYTES` in flight; what
//! the host program does not take yet waits in `outgoing`, and `forwarded` counts what it
//! has taken. All counters wrap at 2^32.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;

use super::packet::{Operation, SHUTDOWN_RECEIVE, SHUTDOWN_SEND};

/// Receive buffer that the guest is offered per connection, bytes.
pub const BUFFER_BYTES: u32 = 256 * 1024;
/// The guest is told of its credit when at least this much of the buffer looks used to it.
const UPDATE_AT_BYTES: u32 = BUFFER_BYTES / 2;

/// Why a connection must be reset.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub enum Violation {
    /// The guest sent more than its credit.
    Credit,
    /// The guest sent data after it said it would not, or before the connection stood.
    State,
}

/// Where a connection is.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub enum State {
    /// The host program connected; the guest has not answered.
    Requested,
    /// Both sides may send.
    Established,
    /// The guest is told that the connection is gone; then it is forgotten.
    Closing,
}

/// What the guest is to be told.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Pending {
    request: bool,
    response: bool,
    shutdown: bool,
    credit_update: bool,
    credit_request: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Connection {
    socket: UnixStream,
    state: State,
    pending: Pending,
    /// The host port, to tell the host program once the guest accepts.
    greeting: Option<u32>,
    readable: bool,
    /// The host program sends no more.
    host_done: bool,
    /// The host program takes no more.
    host_deaf: bool,
    /// The guest sends no more.
    guest_done: bool,
    /// The guest takes no more.
    guest_deaf: bool,
    shutdown_told: u32,
    outgoing: Vec<u8>,
    outgoing_start: usize,
    forwarded: u32,
    forwarded_told: u32,
    received: u32,
    peer_buffer: u32,
    peer_forwarded: u32,
    sent: u32,
    credit_asked: bool,
    queued: bool,
}

impl Connection {
    fn new(socket: UnixStream, state: State) -> Self {
        Self {
            socket,
            state,
            pending: Pending::default(),
            greeting: None,
            readable: false,
            host_done: false,
            host_deaf: false,
            guest_done: false,
            guest_deaf: false,
            shutdown_told: 0,
            outgoing: Vec::new(),
            outgoing_start: 0,
            forwarded: 0,
            forwarded_told: 0,
            received: 0,
            peer_buffer: 0,
            peer_forwarded: 0,
            sent: 0,
            credit_asked: false,
            queued: false,
        }
    }

    /// A connection that a host program opened.
    pub fn from_host(socket: UnixStream, host_port: u32) -> Self {
        let mut connection = Self::new(socket, State::Requested);
        connection.pending.request = true;
        connection.greeting = Some(host_port);
        connection
    }

    /// A connection that the guest opened and a host program listens for.
    pub fn from_guest(socket: UnixStream, buffer_size: u32, forwarded: u32) -> Self {
        let mut connection = Self::new(socket, State::Established);
        connection.pending.response = true;
        connection.learn_credit(buffer_size, forwarded);
        connection
    }

    /// Its host socket.
    pub fn fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    /// Where it is.
    pub fn state(&self) -> State {
        self.state
    }

    /// Marks it as waiting for its turn; true when it was not yet.
    pub fn enqueue(&mut self) -> bool {
        !std::mem::replace(&mut self.queued, true)
    }

    /// It has its turn now.
    pub fn dequeue(&mut self) {
        self.queued = false;
    }

    /// Takes the credit fields of any packet of the guest.
    pub fn learn_credit(&mut self, buffer_size: u32, forwarded: u32) {
        self.peer_buffer = buffer_size;
        self.peer_forwarded = forwarded;
        if self.credit() > 0 {
            self.credit_asked = false;
        }
    }

    /// Bytes that may be sent to the guest now.
    pub fn credit(&self) -> u32 {
        let in_flight = self.sent.wrapping_sub(self.peer_forwarded);
        self.peer_buffer.saturating_sub(in_flight)
    }

    /// (buffer size, forwarded) for a packet to the guest; it counts as told.
    pub fn tell_credit(&mut self) -> (u32, u32) {
        self.forwarded_told = self.forwarded;
        self.pending.credit_update = false;
        (BUFFER_BYTES, self.forwarded)
    }

    /// The guest accepted. False when it had nothing to accept.
    pub fn accept(&mut self) -> bool {
        if self.state != State::Requested {
            return false;
        }
        self.state = State::Established;
        if let Some(port) = self.greeting.take() {
            // The socket is new and empty: these few bytes always fit.
            let greeting = format!("OK {port}\n");
            if self.socket.write_all(greeting.as_bytes()).is_err() {
                self.close();
            }
        }
        true
    }

    /// The guest asks for the credit.
    pub fn ask_credit(&mut self) {
        self.pending.credit_update = true;
    }

    /// Data of the guest.
    pub fn send(&mut self, data: &[u8]) -> Result<(), Violation> {
        if self.state == State::Closing {
            return Ok(());
        }
        if self.state != State::Established || self.guest_done {
            return Err(Violation::State);
        }
        self.received = self.received.wrapping_add(data.len() as u32);
        if self.received.wrapping_sub(self.forwarded) > BUFFER_BYTES {
            return Err(Violation::Credit);
        }
        if self.host_deaf {
            self.forward(data.len());
            return Ok(());
        }
        let mut rest = data;
        if self.outgoing.is_empty() {
            let taken = self.write_some(rest);
            rest = &rest[taken..];
        }
        if !self.host_deaf {
            self.outgoing.extend_from_slice(rest);
        } else {
            self.forward(rest.len());
        }
        Ok(())
    }

    /// Gives the host program what waits for it.
    pub fn flush(&mut self) {
        while self.outgoing_start < self.outgoing.len() && !self.host_deaf {
            let waiting = std::mem::take(&mut self.outgoing);
            let taken = self.write_some(&waiting[self.outgoing_start..]);
            self.outgoing = waiting;
            if taken == 0 {
                break;
            }
            self.outgoing_start += taken;
        }
        if self.host_deaf {
            let dropped = self.outgoing.len() - self.outgoing_start;
            self.forward(dropped);
        }
        if self.host_deaf || self.outgoing_start == self.outgoing.len() {
            self.outgoing.clear();
            self.outgoing_start = 0;
            self.finish_send();
        } else if self.outgoing_start > self.outgoing.len() / 2 {
            self.outgoing.drain(..self.outgoing_start);
            self.outgoing_start = 0;
        }
    }

    fn write_some(&mut self, data: &[u8]) -> usize {
        let mut done = 0;
        while done < data.len() {
            match self.socket.write(&data[done..]) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => {
                    self.host_deaf = true;
                    self.pending.shutdown = true;
                    break;
                }
            }
        }
        self.forward(done);
        done
    }

    /// The host program took `count` bytes.
    fn forward(&mut self, count: usize) {
        self.forwarded = self.forwarded.wrapping_add(count as u32);
        if self.forwarded.wrapping_sub(self.forwarded_told) >= UPDATE_AT_BYTES {
            self.pending.credit_update = true;
        }
    }

    fn finish_send(&mut self) {
        if self.guest_done && self.outgoing.is_empty() {
            // ENOTCONN when the host program is gone already.
            let _ = self.socket.shutdown(Shutdown::Write);
            if self.guest_deaf || self.host_done {
                self.close();
            }
        }
    }

    /// The guest shut down a direction ([`SHUTDOWN_RECEIVE`], [`SHUTDOWN_SEND`]).
    pub fn shutdown(&mut self, flags: u32) {
        if flags & SHUTDOWN_RECEIVE != 0 && !self.guest_deaf {
            self.guest_deaf = true;
            self.readable = false;
            let _ = self.socket.shutdown(Shutdown::Read);
        }
        self.guest_done |= flags & SHUTDOWN_SEND != 0;
        self.flush();
        self.finish_send();
    }

    /// Ends it: the guest is told with a reset.
    pub fn close(&mut self) {
        self.state = State::Closing;
        // Both directions: the host program sees the end even if this process keeps the
        // descriptor a moment longer.
        let _ = self.socket.shutdown(Shutdown::Both);
    }

    /// The host socket became readable, writable, or was closed.
    pub fn socket_ready(&mut self, readable: bool, writable: bool) {
        self.readable |= readable && !self.guest_deaf;
        if writable {
            self.flush();
        }
    }

    /// A host program that gave up before the guest answered.
    pub fn host_gave_up(&mut self) -> bool {
        if self.state != State::Requested {
            return false;
        }
        let mut byte = [0; 1];
        // A program may send before it has read the greeting; only an end is looked for.
        // SAFETY: the buffer has room for the one byte asked for.
        let count = unsafe {
            libc::recv(
                self.fd(),
                byte.as_mut_ptr().cast(),
                1,
                libc::MSG_PEEK | libc::MSG_DONTWAIT,
            )
        };
        count == 0 || count < 0 && io::Error::last_os_error().kind() != io::ErrorKind::WouldBlock
    }

    /// What the guest must be told next; `None` when there is nothing now.
    pub fn next_operation(&mut self) -> Option<Operation> {
        let established = self.state == State::Established;
        if self.state == State::Closing {
            return Some(Operation::Reset);
        }
        if self.pending.request {
            return Some(Operation::Request);
        }
        if self.pending.response {
            return Some(Operation::Response);
        }
        if !established {
            return None;
        }
        if self.pending.credit_update {
            return Some(Operation::CreditUpdate);
        }
        if self.readable {
            if self.credit() > 0 {
                return Some(Operation::Data);
            }
            self.pending.credit_request |= !std::mem::replace(&mut self.credit_asked, true);
        }
        if self.pending.credit_request {
            return Some(Operation::CreditRequest);
        }
        (self.pending.shutdown && self.shutdown_flags() != self.shutdown_told)
            .then_some(Operation::Shutdown)
    }

    /// The operation was put into a packet.
    pub fn told(&mut self, operation: Operation) {
        match operation {
            Operation::Request => self.pending.request = false,
            Operation::Response => self.pending.response = false,
            Operation::CreditRequest => self.pending.credit_request = false,
            Operation::CreditUpdate => self.pending.credit_update = false,
            Operation::Shutdown => {
                self.pending.shutdown = false;
                self.shutdown_told = self.shutdown_flags();
            }
            Operation::Reset | Operation::Data => {}
        }
    }

    /// Flags for [`Operation::Shutdown`].
    pub fn shutdown_flags(&self) -> u32 {
        let send = if self.host_done { SHUTDOWN_SEND } else { 0 };
        let receive = if self.host_deaf { SHUTDOWN_RECEIVE } else { 0 };
        send | receive
    }

    /// Reads what the host program sent, at most the credit; 0 when there is nothing.
    pub fn receive(&mut self, buffer: &mut [u8]) -> usize {
        let limit = buffer.len().min(self.credit() as usize);
        loop {
            match self.socket.read(&mut buffer[..limit]) {
                Ok(0) => self.host_ended(),
                Ok(count) => {
                    self.sent = self.sent.wrapping_add(count as u32);
                    return count;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.readable = false,
                Err(_) => {
                    self.host_deaf = true;
                    self.host_ended();
                }
            }
            return 0;
        }
    }

    fn host_ended(&mut self) {
        self.readable = false;
        self.host_done = true;
        self.pending.shutdown = true;
        if hung_up(self.fd()) {
            self.host_deaf = true;
        }
        self.finish_send();
    }
}

/// Whether the other end of a stream socket is closed in both directions.
fn hung_up(fd: RawFd) -> bool {
    let mut entry = libc::pollfd {
        fd,
        events: 0,
        revents: 0,
    };
    // SAFETY: one valid pollfd.
    let count = unsafe { libc::poll(&mut entry, 1, 0) };
    count > 0 && entry.revents & (libc::POLLHUP | libc::POLLERR) != 0
}

#[cfg(test)]
mod tests;
