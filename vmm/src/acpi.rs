//! ACPI tables (ACPI 6.5): RSDP → XSDT → {FADT → DSDT, MADT, MCFG}.
//!
//! The platform is hardware-reduced: no PM timer, no SCI, no fixed events; sleep and
//! reset are single registers ([`crate::devices::power`]). The DSDT names the processors,
//! the PCI root, the ECAM area, COM1 and the pvpanic port.

use acpi_tables::aml::{
    AddressSpace, AddressSpaceCacheable, Device, EISAName, IO, Interrupt, Memory32Fixed, Name, ONE,
    Package, PackageBuilder, Path, ResourceTemplate, ZERO,
};
use acpi_tables::fadt::{FADTBuilder, Flags};
use acpi_tables::gas::{AccessSize, AddressSpace as RegisterSpace, GAS};
use acpi_tables::madt::{
    EnabledStatus, IoApic, LocalInterruptController, MADT, ProcessorLocalApic,
};
use acpi_tables::mcfg::MCFG;
use acpi_tables::rsdp::Rsdp;
use acpi_tables::sdt::Sdt;
use acpi_tables::xsdt::XSDT;
use acpi_tables::{Aml, AmlSink};
use vm_memory::{Bytes, GuestAddress};

use crate::devices::{power, pvpanic};
use crate::layout;
use crate::memory::GuestMemory;

const OEM_ID: [u8; 6] = *b"HULL  ";
const OEM_TABLE_ID: [u8; 8] = *b"HULLVMM ";
const OEM_REVISION: u32 = 1;
const TABLE_ALIGNMENT: u64 = 16;
/// IAPC_BOOT_ARCH: VGA not present (bit 2), no ASPM (bit 4), CMOS RTC not present (bit 5).
/// 8042 present (bit 1) is clear, so Linux does not look for a keyboard controller.
const BOOT_ARCHITECTURE_FLAGS: u16 = 1 << 2 | 1 << 4 | 1 << 5;
const SLEEP_TYPE_S5: u8 = power::SLEEP_TYPE_S5;

/// The tables could not be placed.
#[derive(Debug, thiserror::Error)]
pub enum AcpiError {
    /// They outgrow their area.
    #[error("ACPI tables of {0} bytes do not fit into their area")]
    TooLarge(usize),
    /// Guest memory has no such area.
    #[error("Failed to write ACPI tables into guest memory")]
    Write(#[source] vm_memory::GuestMemoryError),
}

/// What the PCI root of the DSDT says beyond the constant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PciResources {
    /// First and last address of the window for BARs above guest RAM.
    pub high_window: Option<(u64, u64)>,
    /// Slots with a line interrupt, and the IOAPIC pin of its pin A.
    pub line_interrupts: Vec<(u8, u32)>,
}

/// Writes all tables for `vcpus` processors; returns the address of the RSDP.
pub fn write(memory: &GuestMemory, vcpus: u8, pci: &PciResources) -> Result<u64, AcpiError> {
    let image = build(vcpus, pci);
    if image.len() as u64 > layout::ACPI_END - layout::ACPI_START {
        return Err(AcpiError::TooLarge(image.len()));
    }
    memory
        .write_slice(&image, GuestAddress(layout::ACPI_START))
        .map_err(AcpiError::Write)?;
    Ok(layout::ACPI_START)
}

/// All tables as they lie in memory from [`layout::ACPI_START`] on; the RSDP comes first.
fn build(vcpus: u8, pci: &PciResources) -> Vec<u8> {
    let rsdp_length = Rsdp::new(OEM_ID, 0).bytes().len();
    let mut image = vec![0; rsdp_length];
    let dsdt = append(&mut image, dsdt(vcpus, pci).as_slice());
    let fadt = append(&mut image, &fadt(dsdt));
    let madt = append(&mut image, &madt(vcpus));
    let mcfg = append(&mut image, &mcfg());
    let mut xsdt = XSDT::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    for address in [fadt, madt, mcfg] {
        xsdt.add_entry(address);
    }
    let xsdt = append(&mut image, &xsdt.bytes());
    let rsdp = Rsdp::new(OEM_ID, xsdt).bytes();
    image[..rsdp_length].copy_from_slice(&rsdp);
    image
}

trait ToBytes {
    fn bytes(&self) -> Vec<u8>;
}

impl<T: Aml> ToBytes for T {
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.to_aml_bytes(&mut bytes);
        bytes
    }
}

fn append(image: &mut Vec<u8>, table: &[u8]) -> u64 {
    let offset = (image.len() as u64).next_multiple_of(TABLE_ALIGNMENT);
    image.resize(offset as usize, 0);
    image.extend_from_slice(table);
    layout::ACPI_START + offset
}

