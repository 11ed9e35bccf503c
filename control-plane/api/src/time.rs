//! Times on the wire and ages for people.

use jiff::Timestamp;

/// `2006-01-02T15:04:05Z`: `metav1.Time`.
pub fn to_seconds(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// `2006-01-02T15:04:05.000000Z`: `metav1.MicroTime`.
pub fn to_micros(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

/// Reads RFC 3339.
pub fn parse(text: &str) -> Option<Timestamp> {
    text.parse().ok()
}

/// The age of something that began at `since`, as kubectl prints it.
pub fn age(since: &str, now: Timestamp) -> String {
    match parse(since) {
        Some(since) => human_duration(now.as_second() - since.as_second()),
        None => "<unknown>".to_string(),
    }
}

/// `3m12s`, `5d`: at most two units (`k8s.io/apimachinery/pkg/util/duration`).
pub fn human_duration(seconds: i64) -> String {
    fn pair(large: i64, unit: char, small: i64, small_unit: char) -> String {
        match small {
            0 => format!("{large}{unit}"),
            small => format!("{large}{unit}{small}{small_unit}"),
        }
    }
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    match seconds {
        s if s < -1 => "<invalid>".to_string(),
        s if s < 0 => "0s".to_string(),
        s if s < 120 => format!("{s}s"),
        s if minutes < 10 => pair(minutes, 'm', s % 60, 's'),
        _ if minutes < 180 => format!("{minutes}m"),
        _ if hours < 8 => pair(hours, 'h', minutes % 60, 'm'),
        _ if hours < 48 => format!("{hours}h"),
        _ if hours < 24 * 8 => pair(hours / 24, 'd', hours % 24, 'h'),
        _ if hours < 24 * 365 * 2 => format!("{}d", hours / 24),
        _ if hours < 24 * 365 * 8 => pair(hours / 24 / 365, 'y', hours / 24 % 365, 'd'),
        _ => format!("{}y", hours / 24 / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_short() {
        for (seconds, text) in [
            (-5, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (125, "2m5s"),
            (600, "10m"),
            (3 * 3600, "3h"),
            (3 * 3600 + 60, "3h1m"),
            (9 * 3600, "9h"),
            (49 * 3600, "2d1h"),
            (8 * 86400, "8d"),
            (3 * 365 * 86400, "3y"),
        ] {
            assert_eq!(human_duration(seconds), text, "{seconds}");
        }
    }

    #[test]
    fn times_have_fixed_digits() {
        let time = parse("2026-11-22T05:00:00.5+01:00").unwrap();
        assert_eq!(to_seconds(time), "2026-11-22T04:00:00Z");
        assert_eq!(to_micros(time), "2026-11-22T04:00:00.500000Z");
    }
}
