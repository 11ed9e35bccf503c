//! Events do not live for ever.

use std::time::Duration;

use serde_json::json;

use crate::harness::TestServer;

const EVENTS: &str = "/api/v1/namespaces/default/events";

#[tokio::test(flavor = "multi_thread")]
async fn an_event_goes_when_it_was_not_written_for_its_time() {
    let server = TestServer::start_with(|config| config.event_ttl = Duration::from_secs(1)).await;
    let event = |name: &str, last: &str| {
        json!({"apiVersion": "v1", "kind": "Event",
            "metadata": {"name": name, "namespace": "default"},
            "involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"},
            "reason": "Seen", "message": "m", "lastTimestamp": last})
    };
    let (long_ago, not_yet) = ("2020-01-01T00:00:00Z", "2999-01-01T00:00:00Z");
    let kept = server.admin.post(EVENTS, &event("kept", not_yet)).await;
    let since = kept.json()["metadata"]["resourceVersion"].clone();
    let going = server.admin.post(EVENTS, &event("going", long_ago)).await;
    assert_eq!(going.code, 201, "{}", going.text);
    let since = since.as_str().unwrap();
    let path = format!("{EVENTS}?watch=true&resourceVersion={since}");
    let mut watch = server.admin.watch(&path).await;
    for change in ["ADDED", "DELETED"] {
        assert_eq!(watch.next_name().await, (change.into(), "going".into()));
    }
    server.admin.get(&format!("{EVENTS}/kept")).await.ok();
    let other = "/apis/events.k8s.io/v1/namespaces/default/events/going";
    assert_eq!(server.admin.get(other).await.code, 404);
}
