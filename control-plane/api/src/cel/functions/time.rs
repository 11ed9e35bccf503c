//! Moments and durations.

use jiff::{SignedDuration, Timestamp, tz::TimeZone};

use super::Outcome;
use crate::{
    cel::{eval::failed, value::Value},
    time,
};

/// Reads Go's form of durations: `1h2m3.5s`.
pub(in crate::cel) fn parse_duration(text: &str) -> Option<SignedDuration> {
    const UNITS: [(&str, f64); 7] = [
        ("ns", 1e-9),
        ("us", 1e-6),
        ("µs", 1e-6),
        ("ms", 1e-3),
        ("s", 1.0),
        ("m", 60.0),
        ("h", 3600.0),
    ];
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(SignedDuration::ZERO);
    }
    let mut total = SignedDuration::ZERO;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        let tail = &rest[end..];
        let length = tail
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(tail.len());
        let (_, factor) = UNITS.iter().find(|(unit, _)| *unit == &tail[..length])?;
        let part = SignedDuration::try_from_secs_f64(number * factor).ok()?;
        total = total.checked_add(part)?;
        rest = &tail[length..];
    }
    Some(if negative { -total } else { total })
}

pub(super) fn convert<'a>(name: &str, value: &Value<'a>) -> Option<Outcome<'a>> {
    Some(match (name, value) {
        ("timestamp", Value::Timestamp(_)) | ("duration", Value::Duration(_)) => Ok(value.clone()),
        ("timestamp", Value::String(text)) => time::parse(text.as_str())
            .map(Value::Timestamp)
            .ok_or_else(|| {
                failed(format!(
                    "type conversion error from string to timestamp: {}",
                    text.as_str()
                ))
            }),
        ("timestamp", Value::Int(seconds)) => Timestamp::from_second(*seconds)
            .map(Value::Timestamp)
            .map_err(|_| failed("timestamp overflow")),
        ("duration", Value::String(text)) => parse_duration(text.as_str())
            .map(Value::Duration)
            .ok_or_else(|| {
                failed(format!(
                    "type conversion error from string to duration: {}",
                    text.as_str()
                ))
            }),
        _ => return None,
    })
}

fn zone(argument: Option<&Value<'_>>) -> Option<TimeZone> {
    match argument {
        None => Some(TimeZone::UTC),
        Some(Value::String(name)) => match name.as_str() {
            "UTC" => Some(TimeZone::UTC),
            name => TimeZone::get(name).ok().or_else(|| offset(name)),
        },
        Some(_) => None,
    }
}

/// `+02:00`.
fn offset(text: &str) -> Option<TimeZone> {
    let (sign, rest) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let (hours, minutes) = rest.split_once(':')?;
    let seconds = (hours.parse::<i32>().ok()?.checked_mul(60)? + minutes.parse::<i32>().ok()?)
        .checked_mul(60)?;
    let offset = jiff::tz::Offset::from_seconds(sign * seconds).ok()?;
    Some(TimeZone::fixed(offset))
}

pub(super) fn call<'a>(name: &str, values: &[Value<'a>]) -> Option<Outcome<'a>> {
    let (first, arguments) = values.split_first()?;
    let number = match first {
        Value::Duration(duration) if arguments.is_empty() => match name {
            "getHours" => duration.as_hours(),
            "getMinutes" => duration.as_mins(),
            "getSeconds" => duration.as_secs(),
            "getMilliseconds" => i64::from(duration.subsec_millis()),
            _ => return None,
        },
        Value::Timestamp(moment) => {
            let at = moment.to_zoned(zone(arguments.first())?);
            match name {
                "getFullYear" => i64::from(at.year()),
                "getMonth" => i64::from(at.month()) - 1,
                "getDate" => i64::from(at.day()),
                "getDayOfMonth" => i64::from(at.day()) - 1,
                "getDayOfWeek" => i64::from(at.weekday().to_sunday_zero_offset()),
                "getDayOfYear" => i64::from(at.day_of_year()) - 1,
                "getHours" => i64::from(at.hour()),
                "getMinutes" => i64::from(at.minute()),
                "getSeconds" => i64::from(at.second()),
                "getMilliseconds" => i64::from(at.millisecond()),
                _ => return None,
            }
        }
        _ => return None,
    };
    Some(Ok(Value::Int(number)))
}
