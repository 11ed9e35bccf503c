//! LIST: selectors, pages, versions, tables.

use std::io::Read;

use flate2::read::GzDecoder;
use http::Method;
use serde_json::{Value, json};

use crate::harness::{ApiClient, CONFIG_MAPS, PODS, TestServer, bind, config_map, pod};

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
const METADATA: &str =
    "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io,application/json";

fn names(list: &Value) -> Vec<String> {
    list["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["metadata"]["name"].as_str().unwrap().to_string())
        .collect()
}

async fn fill(client: &ApiClient, count: usize) {
    for number in 0..count {
        let mut object = config_map(&format!("c{number:02}"));
        object["metadata"]["labels"] = json!({"parity": (number % 2).to_string()});
        client.post(CONFIG_MAPS, &object).await.ok();
    }
}

#[tokio::test]
async fn a_list_sees_every_write_that_came_before() {
    let server = TestServer::start().await;
    for number in 0..20 {
        server
            .admin
            .post(CONFIG_MAPS, &config_map(&format!("c{number:02}")))
            .await
            .ok();
        let list = server.admin.get(CONFIG_MAPS).await.ok();
        assert_eq!(list["kind"], "ConfigMapList");
        assert_eq!(names(&list).len(), number + 1);
    }
}

#[tokio::test]
async fn pages_show_one_moment() {
    let server = TestServer::start().await;
    let client = &server.admin;
    fill(client, 7).await;
    let first = client.get(&format!("{CONFIG_MAPS}?limit=3")).await.ok();
    assert_eq!(names(&first), ["c00", "c01", "c02"]);
    assert_eq!(first["metadata"]["remainingItemCount"], 4);
    // What changes meanwhile does not show.
    client
        .delete(&format!("{CONFIG_MAPS}/c04"), &json!({}))
        .await
        .ok();
    client.post(CONFIG_MAPS, &config_map("c99")).await.ok();
    let token = first["metadata"]["continue"].as_str().unwrap();
    let second = client
        .get(&format!("{CONFIG_MAPS}?limit=3&continue={token}"))
        .await
        .ok();
    assert_eq!(names(&second), ["c03", "c04", "c05"]);
    assert_eq!(
        second["metadata"]["resourceVersion"],
        first["metadata"]["resourceVersion"]
    );
    let token = second["metadata"]["continue"].as_str().unwrap();
    let third = client
        .get(&format!("{CONFIG_MAPS}?limit=3&continue={token}"))
        .await
        .ok();
    assert_eq!(names(&third), ["c06"]);
    assert!(third["metadata"].get("continue").is_none());
    assert_eq!(
        client
            .get(&format!("{CONFIG_MAPS}?continue=garbage"))
            .await
            .code,
        400
    );
    // A token of another namespace leads nowhere else.
    let other = client
        .get(&format!(
            "/api/v1/namespaces/kube-system/configmaps?limit=3&continue={token}"
        ))
        .await;
    assert_eq!(other.code, 400);
}

/// What a stored token becomes when the store has forgotten its revision.
#[tokio::test]
async fn a_token_that_is_too_old_says_how_to_go_on() {
    let server = TestServer::start().await;
    let client = &server.admin;
    fill(client, 4).await;
    let first = client.get(&format!("{CONFIG_MAPS}?limit=2")).await.ok();
    let version = &first["metadata"]["resourceVersion"];
    let token = first["metadata"]["continue"].as_str().unwrap();
    client.post(CONFIG_MAPS, &config_map("c99")).await.ok();
    let newest = server.store.revision().await.unwrap();
    server.store.compact(newest).await.unwrap();
    let late = client
        .get(&format!("{CONFIG_MAPS}?limit=2&continue={token}"))
        .await;
    let (code, reason, message) = late.refused();
    assert_eq!((code, reason.as_str()), (410, "Expired"));
    assert!(message.contains("inconsistent list"), "{message}");
    let token = late.json()["metadata"]["continue"].clone();
    let rest = client
        .get(&format!(
            "{CONFIG_MAPS}?limit=2&continue={}",
            token.as_str().unwrap()
        ))
        .await
        .ok();
    assert_eq!(names(&rest), ["c02", "c03"]);
    assert_ne!(&rest["metadata"]["resourceVersion"], version);
    let token = rest["metadata"]["continue"].as_str().unwrap();
    let last = client
        .get(&format!("{CONFIG_MAPS}?continue={token}"))
        .await
        .ok();
    assert_eq!(names(&last), ["c99"]);
    let exact = client
        .get(&format!(
            "{CONFIG_MAPS}?resourceVersion={}&resourceVersionMatch=Exact",
            version.as_str().unwrap()
        ))
        .await;
    let (code, _, message) = exact.refused();
    assert_eq!(
        (code, message.as_str()),
        (410, "The resourceVersion for the provided list is too old.")
    );
}

/// Lists above the limit are written while they are sent; nobody must notice.
#[tokio::test]
async fn large_lists_are_whole_in_every_form() {
    const COUNT: usize = 400;
    let server = TestServer::start().await;
    let client = &server.admin;
    let payload = "x".repeat(4096);
    for number in 0..COUNT {
        let mut object = config_map(&format!("c{number:03}"));
        object["data"] = json!({"payload": payload});
        client.post(CONFIG_MAPS, &object).await.ok();
    }
    let get = |accept: &'static str, encoding: &'static str| async move {
        let headers = [("accept", accept), ("accept-encoding", encoding)];
        let answer = client.send(Method::GET, CONFIG_MAPS, &headers, "").await;
        assert_eq!(answer.code, 200, "{}", answer.text);
        answer
    };
    let expected: Vec<String> = (0..COUNT).map(|number| format!("c{number:03}")).collect();
    let plain = get("application/json", "identity").await;
    assert!(
        !plain.headers.contains_key("content-length"),
        "not streamed"
    );
    assert_eq!(names(&plain.json()), expected);
    assert_eq!(plain.json()["items"][399]["data"]["payload"], payload);
    let packed = get("application/json", "gzip").await;
    assert_eq!(packed.headers["content-encoding"], "gzip");
    let mut unpacked = Vec::new();
    GzDecoder::new(&packed.bytes[..])
        .read_to_end(&mut unpacked)
        .unwrap();
    assert_eq!(unpacked, plain.bytes);
    let table = get(TABLE, "identity").await.json();
    assert_eq!(table["rows"].as_array().unwrap().len(), COUNT);
    assert_eq!(table["rows"][399]["cells"][0], "c399");
    assert_eq!(names(&get(METADATA, "identity").await.json()), expected);
    let protobuf = get("application/vnd.kubernetes.protobuf", "identity").await;
    let envelope = hull_api::protobuf::open(&protobuf.bytes).unwrap();
    assert_eq!(envelope.kind, "ConfigMapList");
    let raw = String::from_utf8_lossy(envelope.raw);
    assert_eq!(raw.matches(&payload).count(), COUNT);
    let yaml = get("application/yaml", "identity").await;
    assert_eq!(yaml.text.matches("payload:").count(), COUNT);
}

#[tokio::test]
async fn what_is_not_kept_has_no_table() {
    let server = TestServer::start().await;
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"nonResourceAttributes": {"path": "/", "verb": "get"}},
    });
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let post = |accept: &'static str| {
        let headers = [("accept", accept), ("content-type", "application/json")];
        let body = review.to_string();
        let client = &server.admin;
        async move { client.send(Method::POST, path, &headers, body).await }
    };
    let table = TABLE.split(',').next().unwrap();
    let (code, reason, _) = post(table).await.refused();
    assert_eq!((code, reason.as_str()), (406, "NotAcceptable"));
    let answer = post(TABLE).await.ok();
    assert_eq!(answer["kind"], "SelfSubjectAccessReview");
}

