//! How the VM ends: the first cause wins, every thread can name one, the main thread acts.

use std::fs::File;
use std::io::Write;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use hull_vmm_client::exit::{ExitReason, ExitRecord};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// The end of a VM, told by whichever thread sees it first.
#[derive(Debug)]
pub struct ExitSignal {
    outcome: OnceLock<(ExitReason, String)>,
    stopping: AtomicBool,
    event: EventFd,
}

impl ExitSignal {
    /// Nothing has ended yet.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self {
            outcome: OnceLock::new(),
            stopping: AtomicBool::new(false),
            event: EventFd::new(EFD_NONBLOCK)?,
        })
    }

    /// Ends the VM for `reason`; only the first call counts.
    pub fn end(&self, reason: ExitReason, message: impl Into<String>) {
        // Fails only when an earlier cause is there already, which then stays.
        let _ = self.outcome.set((reason, message.into()));
        self.stopping.store(true, Ordering::SeqCst);
        // A full counter means that the event is pending already.
        let _ = self.event.write(1);
    }

    /// Whether vCPUs must leave their loop.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// Readable once the VM is to end.
    pub fn event(&self) -> &EventFd {
        &self.event
    }

    /// What [`ExitSignal::end`] was told first.
    pub fn outcome(&self) -> Option<(ExitReason, String)> {
        self.outcome.get().cloned()
    }
}

/// Writes the record of how the VM ended.
pub fn write_record(file: &mut File, reason: ExitReason, message: &str) -> std::io::Result<()> {
    let mut text = serde_json::to_vec(&ExitRecord::now(reason, message))?;
    text.push(b'\n');
    file.write_all(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_cause_wins() {
        let signal = ExitSignal::new().unwrap();
        assert!(!signal.is_stopping());
        signal.end(ExitReason::GuestPanic, "first");
        signal.end(ExitReason::Stopped, "second");
        assert!(signal.is_stopping());
        assert_eq!(
            signal.outcome(),
            Some((ExitReason::GuestPanic, "first".to_owned()))
        );
        assert_eq!(signal.event().read().unwrap(), 2);
    }
}
