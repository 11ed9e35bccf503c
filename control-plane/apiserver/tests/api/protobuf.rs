//! Kubernetes' protobuf, as client-go's typed clients speak it, and gzip.

use std::io::Read;

use http::Method;
use http_body_util::BodyExt;
use hull_api::{
    protobuf::{self, MEDIA_TYPE},
    schema::schema,
};
use serde_json::{Value, json};

use crate::harness::{
    Answer, CONFIG_MAPS, DEPLOYMENTS, PATIENCE, TestServer, config_map, deployment,
};

/// The kind and the object of a protobuf body.
fn read(bytes: &[u8], type_name: &str) -> (String, Value) {
    let envelope = protobuf::open(bytes).unwrap();
    let id = schema().id(type_name).unwrap();
    (
        envelope.kind.to_string(),
        protobuf::decode(id, envelope.raw).unwrap(),
    )
}

async fn send(server: &TestServer, method: Method, path: &str, body: Vec<u8>) -> Answer {
    let headers = [("content-type", MEDIA_TYPE), ("accept", MEDIA_TYPE)];
    server.admin.send(method, path, &headers, body).await
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_are_created_read_and_deleted_in_protobuf() {
    let server = TestServer::start().await;
    let body = protobuf::encode_object(&deployment("web")).unwrap();
    let created = send(&server, Method::POST, DEPLOYMENTS, body).await;
    assert_eq!(created.code, 201, "{}", created.text);
    assert_eq!(created.headers["content-type"], MEDIA_TYPE);
    let (kind, object) = read(&created.bytes, "apps.Deployment");
    assert_eq!(kind, "Deployment");
    assert_eq!(
        object["spec"]["strategy"]["rollingUpdate"]["maxSurge"],
        "25%"
    );
    let path = format!("{DEPLOYMENTS}/web");
    let stored = server.admin.get(&path).await.ok();
    assert_eq!(
        stored["spec"]["template"]["spec"]["containers"][0]["name"],
        "web"
    );
    assert!(stored["metadata"].get("generateName").is_none());
    assert_eq!(object["metadata"]["uid"], stored["metadata"]["uid"]);
    let mut body = protobuf::encode_object(
        &json!({"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": "x"}}),
    )
    .unwrap();
    let refused = send(&server, Method::DELETE, &path, body.clone()).await;
    assert_eq!(refused.code, 409);
    let (kind, status) = read(&refused.bytes, "meta.Status");
    assert_eq!(
        (kind.as_str(), &status["reason"]),
        ("Status", &json!("Conflict"))
    );
    body.truncate(body.len() - 7);
    assert_eq!(send(&server, Method::DELETE, &path, body).await.code, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_and_watches_come_in_protobuf() {
    let server = TestServer::start().await;
    server.admin.post(CONFIG_MAPS, &config_map("a")).await.ok();
    let listed = send(&server, Method::GET, CONFIG_MAPS, Vec::new()).await;
    let envelope = protobuf::open(&listed.bytes).unwrap();
    assert_eq!(
        (envelope.api_version, envelope.kind),
        ("v1", "ConfigMapList")
    );
    let metadata =
        "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
    let answer = server
        .admin
        .send(Method::GET, CONFIG_MAPS, &[("accept", metadata)], "")
        .await;
    let (kind, list) = read(&answer.bytes, "meta.PartialObjectMetadataList");
    assert_eq!(kind, "PartialObjectMetadataList");
    assert_eq!(list["items"][0]["metadata"]["name"], "a");
    let version = list["metadata"]["resourceVersion"].as_str().unwrap();
    let path = format!("{CONFIG_MAPS}?watch=true&resourceVersion={version}");
    let mut watch = server
        .admin
        .raw(Method::GET, &path, &[("accept", MEDIA_TYPE)], "")
        .await;
    assert_eq!(
        watch.headers()["content-type"],
        "application/vnd.kubernetes.protobuf;stream=watch"
    );
    server.admin.post(CONFIG_MAPS, &config_map("b")).await.ok();
    let frame = tokio::time::timeout(PATIENCE, watch.body_mut().frame())
        .await
        .unwrap()
        .unwrap()
        .unwrap()
        .into_data()
        .unwrap();
    let length = u32::from_be_bytes(frame[..4].try_into().unwrap());
    assert_eq!(usize::try_from(length).unwrap(), frame.len() - 4);
    // type: field 1, "ADDED"; object: field 2, RawExtension with the object in its field 1.
    assert_eq!(&frame[4..11], b"\x0a\x05ADDED");
    let start = frame
        .windows(4)
        .position(|window| window == protobuf::MAGIC)
        .unwrap();
    let (kind, object) = read(&frame[start..], "core.ConfigMap");
    assert_eq!(
        (kind.as_str(), &object["metadata"]["name"]),
        ("ConfigMap", &json!("b"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn large_answers_are_compressed_for_those_who_ask() {
    let server = TestServer::start().await;
    let mut large = config_map("large");
    large["data"]["text"] = Value::from("0123456789".repeat(20_000));
    server.admin.post(CONFIG_MAPS, &large).await.ok();
    server
        .admin
        .post(CONFIG_MAPS, &config_map("small"))
        .await
        .ok();
    let get = async |name: &str, headers: &[(&str, &str)]| {
        let path = format!("{CONFIG_MAPS}/{name}");
        server.admin.send(Method::GET, &path, headers, "").await
    };
    let gzip = [("accept-encoding", "gzip")];
    assert!(
        !get("small", &gzip)
            .await
            .headers
            .contains_key("content-encoding")
    );
    let plain = get("large", &[]).await;
    assert!(!plain.headers.contains_key("content-encoding"));
    let packed = get("large", &gzip).await;
    assert_eq!(packed.headers["content-encoding"], "gzip");
    assert!(packed.bytes.len() < plain.bytes.len() / 10);
    let mut text = String::new();
    flate2::read::GzDecoder::new(packed.bytes.as_ref())
        .read_to_string(&mut text)
        .unwrap();
    assert_eq!(text, plain.text);
}