fn port_register(port: u16) -> GAS {
    GAS::new(
        RegisterSpace::SystemIo,
        8,
        0,
        AccessSize::ByteAccess,
        u64::from(port),
    )
}

fn fadt(dsdt: u64) -> Vec<u8> {
    let mut builder = FADTBuilder::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION)
        .dsdt_64(dsdt)
        .flag(Flags::HwReducedAcpi)
        .flag(Flags::ResetRegSup)
        .flag(Flags::Headless)
        .flag(Flags::PwrButton)
        .flag(Flags::SlpButton);
    builder.iapc_boot_arch = BOOT_ARCHITECTURE_FLAGS.into();
    builder.reset_reg = port_register(layout::RESET_PORT);
    builder.reset_value = power::RESET_VALUE;
    builder.sleep_control_reg = port_register(layout::SLEEP_CONTROL_PORT);
    builder.sleep_status_reg = port_register(layout::SLEEP_STATUS_PORT);
    builder.finalize().bytes()
}

fn madt(vcpus: u8) -> Vec<u8> {
    let controller = LocalInterruptController::Address(layout::LOCAL_APIC);
    let mut madt = MADT::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION, controller);
    for id in 0..vcpus {
        madt.add_structure(ProcessorLocalApic::new(id, id, EnabledStatus::Enabled));
    }
    madt.add_structure(IoApic::new(0, layout::IOAPIC, 0));
    madt.bytes()
}

fn mcfg() -> Vec<u8> {
    let mut mcfg = MCFG::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    mcfg.add_ecam(layout::ECAM_START, 0, 0, 0);
    mcfg.bytes()
}

fn dsdt(vcpus: u8, pci: &PciResources) -> Sdt {
    const HEADER_BYTES: u32 = 36;
    const REVISION: u8 = 6;
    let mut dsdt = Sdt::new(
        *b"DSDT",
        HEADER_BYTES,
        REVISION,
        OEM_ID,
        OEM_TABLE_ID,
        OEM_REVISION,
    );
    let mut aml = Vec::new();
    processors(vcpus, &mut aml);
    pci_root(pci, &mut aml);
    reserved_areas(&mut aml);
    serial_port(&mut aml);
    panic_port(&mut aml);
    Name::new(
        "_S5_".into(),
        &Package::new(vec![&SLEEP_TYPE_S5, &ZERO, &ZERO, &ZERO]),
    )
    .to_aml_bytes(&mut aml);
    dsdt.append_slice(&aml);
    dsdt.update_checksum();
    dsdt
}

fn processors(vcpus: u8, aml: &mut dyn AmlSink) {
    for id in 0..vcpus {
        let path = Path::new(&format!("\\_SB_.C{id:03X}"));
        Device::new(
            path,
            vec![
                &Name::new("_HID".into(), &"ACPI0007"),
                &Name::new("_UID".into(), &id),
            ],
        )
        .to_aml_bytes(aml);
    }
}

fn pci_root(pci: &PciResources, aml: &mut dyn AmlSink) {
    let low = AddressSpace::new_memory(
        AddressSpaceCacheable::NotCacheable,
        true,
        layout::PCI_MMIO_START as u32,
        (layout::PCI_MMIO_END - 1) as u32,
        None,
    );
    let bus = AddressSpace::new_bus_number(0u16, 0u16);
    let high = pci.high_window.map(|(first, last)| {
        AddressSpace::new_memory(AddressSpaceCacheable::NotCacheable, true, first, last, None)
    });
    let mut resources: Vec<&dyn Aml> = vec![&bus, &low];
    resources.extend(high.iter().map(|window| window as &dyn Aml));
    let resources = Name::new("_CRS".into(), &ResourceTemplate::new(resources));
    let routes = Name::new("_PRT".into(), &line_interrupts(&pci.line_interrupts));
    let ids = [
        Name::new("_HID".into(), &EISAName::new("PNP0A08")),
        Name::new("_CID".into(), &EISAName::new("PNP0A03")),
        Name::new("_ADR".into(), &ZERO),
        Name::new("_SEG".into(), &ZERO),
        Name::new("_UID".into(), &ZERO),
        // Says that DMA is cache coherent.
        Name::new("_CCA".into(), &ONE),
    ];
    let mut members: Vec<&dyn Aml> = ids.iter().map(|name| name as &dyn Aml).collect();
    members.push(&resources);
    if !pci.line_interrupts.is_empty() {
        members.push(&routes);
    }
    Device::new("\\_SB_.PCI0".into(), members).to_aml_bytes(aml);
}

