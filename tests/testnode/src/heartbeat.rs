//! Keeps the node's CPUs for commands awake enough to notice what the emulator lost.
//!
//! With SVM, QEMU before 10.2 changes a CPU's word of pending interrupts on each exit without the
//! lock that its devices take: an interrupt that arrives just then stays in the CPU's APIC and is not
//! looked at before the next one comes. If it was the timer's, which is set anew each time it
//! has fired, or the one that was to wake an idle CPU, the next may never come. So the CPUs
//! interrupt each other all the time:
//!
//! ```text
//!   beat, on CPU 1 ──write──► ear, on CPU 2        beat, on CPU 2 ──write──► ear, on CPU 1
//! ```

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::eventfd::EventFd;
use nix::unistd::Pid;

/// Time between two beats of a CPU: what a lost interrupt costs at most. Each beat is an
/// interrupt more that the emulator has to get right.
const PERIOD: Duration = Duration::from_millis(250);

/// A CPU's thread that others wake, and how often they did.
struct Ear {
    cpu: usize,
    event: EventFd,
    heard: AtomicU64,
}

/// Beats on these CPUs until the process ends; gives how often each was woken.
///
/// # Errors
/// When the system gives no eventfd or thread, or there is no such CPU.
pub fn start(cpus: &[usize]) -> io::Result<Vec<impl Fn() -> u64 + use<>>> {
    let ears = cpus
        .iter()
        .map(|&cpu| {
            let event = EventFd::new()?;
            let heard = AtomicU64::new(0);
            Ok(Arc::new(Ear { cpu, event, heard }))
        })
        .collect::<io::Result<Vec<_>>>()?;
    for ear in &ears {
        pinned("ear", ear.cpu, {
            let ear = ear.clone();
            move || {
                while ear.event.read().is_ok() {
                    ear.heard.fetch_add(1, Ordering::Relaxed);
                }
            }
        })?;
        let others: Vec<Arc<Ear>> = ears
            .iter()
            .filter(|one| one.cpu != ear.cpu)
            .cloned()
            .collect();
        pinned("beat", ear.cpu, move || {
            loop {
                thread::sleep(PERIOD);
                for other in &others {
                    // Fails only when the ear has ended.
                    let _ = other.event.write(1);
                }
            }
        })?;
    }
    let count = |ear: Arc<Ear>| move || ear.heard.load(Ordering::Relaxed);
    Ok(ears.into_iter().map(count).collect())
}

/// Runs `work` for ever on one CPU.
fn pinned(name: &str, cpu: usize, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let mut only = CpuSet::new();
    only.set(cpu)?;
    let run = move || match sched_setaffinity(Pid::from_raw(0), &only) {
        Ok(()) => work(),
        Err(error) => tracing::warn!(cpu, %error, "no heartbeat"),
    };
    thread::Builder::new()
        .name(format!("{name}-{cpu}"))
        .spawn(run)
        .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cpu_is_woken_by_another() {
        let heard = start(&[0, 1]).unwrap();
        for cpu in heard {
            while cpu() < 3 {
                thread::yield_now();
            }
        }
    }
}
