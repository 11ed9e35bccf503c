//! What every time-out that assumes a machine's speed is multiplied by.

/// The environment variable that multiplies every time-out which assumes hardware speed.
pub const TIMEOUT_SCALE_VARIABLE: &str = "HULL_TIMEOUT_SCALE";

/// Reads [`TIMEOUT_SCALE_VARIABLE`]; 1 when it is absent, unreadable or not positive.
pub fn timeout_scale() -> f64 {
    scale_of(std::env::var(TIMEOUT_SCALE_VARIABLE).ok().as_deref())
}

fn scale_of(text: Option<&str>) -> f64 {
    text.and_then(|text| text.parse::<f64>().ok())
        .filter(|scale| scale.is_finite() && *scale > 0.0)
        .unwrap_or(1.0)
}

#[cfg(test)]
mod tests {
    use super::scale_of;

    #[test]
    fn only_a_positive_number_is_a_scale() {
        assert_eq!(scale_of(Some("2.5")), 2.5);
        for none in [
            None,
            Some(""),
            Some("fast"),
            Some("0"),
            Some("-1"),
            Some("inf"),
            Some("NaN"),
        ] {
            assert_eq!(scale_of(none), 1.0, "{none:?}");
        }
    }
}
