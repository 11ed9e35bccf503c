use super::*;
use crate::devices::vfio::bars::memory_bars;
use crate::devices::vfio::fake::FakeHardware;

const BARS_OF_FAKE: [(u32, u64); BARS] = [
    (0, 0x4000),
    (1, 0x20),
    (0xc, 8 << 30),
    (0, 0),
    (0, 0),
    (0, 0),
];

fn space_of(hardware: FakeHardware) -> (Arc<FakeHardware>, Space, Vec<Bar>) {
    let hardware = Arc::new(hardware);
    let mut registers = [0; BARS];
    for (register, (flags, _)) in registers.iter_mut().zip(BARS_OF_FAKE) {
        *register = flags;
    }
    let bars = memory_bars(registers, &hardware.regions);
    let space = Space::new(hardware.clone(), &bars, true).unwrap();
    (hardware, space, bars)
}

fn full() -> (Arc<FakeHardware>, Space, Vec<Bar>) {
    space_of(FakeHardware::new(BARS_OF_FAKE).with_capabilities())
}

fn read<const N: usize>(space: &Space, offset: usize) -> [u8; N] {
    let mut data = [0; N];
    space.read(offset, &mut data).unwrap();
    data
}

fn word(space: &Space, offset: usize) -> u32 {
    u32::from_le_bytes(read(space, offset))
}

/// (offset, id) of the capabilities in the order of the chain.
fn chain(space: &Space) -> Vec<(u8, u8)> {
    let mut at = read::<1>(space, CAPABILITY_POINTER)[0];
    let mut found = Vec::new();
    while at != 0 {
        let [id, next] = read(space, usize::from(at));
        found.push((at, id));
        at = next;
    }
    found
}

#[test]
fn bars_answer_their_size_and_ports_are_absent() {
    let (_, mut space, bars) = full();
    space.place_bar(&bars[0], 0xc000_0000);
    space.place_bar(&bars[1], 8 << 30);
    assert_eq!(word(&space, 0x10), 0xc000_0000);
    assert_eq!((word(&space, 0x18), word(&space, 0x1c)), (0xc, 2));
    space.write(0x10, &[0xff; 24]).unwrap();
    assert_eq!(word(&space, 0x10), 0xffff_c000);
    assert_eq!(word(&space, 0x14), 0);
    assert_eq!((word(&space, 0x18), word(&space, 0x1c)), (0xc, 0xffff_fffe));
    space.write(0x18, &0u32.to_le_bytes()).unwrap();
    space.write(0x1c, &6u32.to_le_bytes()).unwrap();
    assert_eq!(space.bar_address(&bars[1]), 24 << 30);
    assert_eq!(word(&space, ROM), 0);
    space.write(ROM, &[0xff; 4]).unwrap();
    assert_eq!(word(&space, ROM), 0);
}

#[test]
fn capabilities_that_the_guest_has_no_use_for_are_left_out() {
    let (hardware, mut space, _) = full();
    assert_eq!(
        chain(&space),
        vec![(0x40, 0x11), (0x50, 0x05), (0x80, 0x10)]
    );
    assert_eq!(word(&space, 0x70), 0);
    space.write(0x72, &[1, 2]).unwrap();
    let mut untouched = [0; 2];
    hardware.read(CONFIG_REGION, 0x72, &mut untouched).unwrap();
    assert_eq!(untouched, [7, 7]);
    assert_eq!(read::<1>(&space, 0x82)[0] >> 4, 9);
    assert_eq!(read::<1>(&space, HEADER_TYPE), [0]);
}

#[test]
fn a_chain_that_is_a_ring_ends() {
    let hardware = FakeHardware::new(BARS_OF_FAKE)
        .config(0x34, &[0x40])
        .config(0x40, &[0x01, 0x60])
        .config(0x60, &[0x09, 0x40])
        .config(0x100, &0x1401_0001u32.to_le_bytes())
        .config(0x140, &0x1001_000bu32.to_le_bytes());
    let (_, space, _) = space_of(hardware);
    assert_eq!(chain(&space), vec![(0x40, 1), (0x60, 9)]);
    assert_eq!(word(&space, 0x100), 0x1401_0001);
    assert_eq!(word(&space, 0x140), 0x0001_000b);
}

