//! hull-vmm's virtio-fs device with a real hull-fsd behind it, and no guest: the test drives
//! the queue. Runs as root.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hull_vmm::devices::fs::{Fs, FsMetrics};
use hull_vmm::events::EventLoop;
use hull_vmm::interrupts::{InterruptController, InterruptError, MsiMessage};
use hull_vmm::memory::{self, GuestMemory};
use hull_vmm::pci::{PciDevice, PciRoot};
use hull_vmm::virtio::{Doorbells, VirtioPciDevice};
use hull_vmm_client::config::{JailConfig, MemoryPages};
use hull_vmm_client::control::FsState;
use hull_vmm_client::fsd::{FsdConfig, spawn};
use hull_vmm_client::scaled;
use vm_memory_of_vmm::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::EventFd;

const WAIT: Duration = Duration::from_secs(10);
const JAIL_USER: u32 = 230_002;
const MEMORY_MIB: u64 = 32;
const REQUEST: u64 = 0x10_0000;
const ANSWER: u64 = 0x11_0000;
const QUEUE_SIZE: u16 = 16;
/// Where the rings of queue n are.
const RINGS: u64 = 0x20_0000;

/// Interrupts that nobody hears.
#[derive(Default)]
struct Silent(Mutex<u32>);

impl InterruptController for Silent {
    fn allocate(&self) -> Result<u32, InterruptError> {
        let mut next = self.0.lock().unwrap();
        *next += 1;
        Ok(*next)
    }
    fn route(&self, _: u32, _: MsiMessage) -> Result<(), InterruptError> {
        Ok(())
    }
    fn connect(&self, _: u32, _: &EventFd) -> Result<(), InterruptError> {
        Ok(())
    }
    fn disconnect(&self, _: u32, _: &EventFd) -> Result<(), InterruptError> {
        Ok(())
    }
    fn connect_level(&self, _: u32, _: &EventFd, _: &EventFd) -> Result<(), InterruptError> {
        Ok(())
    }
}

impl Doorbells for Silent {
    fn connect(&self, _: u64, _: &EventFd) -> Result<(), kvm_ioctls::Error> {
        Ok(())
    }
    fn disconnect(&self, _: u64, _: &EventFd) -> Result<(), kvm_ioctls::Error> {
        Ok(())
    }
}

/// The device on a bus, as its driver sees it.
struct Machine {
    memory: GuestMemory,
    device: Arc<Mutex<Fs>>,
    pci: Arc<VirtioPciDevice>,
    metrics: Arc<FsMetrics>,
    /// Requests that were sent.
    sent: u16,
}

impl Machine {
    /// `request_queues` of the device, of which the driver uses one.
    fn new(request_queues: u16) -> Self {
        let memory = memory::create(MEMORY_MIB, MemoryPages::Normal).unwrap();
        let mut events = EventLoop::new().unwrap();
        let poller = events.poller();
        let metrics = Arc::new(FsMetrics::default());
        let fs = Fs::new("hull", request_queues, poller.clone(), metrics.clone()).unwrap();
        let device = Arc::new(Mutex::new(fs));
        let silent = Arc::new(Silent::default());
        let pci = VirtioPciDevice::attach(
            &mut PciRoot::default(),
            device.clone(),
            silent.clone(),
            silent,
            memory.clone(),
        )
        .unwrap();
        events.add(&poller, &pci).unwrap();
        std::thread::spawn(move || events.run());
        let machine = Self {
            memory,
            device,
            pci,
            metrics,
            sent: 0,
        };
        machine.switch_on();
        machine
    }

    /// What a driver does (virtio 1.2 §3.1.1), with two queues.
    fn switch_on(&self) {
        let write = |offset: u64, data: &[u8]| self.pci.write_bar(0, offset, data);
        for status in [1u8, 3] {
            write(20, &[status]);
        }
        for (select, features) in [(0u32, 0u32), (1, 1)] {
            write(8, &select.to_le_bytes());
            write(12, &features.to_le_bytes());
        }
        write(20, &[11]);
        for queue in 0..2u16 {
            write(22, &queue.to_le_bytes());
            write(24, &QUEUE_SIZE.to_le_bytes());
            for (register, address) in [32, 40, 48].into_iter().zip(rings(queue)) {
                write(register, &address.to_le_bytes());
            }
            write(28, &1u16.to_le_bytes());
        }
        write(20, &[15]);
        let mut status = [0];
        self.pci.read_bar(0, 20, &mut status);
        assert_eq!(status, [15]);
    }

    fn write(&self, address: u64, bytes: &[u8]) {
        self.memory
            .write_slice(bytes, GuestAddress(address))
            .unwrap();
    }

