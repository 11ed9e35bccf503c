//! The values of `format` that are checked; any other is a comment.

use std::net::{Ipv4Addr, Ipv6Addr};

use base64::{Engine, engine::general_purpose::STANDARD};

use crate::{names, time};

/// A text has a format; formats that are not known hold for every text.
pub(crate) fn holds(format: &str, text: &str) -> bool {
    match format {
        "date-time" | "datetime" => time::parse(text).is_some(),
        "date" => text.parse::<jiff::civil::Date>().is_ok() && text.len() == 10,
        "duration" => is_duration(text),
        "ipv4" => text.parse::<Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<Ipv6Addr>().is_ok(),
        "cidr" => names::is_cidr(text),
        "mac" => is_mac(text),
        "uri" => is_uri(text),
        "hostname" => is_hostname(text),
        "email" => is_email(text),
        "uuid" | "uuid3" | "uuid4" | "uuid5" => is_uuid(format, text),
        "byte" => STANDARD.decode(text).is_ok(),
        "hexcolor" => is_hex_color(text),
        "k8s-short-name" => names::label(text).is_empty(),
        "k8s-long-name" => names::subdomain(text).is_empty(),
        _ => true,
    }
}

/// Go's durations (`1h2m3.5s`), and a number with a word (`3 days`).
fn is_duration(text: &str) -> bool {
    const UNITS: [&str; 8] = ["ns", "us", "µs", "ms", "s", "m", "h", "d"];
    const WORDS: [&str; 12] = [
        "nanosecond",
        "nano",
        "microsecond",
        "micro",
        "millisecond",
        "milli",
        "second",
        "sec",
        "minute",
        "hour",
        "day",
        "week",
    ];
    if let Some((number, word)) = text.trim().split_once(' ') {
        let word = word.trim().trim_end_matches('s').to_lowercase();
        return number.parse::<f64>().is_ok() && WORDS.contains(&word.as_str());
    }
    let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    if rest == "0" {
        return true;
    }
    if rest.is_empty() {
        return false;
    }
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let (number, tail) = rest.split_at(digits);
        if number.parse::<f64>().is_err() {
            return false;
        }
        let unit = tail
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(tail.len());
        if !UNITS.contains(&&tail[..unit]) {
            return false;
        }
        rest = &tail[unit..];
    }
    true
}

fn is_mac(text: &str) -> bool {
    let separator = if text.contains('-') { '-' } else { ':' };
    let parts: Vec<&str> = text.split(separator).collect();
    matches!(parts.len(), 6 | 8 | 20)
        && parts
            .iter()
            .all(|part| part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// RFC 3986: a scheme and something behind it, or an absolute path.
fn is_uri(text: &str) -> bool {
    if text.is_empty() || text.chars().any(|c| c.is_control() || c == ' ') {
        return false;
    }
    if text.starts_with('/') {
        return true;
    }
    match text.split_once(':') {
        Some((scheme, rest)) => {
            !rest.is_empty()
                && scheme.starts_with(|c: char| c.is_ascii_alphabetic())
                && scheme
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
        }
        None => false,
    }
}

fn is_hostname(text: &str) -> bool {
    let text = text.strip_suffix('.').unwrap_or(text);
    !text.is_empty()
        && text.len() <= 253
        && text.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.chars().all(|c| c.is_alphanumeric() || c == '-')
        })
}

fn is_email(text: &str) -> bool {
    text.rsplit_once('@').is_some_and(|(user, host)| {
        !user.is_empty()
            && !user
                .chars()
                .any(|c| c.is_whitespace() || c.is_control() || c == '@')
            && is_hostname(host)
    })
}

fn is_uuid(format: &str, text: &str) -> bool {
    let Ok(uuid) = uuid::Uuid::parse_str(text) else {
        return false;
    };
    match format {
        "uuid3" => uuid.get_version_num() == 3,
        "uuid4" => uuid.get_version_num() == 4,
        "uuid5" => uuid.get_version_num() == 5,
        _ => true,
    }
}

fn is_hex_color(text: &str) -> bool {
    let digits = text.strip_prefix('#').unwrap_or(text);
    matches!(digits.len(), 3 | 6) && digits.bytes().all(|b| b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_formats_are_checked_and_others_are_not() {
        for (format, good, bad) in [
            ("date-time", "2026-01-01T00:00:00Z", "yesterday"),
            ("date", "2026-02-28", "2026-02-30"),
            ("duration", "1h2m3.5s", "1x"),
            ("duration", "3 days", "three days"),
            ("ipv4", "10.0.0.1", "10.0.0"),
            ("ipv6", "::1", "10.0.0.1"),
            ("cidr", "10.0.0.0/8", "10.0.0.0/40"),
            ("mac", "00:11:22:aa:bb:cc", "00:11"),
            ("uri", "https://a/b", "not a uri"),
            ("hostname", "a.example.com", "-a"),
            ("email", "a@b.c", "a"),
            ("uuid4", "2c5ea4c0-4067-41e9-8bad-9b1deb4d3b7d", "x"),
            ("byte", "YQ==", "*"),
            ("hexcolor", "#fff", "#ff"),
        ] {
            assert!(holds(format, good), "{format} {good}");
            assert!(!holds(format, bad), "{format} {bad}");
        }
        assert!(holds("no-such-format", "anything"));
    }
}
