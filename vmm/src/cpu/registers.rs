//! Registers at the PVH entry point: 32-bit protected mode, flat segments, no paging.

use kvm_bindings::{Msrs, kvm_fpu, kvm_msr_entry, kvm_regs, kvm_segment};
use kvm_ioctls::VcpuFd;

use crate::boot::Entry;

const CR0_PROTECTED_MODE: u64 = 1;
const CR0_EXTENSION_TYPE: u64 = 1 << 4;
const RFLAGS_RESERVED: u64 = 2;
const CODE_SELECTOR: u16 = 8;
const DATA_SELECTOR: u16 = 16;
const TASK_SELECTOR: u16 = 24;
const SEGMENT_CODE: u8 = 0xb;
const SEGMENT_DATA: u8 = 3;
const SEGMENT_TASK: u8 = 0xb;
const TASK_LIMIT: u32 = 0x67;
const MSR_MISC_ENABLE: u32 = 0x1a0;
const MISC_ENABLE_FAST_STRING: u64 = 1;
const MSR_MTRR_DEFAULT_TYPE: u32 = 0x2ff;
/// MTRRs on, write-back by default: the guest is all RAM but for emulated devices.
const MTRR_WRITE_BACK: u64 = 1 << 11 | 6;

/// KVM refused the initial state of a vCPU.
#[derive(Debug, thiserror::Error)]
#[error("Failed to set the {what} of vCPU {vcpu}")]
pub struct RegisterError {
    vcpu: u8,
    what: &'static str,
    #[source]
    source: kvm_ioctls::Error,
}

fn flat(selector: u16, kind: u8) -> kvm_segment {
    kvm_segment {
        base: 0,
        limit: 0xffff_ffff,
        selector,
        type_: kind,
        present: 1,
        db: 1,
        s: 1,
        g: 1,
        ..Default::default()
    }
}

/// Sets MSRs, and for the boot processor (vCPU 0) the entry state. The others wait for
/// their start-up message in KVM.
pub fn set_up(vcpu: &VcpuFd, index: u8, entry: Entry) -> Result<(), RegisterError> {
    let failed = |what| {
        move |source| RegisterError {
            vcpu: index,
            what,
            source,
        }
    };
    let msr = |index, data| kvm_msr_entry {
        index,
        data,
        ..Default::default()
    };
    let wanted = [
        msr(MSR_MISC_ENABLE, MISC_ENABLE_FAST_STRING),
        msr(MSR_MTRR_DEFAULT_TYPE, MTRR_WRITE_BACK),
    ];
    let bad_table = |_| kvm_ioctls::Error::new(libc::EINVAL);
    let msrs = Msrs::from_entries(&wanted)
        .map_err(bad_table)
        .map_err(failed("MSRs"))?;
    vcpu.set_msrs(&msrs).map_err(failed("MSRs"))?;
    let fpu = kvm_fpu {
        fcw: 0x37f,
        mxcsr: 0x1f80,
        ..Default::default()
    };
    vcpu.set_fpu(&fpu).map_err(failed("FPU"))?;
    if index != 0 {
        return Ok(());
    }
    let mut special = vcpu.get_sregs().map_err(failed("special registers"))?;
    special.cs = flat(CODE_SELECTOR, SEGMENT_CODE);
    let data = flat(DATA_SELECTOR, SEGMENT_DATA);
    (special.ds, special.es, special.fs, special.gs, special.ss) = (data, data, data, data, data);
    special.tr = kvm_segment {
        limit: TASK_LIMIT,
        selector: TASK_SELECTOR,
        type_: SEGMENT_TASK,
        present: 1,
        ..Default::default()
    };
    special.cr0 = CR0_PROTECTED_MODE | CR0_EXTENSION_TYPE;
    special.cr3 = 0;
    special.cr4 = 0;
    special.efer = 0;
    vcpu.set_sregs(&special)
        .map_err(failed("special registers"))?;
    let registers = kvm_regs {
        rip: entry.instruction_pointer,
        rbx: entry.start_info,
        rflags: RFLAGS_RESERVED,
        ..Default::default()
    };
    vcpu.set_regs(&registers).map_err(failed("registers"))
}
