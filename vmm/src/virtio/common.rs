//! The common configuration structure (virtio 1.2 §4.1.4.3).

use std::sync::Arc;

use virtio_queue::{Queue, QueueT};
use vm_memory::GuestAddress;

use super::interrupt::VirtioInterrupt;

const STATUS_DRIVER_OK: u8 = 4;
const STATUS_FEATURES_OK: u8 = 8;
const STATUS_NEEDS_RESET: u8 = 64;

/// What a write asks the transport to do.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub enum Action {
    None,
    Activate,
    Reset,
}

#[derive(Debug, Clone, Copy)]
struct QueueSetup {
    max_size: u16,
    size: u16,
    enabled: bool,
    descriptors: u64,
    driver: u64,
    device: u64,
}

impl QueueSetup {
    fn new(max_size: u16) -> Self {
        Self {
            max_size,
            size: max_size,
            enabled: false,
            descriptors: 0,
            driver: 0,
            device: 0,
        }
    }
}

/// Registers between reset and DRIVER_OK.
pub struct CommonConfig {
    device_features: u64,
    driver_features: u64,
    device_feature_select: u32,
    driver_feature_select: u32,
    status: u8,
    queue_select: u16,
    queues: Vec<QueueSetup>,
    interrupt: Arc<VirtioInterrupt>,
}

impl CommonConfig {
    pub fn new(device_features: u64, queue_sizes: &[u16], interrupt: Arc<VirtioInterrupt>) -> Self {
        Self {
            device_features,
            driver_features: 0,
            device_feature_select: 0,
            driver_feature_select: 0,
            status: 0,
            queue_select: 0,
            queues: queue_sizes
                .iter()
                .map(|size| QueueSetup::new(*size))
                .collect(),
            interrupt,
        }
    }

    pub fn driver_features(&self) -> u64 {
        self.driver_features
    }

    /// Sizes and places of the queues that the driver switched on, for people.
    pub fn describe_queues(&self) -> String {
        let enabled = |(index, queue): (usize, &QueueSetup)| {
            queue.enabled.then(|| {
                format!(
                    "{index}: {} at {:#x} {:#x} {:#x}",
                    queue.size, queue.descriptors, queue.driver, queue.device
                )
            })
        };
        let queues: Vec<_> = self.queues.iter().enumerate().filter_map(enabled).collect();
        format!("[{}]", queues.join(", "))
    }

    /// The queues that the driver switched on. A setup that virtio-queue refuses gives
    /// `Err` with the number of the queue.
    pub fn build_queues(&self, event_idx: bool) -> Result<Vec<Option<Queue>>, usize> {
        let build = |(index, setup): (usize, &QueueSetup)| {
            if !setup.enabled {
                return Ok(None);
            }
            let mut queue = Queue::new(setup.max_size).map_err(|_| index)?;
            queue.try_set_size(setup.size).map_err(|_| index)?;
            queue
                .try_set_desc_table_address(GuestAddress(setup.descriptors))
                .map_err(|_| index)?;
            queue
                .try_set_avail_ring_address(GuestAddress(setup.driver))
                .map_err(|_| index)?;
            queue
                .try_set_used_ring_address(GuestAddress(setup.device))
                .map_err(|_| index)?;
            queue.set_event_idx(event_idx);
            queue.set_ready(true);
            Ok(Some(queue))
        };
        self.queues.iter().enumerate().map(build).collect()
    }

    pub fn reset(&mut self) {
        self.driver_features = 0;
        self.device_feature_select = 0;
        self.driver_feature_select = 0;
        self.status = 0;
        self.queue_select = 0;
        for queue in &mut self.queues {
            *queue = QueueSetup::new(queue.max_size);
        }
        self.interrupt.reset();
    }

    fn queue(&self) -> Option<&QueueSetup> {
        self.queues.get(usize::from(self.queue_select))
    }

