//! One tenant's flood and the others, over real TLS: counted, not timed.

use http::Method;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};

use crate::{
    dynamic_admission::eventually,
    harness::{ApiClient, CONFIG_MAPS, PATIENCE, TestServer, config_map},
    tls_server::{TlsServer, json_answer},
};

const FLOW_CONTROL: &str = "/apis/flowcontrol.apiserver.k8s.io/v1";
const HAND: usize = 3;
const LENGTH: usize = 10;

/// A level with few seats for everybody in the group `tenants`, and the right to write.
async fn with_tenants(server: &TestServer) {
    let admin = &server.admin;
    let level = json!({"apiVersion": "flowcontrol.apiserver.k8s.io/v1",
        "kind": "PriorityLevelConfiguration", "metadata": {"name": "tenants"},
        "spec": {"type": "Limited", "limited": {"nominalConcurrencyShares": 1, "limitResponse":
            {"type": "Queue", "queuing": {"queues": 64, "handSize": HAND, "queueLengthLimit": LENGTH}}}}});
    admin
        .post(
            &format!("{FLOW_CONTROL}/prioritylevelconfigurations"),
            &level,
        )
        .await
        .ok();
    let schema = json!({"apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "FlowSchema",
        "metadata": {"name": "tenants"}, "spec": {"matchingPrecedence": 500,
            "priorityLevelConfiguration": {"name": "tenants"}, "distinguisherMethod": {"type": "ByUser"},
            "rules": [{"subjects": [{"kind": "Group", "group": {"name": "tenants"}}],
                "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"],
                    "clusterScope": true, "namespaces": ["*"]}]}]}});
    admin
        .post(&format!("{FLOW_CONTROL}/flowschemas"), &schema)
        .await
        .ok();
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": {"name": "tenants"}, "roleRef": {"kind": "ClusterRole", "name": "edit"},
        "subjects": [{"kind": "Group", "name": "tenants"}]});
    admin
        .post(
            "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
            &binding,
        )
        .await
        .ok();
}

/// A webhook that never answers: a request waits in it until the test drops its connection.
async fn with_gate(server: &TestServer) -> TcpListener {
    let gate = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = gate.local_addr().unwrap().port();
    let other = TlsServer::start(&["127.0.0.1"], None, |_, _| json_answer(&json!({}))).await;
    let object = json!({"apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration", "metadata": {"name": "gate"},
        "webhooks": [{"name": "gate.example.com", "failurePolicy": "Ignore", "timeoutSeconds": 30,
            "clientConfig": {"url": format!("https://127.0.0.1:{port}/"), "caBundle": other.bundle},
            "sideEffects": "None", "admissionReviewVersions": ["v1"],
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"],
                "resources": ["configmaps"]}]}]});
    let path = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";
    server.admin.post(path, &object).await.ok();
    // It counts from the moment it is asked.
    let until = tokio::time::Instant::now() + PATIENCE;
    loop {
        assert!(
            tokio::time::Instant::now() < until,
            "the webhook is never asked"
        );
        let admin = server.admin.clone();
        let probe = tokio::spawn(async move {
            admin
                .post(&format!("{CONFIG_MAPS}?dryRun=All"), &config_map("probe"))
                .await
                .code
        });
        tokio::select! {
            asked = gate.accept() => {
                drop(asked);
                return gate;
            }
            code = probe => assert_eq!(code.unwrap(), 201),
        }
    }
}

async fn held(gate: &TcpListener) -> TcpStream {
    let accepted = tokio::time::timeout(PATIENCE, gate.accept()).await;
    accepted
        .expect("another request that is answered")
        .unwrap()
        .0
}

/// A figure of the level `tenants`.
async fn figure(admin: &ApiClient, name: &str) -> usize {
    let text = admin.get("/metrics").await.text;
    let line = text.lines().find(|line| {
        line.starts_with(&format!("apiserver_flowcontrol_{name}{{"))
            && line.contains("priority_level=\"tenants\"")
    });
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok())
        .unwrap_or(0)
}

