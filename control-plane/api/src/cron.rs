//! Schedules of CronJobs: five fields, or a word such as `@daily`
//! (crontab(5), with the extensions of Kubernetes' parser).

use jiff::{Timestamp, ToSpan, civil::DateTime, tz::TimeZone};

/// How far ahead the next time is looked for: 29 February comes at least every eight years.
const HORIZON_YEARS: i16 = 9;

/// Why a text is no schedule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// It does not have five fields.
    #[error("expected exactly 5 fields, found {found}: [{fields}]")]
    Fields {
        /// How many there are.
        found: usize,
        /// The fields.
        fields: String,
    },
    /// `@` and an unknown word.
    #[error("unrecognized descriptor: {0}")]
    Descriptor(String),
    /// A field that is neither number, name, range nor step.
    #[error("failed to parse int from {0}: invalid syntax")]
    Number(String),
    /// A number outside of its field's range.
    #[error("value ({value}) out of range [{low}, {high}]: {text}")]
    Range {
        /// The number.
        value: u32,
        /// Smallest allowed.
        low: u32,
        /// Largest allowed.
        high: u32,
        /// The part of the field.
        text: String,
    },
    /// A range that ends before it begins.
    #[error("beginning of range ({0}) beyond end of range ({1}): {2}")]
    Backwards(u32, u32, String),
    /// A step of zero.
    #[error("step of range should be a positive number: {0}")]
    Step(String),
    /// `@every` and something that is no duration.
    #[error("failed to parse duration {0}")]
    Every(String),
}

/// When jobs are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Schedule {
    /// At the minutes that fit.
    Calendar(Calendar),
    /// Again and again after so many seconds.
    Every(i64),
}

/// Sets of minutes, hours, days and months, as bits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Calendar {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// Days of the month and of the week are both restricted: either fits.
    either_day: bool,
}

const MONTHS: [&str; 12] = [
    "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// What a field of the schedule may hold.
struct Bounds {
    low: u32,
    high: u32,
    names: &'static [&'static str],
}

impl Bounds {
    const fn numbers(low: u32, high: u32) -> Self {
        Bounds {
            low,
            high,
            names: &[],
        }
    }

    fn number(&self, text: &str) -> Result<u32, ScheduleError> {
        let lower = text.to_ascii_lowercase();
        if let Some(position) = self.names.iter().position(|name| *name == lower) {
            return Ok(u32::try_from(position).unwrap_or(0) + self.low);
        }
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        text.parse()
            .ok()
            .filter(|_| digits)
            .ok_or_else(|| ScheduleError::Number(text.to_string()))
    }

    /// The bits of a field, and whether it is unrestricted.
    fn parse(&self, field: &str) -> Result<(u64, bool), ScheduleError> {
        let (mut bits, mut star) = (0, false);
        for part in field.split(',') {
            let (range, step) = match part.split_once('/') {
                Some((range, step)) => (range, Some(step)),
                None => (part, None),
            };
            let (mut low, mut high) = match range.split_once('-') {
                _ if matches!(range, "*" | "?") => {
                    star |= step.is_none();
                    (self.low, self.high)
                }
                Some((low, high)) => (self.number(low)?, self.number(high)?),
                None => {
                    let number = self.number(range)?;
                    // `5/10` goes on to the end.
                    let high = if step.is_some() { self.high } else { number };
                    (number, high)
                }
            };
            // Sunday is 0 and also 7.
            if self.high == 6 && self.names.len() == 7 {
                if low == 7 && high == 7 {
                    (low, high) = (0, 0);
                } else if high == 7 && low < 7 {
                    bits |= 1;
                    high = 6;
                }
            }
            for value in [low, high] {
                if value < self.low || value > self.high {
                    return Err(ScheduleError::Range {
                        value,
                        low: self.low,
                        high: self.high,
                        text: part.to_string(),
                    });
                }
            }
            if low > high {
                return Err(ScheduleError::Backwards(low, high, part.to_string()));
            }
            let step = match step {
                None => 1,
                Some(text) => Bounds::numbers(0, u32::MAX).number(text)?,
            };
            let step = usize::try_from(step)
                .ok()
                .filter(|step| *step > 0)
                .ok_or_else(|| ScheduleError::Step(part.to_string()))?;
            for value in (low..=high).step_by(step) {
                bits |= 1_u64 << value;
            }
        }
        Ok((bits, star))
    }
}

impl Schedule {
    /// Reads a schedule.
    pub fn parse(text: &str) -> Result<Self, ScheduleError> {
        let text = text.trim();
        let fields = match text {
            "@yearly" | "@annually" => "0 0 1 1 *",
            "@monthly" => "0 0 1 * *",
            "@weekly" => "0 0 * * 0",
            "@daily" | "@midnight" => "0 0 * * *",
            "@hourly" => "0 * * * *",
            other => match other.strip_prefix("@every ") {
                Some(duration) => return every(duration),
                None if other.starts_with('@') => {
                    return Err(ScheduleError::Descriptor(other.to_string()));
                }
                None => other,
            },
        };
        let fields: Vec<&str> = fields.split_whitespace().collect();
        let [minute, hour, day, month, weekday] = fields.as_slice() else {
            return Err(ScheduleError::Fields {
                found: fields.len(),
                fields: fields.join(" "),
            });
        };
        let (days, any_day) = Bounds::numbers(1, 31).parse(day)?;
        let week = Bounds {
            low: 0,
            high: 6,
            names: &WEEKDAYS,
        };
        let (weekdays, any_weekday) = week.parse(weekday)?;
        let year = Bounds {
            low: 1,
            high: 12,
            names: &MONTHS,
        };
        Ok(Schedule::Calendar(Calendar {
            minutes: Bounds::numbers(0, 59).parse(minute)?.0,
            hours: Bounds::numbers(0, 23).parse(hour)?.0,
            days,
            months: year.parse(month)?.0,
            weekdays,
            either_day: !any_day && !any_weekday,
        }))
    }

