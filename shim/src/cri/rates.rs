//! CPU rates: the difference of two measurements of a growing counter.

use parking_lot::Mutex;
use std::collections::HashMap;

/// Measurements closer together than this say nothing about a rate, nanoseconds.
const MIN_INTERVAL_NS: i64 = 100_000_000;
/// Rates of objects that nobody asked for so long are forgotten, nanoseconds.
const FORGET_AFTER_NS: i64 = 15 * 60 * 1_000_000_000;

struct Sample {
    at_ns: i64,
    usage_ns: u64,
    rate: Option<u64>,
}

/// The last measurement of each object.
#[derive(Default)]
pub struct Rates {
    samples: Mutex<HashMap<String, Sample>>,
}

impl Rates {
    /// Nanoseconds of CPU time per second since the object's last measurement; `None`
    /// when this is the first.
    pub fn cpu(&self, id: &str, at_ns: i64, usage_ns: u64) -> Option<u64> {
        let mut samples = self.samples.lock();
        samples.retain(|_, sample| at_ns - sample.at_ns < FORGET_AFTER_NS);
        let Some(last) = samples.get_mut(id) else {
            let first = Sample {
                at_ns,
                usage_ns,
                rate: None,
            };
            samples.insert(id.to_string(), first);
            return None;
        };
        let elapsed = at_ns - last.at_ns;
        if elapsed < MIN_INTERVAL_NS {
            return last.rate;
        }
        let used = u128::from(usage_ns.saturating_sub(last.usage_ns));
        let rate = used * 1_000_000_000 / elapsed.unsigned_abs() as u128;
        *last = Sample {
            at_ns,
            usage_ns,
            rate: u64::try_from(rate).ok(),
        };
        last.rate
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    #[test]
    fn a_rate_needs_two_measurements() {
        let rates = Rates::default();
        assert_eq!(rates.cpu("a", SECOND, 5), None);
        assert_eq!(rates.cpu("a", 3 * SECOND, 1_000_000_005), Some(500_000_000));
        let again = rates.cpu("a", 3 * SECOND + 1, 9_000_000_000);
        assert_eq!(again, Some(500_000_000), "too soon for another");
        assert_eq!(rates.cpu("b", 4 * SECOND, 1), None);
    }

    #[test]
    fn a_counter_that_starts_again_gives_no_nonsense() {
        let rates = Rates::default();
        rates.cpu("a", SECOND, 1000);
        assert_eq!(rates.cpu("a", 2 * SECOND, 10), Some(0));
    }
}
