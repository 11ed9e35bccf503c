//! CPUID of the guest: what KVM supports, with the topology of this machine: one package,
//! one core per vCPU, APIC id = vCPU number.

use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES, kvm_cpuid_entry2};
use kvm_ioctls::{Cap, Kvm, VcpuFd};

const LEAF_1_ECX_HYPERVISOR: u32 = 1 << 31;
const LEAF_1_ECX_TSC_DEADLINE: u32 = 1 << 24;
const LEAF_1_EDX_HTT: u32 = 1 << 28;
const TOPOLOGY_SMT: u32 = 1;
const TOPOLOGY_CORE: u32 = 2;
/// kvm_cpuid_entry2.flags: the index is significant.
const SIGNIFICANT_INDEX: u32 = 1;

/// CPUID could not be set.
#[derive(Debug, thiserror::Error)]
pub enum CpuidError {
    /// KVM does not tell what it supports.
    #[error("Failed to read the CPUID leaves that KVM supports")]
    Supported(#[source] kvm_ioctls::Error),
    /// KVM refused the leaves.
    #[error("Failed to set the CPUID leaves of vCPU {vcpu}")]
    Set {
        /// Number of the vCPU.
        vcpu: u8,
        /// Cause.
        #[source]
        source: kvm_ioctls::Error,
    },
}

/// Number of bits of a guest-physical address.
pub fn physical_address_bits(kvm: &Kvm) -> Result<u32, CpuidError> {
    /// What processors without the leaf have (AMD64 manual, volume 3, Fn8000_0008).
    const WITHOUT_LEAF: u32 = 36;
    let cpuid = kvm
        .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
        .map_err(CpuidError::Supported)?;
    let leaf = cpuid
        .as_slice()
        .iter()
        .find(|entry| entry.function == 0x8000_0008);
    Ok(leaf.map_or(WITHOUT_LEAF, |entry| entry.eax & 0xff))
}

/// What every vCPU starts from.
pub struct Template {
    cpuid: CpuId,
    tsc_deadline: bool,
}

impl Template {
    pub fn new(kvm: &Kvm) -> Result<Self, CpuidError> {
        let cpuid = kvm
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .map_err(CpuidError::Supported)?;
        Ok(Self {
            cpuid,
            tsc_deadline: kvm.check_extension(Cap::TscDeadlineTimer),
        })
    }

    /// Sets the leaves of vCPU `index` of `count`.
    pub fn apply(&self, vcpu: &VcpuFd, index: u8, count: u8) -> Result<(), CpuidError> {
        let mut cpuid = self.cpuid.clone();
        for entry in cpuid.as_mut_slice() {
            adjust(entry, index, count, self.tsc_deadline);
        }
        vcpu.set_cpuid2(&cpuid).map_err(|source| CpuidError::Set {
            vcpu: index,
            source,
        })
    }
}

/// Bits of an APIC id that number the cores.
fn core_bits(count: u8) -> u32 {
    u32::from(count).next_power_of_two().trailing_zeros()
}

fn adjust(entry: &mut kvm_cpuid_entry2, index: u8, count: u8, tsc_deadline: bool) {
    let (id, cores) = (u32::from(index), u32::from(count));
    match entry.function {
        0x1 => {
            entry.ebx = entry.ebx & 0xffff | cores.min(255) << 16 | id << 24;
            entry.ecx |= LEAF_1_ECX_HYPERVISOR;
            if tsc_deadline {
                entry.ecx |= LEAF_1_ECX_TSC_DEADLINE;
            }
            entry.edx = entry.edx & !LEAF_1_EDX_HTT | if count > 1 { LEAF_1_EDX_HTT } else { 0 };
        }
        // Cores of the package, and a cache per core except at level 3.
        0x4 if entry.eax & 0x1f != 0 => {
            let shared = if entry.eax >> 5 & 7 == 3 {
                cores - 1
            } else {
                0
            };
            entry.eax = entry.eax & 0x3fff | shared << 14 | (cores - 1).min(63) << 26;
        }
        0xb | 0x1f => {
            entry.edx = id;
            entry.flags |= SIGNIFICANT_INDEX;
            (entry.eax, entry.ebx, entry.ecx) = match entry.index {
                0 => (0, 1, TOPOLOGY_SMT << 8),
                1 => (core_bits(count), cores, TOPOLOGY_CORE << 8 | 1),
                other => (0, 0, other & 0xff),
            };
        }
        0x8000_0008 => {
            entry.ecx = entry.ecx & !0xf0ff | core_bits(count) << 12 | (cores - 1);
        }
        0x8000_001e => {
            entry.eax = id;
            entry.ebx = id & 0xff;
            entry.ecx = 0;
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(function: u32, index: u32) -> kvm_cpuid_entry2 {
        kvm_cpuid_entry2 {
            function,
            index,
            eax: 0x0121,
            ..Default::default()
        }
    }

    #[test]
    fn apic_ids_and_core_counts_follow_the_vcpus() {
        let mut one = leaf(1, 0);
        adjust(&mut one, 3, 6, true);
        assert_eq!(one.ebx >> 24, 3);
        assert_eq!(one.ebx >> 16 & 0xff, 6);
        assert_eq!(one.ecx & LEAF_1_ECX_TSC_DEADLINE, LEAF_1_ECX_TSC_DEADLINE);
        assert_eq!(one.edx & LEAF_1_EDX_HTT, LEAF_1_EDX_HTT);
        let mut core = leaf(0xb, 1);
        adjust(&mut core, 3, 6, true);
        assert_eq!((core.eax, core.ebx, core.ecx, core.edx), (3, 6, 0x201, 3));
        let mut amd = leaf(0x8000_0008, 0);
        adjust(&mut amd, 3, 6, true);
        assert_eq!(amd.ecx, 3 << 12 | 5);
        let mut smt = leaf(0xb, 0);
        adjust(&mut smt, 0, 1, true);
        assert_eq!((smt.eax, smt.ebx, smt.ecx), (0, 1, 0x100));
    }

    #[test]
    fn no_count_of_vcpus_overflows() {
        for count in 1..=254 {
            for function in [1, 4, 0xb, 0x1f, 0x8000_0008, 0x8000_001e] {
                for index in 0..4 {
                    adjust(&mut leaf(function, index), count - 1, count, true);
                }
            }
        }
    }
}
