//! What a pod is given to find and talk to the API server: token, CA, service variables.

use crate::support::Cluster;
use k8s_openapi::api::authentication::v1::TokenReview;
use k8s_openapi::api::core::v1::{ConfigMap, Service, ServiceAccount};
use kube::Api;
use kube::api::PostParams;
use serde_json::{Value, json};

/// What the ServiceAccount admission adds to a pod.
fn access_volume() -> Value {
    json!({"name": "kube-api-access", "projected": {"defaultMode": 420, "sources": [
        {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace",
            "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}}]}})
}

fn pod_spec() -> Value {
    json!({"serviceAccountName": "robot", "volumes": [access_volume()],
        "containers": [{"name": "c", "image": "i:1", "volumeMounts": [{"name": "kube-api-access",
            "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "readOnly": true}]}]})
}

#[tokio::test(flavor = "multi_thread")]
async fn pod_gets_a_token_of_its_account_bound_to_it() {
    let cluster = Cluster::start().await;
    cluster
        .create::<ConfigMap>(
            json!({"metadata": {"name": "kube-root-ca.crt"}, "data": {"ca.crt": "PEM"}}),
        )
        .await;
    cluster.create_pod("robot", pod_spec()).await;
    let message = cluster.wait_event("robot", "FailedMount").await;
    assert!(
        message.starts_with("MountVolume.SetUp failed for volume \"kube-api-access\" : failed to fetch token: serviceaccounts \"robot\" not found"),
        "{message}"
    );
    cluster
        .create::<ServiceAccount>(json!({"metadata": {"name": "robot"}}))
        .await;
    cluster.wait_running("robot").await;
    let (_, made) = cluster.cri.container("c").unwrap();
    let directory = std::path::PathBuf::from(&made.config.mounts[0].host_path);
    let read = |name: &str| std::fs::read_to_string(directory.join(name)).unwrap();
    assert_eq!(
        (read("ca.crt"), read("namespace")),
        ("PEM".into(), "default".into())
    );
    let reviews: Api<TokenReview> = Api::all(cluster.client.clone());
    let review = json!({"metadata": {}, "spec": {"token": read("token")}});
    let review = serde_json::from_value(review).unwrap();
    let review = reviews.create(&PostParams::default(), &review).await;
    let user = review.unwrap().status.unwrap().user.unwrap();
    assert_eq!(
        user.username.as_deref(),
        Some("system:serviceaccount:default:robot")
    );
    assert_eq!(
        user.extra.unwrap()["authentication.kubernetes.io/pod-name"],
        ["robot"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_are_told_of_the_services_of_their_namespace() {
    let cluster = Cluster::start().await;
    cluster
        .create::<Service>(json!({"metadata": {"name": "my-db"},
            "spec": {"ports": [{"name": "sql", "port": 5432}]}}))
        .await;
    let services: Api<Service> = Api::namespaced(cluster.client.clone(), "default");
    let address = services
        .get("my-db")
        .await
        .unwrap()
        .spec
        .unwrap()
        .cluster_ip;
    for (name, links) in [("links", true), ("plain", false)] {
        let spec = json!({"enableServiceLinks": links,
            "containers": [{"name": name, "image": "i:1"}]});
        cluster.create_pod(name, spec).await;
        cluster.wait_running(name).await;
        let (_, made) = cluster.cri.container(name).unwrap();
        let envs = made.config.envs;
        let value = |name: &str| envs.iter().find(|e| e.key == name).map(|e| e.value.clone());
        assert_eq!(
            value("MY_DB_SERVICE_HOST"),
            address.clone().filter(|_| links)
        );
        assert_eq!(value("MY_DB_SERVICE_PORT_SQL").is_some(), links);
    }
}
