use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use super::super::packet::{SHUTDOWN_RECEIVE, SHUTDOWN_SEND};
use super::*;
use crate::events::EventLoop;

static NEXT: AtomicU32 = AtomicU32::new(0);

struct Setup {
    muxer: Muxer,
    directory: PathBuf,
    _events: EventLoop,
}

impl Drop for Setup {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn setup() -> Setup {
    let name = format!(
        "hull-muxer-{}-{}",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    );
    let directory = std::env::temp_dir().join(name);
    std::fs::create_dir_all(&directory).unwrap();
    let listener = UnixListener::bind(directory.join("v")).unwrap();
    let mut events = EventLoop::new().unwrap();
    let prefix = directory.join("v").display().to_string();
    let muxer = Muxer::new(3, prefix, listener, events.poller(), Arc::default()).unwrap();
    Setup {
        muxer,
        directory,
        _events: events,
    }
}

fn from_guest(operation: Operation, host_port: u32, guest_port: u32) -> Header {
    Header {
        source_cid: 3,
        destination_cid: HOST_CID,
        source_port: guest_port,
        destination_port: host_port,
        kind: TYPE_STREAM,
        operation: operation as u16,
        buffer_size: 1 << 16,
        ..Header::default()
    }
}

impl Setup {
    fn guest(&mut self, header: Header, payload: &[u8]) {
        self.muxer.packet(
            &Header {
                length: payload.len() as u32,
                ..header
            },
            Some(payload),
        );
    }

    fn told(&mut self) -> Option<(Operation, Vec<u8>)> {
        let mut buffer = vec![0; 4096];
        let header = self.muxer.next_packet(&mut buffer)?;
        buffer.truncate(header.length as usize);
        Some((Operation::from_wire(header.operation).unwrap(), buffer))
    }

