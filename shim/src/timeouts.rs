//! Time-outs, and the one place that reads `HULL_TIMEOUT_SCALE`.
//!
//! Machines that emulate their virtual CPUs are many times slower than hardware.
//! Every time-out that assumes hardware speed is multiplied by that variable.

use std::sync::OnceLock;
use std::time::Duration;

/// Name of the environment variable.
pub const SCALE_VARIABLE: &str = "HULL_TIMEOUT_SCALE";

/// The factor: 1 unless the variable holds a positive number.
pub fn scale() -> f64 {
    static SCALE: OnceLock<f64> = OnceLock::new();
    *SCALE.get_or_init(|| parse(std::env::var(SCALE_VARIABLE).ok().as_deref()))
}

fn parse(value: Option<&str>) -> f64 {
    value
        .and_then(|text| text.trim().parse::<f64>().ok())
        .filter(|factor| factor.is_finite() && *factor > 0.0)
        .unwrap_or(1.0)
}

/// `base` on hardware, longer where [`scale`] says so.
pub fn scaled(base: Duration) -> Duration {
    base.mul_f64(scale())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonsense_counts_as_one() {
        for text in [
            None,
            Some(""),
            Some("x"),
            Some("-3"),
            Some("0"),
            Some("inf"),
        ] {
            assert_eq!(parse(text), 1.0, "{text:?}");
        }
        assert_eq!(parse(Some("2.5")), 2.5);
    }
}
