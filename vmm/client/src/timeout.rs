//! Time-outs that assume the speed of hardware, scaled where VMs run under emulation.

use std::time::Duration;

/// `HULL_TIMEOUT_SCALE` (a number, 1 when absent or not positive) times `timeout`.
pub fn scaled(timeout: Duration) -> Duration {
    let factor = std::env::var("HULL_TIMEOUT_SCALE")
        .ok()
        .and_then(|text| text.parse::<f64>().ok())
        .filter(|factor| factor.is_finite() && *factor > 0.0)
        .unwrap_or(1.0);
    Duration::try_from_secs_f64(timeout.as_secs_f64() * factor).unwrap_or(Duration::MAX)
}
