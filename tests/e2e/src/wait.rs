//! Waiting for a condition, never for a length of time.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use hull_timeouts::{scaled, timeout_scale};

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(250);

/// Calls `look` until it finds it (`Ok(Ok(_))`). Fails after `seconds` (scaled), with
/// what `look` said last.
pub fn until<T>(
    what: &str,
    seconds: u64,
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
        std::thread::sleep(POLL);
    }
}
