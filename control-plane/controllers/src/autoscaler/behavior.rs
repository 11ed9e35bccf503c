//! How fast replicas may change: stabilisation windows and policies (`spec.behavior`).

use std::time::{Duration, Instant};

use k8s_openapi::api::autoscaling::v2::{HPAScalingRules, HorizontalPodAutoscalerBehavior};

/// Tolerance of either direction that names none.
const DEFAULT_TOLERANCE: f64 = 0.1;
/// Window of a scale-down that names none, in seconds.
const DOWN_WINDOW_SECONDS: i32 = 300;
/// Period of the policies that stand for none, in seconds.
const DEFAULT_PERIOD_SECONDS: u64 = 15;
/// Longest window and longest period that the API allows.
const LONGEST: Duration = Duration::from_secs(3600);

/// How much a policy allows in its period.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Step {
    Pods(i32),
    Percent(i32),
}

#[derive(Debug, Clone, Copy)]
struct Policy {
    step: Step,
    period: Duration,
}

/// Which policy counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Select {
    Most,
    Least,
    Disabled,
}

/// One direction.
#[derive(Debug, Clone)]
pub(super) struct Rules {
    window: Duration,
    select: Select,
    policies: Vec<Policy>,
    /// A ratio of usage so near to 1 changes nothing.
    pub tolerance: f64,
}

/// Both directions.
#[derive(Debug, Clone)]
pub(super) struct Behavior {
    pub up: Rules,
    pub down: Rules,
}

fn seconds(value: i32) -> Duration {
    Duration::from_secs(u64::try_from(value).unwrap_or(0))
}

impl Rules {
    fn of(given: Option<&HPAScalingRules>, window: i32, policies: &[Step]) -> Self {
        let own = given
            .and_then(|rules| rules.policies.as_deref())
            .unwrap_or_default();
        let own = own.iter().map(|policy| Policy {
            step: match policy.type_.as_str() {
                "Pods" => Step::Pods(policy.value),
                _ => Step::Percent(policy.value),
            },
            period: seconds(policy.period_seconds),
        });
        let mut own: Vec<Policy> = own.collect();
        if own.is_empty() {
            let period = Duration::from_secs(DEFAULT_PERIOD_SECONDS);
            own = policies
                .iter()
                .map(|step| Policy {
                    step: *step,
                    period,
                })
                .collect();
        }
        let tolerance = given.and_then(|rules| rules.tolerance.as_ref());
        let tolerance =
            tolerance.and_then(|text| text.0.parse::<hull_api::quantity::Quantity>().ok());
        let window = given
            .and_then(|rules| rules.stabilization_window_seconds)
            .unwrap_or(window);
        Rules {
            window: seconds(window),
            select: match given.and_then(|rules| rules.select_policy.as_deref()) {
                Some("Min") => Select::Least,
                Some("Disabled") => Select::Disabled,
                _ => Select::Most,
            },
            policies: own,
            tolerance: tolerance.map_or(DEFAULT_TOLERANCE, |tolerance| {
                super::float(tolerance.milli_value()) / 1000.0
            }),
        }
    }
}

impl Behavior {
    /// What the object says, and Kubernetes' defaults for the rest.
    pub(super) fn of(given: Option<&HorizontalPodAutoscalerBehavior>) -> Self {
        let up = given.and_then(|behavior| behavior.scale_up.as_ref());
        let down = given.and_then(|behavior| behavior.scale_down.as_ref());
        Behavior {
            up: Rules::of(up, 0, &[Step::Pods(4), Step::Percent(100)]),
            down: Rules::of(down, DOWN_WINDOW_SECONDS, &[Step::Percent(100)]),
        }
    }
}

/// What was recommended and done lately.
#[derive(Debug, Default)]
pub(super) struct Memory {
    recommendations: Vec<(Instant, i32)>,
    ups: Vec<(Instant, i32)>,
    downs: Vec<(Instant, i32)>,
}

/// A number of replicas and what the conditions say about it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Limited {
    pub replicas: i32,
    pub reason: &'static str,
    pub message: &'static str,
}

fn limited(replicas: i32, reason: &'static str, message: &'static str) -> Limited {
    Limited {
        replicas,
        reason,
        message,
    }
}

