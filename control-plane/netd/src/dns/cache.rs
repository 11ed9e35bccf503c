//! Answers of upstream servers, kept as long as they say, within bounds.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::wire::{self, Lifetimes};

/// Answers kept at most.
const CAPACITY: usize = 10_000;
/// A positive answer is kept this long at most.
const POSITIVE_LIMIT: Duration = Duration::from_secs(300);
/// A negative answer is kept this long at most.
const NEGATIVE_LIMIT: Duration = Duration::from_secs(30);
/// NXDOMAIN.
const NO_NAME: u8 = 3;

/// What tells answers apart: the question in lower case, and whether it came with EDNS.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key {
    question: Vec<u8>,
    edns: bool,
}

impl Key {
    /// Of a query with one question.
    pub fn of(query: &[u8], edns: bool) -> Option<Self> {
        let end = wire::after_question(query)?;
        Some(Key {
            question: query[wire::HEADER..end].to_ascii_lowercase(),
            edns,
        })
    }
}

struct Entry {
    response: Vec<u8>,
    lifetimes: Lifetimes,
    stored: Instant,
    until: Instant,
}

/// See the module.
#[derive(Default)]
pub struct Cache {
    entries: HashMap<Key, Entry>,
    /// Oldest first; may name entries that were replaced.
    order: VecDeque<(Instant, Key)>,
}

impl Cache {
    /// A kept answer, made fit for this query.
    pub fn get(&self, key: &Key, query: &[u8], now: Instant) -> Option<Vec<u8>> {
        let entry = self.entries.get(key).filter(|entry| now < entry.until)?;
        let mut response = entry.response.clone();
        let passed = now.duration_since(entry.stored).as_secs();
        let passed = u32::try_from(passed).unwrap_or(u32::MAX);
        wire::freshen(&mut response, query, &entry.lifetimes, passed);
        Some(response)
    }

    /// Keeps an answer that may be kept.
    pub fn put(&mut self, key: Key, response: &[u8], now: Instant) {
        let code = wire::response_code(response);
        let negative = code == NO_NAME || response.get(6..8) == Some(&[0, 0]);
        if (code != 0 && code != NO_NAME) || wire::is_truncated(response) {
            return;
        }
        let Some(lifetimes) = wire::lifetimes(response) else {
            return;
        };
        let limit = if negative {
            NEGATIVE_LIMIT
        } else {
            POSITIVE_LIMIT
        };
        let life = Duration::from_secs(lifetimes.shortest_s.into()).min(limit);
        if life.is_zero() {
            return;
        }
        while self.entries.len() >= CAPACITY || self.order.len() >= 2 * CAPACITY {
            let Some((stored, oldest)) = self.order.pop_front() else {
                break;
            };
            if self
                .entries
                .get(&oldest)
                .is_some_and(|e| e.stored == stored)
            {
                self.entries.remove(&oldest);
            }
        }
        self.order.push_back((now, key.clone()));
        let entry = Entry {
            response: response.to_vec(),
            lifetimes,
            stored: now,
            until: now + life,
        };
        self.entries.insert(key, entry);
    }

    /// How many answers are kept.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(name: u8) -> Vec<u8> {
        let mut bytes = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        bytes.extend([1, name, 0, 0, 1, 0, 1]);
        bytes
    }

    fn response(name: u8, code: u8, ttl: u8) -> Vec<u8> {
        let mut bytes = query(name);
        bytes[2..4].copy_from_slice(&[0x81, 0x80 | code]);
        bytes[7] = 1;
        bytes.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, ttl, 0, 4, 1, 2, 3, 4]);
        bytes
    }

    #[test]
    fn answers_live_as_long_as_they_say() {
        let (mut cache, now) = (Cache::default(), Instant::now());
        let key = Key::of(&query(b'a'), false).unwrap();
        cache.put(key.clone(), &response(b'a', 0, 10), now);
        let later = now + Duration::from_secs(4);
        let found = cache.get(&key, &query(b'a'), later).unwrap();
        assert_eq!(wire::lifetimes(&found).unwrap().shortest_s, 6);
        assert_eq!(
            cache.get(&key, &query(b'a'), now + Duration::from_secs(10)),
            None
        );
        let other = Key::of(&query(b'a'), true).unwrap();
        assert_eq!(cache.get(&other, &query(b'a'), later), None);
    }

    #[test]
    fn failures_are_not_kept() {
        let (mut cache, now) = (Cache::default(), Instant::now());
        let key = Key::of(&query(b'a'), false).unwrap();
        cache.put(key.clone(), &response(b'a', 2, 10), now);
        cache.put(key.clone(), &response(b'a', 0, 0), now);
        let mut cut = response(b'a', 0, 10);
        cut[2] |= 2;
        cache.put(key, &cut, now);
        assert!(cache.is_empty());
    }

    #[test]
    fn the_oldest_makes_room() {
        let (mut cache, now) = (Cache::default(), Instant::now());
        let key = |n: usize| Key {
            question: n.to_be_bytes().to_vec(),
            edns: false,
        };
        for n in 0..=CAPACITY {
            cache.put(key(n), &response(b'a', 0, 10), now);
        }
        assert_eq!(cache.len(), CAPACITY);
        assert!(!cache.entries.contains_key(&key(0)));
        assert!(cache.entries.contains_key(&key(CAPACITY)));
    }
}
