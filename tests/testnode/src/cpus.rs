//! Keeps commands, and with them virtual machines, off the node's first CPU.
//!
//! QEMU keeps a CPU's virtualisation state (whether nested paging is on, whether interrupts
//! are let through) in one word, and every CPU that restores x87 state clears a bit of the
//! *first* CPU's word (the IGNNE# line) without a lock or an atomic operation. When the first
//! CPU enters or leaves a virtual machine at that moment, its own change is undone: paging
//! stays nested in the node's kernel, which ends the node or turns the virtual machine's
//! state into the kernel's, or interrupts stay off for good. No virtual machine on the first
//! CPU, no change to undo. Seen with QEMU 7.2 and 11.1.

use std::fs;
use std::io;
use std::path::Path;

use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;

use crate::cache::{CacheError, io_error};

/// CPUs of a node beside those for commands: the first.
pub const RESERVED: u32 = 1;

/// The cgroup that takes the first CPU away from all others. No process is ever in it.
const PARTITION: &str = "/sys/fs/cgroup/first-cpu";

/// Takes the first CPU of this machine away from every process, whatever cgroup it is in or
/// will be moved to. The root cgroup has handed its controllers on.
///
/// # Errors
/// When the kernel does not make the partition.
pub fn reserve_the_first() -> Result<(), CacheError> {
    let partition = Path::new(PARTITION);
    fs::create_dir_all(partition).map_err(io_error("creating", partition))?;
    let kind = partition.join("cpuset.cpus.partition");
    for (file, text) in [(&partition.join("cpuset.cpus"), "0"), (&kind, "root")] {
        fs::write(file, text).map_err(io_error("writing", file))?;
    }
    // A partition that cannot be is not refused: its file says so.
    let made = fs::read_to_string(&kind).map_err(io_error("reading", &kind))?;
    if made.trim() == "root" {
        return Ok(());
    }
    let problem = io::Error::other(made.trim().to_owned());
    Err(io_error("reserving a CPU with", &kind)(problem))
}

/// The CPUs on which this thread may run.
///
/// # Errors
/// When the system does not say.
pub fn own() -> io::Result<Vec<usize>> {
    let mask = sched_getaffinity(Pid::from_raw(0))?;
    let all = 0..CpuSet::count();
    Ok(all
        .filter(|cpu| mask.is_set(*cpu).unwrap_or(false))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_has_the_cpus_that_it_was_given() {
        let mine = own().unwrap();
        let last = *mine.last().unwrap();
        let mut only = CpuSet::new();
        only.set(last).unwrap();
        nix::sched::sched_setaffinity(Pid::from_raw(0), &only).unwrap();
        assert_eq!(own().unwrap(), [last]);
    }
}
