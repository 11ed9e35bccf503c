//! Waiting for a condition, never for a length of time.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use hull_timeouts::{scaled, timeout_scale};

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(250);
/// How often one that may pass is looked at.
const CLOSE_POLL: Duration = Duration::from_millis(10);

/// Calls `look` until it finds it (`Ok(Ok(_))`). Fails after `seconds` (scaled), with
/// what `look` said last.
pub fn until<T>(
    what: &str,
    seconds: u64,
    look: impl FnMut() -> Result<Result<T, String>>,
) -> Result<T> {
    poll(what, seconds, POLL, look)
}

/// [`until`] for what holds for a moment only, and costs little to look at.
pub fn closely<T>(
    what: &str,
    seconds: u64,
    look: impl FnMut() -> Result<Result<T, String>>,
) -> Result<T> {
    poll(what, seconds, CLOSE_POLL, look)
}

fn poll<T>(
    what: &str,
    seconds: u64,
    pause: Duration,
    mut look: impl FnMut() -> Result<Result<T, String>>,
) -> Result<T> {
    let deadline = Instant::now() + scaled(Duration::from_secs(seconds));
    loop {
        let last = match look()? {
            Ok(found) => return Ok(found),
            Err(seen) => seen,
        };
        if Instant::now() > deadline {
            bail!(
                "waited {seconds} s (times {}) for {what}; last seen: {last}",
                timeout_scale()
            );
        }
        std::thread::sleep(pause);
    }
}
