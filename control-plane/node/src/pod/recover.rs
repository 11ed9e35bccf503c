//! Containers that the API server knows to have run but the runtime has no record of, as after the
//! loss of its state: they count as ended, so that restart counts go on and a pod that must not
//! restart does not.

use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Pod};

use crate::cri::{ContainerPhase, ObservedContainer, ObservedPod};

/// The reason given to a container whose end nobody saw.
pub const LOST_REASON: &str = "ContainerStatusUnknown";
/// The exit code given to it (128 + SIGKILL).
pub const LOST_EXIT_CODE: i32 = 137;

/// Adds an ended container for each status in the API that has a container id and no record.
pub fn add_lost_containers(pod: &Pod, observed: &mut ObservedPod) {
    let Some(status) = &pod.status else { return };
    let statuses = status
        .container_statuses
        .iter()
        .flatten()
        .chain(status.init_container_statuses.iter().flatten())
        .chain(status.ephemeral_container_statuses.iter().flatten());
    for status in statuses {
        if observed.latest(&status.name).is_none()
            && let Some(container) = lost(status)
        {
            observed.containers.push(container);
        }
    }
    observed.sort();
}

fn lost(status: &ContainerStatus) -> Option<ObservedContainer> {
    let id = status.container_id.as_deref().filter(|id| !id.is_empty())?;
    let ended =
        |state: &Option<ContainerState>| state.as_ref().and_then(|state| state.terminated.clone());
    let waiting = status
        .state
        .as_ref()
        .is_some_and(|state| state.waiting.is_some());
    let terminated = if waiting {
        // It shows its last end. One that has none was created and never ran: nothing is lost.
        Some(ended(&status.last_state)?)
    } else {
        // One that ran has no end to show.
        ended(&status.state)
    };
    let nanoseconds = |time: Option<&k8s_openapi::apimachinery::pkg::apis::meta::v1::Time>| {
        time.and_then(|time| i64::try_from(time.0.as_nanosecond()).ok())
            .unwrap_or(0)
    };
    let (exit_code, reason, message, started_at, finished_at) = match &terminated {
        Some(end) => (
            end.exit_code,
            end.reason.clone().unwrap_or_default(),
            end.message.clone().unwrap_or_default(),
            nanoseconds(end.started_at.as_ref()),
            nanoseconds(end.finished_at.as_ref()),
        ),
        None => (
            LOST_EXIT_CODE,
            LOST_REASON.into(),
            "The container could not be located when the pod was synchronised".into(),
            0,
            0,
        ),
    };
    // The last end may be that of the attempt before, when the newest one never ran.
    let last = terminated
        .as_ref()
        .and_then(|end| end.container_id.as_deref());
    let never_ran = i32::from(last.is_some_and(|last| last != id));
    let id = last.unwrap_or(id);
    Some(ObservedContainer {
        id: id.rsplit("://").next().unwrap_or(id).to_owned(),
        name: status.name.clone(),
        sandbox_id: String::new(),
        attempt: u32::try_from(status.restart_count - never_ran).unwrap_or(0),
        phase: ContainerPhase::Exited,
        created_at: started_at,
        started_at,
        finished_at,
        exit_code,
        reason,
        message,
        image: status.image.clone(),
        image_ref: status.image_id.clone(),
        annotations: Default::default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_ran_without_a_record_counts_as_killed_and_what_ended_or_never_ran_does_not() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {}, "spec": {"containers": []},
            "status": {"containerStatuses": [
                {"name": "ran", "containerID": "hull://1", "image": "i", "imageID": "", "ready": true,
                 "restartCount": 3, "state": {"running": {}}},
                {"name": "done", "containerID": "hull://2", "image": "i", "imageID": "", "ready": false,
                 "restartCount": 0, "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}},
                {"name": "new", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
                 "state": {"waiting": {"reason": "ContainerCreating"}}},
                {"name": "created", "containerID": "hull://4", "image": "i", "imageID": "",
                 "ready": false, "restartCount": 0,
                 "state": {"waiting": {"reason": "RunContainerError"}}},
                {"name": "crashed", "containerID": "hull://5", "image": "i", "imageID": "",
                 "ready": false, "restartCount": 2,
                 "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                 "lastState": {"terminated": {"exitCode": 3, "reason": "Error",
                    "containerID": "hull://5"}}},
                {"name": "again", "containerID": "hull://7", "image": "i", "imageID": "",
                 "ready": false, "restartCount": 2,
                 "state": {"waiting": {"reason": "RunContainerError"}},
                 "lastState": {"terminated": {"exitCode": 3, "reason": "Error",
                    "containerID": "hull://6"}}}]}
        }))
        .unwrap();
        let mut observed = ObservedPod::default();
        add_lost_containers(&pod, &mut observed);
        let ran = observed.latest("ran").unwrap();
        assert_eq!((ran.exit_code, ran.attempt, ran.id.as_str()), (137, 3, "1"));
        assert_eq!(observed.latest("done").unwrap().exit_code, 0);
        assert!(observed.latest("new").is_none());
        assert!(observed.latest("created").is_none(), "it never ran");
        let crashed = observed.latest("crashed").unwrap();
        assert_eq!((crashed.exit_code, crashed.attempt), (3, 2));
        let again = observed.latest("again").unwrap();
        assert_eq!((again.id.as_str(), again.attempt), ("6", 1));
    }
}
