//! Times in cron's form: `minute hour day-of-month month day-of-week`, `@hourly` and the like,
//! `@every 90m`.

use std::{str::FromStr, time::Duration};

use k8s_openapi::jiff::{SignedDuration, Timestamp, ToSpan, Zoned, tz::TimeZone};

/// A schedule that names no time within this many days never comes.
const HORIZON_DAYS: i64 = 5 * 366;

/// Why a schedule cannot be read.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum ScheduleError {
    /// Too many or too few fields.
    #[error("expected exactly 5 fields, found {0}")]
    Fields(usize),
    /// A part of a field.
    #[error("{part:?} is not valid in the field {field}")]
    Part {
        /// Which field.
        field: &'static str,
        /// What is written there.
        part: String,
    },
    /// A word after `@`.
    #[error("unrecognized descriptor: {0}")]
    Descriptor(String),
}

/// One field: the values as bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Set {
    bits: u64,
    /// Written as `*`: all values.
    any: bool,
}

impl Set {
    fn has(self, value: i8) -> bool {
        u32::try_from(value).is_ok_and(|value| value < 64 && self.bits & (1 << value) != 0)
    }
}

struct Field {
    name: &'static str,
    first: u32,
    last: u32,
    names: &'static [&'static str],
}

const MONTHS: [&str; 12] = [
    "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
];
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

const FIELDS: [Field; 5] = [
    Field {
        name: "minute",
        first: 0,
        last: 59,
        names: &[],
    },
    Field {
        name: "hour",
        first: 0,
        last: 23,
        names: &[],
    },
    Field {
        name: "day of month",
        first: 1,
        last: 31,
        names: &[],
    },
    Field {
        name: "month",
        first: 1,
        last: 12,
        names: &MONTHS,
    },
    Field {
        name: "day of week",
        first: 0,
        last: 6,
        names: &DAYS,
    },
];

impl Field {
    fn value(&self, text: &str) -> Option<u32> {
        let lower = text.to_ascii_lowercase();
        if let Some(position) = self.names.iter().position(|name| *name == lower) {
            return u32::try_from(position)
                .ok()
                .map(|position| position + self.first);
        }
        text.parse().ok()
    }