fn in_period(events: &[(Instant, i32)], period: Duration, now: Instant) -> i32 {
    let recent = events
        .iter()
        .filter(|(at, _)| now.saturating_duration_since(*at) < period);
    recent.map(|(_, change)| change).sum()
}

impl Memory {
    /// Before anything is known, the size found counts as what was recommended.
    pub(super) fn begin(&mut self, current: i32, now: Instant) {
        if self.recommendations.is_empty() {
            self.recommendations.push((now, current));
        }
    }

    /// The size was changed.
    pub(super) fn changed(&mut self, from: i32, to: i32, now: Instant) {
        let events = if to > from {
            &mut self.ups
        } else {
            &mut self.downs
        };
        events.push((now, (to - from).abs()));
    }

    fn forget_old(&mut self, now: Instant) {
        for list in [&mut self.recommendations, &mut self.ups, &mut self.downs] {
            list.retain(|(at, _)| now.saturating_duration_since(*at) < LONGEST);
        }
    }

    /// Up: the least of the window's recommendations; down: the greatest.
    pub(super) fn stabilize(
        &mut self,
        behavior: &Behavior,
        current: i32,
        desired: i32,
        now: Instant,
    ) -> Limited {
        self.forget_old(now);
        let (mut up, mut down) = (desired, desired);
        for (at, recommendation) in &self.recommendations {
            let age = now.saturating_duration_since(*at);
            if age < behavior.up.window {
                up = up.min(*recommendation);
            }
            if age < behavior.down.window {
                down = down.max(*recommendation);
            }
        }
        self.recommendations.push((now, desired));
        let replicas = current.max(up).min(down);
        if desired >= current {
            limited(
                replicas,
                "ScaleUpStabilized",
                "recent recommendations were lower than current one, applying the lowest recent recommendation",
            )
        } else {
            limited(
                replicas,
                "ScaleDownStabilized",
                "recent recommendations were higher than current one, applying the highest recent recommendation",
            )
        }
    }

    /// As far as the policies and bounds allow.
    pub(super) fn bound(
        &self,
        behavior: &Behavior,
        current: i32,
        desired: i32,
        (least, most): (i32, i32),
        now: Instant,
    ) -> Limited {
        if desired > current {
            let fastest = self.up_limit(&behavior.up, current, now).max(current);
            if most > fastest && desired > fastest {
                return limited(
                    fastest,
                    "ScaleUpLimit",
                    "the desired replica count is increasing faster than the maximum scale rate",
                );
            }
            if desired > most {
                return limited(
                    most,
                    "TooManyReplicas",
                    "the desired replica count is more than the maximum replica count",
                );
            }
        } else if desired < current {
            let fastest = self.down_limit(&behavior.down, current, now).min(current);
            if least < fastest && desired < fastest {
                return limited(
                    fastest,
                    "ScaleDownLimit",
                    "the desired replica count is decreasing faster than the maximum scale rate",
                );
            }
            if desired < least {
                return limited(
                    least,
                    "TooFewReplicas",
                    "the desired replica count is less than the minimum replica count",
                );
            }
        }
        limited(
            desired,
            "DesiredWithinRange",
            "the desired count is within the acceptable range",
        )
    }

    /// Size at the beginning of a policy's period.
    fn period_start(&self, policy: &Policy, current: i32, now: Instant) -> i32 {
        current - in_period(&self.ups, policy.period, now)
            + in_period(&self.downs, policy.period, now)
    }

    fn up_limit(&self, rules: &Rules, current: i32, now: Instant) -> i32 {
        let limits = rules.policies.iter().map(|policy| {
            let start = self.period_start(policy, current, now);
            match policy.step {
                Step::Pods(pods) => start.saturating_add(pods),
                Step::Percent(percent) => {
                    super::whole((f64::from(start) * (1.0 + f64::from(percent) / 100.0)).ceil())
                }
            }
        });
        match rules.select {
            Select::Disabled => current,
            Select::Least => limits.min().unwrap_or(current),
            Select::Most => limits.max().unwrap_or(current),
        }
    }

