//! Numbers that may be given as a share.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// The number, or the share of `total`. A text that is no percentage counts as 0; the API server
/// lets none through.
pub(crate) fn resolve(value: &IntOrString, total: i32, round_up: bool) -> i32 {
    match value {
        IntOrString::Int(count) => *count,
        IntOrString::String(text) => share(text, total, round_up).unwrap_or(0),
    }
}

fn share(text: &str, total: i32, round_up: bool) -> Option<i32> {
    let percent: i64 = text.strip_suffix('%')?.parse().ok()?;
    let share = percent * i64::from(total);
    let rounded = if round_up {
        (share + 99).div_euclid(100)
    } else {
        share.div_euclid(100)
    };
    i32::try_from(rounded).ok()
}
