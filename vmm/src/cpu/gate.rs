//! Pausing: vCPUs stand at a gate between two entries into the guest.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

#[derive(Debug, Default)]
struct State {
    closed: bool,
    waiting: usize,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

impl Gate {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets nobody through from now on. `kick` makes vCPUs leave the guest; true when all
    /// `count` of them stand here within the time limit, else the gate is open again.
    pub fn close(&self, count: usize, limit: Duration, kick: impl Fn()) -> bool {
        let deadline = Instant::now() + limit;
        self.lock().closed = true;
        kick();
        let mut state = self.lock();
        while state.closed && state.waiting < count {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                drop(state);
                self.open();
                return false;
            }
            state = self
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        state.closed
    }

    /// Lets everybody through.
    pub fn open(&self) {
        self.lock().closed = false;
        self.changed.notify_all();
    }

    /// Whether it is closed.
    pub fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Stands here while it is closed; true when that was so.
    pub fn pass(&self) -> bool {
        let mut state = self.lock();
        if !state.closed {
            return false;
        }
        state.waiting += 1;
        self.changed.notify_all();
        while state.closed {
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        state.waiting -= 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    #[test]
    fn everybody_stands_still_until_the_gate_opens() {
        let (gate, end) = (Arc::new(Gate::default()), Arc::new(AtomicBool::default()));
        let steps = Arc::new(AtomicU64::default());
        let threads: Vec<_> = (0..3)
            .map(|_| {
                let (gate, steps, end) = (gate.clone(), steps.clone(), end.clone());
                std::thread::spawn(move || {
                    while !end.load(Ordering::SeqCst) {
                        gate.pass();
                        steps.fetch_add(1, Ordering::SeqCst);
                        std::thread::yield_now();
                    }
                })
            })
            .collect();
        assert!(gate.close(3, LIMIT, || {}));
        let before = steps.load(Ordering::SeqCst);
        std::thread::yield_now();
        assert_eq!(steps.load(Ordering::SeqCst), before);
        assert!(gate.close(3, LIMIT, || {}), "closing twice");
        gate.open();
        end.store(true, Ordering::SeqCst);
        threads
            .into_iter()
            .for_each(|thread| thread.join().unwrap());
        assert!(steps.load(Ordering::SeqCst) > before);
    }

    #[test]
    fn a_vcpu_that_does_not_come_opens_the_gate_again() {
        let gate = Gate::default();
        assert!(!gate.close(1, Duration::from_millis(10), || {}));
        assert!(!gate.is_closed());
        assert!(!gate.pass());
    }
}
