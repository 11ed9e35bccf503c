//! What a pod does when all is well.

use anyhow::{Context, Result, ensure};
use hull_e2e::{cluster::Cluster, wait};

use crate::{Scenario, streams};

pub const ALL: &[Scenario] = &[
    (
        "node_pod_serves_its_page_from_a_virtual_machine",
        serves_its_page,
    ),
    ("node_logs_and_exec_reach_the_container", logs_and_exec),
    (
        "node_environment_command_and_identity_are_as_the_pod_says",
        environment,
    ),
    (
        "node_deleted_pod_ends_gracefully_and_leaves_nothing",
        ends_gracefully,
    ),
    (
        "node_failed_command_is_restarted_with_back_off",
        restarted_with_back_off,
    ),
    (
        "node_pod_that_never_restarts_reports_its_end",
        never_restarts,
    ),
];

const NGINX: &str = include_str!("../../../../examples/nginx.yaml");

fn serves_its_page(cluster: &mut Cluster) -> Result<()> {
    cluster.kubectl.apply(NGINX)?;
    let pod = cluster.kubectl.pod_ready("nginx")?;
    let address = pod["status"]["podIP"]
        .as_str()
        .context("the pod has no address")?;
    let page = cluster.http_get(address, 80)?;
    ensure!(page.contains("<title>"), "not a page: {page}");

    let guest = cluster
        .kubectl
        .run(&["exec", "nginx", "--", "cat", "/proc/cmdline"])?;
    let node = std::fs::read_to_string("/proc/cmdline")?;
    ensure!(
        guest.trim() != node.trim(),
        "the container runs on the node's kernel: {guest}"
    );
    cluster.kubectl.delete_pod("nginx")
}

fn logs_and_exec(cluster: &mut Cluster) -> Result<()> {
    cluster.kubectl.apply(&shell_pod(
        "talker",
        "echo one; echo two >&2; echo three; exec sleep 100000",
    ))?;
    cluster.kubectl.pod_ready("talker")?;
    wait::until("three lines of log", 10, || {
        let log = cluster.kubectl.run(&["logs", "talker"])?;
        let mut lines: Vec<_> = log.lines().collect();
        lines.sort_unstable();
        Ok(if lines == ["one", "three", "two"] {
            Ok(())
        } else {
            Err(log)
        })
    })?;
    ensure!(
        cluster
            .kubectl
            .run(&["logs", "talker", "--tail=1"])?
            .lines()
            .count()
            == 1,
        "--tail=1 gives one line"
    );

    let printed = cluster.kubectl.try_run(
        &[
            "exec",
            "talker",
            "--",
            "sh",
            "-c",
            "echo out; echo err >&2; exit 7",
        ],
        "",
    )?;
    ensure!(
        printed.stdout == "out\n" && printed.stderr.starts_with("err\n"),
        "{printed:?}"
    );
    ensure!(printed.code == 7, "the exit code arrives: {printed:?}");

    let payload: String = (0..20_000).map(|n| format!("line {n}\n")).collect();
    let printed = cluster
        .kubectl
        .try_run(&["exec", "-i", "talker", "--", "cat"], &payload)?;
    ensure!(
        printed.stdout == payload,
        "{} of {} bytes came back",
        printed.stdout.len(),
        payload.len()
    );

    let printed = cluster
        .kubectl
        .try_run(&["exec", "talker", "--", "no-such-program"], "")?;
    ensure!(
        printed.code != 0 && printed.stderr.contains("no-such-program"),
        "{printed:?}"
    );
    streams::terminal_has_the_users_size(&cluster.kubectl, "talker")?;
    streams::version_4_carries_streams_and_status(&cluster.kubectl, "talker")?;
    cluster.kubectl.delete_pod("talker")
}

