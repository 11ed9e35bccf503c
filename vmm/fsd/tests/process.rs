//! The program itself, jailed, with a front end and a driver of the test's own. Runs as root.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

use std::ffi::CStr;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use fuse_backend_rs::abi::fuse_abi::{
    CreateIn, EntryOut, InHeader, InitIn, InitOut, Opcode, OpenOut, OutHeader, WriteIn, WriteOut,
};
use hull_vmm_client::config::JailConfig;
use hull_vmm_client::fsd::{FsdClient, FsdConfig, spawn};
use hull_vmm_client::scaled;
use hull_vmm_client::share::{Access, FILE_NAME, Propagation, detach};
use vhost::vhost_user::message::{VhostUserProtocolFeatures, VhostUserVirtioFeatures};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use vm_memory::{
    ByteValued, Bytes, FileOffset, GuestAddress, GuestMemory, GuestMemoryMmap, GuestMemoryRegion,
};
use vmm_sys_util::eventfd::EventFd;

const JAIL_USER: u32 = 230_001;
const MEMORY_BYTES: u64 = 1 << 20;
const QUEUE_SIZE: u16 = 16;
const REQUEST_QUEUE: usize = 1;
const DESCRIPTORS: u64 = 0x1000;
const AVAILABLE: u64 = 0x2000;
const USED: u64 = 0x3000;
const REQUEST: u64 = 0x1_0000;
const ANSWER: u64 = 0x2_0000;
const ANSWER_BYTES: u32 = 0x1_0000;
const WAIT: Duration = Duration::from_secs(10);
const FSCONTEXT: (u32, u32) = (1234, 5678);

struct Machine {
    directory: tempfile::TempDir,
    child: Child,
    client: FsdClient,
    runtime: tokio::runtime::Runtime,
    frontend: Option<Frontend>,
    memory: GuestMemoryMmap,
    kick: EventFd,
    call: EventFd,
    index: u16,
    unique: u64,
}

