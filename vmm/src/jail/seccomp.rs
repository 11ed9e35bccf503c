//! The system calls that each kind of thread may make.

use std::collections::BTreeMap;

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch, apply_filter,
};

use crate::devices::block::BLKGETSIZE64;
use crate::devices::net::{TUNSETOFFLOAD, TUNSETVNETHDRSZ};
use crate::devices::vfio::{KVM_SET_USER_MEMORY_REGION, VFIO_DEVICE_RESET, VFIO_DEVICE_SET_IRQS};

/// A filter could not be built or applied.
#[derive(Debug, thiserror::Error)]
pub enum SeccompError {
    /// Rules that make no filter.
    #[error("Failed to build the seccomp filter")]
    Build(#[from] BackendError),
    /// The kernel refused it.
    #[error("Failed to apply the seccomp filter")]
    Apply(#[source] seccompiler::Error),
}

/// Which filter a thread gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Control socket, signals, end of the VM.
    Main,
    /// Runs a vCPU, and with it everything that a register write sets off.
    Vcpu,
    /// Serves virtio queues.
    Devices,
}

/// KVM requests that are made while the guest runs (linux/kvm.h).
const KVM_RUN: u64 = 0xae80;
const KVM_KVMCLOCK_CTRL: u64 = 0xaead;
const KVM_GET_REGS: u64 = 0x8090_ae81;
const KVM_GET_SREGS: u64 = 0x8138_ae83;
const KVM_GET_LAPIC: u64 = 0x8400_ae8e;
const KVM_GET_MP_STATE: u64 = 0x8004_ae98;
const KVM_SET_GSI_ROUTING: u64 = 0x4008_ae6a;
const KVM_IRQFD: u64 = 0x4020_ae76;
const KVM_IOEVENTFD: u64 = 0x4040_ae79;
const PROT_EXEC: u64 = 4;

/// Every thread: memory, locks, logs, signals, its end.
const COMMON: &[i64] = &[
    libc::SYS_brk,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_close,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_futex,
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_gettid,
    libc::SYS_gettimeofday,
    libc::SYS_madvise,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_nanosleep,
    libc::SYS_read,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_yield,
    libc::SYS_set_robust_list,
    libc::SYS_sigaltstack,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_fcntl,
    libc::SYS_epoll_ctl,
];

const MAIN: &[i64] = &[
    libc::SYS_accept4,
    libc::SYS_dup,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_wait,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_poll,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_rt_sigaction,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
    libc::SYS_statx,
];

/// A reset of virtio-fs takes the queues back from hull-fsd over their socket; pending bits
/// of MSI-X are asked of eventfds.
const VCPU: &[i64] = &[libc::SYS_poll, libc::SYS_recvmsg, libc::SYS_sendmsg];

/// Registers of devices that are passed through.
const VCPU_PASSTHROUGH: &[i64] = &[libc::SYS_pread64, libc::SYS_pwrite64];

const DEVICES: &[i64] = &[
    libc::SYS_accept4,
    libc::SYS_connect,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_wait,
    libc::SYS_fallocate,
    libc::SYS_fdatasync,
    libc::SYS_poll,
    libc::SYS_preadv,
    libc::SYS_pwritev,
    libc::SYS_readv,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_shutdown,
    libc::SYS_timerfd_settime,
];

fn argument(
    index: u8,
    length: SeccompCmpArgLen,
    operator: SeccompCmpOp,
    value: u64,
) -> Result<SeccompRule, BackendError> {
    SeccompRule::new(vec![SeccompCondition::new(index, length, operator, value)?])
}

/// Builds the filter of a role; `passthrough` when devices of the host are passed through.
/// Calls that are not listed kill the process.
pub fn filter(role: Role, passthrough: bool) -> Result<BpfProgram, SeccompError> {
    use SeccompCmpArgLen::{Dword, Qword};
    use SeccompCmpOp::{Eq, MaskedEq};
    let own: &[i64] = match role {
        Role::Main => MAIN,
        Role::Vcpu => VCPU,
        Role::Devices => DEVICES,
    };
    let registers: &[i64] = match role {
        Role::Vcpu if passthrough => VCPU_PASSTHROUGH,
        // To show them on the control socket.
        Role::Main if passthrough => &[libc::SYS_pread64],
        _ => &[],
    };
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = COMMON
        .iter()
        .chain(own)
        .chain(registers)
        .map(|call| (*call, Vec::new()))
        .collect();
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        rules.insert(call, vec![argument(2, Qword, MaskedEq(PROT_EXEC), 0)?]);
    }
    let mut requests = Vec::new();
    match role {
        Role::Main => {
            // Backings and taps that come over the control socket.
            requests.extend([BLKGETSIZE64, TUNSETVNETHDRSZ, TUNSETOFFLOAD]);
            if passthrough {
                // At the end of the VM.
                requests.extend([KVM_IRQFD, VFIO_DEVICE_SET_IRQS, VFIO_DEVICE_RESET]);
            }
            let pid = u64::from(std::process::id());
            rules.insert(libc::SYS_tgkill, vec![argument(0, Dword, Eq, pid)?]);
        }
        Role::Vcpu => {
            requests.extend([
                KVM_RUN,
                KVM_KVMCLOCK_CTRL,
                // A paused vCPU tells where it stands.
                KVM_GET_REGS,
                KVM_GET_SREGS,
                KVM_GET_LAPIC,
                KVM_GET_MP_STATE,
                KVM_SET_GSI_ROUTING,
                KVM_IRQFD,
                KVM_IOEVENTFD,
                TUNSETOFFLOAD,
            ]);
            if passthrough {
                requests.extend([KVM_SET_USER_MEMORY_REGION, VFIO_DEVICE_SET_IRQS]);
            }
        }
        Role::Devices => {
            let unix = libc::AF_UNIX as u64;
            rules.insert(libc::SYS_socket, vec![argument(0, Dword, Eq, unix)?]);
        }
    }
    // Rust asks a socket whether it is one (FIONBIO sets it non-blocking).
    requests.push(libc::FIONBIO);
    let ioctls = requests
        .into_iter()
        .map(|request| argument(1, Dword, Eq, request))
        .collect::<Result<Vec<_>, _>>()?;
    rules.insert(libc::SYS_ioctl, ioctls);
    let filter = SeccompFilter::new(
        rules,
        SeccompAction::KillProcess,
        SeccompAction::Allow,
        TargetArch::x86_64,
    )?;
    Ok(filter.try_into()?)
}

