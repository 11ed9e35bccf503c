use super::*;
use crate::virtio::copy_config;
use crate::virtio::test_support::{Driver, FakeController, memory};

#[derive(Default)]
struct Log(Mutex<Vec<String>>);

struct Probe {
    log: Arc<Log>,
}

impl VirtioDevice for Probe {
    fn name(&self) -> &str {
        "probe"
    }
    fn device_type(&self) -> u16 {
        4
    }
    fn queue_sizes(&self) -> &[u16] {
        &[16, 16]
    }
    fn features(&self) -> u64 {
        1
    }
    fn read_config(&self, offset: u64, data: &mut [u8]) {
        copy_config(&[1, 2, 3, 4], offset, data);
    }
    fn activate(&mut self, activation: Activation) -> Result<(), DeviceFault> {
        let queues = activation
            .queues
            .iter()
            .filter(|queue| queue.is_some())
            .count();
        self.log
            .0
            .lock()
            .unwrap()
            .push(format!("activate {:#x} {queues}", activation.features));
        Ok(())
    }
    fn reset(&mut self) {
        self.log.0.lock().unwrap().push("reset".to_owned());
    }
    fn handle(&mut self, _event: u32, _ready: u32) -> Result<(), DeviceFault> {
        Ok(())
    }
}

impl Doorbells for Log {
    fn connect(&self, address: u64, _event: &EventFd) -> Result<(), kvm_ioctls::Error> {
        self.0.lock().unwrap().push(format!("connect {address:#x}"));
        Ok(())
    }
    fn disconnect(&self, address: u64, _event: &EventFd) -> Result<(), kvm_ioctls::Error> {
        self.0
            .lock()
            .unwrap()
            .push(format!("disconnect {address:#x}"));
        Ok(())
    }
}

struct Setup {
    log: Arc<Log>,
    memory: GuestMemory,
    device: Arc<VirtioPciDevice>,
}

impl Setup {
    fn new() -> Self {
        let mut root = PciRoot::default();
        let (log, memory) = (Arc::new(Log::default()), memory());
        let probe = Arc::new(Mutex::new(Probe {
            log: Arc::clone(&log),
        }));
        let controller = Arc::new(FakeController::default());
        let device =
            VirtioPciDevice::attach(&mut root, probe, controller, log.clone(), memory.clone())
                .unwrap();
        Self {
            log,
            memory,
            device,
        }
    }

    fn take_log(&self) -> Vec<String> {
        std::mem::take(&mut *self.log.0.lock().unwrap())
    }

    fn status(&self) -> u8 {
        let mut data = [0];
        self.device.read_bar(0, 20, &mut data);
        data[0]
    }

    fn negotiate(&self) {
        for (select, features) in [(0u32, 1u32), (1, 1)] {
            self.device.write_bar(0, 8, &select.to_le_bytes());
            self.device.write_bar(0, 12, &features.to_le_bytes());
        }
        self.device.write_bar(0, 20, &[11]);
        assert_eq!(self.status(), 11);
    }

    fn enable_queue(&self, index: u16, rings: [u64; 3]) {
        self.device.write_bar(0, 22, &index.to_le_bytes());
        for (offset, ring) in [32, 40, 48].into_iter().zip(rings) {
            self.device
                .write_bar(0, offset, &(ring as u32).to_le_bytes());
            self.device
                .write_bar(0, offset + 4, &((ring >> 32) as u32).to_le_bytes());
        }
        self.device.write_bar(0, 28, &1u16.to_le_bytes());
    }
}

