//! Doubling delays, per container and per image.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;

/// Delays that double from a start to a ceiling; a key that stayed quiet for twice the ceiling
/// starts anew.
#[derive(Debug, Clone)]
pub struct Backoff {
    initial: Duration,
    max: Duration,
    entries: HashMap<String, Entry>,
}

#[derive(Debug, Clone)]
struct Entry {
    delay: Duration,
    updated: Timestamp,
}

impl Backoff {
    /// No key is backed off yet.
    pub fn new(initial: Duration, max: Duration) -> Self {
        Backoff {
            initial,
            max,
            entries: HashMap::new(),
        }
    }

    /// How long a key must still wait after an event at `since`; `None` when it may go on.
    pub fn remaining(&self, key: &str, since: Timestamp, now: Timestamp) -> Option<Duration> {
        let entry = self.entries.get(key)?;
        if self.expired(since, now) {
            return None;
        }
        let elapsed = Duration::try_from(now.duration_since(since)).unwrap_or_default();
        entry
            .delay
            .checked_sub(elapsed)
            .filter(|left| !left.is_zero())
    }

    /// The key's present delay; zero before the first failure.
    pub fn delay(&self, key: &str) -> Duration {
        self.entries
            .get(key)
            .map_or(Duration::ZERO, |entry| entry.delay)
    }

    /// Records one more failure: the delay starts, or doubles up to the ceiling.
    pub fn advance(&mut self, key: &str, now: Timestamp) {
        let next = match self.entries.get(key) {
            Some(entry) if !self.expired(entry.updated, now) => {
                entry.delay.saturating_mul(2).min(self.max)
            }
            _ => self.initial.min(self.max),
        };
        self.entries.insert(
            key.to_owned(),
            Entry {
                delay: next,
                updated: now,
            },
        );
    }

    /// Forgets a key after it succeeded.
    pub fn reset(&mut self, key: &str) {
        self.entries.remove(key);
    }

    fn expired(&self, since: Timestamp, now: Timestamp) -> bool {
        let elapsed = Duration::try_from(now.duration_since(since)).unwrap_or_default();
        elapsed > self.max.saturating_mul(2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn delays_double_to_the_ceiling_and_expire() {
        let mut backoff = Backoff::new(Duration::from_secs(10), Duration::from_secs(300));
        assert_eq!(backoff.remaining("web", at(0), at(0)), None);
        let mut delays = Vec::new();
        for second in 0..7 {
            backoff.advance("web", at(second));
            delays.push(backoff.delay("web").as_secs());
        }
        assert_eq!(delays, [10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(
            backoff.remaining("web", at(100), at(150)),
            Some(Duration::from_secs(250))
        );
        assert_eq!(backoff.remaining("web", at(100), at(400)), None);
        assert_eq!(backoff.remaining("other", at(100), at(101)), None);
        // Quiet for more than twice the ceiling: anew.
        backoff.advance("web", at(2000));
        assert_eq!(backoff.delay("web").as_secs(), 10);
    }

    #[test]
    fn clock_going_back_waits_the_whole_delay() {
        let mut backoff = Backoff::new(Duration::from_secs(10), Duration::from_secs(300));
        backoff.advance("web", at(100));
        assert_eq!(
            backoff.remaining("web", at(100), at(90)),
            Some(Duration::from_secs(10))
        );
    }
}
