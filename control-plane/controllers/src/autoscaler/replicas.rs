//! From what pods use to how many there should be. No IO.
//!
//! Pods that are not ready or not measured do not count at first; when they matter for the
//! direction, they are taken for what speaks against it: unused when scaling up, fully used when
//! scaling down.

use std::{collections::HashMap, sync::Arc, time::Duration};

use k8s_openapi::{api::core::v1::Pod, jiff::Timestamp};

use super::{
    behavior::Behavior,
    float,
    usage::{Measured, Usage, Wanted, requested},
    whole,
};
use crate::pods;

/// After its start, a pod's use of CPU counts only once it is ready and measured since then.
const CPU_INITIALIZATION: Duration = Duration::from_secs(300);
/// A pod that became unready later than this after its start was ready before.
const INITIAL_READINESS_DELAY: Duration = Duration::from_secs(30);

/// What the use should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Aim {
    /// Percent of what is requested.
    Utilization(i32),
    /// Thousandths per pod.
    AverageMilli(i64),
}

/// How many replicas one metric asks for, and what it measured.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Proposal {
    pub replicas: i32,
    /// Percent of the requests.
    pub utilization: Option<i32>,
    /// Thousandths per pod.
    pub average_milli: i64,
}

struct Groups {
    ready: i32,
    unready: Vec<String>,
    missing: Vec<String>,
    usage: HashMap<String, i64>,
}

fn within(now: Timestamp, since: Timestamp, period: Duration) -> bool {
    Duration::try_from(now.duration_since(since)).unwrap_or(Duration::ZERO) < period
}

/// The pod's use of CPU says nothing yet.
fn is_starting(pod: &Pod, measured: &Measured, now: Timestamp) -> bool {
    let started = pod
        .status
        .as_ref()
        .and_then(|status| status.start_time.as_ref());
    let (Some(started), Some(ready)) = (started, pods::condition(pod, "Ready")) else {
        return true;
    };
    let unready = ready.status == "False";
    let Some(since) = ready.last_transition_time.as_ref() else {
        return unready;
    };
    if within(now, started.0, CPU_INITIALIZATION) {
        let measured_for = measured.at.duration_since(since.0);
        return unready || Duration::try_from(measured_for).unwrap_or_default() < measured.window;
    }
    unready && within(since.0, started.0, INITIAL_READINESS_DELAY)
}

fn group(pods: &[Arc<Pod>], usage: &Usage, resource: &str, now: Timestamp) -> Groups {
    let mut groups = Groups {
        ready: 0,
        unready: Vec::new(),
        missing: Vec::new(),
        usage: HashMap::new(),
    };
    for pod in pods {
        let name = pod.metadata.name.clone().unwrap_or_default();
        if pod.metadata.deletion_timestamp.is_some() || pods::phase(pod) == "Failed" {
            continue;
        }
        let measured = usage.get(&name);
        match measured {
            _ if pods::phase(pod) == "Pending" => groups.unready.push(name),
            None => groups.missing.push(name),
            Some(measured) if resource == "cpu" && is_starting(pod, measured, now) => {
                groups.unready.push(name);
            }
            Some(measured) => {
                groups.ready += 1;
                groups.usage.insert(name, measured.milli);
            }
        }
    }
    groups
}

/// Use against aim: the ratio, and the use in percent of the requests.
fn ratio(
    usage: &HashMap<String, i64>,
    requests: &HashMap<String, i64>,
    aim: Aim,
) -> Result<(f64, Option<i32>, i64), String> {
    // Saturating: what a tenant asks for may be as large as it likes.
    let total = usage.values().copied().fold(0, i64::saturating_add);
    let pods = i64::try_from(usage.len()).unwrap_or(i64::MAX).max(1);
    match aim {
        Aim::AverageMilli(milli) => Ok((
            float(total) / float(milli.saturating_mul(pods)),
            None,
            total / pods,
        )),
        Aim::Utilization(percent) => {
            let asked = usage.keys().filter_map(|name| requests.get(name));
            let asked = asked.copied().fold(0, i64::saturating_add);
            if asked == 0 {
                return Err("no metrics returned matched known pods".into());
            }
            let used = i32::try_from(total.saturating_mul(100) / asked).unwrap_or(i32::MAX);
            Ok((
                f64::from(used) / f64::from(percent),
                Some(used),
                total / pods,
            ))
        }
    }
}

/// How many replicas there should be for the use to be as aimed at.
pub(super) fn propose(
    pods: &[Arc<Pod>],
    usage: &Usage,
    wanted: Wanted<'_>,
    aim: Aim,
    current: i32,
    behavior: &Behavior,
    now: Timestamp,
) -> Result<Proposal, String> {
    if pods.is_empty() {
        return Err("no pods returned by selector while calculating replica count".into());
    }
    let mut groups = group(pods, usage, wanted.resource, now);
    if groups.usage.is_empty() {
        return Err("did not receive metrics for targeted pods (pods might be unready)".into());
    }
    let mut requests = HashMap::new();
    if matches!(aim, Aim::Utilization(_)) {
        for pod in pods {
            let name = pod.metadata.name.clone().unwrap_or_default();
            requests.insert(name, requested(pod, wanted)?);
        }
    }
    let (first, utilization, average_milli) = ratio(&groups.usage, &requests, aim)?;
    let proposal = |replicas| Proposal {
        replicas,
        utilization,
        average_milli,
    };
    let tolerated =
        |ratio: f64| ratio >= 1.0 - behavior.down.tolerance && ratio <= 1.0 + behavior.up.tolerance;
    let counts_unready = first > 1.0 && !groups.unready.is_empty();
    if !counts_unready && groups.missing.is_empty() {
        return Ok(proposal(match tolerated(first) {
            true => current,
            false => whole((first * f64::from(groups.ready)).ceil()),
        }));
    }
    for name in std::mem::take(&mut groups.missing) {
        let assumed = if first > 1.0 {
            0
        } else if first < 1.0 {
            match aim {
                Aim::AverageMilli(milli) => milli,
                Aim::Utilization(percent) => {
                    let requested = requests.get(&name).copied().unwrap_or(0);
                    requested.saturating_mul(i64::from(percent.max(100))) / 100
                }
            }
        } else {
            continue;
        };
        groups.usage.insert(name, assumed);
    }
    if counts_unready {
        let unready = std::mem::take(&mut groups.unready);
        groups
            .usage
            .extend(unready.into_iter().map(|name| (name, 0)));
    }
    let (second, _, _) = ratio(&groups.usage, &requests, aim)?;
    let turned = (first < 1.0 && second > 1.0) || (first > 1.0 && second < 1.0);
    if tolerated(second) || turned {
        return Ok(proposal(current));
    }
    let counted = i32::try_from(groups.usage.len()).unwrap_or(i32::MAX);
    let replicas = whole((second * f64::from(counted)).ceil());
    let against = (second < 1.0 && replicas > current) || (second > 1.0 && replicas < current);
    Ok(proposal(if against { current } else { replicas }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_of_any_size_overflow_nothing() {
        let two = HashMap::from([("a".to_string(), i64::MAX), ("b".to_string(), i64::MAX)]);
        let aims = [Aim::AverageMilli(i64::MAX), Aim::Utilization(50)];
        for aim in aims {
            assert!(ratio(&two, &two, aim).is_ok());
        }
    }
}
