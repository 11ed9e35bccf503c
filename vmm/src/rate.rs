//! Rate limits of a device: token buckets for bytes and for operations, and a timer that
//! wakes the device when there are tokens again.
//!
//! A bucket is asked before an operation and pays after it: an operation larger than the
//! bucket is let through and leaves a debt, so no size ever blocks for good.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant};

use hull_vmm_client::rate::{Rate, RateLimits};
use vmm_sys_util::timerfd::TimerFd;

const NANOSECONDS: i128 = 1_000_000_000;
/// Least wait: a timer of 0 would never fire.
const MIN_WAIT: Duration = Duration::from_micros(1);

/// Tokens, in billionths: what one nanosecond brings is a whole number then.
#[derive(Debug)]
struct Bucket {
    per_second: u64,
    most: i128,
    tokens: i128,
    filled: Instant,
}

impl Bucket {
    fn new(rate: Rate, now: Instant) -> Self {
        let most = i128::from(rate.burst.unwrap_or(rate.per_second).max(1)) * NANOSECONDS;
        Self {
            per_second: rate.per_second.max(1),
            most,
            tokens: most,
            filled: now,
        }
    }

    fn fill(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.filled).as_nanos();
        let elapsed = i128::try_from(elapsed).unwrap_or(i128::MAX);
        let gained = elapsed.saturating_mul(i128::from(self.per_second));
        self.tokens = self.tokens.saturating_add(gained).min(self.most);
        self.filled = now;
    }

    /// How long until there is a whole token; `None` when there is.
    fn wait(&self) -> Option<Duration> {
        let missing = NANOSECONDS.saturating_sub(self.tokens);
        if missing <= 0 {
            return None;
        }
        let nanoseconds = missing / i128::from(self.per_second) + 1;
        Some(Duration::from_nanos(
            u64::try_from(nanoseconds).unwrap_or(u64::MAX),
        ))
    }

    fn spend(&mut self, amount: u64) {
        self.tokens = self.tokens.saturating_sub(i128::from(amount) * NANOSECONDS);
    }
}

/// See the module.
pub struct RateLimiter {
    bytes: Option<Bucket>,
    operations: Option<Bucket>,
    timer: TimerFd,
    armed: bool,
}

impl RateLimiter {
    /// With these limits.
    pub fn new(limits: RateLimits) -> io::Result<Self> {
        let timer = TimerFd::new()?;
        let mut limiter = Self {
            bytes: None,
            operations: None,
            timer,
            armed: false,
        };
        limiter.set(limits, Instant::now());
        Ok(limiter)
    }

    /// Replaces the limits. What waits for the old ones is woken by the caller.
    pub fn set(&mut self, limits: RateLimits, now: Instant) {
        // Set anew by who waits again.
        self.armed = false;
        self.bytes = limits.bytes.map(|rate| Bucket::new(rate, now));
        self.operations = limits.operations.map(|rate| Bucket::new(rate, now));
    }

    /// Whether an operation may begin. If not, the timer fires when one may.
    pub fn admits(&mut self) -> bool {
        if self.bytes.is_none() && self.operations.is_none() {
            return true;
        }
        let now = Instant::now();
        let Some(wait) = self.wait(now) else {
            return true;
        };
        if !self.armed {
            // It fails only for times that are none; the device then goes on unlimited
            // rather than not at all.
            self.armed = self.timer.reset(wait.max(MIN_WAIT), None).is_ok();
        }
        !self.armed
    }

    fn wait(&mut self, now: Instant) -> Option<Duration> {
        let buckets = [&mut self.bytes, &mut self.operations];
        buckets
            .into_iter()
            .flatten()
            .filter_map(|bucket| {
                bucket.fill(now);
                bucket.wait()
            })
            .max()
    }

    /// Pays for an operation.
    pub fn spend(&mut self, bytes: u64) {
        if let Some(bucket) = &mut self.bytes {
            bucket.spend(bytes);
        }
        if let Some(bucket) = &mut self.operations {
            bucket.spend(1);
        }
    }

    /// The timer fired.
    pub fn fired(&mut self) {
        // Watched edge-triggered, and set anew before it is waited for again: nothing needs
        // to be read.
        self.armed = false;
    }
}

impl AsRawFd for RateLimiter {
    fn as_raw_fd(&self) -> RawFd {
        self.timer.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limiter(bytes: Option<(u64, u64)>, operations: Option<(u64, u64)>) -> RateLimiter {
        let rate = |pair: (u64, u64)| Rate {
            per_second: pair.0,
            burst: Some(pair.1),
        };
        RateLimiter::new(RateLimits {
            bytes: bytes.map(rate),
            operations: operations.map(rate),
        })
        .unwrap()
    }

    #[test]
    fn a_burst_passes_and_then_the_rate_holds() {
        let mut limiter = limiter(Some((1000, 500)), None);
        let start = Instant::now();
        limiter.set(
            RateLimits {
                bytes: Some(Rate {
                    per_second: 1000,
                    burst: Some(500),
                }),
                operations: None,
            },
            start,
        );
        let mut passed = 0;
        for millisecond in 0..10_000 {
            let now = start + Duration::from_millis(millisecond);
            if limiter.wait(now).is_none() {
                limiter.spend(100);
                passed += 100;
            }
        }
        // The burst, ten seconds at the rate, and at most one operation of debt.
        assert!((10_400..=10_700).contains(&passed), "{passed}");
    }

    #[test]
    fn an_operation_larger_than_the_bucket_passes_and_is_paid_for_later() {
        let mut limiter = limiter(Some((1000, 10)), None);
        let now = Instant::now();
        assert_eq!(limiter.wait(now), None);
        limiter.spend(5000);
        let wait = limiter.wait(now).unwrap();
        assert!(wait > Duration::from_millis(4900) && wait < Duration::from_millis(5010));
        assert_eq!(limiter.wait(now + Duration::from_secs(6)), None);
    }

    #[test]
    fn the_tighter_of_both_limits_counts() {
        let mut limiter = limiter(Some((1_000_000, 1_000_000)), Some((10, 1)));
        let now = Instant::now();
        limiter.spend(1);
        limiter.spend(1);
        let wait = limiter.wait(now).unwrap();
        assert!(wait > Duration::from_millis(80), "{wait:?}");
    }

    #[test]
    fn the_timer_wakes_who_waits_and_no_limit_never_does() {
        let mut free = limiter(None, None);
        free.spend(u64::MAX);
        assert!(free.admits());
        let mut limiter = limiter(None, Some((1000, 1)));
        // However slow this is, it spends faster than a thousand times a second.
        while limiter.admits() {
            limiter.spend(1);
        }
        let mut poll = libc::pollfd {
            fd: limiter.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one valid pollfd.
        assert_eq!(unsafe { libc::poll(&raw mut poll, 1, 5000) }, 1);
        limiter.fired();
        assert!(limiter.admits());
    }

    #[test]
    fn extreme_rates_do_not_overflow() {
        let mut limiter = limiter(Some((u64::MAX, u64::MAX)), Some((0, 0)));
        let now = Instant::now();
        for _ in 0..100 {
            limiter.spend(u64::MAX);
        }
        assert!(limiter.wait(now).is_some());
        limiter.wait(now + Duration::from_secs(1 << 30));
    }
}
