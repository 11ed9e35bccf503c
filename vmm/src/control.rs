//! The main thread: control socket, signals, end of the VM.

use std::collections::HashMap;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hull_vmm_client::control::{Answer, Request};
use hull_vmm_client::descriptor::receive;
use hull_vmm_client::exit::ExitReason;
use hull_vmm_client::scaled;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use crate::cpu::{Buses, kick_signal};
use crate::devices::balloon::BalloonResizer;
use crate::devices::block::Block;
use crate::devices::fs::{Fs, FsStatus};
use crate::devices::net::Net;
use crate::events::chain;
use crate::exit::ExitSignal;
use crate::metrics::{Counter, Sample, Samples, render};

/// Most programs at the control socket at a time.
const MAX_CLIENTS: usize = 16;
/// Longest request line, bytes.
const REQUEST_MAX_BYTES: usize = 4096;
/// How long an answer may take to be read, before [`scaled`].
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// How long vCPUs may take to leave the guest for a pause, before [`scaled`].
const PAUSE_TIMEOUT: Duration = Duration::from_secs(2);
const TOKEN_EXIT: u64 = 0;
const TOKEN_SIGNAL: u64 = 1;
const TOKEN_LISTENER: u64 = 2;
const FIRST_CLIENT: u64 = 3;

struct Client {
    stream: UnixStream,
    line: Vec<u8>,
    file: Option<OwnedFd>,
}

/// A disk as the control socket sees it. What can be told without the device's lock is
/// beside it: a slow disk must not keep a request to stop waiting.
pub struct Disk {
    serial: String,
    attached: Arc<AtomicBool>,
    block: Arc<Mutex<Block>>,
}

impl Disk {
    /// For `block`.
    pub fn new(block: Arc<Mutex<Block>>) -> Self {
        let (serial, attached) = {
            let block = block.lock().unwrap_or_else(PoisonError::into_inner);
            (block.serial().to_owned(), block.attached_flag())
        };
        Self {
            serial,
            attached,
            block,
        }
    }
}

/// The virtio-fs device as the control socket sees it.
pub struct FsDevice {
    status: FsStatus,
    device: Arc<Mutex<Fs>>,
}

impl FsDevice {
    /// For `device`.
    pub fn new(device: Arc<Mutex<Fs>>) -> Self {
        let status = device
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .status();
        Self { status, device }
    }
}

/// What requests are answered from.
pub struct Control {
    /// Id of the configuration.
    pub id: String,
    /// Disks by slot.
    pub disks: Vec<Disk>,
    /// Networks by id.
    pub nets: Vec<(String, Arc<Mutex<Net>>)>,
    /// The balloon, when there is one.
    pub balloon: Option<BalloonResizer>,
    /// The virtio-fs device, when there is one.
    pub fs: Option<FsDevice>,
    /// Counters by device name.
    pub metrics: Vec<(String, Arc<dyn Samples>)>,
    /// Threads of the vCPUs.
    pub vcpus: Vec<libc::pthread_t>,
    /// The machine.
    pub buses: Arc<Buses>,
    /// When the vCPUs started.
    pub started: Instant,
}

/// The files of the main thread.
pub struct Server {
    epoll: Epoll,
    listener: UnixListener,
    signals: OwnedFd,
}

impl Server {
    /// Watches `listener`, `signals` (a signalfd with SIGTERM) and the end of the VM.
    pub fn new(listener: UnixListener, signals: OwnedFd, exit: &ExitSignal) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let server = Self {
            epoll: Epoll::new()?,
            listener,
            signals,
        };
        server.watch(exit.event().as_raw_fd(), TOKEN_EXIT)?;
        server.watch(server.signals.as_raw_fd(), TOKEN_SIGNAL)?;
        server.watch(server.listener.as_raw_fd(), TOKEN_LISTENER)?;
        Ok(server)
    }

    fn watch(&self, fd: RawFd, token: u64) -> io::Result<()> {
        self.epoll.ctl(
            ControlOperation::Add,
            fd,
            EpollEvent::new(EventSet::IN, token),
        )
    }

    /// Serves requests until the VM ends.
    pub fn serve(&self, control: &Control) -> io::Result<()> {
        let mut clients: HashMap<u64, Client> = HashMap::new();
        let mut next_client = FIRST_CLIENT;
        let mut events = vec![EpollEvent::default(); MAX_CLIENTS];
        loop {
            let count = match self.epoll.wait(-1, &mut events) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            for event in &events[..count] {
                match event.data() {
                    TOKEN_EXIT => return Ok(()),
                    TOKEN_SIGNAL => control
                        .buses
                        .exit
                        .end(ExitReason::Stopped, "Stopped by SIGTERM"),
                    TOKEN_LISTENER => self.accept(&mut clients, &mut next_client),
                    token => {
                        let alive = clients
                            .get_mut(&token)
                            .is_some_and(|client| client.serve(control));
                        if !alive {
                            clients.remove(&token);
                        }
                    }
                }
            }
        }
    }

    /// Takes a new program; beyond the limit it is closed at once.
    fn accept(&self, clients: &mut HashMap<u64, Client>, next: &mut u64) {
        let Ok((stream, _)) = self.listener.accept() else {
            return;
        };
        let usable = clients.len() < MAX_CLIENTS
            && prepare(&stream).is_ok()
            && self.watch(stream.as_raw_fd(), *next).is_ok();
        if usable {
            clients.insert(
                *next,
                Client {
                    stream,
                    line: Vec::new(),
                    file: None,
                },
            );
            *next += 1;
        }
    }
}

