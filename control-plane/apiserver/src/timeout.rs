//! How long a request may take that does not last: as long as the server allows, or less where
//! the client says so (`?timeout=`).

use std::{future::Future, time::Duration};

use http::Response;
use hull_api::{ApiError, status::Reason};

use crate::{ApiBody, http::RequestInfo};

/// The answer, or an error when the request's time is over. A write may have happened all the
/// same.
pub(crate) async fn in_time(
    info: &RequestInfo,
    most: Duration,
    answered: impl Future<Output = Result<Response<ApiBody>, ApiError>>,
) -> Result<Response<ApiBody>, ApiError> {
    let limit = match info.query.get("timeout") {
        "" => most,
        text => asked(text)
            .map_err(refused)?
            .map_or(most, |asked| asked.min(most)),
    };
    match tokio::time::timeout(limit, answered).await {
        Ok(outcome) => outcome,
        Err(_) => Err(ApiError::new(
            Reason::Timeout,
            "Timeout: request did not complete within the allotted timeout",
        )),
    }
}

fn refused(why: String) -> ApiError {
    ApiError::bad_request(format!(
        "invalid timeout specified in the request URL - time: {why}"
    ))
}

/// `10s`, `1m30s`, `500ms`, `.5h`: as Go's `time.ParseDuration` reads it, and in its words what
/// is wrong. `None`, of what is not above zero: the client does not care.
fn asked(text: &str) -> Result<Option<Duration>, String> {
    let invalid = || format!("invalid duration {text:?}");
    let negative = text.starts_with('-');
    let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    if rest == "0" {
        return Ok(None);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let is_number = |c: char| c.is_ascii_digit() || c == '.';
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let (number, tail) = split(rest, |c| !is_number(c));
        let number: f64 = number.parse().map_err(|_| invalid())?;
        let (unit, tail) = split(tail, is_number);
        let seconds = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" | "μs" => 1e-6,
            "ns" => 1e-9,
            "" => return Err(format!("missing unit in duration {text:?}")),
            _ => return Err(format!("unknown unit {unit:?} in duration {text:?}")),
        };
        let part = Duration::try_from_secs_f64(number * seconds).map_err(|_| invalid())?;
        total = total.checked_add(part).ok_or_else(invalid)?;
        rest = tail;
    }
    Ok((!negative && !total.is_zero()).then_some(total))
}

/// Splits before the first character that ends the part.
fn split(text: &str, ends: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(ends).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_reads_them() {
        for (text, millis) in [
            ("10s", Some(10_000)),
            ("1m30s", Some(90_000)),
            ("1.5s", Some(1500)),
            (".5s", Some(500)),
            ("+2ms", Some(2)),
            ("2000000ns", Some(2)),
            ("0", None),
            ("0s", None),
            ("-5s", None),
        ] {
            assert_eq!(asked(text), Ok(millis.map(Duration::from_millis)), "{text}");
        }
        for (text, why) in [
            ("soon", "invalid duration \"soon\""),
            ("", "invalid duration \"\""),
            ("-", "invalid duration \"-\""),
            ("1..5s", "invalid duration \"1..5s\""),
            ("10", "missing unit in duration \"10\""),
            ("10x", "unknown unit \"x\" in duration \"10x\""),
            ("1s 2s", "unknown unit \"s \" in duration \"1s 2s\""),
            (
                "999999999999999999999h",
                "invalid duration \"999999999999999999999h\"",
            ),
        ] {
            assert_eq!(asked(text), Err(why.to_owned()));
        }
    }
}
