//! kubectl's columns of a pod: the STATUS word is found as Kubernetes' printer finds it
//! (pkg/printers/internalversion/printers.go).

use jiff::Timestamp;
use serde_json::Value;

use crate::{
    ObjectExt,
    table::{self, Column},
    time,
};

pub(super) const COLUMNS: &[Column] = &[
    table::NAME,
    table::column("Ready", "Containers that are ready, of all."),
    table::column("Status", "What the pod as a whole does."),
    table::column(
        "Restarts",
        "How often its containers were restarted, and when last.",
    ),
    table::AGE,
    table::wide("IP", "The pod's address."),
    table::wide("Node", "Where it runs."),
    table::wide("Nominated Node", "Where room is being made for it."),
    table::wide("Readiness Gates", "Extra conditions that are true, of all."),
];

/// What the printer collects while it walks over the containers.
struct Summary {
    reason: String,
    ready: usize,
    total: usize,
    restarts: i64,
    last_restart: Option<Timestamp>,
}

pub(super) fn row(pod: &Value, now: Timestamp) -> Vec<Value> {
    let summary = summarise(pod);
    let mut restarts = summary.restarts.to_string();
    if let (true, Some(last)) = (summary.restarts > 0, summary.last_restart) {
        let ago = time::human_duration(now.as_second() - last.as_second());
        restarts = format!("{restarts} ({ago} ago)");
    }
    let or_none = |text: &str| Value::from(if text.is_empty() { "<none>" } else { text });
    let address = match pod.list_at("/status/podIPs").first() {
        Some(first) => first.str_at("/ip"),
        None => pod.str_at("/status/podIP"),
    };
    vec![
        Value::from(pod.name()),
        Value::from(format!("{}/{}", summary.ready, summary.total)),
        Value::from(summary.reason),
        Value::from(restarts),
        table::age_cell(pod, now),
        or_none(address),
        or_none(pod.str_at("/spec/nodeName")),
        or_none(pod.str_at("/status/nominatedNodeName")),
        Value::from(readiness_gates(pod)),
    ]
}

fn summarise(pod: &Value) -> Summary {
    let sidecar = |name: &str| {
        pod.list_at("/spec/initContainers")
            .iter()
            .any(|c| c.str_at("/name") == name && c.str_at("/restartPolicy") == "Always")
    };
    let sidecars = pod
        .list_at("/spec/initContainers")
        .iter()
        .filter(|c| c.str_at("/restartPolicy") == "Always")
        .count();
    let mut summary = Summary {
        reason: match pod.str_at("/status/reason") {
            "" => pod.str_at("/status/phase").to_string(),
            reason => reason.to_string(),
        },
        ready: 0,
        total: pod.list_at("/spec/containers").len() + sidecars,
        restarts: 0,
        last_restart: None,
    };
    let gated =
        condition(pod, "PodScheduled").is_some_and(|c| c.str_at("/reason") == "SchedulingGated");
    if gated {
        summary.reason = "SchedulingGated".to_string();
    }
    let initializing = summarise_init(pod, &mut summary, sidecar);
    if !initializing || condition_true(pod, "Initialized") {
        summarise_containers(pod, &mut summary);
    }
    if pod.is_deleting() {
        let finished = matches!(pod.str_at("/status/phase"), "Failed" | "Succeeded");
        if pod.str_at("/status/reason") == "NodeLost" {
            summary.reason = "Unknown".to_string();
        } else if !finished {
            summary.reason = "Terminating".to_string();
        }
    }
    summary
}

/// Why a terminated container ended, or `Signal:9`, `ExitCode:1`.
fn ended(terminated: &Value) -> String {
    match (
        terminated.str_at("/reason"),
        terminated.int_at("/signal").unwrap_or(0),
    ) {
        ("", 0) => format!("ExitCode:{}", terminated.int_at("/exitCode").unwrap_or(0)),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_string(),
    }
}

fn note_restart(summary: &mut Summary, status: &Value) {
    summary.restarts += status.int_at("/restartCount").unwrap_or(0);
    let finished = time::parse(status.str_at("/lastState/terminated/finishedAt"));
    if finished > summary.last_restart {
        summary.last_restart = finished;
    }
}

