use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;

use super::*;
use crate::events::EventLoop;
use crate::virtio::test_support::{BUFFERS, Driver, activation, memory};

struct Setup {
    receive: Driver,
    send: Driver,
    net: Net,
    wire: UnixDatagram,
    _events: EventLoop,
}

fn setup(features: u64) -> Setup {
    let memory = memory();
    let (receive, send) = (Driver::new(&memory, 0), Driver::new(&memory, 1));
    let (wire, ours) = UnixDatagram::pair().unwrap();
    wire.set_nonblocking(true).unwrap();
    let mut events = EventLoop::new().unwrap();
    let tap = Tap::from_socket(OwnedFd::from(ours)).unwrap();
    let mut net = Net::new(
        "eth0".into(),
        [2, 0, 0, 0, 0, 1],
        1500,
        Some(tap),
        events.poller(),
        Arc::default(),
    );
    net.activate(activation(&[&receive, &send], features))
        .unwrap();
    Setup {
        receive,
        send,
        net,
        wire,
        _events: events,
    }
}

fn frame(length: usize) -> Vec<u8> {
    let mut frame = vec![0; HEADER_BYTES];
    frame.extend((0..length).map(|index| index as u8));
    frame
}

#[test]
fn frames_reach_the_guest() {
    let mut setup = setup(0);
    setup.receive.chain(&[(BUFFERS, 2048, true)]);
    setup.wire.send(&frame(100)).unwrap();
    setup.net.handle(EVENT_TAP, 0).unwrap();
    assert_eq!(setup.receive.used(), vec![(0, 112)]);
    let bytes = setup.receive.get(BUFFERS, 112);
    assert_eq!(bytes[10..12], [1, 0]);
    assert_eq!(bytes[12..], frame(100)[12..]);
}

#[test]
fn a_frame_waits_for_buffers_and_is_not_lost() {
    let mut setup = setup(0);
    setup.wire.send(&frame(60)).unwrap();
    setup.net.handle(EVENT_TAP, 0).unwrap();
    assert!(setup.receive.used().is_empty());
    setup.receive.chain(&[(BUFFERS, 2048, true)]);
    setup.net.handle(0, 0).unwrap();
    assert_eq!(setup.receive.used(), vec![(0, 72)]);
}

#[test]
fn mergeable_buffers_share_a_large_frame() {
    let mut setup = setup(F_MRG_RXBUF);
    for index in 0..2 {
        setup
            .receive
            .chain(&[(BUFFERS + index * 0x1000, 1000, true)]);
    }
    setup.wire.send(&frame(2500)).unwrap();
    setup.net.handle(EVENT_TAP, 0).unwrap();
    assert!(setup.receive.used().is_empty());
    setup.receive.chain(&[(BUFFERS + 0x2000, 1000, true)]);
    setup.net.handle(0, 0).unwrap();
    assert_eq!(setup.receive.used(), vec![(0, 1000), (1, 1000), (2, 512)]);
    assert_eq!(setup.receive.get(BUFFERS + 10, 2), [3, 0]);
}

#[test]
fn a_frame_that_fits_no_buffer_is_dropped_and_the_buffer_stays() {
    let mut setup = setup(0);
    setup.receive.chain(&[(BUFFERS, 200, true)]);
    setup.wire.send(&frame(500)).unwrap();
    setup.wire.send(&frame(50)).unwrap();
    setup.net.handle(EVENT_TAP, 0).unwrap();
    assert_eq!(setup.receive.used(), vec![(0, 62)]);
    assert_eq!(setup.net.metrics.dropped_frames.get(), 1);
}

#[test]
fn frames_of_the_guest_reach_the_tap() {
    let mut setup = setup(0);
    setup.send.put(BUFFERS, &frame(80));
    setup
        .send
        .chain(&[(BUFFERS, 12, false), (BUFFERS + 12, 80, false)]);
    setup.net.handle(1, 0).unwrap();
    assert_eq!(setup.send.used(), vec![(0, 0)]);
    let mut bytes = [0; 200];
    assert_eq!(setup.wire.recv(&mut bytes).unwrap(), 92);
}

#[test]
fn frames_of_impossible_size_are_dropped() {
    let mut setup = setup(0);
    for length in [1, 12, 70_000] {
        setup.send.chain(&[(BUFFERS, length, false)]);
        setup.net.handle(1, 0).unwrap();
        assert_eq!(setup.send.used().len(), 1);
    }
    assert_eq!(setup.net.metrics.dropped_frames.get(), 3);
    assert!(setup.wire.recv(&mut [0; 10]).is_err());
}

