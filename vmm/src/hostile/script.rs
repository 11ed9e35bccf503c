//! What a guest may do, read from bytes.

use vm_memory::{Bytes, GuestAddress};

use crate::memory::GuestMemory;
use crate::virtio::VirtioDevice;
use crate::virtio::test_support::{Driver, activation};

/// Steps of one script at most.
const STEPS_MAX: usize = 256;
/// Bytes that one step writes at most.
const WRITE_MAX: usize = 64;

/// The rest of the input; behind its end everything is zero.
pub(super) struct Input<'a>(pub &'a [u8]);

impl Input<'_> {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn take(&mut self, count: usize) -> Vec<u8> {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        let mut bytes = taken.to_vec();
        bytes.resize(count, 0);
        bytes
    }

    pub(super) fn byte(&mut self) -> u8 {
        self.take(1)[0]
    }

    pub(super) fn word(&mut self) -> u16 {
        u16::from(self.byte()) | u16::from(self.byte()) << 8
    }

    pub(super) fn long(&mut self) -> u64 {
        self.take(8)
            .iter()
            .rev()
            .fold(0, |value, byte| value << 8 | u64::from(*byte))
    }

    /// An address: mostly near the rings and buffers, sometimes anywhere.
    fn address(&mut self) -> u64 {
        match self.byte() {
            0..=199 => u64::from(self.word()) << 6,
            200..=239 => u64::from(self.word()) << 8 | u64::from(self.byte()),
            _ => self.long(),
        }
    }
}

/// Plays a script against a device with `queues` queues.
pub(super) fn play(device: &mut dyn VirtioDevice, memory: &GuestMemory, queues: u64, data: &[u8]) {
    let mut input = Input(data);
    let mut drivers = activate(device, memory, queues, &mut input);
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        let queue = usize::from(input.byte()) % drivers.len();
        let failed = step(
            device,
            memory,
            &mut drivers[queue],
            queue as u32,
            &mut input,
        );
        if failed {
            // As the transport does: out of service until the driver resets it.
            device.reset();
            drivers = activate(device, memory, queues, &mut input);
        }
    }
    device.reset();
}

fn activate(
    device: &mut dyn VirtioDevice,
    memory: &GuestMemory,
    queues: u64,
    input: &mut Input<'_>,
) -> Vec<Driver> {
    let drivers: Vec<Driver> = (0..queues)
        .map(|index| Driver::new(memory, index))
        .collect();
    for driver in &drivers {
        driver.set_available(0);
    }
    let all: Vec<&Driver> = drivers.iter().collect();
    let features = device.features() & input.long();
    // A refusal leaves the device idle, which every step below must survive too.
    let _ = device.activate(activation(&all, features));
    drivers
}

/// One step; true when the device asked for a reset.
fn step(
    device: &mut dyn VirtioDevice,
    memory: &GuestMemory,
    driver: &mut Driver,
    queue: u32,
    input: &mut Input<'_>,
) -> bool {
    match input.byte() % 8 {
        0 => {
            let (address, length) = (input.address(), usize::from(input.byte()) % WRITE_MAX);
            // Where there is no RAM nothing is written.
            let _ = memory.write_slice(&input.take(length), GuestAddress(address));
        }
        1 | 2 => {
            let count = usize::from(input.byte()) % 6 + 1;
            let parts: Vec<_> = (0..count)
                .map(|_| {
                    (
                        input.address(),
                        u32::from(input.word()),
                        input.byte() & 1 == 1,
                    )
                })
                .collect();
            driver.chain(&parts);
        }
        3 => {
            let table = driver.rings()[0];
            let index = u16::from(input.byte()) % 32;
            let (address, length) = (input.address(), input.long() as u32);
            driver.descriptor(table, index, address, length, input.word(), input.word());
            driver.offer(input.word());
        }
        4 => driver.set_available(input.word()),
        5 => {
            let offset = u64::from(input.byte());
            let length = usize::from(input.byte()) % 9;
            device.write_config(offset, &input.take(length));
            device.read_config(offset, &mut vec![0; length]);
        }
        _ => {
            let event = if input.byte() < 200 {
                queue
            } else {
                u32::from(input.byte())
            };
            return device.handle(event, u32::from(input.byte())).is_err();
        }
    }
    false
}
