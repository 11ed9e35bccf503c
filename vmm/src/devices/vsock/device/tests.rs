use std::os::unix::net::UnixListener;
use std::sync::Arc;

use super::super::packet::{HOST_CID, Operation, TYPE_STREAM};
use super::*;
use crate::events::EventLoop;
use crate::virtio::test_support::{BUFFERS, Driver, activation, memory};

struct Setup {
    drivers: [Driver; 3],
    vsock: Vsock,
    _events: EventLoop,
}

fn setup(name: &str) -> Setup {
    let memory = memory();
    let drivers = [0, 1, 2].map(|index| Driver::new(&memory, index));
    let mut events = EventLoop::new().unwrap();
    let path =
        std::env::temp_dir().join(format!("hull-vsock-device-{}-{name}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let muxer = Muxer::new(
        3,
        path.display().to_string(),
        listener,
        events.poller(),
        Arc::default(),
    )
    .unwrap();
    let mut vsock = Vsock::new(3, muxer);
    vsock
        .activate(activation(&[&drivers[0], &drivers[1], &drivers[2]], 0))
        .unwrap();
    Setup {
        drivers,
        vsock,
        _events: events,
    }
}

fn request(length: u32) -> [u8; HEADER_BYTES] {
    let header = Header {
        source_cid: 3,
        destination_cid: HOST_CID,
        source_port: 9,
        destination_port: 10,
        length,
        kind: TYPE_STREAM,
        operation: Operation::Request as u16,
        ..Header::default()
    };
    header.to_bytes()
}

#[test]
fn an_answer_waits_until_the_guest_has_a_buffer() {
    let mut setup = setup("answer");
    setup.drivers[1].put(BUFFERS, &request(0));
    setup.drivers[1].chain(&[(BUFFERS, HEADER_BYTES as u32, false)]);
    setup.vsock.handle(1, 0).unwrap();
    assert_eq!(setup.drivers[1].used(), vec![(0, 0)]);
    assert!(setup.drivers[0].used().is_empty());
    // Header and payload room in one buffer, as Linux has it since 6.3.
    setup.drivers[0].chain(&[(BUFFERS + 0x1000, 4096, true)]);
    setup.vsock.handle(0, 0).unwrap();
    assert_eq!(setup.drivers[0].used(), vec![(0, HEADER_BYTES as u32)]);
    let bytes = setup.drivers[0].get(BUFFERS + 0x1000, HEADER_BYTES);
    let header = Header::parse(&bytes.try_into().unwrap());
    assert_eq!(header.operation, Operation::Reset as u16);
    assert_eq!((header.source_port, header.destination_port), (10, 9));
}

#[test]
fn headers_and_payloads_that_are_cut_off_are_a_fault() {
    for (claimed, present) in [(0, 43), (1, 44), (u32::MAX, 100), (4096, 44 + 4095)] {
        let mut setup = setup("cut");
        setup.drivers[1].put(BUFFERS, &request(claimed));
        setup.drivers[1].chain(&[(BUFFERS, present, false)]);
        let outcome = setup.vsock.handle(1, 0);
        assert!(
            matches!(outcome, Err(DeviceFault::Queue { index: 1, .. })),
            "{claimed} {present}"
        );
        setup.vsock.reset();
        setup.vsock.handle(1, 0).unwrap();
    }
}

#[test]
fn receive_buffers_without_room_for_a_header_are_a_fault() {
    let mut setup = setup("small");
    setup.drivers[0].chain(&[(BUFFERS, 43, true)]);
    setup.drivers[1].put(BUFFERS + 0x100, &request(0));
    setup.drivers[1].chain(&[(BUFFERS + 0x100, HEADER_BYTES as u32, false)]);
    assert!(matches!(
        setup.vsock.handle(1, 0),
        Err(DeviceFault::Queue { index: 0, .. })
    ));
}

#[test]
fn the_guest_reads_its_context_id() {
    let setup = setup("cid");
    let mut data = [0xff; 12];
    setup.vsock.read_config(0, &mut data);
    assert_eq!(data, [3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
}
