//! WATCH: order, selectors, versions, bookmarks.

use std::{sync::Arc, time::Duration};

use http::Method;
use http_body_util::BodyExt;
use hull_store::Store;
use serde_json::{Value, json};

use crate::harness::{CONFIG_MAPS, PATIENCE, PODS, TestServer, WatchLines, bind, config_map, pod};

fn pair(event: &str, name: &str) -> (String, String) {
    (event.to_string(), name.to_string())
}

#[tokio::test]
async fn a_watch_continues_where_a_list_ended() {
    let server = TestServer::start().await;
    let client = &server.admin;
    client.post(CONFIG_MAPS, &config_map("before")).await.ok();
    let list = client.get(CONFIG_MAPS).await.ok();
    let version = list["metadata"]["resourceVersion"].as_str().unwrap();
    client.post(CONFIG_MAPS, &config_map("a")).await.ok();
    let mut watch = client
        .watch(&format!("{CONFIG_MAPS}?watch=1&resourceVersion={version}"))
        .await;
    assert_eq!(watch.next_name().await, pair("ADDED", "a"));
    let patch = json!({"data": {"a": "2"}});
    let patched = client
        .patch(&format!("{CONFIG_MAPS}/a"), "merge-patch", &patch)
        .await
        .ok();
    let event = watch.next().await.unwrap();
    assert_eq!(event, json!({"type": "MODIFIED", "object": patched}));
    client
        .delete(&format!("{CONFIG_MAPS}/a"), &json!({}))
        .await
        .ok();
    let event = watch.next().await.unwrap();
    assert_eq!(event["type"], "DELETED");
    let number = |v: &serde_json::Value| v.as_str().unwrap().parse::<u64>().unwrap();
    assert!(
        number(&event["object"]["metadata"]["resourceVersion"])
            > number(&patched["metadata"]["resourceVersion"])
    );
}

#[tokio::test]
async fn objects_enter_and_leave_a_selection() {
    let server = TestServer::start().await;
    let client = &server.admin;
    let mut watch = client
        .watch("/api/v1/pods?watch=1&fieldSelector=spec.nodeName%3Dn1")
        .await;
    client.post(PODS, &pod("a")).await.ok();
    client.post(PODS, &pod("b")).await.ok();
    bind(client, "b", "n1").await.ok();
    assert_eq!(watch.next_name().await, pair("ADDED", "b"));
    let mut labels = client
        .watch(&format!("{PODS}?watch=1&labelSelector=app%3Db"))
        .await;
    assert_eq!(labels.next_name().await, pair("ADDED", "b"));
    let patch = json!({"metadata": {"labels": {"app": "other"}}});
    client
        .patch(&format!("{PODS}/b"), "merge-patch", &patch)
        .await
        .ok();
    let event = labels.next().await.unwrap();
    assert_eq!(event["type"], "DELETED");
    assert_eq!(event["object"]["metadata"]["labels"]["app"], "b");
    assert_eq!(watch.next_name().await, pair("MODIFIED", "b"));
}

#[tokio::test]
async fn initial_events_end_with_a_bookmark() {
    let server = TestServer::start().await;
    let client = &server.admin;
    client.post(CONFIG_MAPS, &config_map("a")).await.ok();
    let mut watch = client
        .watch(&format!(
            "{CONFIG_MAPS}?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
        ))
        .await;
    assert_eq!(watch.next_name().await, pair("ADDED", "a"));
    let bookmark = watch.next().await.unwrap();
    assert_eq!(bookmark["type"], "BOOKMARK");
    assert_eq!(
        bookmark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"],
        "true"
    );
    client.post(CONFIG_MAPS, &config_map("b")).await.ok();
    assert_eq!(watch.next_name().await, pair("ADDED", "b"));
    let refused = client
        .get(&format!("{CONFIG_MAPS}?watch=1&sendInitialEvents=true"))
        .await;
    assert_eq!(refused.refused().0, 422);
}