#[tokio::test]
async fn selectors_choose_by_labels_and_fields() {
    let server = TestServer::start().await;
    let client = &server.admin;
    fill(client, 4).await;
    for (query, expected) in [
        ("labelSelector=parity%3D1", vec!["c01", "c03"]),
        ("labelSelector=parity+in+(0)", vec!["c00", "c02"]),
        ("labelSelector=!parity", vec![]),
        ("fieldSelector=metadata.name%3Dc02", vec!["c02"]),
        (
            "fieldSelector=metadata.name!%3Dc02&limit=2",
            vec!["c00", "c01"],
        ),
        ("labelSelector=parity%3D1&limit=1", vec!["c01"]),
    ] {
        let list = client.get(&format!("{CONFIG_MAPS}?{query}")).await.ok();
        assert_eq!(names(&list), expected, "{query}");
    }
    client.post(PODS, &pod("a")).await.ok();
    client.post(PODS, &pod("b")).await.ok();
    bind(client, "b", "n1").await.ok();
    let list = client
        .get("/api/v1/pods?fieldSelector=spec.nodeName%3Dn1")
        .await
        .ok();
    assert_eq!(names(&list), ["b"]);
    let list = client
        .get("/api/v1/pods?fieldSelector=spec.nodeName%3D")
        .await
        .ok();
    assert_eq!(names(&list), ["a"]);
    for bad in [
        "labelSelector=a%3D%3D%3Db",
        "fieldSelector=spec.nope%3D1",
        "fieldSelector=x",
        "limit=x",
    ] {
        assert_eq!(
            client.get(&format!("{CONFIG_MAPS}?{bad}")).await.code,
            400,
            "{bad}"
        );
    }
}

