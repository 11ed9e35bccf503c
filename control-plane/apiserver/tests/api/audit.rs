//! What is audited.

use std::{
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use http::Method;
use hull_apiserver::audit::{Audit, AuditFile, AuditLog, AuditWebhook, Policy};
use serde_json::{Value, json};

use crate::{
    harness::{PATIENCE, TestServer},
    tls_server::{TlsServer, json_answer},
};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const SECRETS: &str = "/api/v1/namespaces/default/secrets";

const POLICY: &str = "
apiVersion: audit.k8s.io/v1
kind: Policy
omitManagedFields: true
rules:
- {level: None, verbs: [get], resources: [{resources: [configmaps]}]}
- {level: RequestResponse, resources: [{resources: [configmaps]}], omitStages: [RequestReceived]}
- {level: Metadata, resources: [{resources: [secrets]}]}
- {level: Metadata, resources: [{resources: [namespaces]}], omitStages: [RequestReceived]}
";

pub async fn audited(log: &Path) -> TestServer {
    let log = AuditLog::open(AuditFile {
        path: log.to_owned(),
        max_bytes: 1 << 20,
        max_backups: 1,
    })
    .unwrap();
    let audit = Audit::new(Policy::parse(POLICY).unwrap(), log);
    TestServer::start_with(|config| config.audit = Some(Arc::new(audit))).await
}

/// The events of the administrator, once there are so many.
async fn events(log: &Path, count: usize) -> Vec<Value> {
    events_of(log, "system:masters", count).await
}

/// Those of the members of a group.
async fn events_of(log: &Path, group: &str, count: usize) -> Vec<Value> {
    let started = Instant::now();
    loop {
        let text = std::fs::read_to_string(log).unwrap();
        let found: Vec<Value> = text
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .filter(|event: &Value| event["user"]["groups"].to_string().contains(group))
            .collect();
        if found.len() >= count {
            return found;
        }
        assert!(started.elapsed() < PATIENCE, "{text}");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_recorded_as_the_policy_says() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("audit.log");
    let server = audited(&log).await;
    let admin = &server.admin;
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"},
        "stringData": {"password": "never recorded"}});
    admin.post(SECRETS, &secret).await.ok();
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"},
        "data": {"a": "1"}});
    admin.post(MAPS, &map).await.ok();
    admin.get(&format!("{MAPS}/m")).await.ok();
    assert_eq!(admin.post(MAPS, &map).await.code, 409);
    let events = events(&log, 4).await;

    let [received, complete, created, refused] = &events[..] else {
        panic!("{events:#?}")
    };
    assert_eq!(received["stage"], "RequestReceived");
    assert_eq!(complete["stage"], "ResponseComplete");
    assert_eq!(received["auditID"], complete["auditID"]);
    assert_eq!(complete["level"], "Metadata");
    assert_eq!(complete["verb"], "create");
    assert_eq!(complete["requestURI"], SECRETS);
    assert_eq!(complete["responseStatus"]["code"], 201);
    assert_eq!(complete["sourceIPs"], json!(["127.0.0.1"]));
    assert_eq!(
        complete["objectRef"],
        json!({"resource": "secrets", "namespace": "default", "apiVersion": "v1"})
    );
    assert!(complete.get("requestObject").is_none());
    assert!(
        !std::fs::read_to_string(&log)
            .unwrap()
            .contains("never recorded")
    );

    assert_eq!(created["requestObject"]["data"], json!({"a": "1"}));
    assert_eq!(created["responseObject"]["metadata"]["name"], "m");
    assert!(
        created["responseObject"]["metadata"]
            .get("managedFields")
            .is_none()
    );
    assert_eq!(
        created["annotations"]["authorization.k8s.io/decision"],
        "allow"
    );
    assert_ne!(created["auditID"], complete["auditID"]);
    assert_eq!(refused["responseStatus"]["code"], 409);
    assert_eq!(refused["responseObject"]["reason"], "AlreadyExists");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_decision_is_the_authorizers_and_not_that_of_admission() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("audit.log");
    let server = audited(&log).await;
    let denied = server
        .admin
        .delete("/api/v1/namespaces/kube-system", &json!({}))
        .await;
    assert_eq!(denied.code, 403);
    let bob = server.pki.client("bob", "bob", &["visitors"]).unwrap();
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}});
    let denied = server.client(Some(&bob)).post(MAPS, &map).await;
    assert_eq!(denied.code, 403);

    let decision = |event: &Value| {
        assert_eq!(event["responseStatus"]["code"], 403);
        event["annotations"]["authorization.k8s.io/decision"].clone()
    };
    assert_eq!(decision(&events(&log, 1).await[0]), "allow");
    let refused = &events_of(&log, "visitors", 1).await[0];
    assert_eq!(decision(refused), "forbid");
    assert!(refused["annotations"]["authorization.k8s.io/reason"].is_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_are_recorded_whatever_they_are_written_in() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("audit.log");
    let server = audited(&log).await;
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "p"},
        "data": {"a": "protobuf"}});
    let protobuf = [
        ("content-type", hull_api::protobuf::MEDIA_TYPE),
        ("accept", hull_api::protobuf::MEDIA_TYPE),
    ];
    let body = hull_api::protobuf::encode_object(&map).unwrap();
    let created = server.admin.send(Method::POST, MAPS, &protobuf, body).await;
    assert_eq!(created.code, 201);
    let yaml = [
        ("content-type", "application/apply-patch+yaml"),
        ("accept", "application/yaml"),
    ];
    let body = "{apiVersion: v1, kind: ConfigMap, metadata: {name: applied}, data: {a: yaml}}";
    let path = format!("{MAPS}/applied?fieldManager=test");
    let applied = server.admin.send(Method::PATCH, &path, &yaml, body).await;
    assert_eq!(applied.code, 201);
    let events = events(&log, 2).await;
    for (event, written) in events.iter().zip(["protobuf", "yaml"]) {
        for object in ["requestObject", "responseObject"] {
            assert_eq!(event[object]["data"]["a"], written, "{object} of {event}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_is_recorded_when_it_begins_and_when_it_ends() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("audit.log");
    let server = audited(&log).await;
    let answer = server
        .admin
        .get(&format!("{MAPS}?watch=true&timeoutSeconds=1"))
        .await;
    assert_eq!(answer.code, 200);
    let events = events(&log, 2).await;
    let stages: Vec<_> = events.iter().map(|event| &event["stage"]).collect();
    assert_eq!(stages, ["ResponseStarted", "ResponseComplete"]);
    assert!(events.iter().all(|event| event["verb"] == "watch"));
}

#[tokio::test(flavor = "multi_thread")]
async fn events_go_to_a_webhook_in_batches_and_again_when_it_fails() {
    let batches = Arc::<Mutex<Vec<Value>>>::default();
    let seen = batches.clone();
    let taker = TlsServer::start(&["127.0.0.1"], None, move |parts, body| {
        assert_eq!(parts.uri.path(), "/audit");
        assert_eq!(parts.headers["authorization"], "Bearer secret");
        let mut batches = seen.lock().unwrap();
        batches.push(serde_json::from_slice(body).unwrap());
        let mut answer = json_answer(&json!({}));
        // The first one is not taken.
        if batches.len() == 1 {
            *answer.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
        }
        answer
    })
    .await;
    let kubeconfig = json!({"current-context": "a",
        "contexts": [{"name": "a", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": format!("https://127.0.0.1:{}/audit", taker.port),
            "certificate-authority-data": taker.bundle}}],
        "users": [{"name": "u", "user": {"token": "secret"}}]});
    let wait = Duration::from_millis(100);
    let webhook = AuditWebhook::start(&kubeconfig.to_string(), Path::new("/"), wait).unwrap();
    let audit = Audit::to(Policy::parse(POLICY).unwrap(), None, Some(webhook));
    let server = TestServer::start_with(|config| config.audit = Some(Arc::new(audit))).await;
    for name in ["a", "b", "c"] {
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}});
        server.admin.post(MAPS, &map).await.ok();
    }
    let started = Instant::now();
    loop {
        assert!(
            started.elapsed() < PATIENCE,
            "{:?}",
            batches.lock().unwrap()
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
        let batches = batches.lock().unwrap();
        let taken = batches.iter().skip(1);
        let items = taken.flat_map(|batch| batch["items"].as_array().unwrap());
        let names: Vec<&str> = items
            .filter(|event| {
                event["verb"] == "create" && event["objectRef"]["resource"] == "configmaps"
            })
            .map(|event| event["objectRef"]["name"].as_str().unwrap_or(""))
            .collect();
        if names.len() < 3 {
            continue;
        }
        assert_eq!((names.len(), &batches[0]["kind"]), (3, &json!("EventList")));
        assert_eq!(batches[0], batches[1], "sent again as it was");
        break;
    }
}
