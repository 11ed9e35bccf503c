//! Seccomp profiles (OCI runtime-spec, config-linux.md#seccomp): which one a container
//! has, and the one that CRI calls the runtime's default.
//!
//! The default allows what ordinary programs need and refuses with EPERM what manages the
//! kernel: modules, clocks, keys, tracing of the kernel, mounts. Calls that a capability
//! guards are allowed to a container that has it, as container runtimes do since Docker
//! introduced this list.

use crate::error::Error;
use hull_cri_api::v1::{LinuxContainerSecurityContext, security_profile::ProfileType};
use serde_json::{Value, json};
use std::path::Path;

/// Largest profile that is read, bytes.
const MAX_PROFILE_BYTES: u64 = 1 << 20;
/// errno of a refused call, and of one that programs are to find missing.
const EPERM: u32 = 1;
const ENOSYS: u32 = 38;
/// Flags of clone(2) that make namespaces.
const NAMESPACE_FLAGS: u64 = 0x7e02_0000;
/// socket(2) family of vsock: the way from the guest to its host.
const AF_VSOCK: u64 = 40;
/// personality(2) values that change nothing of security.
const PERSONALITIES: [u64; 5] = [0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// Calls that every container may make.
const ALLOWED: &str = "accept accept4 access adjtimex alarm bind brk cachestat capget capset \
    chdir chmod chown clock_adjtime clock_getres clock_gettime clock_nanosleep close \
    close_range connect copy_file_range creat dup dup2 dup3 epoll_create epoll_create1 \
    epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd \
    eventfd2 execve execveat exit exit_group faccessat faccessat2 fadvise64 fallocate \
    fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown fchownat fcntl fdatasync fgetxattr \
    flistxattr flock fork fremovexattr fsetxattr fstat fstatfs fsync ftruncate futex \
    futex_requeue futex_wait futex_waitv futex_wake futimesat getcpu getcwd getdents \
    getdents64 getegid geteuid getgid getgroups getitimer getpeername getpgid getpgrp getpid \
    getppid getpriority getrandom getresgid getresuid getrlimit get_robust_list getrusage \
    getsid getsockname getsockopt get_thread_area gettid gettimeofday getuid getxattr \
    inotify_add_watch inotify_init inotify_init1 inotify_rm_watch io_cancel ioctl io_destroy \
    io_getevents io_pgetevents ioprio_get ioprio_set io_setup io_submit kill landlock_add_rule \
    landlock_create_ruleset landlock_restrict_self lchown lgetxattr link linkat listen \
    listmount listxattr llistxattr lremovexattr lseek lsetxattr lstat madvise map_shadow_stack \
    membarrier memfd_create memfd_secret mincore mkdir mkdirat mknod mknodat mlock mlock2 \
    mlockall mmap mprotect mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedsend \
    mq_unlink mremap mseal msgctl msgget msgrcv msgsnd msync munlock munlockall munmap \
    name_to_handle_at nanosleep newfstatat open openat openat2 pause pidfd_open \
    pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect poll ppoll prctl pread64 \
    preadv preadv2 prlimit64 process_mrelease pselect6 pwrite64 pwritev pwritev2 read \
    readahead readlink readlinkat readv recvfrom recvmmsg recvmsg remap_file_pages removexattr \
    rename renameat renameat2 restart_syscall rmdir rseq rt_sigaction rt_sigpending \
    rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait \
    rt_tgsigqueueinfo sched_getaffinity sched_getattr sched_getparam sched_get_priority_max \
    sched_get_priority_min sched_getscheduler sched_rr_get_interval sched_setaffinity \
    sched_setattr sched_setparam sched_setscheduler sched_yield seccomp select semctl semget \
    semop semtimedop sendfile sendmmsg sendmsg sendto setfsgid setfsuid setgid setgroups \
    setitimer setpgid setpriority setregid setresgid setresuid setreuid setrlimit \
    set_robust_list setsid setsockopt set_thread_area set_tid_address setuid setxattr shmat \
    shmctl shmdt shmget shutdown sigaltstack signalfd signalfd4 socketpair splice stat statfs \
    statmount statx symlink symlinkat sync sync_file_range syncfs sysinfo tee tgkill time \
    timer_create timer_delete timerfd_create timerfd_gettime timerfd_settime timer_getoverrun \
    timer_gettime timer_settime times tkill truncate umask uname unlink unlinkat utime \
    utimensat utimes vfork vmsplice wait4 waitid write writev \
    arch_prctl modify_ldt ptrace process_vm_readv process_vm_writev";

/// Calls that a capability opens.
const GUARDED: [(&str, &str); 12] = [
    ("CAP_DAC_READ_SEARCH", "open_by_handle_at"),
    (
        "CAP_SYS_ADMIN",
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie mount \
         mount_setattr move_mount open_tree perf_event_open quotactl quotactl_fd setdomainname \
         sethostname setns syslog umount2 unshare",
    ),
    ("CAP_SYS_BOOT", "reboot"),
    ("CAP_SYS_CHROOT", "chroot"),
    ("CAP_SYS_MODULE", "delete_module init_module finit_module"),
    ("CAP_SYS_PACCT", "acct"),
    ("CAP_SYS_PTRACE", "kcmp pidfd_getfd process_madvise"),
    ("CAP_SYS_RAWIO", "iopl ioperm"),
    ("CAP_SYS_TIME", "settimeofday clock_settime"),
    ("CAP_SYS_TTY_CONFIG", "vhangup"),
    (
        "CAP_SYS_NICE",
        "get_mempolicy mbind set_mempolicy set_mempolicy_home_node",
    ),
    ("CAP_SYSLOG", "syslog"),
];

/// The `linux.seccomp` of a container with these capabilities; `None`: no filter.
pub fn profile(
    security: &LinuxContainerSecurityContext,
    capabilities: &[String],
) -> Result<Option<Value>, Error> {
    if security.privileged {
        return Ok(None);
    }
    let Some(wanted) = &security.seccomp else {
        return by_path(&security_path(security), capabilities);
    };
    match ProfileType::try_from(wanted.profile_type) {
        Ok(ProfileType::Unconfined) => Ok(None),
        Ok(ProfileType::RuntimeDefault) => Ok(Some(runtime_default(capabilities))),
        Ok(ProfileType::Localhost) => read(&wanted.localhost_ref).map(Some),
        Err(_) => Err(Error::InvalidArgument(format!(
            "unknown seccomp profile type {}",
            wanted.profile_type
        ))),
    }
}

/// The field that `seccomp` replaced.
#[allow(deprecated)]
fn security_path(security: &LinuxContainerSecurityContext) -> String {
    security.seccomp_profile_path.clone()
}

fn by_path(path: &str, capabilities: &[String]) -> Result<Option<Value>, Error> {
    match path {
        "" | "unconfined" => Ok(None),
        "runtime/default" | "docker/default" => Ok(Some(runtime_default(capabilities))),
        other => match other.strip_prefix("localhost/") {
            Some(file) => read(file).map(Some),
            None => Err(Error::InvalidArgument(format!(
                "unknown seccomp profile {other:?}"
            ))),
        },
    }
}

/// A profile on the node, in the OCI format.
fn read(file: &str) -> Result<Value, Error> {
    let invalid = |why: String| Error::InvalidArgument(format!("seccomp profile {file:?}: {why}"));
    let path = Path::new(file);
    if !path.is_absolute() {
        return Err(invalid("the path must be absolute".to_string()));
    }
    let size = std::fs::metadata(path)
        .map_err(|error| invalid(error.to_string()))?
        .len();
    if size > MAX_PROFILE_BYTES {
        return Err(invalid(format!("more than {MAX_PROFILE_BYTES} bytes")));
    }
    let text = std::fs::read(path).map_err(|error| invalid(error.to_string()))?;
    let profile: oci_spec::runtime::LinuxSeccomp =
        serde_json::from_slice(&text).map_err(|error| invalid(error.to_string()))?;
    serde_json::to_value(profile).map_err(|error| invalid(error.to_string()))
}

fn runtime_default(capabilities: &[String]) -> Value {
    let has = |name: &str| capabilities.iter().any(|capability| capability == name);
    let mut rules = vec![allow(ALLOWED)];
    for (capability, calls) in GUARDED {
        if has(capability) {
            rules.push(allow(calls));
        }
    }
    for value in PERSONALITIES {
        rules.push(json!({"names": ["personality"], "action": "SCMP_ACT_ALLOW",
            "args": [{"index": 0, "value": value, "op": "SCMP_CMP_EQ"}]}));
    }
    rules.push(json!({"names": ["socket"], "action": "SCMP_ACT_ALLOW",
        "args": [{"index": 0, "value": AF_VSOCK, "op": "SCMP_CMP_NE"}]}));
    if !has("CAP_SYS_ADMIN") {
        rules.push(json!({"names": ["clone"], "action": "SCMP_ACT_ALLOW",
            "args": [{"index": 0, "value": NAMESPACE_FLAGS, "valueTwo": 0,
                      "op": "SCMP_CMP_MASKED_EQ"}]}));
        // Its flags are in memory, where a filter cannot look: C libraries then use clone.
        rules.push(json!({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS}));
    }
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": EPERM,
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": rules,
    })
}

