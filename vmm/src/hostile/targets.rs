//! The targets: a device or parser each, and what must hold afterwards.

use std::fs::File;
use std::io::Write;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::script::{Input, play};
use crate::boot;
use crate::devices::balloon::Balloon;
use crate::devices::block::Block;
use crate::devices::net::{Net, Tap};
use crate::devices::rng::Rng;
use crate::devices::vfio::fake::{FakeHardware, FakeSlots};
use crate::devices::vfio::{VfioDevice, VfioShared};
use crate::devices::vsock::{Muxer, Vsock};
use crate::events::EventLoop;
use crate::interrupts::fake::FakeController;
use crate::memory::{MIN_MEMORY_MIB, create};
use crate::pci::{PciDevice, PciRoot};
use crate::virtio::test_support::memory;
use crate::virtio::{Doorbells, VirtioPciDevice};
use hull_vmm_client::config::MemoryPages;
use vmm_sys_util::eventfd::EventFd;

/// Something that takes hostile bytes.
pub struct Target {
    /// Name, of the fuzz target and its corpus too.
    pub name: &'static str,
    /// Plays the bytes; panics when something happened that must not.
    pub run: fn(&[u8]),
}

/// All of them.
pub const TARGETS: [Target; 9] = [
    Target {
        name: "block",
        run: block,
    },
    Target {
        name: "block_read_only",
        run: block_read_only,
    },
    Target {
        name: "net",
        run: net,
    },
    Target {
        name: "vsock",
        run: vsock,
    },
    Target {
        name: "balloon",
        run: balloon,
    },
    Target {
        name: "rng",
        run: rng,
    },
    Target {
        name: "pci",
        run: pci,
    },
    Target {
        name: "vfio",
        run: vfio,
    },
    Target {
        name: "kernel",
        run: kernel,
    },
];

const DISK_BYTES: usize = 16 << 10;

fn memory_file(bytes: &[u8]) -> File {
    // SAFETY: the name is a C string; the descriptor is owned by the File alone.
    let mut file = unsafe { File::from_raw_fd(libc::memfd_create(c"hostile".as_ptr(), 0)) };
    file.write_all(bytes).unwrap();
    file
}

fn disk(read_only: bool, data: &[u8]) -> File {
    let file = memory_file(&[b'd'; DISK_BYTES]);
    let mut block = Block::new("disk".to_owned(), read_only, Arc::default());
    block
        .attach(OwnedFd::from(file.try_clone().unwrap()))
        .unwrap();
    play(&mut block, &memory(), 1, data);
    file
}

fn block(data: &[u8]) {
    let file = disk(false, data);
    assert_eq!(file.metadata().unwrap().len(), DISK_BYTES as u64);
}

fn block_read_only(data: &[u8]) {
    let mut bytes = [0; DISK_BYTES];
    disk(true, data).read_exact_at(&mut bytes, 0).unwrap();
    assert!(bytes.iter().all(|byte| *byte == b'd'));
}

fn net(data: &[u8]) {
    let (wire, ours) = UnixDatagram::pair().unwrap();
    wire.set_nonblocking(true).unwrap();
    for frame in data.chunks(200).take(4) {
        wire.send(frame).unwrap();
    }
    let mut events = EventLoop::new().unwrap();
    let tap = Tap::from_socket(OwnedFd::from(ours)).unwrap();
    let mac = [2, 0, 0, 0, 0, 1];
    let mut net = Net::new(
        "eth0".into(),
        mac,
        1500,
        Some(tap),
        events.poller(),
        Arc::default(),
    );
    play(&mut net, &memory(), 2, data);
}

fn vsock(data: &[u8]) {
    let mut events = EventLoop::new().unwrap();
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("hull-hostile-{}-{number}", std::process::id()));
    let listener = UnixListener::bind(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let prefix = path.display().to_string();
    let muxer = Muxer::new(3, prefix, listener, events.poller(), Arc::default()).unwrap();
    play(&mut Vsock::new(3, muxer), &memory(), 3, data);
}

fn balloon(data: &[u8]) {
    let memory = create(MIN_MEMORY_MIB, MemoryPages::Normal).unwrap();
    play(&mut Balloon::new(Arc::default()), &memory, 3, data);
}

fn rng(data: &[u8]) {
    play(&mut Rng::new(Arc::default()), &memory(), 1, data);
}