    fn down_limit(&self, rules: &Rules, current: i32, now: Instant) -> i32 {
        let limits = rules.policies.iter().map(|policy| {
            let start = self.period_start(policy, current, now);
            match policy.step {
                Step::Pods(pods) => start.saturating_sub(pods),
                Step::Percent(percent) => {
                    super::whole((f64::from(start) * (1.0 - f64::from(percent) / 100.0)).trunc())
                }
            }
        });
        match rules.select {
            Select::Disabled => current,
            Select::Least => limits.max().unwrap_or(current),
            Select::Most => limits.min().unwrap_or(current),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const BOUNDS: (i32, i32) = (1, 100);

    fn behavior(given: Value) -> Behavior {
        Behavior::of(Some(&serde_json::from_value(given).unwrap()))
    }

    #[test]
    fn by_default_up_goes_by_four_pods_or_double() {
        let memory = Memory::default();
        let behavior = Behavior::of(None);
        for (current, limit) in [(1, 5), (10, 20)] {
            let found = memory.bound(&behavior, current, 90, BOUNDS, Instant::now());
            assert_eq!((found.replicas, found.reason), (limit, "ScaleUpLimit"));
        }
        let found = memory.bound(&behavior, 90, 300, BOUNDS, Instant::now());
        assert_eq!((found.replicas, found.reason), (100, "TooManyReplicas"));
        let found = memory.bound(&behavior, 90, 0, BOUNDS, Instant::now());
        assert_eq!((found.replicas, found.reason), (1, "TooFewReplicas"));
    }

    #[test]
    fn a_policy_counts_what_was_changed_within_its_period() {
        let behavior = behavior(json!({
            "scaleUp": {"policies": [{"type": "Pods", "value": 3, "periodSeconds": 60}]},
            "scaleDown": {"policies": [{"type": "Percent", "value": 50, "periodSeconds": 60}]}}));
        let mut memory = Memory::default();
        let begin = Instant::now();
        memory.changed(5, 7, begin);
        let at = |seconds| begin + Duration::from_secs(seconds);
        assert_eq!(memory.bound(&behavior, 7, 50, BOUNDS, at(30)).replicas, 8);
        assert_eq!(memory.bound(&behavior, 7, 50, BOUNDS, at(61)).replicas, 10);
        memory.changed(20, 15, at(61));
        let down = memory.bound(&behavior, 15, 1, BOUNDS, at(62));
        assert_eq!((down.replicas, down.reason), (10, "ScaleDownLimit"));
    }

    #[test]
    fn min_and_disabled_choose_the_slower_and_none() {
        let policies = json!([{"type": "Pods", "value": 1, "periodSeconds": 60},
            {"type": "Percent", "value": 100, "periodSeconds": 60}]);
        let behavior = behavior(json!({
            "scaleUp": {"selectPolicy": "Min", "policies": policies},
            "scaleDown": {"selectPolicy": "Disabled", "policies": policies}}));
        let memory = Memory::default();
        assert_eq!(
            memory
                .bound(&behavior, 10, 50, BOUNDS, Instant::now())
                .replicas,
            11
        );
        assert_eq!(
            memory
                .bound(&behavior, 10, 1, BOUNDS, Instant::now())
                .replicas,
            10
        );
    }

    #[test]
    fn scaling_down_waits_for_its_window() {
        let behavior = Behavior::of(None);
        let mut memory = Memory::default();
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        memory.begin(8, begin);
        let found = memory.stabilize(&behavior, 8, 3, at(15));
        assert_eq!((found.replicas, found.reason), (8, "ScaleDownStabilized"));
        assert_eq!(memory.stabilize(&behavior, 8, 4, at(290)).replicas, 8);
        assert_eq!(memory.stabilize(&behavior, 8, 2, at(310)).replicas, 4);
        assert_eq!(
            memory.stabilize(&behavior, 4, 9, at(311)).replicas,
            9,
            "up at once"
        );
    }

    #[test]
    fn a_window_for_scaling_up_takes_the_lowest() {
        let behavior = behavior(json!({"scaleUp": {"stabilizationWindowSeconds": 60}}));
        let mut memory = Memory::default();
        let begin = Instant::now();
        memory.begin(2, begin);
        let found = memory.stabilize(&behavior, 2, 6, begin + Duration::from_secs(30));
        assert_eq!((found.replicas, found.reason), (2, "ScaleUpStabilized"));
        let later = begin + Duration::from_secs(61);
        assert_eq!(memory.stabilize(&behavior, 2, 7, later).replicas, 6);
    }
}
