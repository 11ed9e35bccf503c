//! Images: when they are asked for, with which credentials, and what shows when they are not to be
//! had.

use crate::support::{Cluster, container, waiting};
use hull_cri_api::v1::Image;
use k8s_openapi::api::core::v1::Secret;
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn image_that_cannot_be_pulled_backs_off_and_recovers() {
    let cluster = Cluster::start().await;
    cluster
        .cri
        .state
        .lock()
        .bad_images
        .insert("gone:1".into(), "manifest unknown".into());
    cluster
        .create_pod(
            "pull",
            json!({"containers": [{"name": "c", "image": "gone:1"}]}),
        )
        .await;
    let message = cluster.wait_waiting("pull", "ErrImagePull").await;
    assert!(message.contains("manifest unknown"), "{message}");
    let failed = cluster.wait_event("pull", "Failed").await;
    assert!(failed.contains("manifest unknown"), "{failed}");
    let message = cluster.wait_waiting("pull", "ImagePullBackOff").await;
    assert!(message.contains("manifest unknown"), "{message}");
    cluster.cri.state.lock().bad_images.clear();
    cluster.wait_running("pull").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn image_pull_secret_reaches_the_runtime() {
    let cluster = Cluster::start().await;
    let image = "reg.example:5000/app:1";
    let credentials = ("user".to_owned(), "word".to_owned());
    cluster
        .cri
        .state
        .lock()
        .private_images
        .insert(image.into(), credentials);
    let docker = json!({"auths": {"reg.example:5000": {"username": "user", "password": "word"}}});
    cluster
        .create::<Secret>(
            json!({"metadata": {"name": "pull"}, "type": "kubernetes.io/dockerconfigjson",
            "stringData": {".dockerconfigjson": docker.to_string()}}),
        )
        .await;
    cluster
        .create_pod(
            "private",
            json!({"imagePullSecrets": [{"name": "pull"}],
            "containers": [{"name": "c", "image": image}]}),
        )
        .await;
    cluster.wait_running("private").await;
}

/// A pod whose container has this image and policy.
async fn create_with_policy(cluster: &Cluster, name: &str, image: &str, policy: &str) {
    let container = json!({"name": "c", "image": image, "imagePullPolicy": policy});
    cluster
        .create_pod(name, json!({"containers": [container]}))
        .await;
}

/// The image is on the node.
fn put_image(cluster: &Cluster, name: &str) {
    let image = Image {
        id: format!("sha256:{name}"),
        ..Default::default()
    };
    cluster.cri.state.lock().images.insert(name.into(), image);
}

#[tokio::test(flavor = "multi_thread")]
async fn image_that_may_not_be_pulled_is_waited_for_with_the_cause() {
    let cluster = Cluster::start().await;
    create_with_policy(&cluster, "never", "i:1", "Never").await;
    let cause = "Container image \"i:1\" is not present with pull policy of Never";
    let message = cluster.wait_waiting("never", "ErrImageNeverPull").await;
    assert_eq!(message, cause);
    let event = cluster.wait_event("never", "ErrImageNeverPull").await;
    assert_eq!(event, cause);
    let event = cluster.wait_event("never", "Failed").await;
    assert_eq!(event, "Error: ErrImageNeverPull");
    // Somebody brings it to the node.
    put_image(&cluster, "i:1");
    let pod = cluster.wait_running("never").await;
    assert_eq!(container(&pod).unwrap().restart_count, 0);
    assert!(waiting(&pod).is_none());
    assert_eq!(cluster.cri.called("PullImage"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn image_is_pulled_once_if_it_is_wanted_when_absent() {
    let cluster = Cluster::start().await;
    create_with_policy(&cluster, "first", "i:latest", "IfNotPresent").await;
    cluster.wait_running("first").await;
    assert_eq!(cluster.cri.called("PullImage i:latest"), 1);
    create_with_policy(&cluster, "second", "i:latest", "IfNotPresent").await;
    cluster.wait_running("second").await;
    assert_eq!(cluster.cri.called("PullImage i:latest"), 1);
    let event = cluster.wait_event("second", "Pulled").await;
    assert_eq!(
        event,
        "Container image \"i:latest\" already present on machine"
    );
    // It is not even asked for a registry that is down.
    let gone = ("i:latest".to_owned(), "connection refused".to_owned());
    cluster.cri.state.lock().bad_images.extend([gone]);
    create_with_policy(&cluster, "third", "i:latest", "IfNotPresent").await;
    cluster.wait_running("third").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn image_is_asked_for_at_each_start_if_always_wanted() {
    let cluster = Cluster::start().await;
    put_image(&cluster, "i:1");
    create_with_policy(&cluster, "always", "i:1", "Always").await;
    cluster.wait_running("always").await;
    assert_eq!(cluster.cri.called("PullImage i:1"), 1);
    // The one on the node does not stand in for one that is refused.
    let refused = ("i:1".to_owned(), "manifest unknown".to_owned());
    cluster.cri.state.lock().bad_images.extend([refused]);
    cluster.cri.exit("c", 1);
    let message = cluster.wait_waiting("always", "ErrImagePull").await;
    assert!(message.contains("manifest unknown"), "{message}");
    assert_eq!(cluster.cri.called("StartContainer c"), 1);
}
