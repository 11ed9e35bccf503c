//! The one place that reads `HULL_TIMEOUT_SCALE`. It depends on nothing, so that the VMM, the
//! agent, the shim, the control plane and the tests all can depend on it.
//!
//! Machines that emulate their virtual CPUs are many times slower than hardware. Every time-out
//! that assumes hardware speed is multiplied by that variable; `hull-testnode exec` sets it.

use std::sync::OnceLock;
use std::time::Duration;

/// The environment variable that multiplies every time-out which assumes hardware speed.
pub const TIMEOUT_SCALE_VARIABLE: &str = "HULL_TIMEOUT_SCALE";

/// The smallest and the largest factor that is taken for one.
const RANGE: std::ops::RangeInclusive<f64> = 0.01..=1000.0;

/// The factor: 1 unless [`TIMEOUT_SCALE_VARIABLE`] holds a number from 0.01 to 1000. Read once.
pub fn timeout_scale() -> f64 {
    static SCALE: OnceLock<f64> = OnceLock::new();
    *SCALE.get_or_init(|| parse(std::env::var(TIMEOUT_SCALE_VARIABLE).ok().as_deref()))
}

fn parse(value: Option<&str>) -> f64 {
    value
        .and_then(|text| text.trim().parse().ok())
        .filter(|factor| RANGE.contains(factor))
        .unwrap_or(1.0)
}

/// `timeout` on hardware, longer where [`timeout_scale`] says so.
pub fn scaled(timeout: Duration) -> Duration {
    times(timeout, timeout_scale())
}

fn times(timeout: Duration, factor: f64) -> Duration {
    Duration::try_from_secs_f64(timeout.as_secs_f64() * factor).unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonsense_counts_as_one() {
        for text in ["", "x", "-3", "0", "inf", "NaN", "0.001", "1e9"] {
            assert_eq!(parse(Some(text)), 1.0, "{text:?}");
        }
        assert_eq!(parse(None), 1.0);
        assert_eq!(parse(Some("2.5")), 2.5);
        assert_eq!(parse(Some(" 10\n")), 10.0);
    }

    #[test]
    fn a_time_out_that_no_duration_can_hold_is_the_longest() {
        assert_eq!(times(Duration::from_secs(3), 2.5).as_millis(), 7500);
        assert_eq!(times(Duration::MAX, 10.0), Duration::MAX);
    }
}