fn prepare(stream: &UnixStream) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_write_timeout(Some(scaled(ANSWER_TIMEOUT)))
}

impl Client {
    /// Takes what has come and answers complete requests; false when the client is gone.
    fn serve(&mut self, control: &Control) -> bool {
        let mut bytes = [0; REQUEST_MAX_BYTES];
        let count = match receive(&self.stream, &mut bytes, &mut self.file, libc::MSG_DONTWAIT) {
            Ok(0) => return false,
            Ok(count) => count,
            Err(error) => {
                return matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                );
            }
        };
        self.line.extend_from_slice(&bytes[..count]);
        while let Some(end) = self.line.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.line.drain(..=end).collect();
            let answer = match serde_json::from_slice(&line) {
                Ok(request) => control.answer(request, self.file.take()),
                Err(error) => Answer::Error {
                    message: format!("Not a request: {error}"),
                },
            };
            let Ok(mut text) = serde_json::to_vec(&answer) else {
                return false;
            };
            text.push(b'\n');
            if self.stream.write_all(&text).is_err() {
                return false;
            }
            if control.buses.exit.is_stopping() {
                break;
            }
        }
        self.line.len() <= REQUEST_MAX_BYTES
    }
}

impl Control {
    /// Carries out a request.
    pub fn answer(&self, request: Request, file: Option<OwnedFd>) -> Answer {
        match request {
            Request::State => self.state(),
            Request::Stop => {
                self.buses
                    .exit
                    .end(ExitReason::Stopped, "Stopped over the control socket");
                Answer::Ok
            }
            Request::Pause => self.pause(),
            Request::Resume => {
                self.buses.gate.open();
                Answer::Ok
            }
            Request::Dump => self.dump(),
            Request::Metrics => Answer::Metrics {
                text: self.metrics(),
            },
            Request::Console { max_bytes, after } => {
                let (text, end) = self.buses.console.tail(max_bytes, after);
                Answer::Console {
                    text,
                    end: Some(end),
                }
            }
            Request::AttachDisk { serial } => match file {
                None => refused("AttachDisk came without a descriptor"),
                Some(file) => self.with_disk(&serial, |disk| {
                    if disk.is_attached() {
                        return refused(format!("Disk {serial} has a backing already"));
                    }
                    match disk.attach(file) {
                        Ok(()) => Answer::Ok,
                        Err(error) => refused(chain(&error)),
                    }
                }),
            },
            Request::DetachDisk { serial } => self.with_disk(&serial, |disk| {
                if disk.detach() {
                    Answer::Ok
                } else {
                    refused(format!("Disk {serial} has no backing"))
                }
            }),
            Request::LimitDisk { serial, limits } => self.with_disk(&serial, |disk| {
                disk.set_limits(limits);
                Answer::Ok
            }),
            Request::LimitNet { id, receive, send } => self.with_net(&id, |net| {
                net.set_limits(receive, send);
                Answer::Ok
            }),
            Request::AttachNet { id } => match file {
                None => refused("AttachNet came without a descriptor"),
                Some(file) => self.with_net(&id, |net| match net.attach(file) {
                    Ok(()) => Answer::Ok,
                    Err(error) => refused(chain(&error)),
                }),
            },
            Request::DetachNet { id } => self.with_net(&id, |net| {
                if net.detach() {
                    Answer::Ok
                } else {
                    refused(format!("Network {id} has no tap"))
                }
            }),
            Request::ResizeBalloon { mib } => match &self.balloon {
                Some(balloon) => {
                    balloon.resize(mib);
                    Answer::Ok
                }
                None => refused("There is no balloon"),
            },
            Request::AttachFs => self.attach_fs(file),
            Request::AddShare { .. } | Request::RemoveShare { .. } => {
                refused("Shares are hull-fsd's, not hull-vmm's")
            }
        }
    }

