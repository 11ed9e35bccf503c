//! Pods of manifests on the node, and their mirrors in the API.

use std::time::Duration;

use crate::support::{Cluster, eventually, get};
use kube::api::DeleteParams;

const MANIFEST: &str = "apiVersion: v1
kind: Pod
metadata: {name: web}
spec:
  containers:
  - {name: c, image: 'i:1'}
";

async fn start() -> Cluster {
    let mut cluster = Cluster::without_agent().await;
    let directory = cluster.directory.path().join("manifests");
    std::fs::create_dir(&directory).unwrap();
    std::fs::write(directory.join("web.yaml"), MANIFEST).unwrap();
    cluster.config.static_pod_dir = Some(directory);
    cluster.start_agent();
    cluster
}

#[tokio::test(flavor = "multi_thread")]
async fn static_pod_runs_and_its_mirror_shows_it() {
    let cluster = start().await;
    let mirror = cluster.wait_running("web-n1").await;
    let hash = mirror.metadata.annotations.unwrap()["kubernetes.io/config.mirror"].clone();
    assert_ne!(mirror.metadata.uid.unwrap(), hash);
    let (code, text) = get(&cluster, "/containerLogs/default/web-n1/c").await;
    assert_eq!((code, text.as_str()), (200, "hello from c\n"));
    // A restarted container counts in the mirror too.
    cluster.cri.exit("c", 1);
    cluster
        .wait_pod("web-n1", "restarted", |pod| {
            crate::support::container(pod).is_some_and(|s| s.restart_count == 1)
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_mirror_is_made_anew_and_the_pod_is_not_disturbed() {
    let cluster = start().await;
    let first = cluster.wait_running("web-n1").await.metadata.uid;
    let parameters = DeleteParams::default();
    cluster.pods().delete("web-n1", &parameters).await.unwrap();
    cluster
        .wait_pod("web-n1", "mirrored anew", |pod| {
            pod.metadata.uid != first && crate::support::phase(pod) == "Running"
        })
        .await;
    assert_eq!(cluster.cri.called("StartContainer"), 1);
    assert_eq!(cluster.cri.called("StopContainer"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_manifest_replaces_the_pod_and_a_removed_one_ends_it() {
    let cluster = start().await;
    cluster.wait_running("web-n1").await;
    let file = cluster
        .config
        .static_pod_dir
        .clone()
        .unwrap()
        .join("web.yaml");
    std::fs::write(&file, MANIFEST.replace("name: c", "name: d")).unwrap();
    eventually("the new pod runs", || cluster.cri.container("d").is_some()).await;
    eventually("the old one is gone", || {
        cluster.cri.container("c").is_none()
    })
    .await;
    std::fs::remove_file(&file).unwrap();
    eventually("everything is gone", || cluster.cri.is_empty()).await;
    let begun = std::time::Instant::now();
    while cluster.pods().get_opt("web-n1").await.unwrap().is_some() {
        assert!(begun.elapsed() < Duration::from_secs(30), "mirror stays");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