    fn parse(&self, text: &str) -> Result<Set, ScheduleError> {
        let mut set = Set {
            bits: 0,
            any: false,
        };
        for part in text.split(',') {
            let wrong = || ScheduleError::Part {
                field: self.name,
                part: part.to_owned(),
            };
            let (range, step) = match part.split_once('/') {
                Some((range, step)) => {
                    let step = step.parse().ok().filter(|step| *step > 0);
                    (range, Some(step.ok_or_else(wrong)?))
                }
                None => (part, None),
            };
            let (first, last) = if matches!(range, "*" | "?") {
                set.any |= step.is_none_or(|step: u32| step == 1);
                (self.first, self.last)
            } else if let Some((first, last)) = range.split_once('-') {
                let first = self.value(first).ok_or_else(wrong)?;
                (first, self.value(last).ok_or_else(wrong)?)
            } else {
                let first = self.value(range).ok_or_else(wrong)?;
                // `5/15` means from 5 on.
                (first, if step.is_some() { self.last } else { first })
            };
            if first < self.first || last > self.last || first > last {
                return Err(wrong());
            }
            let step = usize::try_from(step.unwrap_or(1)).unwrap_or(usize::MAX);
            for value in (first..=last).step_by(step) {
                set.bits |= 1 << value;
            }
        }
        Ok(set)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Fields {
    minute: Set,
    hour: Set,
    day: Set,
    month: Set,
    weekday: Set,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Times {
    At(Fields),
    Every(Duration),
}

/// A parsed schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule(Times);

impl FromStr for Schedule {
    type Err = ScheduleError;

    fn from_str(text: &str) -> Result<Self, ScheduleError> {
        let text = text.trim();
        if let Some(every) = text.strip_prefix("@every ") {
            return parse_every(every.trim())
                .map(|every| Schedule(Times::Every(every)))
                .ok_or_else(|| ScheduleError::Descriptor(text.to_owned()));
        }
        let text = match text {
            "@yearly" | "@annually" => "0 0 1 1 *",
            "@monthly" => "0 0 1 * *",
            "@weekly" => "0 0 * * 0",
            "@daily" | "@midnight" => "0 0 * * *",
            "@hourly" => "0 * * * *",
            other if other.starts_with('@') => {
                return Err(ScheduleError::Descriptor(other.to_owned()));
            }
            fields => fields,
        };
        let parts: Vec<&str> = text.split_ascii_whitespace().collect();
        let [minute, hour, day, month, weekday] = parts[..] else {
            return Err(ScheduleError::Fields(parts.len()));
        };
        let [minutes, hours, days, months, weekdays] = &FIELDS;
        Ok(Schedule(Times::At(Fields {
            minute: minutes.parse(minute)?,
            hour: hours.parse(hour)?,
            day: days.parse(day)?,
            month: months.parse(month)?,
            weekday: weekdays.parse(weekday)?,
        })))
    }
}

/// Durations such as `1h30m`; whole seconds.
fn parse_every(text: &str) -> Option<Duration> {
    let (mut total, mut number) = (0_u64, String::new());
    for character in text.chars() {
        let unit = match character {
            '0'..='9' => {
                number.push(character);
                continue;
            }
            'h' => 3600,
            'm' => 60,
            's' => 1,
            _ => return None,
        };
        let count: u64 = number.parse().ok()?;
        number.clear();
        total = total.checked_add(count.checked_mul(unit)?)?;
    }
    (number.is_empty() && total > 0).then(|| Duration::from_secs(total))
}

impl Fields {
    /// Both restricted: either will do; otherwise both must match.
    fn day_matches(&self, time: &Zoned) -> bool {
        let day = self.day.has(time.day());
        let weekday = self.weekday.has(time.weekday().to_sunday_zero_offset());
        if self.day.any || self.weekday.any {
            day && weekday
        } else {
            day || weekday
        }
    }

    /// The first time from `time` on; steps are in absolute time, so that an hour that comes
    /// twice counts twice and one that is left out counts never.
    fn from(&self, mut time: Zoned) -> Option<Zoned> {
        let horizon = time.checked_add(HORIZON_DAYS.days()).ok()?;
        while time < horizon {
            time = if !self.month.has(time.month()) {
                let first = time.first_of_month().ok()?;
                first.checked_add(1.month()).ok()?.start_of_day().ok()?
            } else if !self.day_matches(&time) {
                time.checked_add(1.day()).ok()?.start_of_day().ok()?
            } else if !self.hour.has(time.hour()) {
                let minutes = 60 - i64::from(time.minute());
                time.checked_add(SignedDuration::from_mins(minutes)).ok()?
            } else if !self.minute.has(time.minute()) {
                time.checked_add(SignedDuration::from_mins(1)).ok()?
            } else {
                return Some(time);
            };
        }
        None
    }
}

impl Schedule {
    /// The first time after `time`.
    pub fn after(&self, time: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        match &self.0 {
            Times::Every(every) => {
                let whole = Timestamp::from_second(time.as_second()).ok()?;
                whole.checked_add(*every).ok()
            }
            Times::At(fields) => {
                let seconds = time.as_second();
                // Zones are off UTC by whole minutes today; minutes of UTC are minutes there.
                let minute = Timestamp::from_second(seconds - seconds.rem_euclid(60) + 60).ok()?;
                let found = fields.from(minute.to_zoned(zone.clone()))?;
                Some(found.timestamp())
            }
        }
    }

    /// The last time after `earliest` and not after `now`, and whether there was an earlier one.
    pub fn latest(
        &self,
        earliest: Timestamp,
        now: Timestamp,
        zone: &TimeZone,
    ) -> Option<(Timestamp, bool)> {
        let first = self.after(earliest, zone).filter(|first| *first <= now)?;
        // Look in ever longer times back from now: few steps also after a long outage.
        for hours in [1, 24, 24 * 32, 24 * 366] {
            let Ok(start) = now.checked_sub(SignedDuration::from_hours(hours)) else {
                continue;
            };
            let start = start.max(earliest);
            let mut latest = None;
            let mut next = self.after(start, zone);
            while let Some(time) = next.filter(|time| *time <= now) {
                latest = Some(time);
                next = self.after(time, zone);
            }
            if let Some(latest) = latest {
                return Some((latest, latest != first));
            }
        }
        Some((first, false))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn next(schedule: &str, zone: &str, after: &str) -> String {
        let schedule: Schedule = schedule.parse().unwrap();
        let zone = TimeZone::get(zone).unwrap();
        schedule.after(time(after), &zone).unwrap().to_string()
    }

    #[test]
    fn the_next_time_follows_the_fields() {
        for (schedule, after, expected) in [
            (
                "*/15 * * * *",
                "2026-01-01T00:07:31Z",
                "2026-01-01T00:15:00Z",
            ),
            ("0 3 * * *", "2026-01-01T03:00:00Z", "2026-01-02T03:00:00Z"),
            (
                "5/20 * * * *",
                "2026-01-01T00:25:00Z",
                "2026-01-01T00:45:00Z",
            ),
            ("0 0 31 * *", "2026-02-01T00:00:00Z", "2026-03-31T00:00:00Z"),
            (
                "0 0 29 feb *",
                "2026-01-01T00:00:00Z",
                "2028-02-29T00:00:00Z",
            ),
            (
                "0 0 * * MON-FRI",
                "2026-11-20T12:00:00Z",
                "2026-11-23T00:00:00Z",
            ),
            // Both days restricted: either.
            (
                "0 0 13 * fri",
                "2026-11-22T00:00:00Z",
                "2026-11-27T00:00:00Z",
            ),
            ("@hourly", "2026-01-01T00:00:01Z", "2026-01-01T01:00:00Z"),
            ("@every 90m", "2026-01-01T00:00:00Z", "2026-01-01T01:30:00Z"),
        ] {
            assert_eq!(next(schedule, "UTC", after), expected, "{schedule}");
        }
    }

    #[test]
    fn zones_with_summer_time_skip_and_repeat_hours() {
        let zone = "America/New_York";
        assert_eq!(
            next("0 3 * * *", zone, "2026-01-01T00:00:00Z"),
            "2026-01-01T08:00:00Z"
        );
        // 02:30 does not exist on 8 March 2026.
        assert_eq!(
            next("30 2 * * *", zone, "2026-03-08T05:00:00Z"),
            "2026-03-09T06:30:00Z"
        );
        // 01:30 comes twice on 1 November 2026.
        assert_eq!(
            next("30 1 * * *", zone, "2026-11-01T04:00:00Z"),
            "2026-11-01T05:30:00Z"
        );
        assert_eq!(
            next("30 1 * * *", zone, "2026-11-01T05:30:00Z"),
            "2026-11-01T06:30:00Z"
        );
    }

    #[test]
    fn the_latest_missed_time_is_found_in_few_steps() {
        let every_minute: Schedule = "* * * * *".parse().unwrap();
        let found = every_minute.latest(
            time("2000-01-01T00:00:00Z"),
            time("2026-01-01T00:00:30Z"),
            &TimeZone::UTC,
        );
        assert_eq!(found, Some((time("2026-01-01T00:00:00Z"), true)));
        let yearly: Schedule = "@yearly".parse().unwrap();
        let found = yearly.latest(
            time("2025-12-31T00:00:00Z"),
            time("2026-11-01T00:00:00Z"),
            &TimeZone::UTC,
        );
        assert_eq!(found, Some((time("2026-01-01T00:00:00Z"), false)));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for text in [
            "",
            "* * * *",
            "60 * * * *",
            "* * 0 * *",
            "*/0 * * * *",
            "a * * * *",
            "@often",
        ] {
            assert!(text.parse::<Schedule>().is_err(), "{text:?}");
        }
        let never: Schedule = "0 0 30 2 *".parse().unwrap();
        assert_eq!(
            never.after(time("2026-01-01T00:00:00Z"), &TimeZone::UTC),
            None
        );
    }
}
