//! `linux.resources.devices` on cgroup v2: an eBPF program that the kernel asks before a
//! process of the cgroup makes or opens a device node (BPF_PROG_TYPE_CGROUP_DEVICE). It
//! keeps a container that may make device nodes away from the sandbox's disks.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};

/// Kinds of access, linux/bpf.h.
const MKNOD: i32 = 1;
const READ: i32 = 2;
const WRITE: i32 = 4;
const ALL_ACCESS: i32 = MKNOD | READ | WRITE;
/// Kinds of devices, linux/bpf.h.
const BLOCK: i32 = 1;
const CHARACTER: i32 = 2;
/// Commands and constants of bpf(2).
const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_ATTACH: libc::c_int = 8;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 2;

/// Rules that cannot be enforced.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// A rule that makes no sense.
    #[error("linux.resources.devices: {0}")]
    Rule(String),
    /// The kernel refused.
    #[error("linux.resources.devices: cannot {doing}: {source}")]
    Kernel {
        /// What was being done.
        doing: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

/// One eBPF instruction, linux/bpf.h `struct bpf_insn`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
struct Instruction {
    opcode: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

/// Enforces `rules` for the processes of the cgroup at `directory`. A device that no rule
/// names is refused; of several rules for one, the last counts.
///
/// # Errors
/// [`DeviceError`].
pub fn restrict(directory: &Path, rules: &[LinuxDeviceCgroup]) -> Result<(), DeviceError> {
    let instructions = assemble(rules)?;
    let cgroup = File::open(directory).map_err(failed("open the cgroup"))?;
    let program = load(&instructions).map_err(failed("load the program"))?;
    attach(&cgroup, &program).map_err(failed("attach the program"))
}

fn failed(doing: &'static str) -> impl FnOnce(io::Error) -> DeviceError {
    move |source| DeviceError::Kernel { doing, source }
}

/// Registers: r1 the context, then scratch; r2 access, r3 kind, r4 major, r5 minor.
fn assemble(rules: &[LinuxDeviceCgroup]) -> Result<Vec<Instruction>, DeviceError> {
    let mut program = vec![
        load_word(2, 0),
        move_register(3, 2),
        and(3, 0xffff),
        shift_right(2, 16),
        load_word(4, 4),
        load_word(5, 8),
    ];
    // The first that matches decides, so the last rule comes first.
    for rule in rules.iter().rev() {
        let block = block(rule)?;
        let is_conditional = block.len() > VERDICT_LENGTH;
        program.extend(block);
        if !is_conditional {
            // The kernel takes no program with instructions that are never reached.
            return Ok(program);
        }
    }
    program.extend(verdict(false));
    Ok(program)
}

/// Instructions of [`verdict`].
const VERDICT_LENGTH: usize = 2;

fn verdict(allow: bool) -> [Instruction; VERDICT_LENGTH] {
    [set(0, i32::from(allow)), exit()]
}

/// The instructions of one rule: each test that fails jumps behind the block.
fn block(rule: &LinuxDeviceCgroup) -> Result<Vec<Instruction>, DeviceError> {
    let mut tests = Vec::new();
    match rule.typ().unwrap_or_default() {
        LinuxDeviceType::A => {}
        LinuxDeviceType::B => tests.push(jump_if_not(3, BLOCK)),
        LinuxDeviceType::C | LinuxDeviceType::U => tests.push(jump_if_not(3, CHARACTER)),
        LinuxDeviceType::P => {
            return Err(DeviceError::Rule("a FIFO is not a device".to_owned()));
        }
    }
    let access = access(rule)?;
    if access != ALL_ACCESS {
        tests.push(move_register(1, 2));
        if rule.allow() {
            // Everything that is asked for must be in the rule.
            tests.extend([and(1, ALL_ACCESS & !access), jump_if_not(1, 0)]);
        } else {
            tests.extend([and(1, access), jump_if(1, 0)]);
        }
    }
    for (register, number) in [(4, rule.major()), (5, rule.minor())] {
        if let Some(number) = number.filter(|number| *number >= 0) {
            let number = i32::try_from(number)
                .map_err(|_| DeviceError::Rule(format!("device number {number} is too large")))?;
            tests.push(jump_if_not(register, number));
        }
    }
    let length = tests.len() + VERDICT_LENGTH;
    for (at, test) in tests.iter_mut().enumerate() {
        if test.opcode == JUMP_IF || test.opcode == JUMP_IF_NOT {
            // A block has less than a dozen instructions.
            test.offset = (length - at - 1) as i16;
        }
    }
    Ok(tests.into_iter().chain(verdict(rule.allow())).collect())
}

fn access(rule: &LinuxDeviceCgroup) -> Result<i32, DeviceError> {
    let Some(text) = rule.access().as_ref().filter(|text| !text.is_empty()) else {
        return Ok(ALL_ACCESS);
    };
    text.chars().try_fold(0, |access, letter| match letter {
        'm' => Ok(access | MKNOD),
        'r' => Ok(access | READ),
        'w' => Ok(access | WRITE),
        other => Err(DeviceError::Rule(format!("{other:?} is no access"))),
    })
}

/// `if register == immediate`, `if register != immediate`: jump.
const JUMP_IF: u8 = 0x15;
const JUMP_IF_NOT: u8 = 0x55;

fn instruction(opcode: u8, to: u8, from: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction {
        opcode,
        registers: from << 4 | to,
        offset,
        immediate,
    }
}

fn load_word(to: u8, context_offset: i16) -> Instruction {
    instruction(0x61, to, 1, context_offset, 0)
}
fn move_register(to: u8, from: u8) -> Instruction {
    instruction(0xbf, to, from, 0, 0)
}
fn set(to: u8, value: i32) -> Instruction {
    instruction(0xb7, to, 0, 0, value)
}
fn and(to: u8, mask: i32) -> Instruction {
    instruction(0x57, to, 0, 0, mask)
}
fn shift_right(to: u8, bits: i32) -> Instruction {
    instruction(0x77, to, 0, 0, bits)
}
fn jump_if(register: u8, value: i32) -> Instruction {
    instruction(JUMP_IF, register, 0, 0, value)
}
fn jump_if_not(register: u8, value: i32) -> Instruction {
    instruction(JUMP_IF_NOT, register, 0, 0, value)
}
fn exit() -> Instruction {
    instruction(0x95, 0, 0, 0, 0)
}

/// The beginning of `union bpf_attr` for BPF_PROG_LOAD; the kernel takes the rest for 0.
#[repr(C)]
struct LoadAttributes {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
}

/// `union bpf_attr` for BPF_PROG_ATTACH.
#[repr(C)]
struct AttachAttributes {
    target: u32,
    program: u32,
    attach_type: u32,
    flags: u32,
}

fn load(instructions: &[Instruction]) -> io::Result<OwnedFd> {
    let attributes = LoadAttributes {
        program_type: BPF_PROG_TYPE_CGROUP_DEVICE,
        instruction_count: u32::try_from(instructions.len()).unwrap_or(u32::MAX),
        instructions: instructions.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
    };
    let fd = bpf(BPF_PROG_LOAD, &attributes)?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The cgroup keeps the program when the descriptor is closed.
fn attach(cgroup: &File, program: &OwnedFd) -> io::Result<()> {
    let attributes = AttachAttributes {
        target: cgroup.as_raw_fd() as u32,
        program: program.as_raw_fd() as u32,
        attach_type: BPF_CGROUP_DEVICE,
        flags: BPF_F_ALLOW_MULTI,
    };
    bpf(BPF_PROG_ATTACH, &attributes).map(drop)
}

fn bpf<T>(command: libc::c_int, attributes: &T) -> io::Result<i32> {
    // SAFETY: the kernel reads `size_of::<T>()` bytes of attributes, whose pointers are to
    // memory that outlives the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_ref(attributes),
            size_of::<T>(),
        )
    };
    match i32::try_from(result) {
        Ok(fd @ 0..) => Ok(fd),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::process::Command;

    fn rules(json: serde_json::Value) -> Vec<LinuxDeviceCgroup> {
        serde_json::from_value(json).unwrap()
    }

    /// A cgroup of this machine's cgroup v2 hierarchy.
    struct Group(std::path::PathBuf);

    impl Group {
        fn new(name: &str) -> Group {
            let mounts = std::fs::read_to_string("/proc/mounts").unwrap();
            let root = mounts
                .lines()
                .map(|line| line.split(' ').collect::<Vec<_>>())
                .find(|fields| fields[2] == "cgroup2")
                .expect("cgroup2 is mounted")[1]
                .to_owned();
            let path = Path::new(&root).join(format!("hull-{name}-{}", std::process::id()));
            std::fs::create_dir(&path).unwrap();
            Group(path)
        }

        /// Whether a shell in the cgroup succeeds.
        fn runs(&self, script: &str) -> bool {
            let procs = self.0.join("cgroup.procs");
            let script = format!("echo $$ > {} && {script}", procs.display());
            let mut command = Command::new("/bin/sh");
            command
                .args(["-c", &script])
                .output()
                .unwrap()
                .status
                .success()
        }
    }

    impl Drop for Group {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir(&self.0);
        }
    }

    #[test]
    fn a_node_may_be_made_and_not_opened() {
        let group = Group::new("devices");
        restrict(
            &group.0,
            &rules(json!([
                {"allow": false},
                {"allow": true, "type": "b", "access": "m"},
                {"allow": true, "type": "c", "access": "m"},
                {"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rwm"},
                {"allow": true, "type": "c", "major": 1, "minor": 5, "access": "r"},
            ])),
        )
        .unwrap();
        let directory = tempfile::tempdir().unwrap();
        let node = |name: &str, kind: &str| {
            format!(
                "mknod {0}/{name} {kind} && head -c 1 {0}/{name} >/dev/null",
                directory.path().display()
            )
        };
        assert!(group.runs("echo x > /dev/null"));
        assert!(group.runs(&node("zero", "c 1 5")));
        assert!(!group.runs(&node("urandom", "c 1 9")));
        assert!(directory.path().join("urandom").exists(), "it may be made");
        assert!(!group.runs("echo x > /dev/zero"), "reading only");
    }

    #[test]
    fn the_last_rule_for_a_device_counts() {
        let group = Group::new("devices-order");
        restrict(
            &group.0,
            &rules(json!([
                {"allow": true, "type": "a", "access": "rwm"},
                {"allow": false, "type": "c", "major": 1, "minor": 5, "access": "w"},
            ])),
        )
        .unwrap();
        assert!(group.runs("head -c 1 /dev/zero >/dev/null"));
        assert!(!group.runs("echo x > /dev/zero"));
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(assemble(&rules(json!([{"allow": true, "access": "x"}]))).is_err());
        assert!(assemble(&rules(json!([{"allow": true, "type": "p"}]))).is_err());
        let large = json!([{"allow": true, "major": 1i64 << 40}]);
        assert!(assemble(&rules(large)).is_err());
    }
}