#[tokio::test]
async fn versions_choose_the_moment() {
    let server = TestServer::start().await;
    let client = &server.admin;
    fill(client, 2).await;
    let then = client.get(CONFIG_MAPS).await.ok();
    let version = then["metadata"]["resourceVersion"]
        .as_str()
        .unwrap()
        .to_string();
    client.post(CONFIG_MAPS, &config_map("later")).await.ok();
    let exact = client
        .get(&format!(
            "{CONFIG_MAPS}?resourceVersion={version}&resourceVersionMatch=Exact"
        ))
        .await
        .ok();
    assert_eq!(names(&exact).len(), 2);
    let newer = client
        .get(&format!(
            "{CONFIG_MAPS}?resourceVersion={version}&resourceVersionMatch=NotOlderThan"
        ))
        .await
        .ok();
    assert_eq!(names(&newer).len(), 3);
    let future = client
        .get(&format!("{CONFIG_MAPS}?resourceVersion=999999"))
        .await;
    let (code, reason, message) = future.refused();
    assert_eq!((code, reason.as_str()), (504, "Timeout"));
    assert!(
        message.starts_with("Too large resource version: 999999"),
        "{message}"
    );
    assert_eq!(
        client
            .get(&format!("{CONFIG_MAPS}?resourceVersion=x"))
            .await
            .code,
        400
    );
}

#[tokio::test]
async fn tables_and_metadata_come_when_asked_for() {
    let server = TestServer::start().await;
    let client = &server.admin;
    client.post(PODS, &pod("a")).await.ok();
    let table = client
        .send(Method::GET, PODS, &[("accept", TABLE)], "")
        .await
        .ok();
    assert_eq!(table["kind"], "Table");
    let columns: Vec<&str> = table["columnDefinitions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|column| column["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        columns,
        [
            "Name",
            "Ready",
            "Status",
            "Restarts",
            "Age",
            "IP",
            "Node",
            "Nominated Node",
            "Readiness Gates"
        ]
    );
    assert_eq!(table["rows"][0]["cells"][1], "0/1");
    assert_eq!(table["rows"][0]["cells"][2], "Pending");
    assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    let list = client
        .send(Method::GET, PODS, &[("accept", METADATA)], "")
        .await
        .ok();
    assert_eq!(list["kind"], "PartialObjectMetadataList");
    assert!(list["items"][0].get("spec").is_none());
    let one = client
        .send(Method::GET, &format!("{PODS}/a"), &[("accept", TABLE)], "")
        .await
        .ok();
    assert_eq!(one["rows"].as_array().unwrap().len(), 1);
    let yaml = client
        .send(Method::GET, PODS, &[("accept", "application/yaml")], "")
        .await;
    assert!(yaml.text.contains("kind: PodList"), "{}", yaml.text);
}
