//! Pausing: vCPUs stand at a gate between two entries into the guest.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

#[derive(Debug, Default)]
struct State {
    closed: bool,
    waiting: usize,
    /// By the number of the vCPU, what it said of itself when it came to the closed gate.
    positions: BTreeMap<u8, String>,
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

    /// Where those stand that came to the gate when it was closed last, in the order of their
    /// numbers.
    pub fn positions(&self) -> Vec<String> {
        self.lock().positions.values().cloned().collect()
    }

    /// Stands here while it is closed; true when that was so. `position` tells where in the
    /// guest vCPU `index` stands.
    pub fn pass(&self, index: u8, position: impl FnOnce() -> String) -> bool {
        let mut state = self.lock();
        if !state.closed {
            return false;
        }
        state.positions.insert(index, position());
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
            .map(|index| {
                let (gate, steps, end) = (gate.clone(), steps.clone(), end.clone());
                std::thread::spawn(move || {
                    while !end.load(Ordering::SeqCst) {
                        gate.pass(index, || format!("{index} of 3"));
                        steps.fetch_add(1, Ordering::SeqCst);
                        std::thread::yield_now();
                    }
                })
            })
            .collect();
        assert!(gate.close(3, LIMIT, || {}));
        assert_eq!(gate.positions(), ["0 of 3", "1 of 3", "2 of 3"]);
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
        assert!(!gate.pass(0, String::new));
    }
}
