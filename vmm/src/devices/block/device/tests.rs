use std::fs::File;
use std::io::Write;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;

use super::*;
use crate::virtio::test_support::{BUFFERS, Driver, activation, memory};

const HEADER: u64 = BUFFERS;
const DATA: u64 = BUFFERS + 0x1000;
const STATUS: u64 = BUFFERS + 0x8000;

fn memory_file(bytes: &[u8]) -> File {
    // SAFETY: the name is a C string; the descriptor is owned by the File alone.
    let mut file = unsafe { File::from_raw_fd(libc::memfd_create(c"disk".as_ptr(), 0)) };
    file.write_all(bytes).unwrap();
    file
}

struct Setup {
    driver: Driver,
    block: Block,
    file: File,
}

fn setup(read_only: bool) -> Setup {
    let driver = Driver::new(&memory(), 0);
    let mut block = Block::new("disk-1".to_owned(), read_only, Arc::default());
    let file = memory_file(&[b'd'; 4096]);
    block
        .attach(OwnedFd::from(file.try_clone().unwrap()))
        .unwrap();
    block.activate(activation(&[&driver], 0)).unwrap();
    Setup {
        driver,
        block,
        file,
    }
}

impl Setup {
    fn request(&mut self, kind: u32, sector: u64, data: &[(u64, u32, bool)]) -> (u8, u32) {
        let mut header = kind.to_le_bytes().to_vec();
        header.extend_from_slice(&[0; 4]);
        header.extend_from_slice(&sector.to_le_bytes());
        self.driver.put(HEADER, &header);
        self.driver.put(STATUS, &[0xee]);
        let mut parts = vec![(HEADER, 16, false)];
        parts.extend_from_slice(data);
        parts.push((STATUS, 1, true));
        self.driver.chain(&parts);
        self.block.handle(0, 0).unwrap();
        let used = self.driver.used();
        assert_eq!(used.len(), 1);
        (self.driver.get(STATUS, 1)[0], used[0].1)
    }
}

#[test]
fn sectors_are_read_and_written() {
    let mut setup = setup(false);
    assert_eq!(
        setup.request(0, 1, &[(DATA, 512, true), (DATA + 512, 512, true)]),
        (0, 1025)
    );
    assert_eq!(setup.driver.get(DATA, 1024), vec![b'd'; 1024]);
    setup.driver.put(DATA, &[b'w'; 512]);
    assert_eq!(setup.request(1, 7, &[(DATA, 512, false)]), (0, 1));
    let mut bytes = [0; 512];
    setup.file.read_exact_at(&mut bytes, 7 * 512).unwrap();
    assert_eq!(bytes, [b'w'; 512]);
    assert_eq!(setup.request(4, 0, &[]), (0, 1));
    assert_eq!(setup.request(8, 0, &[(DATA, 20, true)]), (0, 21));
    assert_eq!(
        setup.driver.get(DATA, 20),
        b"disk-1\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
    );
}

#[test]
fn requests_beyond_the_disk_fail_and_change_nothing() {
    let mut setup = setup(false);
    for sector in [8, 7, u64::MAX, u64::MAX / 512, 1 << 55] {
        assert_eq!(
            setup.request(0, sector, &[(DATA, 1024, true)]).0,
            1,
            "{sector}"
        );
        assert_eq!(
            setup.request(1, sector, &[(DATA, 1024, false)]).0,
            1,
            "{sector}"
        );
    }
    assert_eq!(setup.request(0, 0, &[(DATA, 100, true)]).0, 1);
    assert_eq!(setup.request(99, 0, &[]).0, 2);
    assert_eq!(setup.file.metadata().unwrap().len(), 4096);
}

#[test]
fn a_read_only_disk_refuses_writes_even_if_the_driver_tries() {
    let mut setup = setup(true);
    assert_eq!(setup.block.features() & F_RO, F_RO);
    assert_eq!(setup.request(1, 0, &[(DATA, 512, false)]).0, 1);
    assert_eq!(setup.request(4, 0, &[]).0, 0);
    assert_eq!(setup.request(0, 0, &[(DATA, 512, true)]).0, 0);
}

fn range(sector: u64, sectors: u32, flags: u32) -> Vec<u8> {
    let mut bytes = sector.to_le_bytes().to_vec();
    bytes.extend_from_slice(&sectors.to_le_bytes());
    bytes.extend_from_slice(&flags.to_le_bytes());
    bytes
}