#[test]
fn extended_capabilities_are_filtered_and_the_first_stays_as_a_link() {
    // SR-IOV first, then the serial number, then ATS.
    let hardware = FakeHardware::new(BARS_OF_FAKE)
        .config(0x100, &0x2001_0010u32.to_le_bytes())
        .config(0x104, &[0xaa; 8])
        .config(0x200, &0x3001_0003u32.to_le_bytes())
        .config(0x204, &[0xbb; 8])
        .config(0x300, &0x0001_000fu32.to_le_bytes());
    let (_, space, _) = space_of(hardware);
    assert_eq!(word(&space, 0x100), 0x2000_0000);
    assert_eq!(word(&space, 0x104), 0);
    assert_eq!(word(&space, 0x200), 0x0001_0003);
    assert_eq!(word(&space, 0x204), 0xbbbb_bbbb);
    assert_eq!(word(&space, 0x300), 0);
}

#[test]
fn msi_registers_are_ours() {
    let (hardware, mut space, _) = full();
    assert_eq!(space.msi_vectors(), 4);
    assert!(!space.msi_registers().enabled);
    // Two vectors of four, address, data, mask; then the enable bit.
    space.write(0x54, &0xfee0_1003u32.to_le_bytes()).unwrap();
    space.write(0x58, &1u32.to_le_bytes()).unwrap();
    space.write(0x5c, &0x4040u16.to_le_bytes()).unwrap();
    space.write(0x60, &2u32.to_le_bytes()).unwrap();
    space.write(0x52, &[0xff, 0xff]).unwrap();
    space.write(0x52, &[0x11, 0]).unwrap();
    assert_eq!(
        space.msi_registers(),
        MsiRegisters {
            enabled: true,
            count: 2,
            address: 0x1_fee0_1000,
            data: 0x4040,
            mask: 2
        }
    );
    assert_eq!(read::<2>(&space, 0x52), [0x95, 0x01]);
    let mut untouched = [0; 2];
    hardware.read(CONFIG_REGION, 0x52, &mut untouched).unwrap();
    assert_eq!(untouched, [0x84, 0x01]);
}

#[test]
fn an_msix_capability_whose_table_lies_outside_its_bar_is_left_out() {
    let (_, space, _) = full();
    let layout = space.msix().unwrap();
    assert_eq!(
        (layout.vectors, layout.table, layout.pending),
        (3, (0, 0x2000), (0, 0x3000))
    );
    for (table, what) in [
        ([0xf0, 0x3f, 0, 0], "beyond the end"),
        ([0x01, 0, 0, 0], "in ports"),
        ([0x05, 0, 0, 0], "in an absent BAR"),
    ] {
        let hardware = FakeHardware::new(BARS_OF_FAKE)
            .with_capabilities()
            .config(0x44, &table);
        let (_, space, _) = space_of(hardware);
        assert_eq!(space.msix(), None, "{what}");
        assert!(chain(&space).iter().all(|(_, id)| *id != 0x11), "{what}");
    }
}

#[test]
fn any_offset_and_width_is_taken() {
    let (_, mut space, _) = full();
    let mut data = [0xaa; 8];
    space.read(usize::MAX - 2, &mut data).unwrap();
    assert_eq!(data, [0; 8]);
    space.write(usize::MAX - 2, &data).unwrap();
    space.read(4092, &mut data).unwrap();
    space.write(4092, &data).unwrap();
    for offset in 0..300 {
        for width in 1..9 {
            space.write(offset, &data[..width]).unwrap();
            space.read(offset, &mut data[..width]).unwrap();
        }
    }
}