struct NoDoorbells;

impl Doorbells for NoDoorbells {
    fn connect(&self, _address: u64, _event: &EventFd) -> Result<(), kvm_ioctls::Error> {
        Ok(())
    }
    fn disconnect(&self, _address: u64, _event: &EventFd) -> Result<(), kvm_ioctls::Error> {
        Ok(())
    }
}

/// Configuration space and BAR of a device, through the bus.
fn pci(data: &[u8]) {
    let mut root = PciRoot::default();
    let device = VirtioPciDevice::attach(
        &mut root,
        Arc::new(Mutex::new(Rng::new(Arc::default()))),
        Arc::new(FakeController::default()),
        Arc::new(NoDoorbells),
        memory(),
    )
    .unwrap();
    let mut input = Input(data);
    while !input.is_empty() {
        let kind = input.byte();
        let length = usize::from(kind >> 4) % 9;
        let offset = u64::from(input.word());
        let bytes = input.take(length);
        match kind % 4 {
            0 => device.write_config(offset as usize, &bytes),
            1 => device.read_config(offset as usize, &mut vec![0; length]),
            2 => device.write_bar(0, offset, &bytes),
            _ => device.read_bar(0, offset, &mut vec![0; length]),
        }
    }
}

/// A device of the host with capabilities that make sense or are anything, and a guest that
/// writes anything to its registers. What the VMM answers itself never reaches the device,
/// and the guest sees no memory but that of its BARs.
fn vfio(data: &[u8]) {
    const LARGE_BYTES: u64 = 8 << 30;
    const TABLE: std::ops::Range<usize> = 0x2000..0x2030;
    let mut input = Input(data);
    let large = (0xc, LARGE_BYTES);
    let bars = [(0, 0x4000), (1, 0x20), large, (0, 0), (0, 0x800), (0, 0)];
    let mut hardware = FakeHardware::new(bars).with_capabilities();
    let sound = input.byte() & 1 == 0;
    if !sound {
        let (legacy, extended) = (input.take(192), input.take(256));
        hardware = hardware.config(0x40, &legacy).config(0x100, &extended);
    }
    let (hardware, slots) = (Arc::new(hardware), Arc::new(FakeSlots::default()));
    let mut root = PciRoot::default();
    root.set_high_room(4 << 30, 64 << 30);
    let mut shared = VfioShared::new(Arc::new(FakeController::default()), slots.clone());
    let device = VfioDevice::attach(
        &mut root,
        "device",
        hardware.clone(),
        Some(17),
        &mut shared,
        Arc::default(),
    )
    .unwrap();
    while !input.is_empty() {
        let kind = input.byte();
        let length = usize::from(kind >> 4) % 9;
        let offset = u64::from(input.word());
        let bytes = input.take(length);
        let bar = usize::from(kind >> 2 & 1) * 4;
        match kind % 4 {
            0 => device.write_config(offset as usize % 0x1010, &bytes),
            1 => device.read_config(offset as usize, &mut vec![0; length]),
            2 => device.write_bar(bar, offset, &bytes),
            _ => device.read_bar(bar, offset, &mut vec![0; length]),
        }
        for (_, host, bytes) in slots.0.lock().unwrap().values() {
            let (bar, offset) = (host >> 40, host & 0xff_ffff_ffff);
            let size = if bar == 3 { LARGE_BYTES } else { 0x4000 };
            assert!(matches!(bar, 1 | 3) && offset + bytes <= size);
        }
    }
    if sound {
        let bytes = hardware.bytes.lock().unwrap();
        assert_eq!(bytes[0][TABLE], [0; 0x30]);
    }
    device.shut_down();
}

/// A kernel image: an ELF header of the right kind, then anything.
fn kernel(data: &[u8]) {
    let mut image = b"\x7fELF\x02\x01\x01".to_vec();
    image.resize(16, 0);
    // ET_EXEC, x86-64, version 1.
    image.extend_from_slice(&[2, 0, 62, 0, 1, 0, 0, 0]);
    image.extend_from_slice(data);
    let memory = create(MIN_MEMORY_MIB, MemoryPages::Normal).unwrap();
    // Most images are refused; none may do more than that.
    let _ = boot::load(&memory, &memory_file(&image), None, "", 0);
}