fn environment(cluster: &mut Cluster) -> Result<()> {
    cluster.kubectl.apply(
        r#"
apiVersion: v1
kind: Pod
metadata: {name: identity, labels: {role: test}}
spec:
  hostname: somebody
  containers:
  - name: main
    image: busybox
    command: [sh, -c, "exec sleep 100000"]
    workingDir: /tmp
    env:
    - {name: PLAIN, value: plain}
    - {name: EXPANDED, value: "$(PLAIN)-$(POD)"}
    - {name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
    securityContext: {runAsUser: 1234, runAsGroup: 2345}
    resources: {limits: {memory: 64Mi, cpu: 500m}}
"#,
    )?;
    cluster.kubectl.pod_ready("identity")?;
    let seen = cluster.kubectl.run(&[
        "exec",
        "identity",
        "--",
        "sh",
        "-c",
        "hostname; pwd; id -u; id -g; echo $PLAIN $POD; echo $EXPANDED",
    ])?;
    ensure!(
        seen.lines().collect::<Vec<_>>()
            == [
                "somebody",
                "/tmp",
                "1234",
                "2345",
                "plain identity",
                // What is defined later cannot be referred to.
                "plain-$(POD)"
            ],
        "{seen}"
    );
    let pod = cluster
        .kubectl
        .get("pods", "identity")?
        .context("the pod is gone")?;
    ensure!(
        pod["status"]["qosClass"] == "Guaranteed",
        "{}",
        pod["status"]["qosClass"]
    );
    cluster.kubectl.delete_pod("identity")
}

fn ends_gracefully(cluster: &mut Cluster) -> Result<()> {
    let before = cluster.traces()?;
    let script = "trap 'echo told to stop; exit 0' TERM; echo up; while :; do sleep 1; done";
    let (short, long) = ("GracePeriodSeconds: 1", "GracePeriodSeconds: 5");
    let yaml = shell_pod("polite", script).replace(short, long);
    cluster.kubectl.apply(&yaml)?;
    cluster.kubectl.pod_ready("polite")?;
    let mut follow = cluster.follow_logs("polite")?;
    cluster.kubectl.delete_pod("polite")?;
    let log = follow.wait_for_end()?;
    ensure!(
        log.contains("told to stop"),
        "SIGTERM did not reach the container: {log}"
    );
    cluster.wait_for_no_more(&before)
}

fn restarted_with_back_off(cluster: &mut Cluster) -> Result<()> {
    cluster
        .kubectl
        .apply(&shell_pod("crasher", "echo attempt; exit 3"))?;
    let pod =
        cluster
            .kubectl
            .pod_until("crasher", "CrashLoopBackOff after a restart", 90, |pod| {
                let status = &pod["status"]["containerStatuses"][0];
                let waiting = status["state"]["waiting"]["reason"] == "CrashLoopBackOff";
                let restarted = status["restartCount"].as_u64().is_some_and(|n| n >= 1);
                if waiting && restarted {
                    Ok(())
                } else {
                    Err(status.to_string())
                }
            })?;
    let last = &pod["status"]["containerStatuses"][0]["lastState"]["terminated"];
    ensure!(last["exitCode"] == 3 && last["reason"] == "Error", "{last}");
    let previous = cluster.kubectl.run(&["logs", "crasher", "--previous"])?;
    ensure!(previous.contains("attempt"), "{previous}");
    cluster
        .kubectl
        .event("crasher", "BackOff", "restarting failed container")?;
    cluster.kubectl.delete_pod("crasher")
}

fn never_restarts(cluster: &mut Cluster) -> Result<()> {
    for (name, code, phase) in [("well", 0, "Succeeded"), ("ill", 4, "Failed")] {
        let yaml = shell_pod(name, &format!("exit {code}"))
            .replace("spec:", "spec:\n  restartPolicy: Never");
        cluster.kubectl.apply(&yaml)?;
        let pod = cluster.kubectl.pod_until(name, phase, 30, |pod| {
            if pod["status"]["phase"] == phase {
                Ok(())
            } else {
                Err(pod["status"].to_string())
            }
        })?;
        let ended = &pod["status"]["containerStatuses"][0]["state"]["terminated"];
        ensure!(ended["exitCode"] == code, "{ended}");
        cluster.kubectl.delete_pod(name)?;
    }
    Ok(())
}

/// A pod of one busybox container that runs a shell script.
pub fn shell_pod(name: &str, script: &str) -> String {
    format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: busybox
    command: ["sh", "-c", {}]
"#,
        serde_json::Value::from(script)
    )
}
