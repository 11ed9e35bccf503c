//! Whether a container that ended is started again: its own rules, its own policy, the pod's.

use k8s_openapi::api::core::v1::{Container, ContainerRestartRule, Pod};

/// `restartPolicy`, of a pod or of one container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestartPolicy {
    /// Whenever it ends.
    Always,
    /// When it ends with an error.
    OnFailure,
    /// Not.
    Never,
}

impl RestartPolicy {
    fn parse(text: Option<&str>) -> Option<Self> {
        match text {
            Some("Always") => Some(RestartPolicy::Always),
            Some("OnFailure") => Some(RestartPolicy::OnFailure),
            Some("Never") => Some(RestartPolicy::Never),
            _ => None,
        }
    }

    /// The pod's policy; Always when absent.
    pub fn of(pod: &Pod) -> Self {
        let spec = pod.spec.as_ref();
        RestartPolicy::parse(spec.and_then(|spec| spec.restart_policy.as_deref()))
            .unwrap_or(RestartPolicy::Always)
    }

    fn restarts(self, exit_code: i32) -> bool {
        match self {
            RestartPolicy::Always => true,
            RestartPolicy::OnFailure => exit_code != 0,
            RestartPolicy::Never => false,
        }
    }
}

/// A restartable init container (a sidecar).
pub fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// Whether a container that ended with this code is started again: the first of its rules that
/// fits, else its own policy, else the pod's.
pub fn restarts(pod: &Pod, container: &Container, exit_code: i32) -> bool {
    let mut rules = container.restart_policy_rules.iter().flatten();
    if rules.any(|rule| rule.action == "Restart" && fits(rule, exit_code)) {
        return true;
    }
    RestartPolicy::parse(container.restart_policy.as_deref())
        .unwrap_or_else(|| RestartPolicy::of(pod))
        .restarts(exit_code)
}

fn fits(rule: &ContainerRestartRule, exit_code: i32) -> bool {
    let Some(codes) = &rule.exit_codes else {
        return false;
    };
    let listed = codes.values.iter().flatten().any(|code| *code == exit_code);
    match codes.operator.as_str() {
        "In" => listed,
        "NotIn" => !listed,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn rules_win_over_the_containers_policy_and_that_over_the_pods() {
        let pod: Pod = serde_json::from_value(json!({"metadata": {},
            "spec": {"restartPolicy": "OnFailure", "containers": [
                {"name": "plain"},
                {"name": "own", "restartPolicy": "Never"},
                {"name": "in", "restartPolicy": "Never", "restartPolicyRules": [
                    {"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}]},
                {"name": "out", "restartPolicy": "Never", "restartPolicyRules": [
                    {"action": "Restart", "exitCodes": {"operator": "NotIn", "values": [0, 1]}}]}]}}))
        .unwrap();
        let containers = &pod.spec.as_ref().unwrap().containers;
        let verdicts = |index: usize| {
            [0, 1, 42].map(|exit_code| restarts(&pod, &containers[index], exit_code))
        };
        assert_eq!(verdicts(0), [false, true, true]);
        assert_eq!(verdicts(1), [false, false, false]);
        assert_eq!(verdicts(2), [false, false, true]);
        assert_eq!(verdicts(3), [false, false, true]);
    }
}