async fn post(client: ApiClient, name: String) -> (u16, http::HeaderMap, Value) {
    let headers = [("content-type", "application/json")];
    let body = config_map(&name).to_string();
    let answer = client.send(Method::POST, CONFIG_MAPS, &headers, body).await;
    (answer.code, answer.headers.clone(), answer.json())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_tenants_flood_does_not_delay_another() {
    let server = TestServer::start().await;
    with_tenants(&server).await;
    let gate = with_gate(&server).await;
    let user = |name: &str| {
        let pair = server.pki.client(name, name, &["tenants"]).unwrap();
        server.client(Some(&pair))
    };
    let (mallory, alice) = (user("mallory"), user("alice"));
    eventually(async || figure(&server.admin, "nominal_limit_seats").await > 0).await;
    // The role has arrived when a dry run is allowed.
    eventually(async || mallory.get(CONFIG_MAPS).await.code == 200).await;
    let seats = figure(&server.admin, "nominal_limit_seats").await;
    let capacity = HAND * LENGTH;
    let mut flood = Vec::new();
    for index in 0..seats + capacity {
        flood.push(tokio::spawn(post(
            mallory.clone(),
            format!("flood-{index}"),
        )));
    }
    let mut taken = Vec::new();
    for _ in 0..seats {
        taken.push(held(&gate).await);
    }
    eventually(async || figure(&server.admin, "current_inqueue_requests").await == capacity).await;
    assert_eq!(
        figure(&server.admin, "current_executing_requests").await,
        seats
    );
    // Its queues are full: it is refused, and nobody else.
    let (code, headers, status) = post(mallory.clone(), "more".into()).await;
    assert_eq!((code, headers["retry-after"].as_bytes()), (429, &b"1"[..]));
    assert_eq!(status["reason"], "TooManyRequests");
    assert_eq!(
        status["message"],
        "Too many requests, please try again later."
    );
    let other = tokio::spawn(post(alice.clone(), "mine".into()));
    eventually(async || figure(&server.admin, "current_inqueue_requests").await == capacity + 1)
        .await;
    // Administrators do not wait for anybody.
    server.admin.get(CONFIG_MAPS).await.ok();
    // One request of the flood is answered; the next one is the other tenant's.
    drop(taken.remove(0));
    drop(held(&gate).await);
    let done = tokio::time::timeout(PATIENCE, other)
        .await
        .expect("its turn")
        .unwrap();
    assert_eq!(done.0, 201, "{}", done.2);
    assert!(done.1.contains_key("x-kubernetes-pf-flowschema-uid"));
    let answered = flood.iter().filter(|task| task.is_finished()).count();
    assert!(answered <= seats, "{answered} of the flood came before it");
    // The rest of the flood gets its turn too.
    drop(taken);
    let drain = tokio::spawn(async move {
        while let Ok(accepted) = gate.accept().await {
            drop(accepted);
        }
    });
    for task in flood {
        assert_eq!(task.await.unwrap().0, 201);
    }
    drain.abort();
    eventually(async || figure(&server.admin, "current_executing_requests").await == 0).await;
    assert_eq!(figure(&server.admin, "rejected_requests_total").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_levels_of_every_cluster_are_there_and_changes_stay() {
    let server = TestServer::start().await;
    let levels = server
        .admin
        .get(&format!("{FLOW_CONTROL}/prioritylevelconfigurations"))
        .await
        .ok();
    let names = |list: &Value| -> Vec<String> {
        let items = list["items"].as_array().unwrap().iter();
        items
            .map(|one| one["metadata"]["name"].as_str().unwrap().to_string())
            .collect()
    };
    assert_eq!(
        names(&levels),
        [
            "catch-all",
            "exempt",
            "global-default",
            "leader-election",
            "node-high",
            "system",
            "workload-high",
            "workload-low"
        ]
    );
    let schemas = server
        .admin
        .get(&format!("{FLOW_CONTROL}/flowschemas"))
        .await
        .ok();
    assert_eq!(names(&schemas).len(), 13);
    let path = format!("{FLOW_CONTROL}/prioritylevelconfigurations/workload-low");
    let patch = json!({"spec": {"limited": {"nominalConcurrencyShares": 7}}});
    server.admin.patch(&path, "merge-patch", &patch).await.ok();
    let again = server.sibling().await;
    let level = again.admin.get(&path).await.ok();
    assert_eq!(level["spec"]["limited"]["nominalConcurrencyShares"], 7);
    // Whoever it is, an answer says what it was counted as.
    let answer = again.admin.get(CONFIG_MAPS).await;
    let exempt = again
        .admin
        .get(&format!("{FLOW_CONTROL}/flowschemas/exempt"))
        .await
        .ok();
    assert_eq!(
        answer.headers["x-kubernetes-pf-flowschema-uid"]
            .to_str()
            .unwrap(),
        exempt["metadata"]["uid"].as_str().unwrap()
    );
}
