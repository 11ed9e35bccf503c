//! configMap, secret and emptyDir volumes.

use anyhow::{Result, ensure};
use hull_e2e::{cluster::Cluster, wait};

use crate::Scenario;

pub const ALL: &[Scenario] = &[
    (
        "node_config_and_secrets_arrive_and_are_updated",
        config_and_secrets,
    ),
    (
        "node_empty_dir_is_shared_by_the_containers_of_a_pod",
        empty_dir,
    ),
    (
        "node_missing_config_map_holds_the_container_back_with_the_cause",
        missing_config_map,
    ),
];

fn config_and_secrets(cluster: &mut Cluster) -> Result<()> {
    cluster.kubectl.apply(
        r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {colour: blue}
---
apiVersion: v1
kind: Secret
metadata: {name: password}
stringData: {word: sesame}
---
apiVersion: v1
kind: Pod
metadata: {name: reader}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: busybox
    command: [sh, -c, "exec sleep 100000"]
    env:
    - {name: COLOUR, valueFrom: {configMapKeyRef: {name: settings, key: colour}}}
    - {name: WORD, valueFrom: {secretKeyRef: {name: password, key: word}}}
    volumeMounts:
    - {name: settings, mountPath: /settings}
    - {name: password, mountPath: /password, readOnly: true}
  volumes:
  - {name: settings, configMap: {name: settings}}
  - {name: password, secret: {secretName: password, defaultMode: 0400}}
"#,
    )?;
    cluster.kubectl.pod_ready("reader")?;
    let script = "cat /settings/colour; echo; cat /password/word; echo; echo $COLOUR $WORD; stat -L -c %a /password/word";
    let seen = cluster
        .kubectl
        .run(&["exec", "reader", "--", "sh", "-c", script])?;
    ensure!(seen == "blue\nsesame\nblue sesame\n400\n", "{seen}");

    cluster.kubectl.run(&[
        "patch",
        "configmap",
        "settings",
        "-p",
        r#"{"data":{"colour":"green"}}"#,
    ])?;
    wait::until("the new value in the running container", 30, || {
        let now = cluster
            .kubectl
            .run(&["exec", "reader", "--", "cat", "/settings/colour"])?;
        Ok(if now == "green" { Ok(()) } else { Err(now) })
    })?;
    cluster.kubectl.delete_pod("reader")
}

fn empty_dir(cluster: &mut Cluster) -> Result<()> {
    cluster.kubectl.apply(
        r#"
apiVersion: v1
kind: Pod
metadata: {name: pair}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: writer
    image: busybox
    command: [sh, -c, "echo hello > /shared/word; exec sleep 100000"]
    volumeMounts: [{name: shared, mountPath: /shared}]
  - name: reader
    image: busybox
    command: [sh, -c, "until cat /elsewhere/word; do sleep 1; done; exec sleep 100000"]
    volumeMounts: [{name: shared, mountPath: /elsewhere}]
  volumes:
  - {name: shared, emptyDir: {}}
"#,
    )?;
    cluster.kubectl.pod_ready("pair")?;
    wait::until("the reader to print the writer's word", 15, || {
        let log = cluster.kubectl.run(&["logs", "pair", "-c", "reader"])?;
        Ok(if log.contains("hello") {
            Ok(())
        } else {
            Err(log)
        })
    })?;
    cluster.kubectl.delete_pod("pair")
}

fn missing_config_map(cluster: &mut Cluster) -> Result<()> {
    cluster.kubectl.apply(
        r#"
apiVersion: v1
kind: Pod
metadata: {name: waiting}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: busybox
    command: [sh, -c, "exec sleep 100000"]
    env: [{name: LATER, valueFrom: {configMapKeyRef: {name: later, key: key}}}]
"#,
    )?;
    let reason = "CreateContainerConfigError";
    cluster.kubectl.pod_until("waiting", reason, 30, |pod| {
        let waiting = &pod["status"]["containerStatuses"][0]["state"]["waiting"];
        let named = waiting["message"]
            .as_str()
            .is_some_and(|m| m.contains("later"));
        if waiting["reason"] == reason && named {
            Ok(())
        } else {
            Err(pod["status"].to_string())
        }
    })?;
    cluster
        .kubectl
        .apply_config_map("default", "later", "key", "value")?;
    cluster.kubectl.pod_ready("waiting")?;
    cluster.kubectl.delete_pod("waiting")
}
