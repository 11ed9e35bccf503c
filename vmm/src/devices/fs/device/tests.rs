//! Without a back end; with one, see `vmm/fsd/tests`.

use std::os::unix::net::UnixStream;
use std::sync::Arc;

use super::*;
use crate::events::EventLoop;
use crate::virtio::test_support::{BUFFERS, Driver, activation, memory};

fn device() -> Fs {
    let poller = EventLoop::new().unwrap().poller();
    Fs::new("hull", 1, poller, Arc::default()).unwrap()
}

#[test]
fn the_guest_reads_tag_and_number_of_queues() {
    let mut config = [0xff; 48];
    device().read_config(0, &mut config);
    assert_eq!(&config[..5], b"hull\0");
    assert_eq!(config[36..40], 1u32.to_le_bytes());
    assert_eq!(config[40..], [0; 8]);
}

#[test]
fn requests_wait_while_there_is_no_back_end() {
    let memory = memory();
    let (urgent, mut requests) = (Driver::new(&memory, 0), Driver::new(&memory, 1));
    let mut device = device();
    device
        .activate(activation(&[&urgent, &requests], 0))
        .unwrap();
    requests.chain(&[(BUFFERS, 40, false), (BUFFERS + 0x800, 120, true)]);
    device.handle(1, 1).unwrap();
    assert!(requests.used().is_empty());
    assert_eq!(device.state(), FsState::Empty);
}

#[test]
fn a_peer_that_hangs_up_is_no_back_end() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    drop(theirs);
    let mut device = device();
    assert!(matches!(device.attach(ours), Err(FsError::Request { .. })));
    assert_eq!(device.state(), FsState::Empty);
}

#[test]
fn a_driver_without_request_queues_is_refused() {
    let memory = memory();
    let urgent = Driver::new(&memory, 0);
    let mut given = activation(&[&urgent], 0);
    given.queues.push(None);
    assert!(matches!(
        device().activate(given),
        Err(DeviceFault::MissingQueue(1))
    ));
}