/// Walks over the init containers; true while they are not done.
fn summarise_init(pod: &Value, summary: &mut Summary, sidecar: impl Fn(&str) -> bool) -> bool {
    let count = pod.list_at("/spec/initContainers").len();
    for (index, status) in pod
        .list_at("/status/initContainerStatuses")
        .iter()
        .enumerate()
    {
        note_restart(summary, status);
        let terminated = status.pointer("/state/terminated");
        if terminated.is_some_and(|t| t.int_at("/exitCode").unwrap_or(0) == 0) {
            continue;
        }
        if sidecar(status.str_at("/name")) && status.bool_at("/started") {
            summary.ready += usize::from(status.bool_at("/ready"));
            continue;
        }
        let waiting = status.str_at("/state/waiting/reason");
        summary.reason = match terminated {
            Some(terminated) => format!("Init:{}", ended(terminated)),
            None if !waiting.is_empty() && waiting != "PodInitializing" => {
                format!("Init:{waiting}")
            }
            None => format!("Init:{index}/{count}"),
        };
        return true;
    }
    false
}

fn summarise_containers(pod: &Value, summary: &mut Summary) {
    let mut running = false;
    for status in pod.list_at("/status/containerStatuses").iter().rev() {
        note_restart(summary, status);
        let waiting = status.str_at("/state/waiting/reason");
        if !waiting.is_empty() {
            summary.reason = waiting.to_string();
        } else if let Some(terminated) = status.pointer("/state/terminated") {
            summary.reason = ended(terminated);
        } else if status.bool_at("/ready") && status.pointer("/state/running").is_some() {
            running = true;
            summary.ready += 1;
        }
    }
    if summary.reason == "Completed" && running {
        summary.reason = if condition_true(pod, "Ready") {
            "Running"
        } else {
            "NotReady"
        }
        .to_string();
    }
}

fn condition<'a>(pod: &'a Value, wanted: &str) -> Option<&'a Value> {
    pod.list_at("/status/conditions")
        .iter()
        .find(|condition| condition.str_at("/type") == wanted)
}

fn condition_true(pod: &Value, wanted: &str) -> bool {
    condition(pod, wanted).is_some_and(|condition| condition.str_at("/status") == "True")
}

fn readiness_gates(pod: &Value) -> String {
    let gates = pod.list_at("/spec/readinessGates");
    if gates.is_empty() {
        return "<none>".to_string();
    }
    let met = gates
        .iter()
        .filter(|gate| condition_true(pod, gate.str_at("/conditionType")))
        .count();
    format!("{met}/{}", gates.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_status_word_follows_the_containers() {
        let spec = json!({"containers": [{"name": "a"}], "initContainers": [{"name": "i"}]});
        for (status, metadata, word, ready) in [
            (json!({"phase": "Pending"}), json!({}), "Pending", "0/1"),
            (
                json!({"phase": "Pending", "containerStatuses": [{"state": {"waiting": {"reason": "ErrImagePull"}}}]}),
                json!({}),
                "ErrImagePull",
                "0/1",
            ),
            (
                json!({"phase": "Running", "containerStatuses": [{"ready": true, "state": {"running": {}}}]}),
                json!({}),
                "Running",
                "1/1",
            ),
            (
                json!({"phase": "Running", "containerStatuses": [{"ready": true, "state": {"running": {}}}]}),
                json!({"deletionTimestamp": "2026-01-01T00:00:00Z"}),
                "Terminating",
                "1/1",
            ),
            (
                json!({"phase": "Running", "containerStatuses": [{"state": {"terminated": {"exitCode": 3}}}]}),
                json!({}),
                "ExitCode:3",
                "0/1",
            ),
            (
                json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": {"running": {}}}]}),
                json!({}),
                "Init:0/1",
                "0/1",
            ),
            (
                json!({"phase": "Failed", "reason": "Evicted"}),
                json!({}),
                "Evicted",
                "0/1",
            ),
        ] {
            let pod = json!({"metadata": metadata, "spec": spec, "status": status});
            let row = row(&pod, Timestamp::UNIX_EPOCH);
            assert_eq!(row[2], word, "{status}");
            assert_eq!(row[1], ready, "{status}");
        }
    }

    #[test]
    fn restarts_show_when_the_last_one_was() {
        let pod = json!({"spec": {"containers": [{"name": "a"}]}, "status": {"phase": "Running", "containerStatuses": [
            {"restartCount": 2, "lastState": {"terminated": {"finishedAt": "1970-01-01T00:00:10Z"}}, "state": {"running": {}}}]}});
        let now = Timestamp::from_second(40).unwrap();
        assert_eq!(row(&pod, now)[3], "2 (30s ago)");
    }
}
