//! Devices of the host in a guest. They need a testnode with an IOMMU and the devices that
//! `vmm/tests/vfio.sh` asks for.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use hull_testnode::cache;
use hull_vmm_client::exit::ExitReason;
use hull_vmm_client::vfio;

use crate::support::{Machine, Options};
use crate::{metric, options, run};

const DEVICES: &str = "/sys/bus/pci/devices";
const TRAPPED_WRITES: &str =
    "hull_vmm_vfio_trapped_accesses_total{device=\"passed\",kind=\"write\"}";
const TRAPPED_READS: &str = "hull_vmm_vfio_trapped_accesses_total{device=\"passed\",kind=\"read\"}";
const ERRORS: &str = "hull_vmm_vfio_trapped_accesses_total{device=\"passed\",kind=\"error\"}";

/// Binds the one device with these ids to vfio-pci; gives its address.
fn bind(vendor: &str, device: &str) -> String {
    run(&["modprobe", "vfio-pci"]);
    let has = |path: &Path, name: &str, value: &str| {
        fs::read_to_string(path.join(name)).is_ok_and(|text| text.trim() == value)
    };
    let path = fs::read_dir(DEVICES)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| has(path, "vendor", vendor) && has(path, "device", device))
        .unwrap_or_else(|| panic!("the testnode has no device {vendor}:{device}"));
    let address = path.file_name().unwrap().to_str().unwrap().to_owned();
    if vfio::group_of(&address).is_err() {
        let _ = fs::write(path.join("driver/unbind"), &address);
        fs::write(path.join("driver_override"), "vfio-pci").unwrap();
        fs::write("/sys/bus/pci/drivers_probe", &address).unwrap();
    }
    address
}

/// A file below the cache directory.
fn cached(name: &str) -> PathBuf {
    cache::directory().unwrap().join(name)
}

/// Debian's cloud kernel, which has the driver of NVMe disks.
fn cloud_kernel() -> File {
    File::open(cached("guest/linux-image-cloud-amd64/boot/vmlinux")).unwrap()
}

/// Debian's kernel for all machines, and its driver of the network card.
fn full_kernel() -> (File, PathBuf) {
    let path = std::env::var_os("HULL_VFIO_KERNEL").unwrap();
    let modules = cached("testnode/linux-image-amd64/lib/modules");
    let release = fs::read_dir(modules).unwrap().next().unwrap().unwrap();
    let driver = "kernel/drivers/net/ethernet/intel/e1000e/e1000e.ko";
    (File::open(path).unwrap(), release.path().join(driver))
}

#[tokio::test]
#[ignore = "needs a testnode with VFIO: vmm/tests/vfio.sh"]
async fn vfio_a_bar_of_8_gib_is_in_the_guest() {
    let address = bind("0x1b36", "0x0005");
    let mut machine = Machine::start(Options {
        passed_through: vec![address],
        kernel_arguments: "device=0x0005 access='DEVICE/resource0 0 byte 1 64'",
        ..options("bars")
    });
    machine.expect("MARK accessed");
    let console = machine.console();
    let large = console
        .lines()
        .filter_map(|line| line.trim().strip_prefix("MARK bar "))
        .filter_map(|line| {
            let mut words = line
                .split(' ')
                .map(|word| u64::from_str_radix(word.trim().trim_start_matches("0x"), 16).unwrap());
            let (start, end) = (words.next()?, words.next()?);
            (end > start && end - start + 1 == 8 << 30).then_some(start)
        })
        .next()
        .unwrap_or_else(|| panic!("no BAR of 8 GiB in\n{console}"));
    assert!(large >= 4 << 30, "{large:#x}");
    // The registers of the test device: its test number, then the name of the test.
    assert!(console.contains("mmio"), "{console}");
    let metrics = machine.control.metrics().await.unwrap();
    assert_eq!(metric(&metrics, ERRORS), 0, "{metrics}");
    machine.control.stop().await.unwrap();
    assert_eq!(machine.end().0.reason, ExitReason::Stopped);
}

