//! Who gets in, and how far.

use std::time::Duration;

use http::Method;
use hull_apiserver::pki::ClusterPki;
use serde_json::json;

use crate::harness::{ApiClient, CONFIG_MAPS, PODS, TestServer, bind, config_map, pod};

#[tokio::test]
async fn without_a_certificate_only_health_and_version_answer() {
    let server = TestServer::start().await;
    let nobody = server.client(None);
    for path in ["/healthz", "/livez", "/readyz", "/readyz/store", "/version"] {
        assert_eq!(nobody.get(path).await.code, 200, "{path}");
    }
    for path in [
        "/api",
        "/apis",
        "/api/v1/pods",
        "/metrics",
        "/openapi/v3",
        "/nope",
    ] {
        assert_eq!(
            nobody.get(path).await.refused(),
            (401, "Unauthorized".into(), "Unauthorized".into()),
            "{path}"
        );
    }
}

#[tokio::test]
async fn a_certificate_of_another_ca_does_not_connect() {
    let server = TestServer::start().await;
    let dir = tempfile::tempdir().unwrap();
    let stranger = ClusterPki::load_or_create(dir.path(), &[]).unwrap();
    let pair = stranger.admin().unwrap();
    let client = ApiClient::new(&server.url, &server.pki, Some(&pair));
    let attempt = tokio::spawn(async move { client.get("/api").await.code });
    let result = tokio::time::timeout(Duration::from_secs(30), attempt)
        .await
        .unwrap();
    assert!(result.is_err(), "the handshake must fail");
}

#[tokio::test]
async fn others_are_told_what_they_may_not_do() {
    let server = TestServer::start().await;
    let pair = server.pki.client("jane", "jane", &["devs"]).unwrap();
    let jane = server.client(Some(&pair));
    assert_eq!(jane.get("/api").await.code, 200);
    assert_eq!(
        jane.get(PODS).await.refused(),
        (
            403,
            "Forbidden".into(),
            "pods is forbidden: User \"jane\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\"".into()
        )
    );
    assert_eq!(
        jane.get("/apis/apps/v1/deployments").await.refused().2,
        "deployments.apps is forbidden: User \"jane\" cannot list resource \"deployments\" in API group \"apps\" at the cluster scope"
    );
    assert_eq!(
        jane.get("/metrics").await.refused().2,
        "forbidden: User \"jane\" cannot get path \"/metrics\""
    );
}

#[tokio::test]
async fn a_node_reports_status_but_does_not_write_config() {
    let server = TestServer::start().await;
    server.admin.post(PODS, &pod("p")).await.ok();
    bind(&server.admin, "p", "n").await.ok();
    let node = server.client(Some(&server.pki.node_client("n").unwrap()));
    let patch = json!({"status": {"phase": "Running"}});
    node.patch(&format!("{PODS}/p/status"), "merge-patch", &patch)
        .await
        .ok();
    assert_eq!(node.post(CONFIG_MAPS, &config_map("x")).await.code, 403);
    assert_eq!(
        node.post(&format!("{PODS}/p/exec?command=sh"), &json!({}))
            .await
            .code,
        403
    );
    // Which it may read is in `rbac`.
    assert_eq!(node.get(CONFIG_MAPS).await.code, 403);
}

#[tokio::test]
async fn metrics_and_verbose_health_name_their_parts() {
    let server = TestServer::start().await;
    server.admin.get(PODS).await.ok();
    let metrics = server.admin.get("/metrics").await.text;
    assert!(
        metrics.contains("apiserver_request_total{verb=\"list\""),
        "{metrics}"
    );
    assert!(
        metrics.contains("apiserver_storage_objects{resource=\"namespaces\"} 4"),
        "{metrics}"
    );
    let verbose = server.admin.get("/readyz?verbose").await.text;
    assert!(verbose.contains("[+]store ok\n"), "{verbose}");
    assert!(verbose.ends_with("readyz check passed\n"), "{verbose}");
    assert_eq!(server.admin.get("/readyz/nope").await.code, 404);
}

#[tokio::test]
async fn discovery_answers_in_both_forms() {
    let server = TestServer::start().await;
    let client = &server.admin;
    let core = client.get("/api/v1").await.ok();
    let pods = core["resources"]
        .as_array()
        .unwrap()
        .iter()
        .find(|r| r["name"] == "pods")
        .unwrap();
    assert_eq!(pods["shortNames"], json!(["po"]));
    assert_eq!(pods["categories"], json!(["all"]));
    let accept =
        "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
    let answer = client
        .send(Method::GET, "/apis", &[("accept", accept)], "")
        .await;
    assert!(
        answer.headers["content-type"]
            .to_str()
            .unwrap()
            .contains("as=APIGroupDiscoveryList")
    );
    let tag = answer.headers["etag"].to_str().unwrap().to_string();
    assert_eq!(answer.ok()["items"][0]["metadata"]["name"], "apps");
    let again = client
        .send(
            Method::GET,
            "/apis",
            &[("accept", accept), ("if-none-match", &tag)],
            "",
        )
        .await;
    assert_eq!((again.code, again.text.as_str()), (304, ""));
    let groups = client.get("/apis").await.ok();
    assert_eq!(groups["kind"], "APIGroupList");
    assert_eq!(
        client.get("/apis/apps").await.ok()["preferredVersion"]["version"],
        "v1"
    );
    assert_eq!(client.get("/version").await.ok()["minor"], "36");
    let index = client.get("/openapi/v3").await.ok();
    let url = index["paths"]["apis/apps/v1"]["serverRelativeURL"]
        .as_str()
        .unwrap();
    assert!(client.get(url).await.ok()["paths"]["/apis/apps/v1/deployments"].is_object());
    assert_eq!(client.get("/openapi/v2").await.ok()["swagger"], "2.0");
}