fn allow(calls: &str) -> Value {
    let names: Vec<&str> = calls.split_whitespace().collect();
    json!({"names": names, "action": "SCMP_ACT_ALLOW"})
}

#[cfg(test)]
mod tests {
    use super::*;
    use hull_cri_api::v1::SecurityProfile;

    fn with(profile_type: ProfileType, localhost_ref: &str) -> LinuxContainerSecurityContext {
        LinuxContainerSecurityContext {
            seccomp: Some(SecurityProfile {
                profile_type: profile_type as i32,
                localhost_ref: localhost_ref.into(),
            }),
            ..Default::default()
        }
    }

    /// Calls that are allowed whatever their arguments.
    fn allowed(capabilities: &[&str]) -> Vec<String> {
        let capabilities: Vec<String> = capabilities.iter().map(|name| name.to_string()).collect();
        let profile = profile(&with(ProfileType::RuntimeDefault, ""), &capabilities);
        let profile = profile.unwrap().unwrap();
        serde_json::from_value::<oci_spec::runtime::LinuxSeccomp>(profile.clone()).unwrap();
        let rules = profile["syscalls"].as_array().unwrap().clone();
        rules
            .iter()
            .filter(|rule| rule["action"] == "SCMP_ACT_ALLOW" && rule.get("args").is_none())
            .flat_map(|rule| rule["names"].as_array().unwrap().clone())
            .map(|name| name.as_str().unwrap().to_string())
            .collect()
    }