#[tokio::test]
#[ignore = "needs a testnode with VFIO: vmm/tests/vfio.sh"]
async fn vfio_a_large_bar_is_reached_without_the_vmm_and_a_small_one_through_it() {
    let address = bind("0x1af4", "0x1110");
    let mut machine = Machine::start(Options {
        passed_through: vec![address],
        // 7 GiB into the memory; then the registers, 256 bytes.
        kernel_arguments: "device=0x1110 access='DEVICE/resource2 7516192768 100000; \
            helper DEVICE/resource0 0 byte 0 64'",
        ..options("bars")
    });
    machine.expect("MARK accessed");
    assert!(machine.console().contains("MARK good 100000"));
    let metrics = machine.control.metrics().await.unwrap();
    let reads = metric(&metrics, TRAPPED_READS);
    assert!((64..1000).contains(&reads), "{metrics}");
    assert!(metric(&metrics, TRAPPED_WRITES) < 1000, "{metrics}");
    machine.control.stop().await.unwrap();
    assert_eq!(machine.end().0.reason, ExitReason::Stopped);
}

fn nvme_is_used(kernel_arguments: &'static str) -> String {
    let mut machine = Machine::start(Options {
        passed_through: vec![bind("0x1b36", "0x0010")],
        kernel: Some(cloud_kernel()),
        kernel_arguments,
        ..options("nvme")
    });
    let (record, _) = machine.end();
    let console = machine.console();
    assert_eq!(record.reason, ExitReason::GuestShutdown, "{console}");
    for mark in ["MARK formatted", "MARK same"] {
        assert!(console.contains(mark), "no {mark:?} in\n{console}");
    }
    console
}

/// The sum of the counts of the interrupts whose line contains `kind`.
fn interrupts(console: &str, kind: &str) -> u64 {
    console
        .lines()
        .filter(|line| line.contains("MARK interrupts") && line.contains(kind))
        .filter_map(|line| line.split_whitespace().nth(3)?.parse::<u64>().ok())
        .sum()
}

#[test]
#[ignore = "needs a testnode with VFIO: vmm/tests/vfio.sh"]
fn vfio_an_nvme_disk_is_formatted_and_used_with_msix() {
    let console = nvme_is_used("");
    assert!(interrupts(&console, "PCI-MSI") > 64, "{console}");
}

#[test]
#[ignore = "needs a testnode with VFIO: vmm/tests/vfio.sh"]
fn vfio_an_nvme_disk_is_used_with_its_line_interrupt() {
    let console = nvme_is_used("pci=nomsi");
    assert!(interrupts(&console, "IO-APIC") > 64, "{console}");
}

#[test]
#[ignore = "needs a testnode with VFIO: vmm/tests/vfio.sh"]
fn vfio_a_network_card_passes_traffic() {
    let (kernel, module) = full_kernel();
    let mut machine = Machine::start(Options {
        passed_through: vec![bind("0x8086", "0x10d3")],
        kernel: Some(kernel),
        module: Some(module),
        ..options("nic")
    });
    let (record, _) = machine.end();
    let console = machine.console();
    assert_eq!(record.reason, ExitReason::GuestShutdown, "{console}");
    assert!(console.contains("20 packets received"), "{console}");
    assert!(console.contains("MARK driver e1000e"), "{console}");
    assert!(interrupts(&console, "PCI-MSI") >= 20, "{console}");
}

#[test]
#[ignore = "needs a testnode with VFIO: vmm/tests/vfio.sh"]
fn vfio_a_group_in_use_and_a_device_without_the_driver_are_told() {
    let address = bind("0x1b36", "0x0005");
    let group = vfio::group_of(&address).unwrap();
    let _held = vfio::group(group).unwrap();
    let busy = vfio::group(group).unwrap_err();
    assert!(busy.to_string().contains("/dev/vfio/"), "{busy}");
    let other = fs::read_dir("/sys/bus/pci/drivers/virtio-pci")
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .find(|name| vfio::is_address(name))
        .unwrap();
    let error = vfio::group_of(&other).unwrap_err().to_string();
    assert!(error.contains("bound to virtio-pci"), "{error}");
}
