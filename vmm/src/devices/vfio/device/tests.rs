use vmm_sys_util::eventfd::EventFd;

use super::*;
use crate::devices::vfio::fake::{FakeHardware, FakeSlots};
use crate::interrupts::MsiMessage;
use crate::interrupts::fake::FakeController;

const GIB: u64 = 1 << 30;
const LINE: u32 = 17;
const COMMAND: usize = 4;

struct Setup {
    hardware: Arc<FakeHardware>,
    slots: Arc<FakeSlots>,
    controller: Arc<FakeController>,
    device: Arc<VfioDevice>,
    root: PciRoot,
}

impl Setup {
    fn new() -> Self {
        let bars = [
            (0, 0x4000),
            (1, 0x20),
            (0xc, 8 * GIB),
            (0, 0),
            (0, 0x800),
            (0, 0),
        ];
        let hardware = Arc::new(FakeHardware::new(bars).with_capabilities());
        let (slots, controller) = (
            Arc::new(FakeSlots::default()),
            Arc::new(FakeController::default()),
        );
        let mut root = PciRoot::default();
        root.set_high_room(4 * GIB, 64 * GIB);
        let mut shared = Shared::new(controller.clone(), slots.clone());
        let device = VfioDevice::attach(
            &mut root,
            "gpu",
            hardware.clone(),
            Some(LINE),
            &mut shared,
            Arc::default(),
        )
        .unwrap();
        Self {
            hardware,
            slots,
            controller,
            device,
            root,
        }
    }

    fn command(&self, value: u16) {
        self.device.write_config(COMMAND, &value.to_le_bytes());
    }

    fn mapped(&self) -> Vec<(u64, u64, u64)> {
        self.slots.0.lock().unwrap().values().copied().collect()
    }

    fn connected(&self) -> Vec<u32> {
        let events = self.controller.events.lock().unwrap();
        events
            .iter()
            .map(|(gsi, _): &(u32, EventFd)| *gsi)
            .collect()
    }

    fn program(&self, vector: u64, masked: bool) {
        let at = 0x2000 + vector * 16;
        self.device.write_bar(0, at, &0xfee0_0000u64.to_le_bytes());
        self.device
            .write_bar(0, at + 8, &[0x40 + vector as u8, 0, 0, 0]);
        self.device
            .write_bar(0, at + 12, &[u8::from(masked), 0, 0, 0]);
    }
}

#[test]
fn a_bar_of_8_gib_is_mapped_above_ram_while_decoding_is_on() {
    let setup = Setup::new();
    assert_eq!(setup.mapped(), vec![]);
    setup.command(2);
    // BAR 2 whole; BAR 0 but for the pages of table and pending bits; BAR 4 not: it is
    // smaller than a page.
    let mapped = setup.mapped();
    assert!(mapped.contains(&(8 * GIB, 3 << 40, 8 * GIB)), "{mapped:x?}");
    assert!(
        mapped.contains(&(0xc000_0000, 1 << 40, 0x2000)),
        "{mapped:x?}"
    );
    assert_eq!(mapped.len(), 2, "{mapped:x?}");
    assert_eq!(setup.root.high_window(), Some((4 * GIB, 16 * GIB - 1)));
    setup.command(0);
    assert_eq!(setup.mapped(), vec![]);
}

#[test]
fn a_bar_that_moves_is_mapped_there_and_over_ram_not_at_all() {
    let setup = Setup::new();
    setup.command(2);
    setup.device.write_config(0x1c, &[4, 0, 0, 0]);
    assert!(setup.mapped().contains(&(16 * GIB, 3 << 40, 8 * GIB)));
    setup.device.write_config(0x1c, &[0; 4]);
    setup.device.write_config(0x10, &0x1_0000u32.to_le_bytes());
    assert_eq!(setup.mapped(), vec![]);
    assert!(setup.device.metrics.errors.get() > 0);
    setup.device.write_config(0x1c, &[2, 0, 0, 0]);
    assert_eq!(setup.mapped(), vec![(8 * GIB, 3 << 40, 8 * GIB)]);
}

#[test]
fn registers_in_small_bars_reach_the_device() {
    let setup = Setup::new();
    setup.device.write_bar(4, 0x10, &[1, 2, 3, 4]);
    assert_eq!(
        setup.hardware.bytes.lock().unwrap()[4][0x10..0x14],
        [1, 2, 3, 4]
    );
    let mut data = [0; 4];
    setup.device.read_bar(4, 0x10, &mut data);
    assert_eq!(data, [1, 2, 3, 4]);
    setup.device.read_bar(4, 0x7fe, &mut data);
    assert_eq!(data, [0xff; 4]);
}

#[test]
fn the_msix_table_is_ours_and_signals_go_to_the_guest() {
    let setup = Setup::new();
    setup.hardware.take_log();
    setup.program(0, false);
    setup.program(2, true);
    assert_eq!(
        setup.hardware.bytes.lock().unwrap()[0][0x2000..0x2030],
        [0; 48]
    );
    let mut entry = [0; 4];
    setup.device.read_bar(0, 0x2008, &mut entry);
    assert_eq!(entry, [0x40, 0, 0, 0]);
    setup.device.write_config(0x42, &[0, 0x80]);
    assert_eq!(setup.hardware.take_log(), vec!["intx off", "msix on 3"]);
    let routes = setup.controller.routes.lock().unwrap().clone();
    let message = MsiMessage {
        address: 0xfee0_0000,
        data: 0x40,
    };
    assert_eq!(
        routes.iter().map(|(_, m)| *m).collect::<Vec<_>>(),
        [message]
    );
    assert_eq!(setup.connected().len(), 1);
    // A masked vector is pending until the guest unmasks it.
    setup.hardware.events.lock().unwrap()[2].write(1).unwrap();
    let mut pending = [0];
    setup.device.read_bar(0, 0x3000, &mut pending);
    assert_eq!(pending, [0b100]);
    setup.program(2, false);
    setup.device.read_bar(0, 0x3000, &mut pending);
    assert_eq!(pending, [0]);
    assert_eq!(setup.hardware.events.lock().unwrap()[2].read().unwrap(), 1);
    setup.device.write_config(0x42, &[0, 0]);
    assert_eq!(
        setup.hardware.take_log(),
        vec!["msix off", "intx on 1", "unmasked by the guest"]
    );
}

#[test]
fn msi_vectors_carry_their_number_in_the_data() {
    let setup = Setup::new();
    setup.hardware.take_log();
    setup
        .device
        .write_config(0x54, &0xfee0_0000u64.to_le_bytes());
    setup.device.write_config(0x5c, &0x4143u16.to_le_bytes());
    setup.device.write_config(0x52, &[0x11, 0]);
    assert_eq!(setup.hardware.take_log(), vec!["intx off", "msi on 2"]);
    let data: Vec<u32> = setup
        .controller
        .routes
        .lock()
        .unwrap()
        .iter()
        .map(|(_, message)| message.data)
        .collect();
    assert_eq!(data, [0x4142, 0x4143]);
}

#[test]
fn the_line_interrupt_follows_the_command_register() {
    let setup = Setup::new();
    assert_eq!(
        setup.hardware.take_log(),
        vec!["reset", "intx on 1", "unmasked by the guest"]
    );
    assert_eq!(setup.connected(), vec![LINE]);
    setup.command(1 << 10);
    assert_eq!(setup.hardware.take_log(), vec!["intx off"]);
    assert!(setup.connected().is_empty());
    setup.command(0);
    setup.hardware.take_log();
    setup.device.shut_down();
    assert_eq!(setup.hardware.take_log(), vec!["intx off", "reset"]);
}