/// Puts the calling thread under its filter.
pub fn apply(program: &BpfProgram) -> Result<(), SeccompError> {
    apply_filter(program).map_err(SeccompError::Apply)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs `action` under the filter in a child; gives its exit status or the signal.
    fn in_child(role: Role, action: fn()) -> Result<i32, i32> {
        // SAFETY: the child makes only calls that are safe after fork in a test, then exits.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let program = filter(role, false).unwrap();
            // SAFETY: plain system call.
            unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
            apply(&program).unwrap();
            action();
            // SAFETY: ends the child without running the parent's exit handlers.
            unsafe { libc::_exit(7) };
        }
        let mut status = 0;
        // SAFETY: waits for the own child.
        assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
        if libc::WIFSIGNALED(status) {
            Err(libc::WTERMSIG(status))
        } else {
            Ok(libc::WEXITSTATUS(status))
        }
    }

    #[test]
    fn listed_calls_pass() {
        for role in [Role::Main, Role::Vcpu, Role::Devices] {
            // SAFETY: plain system call.
            let call = || unsafe { _ = libc::syscall(libc::SYS_gettid) };
            assert_eq!(in_child(role, call), Ok(7));
        }
    }

    #[test]
    fn opening_a_file_kills_the_process() {
        for role in [Role::Main, Role::Vcpu, Role::Devices] {
            // SAFETY: plain system call.
            let open = || unsafe { _ = libc::open(c"/etc/passwd".as_ptr(), 0) };
            assert_eq!(in_child(role, open), Err(libc::SIGSYS));
        }
    }

    #[test]
    fn no_thread_can_raise_an_interrupt_but_by_an_irqfd() {
        // KVM_IRQ_LINE, KVM_IRQ_LINE_STATUS, KVM_SIGNAL_MSI, KVM_INTERRUPT (linux/kvm.h).
        const OTHERS: [libc::Ioctl; 4] = [0x4008_ae61, 0xc008_ae67, 0x4020_aea5, 0x4004_ae86];
        for role in [Role::Main, Role::Vcpu, Role::Devices] {
            let others: [fn(); 4] = [
                || request(OTHERS[0]),
                || request(OTHERS[1]),
                || request(OTHERS[2]),
                || request(OTHERS[3]),
            ];
            for other in others {
                assert_eq!(in_child(role, other), Err(libc::SIGSYS));
            }
        }
        assert_eq!(in_child(Role::Vcpu, || request(KVM_IRQFD as _)), Ok(7));
    }

    /// A request on no file: only whether it passes the filter counts.
    fn request(number: libc::Ioctl) {
        // SAFETY: there is no such descriptor, so nothing is read or written.
        unsafe { _ = libc::ioctl(-1, number, std::ptr::null_mut::<u8>()) };
    }

    #[test]
    fn executable_memory_and_foreign_sockets_kill_the_process() {
        let map = || {
            let prot = libc::PROT_READ | libc::PROT_EXEC;
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            // SAFETY: an anonymous mapping that nothing uses.
            unsafe { _ = libc::mmap(std::ptr::null_mut(), 4096, prot, flags, -1, 0) };
        };
        assert_eq!(in_child(Role::Vcpu, map), Err(libc::SIGSYS));
        // SAFETY: plain system call.
        let socket = || unsafe { _ = libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0) };
        assert_eq!(in_child(Role::Devices, socket), Err(libc::SIGSYS));
        // SAFETY: signal 0 to init does nothing.
        let kill = || unsafe { _ = libc::kill(1, 0) };
        assert_eq!(in_child(Role::Main, kill), Err(libc::SIGSYS));
    }
}
