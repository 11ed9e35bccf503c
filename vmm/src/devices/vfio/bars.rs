//! BARs: what kind each is, where in the guest it is to lie, what of it can be mapped.

use super::abi::BARS;
use super::hardware::Region;
use crate::memory::PAGE_BYTES;
use crate::pci::BarSpace;

const IS_IO: u32 = 1;
const TYPE_MASK: u32 = 6;
const TYPE_64: u32 = 4;
const FLAGS_MASK: u32 = 0xf;
/// Smallest memory BAR (PCI 3.0 §6.2.5.1).
const MIN_BYTES: u64 = 16;

/// A memory BAR.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bar {
    /// Its number; a 64-bit one takes the next number too.
    pub index: usize,
    /// Bytes, a power of two.
    pub size: u64,
    /// Type and prefetchable bits of the register.
    pub flags: u32,
}

impl Bar {
    /// Whether it may lie above 4 GiB.
    pub fn is_64_bit(&self) -> bool {
        self.flags & TYPE_MASK == TYPE_64
    }

    /// The window that it goes into.
    pub fn space(&self) -> BarSpace {
        if self.is_64_bit() {
            BarSpace::High
        } else {
            BarSpace::Low
        }
    }
}

/// The memory BARs of a device. Ports are left out: the guest has no port windows, and
/// devices that are made today work without them.
pub fn memory_bars(registers: [u32; BARS], regions: &[Region]) -> Vec<Bar> {
    let mut bars = Vec::new();
    let mut index = 0;
    while index < BARS {
        let register = registers[index];
        let bar = Bar {
            index,
            size: regions.get(index).map_or(0, |region| region.size),
            flags: register & FLAGS_MASK,
        };
        let is_64_bit = register & IS_IO == 0 && bar.is_64_bit();
        let fits = !is_64_bit || index + 1 < BARS;
        if register & IS_IO == 0 && bar.size >= MIN_BYTES && bar.size.is_power_of_two() && fits {
            bars.push(bar);
        }
        index += 1 + usize::from(is_64_bit);
    }
    bars
}

/// The whole pages (offset, length) of `mappable` that touch none of `trapped`
/// (offset, length): both lists are in order of their offsets.
pub fn mapped_areas(mappable: &[(u64, u64)], trapped: &[(u64, u64)]) -> Vec<(u64, u64)> {
    let mut areas = Vec::new();
    for (offset, length) in mappable {
        let end = offset.saturating_add(*length) / PAGE_BYTES * PAGE_BYTES;
        let Some(mut start) = offset.checked_next_multiple_of(PAGE_BYTES) else {
            continue;
        };
        for (hole, bytes) in trapped {
            let hole_start = hole / PAGE_BYTES * PAGE_BYTES;
            let hole_end = hole
                .saturating_add(*bytes)
                .checked_next_multiple_of(PAGE_BYTES)
                .unwrap_or(u64::MAX);
            if hole_start > start && hole_start < end {
                areas.push((start, hole_start - start));
            }
            if hole_start < end {
                start = start.max(hole_end);
            }
        }
        if start < end {
            areas.push((start, end - start));
        }
    }
    areas
}

#[cfg(test)]
mod tests {
    use super::*;

    fn regions(sizes: [u64; BARS]) -> Vec<Region> {
        sizes
            .map(|size| Region {
                size,
                ..Region::default()
            })
            .to_vec()
    }

    #[test]
    fn memory_bars_are_found_and_ports_left_out() {
        const GIB: u64 = 1 << 30;
        // 32-bit, ports, 64-bit prefetchable of 8 GiB, absent.
        let registers = [0, 1, 0xc, 0, 4, 0];
        let found = memory_bars(registers, &regions([0x800, 0x20, 8 * GIB, 0, 0, 0]));
        assert_eq!(
            found,
            vec![
                Bar {
                    index: 0,
                    size: 0x800,
                    flags: 0
                },
                Bar {
                    index: 2,
                    size: 8 * GIB,
                    flags: 0xc
                }
            ]
        );
        assert_eq!(found[0].space(), BarSpace::Low);
        assert_eq!(found[1].space(), BarSpace::High);
    }

    #[test]
    fn registers_that_make_no_sense_give_no_bar() {
        let odd = memory_bars([0; BARS], &regions([3, 8, 0x1800, 0, 0, 0]));
        assert_eq!(odd, vec![]);
        let last = memory_bars([0, 0, 0, 0, 0, 4], &regions([0, 0, 0, 0, 0, 0x1000]));
        assert_eq!(last, vec![]);
    }

    #[test]
    fn pages_of_the_msix_table_are_not_mapped() {
        let whole = [(0, 0x8000)];
        assert_eq!(mapped_areas(&whole, &[]), vec![(0, 0x8000)]);
        // Table in the middle of a page, pending bits in another.
        let holes = [(0x2010, 0x20), (0x5ff8, 0x10)];
        assert_eq!(
            mapped_areas(&whole, &holes),
            vec![(0, 0x2000), (0x3000, 0x2000), (0x7000, 0x1000)]
        );
        assert_eq!(mapped_areas(&whole, &[(0, 0x8000)]), vec![]);
        assert_eq!(mapped_areas(&[(0, 0x1000)], &[(0x800, 0x10)]), vec![]);
        assert_eq!(mapped_areas(&whole, &[(0x9000, 16)]), vec![(0, 0x8000)]);
        let sparse = [(0, 0x1000), (0x3000, 0x2000)];
        assert_eq!(
            mapped_areas(&sparse, &[(0x3000, 16)]),
            vec![(0, 0x1000), (0x4000, 0x1000)]
        );
        assert_eq!(
            mapped_areas(&[(0, u64::MAX)], &[(u64::MAX - 8, 16)]).len(),
            1
        );
    }

    #[test]
    fn parts_of_pages_are_trapped() {
        assert_eq!(mapped_areas(&[(0, 0x800)], &[]), vec![]);
        assert_eq!(mapped_areas(&[(0x10, 0x2ff0)], &[]), vec![(0x1000, 0x2000)]);
    }
}