#[test]
fn discarded_and_zeroed_ranges_read_as_zeroes() {
    const DISCARD: u32 = 11;
    const WRITE_ZEROES: u32 = 13;
    let mut setup = setup(false);
    let ranges = [range(1, 1, 0), range(4, 2, 0)].concat();
    setup.driver.put(DATA, &ranges);
    assert_eq!(setup.request(DISCARD, 0, &[(DATA, 32, false)]), (0, 1));
    assert_eq!(setup.block.metrics.discarded_bytes.get(), 3 * 512);
    setup.driver.put(DATA, &range(7, 1, 1));
    assert_eq!(setup.request(WRITE_ZEROES, 0, &[(DATA, 16, false)]).0, 0);
    let mut bytes = [0; 4096];
    setup.file.read_exact_at(&mut bytes, 0).unwrap();
    let zero: Vec<bool> = bytes
        .chunks(512)
        .map(|s| s.iter().all(|b| *b == 0))
        .collect();
    let expected = [false, true, false, false, true, true, false, true];
    assert_eq!(zero, expected);
}

#[test]
fn ranges_that_cannot_be_emptied_are_refused() {
    let mut setup = setup(false);
    let cases = [
        (11, range(0, 1, 1), 2),
        (13, range(0, 1, 2), 2),
        (11, range(0, 0, 0), 1),
        (11, range(8, 1, 0), 1),
        (11, range(u64::MAX, 1, 0), 1),
        (11, range(0, u32::MAX, 0), 1),
        (11, vec![0; 15], 1),
        (13, range(0, 1, 0).repeat(65), 1),
    ];
    for (kind, bytes, status) in cases {
        setup.driver.put(DATA, &bytes);
        let part = (DATA, bytes.len() as u32, false);
        assert_eq!(
            setup.request(kind, 0, &[part]).0,
            status,
            "{kind} {bytes:?}"
        );
    }
    assert_eq!(setup.request(11, 0, &[]).0, 1);
    let mut read_only = super::tests::setup(true);
    read_only.driver.put(DATA, &range(0, 1, 0));
    assert_eq!(read_only.request(11, 0, &[(DATA, 16, false)]).0, 1);
    let mut bytes = [0; 4096];
    read_only.file.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(bytes, [b'd'; 4096]);
}

#[test]
fn a_disk_without_backing_has_no_sectors_until_one_is_attached() {
    let mut setup = setup(false);
    let capacity = |block: &Block| {
        let mut bytes = [0; 8];
        block.read_config(0, &mut bytes);
        u64::from_le_bytes(bytes)
    };
    assert_eq!(capacity(&setup.block), 8);
    assert!(setup.block.detach());
    assert!(!setup.block.detach());
    assert_eq!(capacity(&setup.block), 0);
    for kind in [0, 1, 4] {
        assert_eq!(setup.request(kind, 0, &[(DATA, 512, kind == 0)]).0, 1);
    }
    setup
        .block
        .attach(memory_file(&[b'n'; 1024]).into())
        .unwrap();
    assert_eq!(capacity(&setup.block), 2);
    assert_eq!(setup.request(0, 0, &[(DATA, 512, true)]).0, 0);
    assert_eq!(setup.driver.get(DATA, 1), b"n");
}

#[test]
fn files_that_cannot_be_a_disk_are_refused() {
    let mut block = Block::new("x".to_owned(), false, Arc::default());
    let read_only = File::open("/etc/passwd").unwrap();
    assert!(matches!(
        block.attach(read_only.into()),
        Err(BackingError::ReadOnly)
    ));
    let null = File::options()
        .read(true)
        .write(true)
        .open("/dev/null")
        .unwrap();
    assert!(matches!(block.attach(null.into()), Err(BackingError::Kind)));
    assert!(!block.is_attached());
}

#[test]
fn broken_requests_take_the_device_out_of_service() {
    for parts in [
        &[(HEADER, 15, false), (STATUS, 1, true)][..],
        &[(HEADER, 16, false)][..],
        &[(STATUS, 1, true)][..],
        &[
            (HEADER, 16, false),
            (u64::MAX - 8, 512, true),
            (STATUS, 1, true),
        ][..],
    ] {
        let mut setup = setup(false);
        setup.driver.chain(parts);
        assert!(matches!(
            setup.block.handle(0, 0),
            Err(DeviceFault::Queue { index: 0, .. })
        ));
        setup.block.reset();
        setup.block.handle(0, 0).unwrap();
    }
}

#[test]
fn requests_beyond_the_limit_wait_for_the_timer_or_for_other_limits() {
    use hull_vmm_client::rate::Rate;
    let mut setup = setup(true);
    let mut events = crate::events::EventLoop::new().unwrap();
    let slow = RateLimits {
        bytes: Some(Rate {
            per_second: 1,
            burst: Some(1),
        }),
        ..RateLimits::default()
    };
    setup.block.watch_limits(slow, &events.poller()).unwrap();
    assert_eq!(setup.request(0, 0, &[(DATA, 512, true)]), (0, 513));
    setup
        .driver
        .chain(&[(HEADER, 16, false), (DATA, 512, true), (STATUS, 1, true)]);
    setup.block.handle(0, 0).unwrap();
    setup.block.handle(0, 0).unwrap();
    assert_eq!(setup.driver.used(), vec![]);
    setup.block.set_limits(RateLimits::default());
    setup.block.handle(0, 0).unwrap();
    assert_eq!(setup.driver.used().len(), 1);
}