    /// Puts a FUSE request into the request queue and rings.
    fn send(&mut self, opcode: u32, body: &[u8]) {
        let [descriptors, available, _] = rings(1);
        let mut request = (40 + body.len() as u32).to_le_bytes().to_vec();
        request.extend(opcode.to_le_bytes());
        request.extend(u64::from(self.sent).to_le_bytes());
        request.extend(1u64.to_le_bytes());
        request.extend([0; 16]);
        request.extend(body);
        self.write(REQUEST, &request);
        for (index, (address, length, flags, next)) in [
            (REQUEST, request.len() as u32, 1u16, 1u16),
            (ANSWER, 4096, 2, 0),
        ]
        .into_iter()
        .enumerate()
        {
            let at = descriptors + 16 * index as u64;
            self.write(at, &address.to_le_bytes());
            self.write(at + 8, &length.to_le_bytes());
            self.write(at + 12, &flags.to_le_bytes());
            self.write(at + 14, &next.to_le_bytes());
        }
        let slot = available + 4 + 2 * u64::from(self.sent % QUEUE_SIZE);
        self.write(slot, &0u16.to_le_bytes());
        self.sent += 1;
        self.write(available + 2, &self.sent.to_le_bytes());
        // NOTIFY, queue 1.
        self.pci.write_bar(0, 0x3000 + 4, &1u16.to_le_bytes());
    }

    fn answered(&self) -> u16 {
        let [_, _, used] = rings(1);
        self.memory.read_obj(GuestAddress(used + 2)).unwrap()
    }

    /// Waits for the answer; gives its error number.
    fn error(&self) -> i32 {
        wait("an answer", || self.answered() == self.sent);
        let unique: u64 = self.memory.read_obj(GuestAddress(ANSWER + 8)).unwrap();
        assert_eq!(unique, u64::from(self.sent - 1));
        -self
            .memory
            .read_obj::<i32>(GuestAddress(ANSWER + 4))
            .unwrap()
    }

    fn init(&mut self) -> i32 {
        let mut body = 7u32.to_le_bytes().to_vec();
        body.extend(38u32.to_le_bytes());
        body.extend([0; 8]);
        self.send(26, &body);
        self.error()
    }
}

/// Descriptor table, available ring, used ring.
fn rings(queue: u16) -> [u64; 3] {
    let base = RINGS + 0x1_0000 * u64::from(queue);
    [base, base + 0x1000, base + 0x2000]
}

fn wait(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + scaled(WAIT);
    while !condition() {
        assert!(Instant::now() < deadline, "{what} did not come");
        std::thread::yield_now();
    }
}

/// A process of which the test knows when it is to end.
struct Server(Child);

impl Server {
    fn start(directory: &Path, request_queues: u16) -> (Self, UnixStream) {
        let listener = UnixListener::bind(directory.join("vhost")).unwrap();
        let control = UnixListener::bind(directory.join("control")).unwrap();
        let config = FsdConfig {
            id: "test".into(),
            socket_fd: listener.as_raw_fd(),
            control_fd: control.as_raw_fd(),
            request_queues,
            jail: Some(JailConfig {
                uid: JAIL_USER,
                gid: JAIL_USER,
                seccomp: true,
            }),
        };
        let program = Path::new(env!("CARGO_BIN_EXE_hull-fsd"));
        let child = spawn(program, &config, None, Stdio::inherit()).unwrap();
        let stream = UnixStream::connect(directory.join("vhost")).unwrap();
        (Self(child), stream)
    }

    fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

#[test]
fn requests_wait_for_the_back_end_and_fail_when_it_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    // The driver has one CPU and leaves the third queue off.
    let mut machine = Machine::new(2);
    let mut body = 7u32.to_le_bytes().to_vec();
    body.extend(38u32.to_le_bytes());
    body.extend([0; 8]);
    machine.send(26, &body);
    assert_eq!(machine.answered(), 0);
    let (mut server, stream) = Server::start(directory.path(), 2);
    machine.device.lock().unwrap().attach(stream).unwrap();
    assert_eq!(machine.error(), 0);
    // FUSE_LOOKUP of a share that is not there.
    machine.send(1, b"none\0");
    assert_eq!(machine.error(), libc::ENOENT);
    wait("a call", || machine.metrics.calls.get() != 0);
    server.kill();
    let status = machine.device.lock().unwrap().status();
    wait("the end", || {
        status.get(Ordering::Acquire) == FsState::Broken
    });
    for _ in 0..20 {
        machine.send(1, b"none\0");
        assert_eq!(machine.error(), libc::ENOTCONN);
    }
    let (ours, _theirs) = UnixStream::pair().unwrap();
    assert!(machine.device.lock().unwrap().attach(ours).is_err());
}

#[test]
fn a_device_that_is_reset_serves_its_next_driver() {
    let directory = tempfile::tempdir().unwrap();
    let mut machine = Machine::new(1);
    let (_server, stream) = Server::start(directory.path(), 1);
    machine.device.lock().unwrap().attach(stream).unwrap();
    assert_eq!(machine.init(), 0);
    machine.pci.write_bar(0, 20, &[0]);
    for queue in 0..2 {
        for ring in rings(queue) {
            machine.write(ring, &[0; 0x1000]);
        }
    }
    machine.sent = 0;
    machine.switch_on();
    assert_eq!(machine.init(), 0);
}

#[test]
fn a_back_end_with_other_queues_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let machine = Machine::new(2);
    let (_server, stream) = Server::start(directory.path(), 1);
    let error = machine.device.lock().unwrap().attach(stream).unwrap_err();
    assert!(error.to_string().contains("2 queues; 3"), "{error}");
}