    /// A register by its offset; a read of another width than the register's gives its low
    /// bytes.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        let select = usize::from(self.queue_select);
        let half = |value: u64, select: u32| match select {
            0 => u64::from(value as u32),
            1 => value >> 32,
            _ => 0,
        };
        let queue = self.queue();
        let value: u64 = match offset {
            0 => u64::from(self.device_feature_select),
            4 => half(self.device_features, self.device_feature_select),
            8 => u64::from(self.driver_feature_select),
            12 => half(self.driver_features, self.driver_feature_select),
            16 => u64::from(self.interrupt.config_vector()),
            18 => self.queues.len() as u64,
            20 => u64::from(self.status()),
            21 => u64::from(self.interrupt.generation()),
            22 => u64::from(self.queue_select),
            24 => queue.map_or(0, |queue| u64::from(queue.size)),
            26 => u64::from(self.interrupt.queue_vector(select)),
            28 => queue.map_or(0, |queue| u64::from(queue.enabled)),
            // queue_notify_off: doorbell n belongs to queue n.
            30 => queue.map_or(0, |_| select as u64),
            32 => queue.map_or(0, |queue| queue.descriptors),
            36 => queue.map_or(0, |queue| queue.descriptors >> 32),
            40 => queue.map_or(0, |queue| queue.driver),
            44 => queue.map_or(0, |queue| queue.driver >> 32),
            48 => queue.map_or(0, |queue| queue.device),
            52 => queue.map_or(0, |queue| queue.device >> 32),
            _ => 0,
        };
        let bytes = value.to_le_bytes();
        for (index, byte) in data.iter_mut().enumerate() {
            *byte = bytes.get(index).copied().unwrap_or(0);
        }
    }

    fn status(&self) -> u8 {
        let needs_reset = if self.interrupt.needs_reset() {
            STATUS_NEEDS_RESET
        } else {
            0
        };
        self.status | needs_reset
    }

    /// Writes a register; wrong widths and read-only registers are ignored.
    pub fn write(&mut self, offset: u64, data: &[u8]) -> Action {
        let mut bytes = [0; 8];
        let Some(target) = bytes.get_mut(..data.len()) else {
            return Action::None;
        };
        target.copy_from_slice(data);
        let value = u64::from_le_bytes(bytes);
        match (offset, data.len()) {
            (0, 4) => self.device_feature_select = value as u32,
            (8, 4) => self.driver_feature_select = value as u32,
            (12, 4) => self.write_driver_features(value),
            (16, 2) => self.interrupt.set_config_vector(value as u16),
            (20, 1) => return self.write_status(value as u8),
            (22, 2) => self.queue_select = value as u16,
            (26, 2) => self
                .interrupt
                .set_queue_vector(usize::from(self.queue_select), value as u16),
            (24 | 28, 2) | (32..=52, 4 | 8) => self.write_queue(offset, value, data.len()),
            _ => {}
        }
        Action::None
    }

    fn write_driver_features(&mut self, value: u64) {
        // Features are settled once FEATURES_OK is set.
        if self.status & STATUS_FEATURES_OK != 0 {
            return;
        }
        match self.driver_feature_select {
            0 => self.driver_features = self.driver_features & !0xffff_ffff | value,
            1 => self.driver_features = self.driver_features & 0xffff_ffff | value << 32,
            _ => {}
        }
    }

    fn write_queue(&mut self, offset: u64, value: u64, width: usize) {
        if self.status & STATUS_DRIVER_OK != 0 {
            return;
        }
        let Some(queue) = self.queues.get_mut(usize::from(self.queue_select)) else {
            return;
        };
        let set = |field: &mut u64, at: u64| match (offset - at, width) {
            (0, 8) => *field = value,
            (0, _) => *field = *field & !0xffff_ffff | value,
            (4, 4) => *field = *field & 0xffff_ffff | value << 32,
            _ => {}
        };
        match offset {
            24 => {
                let size = value as u16;
                if size.is_power_of_two() && size <= queue.max_size {
                    queue.size = size;
                }
            }
            28 => queue.enabled |= value == 1,
            32 | 36 => set(&mut queue.descriptors, 32),
            40 | 44 => set(&mut queue.driver, 40),
            48 | 52 => set(&mut queue.device, 48),
            _ => {}
        }
    }

    fn write_status(&mut self, value: u8) -> Action {
        if value == 0 {
            return Action::Reset;
        }
        let added = value & !self.status & !STATUS_NEEDS_RESET;
        let mut status = self.status | added;
        if added & STATUS_FEATURES_OK != 0 {
            let unknown = self.driver_features & !self.device_features != 0;
            if unknown || self.driver_features & super::F_VERSION_1 == 0 {
                // The driver reads it back and sees that its choice was refused.
                status &= !STATUS_FEATURES_OK;
            }
        }
        if added & STATUS_DRIVER_OK != 0 && status & STATUS_FEATURES_OK == 0 {
            status &= !STATUS_DRIVER_OK;
        }
        let activate = status & !self.status & STATUS_DRIVER_OK != 0;
        self.status = status;
        if activate {
            Action::Activate
        } else {
            Action::None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pci::MsixTable;
    use crate::virtio::F_VERSION_1;
    use crate::virtio::test_support::FakeController;

    fn config() -> CommonConfig {
        let msix = MsixTable::new(2, Arc::new(FakeController::default())).unwrap();
        let interrupt = Arc::new(VirtioInterrupt::new(msix, 1));
        CommonConfig::new(F_VERSION_1 | 1, &[256], interrupt)
    }

    fn read<const N: usize>(config: &CommonConfig, offset: u64) -> u64 {
        let mut data = [0; N];
        config.read(offset, &mut data);
        let mut bytes = [0; 8];
        bytes[..N].copy_from_slice(&data);
        u64::from_le_bytes(bytes)
    }

    fn accept(config: &mut CommonConfig, low: u32, high: u32) {
        config.write(8, &0u32.to_le_bytes());
        config.write(12, &low.to_le_bytes());
        config.write(8, &1u32.to_le_bytes());
        config.write(12, &high.to_le_bytes());
    }

    #[test]
    fn features_that_were_not_offered_are_refused() {
        let mut config = config();
        accept(&mut config, 3, 1);
        config.write(20, &[11]);
        assert_eq!(read::<1>(&config, 20), 3);
        accept(&mut config, 1, 1);
        config.write(20, &[11]);
        assert_eq!(read::<1>(&config, 20), 11);
        assert_eq!(config.write(20, &[15]), Action::Activate);
        assert_eq!(config.write(20, &[15]), Action::None);
        assert_eq!(config.write(20, &[0]), Action::Reset);
    }

    #[test]
    fn a_legacy_driver_is_refused() {
        let mut config = config();
        accept(&mut config, 1, 0);
        config.write(20, &[8]);
        assert_eq!(config.write(20, &[12]), Action::None);
        assert_eq!(read::<1>(&config, 20), 0);
    }

    #[test]
    fn bad_queue_sizes_and_queues_are_ignored() {
        let mut config = config();
        for size in [0u16, 3, 257, 512, 0xffff] {
            config.write(24, &size.to_le_bytes());
            assert_eq!(read::<2>(&config, 24), 256);
        }
        config.write(24, &64u16.to_le_bytes());
        assert_eq!(read::<2>(&config, 24), 64);
        config.write(22, &9u16.to_le_bytes());
        assert_eq!(read::<2>(&config, 24), 0);
        config.write(28, &1u16.to_le_bytes());
        config.write(26, &0u16.to_le_bytes());
        assert_eq!(read::<2>(&config, 26), 0xffff);
        assert!(
            config
                .build_queues(false)
                .unwrap()
                .iter()
                .all(Option::is_none)
        );
    }

    #[test]
    fn unaligned_rings_are_refused_when_the_queues_are_built() {
        let mut config = config();
        config.write(32, &0x1001u64.to_le_bytes());
        config.write(28, &1u16.to_le_bytes());
        assert_eq!(config.build_queues(false).err(), Some(0));
    }

    #[test]
    fn vectors_that_do_not_exist_read_back_as_none() {
        let mut config = config();
        config.write(16, &1u16.to_le_bytes());
        assert_eq!(read::<2>(&config, 16), 1);
        config.write(16, &2u16.to_le_bytes());
        assert_eq!(read::<2>(&config, 16), 0xffff);
    }

    #[test]
    fn every_offset_and_width_is_survived() {
        let mut config = config();
        for offset in (0..80).chain([u64::MAX - 1]) {
            for width in 0..=16 {
                let mut data = vec![0xff; width];
                config.read(offset, &mut data);
                config.write(offset, &vec![0xff; width]);
            }
        }
    }
}
