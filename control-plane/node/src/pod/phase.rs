//! The pod phase, from its containers' statuses (Kubernetes pod lifecycle, "Pod phase").

use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod};

use super::restart::{is_sidecar, restarts};

/// `Pending`, `Running`, `Succeeded` or `Failed`. A `terminal` pod starts nothing again: when nothing
/// of it runs it has succeeded or failed, whatever its restart policy.
pub fn phase(
    pod: &Pod,
    inits: &[ContainerStatus],
    apps: &[ContainerStatus],
    terminal: bool,
) -> &'static str {
    let spec = pod.spec.clone().unwrap_or_default();
    let find = |statuses: &[ContainerStatus], container: &Container| {
        statuses
            .iter()
            .find(|status| status.name == container.name)
            .cloned()
    };
    let mut initializing = false;
    for container in spec.init_containers.iter().flatten() {
        match find(inits, container).map(|status| (exit_code(&status), status)) {
            None => initializing = true,
            Some((code, status)) if is_sidecar(container) => {
                initializing |= code.is_none() && !status.started.unwrap_or(false);
            }
            Some((Some(0), _)) => {}
            Some((Some(code), _)) if !restarts(pod, container, code) => return "Failed",
            Some(_) => initializing = true,
        }
    }
    let (mut waiting, mut running, mut stopped, mut succeeded) = (0, 0, 0, 0);
    let mut restarting = false;
    for container in &spec.containers {
        let Some(status) = find(apps, container) else {
            waiting += 1;
            continue;
        };
        let state = status.state.clone().unwrap_or_default();
        if state.running.is_some() {
            running += 1;
        } else if let Some(code) = exit_code(&status) {
            stopped += 1;
            succeeded += usize::from(code == 0);
            restarting |= restarts(pod, container, code);
        } else {
            waiting += 1;
        }
    }
    if terminal && running == 0 {
        let all = waiting == 0 && stopped > 0 && stopped == succeeded;
        return if all { "Succeeded" } else { "Failed" };
    }
    // A container that ran proves that initialisation is behind, whatever records are left.
    if (initializing && running + stopped == 0) || waiting > 0 {
        return "Pending";
    }
    if running > 0 || stopped == 0 {
        return if stopped == 0 && running == 0 {
            "Pending"
        } else {
            "Running"
        };
    }
    match (restarting, stopped == succeeded) {
        (true, _) => "Running",
        (false, true) => "Succeeded",
        (false, false) => "Failed",
    }
}

/// How a container ended: its present end, or the last one of a container that waits for its
/// restart.
fn exit_code(status: &ContainerStatus) -> Option<i32> {
    let state = status.state.as_ref()?;
    let last = status
        .last_state
        .as_ref()
        .and_then(|last| last.terminated.as_ref());
    match (&state.terminated, &state.waiting) {
        (Some(end), _) => Some(end.exit_code),
        (None, Some(_)) => last.map(|end| end.exit_code),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn status(name: &str, state: Value, last: Value) -> ContainerStatus {
        serde_json::from_value(
            json!({"name": name, "image": "", "imageID": "", "ready": false,
            "restartCount": 0, "state": state, "lastState": last}),
        )
        .unwrap()
    }

    #[test]
    fn phases_by_policy_and_states() {
        let running = json!({"running": {}});
        let waiting = json!({"waiting": {}});
        let ok = json!({"terminated": {"exitCode": 0}});
        let bad = json!({"terminated": {"exitCode": 1}});
        let none = json!({});
        let table = [
            ("Always", vec![(&waiting, &none)], "Pending"),
            (
                "Always",
                vec![(&running, &none), (&waiting, &none)],
                "Pending",
            ),
            (
                "Always",
                vec![(&running, &none), (&waiting, &bad)],
                "Running",
            ),
            ("Always", vec![(&waiting, &bad)], "Running"),
            ("Always", vec![(&ok, &none)], "Running"),
            ("Never", vec![(&ok, &none), (&ok, &none)], "Succeeded"),
            ("Never", vec![(&ok, &none), (&bad, &none)], "Failed"),
            ("Never", vec![(&bad, &none), (&running, &none)], "Running"),
            ("OnFailure", vec![(&bad, &none)], "Running"),
            ("OnFailure", vec![(&ok, &none)], "Succeeded"),
        ];
        for (policy, states, expected) in table {
            let names: Vec<String> = (0..states.len()).map(|index| format!("c{index}")).collect();
            let containers: Vec<Value> = names.iter().map(|name| json!({"name": name})).collect();
            let pod: Pod = serde_json::from_value(json!({"metadata": {},
                "spec": {"restartPolicy": policy, "containers": containers}}))
            .unwrap();
            let apps: Vec<ContainerStatus> = names
                .iter()
                .zip(&states)
                .map(|(name, (state, last))| status(name, (*state).clone(), (*last).clone()))
                .collect();
            assert_eq!(
                phase(&pod, &[], &apps, false),
                expected,
                "{policy} {states:?}"
            );
        }
    }

    #[test]
    fn init_containers_keep_a_pod_pending_or_fail_it() {
        for (policy, init, expected) in [
            ("Always", json!({"running": {}}), "Pending"),
            ("Always", json!({"terminated": {"exitCode": 1}}), "Pending"),
            ("Never", json!({"terminated": {"exitCode": 1}}), "Failed"),
            ("Never", json!({"terminated": {"exitCode": 0}}), "Pending"),
        ] {
            let pod: Pod = serde_json::from_value(json!({"metadata": {}, "spec":
                {"restartPolicy": policy, "initContainers": [{"name": "i"}], "containers": [{"name": "c"}]}}))
            .unwrap();
            let inits = [status("i", init.clone(), json!({}))];
            let apps = [status(
                "c",
                json!({"waiting": {"reason": "PodInitializing"}}),
                json!({}),
            )];
            assert_eq!(
                phase(&pod, &inits, &apps, false),
                expected,
                "{policy} {init}"
            );
        }
    }

    #[test]
    fn deleted_pod_ends_in_a_final_phase() {
        let pod: Pod = serde_json::from_value(json!({"metadata": {}, "spec":
            {"restartPolicy": "Always", "containers": [{"name": "c"}]}}))
        .unwrap();
        for (state, expected) in [
            (json!({"terminated": {"exitCode": 0}}), "Succeeded"),
            (json!({"terminated": {"exitCode": 143}}), "Failed"),
            (json!({"waiting": {}}), "Failed"),
            (json!({"running": {}}), "Running"),
        ] {
            let apps = [status("c", state.clone(), json!({}))];
            assert_eq!(phase(&pod, &[], &apps, true), expected, "{state}");
        }
    }
}