impl Machine {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let listener = UnixListener::bind(path("vhost")).unwrap();
        let control = UnixListener::bind(path("control")).unwrap();
        let config = FsdConfig {
            id: "test".into(),
            socket_fd: listener.as_raw_fd(),
            control_fd: control.as_raw_fd(),
            request_queues: 1,
            jail: Some(JailConfig {
                uid: JAIL_USER,
                gid: JAIL_USER,
                seccomp: true,
            }),
        };
        let log = File::create(path("log")).unwrap();
        let program = Path::new(env!("CARGO_BIN_EXE_hull-fsd"));
        let child = spawn(program, &config, None, Stdio::from(log)).unwrap();
        let stream = UnixStream::connect(path("vhost")).unwrap();
        let memory_file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(path("memory"))
            .unwrap();
        memory_file.set_len(MEMORY_BYTES).unwrap();
        let memory = GuestMemoryMmap::from_ranges_with_files([(
            GuestAddress(0),
            MEMORY_BYTES as usize,
            Some(FileOffset::new(memory_file, 0)),
        )])
        .unwrap();
        let mut machine = Self {
            client: FsdClient::new(path("control")),
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap(),
            directory,
            child,
            frontend: Some(Frontend::from_stream(stream, 2)),
            memory,
            kick: EventFd::new(0).unwrap(),
            call: EventFd::new(0).unwrap(),
            index: 0,
            unique: 0,
        };
        machine.connect();
        machine
    }

    fn connect(&mut self) {
        let mut frontend = self.frontend.clone().unwrap();
        if let Err(error) = frontend.set_owner() {
            panic!("{error}: {}", self.log());
        }
        let features = frontend.get_features().unwrap();
        let protocol = VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();
        assert_ne!(features & protocol, 0);
        frontend.get_protocol_features().unwrap();
        frontend
            .set_protocol_features(VhostUserProtocolFeatures::MQ)
            .unwrap();
        assert_eq!(frontend.get_queue_num().unwrap(), 2);
        frontend.set_features(1 << 32 | protocol).unwrap();
        let region = self.memory.iter().next().unwrap();
        let file = region.file_offset().unwrap();
        let host = region.as_ptr() as u64;
        frontend
            .set_mem_table(&[VhostUserMemoryRegionInfo {
                guest_phys_addr: 0,
                memory_size: region.len(),
                userspace_addr: host,
                mmap_offset: file.start(),
                mmap_handle: file.file().as_raw_fd(),
            }])
            .unwrap();
        let layout = VringConfigData {
            queue_max_size: QUEUE_SIZE,
            queue_size: QUEUE_SIZE,
            flags: 0,
            desc_table_addr: host + DESCRIPTORS,
            used_ring_addr: host + USED,
            avail_ring_addr: host + AVAILABLE,
            log_addr: None,
        };
        frontend.set_vring_num(REQUEST_QUEUE, QUEUE_SIZE).unwrap();
        frontend.set_vring_addr(REQUEST_QUEUE, &layout).unwrap();
        frontend.set_vring_base(REQUEST_QUEUE, 0).unwrap();
        frontend.set_vring_call(REQUEST_QUEUE, &self.call).unwrap();
        frontend.set_vring_kick(REQUEST_QUEUE, &self.kick).unwrap();
        frontend.set_vring_enable(REQUEST_QUEUE, true).unwrap();
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap()
    }

    /// Puts bytes into the queue as one request; gives the answer.
    fn send(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.memory
            .write_slice(bytes, GuestAddress(REQUEST))
            .unwrap();
        let descriptor = |address: u64, length: u32, flags: u16, next: u16| {
            let mut raw = address.to_le_bytes().to_vec();
            raw.extend(length.to_le_bytes());
            raw.extend(flags.to_le_bytes());
            raw.extend(next.to_le_bytes());
            raw
        };
        let mut table = descriptor(REQUEST, bytes.len() as u32, 1, 1);
        table.extend(descriptor(ANSWER, ANSWER_BYTES, 2, 0));
        self.memory
            .write_slice(&table, GuestAddress(DESCRIPTORS))
            .unwrap();
        let slot = AVAILABLE + 4 + 2 * u64::from(self.index % QUEUE_SIZE);
        self.memory.write_obj(0u16, GuestAddress(slot)).unwrap();
        self.index = self.index.wrapping_add(1);
        self.memory
            .write_obj(self.index, GuestAddress(AVAILABLE + 2))
            .unwrap();
        self.kick.write(1).unwrap();
        let deadline = Instant::now() + scaled(WAIT);
        while self.memory.read_obj::<u16>(GuestAddress(USED + 2)).unwrap() != self.index {
            assert!(Instant::now() < deadline, "no answer; {}", self.log());
            std::thread::yield_now();
        }
        let used = USED + 4 + 8 * u64::from((self.index - 1) % QUEUE_SIZE);
        let length: u32 = self.memory.read_obj(GuestAddress(used + 4)).unwrap();
        let mut answer = vec![0; length as usize];
        self.memory
            .read_slice(&mut answer, GuestAddress(ANSWER))
            .unwrap();
        answer
    }

    /// A FUSE request; the answer behind its header, or the error number.
    fn ask(&mut self, opcode: u32, nodeid: u64, body: &[u8]) -> Result<Vec<u8>, i32> {
        self.unique += 1;
        let header = InHeader {
            len: (size_of::<InHeader>() + body.len()) as u32,
            opcode,
            unique: self.unique,
            nodeid,
            uid: FSCONTEXT.0,
            gid: FSCONTEXT.1,
            pid: 1,
            padding: 0,
        };
        let answer = self.send(&[header.as_slice(), body].concat());
        let (head, body) = answer.split_at(size_of::<OutHeader>());
        let head = *OutHeader::from_slice(head).unwrap();
        assert_eq!(
            (head.unique, head.len as usize),
            (self.unique, answer.len())
        );
        match head.error {
            0 => Ok(body.to_vec()),
            error => Err(-error),
        }
    }

    fn init(&mut self) -> InitOut {
        let request = InitIn {
            major: 7,
            minor: 38,
            max_readahead: 1 << 17,
            flags: !(1 << 30),
        };
        let answer = self
            .ask(Opcode::Init as u32, 0, request.as_slice())
            .unwrap();
        *InitOut::from_slice(&answer[..size_of::<InitOut>()]).unwrap()
    }

    fn look_up(&mut self, parent: u64, name: &CStr) -> Result<EntryOut, i32> {
        let answer = self.ask(Opcode::Lookup as u32, parent, name.to_bytes_with_nul())?;
        Ok(*EntryOut::from_slice(&answer).unwrap())
    }

    fn share(&self, name: &str, path: &Path, access: Access) {
        let share = detach(path, access, Propagation::Private).unwrap();
        let read_only = access == Access::RecursiveReadOnly;
        let added = self.client.add_share(name, share.root.as_fd(), read_only);
        self.runtime.block_on(added).unwrap();
    }

    fn status(&self, field: &str) -> String {
        let mut text = String::new();
        let path = PathBuf::from(format!("/proc/{}/status", self.child.id()));
        File::open(path).unwrap().read_to_string(&mut text).unwrap();
        let line = text.lines().find(|line| line.starts_with(field)).unwrap();
        line.split_once('\t').unwrap().1.to_owned()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_jailed_process_serves_files_and_gives_them_to_their_maker() {
    let mut machine = Machine::start();
    let host = tempfile::tempdir().unwrap();
    machine.share("data", host.path(), Access::ReadWrite);
    assert_ne!(machine.init().max_write, 0);
    let share = machine.look_up(1, c"data").unwrap();
    // FUSE_ATTR_SUBMOUNT: another device number in the guest.
    assert_eq!(share.attr.flags, 1);
    let args = CreateIn {
        flags: libc::O_RDWR as u32,
        mode: libc::S_IFREG | 0o640,
        ..Default::default()
    };
    let body = [args.as_slice(), b"file\0"].concat();
    let made = machine
        .ask(Opcode::Create as u32, share.nodeid, &body)
        .unwrap();
    let (entry, opened) = made.split_at(size_of::<EntryOut>());
    let entry = *EntryOut::from_slice(entry).unwrap();
    let opened = *OpenOut::from_slice(opened).unwrap();
    let write = WriteIn {
        fh: opened.fh,
        size: 5,
        ..Default::default()
    };
    let body = [write.as_slice(), b"hello"].concat();
    let written = machine
        .ask(Opcode::Write as u32, entry.nodeid, &body)
        .unwrap();
    assert_eq!(WriteOut::from_slice(&written).unwrap().size, 5);
    let path = host.path().join("file");
    assert_eq!(std::fs::read(&path).unwrap(), b"hello");
    let made = path.metadata().unwrap();
    assert_eq!((made.uid(), made.gid()), FSCONTEXT);
    assert_eq!(made.mode() & 0o7777, 0o640);
    // O_TMPFILE, which has no place in the library's server.
    let made = machine.ask(51, share.nodeid, args.as_slice()).unwrap();
    assert_eq!(made.len(), size_of::<EntryOut>() + size_of::<OpenOut>());
    assert_eq!(std::fs::read_dir(host.path()).unwrap().count(), 1);
}

#[test]
fn the_process_has_nothing_but_capabilities_on_files_of_a_user_namespace() {
    let machine = Machine::start();
    let own = |name: &str| std::fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
    let its =
        |name: &str| std::fs::read_link(format!("/proc/{}/ns/{name}", machine.child.id())).unwrap();
    for namespace in ["user", "mnt", "pid", "net", "ipc", "uts"] {
        assert_ne!(own(namespace), its(namespace), "{namespace}");
    }
    let user = JAIL_USER.to_string();
    assert!(machine.status("Uid:").split('\t').all(|id| id == user));
    assert!(machine.status("Gid:").split('\t').all(|id| id == user));
    // CHOWN, DAC_*, FOWNER, FSETID, SETGID, SETUID, SETFCAP.
    assert_eq!(machine.status("CapEff:"), "00000000800000df");
    assert_eq!(machine.status("CapBnd:"), "00000000800000df");
    assert_eq!(machine.status("NoNewPrivs:"), "1");
    assert_eq!(machine.status("Seccomp:"), "2");
    assert_eq!(machine.status("NSpid:").split('\t').next_back(), Some("1"));
    let root = format!("/proc/{}/root", machine.child.id());
    assert_eq!(std::fs::read_dir(root).unwrap().count(), 0);
}

#[test]
fn a_read_only_share_is_refused_by_server_and_kernel() {
    let mut machine = Machine::start();
    let host = tempfile::tempdir().unwrap();
    machine.init();
    // The first is refused by the mount's flag alone.
    for (name, access) in [
        (c"kernel", Access::ReadOnly),
        (c"both", Access::RecursiveReadOnly),
    ] {
        machine.share(name.to_str().unwrap(), host.path(), access);
        let share = machine.look_up(1, name).unwrap();
        let body = [0o755u32.to_le_bytes(), [0; 4]].concat();
        let body = [&body[..], b"new\0"].concat();
        let made = machine.ask(Opcode::Mkdir as u32, share.nodeid, &body);
        assert_eq!(made.unwrap_err(), libc::EROFS);
    }
    assert_eq!(std::fs::read_dir(host.path()).unwrap().count(), 0);
}

#[test]
fn a_single_file_comes_alone_and_a_removed_share_is_stale() {
    let mut machine = Machine::start();
    let host = tempfile::tempdir().unwrap();
    std::fs::write(host.path().join("one"), "x").unwrap();
    std::fs::write(host.path().join("two"), "x").unwrap();
    machine.init();
    machine.share("single", &host.path().join("one"), Access::ReadWrite);
    let share = machine.look_up(1, c"single").unwrap().nodeid;
    let name = std::ffi::CString::new(FILE_NAME).unwrap();
    assert_eq!(machine.look_up(share, &name).unwrap().attr.size, 1);
    assert_eq!(machine.look_up(share, c"two").unwrap_err(), libc::ENOENT);
    let shares = machine.runtime.block_on(machine.client.shares()).unwrap();
    assert_eq!(shares, ["single"]);
    let removed = machine.client.remove_share("single");
    machine.runtime.block_on(removed).unwrap();
    assert!(machine.look_up(share, &name).is_err());
    assert_eq!(machine.look_up(1, c"single").unwrap_err(), libc::ENOENT);
    let again = machine.client.remove_share("single");
    assert!(machine.runtime.block_on(again).is_err());
}

#[test]
fn malformed_requests_are_counted_and_the_next_one_is_served() {
    let mut machine = Machine::start();
    machine.init();
    for length in [0usize, 1, 39, 40, 41, 64] {
        machine.send(&vec![0xff; length.max(1)]);
    }
    let huge = InHeader {
        len: u32::MAX,
        opcode: Opcode::Write as u32,
        nodeid: 1,
        ..Default::default()
    };
    machine.send(huge.as_slice());
    for opcode in 0..64 {
        if opcode != Opcode::Init as u32 {
            let mut header = huge;
            (header.opcode, header.len) = (opcode, 48);
            machine.send(&[header.as_slice(), &[0xff; 8]].concat());
        }
    }
    machine.init();
    assert_eq!(machine.look_up(1, c"none").unwrap_err(), libc::ENOENT);
    let metrics = machine.runtime.block_on(machine.client.metrics()).unwrap();
    let malformed = metrics
        .lines()
        .find_map(|line| line.strip_prefix("hull_fsd_malformed_requests_total "))
        .unwrap();
    assert_ne!(malformed, "0", "{metrics}");
}

#[test]
fn the_process_ends_with_its_front_end() {
    let mut machine = Machine::start();
    machine.frontend = None;
    let deadline = Instant::now() + scaled(WAIT);
    let status = loop {
        if let Some(status) = machine.child.try_wait().unwrap() {
            break status;
        }
        assert!(Instant::now() < deadline, "{}", machine.log());
        std::thread::yield_now();
    };
    assert!(status.success(), "{status}: {}", machine.log());
}
