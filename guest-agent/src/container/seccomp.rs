//! `linux.seccomp` of the OCI spec as BPF programs for x86-64.
//!
//! A filter of seccompiler knows two actions, a profile any number. So a profile becomes a
//! stack of filters, of which the kernel lets the strictest answer count: one that gives
//! the default action to every call that no rule names, and one for each other action.
//!
//! Calls of other architectures (i386, x32) kill the process or get the default action.

use std::collections::BTreeMap;
use std::io;
use std::str::FromStr;

use oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompOperator, LinuxSyscall,
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

/// A profile that cannot be enforced.
#[derive(Debug, thiserror::Error)]
pub enum SeccompError {
    /// An action that this agent does not do.
    #[error("linux.seccomp: action {0:?} is unimplemented")]
    Action(LinuxSeccompAction),
    /// Rules that make no filter.
    #[error("linux.seccomp: {0}")]
    Rules(#[from] seccompiler::BackendError),
    /// The kernel did not take the filter.
    #[error("linux.seccomp: installing the filter: {0}")]
    Install(io::Error),
}

/// Conditions per system call; an empty list means always.
type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Compiles a profile into the filters to install, in order. Names of calls that this
/// agent does not know are left out, as the kernel may not have them either.
///
/// # Errors
/// [`SeccompError`] names what it cannot do.
pub fn compile(profile: &LinuxSeccomp) -> Result<Vec<BpfProgram>, SeccompError> {
    let default = action(profile.default_action(), profile.default_errno_ret())?;
    let mut named = Rules::new();
    let mut by_action: Vec<(SeccompAction, Rules)> = Vec::new();
    for group in profile.syscalls().iter().flatten() {
        let wanted = action(group.action(), group.errno_ret())?;
        if wanted == default {
            continue;
        }
        add(&mut named, group)?;
        if wanted == SeccompAction::Allow {
            continue;
        }
        match by_action.iter_mut().find(|(known, _)| *known == wanted) {
            Some((_, rules)) => add(rules, group)?,
            None => {
                let mut rules = Rules::new();
                add(&mut rules, group)?;
                by_action.push((wanted, rules));
            }
        }
    }
    let mut programs = Vec::new();
    if default != SeccompAction::Allow {
        programs.push(program(named, default, SeccompAction::Allow)?);
    }
    for (action, rules) in by_action {
        programs.push(program(rules, SeccompAction::Allow, action)?);
    }
    Ok(programs)
}

fn program(
    rules: Rules,
    otherwise: SeccompAction,
    matching: SeccompAction,
) -> Result<BpfProgram, SeccompError> {
    let filter = SeccompFilter::new(rules, otherwise, matching, TargetArch::x86_64)?;
    Ok(filter.try_into()?)
}

fn action(action: LinuxSeccompAction, value: Option<u32>) -> Result<SeccompAction, SeccompError> {
    use LinuxSeccompAction as Oci;
    Ok(match action {
        Oci::ScmpActAllow => SeccompAction::Allow,
        Oci::ScmpActErrno => SeccompAction::Errno(value.unwrap_or(libc::EPERM as u32)),
        Oci::ScmpActKill | Oci::ScmpActKillThread => SeccompAction::KillThread,
        Oci::ScmpActKillProcess => SeccompAction::KillProcess,
        Oci::ScmpActLog => SeccompAction::Log,
        Oci::ScmpActTrace => SeccompAction::Trace(value.unwrap_or(libc::EPERM as u32)),
        Oci::ScmpActTrap => SeccompAction::Trap,
        Oci::ScmpActNotify => return Err(SeccompError::Action(action)),
    })
}

/// Adds the calls of a group. What always applies makes conditions of the same call moot.
fn add(rules: &mut Rules, group: &LinuxSyscall) -> Result<(), SeccompError> {
    let conditions = alternatives(group.args().as_deref().unwrap_or_default())?;
    for name in group.names() {
        let Ok(number) = syscalls::Sysno::from_str(name) else {
            continue;
        };
        let number = i64::from(number.id());
        let known = rules.get(&number);
        if known.is_some_and(Vec::is_empty) {
            continue;
        }
        if conditions.is_empty() {
            rules.insert(number, Vec::new());
        } else {
            let all = rules.entry(number).or_default();
            all.extend(conditions.iter().cloned());
        }
    }
    Ok(())
}

/// Conditions on different arguments must all hold; several on one argument are
/// alternatives.
fn alternatives(args: &[LinuxSeccompArg]) -> Result<Vec<SeccompRule>, SeccompError> {
    let conditions = args
        .iter()
        .map(condition)
        .collect::<Result<Vec<_>, SeccompError>>()?;
    let repeated = args
        .iter()
        .enumerate()
        .any(|(at, arg)| args[..at].iter().any(|other| other.index() == arg.index()));
    let groups: Vec<Vec<SeccompCondition>> = match (conditions.is_empty(), repeated) {
        (true, _) => Vec::new(),
        (false, true) => conditions.into_iter().map(|one| vec![one]).collect(),
        (false, false) => vec![conditions],
    };
    groups
        .into_iter()
        .map(|group| Ok(SeccompRule::new(group)?))
        .collect()
}

fn condition(arg: &LinuxSeccompArg) -> Result<SeccompCondition, SeccompError> {
    use LinuxSeccompOperator as Oci;
    let mut value = arg.value();
    let operator = match arg.op() {
        Oci::ScmpCmpNe => SeccompCmpOp::Ne,
        Oci::ScmpCmpLt => SeccompCmpOp::Lt,
        Oci::ScmpCmpLe => SeccompCmpOp::Le,
        Oci::ScmpCmpEq => SeccompCmpOp::Eq,
        Oci::ScmpCmpGe => SeccompCmpOp::Ge,
        Oci::ScmpCmpGt => SeccompCmpOp::Gt,
        Oci::ScmpCmpMaskedEq => {
            value = arg.value_two().unwrap_or_default();
            SeccompCmpOp::MaskedEq(arg.value())
        }
    };
    // An index above 5 is refused by the compiler.
    let index = u8::try_from(arg.index()).unwrap_or(u8::MAX);
    let length = SeccompCmpArgLen::Qword;
    Ok(SeccompCondition::new(index, length, operator, value)?)
}

/// Installs the filters in this process. It must be single-threaded, and have either
/// CAP_SYS_ADMIN or no_new_privs.
///
/// # Errors
/// [`SeccompError::Install`].
pub fn install(programs: &[BpfProgram]) -> Result<(), SeccompError> {
    for program in programs {
        let fprog = libc::sock_fprog {
            len: u16::try_from(program.len())
                .map_err(|_| SeccompError::Install(io::Error::from_raw_os_error(libc::E2BIG)))?,
            filter: program.as_ptr().cast_mut().cast(),
        };
        // SAFETY: `fprog` and the program that it points to live until the call returns; the
        // kernel copies them. seccompiler's and libc's sock_filter are both the kernel's.
        let done = unsafe {
            libc::syscall(
                libc::SYS_seccomp,
                libc::SECCOMP_SET_MODE_FILTER,
                0,
                std::ptr::from_ref(&fprog),
            )
        };
        if done != 0 {
            return Err(SeccompError::Install(io::Error::last_os_error()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::os::unix::process::CommandExt;
    use std::process::Command;

    fn compiled(profile: serde_json::Value) -> Result<Vec<BpfProgram>, SeccompError> {
        compile(&serde_json::from_value(profile).unwrap())
    }

    /// Runs a shell under the profile; its status and standard error.
    fn run(profile: serde_json::Value, script: &str) -> (Option<i32>, String) {
        let programs = compiled(profile).unwrap();
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        // SAFETY: only a system call is made between fork and exec.
        unsafe {
            command.pre_exec(move || install(&programs).map_err(io::Error::other));
        }
        let output = command.output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), error)
    }

    #[test]
    fn named_calls_fail_with_the_error_that_the_profile_says() {
        let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            {"names": ["mkdir", "no_such_call"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28},
            {"names": ["sethostname"], "action": "SCMP_ACT_ERRNO"},
        ]});
        let (status, error) = run(profile.clone(), "mkdir /tmp/hull-never");
        assert!(
            status != Some(0) && error.contains("No space left"),
            "{error}"
        );
        let (status, error) = run(profile, "hostname \"$(hostname)\"");
        assert!(
            status != Some(0) && error.contains("must be root"),
            "{error}"
        );
    }

    #[test]
    fn calls_that_no_rule_names_get_the_default() {
        let everything_but = |missing: &[&str]| {
            let names: Vec<&str> = syscalls::Sysno::iter()
                .map(|number| number.name())
                .filter(|name| !missing.contains(name))
                .collect();
            json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1,
                   "syscalls": [{"names": names, "action": "SCMP_ACT_ALLOW"}]})
        };
        assert_eq!(run(everything_but(&[]), "mkdir -p /tmp").0, Some(0));
        let (status, _) = run(everything_but(&["mkdir"]), "mkdir /tmp/hull-never");
        assert_ne!(status, Some(0));
    }

    #[test]
    fn arguments_decide() {
        // kill(pid, signal): signal 10 only.
        let profile = |args| {
            json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
                {"names": ["kill"], "action": "SCMP_ACT_ERRNO", "args": args}]})
        };
        let script =
            "trap 'exit 10' USR1; trap 'exit 12' USR2; kill -USR1 $$; kill -USR2 $$; exit 0";
        let one = json!([{"index": 1, "value": 10, "op": "SCMP_CMP_EQ"}]);
        assert_eq!(run(profile(one), script).0, Some(12));
        let either = json!([{"index": 1, "value": 10, "op": "SCMP_CMP_EQ"},
                            {"index": 1, "value": 12, "op": "SCMP_CMP_EQ"}]);
        assert_eq!(run(profile(either), script).0, Some(0));
        let masked = json!([{"index": 1, "value": 2, "valueTwo": 2, "op": "SCMP_CMP_MASKED_EQ"}]);
        assert_eq!(run(profile(masked), script).0, Some(12));
    }

    #[test]
    fn what_cannot_be_done_is_named() {
        let notify = json!({"defaultAction": "SCMP_ACT_NOTIFY"});
        let error = compiled(notify).unwrap_err().to_string();
        assert!(error.contains("Notify"), "{error}");
        let bad_index = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            {"names": ["kill"], "action": "SCMP_ACT_ERRNO",
             "args": [{"index": 6, "value": 1, "op": "SCMP_CMP_EQ"}]}]});
        assert!(compiled(bad_index).is_err());
    }
}
