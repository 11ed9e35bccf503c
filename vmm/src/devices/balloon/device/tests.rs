use super::*;
use crate::memory::create;
use crate::virtio::test_support::{BUFFERS, Driver, activation};
use hull_vmm_client::config::MemoryPages;
use vm_memory::Bytes;

const MIB: u64 = 1 << 20;
const LIST: u64 = BUFFERS;

struct Setup {
    memory: GuestMemory,
    drivers: Vec<Driver>,
    balloon: Balloon,
    metrics: Arc<BalloonMetrics>,
}

/// A device on real guest RAM of 32 MiB; every page from 16 MiB on begins with a 7.
fn setup() -> Setup {
    let memory = create(32, MemoryPages::Normal).unwrap();
    for page in (16 * MIB..32 * MIB).step_by(PAGE_BYTES as usize) {
        memory.write_obj(7u8, GuestAddress(page)).unwrap();
    }
    let drivers: Vec<Driver> = (0..3).map(|index| Driver::new(&memory, index)).collect();
    let metrics = Arc::new(BalloonMetrics::default());
    let mut balloon = Balloon::new(Arc::clone(&metrics));
    let all: Vec<&Driver> = drivers.iter().collect();
    balloon
        .activate(activation(&all, F_PAGE_REPORTING))
        .unwrap();
    Setup {
        memory,
        drivers,
        balloon,
        metrics,
    }
}

impl Setup {
    fn send(&mut self, queue: usize, parts: &[(u64, u32, bool)]) {
        self.drivers[queue].chain(parts);
        self.balloon.handle(queue as u32, 0).unwrap();
        assert_eq!(self.drivers[queue].used().len(), 1);
    }

    fn inflate(&mut self, numbers: &[u32]) {
        let bytes: Vec<u8> = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
        self.drivers[INFLATE].put(LIST, &bytes);
        self.send(INFLATE, &[(LIST, bytes.len() as u32, false)]);
    }

    fn is_there(&self, page: u32) -> bool {
        let address = GuestAddress(u64::from(page) * PAGE_BYTES);
        self.memory.read_obj::<u8>(address).unwrap() == 7
    }
}

#[test]
fn pages_in_the_balloon_go_back_to_the_host() {
    let mut setup = setup();
    // Upwards, downwards, and alone.
    setup.inflate(&[4096, 4097, 5001, 5000, 6000]);
    for page in [4096, 4097, 5000, 5001, 6000] {
        assert!(!setup.is_there(page), "{page}");
    }
    for page in [4098, 4999, 5002, 5999, 6001] {
        assert!(setup.is_there(page), "{page}");
    }
    assert_eq!(setup.metrics.inflated_bytes.get(), 5 * PAGE_BYTES);
    setup.send(DEFLATE, &[(LIST, 20, false)]);
}

#[test]
fn reported_free_pages_go_back_to_the_host() {
    let mut setup = setup();
    setup.send(
        REPORT,
        &[
            (20 * MIB, 2 * MIB as u32, true),
            (24 * MIB, MIB as u32, true),
        ],
    );
    assert_eq!(setup.metrics.reported_bytes.get(), 3 * MIB);
    let page = |mib: u32| mib << 8;
    assert!(!setup.is_there(page(20)) && !setup.is_there(page(22) - 1));
    assert!(setup.is_there(page(22)) && setup.is_there(page(20) - 1));
    // Only what the device may write is reported.
    setup.send(REPORT, &[(28 * MIB, MIB as u32, false)]);
    assert!(setup.is_there(page(28)));
}

#[test]
fn numbers_of_pages_that_do_not_exist_are_counted() {
    let mut setup = setup();
    setup.inflate(&[u32::MAX, 8192, 4096]);
    assert_eq!(setup.metrics.errors.get(), 2);
    assert!(!setup.is_there(4096));
    // Half a number at the end is nothing.
    setup.drivers[INFLATE].put(LIST, &[0xff; 6]);
    setup.send(INFLATE, &[(LIST, 6, false)]);
    assert_eq!(setup.metrics.errors.get(), 3);
}

#[test]
fn the_size_that_is_wished_and_the_one_that_is_there_are_told() {
    let mut setup = setup();
    setup.balloon.resizer().resize(8);
    let mut config = [0; 8];
    setup.balloon.read_config(0, &mut config);
    assert_eq!(config[..4], 2048u32.to_le_bytes());
    setup.balloon.write_config(4, &100u32.to_le_bytes());
    setup.balloon.write_config(0, &1u32.to_le_bytes());
    setup.balloon.write_config(4, &[1; 3]);
    setup.balloon.read_config(0, &mut config);
    assert_eq!(config[..4], 2048u32.to_le_bytes());
    assert_eq!(config[4..], 100u32.to_le_bytes());
    setup.balloon.reset();
    assert_eq!(setup.metrics.actual_pages.load(Ordering::Relaxed), 0);
    setup.balloon.resizer().resize(u32::MAX);
}

#[test]
fn a_driver_may_leave_reporting_off_but_not_the_balloon() {
    let memory = create(32, MemoryPages::Normal).unwrap();
    let drivers: Vec<Driver> = (0..2).map(|index| Driver::new(&memory, index)).collect();
    let mut balloon = Balloon::new(Arc::default());
    let all: Vec<&Driver> = drivers.iter().collect();
    balloon.activate(activation(&all, 0)).unwrap();
    balloon.handle(REPORT as u32, 0).unwrap();
    assert!(matches!(
        balloon.activate(activation(&all[..1], 0)),
        Err(DeviceFault::MissingQueue(1))
    ));
}