#[tokio::test]
async fn a_watch_from_before_the_start_of_the_server_expires() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    let pki = hull_apiserver::pki::ClusterPki::load_or_create(dir.path().join("pki"), &[]).unwrap();
    for round in 0..2 {
        let store: Arc<dyn Store> =
            Arc::new(hull_store::embedded::EmbeddedStore::open(&path).unwrap());
        let config = hull_apiserver::ApiServerConfig::new(pki.clone());
        let server = hull_apiserver::ApiServer::new(config, store).await.unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let serving = tokio::spawn(server.serve(listener, async {
            let _ = stopped.await;
        }));
        let client = crate::harness::ApiClient::new(&url, &pki, Some(&pki.admin().unwrap()));
        if round == 0 {
            client.post(CONFIG_MAPS, &config_map("a")).await.ok();
        } else {
            assert_eq!(client.get(&format!("{CONFIG_MAPS}/a")).await.code, 200);
            let mut watch = client
                .watch(&format!("{CONFIG_MAPS}?watch=1&resourceVersion=1"))
                .await;
            let event = watch.next().await.unwrap();
            assert_eq!(
                (event["type"].as_str(), event["object"]["code"].as_u64()),
                (Some("ERROR"), Some(410))
            );
        }
        drop(client);
        stop.send(()).unwrap();
        tokio::time::timeout(PATIENCE, serving)
            .await
            .unwrap()
            .unwrap()
            .unwrap();
    }
}

/// Such a version comes from another store: a silent watch would never tell that it is of no use.
#[tokio::test]
async fn a_watch_from_a_version_that_never_was_is_refused() {
    let server = TestServer::start().await;
    let late = server
        .admin
        .get(&format!("{CONFIG_MAPS}?watch=1&resourceVersion=999999"))
        .await;
    let (code, reason, message) = late.refused();
    assert_eq!((code, reason.as_str()), (504, "Timeout"));
    assert!(message.starts_with("Too large resource version: 999999"));
}

/// 20 watches in each of two forms: a change is written twice.
#[tokio::test]
async fn a_change_is_written_once_for_all_watches_of_a_form() {
    const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
    let server = TestServer::start().await;
    let client = &server.admin;
    let version = server.store.revision().await.unwrap();
    let path = format!("{CONFIG_MAPS}?watch=1&resourceVersion={version}");
    let mut watches = Vec::new();
    for accept in ["application/json", PROTOBUF].repeat(20) {
        let headers = [("accept", accept)];
        let answer = client.raw(Method::GET, &path, &headers, "").await;
        watches.push(answer.into_body());
    }
    let before = written(&server).await;
    client.post(CONFIG_MAPS, &config_map("a")).await.ok();
    for watch in &mut watches {
        let frame = tokio::time::timeout(PATIENCE, watch.frame()).await.unwrap();
        assert!(frame.unwrap().unwrap().data_ref().unwrap().len() > 20);
    }
    assert_eq!(written(&server).await - before, 2);
}

