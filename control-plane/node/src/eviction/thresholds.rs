//! When a resource counts as short.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::signals::{Level, Levels, Signal};
use crate::quantity;

/// The least that has to be left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Minimum {
    /// Bytes, inodes or process ids.
    Amount(u64),
    /// Of the capacity.
    Percent(u64),
}

impl Minimum {
    /// As an amount.
    pub fn amount(self, capacity: u64) -> u64 {
        match self {
            Minimum::Amount(amount) => amount,
            Minimum::Percent(percent) => capacity / 100 * percent,
        }
    }
}

/// One threshold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Threshold {
    /// Of what.
    pub signal: Signal,
    /// Met when less than this is left.
    pub minimum: Minimum,
    /// How long it has to be met before a pod goes; `None` for a hard threshold: at once, and the
    /// pod is killed at once.
    pub grace: Option<Duration>,
}

/// A threshold that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("eviction threshold {text:?}: {why}")]
pub struct ThresholdError {
    text: String,
    why: &'static str,
}

impl Threshold {
    /// `SIGNAL<AMOUNT` or `SIGNAL<PERCENT%` (kubelet's form), of a hard threshold; a soft one has
    /// `:SECONDS` behind.
    pub fn parse(text: &str) -> Result<Self, ThresholdError> {
        let bad = |why| ThresholdError {
            text: text.to_owned(),
            why,
        };
        let (name, rest) = text
            .split_once('<')
            .ok_or_else(|| bad("must be SIGNAL<AMOUNT"))?;
        let signal = Signal::ALL
            .into_iter()
            .find(|signal| signal.name() == name.trim())
            .ok_or_else(|| bad("no such signal"))?;
        let (amount, grace) = match rest.split_once(':') {
            Some((amount, seconds)) => {
                let seconds = seconds
                    .parse()
                    .map_err(|_| bad("the grace is not seconds"))?;
                (amount, Some(Duration::from_secs(seconds)))
            }
            None => (rest, None),
        };
        let minimum = match amount.strip_suffix('%') {
            Some(percent) => {
                let percent = percent.parse().ok().filter(|percent| *percent <= 100);
                Minimum::Percent(percent.ok_or_else(|| bad("not a percentage"))?)
            }
            None => {
                let value = quantity::value(&Quantity(amount.to_owned()));
                let value = value.and_then(|value| u64::try_from(value).ok());
                Minimum::Amount(value.ok_or_else(|| bad("not a quantity"))?)
            }
        };
        Ok(Threshold {
            signal,
            minimum,
            grace,
        })
    }

    fn is_met(&self, level: Level) -> bool {
        level.available < self.minimum.amount(level.capacity)
    }
}

/// When pods are evicted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EvictionConfig {
    /// Hard and soft thresholds.
    pub thresholds: Vec<Threshold>,
    /// How long a condition stays after its cause is gone.
    pub transition: Duration,
    /// The longest that a pod evicted by a soft threshold gets to end by itself.
    pub max_pod_grace: Duration,
}

impl Default for EvictionConfig {
    /// Kubelet's defaults.
    fn default() -> Self {
        let hard = |signal, minimum| Threshold {
            signal,
            minimum,
            grace: None,
        };
        EvictionConfig {
            thresholds: vec![
                hard(Signal::MemoryAvailable, Minimum::Amount(100 << 20)),
                hard(Signal::NodeFsAvailable, Minimum::Percent(10)),
                hard(Signal::NodeFsInodes, Minimum::Percent(5)),
                hard(Signal::ImageFsAvailable, Minimum::Percent(15)),
                hard(Signal::ImageFsInodes, Minimum::Percent(5)),
                hard(Signal::PidAvailable, Minimum::Percent(5)),
            ],
            transition: Duration::from_secs(300),
            max_pod_grace: Duration::from_secs(30),
        }
    }
}

/// Since when each threshold is met.
#[derive(Debug, Default)]
pub struct Observer {
    since: BTreeMap<usize, Instant>,
}

/// What one look found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Met {
    /// Signals below a threshold, its grace over or not.
    pub pressing: Vec<Signal>,
    /// The threshold to act on, with its level: a hard one first, memory before disk.
    pub act: Option<(Threshold, Level)>,
}

impl Observer {
    /// Compares levels with thresholds.
    pub fn look(&mut self, config: &EvictionConfig, levels: &Levels, now: Instant) -> Met {
        let mut met = Met::default();
        let mut due: Vec<(Threshold, Level)> = Vec::new();
        for (index, threshold) in config.thresholds.iter().enumerate() {
            let level = levels.get(&threshold.signal);
            let Some(level) = level.filter(|level| threshold.is_met(**level)) else {
                self.since.remove(&index);
                continue;
            };
            let since = *self.since.entry(index).or_insert(now);
            met.pressing.push(threshold.signal);
            if now.duration_since(since) >= threshold.grace.unwrap_or_default() {
                due.push((*threshold, *level));
            }
        }
        due.sort_by_key(|(threshold, _)| (threshold.grace.is_some(), threshold.signal));
        met.act = due.into_iter().next();
        met
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_are_read_in_kubelets_form() {
        let parse = |text: &str| Threshold::parse(text).map_err(|error| error.to_string());
        let hard = parse("memory.available<100Mi").unwrap();
        assert_eq!(hard.minimum, Minimum::Amount(100 << 20));
        assert_eq!(hard.grace, None);
        let soft = parse("nodefs.available<10%:90").unwrap();
        assert_eq!(soft.minimum, Minimum::Percent(10));
        assert_eq!(soft.grace, Some(Duration::from_secs(90)));
        for (text, why) in [
            ("memory.available", "must be SIGNAL<AMOUNT"),
            ("disk<1", "no such signal"),
            ("pid.available<101%", "not a percentage"),
            ("pid.available<x", "not a quantity"),
            ("pid.available<5%:soon", "the grace is not seconds"),
        ] {
            let error = parse(text).unwrap_err();
            assert_eq!(error, format!("eviction threshold {text:?}: {why}"));
        }
    }

    #[test]
    fn soft_thresholds_wait_and_hard_ones_come_first() {
        let config = EvictionConfig {
            thresholds: [
                "nodefs.available<50%:60",
                "memory.available<100",
                "nodefs.available<10%",
            ]
            .map(|text| Threshold::parse(text).unwrap())
            .into(),
            ..Default::default()
        };
        let mut observer = Observer::default();
        let begun = Instant::now();
        let mut look = |memory, disk, seconds| {
            let level = |available| Level {
                available,
                capacity: 1000,
            };
            let levels = Levels::from([
                (Signal::MemoryAvailable, level(memory)),
                (Signal::NodeFsAvailable, level(disk)),
            ]);
            observer.look(&config, &levels, begun + Duration::from_secs(seconds))
        };
        assert_eq!(look(100, 500, 0), Met::default());
        let waiting = look(100, 499, 10);
        assert_eq!(waiting.pressing, [Signal::NodeFsAvailable]);
        assert_eq!(waiting.act, None);
        let soft = look(100, 499, 70).act.unwrap().0;
        assert_eq!(soft.grace, Some(Duration::from_secs(60)));
        let hard = look(99, 99, 71).act.unwrap();
        assert_eq!(
            (hard.0.signal, hard.1.available),
            (Signal::MemoryAvailable, 99)
        );
        // It begins anew after it was over.
        assert_eq!(look(100, 500, 72), Met::default());
        assert_eq!(look(100, 499, 73).act, None);
    }
}