    fn pause(&self) -> Answer {
        if self.stop_vcpus() {
            Answer::Ok
        } else {
            let limit = scaled(PAUSE_TIMEOUT);
            refused(format!("The vCPUs did not stop within {limit:?}"))
        }
    }

    /// Of a VM that runs the vCPUs stand still for a moment.
    fn dump(&self) -> Answer {
        let paused = self.buses.gate.is_closed();
        let stopped = paused || self.stop_vcpus();
        let answer = Answer::Dump {
            vcpus: if stopped {
                self.buses.gate.positions()
            } else {
                Vec::new()
            },
            text: self.buses.pci.dump(),
        };
        if !paused {
            self.buses.gate.open();
        }
        answer
    }

    /// Makes the vCPUs stand at the gate; false when they do not come there in time.
    fn stop_vcpus(&self) -> bool {
        let kick = || {
            for thread in &self.vcpus {
                // SAFETY: threads of vCPUs are joined by nobody; while the VM runs their
                // ids are valid.
                unsafe { libc::pthread_kill(*thread, kick_signal()) };
            }
        };
        let limit = scaled(PAUSE_TIMEOUT);
        self.buses.gate.close(self.vcpus.len(), limit, kick)
    }

    fn with_net(&self, id: &str, action: impl FnOnce(&mut Net) -> Answer) -> Answer {
        match self.nets.iter().find(|(name, _)| name == id) {
            Some((_, net)) => action(&mut net.lock().unwrap_or_else(PoisonError::into_inner)),
            None => refused(format!("There is no network {id}")),
        }
    }

    fn attach_fs(&self, socket: Option<OwnedFd>) -> Answer {
        let Some(fs) = &self.fs else {
            return refused("There is no virtio-fs device");
        };
        let Some(socket) = socket else {
            return refused("AttachFs came without a descriptor");
        };
        let mut device = fs.device.lock().unwrap_or_else(PoisonError::into_inner);
        match device.attach(UnixStream::from(socket)) {
            Ok(()) => Answer::Ok,
            Err(error) => refused(chain(&error)),
        }
    }

    fn with_disk(&self, serial: &str, action: impl FnOnce(&mut Block) -> Answer) -> Answer {
        if let Some(disk) = self.disks.iter().find(|disk| disk.serial == serial) {
            return action(&mut disk.block.lock().unwrap_or_else(PoisonError::into_inner));
        }
        refused(format!("There is no disk {serial}"))
    }

    fn state(&self) -> Answer {
        let attached = |disk: &&Disk| disk.attached.load(Ordering::Acquire);
        Answer::State {
            id: self.id.clone(),
            pid: std::process::id(),
            uptime_ms: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            running: !self.buses.exit.is_stopping() && !self.buses.gate.is_closed(),
            attached_disks: self
                .disks
                .iter()
                .filter(attached)
                .map(|disk| disk.serial.clone())
                .collect(),
            fs: self.fs.as_ref().map(|fs| fs.status.get(Ordering::Acquire)),
        }
    }

    fn metrics(&self) -> String {
        let mut samples = Vec::new();
        let uptime = self.started.elapsed().as_secs_f64();
        samples.push(Sample::gauge(
            "hull_vmm_uptime_seconds",
            "Seconds since the vCPUs started.",
            &[],
            uptime,
        ));
        for (kind, count) in self.buses.exits.by_kind() {
            samples.push(Sample::counter(
                "hull_vmm_exits_total",
                "Exits of the vCPUs to the VMM by kind.",
                &[("kind", kind)],
                count,
            ));
        }
        let console = Counter::default();
        console.add(self.buses.console.total_bytes());
        samples.push(Sample::counter(
            "hull_vmm_console_bytes_total",
            "Bytes that the guest wrote to its console.",
            &[],
            &console,
        ));
        for (name, source) in &self.metrics {
            source.samples(name, &mut samples);
        }
        render(samples)
    }
}

fn refused(message: impl Into<String>) -> Answer {
    Answer::Error {
        message: message.into(),
    }
}
