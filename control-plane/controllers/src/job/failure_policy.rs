//! `spec.podFailurePolicy`: what a failed pod means to its job.

use k8s_openapi::api::{
    batch::v1::{
        JobSpec, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyOnPodConditionsPattern,
    },
    core::v1::Pod,
};

use crate::pods::phase;

/// What the first rule that matches says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// One more failure.
    Count,
    /// As if it had not happened.
    Ignore,
    /// Its index fails whatever its limit is.
    FailIndex,
    /// The job fails, for this reason.
    FailJob(String),
}

pub(super) fn outcome(spec: &JobSpec, pod: &Pod) -> Outcome {
    let Some(policy) = &spec.pod_failure_policy else {
        return Outcome::Count;
    };
    if phase(pod) != "Failed" {
        return Outcome::Count;
    }
    for (number, rule) in policy.rules.iter().enumerate() {
        let matched = match (&rule.on_exit_codes, &rule.on_pod_conditions) {
            (Some(wanted), _) => exit_code(wanted, pod),
            (None, Some(patterns)) => pod_condition(patterns, pod),
            (None, None) => None,
        };
        let Some(matched) = matched else { continue };
        return match rule.action.as_str() {
            "Ignore" => Outcome::Ignore,
            "FailIndex" if spec.backoff_limit_per_index.is_some() => Outcome::FailIndex,
            "FailJob" => {
                Outcome::FailJob(format!("{matched} matching FailJob rule at index {number}"))
            }
            _ => Outcome::Count,
        };
    }
    Outcome::Count
}

fn name(pod: &Pod) -> String {
    crate::runtime::Key::of(pod).to_string()
}

fn exit_code(wanted: &PodFailurePolicyOnExitCodesRequirement, pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let containers = status.container_statuses.iter().flatten();
    let all = containers.chain(status.init_container_statuses.iter().flatten());
    for container in all {
        if wanted
            .container_name
            .as_ref()
            .is_some_and(|name| *name != container.name)
        {
            continue;
        }
        let ended = container
            .state
            .as_ref()
            .and_then(|state| state.terminated.as_ref());
        let Some(code) = ended.map(|ended| ended.exit_code).filter(|code| *code != 0) else {
            continue;
        };
        let listed = wanted.values.contains(&code);
        let matches = match wanted.operator.as_str() {
            "In" => listed,
            "NotIn" => !listed,
            _ => false,
        };
        if matches {
            return Some(format!(
                "Container {} for pod {} failed with exit code {code}",
                container.name,
                name(pod)
            ));
        }
    }
    None
}

fn pod_condition(patterns: &[PodFailurePolicyOnPodConditionsPattern], pod: &Pod) -> Option<String> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let found = conditions.iter().find(|condition| {
        patterns.iter().any(|pattern| {
            let status = pattern.status.as_deref().unwrap_or("True");
            pattern.type_ == condition.type_ && status == condition.status
        })
    })?;
    Some(format!("Pod {} has condition {}", name(pod), found.type_))
}
