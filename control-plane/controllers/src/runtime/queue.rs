//! Keys that want work.

use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};

use super::Key;

/// Wait after a key's first failure; doubles with each further one.
pub const INITIAL_BACKOFF: Duration = Duration::from_millis(5);
/// Longest such wait.
pub const MAX_BACKOFF: Duration = Duration::from_secs(60);

#[derive(Default)]
struct State {
    ready: VecDeque<Key>,
    /// In `ready`, or added again while being worked on.
    dirty: HashSet<Key>,
    working: HashSet<Key>,
    delayed: BTreeSet<(Instant, Key)>,
    due: HashMap<Key, Instant>,
    failures: HashMap<Key, u32>,
}

/// A set of keys in order of arrival. A key that is being worked on is not given out again; if
/// it is added meanwhile, it comes again afterwards.
#[derive(Default)]
pub struct WorkQueue {
    state: Mutex<State>,
    wake: Notify,
}

impl WorkQueue {
    /// Wants work now.
    pub fn add(&self, key: Key) {
        self.state.lock().add(key);
        self.wake.notify_one();
    }

    /// Wants work later. Of several times the earliest counts.
    pub fn add_after(&self, key: Key, delay: Duration) {
        if delay.is_zero() {
            return self.add(key);
        }
        let at = Instant::now() + delay;
        let mut state = self.state.lock();
        match state.due.get(&key) {
            Some(earlier) if *earlier <= at => return,
            Some(later) => {
                let later = *later;
                state.delayed.remove(&(later, key.clone()));
            }
            None => {}
        }
        state.due.insert(key.clone(), at);
        state.delayed.insert((at, key));
        drop(state);
        self.wake.notify_one();
    }

    /// Wants work after the back-off of its failures. Gives the delay.
    pub fn add_failed(&self, key: Key) -> Duration {
        let delay = {
            let mut state = self.state.lock();
            let failures = state.failures.entry(key.clone()).or_insert(0);
            let delay = INITIAL_BACKOFF
                .saturating_mul(1 << (*failures).min(20))
                .min(MAX_BACKOFF);
            *failures = failures.saturating_add(1);
            delay
        };
        self.add_after(key, delay);
        delay
    }

    /// Its failures are over.
    pub fn forget(&self, key: &Key) {
        self.state.lock().failures.remove(key);
    }

    /// Waits for a key. [`WorkQueue::done`] must follow.
    pub async fn next(&self) -> Key {
        loop {
            let next_due = {
                let mut state = self.state.lock();
                state.release_due(Instant::now());
                if let Some(key) = state.ready.pop_front() {
                    state.dirty.remove(&key);
                    state.working.insert(key.clone());
                    // This worker may have been the one that waited for the delayed keys.
                    if !state.ready.is_empty() || !state.delayed.is_empty() {
                        self.wake.notify_one();
                    }
                    return key;
                }
                state.delayed.first().map(|(at, _)| *at)
            };
            match next_due {
                None => self.wake.notified().await,
                Some(at) => {
                    let _ = tokio::time::timeout_at(at, self.wake.notified()).await;
                }
            }
        }
    }

    /// The work on the key is over.
    pub fn done(&self, key: &Key) {
        let mut state = self.state.lock();
        state.working.remove(key);
        if state.dirty.contains(key) {
            state.ready.push_back(key.clone());
            drop(state);
            self.wake.notify_one();
        }
    }

    /// Keys that are ready.
    pub fn len(&self) -> usize {
        self.state.lock().ready.len()
    }

    /// Whether no key is ready.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    #[cfg(test)]
    pub(crate) fn take_all(&self) -> Vec<Key> {
        let mut state = self.state.lock();
        state.dirty.clear();
        state.ready.drain(..).collect()
    }
}

impl State {
    fn add(&mut self, key: Key) {
        if self.dirty.insert(key.clone()) && !self.working.contains(&key) {
            self.ready.push_back(key);
        }
    }

    fn release_due(&mut self, now: Instant) {
        while self.delayed.first().is_some_and(|(at, _)| *at <= now) {
            if let Some((_, key)) = self.delayed.pop_first() {
                self.due.remove(&key);
                self.add(key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        Key::new("default", name)
    }

    #[tokio::test]
    async fn a_key_added_twice_comes_once() {
        let queue = WorkQueue::default();
        queue.add(key("a"));
        queue.add(key("a"));
        queue.add(key("b"));
        assert_eq!(queue.next().await, key("a"));
        assert_eq!(queue.next().await, key("b"));
        assert!(queue.is_empty());
    }

    #[tokio::test]
    async fn a_key_is_never_worked_on_twice_at_a_time() {
        let queue = WorkQueue::default();
        queue.add(key("a"));
        let first = queue.next().await;
        queue.add(key("a"));
        assert!(queue.is_empty(), "held back while it is being worked on");
        queue.done(&first);
        assert_eq!(queue.next().await, key("a"));
    }

    #[tokio::test]
    async fn failures_double_the_wait_until_forgotten() {
        let queue = WorkQueue::default();
        assert_eq!(queue.add_failed(key("a")), INITIAL_BACKOFF);
        assert_eq!(queue.add_failed(key("a")), INITIAL_BACKOFF * 2);
        for _ in 0..30 {
            queue.add_failed(key("a"));
        }
        assert_eq!(queue.add_failed(key("a")), MAX_BACKOFF);
        queue.forget(&key("a"));
        assert_eq!(queue.add_failed(key("a")), INITIAL_BACKOFF);
    }

    #[tokio::test]
    async fn the_earliest_of_several_delays_counts() {
        let queue = WorkQueue::default();
        queue.add_after(key("a"), Duration::from_secs(600));
        queue.add_after(key("a"), Duration::from_millis(20));
        queue.add_after(key("a"), Duration::from_secs(300));
        let got = tokio::time::timeout(Duration::from_secs(60), queue.next()).await;
        assert_eq!(got.unwrap(), key("a"));
        assert!(
            queue.state.lock().delayed.is_empty(),
            "the later ones were dropped"
        );
    }
}