    /// A host program that connected to guest port 1024, accepted by the guest; with the
    /// host port that it was given.
    fn connected(&mut self) -> (UnixStream, u32) {
        let mut program = UnixStream::connect(self.directory.join("v")).unwrap();
        program.write_all(b"CONNECT 1024\n").unwrap();
        self.muxer.accept(true);
        let mut buffer = [0; 64];
        let header = self.muxer.next_packet(&mut buffer).unwrap();
        assert_eq!(
            (header.operation, header.destination_port),
            (Operation::Request as u16, 1024)
        );
        let port = header.source_port;
        self.guest(from_guest(Operation::Response, port, 1024), &[]);
        let mut line = vec![0; format!("OK {port}\n").len()];
        program.read_exact(&mut line).unwrap();
        assert_eq!(line, format!("OK {port}\n").into_bytes());
        (program, port)
    }
}

#[test]
fn a_host_program_talks_to_a_guest_port() {
    let mut setup = setup();
    let (mut program, port) = setup.connected();
    setup.guest(from_guest(Operation::Data, port, 1024), b"from guest");
    let mut data = [0; 10];
    program.read_exact(&mut data).unwrap();
    assert_eq!(&data, b"from guest");
    program.write_all(b"from host").unwrap();
    let event = *setup.muxer.sources.keys().next().unwrap();
    setup.muxer.socket_ready(event, EventSet::IN.bits());
    assert_eq!(setup.told(), Some((Operation::Data, b"from host".to_vec())));
    assert_eq!(setup.told(), None);
    drop(program);
    setup
        .muxer
        .socket_ready(event, (EventSet::IN | EventSet::HANG_UP).bits());
    assert_eq!(setup.told().map(|told| told.0), Some(Operation::Shutdown));
    setup.guest(from_guest(Operation::Reset, port, 1024), &[]);
    assert!(setup.muxer.connections.is_empty() && setup.muxer.sources.is_empty());
}

#[test]
fn a_port_where_nobody_listens_refuses_the_host_program() {
    let mut setup = setup();
    let mut program = UnixStream::connect(setup.directory.join("v")).unwrap();
    program.write_all(b"CONNECT 1\n").unwrap();
    setup.muxer.accept(true);
    let mut buffer = [0; 64];
    let header = setup.muxer.next_packet(&mut buffer).unwrap();
    setup.guest(from_guest(Operation::Reset, header.source_port, 1), &[]);
    assert_eq!(program.read(&mut buffer).unwrap(), 0);
}

#[test]
fn without_a_guest_driver_host_programs_are_refused() {
    let mut setup = setup();
    let mut program = UnixStream::connect(setup.directory.join("v")).unwrap();
    setup.muxer.accept(false);
    assert_eq!(program.read(&mut [0; 8]).unwrap(), 0);
}

#[test]
fn the_guest_reaches_a_listening_host_program_only() {
    let mut setup = setup();
    let listener = UnixListener::bind(setup.directory.join("v_99")).unwrap();
    setup.guest(from_guest(Operation::Request, 98, 5), &[]);
    assert_eq!(setup.told().map(|told| told.0), Some(Operation::Reset));
    setup.guest(from_guest(Operation::Request, 99, 5), &[]);
    assert_eq!(setup.told().map(|told| told.0), Some(Operation::Response));
    let (mut program, _) = listener.accept().unwrap();
    setup.guest(from_guest(Operation::Data, 99, 5), b"hello");
    let mut data = [0; 5];
    program.read_exact(&mut data).unwrap();
    assert_eq!(&data, b"hello");
    let both = Header {
        flags: SHUTDOWN_SEND | SHUTDOWN_RECEIVE,
        ..from_guest(Operation::Shutdown, 99, 5)
    };
    setup.guest(both, &[]);
    assert_eq!(setup.told().map(|told| told.0), Some(Operation::Reset));
    assert_eq!(program.read(&mut data).unwrap(), 0);
    assert!(setup.muxer.connections.is_empty());
}

#[test]
fn packets_that_belong_to_nothing_are_reset_or_ignored() {
    let mut setup = setup();
    for operation in [
        Operation::Response,
        Operation::Data,
        Operation::Shutdown,
        Operation::CreditRequest,
    ] {
        setup.guest(from_guest(operation, 7, 8), &[]);
        assert_eq!(setup.told().map(|told| told.0), Some(Operation::Reset));
    }
    setup.guest(from_guest(Operation::Reset, 7, 8), &[]);
    let request = from_guest(Operation::Request, 7, 8);
    setup.guest(
        Header {
            source_cid: 4,
            ..request
        },
        &[],
    );
    setup.guest(
        Header {
            destination_cid: 5,
            ..request
        },
        &[],
    );
    assert_eq!(setup.told(), None);
    setup.guest(Header { kind: 2, ..request }, &[]);
    assert_eq!(setup.told().map(|told| told.0), Some(Operation::Reset));
    setup.guest(
        Header {
            operation: 77,
            ..request
        },
        &[],
    );
    assert_eq!(setup.told().map(|told| told.0), Some(Operation::Reset));
}

#[test]
fn resets_for_strangers_are_bounded() {
    let mut setup = setup();
    for port in 0..10 * MAX_STRAY_RESETS as u32 {
        setup.guest(from_guest(Operation::Data, port, 8), &[]);
    }
    assert_eq!(setup.muxer.stray_resets.len(), MAX_STRAY_RESETS);
}

#[test]
fn a_violation_resets_the_connection() {
    let mut setup = setup();
    let (mut program, port) = setup.connected();
    setup.guest(from_guest(Operation::Request, port, 1024), &[]);
    assert_eq!(setup.told().map(|told| told.0), Some(Operation::Reset));
    assert_eq!(program.read(&mut [0; 8]).unwrap(), 0);
    let (mut program, port) = setup.connected();
    let long = Header {
        length: u32::MAX,
        ..from_guest(Operation::Data, port, 1024)
    };
    setup.muxer.packet(&long, None);
    assert_eq!(setup.told().map(|told| told.0), Some(Operation::Reset));
    assert_eq!(program.read(&mut [0; 8]).unwrap(), 0);
}

#[test]
fn connections_take_turns() {
    let mut setup = setup();
    let (mut first, first_port) = setup.connected();
    let (mut second, second_port) = setup.connected();
    first.write_all(&[1; 8192]).unwrap();
    second.write_all(&[2; 8192]).unwrap();
    for event in setup.muxer.sources.keys().copied().collect::<Vec<_>>() {
        setup.muxer.socket_ready(event, EventSet::IN.bits());
    }
    let mut ports = Vec::new();
    let mut buffer = [0; 4096];
    while let Some(header) = setup.muxer.next_packet(&mut buffer) {
        ports.push(header.source_port);
    }
    assert_eq!(ports.len(), 4);
    assert_ne!(ports[0], ports[1]);
    assert!(ports.contains(&first_port) && ports.contains(&second_port));
}

#[test]
fn random_packets_are_survived() {
    let mut setup = setup();
    let _listener = UnixListener::bind(setup.directory.join("v_3")).unwrap();
    let mut seed = 0x1234_5678_9abc_def0u64;
    let mut next = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let mut buffer = vec![0; 512];
    for _ in 0..20_000 {
        let operation = Operation::from_wire((next() % 8) as u16).unwrap_or(Operation::Request);
        let header = Header {
            flags: next() as u32 & 3,
            buffer_size: next() as u32,
            forwarded: next() as u32,
            ..from_guest(operation, (next() % 5) as u32, (next() % 3) as u32)
        };
        let payload = vec![0; (next() % 300) as usize];
        setup.guest(header, &payload);
        if next() % 4 == 0 {
            setup.muxer.next_packet(&mut buffer);
        }
    }
    assert!(setup.muxer.connections.len() <= 15);
}