/// The routing table: a package of (device, pin A, no link device, IOAPIC pin) each.
fn line_interrupts(routes: &[(u8, u32)]) -> PackageBuilder {
    const ALL_FUNCTIONS: u32 = 0xffff;
    let mut table = PackageBuilder::new();
    for (slot, pin) in routes {
        let device = u32::from(*slot) << 16 | ALL_FUNCTIONS;
        table.add_element(&Package::new(vec![&device, &ZERO, &ZERO, pin]));
    }
    table
}

/// Without this Linux does not trust the ECAM area of the MCFG.
fn reserved_areas(aml: &mut dyn AmlSink) {
    let ecam = Memory32Fixed::new(true, layout::ECAM_START as u32, layout::ECAM_SIZE as u32);
    Device::new(
        "\\_SB_.MBRD".into(),
        vec![
            &Name::new("_HID".into(), &EISAName::new("PNP0C02")),
            &Name::new("_UID".into(), &ZERO),
            &Name::new("_CRS".into(), &ResourceTemplate::new(vec![&ecam])),
        ],
    )
    .to_aml_bytes(aml);
}

fn serial_port(aml: &mut dyn AmlSink) {
    let interrupt = Interrupt::new(true, true, false, false, layout::COM1_IRQ);
    let ports = IO::new(layout::COM1_PORT, layout::COM1_PORT, 0, 8);
    Device::new(
        "\\_SB_.COM1".into(),
        vec![
            &Name::new("_HID".into(), &EISAName::new("PNP0501")),
            &Name::new("_UID".into(), &ZERO),
            &Name::new(
                "_CRS".into(),
                &ResourceTemplate::new(vec![&interrupt, &ports]),
            ),
        ],
    )
    .to_aml_bytes(aml);
}

