//! Discovery and the OpenAPI documents.

use http::Method;

use crate::harness::TestServer;

#[tokio::test(flavor = "multi_thread")]
async fn every_document_of_the_index_is_served_and_cached() {
    let server = TestServer::start().await;
    let client = &server.admin;
    let index = client.get("/openapi/v3").await.ok();
    let paths = index["paths"].as_object().unwrap();
    assert!(paths.len() > 10, "{paths:?}");
    for (name, entry) in paths {
        let answer = client
            .get(entry["serverRelativeURL"].as_str().unwrap())
            .await;
        assert_eq!(answer.ok()["openapi"], "3.0.0", "{name}");
        let etag = answer.headers["etag"].to_str().unwrap();
        let again = client
            .send(
                Method::GET,
                &format!("/openapi/v3/{name}"),
                &[("if-none-match", etag)],
                "",
            )
            .await;
        assert_eq!(again.code, 304, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn version_two_comes_as_json_and_protobuf() {
    let server = TestServer::start().await;
    let whole = server.admin.get("/openapi/v2").await.ok();
    assert_eq!(whole["swagger"], "2.0");
    let pod = &whole["definitions"]["io.k8s.api.core.v1.Pod"];
    assert_eq!(pod["x-kubernetes-group-version-kind"][0]["kind"], "Pod");
    let asked = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
    let answer = server
        .admin
        .send(Method::GET, "/openapi/v2", &[("accept", asked)], "")
        .await;
    assert_eq!(
        answer.headers["content-type"],
        "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
    );
    // swagger: field 1.
    assert_eq!(&answer.bytes[..5], b"\x0a\x032.0");
}