async fn written(server: &TestServer) -> u64 {
    const NAME: &str = "apiserver_watch_events_written_total ";
    let metrics = server.admin.get("/metrics").await.text;
    let value = metrics.lines().find_map(|line| line.strip_prefix(NAME));
    value.unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_watch_ends_when_its_time_is_over() {
    let server = TestServer::start().await;
    let mut watch = server
        .admin
        .watch(&format!("{CONFIG_MAPS}?watch=1&timeoutSeconds=1"))
        .await;
    assert_eq!(watch.next().await, None);
}

fn version(object: &Value) -> u64 {
    let text = object["metadata"]["resourceVersion"].as_str().unwrap();
    text.parse().unwrap()
}

/// A server whose bookmarks come all the time.
async fn bookmarking() -> TestServer {
    TestServer::start_with(|config| config.bookmark_interval = Duration::from_millis(1)).await
}

/// Reads a watch until the bookmark that shows `end`. Checks that no bookmark says more than was
/// sent: whoever continues from it must get all that is still to come. Gives the names of the
/// events and the number of bookmarks.
async fn read_until(mut watch: WatchLines, end: u64) -> (Vec<String>, usize) {
    let (mut names, mut bookmarks, mut marked) = (Vec::new(), 0, 0);
    while marked < end {
        let event = watch.next().await.expect("another event");
        let at = version(&event["object"]);
        if event["type"] == "BOOKMARK" {
            assert!(
                at >= marked,
                "bookmarks do not go back: {at} after {marked}"
            );
            marked = at;
            bookmarks += 1;
        } else {
            assert!(at > marked, "{event} after a bookmark of {marked}");
            names.push(event["object"]["metadata"]["name"].as_str().unwrap().into());
        }
    }
    (names, bookmarks)
}

#[tokio::test(flavor = "multi_thread")]
async fn bookmarks_are_never_ahead_of_what_was_sent() {
    const OBJECTS: usize = 150;
    let server = bookmarking().await;
    let client = &server.admin;
    let start = version(&client.get(CONFIG_MAPS).await.ok());
    let watch = format!("{CONFIG_MAPS}?watch=1&allowWatchBookmarks=true&resourceVersion={start}");
    let all = client.watch(&watch).await;
    let selected = format!("{watch}&labelSelector=parity%3Deven");
    let selected = client.watch(&selected).await;
    let mut plain = client
        .watch(&format!("{CONFIG_MAPS}?watch=1&resourceVersion={start}"))
        .await;
    let write = async {
        let mut last = 0;
        for n in 0..OBJECTS {
            let mut object = config_map(&format!("c{n:03}"));
            object["metadata"]["labels"] =
                json!({"parity": if n % 2 == 0 { "even" } else { "odd" }});
            client.post(CONFIG_MAPS, &object).await.ok();
            // Also when only others change, bookmarks go on.
            object["kind"] = json!("Secret");
            object["data"] = json!({});
            let secrets = "/api/v1/namespaces/default/secrets";
            last = version(&client.post(secrets, &object).await.ok());
        }
        last
    };
    let end = write.await;
    let (all, bookmarks) = read_until(all, end).await;
    let names = |step: usize| -> Vec<String> {
        (0..OBJECTS)
            .step_by(step)
            .map(|n| format!("c{n:03}"))
            .collect()
    };
    assert_eq!(all, names(1));
    assert!(bookmarks > 1, "{bookmarks}");
    assert_eq!(read_until(selected, end).await.0, names(2));
    for name in names(1) {
        assert_eq!(
            plain.next_name().await,
            pair("ADDED", &name),
            "no bookmarks"
        );
    }
    // Where a bookmark was, a watch goes on.
    let again = format!("{CONFIG_MAPS}?watch=1&resourceVersion={end}");
    let mut again = client.watch(&again).await;
    client.post(CONFIG_MAPS, &config_map("later")).await.ok();
    assert_eq!(again.next_name().await, pair("ADDED", "later"));
    assert_eq!(plain.next_name().await, pair("ADDED", "later"));
}

#[tokio::test]
async fn the_last_word_of_a_watch_with_bookmarks_is_one() {
    let server = TestServer::start().await;
    let client = &server.admin;
    let mut watch = client
        .watch(&format!(
            "{CONFIG_MAPS}?watch=1&allowWatchBookmarks=true&timeoutSeconds=1"
        ))
        .await;
    let created = client.post(CONFIG_MAPS, &config_map("a")).await.ok();
    assert_eq!(watch.next_name().await, pair("ADDED", "a"));
    let bookmark = watch.next().await.unwrap();
    assert_eq!(bookmark["type"], "BOOKMARK");
    assert_eq!(bookmark["object"]["kind"], "ConfigMap");
    assert!(version(&bookmark["object"]) >= version(&created));
    assert_eq!(watch.next().await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn watches_from_every_moment_see_the_same_order() {
    const WRITERS: usize = 3;
    const WRITES: usize = 10;
    let server = TestServer::start().await;
    let client = &server.admin;
    let from = |version: &str| format!("{CONFIG_MAPS}?watch=1&resourceVersion={version}");
    let version = server.store.revision().await.unwrap().to_string();
    let mut first = client.watch(&from(&version)).await;
    let writes = (0..WRITERS).map(|writer| async move {
        for write in 0..WRITES {
            let name = format!("w{writer}-{write}");
            client.post(CONFIG_MAPS, &config_map(&name)).await.ok();
        }
    });
    let watches = async {
        let (mut order, mut watches) = (Vec::new(), Vec::new());
        while order.len() < WRITERS * WRITES {
            let event = first.next().await.unwrap();
            let version = event["object"]["metadata"]["resourceVersion"].as_str();
            watches.push(client.watch(&from(version.unwrap())).await);
            order.push(version.unwrap().to_owned());
        }
        (order, watches)
    };
    let (_, (order, watches)) = tokio::join!(futures::future::join_all(writes), watches);
    for (begun, mut watch) in watches.into_iter().enumerate() {
        for expected in &order[begun + 1..] {
            let event = watch.next().await.unwrap();
            assert_eq!(event["object"]["metadata"]["resourceVersion"], **expected);
        }
    }
}