fn panic_port(aml: &mut dyn AmlSink) {
    let ports = IO::new(layout::PVPANIC_PORT, layout::PVPANIC_PORT, 0, 1);
    Device::new(
        "\\_SB_.PEVT".into(),
        vec![
            &Name::new("_HID".into(), &pvpanic::ACPI_HARDWARE_ID),
            &Name::new("_STA".into(), &0x0fu8),
            &Name::new("_CRS".into(), &ResourceTemplate::new(vec![&ports])),
        ],
    )
    .to_aml_bytes(aml);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(bytes: &[u8]) -> u8 {
        bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
    }

    fn table(image: &[u8], address: u64) -> &[u8] {
        let start = (address - layout::ACPI_START) as usize;
        let length = u32::from_le_bytes(image[start + 4..start + 8].try_into().unwrap()) as usize;
        &image[start..start + length]
    }

    fn address_at(bytes: &[u8], offset: usize) -> u64 {
        u64::from_le_bytes(bytes[offset..offset + 8].try_into().unwrap())
    }

    fn u32_at(bytes: &[u8], offset: usize) -> u32 {
        u32::from_le_bytes(bytes[offset..offset + 4].try_into().unwrap())
    }

    fn resources() -> PciResources {
        PciResources {
            high_window: Some((8 << 30, (16 << 30) - 1)),
            line_interrupts: (1..32).map(|slot| (slot, 16)).collect(),
        }
    }

    #[test]
    fn every_table_is_reachable_and_its_checksum_is_right() {
        for vcpus in [1, 2, 64, 254] {
            let image = build(vcpus, &resources());
            assert_eq!(&image[..8], b"RSD PTR ");
            assert_eq!(sum(&image[..20]), 0);
            assert_eq!(sum(&image[..36]), 0);
            let xsdt = table(&image, address_at(&image, 24));
            assert_eq!(&xsdt[..4], b"XSDT");
            assert_eq!(sum(xsdt), 0);
            let mut signatures = Vec::new();
            for entry in xsdt[36..].chunks(8) {
                let found = table(&image, address_at(entry, 0));
                assert_eq!(sum(found), 0);
                signatures.push(found[..4].to_vec());
                if &found[..4] == b"FACP" {
                    let dsdt = table(&image, address_at(found, 140));
                    assert_eq!(&dsdt[..4], b"DSDT");
                    assert_eq!(sum(dsdt), 0);
                }
            }
            assert_eq!(
                signatures,
                vec![b"FACP".to_vec(), b"APIC".to_vec(), b"MCFG".to_vec()]
            );
        }
    }

    #[test]
    fn madt_names_every_vcpu_and_the_ioapic() {
        const HEADER: usize = 44;
        let madt = madt(3);
        assert_eq!(u32_at(&madt, 36), 0xfee0_0000);
        let mut entries = Vec::new();
        let mut rest = &madt[HEADER..];
        while let [kind, length, ..] = *rest {
            let (entry, after) = rest.split_at(usize::from(length));
            entries.push((kind, entry.to_vec()));
            rest = after;
        }
        assert!(rest.is_empty());
        // Processor Local APIC (5.2.12.2): processor, APIC id, flags (bit 0: enabled).
        for id in 0..3 {
            let local_apic = vec![0, 8, id, id, 1, 0, 0, 0];
            assert_eq!(entries[usize::from(id)], (0, local_apic));
        }
        // I/O APIC (5.2.12.3): id, address, first interrupt.
        let (kind, io_apic) = &entries[3];
        assert_eq!((*kind, io_apic.len()), (1, 12));
        assert_eq!(u32_at(io_apic, 4), 0xfec0_0000);
        assert_eq!(u32_at(io_apic, 8), 0);
        assert_eq!(entries.len(), 4);
    }

    #[test]
    fn mcfg_names_the_ecam_area_of_one_bus() {
        let mcfg = mcfg();
        // PCI Firmware 3.3 §4.1.2: 8 reserved bytes, then base, segment, first and last bus.
        assert_eq!(mcfg.len(), 36 + 8 + 16);
        assert_eq!(address_at(&mcfg, 44), layout::ECAM_START);
        assert_eq!(mcfg[52..56], [0, 0, 0, 0]);
        // A bus has a MiB of configuration space.
        assert_eq!(layout::ECAM_SIZE, 1 << 20);
    }

    #[test]
    fn fadt_describes_hardware_without_legacy_parts() {
        let fadt = fadt(0x1234);
        // ACPI 6.5 table 5.9. Flags: power and sleep button are none of fixed hardware,
        // reset register, headless, hardware-reduced.
        let flags = u32_at(&fadt, 112);
        assert_eq!(flags, 1 << 4 | 1 << 5 | 1 << 10 | 1 << 12 | 1 << 20);
        let boot = u16::from_le_bytes(fadt[109..111].try_into().unwrap());
        assert_eq!(boot, BOOT_ARCHITECTURE_FLAGS);
        assert_eq!(boot & 1 << 1, 0, "no keyboard controller");
        // No SCI, no power management timer.
        assert_eq!((fadt[46], u32_at(&fadt, 76)), (0, 0));
        assert_eq!(address_at(&fadt, 140), 0x1234);
        // Generic addresses: of ports (1), 8 bits wide, byte access (1).
        for (at, port) in [
            (116, layout::RESET_PORT),
            (244, layout::SLEEP_CONTROL_PORT),
            (256, layout::SLEEP_STATUS_PORT),
        ] {
            assert_eq!(fadt[at..at + 4], [1, 8, 0, 1], "at {at}");
            assert_eq!(address_at(&fadt, at + 4), u64::from(port), "at {at}");
        }
        assert_eq!(fadt[128], power::RESET_VALUE);
    }

    #[test]
    fn dsdt_names_what_linux_looks_for() {
        let dsdt = dsdt(2, &resources());
        let aml = dsdt.as_slice();
        let has = |part: &[u8]| {
            aml.windows(part.len())
                .filter(|found| *found == part)
                .count()
        };
        assert_eq!(has(b"ACPI0007\0"), 2, "processors");
        for (name, count) in [
            (b"C000", 1),
            (b"C001", 1),
            (b"C002", 0),
            (b"PCI0", 1),
            (b"MBRD", 1),
            (b"_PRT", 1),
            (b"_S5_", 1),
            (b"PEVT", 1),
        ] {
            assert_eq!(has(name), count, "{}", String::from_utf8_lossy(name));
        }
        for id in ["PNP0A08", "PNP0A03", "PNP0C02", "PNP0501"] {
            assert_eq!(has(&EISAName::new(id).bytes()), 1, "{id}");
        }
        // The ECAM area is reserved: Memory32Fixed, writable, from where the MCFG says.
        let mut ecam = vec![0x86, 9, 0, 1];
        ecam.extend((layout::ECAM_START as u32).to_le_bytes());
        ecam.extend((layout::ECAM_SIZE as u32).to_le_bytes());
        assert_eq!(has(&ecam), 1);
        // Without line interrupts there is no routing table.
        let without = super::dsdt(1, &PciResources::default());
        assert!(!without.as_slice().windows(4).any(|name| name == b"_PRT"));
    }

    #[test]
    fn the_largest_machine_fits_the_area() {
        assert!((build(254, &resources()).len() as u64) < layout::ACPI_END - layout::ACPI_START);
    }
}