#[test]
fn a_driver_activates_and_resets_the_device() {
    let setup = Setup::new();
    setup.device.write_config(4, &[2, 0]);
    setup.negotiate();
    setup.enable_queue(0, Driver::new(&setup.memory, 0).rings());
    setup.device.write_bar(0, 20, &[15]);
    assert_eq!(setup.status(), 15);
    let base = 0xc000_0000u64 + NOTIFY;
    assert_eq!(
        setup.take_log(),
        vec![
            "activate 0x100000001 1".to_owned(),
            format!("connect {base:#x}"),
            format!("connect {:#x}", base + 4)
        ]
    );
    // Moving the BAR moves the doorbells.
    setup.device.write_config(4, &[0, 0]);
    setup
        .device
        .write_config(0x10, &0xc100_0000u32.to_le_bytes());
    setup.device.write_config(4, &[2, 0]);
    assert_eq!(setup.take_log().len(), 4);
    setup.device.write_bar(0, 20, &[0]);
    assert_eq!(setup.status(), 0);
    let log = setup.take_log();
    assert_eq!(log[0], "reset");
    assert_eq!(log[1], format!("disconnect {:#x}", 0xc100_0000 + NOTIFY));
}

#[test]
fn rings_outside_memory_need_a_reset() {
    for bad in [0x4000_0000, !0xfff, 1] {
        let setup = Setup::new();
        setup.negotiate();
        let [descriptors, driver, _] = Driver::new(&setup.memory, 0).rings();
        setup.enable_queue(0, [descriptors, driver, bad]);
        setup.device.write_bar(0, 20, &[15]);
        assert_eq!(setup.status(), 15 | 64, "{bad:#x}");
        setup.device.write_bar(0, 20, &[0]);
        assert_eq!(setup.status(), 0);
    }
}

#[test]
fn the_capability_list_names_every_structure_once() {
    let setup = Setup::new();
    let mut position = [0];
    setup.device.read_config(0x34, &mut position);
    let mut kinds = Vec::new();
    let mut at = usize::from(position[0]);
    while at != 0 {
        let mut head = [0; 4];
        setup.device.read_config(at, &mut head);
        kinds.push((
            head[0],
            if head[0] == CAPABILITY_VENDOR {
                head[3]
            } else {
                0
            },
        ));
        at = usize::from(head[1]);
    }
    assert_eq!(
        kinds,
        vec![(9, 1), (9, 2), (9, 3), (9, 4), (9, 5), (0x11, 0)]
    );
}

#[test]
fn the_configuration_window_reaches_the_bar() {
    let setup = Setup::new();
    let at = setup.device.lock_state().pci_access_offset;
    setup
        .device
        .write_config(at + 8, &(DEVICE as u32).to_le_bytes());
    setup.device.write_config(at + 12, &4u32.to_le_bytes());
    let mut data = [0; 4];
    setup.device.read_config(at + 16, &mut data);
    assert_eq!(data, [1, 2, 3, 4]);
    // Widths and offsets that are not allowed do nothing.
    for (offset, length) in [(1u32, 4u32), (0, 3), (0, 0), (0, u32::MAX), (u32::MAX, 1)] {
        setup.device.write_config(at + 8, &offset.to_le_bytes());
        setup.device.write_config(at + 12, &length.to_le_bytes());
        setup.device.read_config(at + 16, &mut data);
        setup.device.write_config(at + 16, &data);
    }
}

#[test]
fn garbage_in_all_registers_is_survived() {
    let setup = Setup::new();
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    for _ in 0..20_000 {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        let bytes = seed.to_le_bytes();
        let width = [1, 2, 4, 8][(seed >> 60) as usize & 3];
        let offset = seed >> 8 & 0x8fff;
        match seed >> 58 & 3 {
            0 => setup
                .device
                .write_config((offset & 0xfff) as usize, &bytes[..width]),
            1 => setup.device.write_bar(0, offset, &bytes[..width]),
            2 => setup.device.write_bar(0, offset & 0x3f, &bytes[..width]),
            _ => {
                let mut data = vec![0; width];
                setup.device.read_bar(0, offset, &mut data);
                setup
                    .device
                    .read_config((offset & 0xfff) as usize, &mut data);
            }
        }
    }
    let mut data = [0; 8];
    setup.device.read_bar(0, u64::MAX, &mut data);
    setup.device.write_bar(0, u64::MAX, &data);
}