#[test]
fn receive_buffers_that_are_too_small_are_a_fault() {
    for parts in [
        &[(BUFFERS, 4, true)][..],
        &[(BUFFERS, 100, false)][..],
        &[(u64::MAX, 100, true)][..],
    ] {
        let mut setup = setup(0);
        setup.receive.chain(parts);
        setup.wire.send(&frame(60)).unwrap();
        assert!(matches!(
            setup.net.handle(EVENT_TAP, 0),
            Err(DeviceFault::Queue { index: 0, .. })
        ));
        setup.net.reset();
        setup.net.handle(0, 0).unwrap();
    }
}

#[test]
fn offloads_follow_the_accepted_features() {
    assert_eq!(offloads(0), 0);
    assert_eq!(offloads(F_CSUM | F_HOST_TSO4 | F_MRG_RXBUF), 0);
    assert_eq!(
        offloads(F_GUEST_CSUM | F_GUEST_TSO6),
        TUN_F_CSUM | TUN_F_TSO6
    );
    assert_eq!(
        offloads(u64::MAX),
        TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN
    );
}

#[test]
fn mac_addresses_are_checked() {
    assert_eq!(parse_mac("02:00:00:00:00:fe"), Ok([2, 0, 0, 0, 0, 0xfe]));
    for bad in [
        "",
        "02:00:00:00:00",
        "02:00:00:00:00:00:00",
        "2:0:0:0:0:1",
        "0g:00:00:00:00:00",
        "01:00:00:00:00:00",
        "+2:00:00:00:00:00",
    ] {
        assert_eq!(parse_mac(bad), Err(MacError(bad.to_owned())), "{bad}");
    }
}

#[test]
fn each_direction_has_its_own_limit() {
    use hull_vmm_client::rate::Rate;
    let mut setup = setup(0);
    let one = RateLimits {
        bytes: Some(Rate {
            per_second: 1,
            burst: None,
        }),
        ..RateLimits::default()
    };
    setup.net.watch_limits(one, RateLimits::default()).unwrap();
    for _ in 0..3 {
        setup.receive.chain(&[(BUFFERS, 2048, true)]);
        setup.wire.send(&frame(60)).unwrap();
        setup.send.put(BUFFERS + 0x4000, &frame(60));
        setup.send.chain(&[(BUFFERS + 0x4000, 72, false)]);
    }
    setup.net.handle(EVENT_TAP, 0).unwrap();
    setup.net.handle(1, 0).unwrap();
    assert_eq!(setup.receive.used().len(), 1);
    assert_eq!(setup.send.used().len(), 3);
    setup.net.set_limits(RateLimits::default(), one);
    setup.net.handle(0, 0).unwrap();
    assert_eq!(setup.receive.used().len(), 2);
}

#[test]
fn the_link_is_down_while_there_is_no_tap() {
    let mut setup = setup(F_STATUS);
    let link = |net: &Net| {
        let mut status = [0; 2];
        net.read_config(6, &mut status);
        u16::from_le_bytes(status)
    };
    assert_eq!(link(&setup.net), LINK_UP);
    assert!(setup.net.detach());
    assert!(!setup.net.detach());
    assert_eq!(link(&setup.net), 0);
    setup.send.put(BUFFERS + 0x4000, &frame(60));
    setup.send.chain(&[(BUFFERS + 0x4000, 72, false)]);
    setup.receive.chain(&[(BUFFERS, 2048, true)]);
    setup.net.handle(1, 0).unwrap();
    setup.net.handle(EVENT_TAP, 0).unwrap();
    assert_eq!(setup.send.used().len(), 1);
    assert_eq!(setup.net.metrics.dropped_frames.get(), 1);
    let (wire, ours) = UnixDatagram::pair().unwrap();
    setup
        .net
        .connect(Tap::from_socket(OwnedFd::from(ours)).unwrap())
        .unwrap();
    assert_eq!(link(&setup.net), LINK_UP);
    wire.send(&frame(60)).unwrap();
    setup.net.handle(EVENT_TAP, 0).unwrap();
    assert_eq!(setup.receive.used(), vec![(0, 72)]);
    let second = setup.net.attach(OwnedFd::from(wire)).unwrap_err();
    assert!(matches!(second, AttachError::Attached(_)));
}