    /// The first time after `after`; `None`: there is none (30 February).
    pub fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        match self {
            Schedule::Every(seconds) => {
                Timestamp::from_second(after.as_second().checked_add(*seconds)?).ok()
            }
            Schedule::Calendar(calendar) => calendar.next(after, zone),
        }
    }
}

/// `1h30m`, `90s`.
fn every(text: &str) -> Result<Schedule, ScheduleError> {
    let wrong = || ScheduleError::Every(text.to_string());
    let (mut seconds, mut number) = (0_i64, String::new());
    for character in text.trim().chars() {
        if character.is_ascii_digit() {
            number.push(character);
            continue;
        }
        let unit = match character {
            'h' => 3600,
            'm' => 60,
            's' => 1,
            _ => return Err(wrong()),
        };
        let amount: i64 = number.parse().map_err(|_| wrong())?;
        seconds = amount
            .checked_mul(unit)
            .and_then(|amount| seconds.checked_add(amount))
            .ok_or_else(wrong)?;
        number.clear();
    }
    if !number.is_empty() || seconds < 1 {
        return Err(wrong());
    }
    Ok(Schedule::Every(seconds))
}

impl Calendar {
    fn fits_day(&self, date: &DateTime) -> bool {
        let bit = |bits: u64, value: i8| bits >> value & 1 == 1;
        let day = bit(self.days, date.day());
        let weekday = bit(self.weekdays, date.weekday().to_sunday_zero_offset());
        if self.either_day {
            day || weekday
        } else {
            day && weekday
        }
    }

    fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let bit = |bits: u64, value: i8| bits >> value & 1 == 1;
        let start = zone.to_datetime(after);
        let mut at = start
            .with()
            .second(0)
            .subsec_nanosecond(0)
            .build()
            .ok()?
            .checked_add(1.minute())
            .ok()?;
        let last_year = start.year().checked_add(HORIZON_YEARS)?;
        while at.year() <= last_year {
            if !bit(self.months, at.month()) {
                at = at
                    .first_of_month()
                    .date()
                    .at(0, 0, 0, 0)
                    .checked_add(1.month())
                    .ok()?;
            } else if !self.fits_day(&at) {
                at = at.date().at(0, 0, 0, 0).checked_add(1.day()).ok()?;
            } else if !bit(self.hours, at.hour()) {
                at = at
                    .date()
                    .at(at.hour(), 0, 0, 0)
                    .checked_add(1.hour())
                    .ok()?;
            } else if !bit(self.minutes, at.minute()) {
                at = at.checked_add(1.minute()).ok()?;
            } else {
                let found = zone.to_timestamp(at).ok()?;
                if found > after {
                    return Some(found);
                }
                // The clock was set back: this minute was there already.
                at = at.checked_add(1.minute()).ok()?;
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(schedule: &str, after: &str) -> Option<String> {
        let after = after.parse().unwrap();
        Schedule::parse(schedule)
            .unwrap()
            .next(after, &TimeZone::UTC)
            .map(|found| found.to_string())
    }

    #[test]
    fn the_next_time_follows_from_the_fields() {
        for (schedule, after, expected) in [
            ("* * * * *", "2026-11-22T08:00:30Z", "2026-11-22T08:01:00Z"),
            (
                "*/15 * * * *",
                "2026-11-22T08:45:00Z",
                "2026-11-22T09:00:00Z",
            ),
            ("0 3 * * *", "2026-11-22T03:00:00Z", "2026-11-23T03:00:00Z"),
            (
                "30 4 1,15 * 5",
                "2026-11-22T00:00:00Z",
                "2026-11-27T04:30:00Z",
            ),
            (
                "0 0 * * sun",
                "2026-11-22T00:00:00Z",
                "2026-11-29T00:00:00Z",
            ),
            ("0 0 * * 7", "2026-11-22T00:00:00Z", "2026-11-29T00:00:00Z"),
            ("0 0 29 2 *", "2026-11-22T00:00:00Z", "2028-02-29T00:00:00Z"),
            ("@monthly", "2026-12-31T23:59:59Z", "2027-01-01T00:00:00Z"),
            (
                "0 9-17/4 * jan-mar mon-fri",
                "2026-01-02T13:30:00Z",
                "2026-01-02T17:00:00Z",
            ),
            (
                "@every 1h30m",
                "2026-11-22T08:00:00Z",
                "2026-11-22T09:30:00Z",
            ),
        ] {
            assert_eq!(
                next(schedule, after).as_deref(),
                Some(expected),
                "{schedule}"
            );
        }
        assert_eq!(next("0 0 30 2 *", "2026-11-22T00:00:00Z"), None);
    }

    #[test]
    fn other_texts_are_no_schedules() {
        for bad in [
            "",
            "* * * *",
            "* * * * * *",
            "60 * * * *",
            "* 24 * * *",
            "* * 0 * *",
            "* * * 13 *",
            "* * * * 8",
            "a * * * *",
            "5-1 * * * *",
            "*/0 * * * *",
            "@never",
            "@every x",
            "-1 * * * *",
        ] {
            assert!(Schedule::parse(bad).is_err(), "{bad}");
        }
    }
}