    #[test]
    fn the_default_follows_the_capabilities() {
        let plain = allowed(&["CAP_CHOWN"]);
        let has = |all: &[String], name: &str| all.iter().any(|call| call == name);
        assert!(has(&plain, "openat") && has(&plain, "execve"));
        for refused in [
            "mount",
            "reboot",
            "init_module",
            "sethostname",
            "unshare",
            "clone",
            "bpf",
        ] {
            assert!(!has(&plain, refused), "{refused}");
        }
        let admin = allowed(&["CAP_SYS_ADMIN"]);
        assert!(has(&admin, "sethostname") && has(&admin, "clone3") && !has(&admin, "reboot"));
    }

    #[test]
    fn no_profile_and_privileged_mean_no_filter() {
        let none = LinuxContainerSecurityContext::default();
        assert_eq!(profile(&none, &[]).unwrap(), None);
        let unconfined = with(ProfileType::Unconfined, "");
        assert_eq!(profile(&unconfined, &[]).unwrap(), None);
        let privileged = LinuxContainerSecurityContext {
            privileged: true,
            ..with(ProfileType::RuntimeDefault, "")
        };
        assert_eq!(profile(&privileged, &[]).unwrap(), None);
    }

    #[test]
    fn a_profile_of_the_node_is_read_and_checked() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().display().to_string();
        std::fs::write(file.path(), r#"{"defaultAction": "SCMP_ACT_ALLOW"}"#).unwrap();
        let read = profile(&with(ProfileType::Localhost, &path), &[])
            .unwrap()
            .unwrap();
        assert_eq!(read["defaultAction"], "SCMP_ACT_ALLOW");
        std::fs::write(file.path(), "{").unwrap();
        for reference in [path.as_str(), "relative.json", "/no/such/profile.json"] {
            let error = profile(&with(ProfileType::Localhost, reference), &[]).unwrap_err();
            assert!(error.to_string().contains(reference), "{error}");
        }
    }
}
