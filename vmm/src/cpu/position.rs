//! Where a vCPU stands, to look into a guest that does not do what it should.

use std::fmt;

use kvm_bindings::{KVM_MP_STATE_HALTED, KVM_MP_STATE_RUNNABLE, kvm_lapic_state};
use kvm_ioctls::VcpuFd;

const RFLAGS_INTERRUPTS: u64 = 1 << 9;
/// Requested privilege level of the code segment: 3 is a program.
const RING_MASK: u16 = 3;
const RING_PROGRAM: u16 = 3;
/// Registers of the local APIC (Intel SDM volume 3, table 11-1).
const APIC_IN_SERVICE: usize = 0x100;
const APIC_REQUESTED: usize = 0x200;
const APIC_TIMER: usize = 0x320;
const APIC_TIMER_START: usize = 0x380;
const APIC_TIMER_NOW: usize = 0x390;
/// Bits per register of the APIC's vector bitmaps, and from one such register to the next.
const APIC_BITS: usize = 32;
const APIC_STRIDE: usize = 0x10;
const VECTORS: usize = 256;

/// See the module. Shown as one sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    index: u8,
    rip: u64,
    rsp: u64,
    rflags: u64,
    ring: u16,
    cr2: u64,
    cr3: u64,
    /// KVM_GET_MP_STATE.
    state: u32,
    /// Vectors of interrupts that wait.
    requested: Vec<usize>,
    /// Vectors of interrupts that are being handled.
    in_service: Vec<usize>,
    /// Local vector table entry, initial count and current count of the timer.
    timer: [u32; 3],
}

impl Position {
    /// Asks KVM about vCPU `index`, which must not run.
    pub fn read(fd: &VcpuFd, index: u8) -> Result<Self, kvm_ioctls::Error> {
        let (registers, special) = (fd.get_regs()?, fd.get_sregs()?);
        let apic = fd.get_lapic()?;
        Ok(Self {
            index,
            rip: registers.rip,
            rsp: registers.rsp,
            rflags: registers.rflags,
            ring: special.cs.selector & RING_MASK,
            cr2: special.cr2,
            cr3: special.cr3,
            state: fd.get_mp_state()?.mp_state,
            requested: vectors(&apic, APIC_REQUESTED),
            in_service: vectors(&apic, APIC_IN_SERVICE),
            timer: [APIC_TIMER, APIC_TIMER_START, APIC_TIMER_NOW].map(|at| register(&apic, at)),
        })
    }
}

fn register(apic: &kvm_lapic_state, offset: usize) -> u32 {
    let mut bytes = [0; 4];
    for (byte, given) in bytes.iter_mut().zip(apic.regs.iter().skip(offset)) {
        *byte = *given as u8;
    }
    u32::from_le_bytes(bytes)
}

/// The vectors whose bits are set in one of the APIC's bitmaps.
fn vectors(apic: &kvm_lapic_state, bitmap: usize) -> Vec<usize> {
    let is_set = |vector: &usize| {
        let bits = register(apic, bitmap + vector / APIC_BITS * APIC_STRIDE);
        bits >> (vector % APIC_BITS) & 1 == 1
    };
    (0..VECTORS).filter(is_set).collect()
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            KVM_MP_STATE_RUNNABLE => "running",
            KVM_MP_STATE_HALTED => "halted",
            _ => "not started",
        };
        let whose = match self.ring {
            RING_PROGRAM => "a program",
            _ => "the kernel",
        };
        let interrupts = match self.rflags & RFLAGS_INTERRUPTS {
            0 => "off",
            _ => "on",
        };
        let [entry, start, now] = self.timer;
        write!(
            f,
            "vCPU {} {state} in {whose} at {:#x}, interrupts {interrupts}, waiting {:x?}, in \
             service {:x?}, timer {entry:#x} {start:#x} {now:#x}, rsp {:#x}, rflags {:#x}, cr2 \
             {:#x}, cr3 {:#x}",
            self.index,
            self.rip,
            self.requested,
            self.in_service,
            self.rsp,
            self.rflags,
            self.cr2,
            self.cr3
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_are_those_of_the_bits_that_are_set() {
        let mut apic = kvm_lapic_state::default();
        // 0x30 is bit 16 of the second register, 0xec bit 12 of the last.
        apic.regs[APIC_REQUESTED + APIC_STRIDE + 2] = 1;
        apic.regs[APIC_REQUESTED + 7 * APIC_STRIDE + 1] = 1 << 4;
        assert_eq!(vectors(&apic, APIC_REQUESTED), [0x30, 0xec]);
        assert!(vectors(&apic, APIC_IN_SERVICE).is_empty());
    }

    #[test]
    fn it_is_told_in_a_sentence() {
        let position = Position {
            index: 1,
            rip: 0xffff_ffff_8100_0000,
            rsp: 0x10,
            rflags: 0x246,
            ring: 0,
            cr2: 0,
            cr3: 0x1000,
            state: KVM_MP_STATE_HALTED,
            requested: vec![0xec],
            in_service: Vec::new(),
            timer: [0xec, 1000, 10],
        };
        assert_eq!(
            position.to_string(),
            "vCPU 1 halted in the kernel at 0xffffffff81000000, interrupts on, waiting [ec], in \
             service [], timer 0xec 0x3e8 0xa, rsp 0x10, rflags 0x246, cr2 0x0, cr3 0x1000"
        );
    }
}
