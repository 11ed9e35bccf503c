//! A server that extends the API, over real TLS with the front proxy's certificate.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use http::{Method, Response};
use http_body_util::BodyExt;
use serde_json::{Value, json};

use crate::{
    dynamic_admission::eventually,
    harness::{ApiClient, PATIENCE, TestServer},
    kubectl::Kubectl,
    tls_server::{Silence, TlsServer, json_answer},
};

const SERVICES: &str = "/apis/apiregistration.k8s.io/v1/apiservices";
const NAME: &str = "v1.fish.example.com";
const FISH: &str = "/apis/fish.example.com/v1/namespaces/default/fish";
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// Method, path with query, and the headers of a request that the extension saw.
type Seen = Arc<Mutex<Vec<(Method, String, http::HeaderMap, Value)>>>;

/// An API server of one resource, which believes the front proxy only.
async fn extension(server: &TestServer) -> (TlsServer, Seen) {
    let seen = Seen::default();
    let requests = seen.clone();
    let ca = server.pki.front_proxy_ca_pem();
    let extension = TlsServer::start(&["fish.default.svc"], Some(ca), move |parts, body| {
        let path = parts.uri.path_and_query().unwrap().to_string();
        let sent = serde_json::from_slice(body).unwrap_or_default();
        let fish = |name: &str| {
            json!({"apiVersion": "fish.example.com/v1", "kind": "Fish",
                "metadata": {"name": name, "namespace": "default"}})
        };
        let answer = match (parts.method.as_str(), parts.uri.path()) {
            ("GET", "/apis/fish.example.com/v1") => json_answer(&json!({
                "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "fish.example.com/v1",
                "resources": [
                    {"name": "fish", "singularName": "fish", "namespaced": true, "kind": "Fish",
                        "shortNames": ["fi"], "verbs": ["create", "get", "list"]},
                    {"name": "fish/fins", "singularName": "", "namespaced": true, "kind": "Fin",
                        "verbs": ["get"]}]})),
            ("GET", "/openapi/v3/apis/fish.example.com/v1") => json_answer(&json!({
                "openapi": "3.0.0", "info": {"title": "fish"}, "paths": {}})),
            ("GET", FISH) => json_answer(&json!({"apiVersion": "fish.example.com/v1",
                "kind": "FishList", "metadata": {}, "items": [fish("nemo")]})),
            ("POST", FISH) => {
                let mut made = json_answer(&sent);
                *made.status_mut() = http::StatusCode::CREATED;
                made
            }
            ("GET", path) if path.ends_with("/elsewhere") => Response::builder()
                .status(http::StatusCode::FOUND)
                .header("location", "https://elsewhere.example/")
                .body(Default::default())
                .unwrap(),
            _ => {
                let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure",
                    "reason": "NotFound", "code": 404, "message": "no such fish"});
                let mut answer: Response<_> = json_answer(&status);
                *answer.status_mut() = http::StatusCode::NOT_FOUND;
                answer
            }
        };
        let entry = (parts.method.clone(), path, parts.headers.clone(), sent);
        requests.lock().unwrap().push(entry);
        answer
    })
    .await;
    (extension, seen)
}

fn registration(port: u16, bundle: &str) -> Value {
    json!({"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": NAME},
        "spec": {"group": "fish.example.com", "version": "v1", "groupPriorityMinimum": 1000,
            "versionPriority": 15, "caBundle": bundle,
            "service": {"namespace": "default", "name": "fish", "port": port}}})
}

async fn with_service(server: &TestServer) {
    // A name that leads to loopback: endpoints may not.
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "fish"},
        "spec": {"type": "ExternalName", "externalName": "localhost"}});
    let services = "/api/v1/namespaces/default/services";
    server.admin.post(services, &service).await.ok();
}

/// Status and reason of the condition `Available`.
async fn available(admin: &ApiClient, name: &str) -> (String, String) {
    let object = admin.get(&format!("{SERVICES}/{name}")).await.ok();
    let conditions = object["status"]["conditions"].as_array();
    let found = conditions
        .into_iter()
        .flatten()
        .find(|one| one["type"] == "Available");
    let text = |field: &str| {
        found
            .and_then(|one| one[field].as_str())
            .unwrap_or("")
            .to_string()
    };
    (text("status"), text("reason"))
}

async fn becomes(server: &TestServer, status: &str, reason: &str) {
    eventually(async || {
        available(&server.admin, NAME).await == (status.to_string(), reason.to_string())
    })
    .await;
}

async fn with_fish() -> (TestServer, TlsServer, Seen) {
    with_fish_on(TestServer::start().await).await
}

async fn with_fish_on(server: TestServer) -> (TestServer, TlsServer, Seen) {
    let (extension, seen) = extension(&server).await;
    with_service(&server).await;
    let object = registration(extension.port, &extension.bundle);
    server.admin.post(SERVICES, &object).await.ok();
    becomes(&server, "True", "Passed").await;
    (server, extension, seen)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_version_that_is_served_has_an_api_service() {
    let server = TestServer::start().await;
    let local = async |name: &'static str| {
        let path = format!("{SERVICES}/{name}");
        eventually(async || server.admin.get(&path).await.code == 200).await;
        available(&server.admin, name).await
    };
    for name in ["v1.", "v1.apps", "v2.autoscaling", "v1beta1.metrics.k8s.io"] {
        assert_eq!(local(name).await, ("True".into(), "Local".into()), "{name}");
    }
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let definition = crate::custom_resources::definition();
    server.admin.post(definitions, &definition).await.ok();
    let custom = format!("{SERVICES}/v1.stable.example.com");
    eventually(async || server.admin.get(&custom).await.code == 200).await;
    let path = format!("{definitions}/crontabs.stable.example.com");
    server.admin.delete(&path, &json!({})).await.ok();
    eventually(async || server.admin.get(&custom).await.code == 404).await;
    let mut wrong = registration(1, "");
    wrong["metadata"]["name"] = json!("fish");
    let (code, _, message) = server.admin.post(SERVICES, &wrong).await.refused();
    assert_eq!(code, 422);
    assert!(
        message.contains("must be `spec.version+\".\"+spec.group`: \"v1.fish.example.com\""),
        "{message}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_reach_the_extension_with_who_makes_them() {
    let (server, _extension, seen) = with_fish().await;
    let list = server.admin.get(&format!("{FISH}?limit=5")).await.ok();
    assert_eq!(list["items"][0]["metadata"]["name"], "nemo");
    let object =
        json!({"apiVersion": "fish.example.com/v1", "kind": "Fish", "metadata": {"name": "dory"}});
    let headers = [
        ("content-type", "application/json"),
        ("x-remote-user", "somebody-else"),
        ("x-remote-group", "system:masters"),
    ];
    let jane = server.pki.client("jane", "jane", &["dev"]).unwrap();
    let jane = server.client(Some(&jane));
    // Who may do what is decided here, before anything is passed on.
    let before = seen.lock().unwrap().len();
    let answer = jane
        .send(Method::POST, FISH, &headers, object.to_string())
        .await;
    let (code, _, message) = answer.refused();
    assert_eq!(code, 403);
    assert_eq!(
        message,
        "fish.fish.example.com is forbidden: User \"jane\" cannot create resource \"fish\" in API group \"fish.example.com\" in the namespace \"default\""
    );
    assert_eq!(seen.lock().unwrap().len(), before);
    let rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
        "metadata": {"name": "fisher"},
        "rules": [{"apiGroups": ["fish.example.com"], "resources": ["fish"], "verbs": ["create"]}]});
    server
        .admin
        .post(&format!("{rbac}/roles"), &role)
        .await
        .ok();
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": {"name": "fisher"}, "subjects": [{"kind": "Group", "name": "dev",
            "apiGroup": "rbac.authorization.k8s.io"}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "fisher"}});
    server
        .admin
        .post(&format!("{rbac}/rolebindings"), &binding)
        .await
        .ok();
    eventually(async || {
        let answer = jane
            .send(Method::POST, FISH, &headers, object.to_string())
            .await;
        answer.code == 201
    })
    .await;
    let (method, path, headers, sent) = seen.lock().unwrap().last().cloned().unwrap();
    assert_eq!((method, path.as_str()), (Method::POST, FISH));
    assert_eq!(sent["metadata"]["name"], "dory");
    let all = |name: &str| -> Vec<String> {
        let values = headers.get_all(name).iter();
        values
            .map(|value| value.to_str().unwrap().to_string())
            .collect()
    };
    assert_eq!(all("x-remote-user"), ["jane"]);
    assert_eq!(all("x-remote-group"), ["dev", "system:authenticated"]);
    let missing = server.admin.get(&format!("{FISH}/gone")).await.refused();
    assert_eq!(missing, (404, "NotFound".into(), "no such fish".into()));
    let published = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication";
    let published = server.admin.get(published).await.ok();
    assert_eq!(
        published["data"]["requestheader-client-ca-file"],
        server.pki.front_proxy_ca_pem()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_extension_cannot_send_clients_elsewhere() {
    let (server, _extension, _) = with_fish().await;
    let answer = server.admin.get(&format!("{FISH}/elsewhere")).await;
    assert_eq!(
        (answer.code, answer.text.as_str()),
        (
            502,
            "the backend attempted to redirect this request, which is not permitted\n"
        )
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_with_two_meanings_is_not_passed_on() {
    let (server, _extension, seen) = with_fish().await;
    let namespaces = "/apis/fish.example.com/v1/namespaces";
    for path in [
        format!("{FISH}/nemo%2Ffins"),
        format!("{namespaces}/default/../victim/fish"),
        format!("{namespaces}/default/%2e%2e/victim/fish"),
        format!("{namespaces}//default/fish"),
    ] {
        let before = seen.lock().unwrap().len();
        assert_eq!(server.admin.get(&path).await.code, 404, "{path}");
        let asked = seen.lock().unwrap()[before..]
            .iter()
            .any(|(_, asked, _, _)| asked.contains("fish/") || asked.contains("victim"));
        assert!(!asked, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_clients_write_makes_no_new_figures() {
    let (server, _extension, _) = with_fish().await;
    let nobody = server.client(None);
    for path in ["made-up", "namespaces/default/made-up"] {
        let path = format!("/apis/fish.example.com/v1/{path}");
        assert_eq!(nobody.get(&path).await.code, 401);
        server.admin.get(&path).await;
    }
    let figures = server.admin.get("/metrics").await.text;
    assert!(figures.contains("fish.example.com"));
    assert!(!figures.contains("made-up"));
}

#[tokio::test(flavor = "multi_thread")]
async fn discovery_and_open_api_show_the_extension() {
    let (server, _extension, _) = with_fish().await;
    let groups = server.admin.get("/apis").await.ok();
    let names = groups["groups"].as_array().unwrap().iter();
    assert!(
        names
            .into_iter()
            .any(|group| group["name"] == "fish.example.com")
    );
    let group = server.admin.get("/apis/fish.example.com").await.ok();
    assert_eq!(
        group["preferredVersion"]["groupVersion"],
        "fish.example.com/v1"
    );
    let resources = server.admin.get("/apis/fish.example.com/v1").await.ok();
    assert_eq!(resources["resources"][0]["name"], "fish");
    let headers = [("accept", AGGREGATED)];
    let aggregated = server
        .admin
        .send(Method::GET, "/apis", &headers, "")
        .await
        .ok();
    let items = aggregated["items"].as_array().unwrap();
    let found = items
        .iter()
        .find(|one| one["metadata"]["name"] == "fish.example.com");
    let version = &found.unwrap()["versions"][0];
    assert_eq!(version["freshness"], "Current");
    assert_eq!(version["resources"][0]["shortNames"], json!(["fi"]));
    assert_eq!(
        version["resources"][0]["subresources"][0]["subresource"],
        "fins"
    );
    let index = server.admin.get("/openapi/v3").await.ok();
    let url = index["paths"]["apis/fish.example.com/v1"]["serverRelativeURL"].as_str();
    let document = server.admin.get(url.unwrap()).await.ok();
    assert_eq!(document["info"]["title"], "fish");
    let kubectl = Kubectl::of(&server);
    let shown = kubectl.ok(&["get", "fi", "-o", "name"]).await;
    assert_eq!(shown, "fish.fish.example.com/nemo\n");
    let shown = kubectl
        .ok(&["get", "apiservice", NAME, "--no-headers"])
        .await;
    let columns: Vec<&str> = shown.split_whitespace().collect();
    assert_eq!(columns[..3], [NAME, "default/fish", "True"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_extension_that_cannot_be_reached_says_why_and_comes_back() {
    let server = TestServer::start().await;
    let (extension, _) = extension(&server).await;
    let object = registration(extension.port, &extension.bundle);
    server.admin.post(SERVICES, &object).await.ok();
    becomes(&server, "False", "ServiceNotFound").await;
    let refused = server.admin.get(FISH).await;
    assert_eq!(
        (refused.code, refused.text.as_str()),
        (503, "service unavailable\n")
    );
    with_service(&server).await;
    becomes(&server, "True", "Passed").await;
    server.admin.get(FISH).await.ok();
    // A certificate that somebody else signed.
    let other = TlsServer::start(&["fish.default.svc"], None, |_, _| json_answer(&json!({}))).await;
    let path = format!("{SERVICES}/{NAME}");
    let patch = json!({"spec": {"caBundle": other.bundle}});
    server.admin.patch(&path, "merge-patch", &patch).await.ok();
    becomes(&server, "False", "FailedDiscoveryCheck").await;
    assert_eq!(server.admin.get(FISH).await.code, 503);
    let patch = json!({"spec": {"caBundle": null, "insecureSkipTLSVerify": true}});
    server.admin.patch(&path, "merge-patch", &patch).await.ok();
    becomes(&server, "True", "Passed").await;
    server.admin.delete(&path, &json!({})).await.ok();
    eventually(async || server.admin.get(FISH).await.code == 404).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_extension_that_falls_silent_keeps_nobody_waiting() {
    // Shorter than the client's patience; the default is longer.
    let limit = Duration::from_millis(300);
    let server = TestServer::start_with(|config| config.extension_timeout = limit).await;
    let (server, extension, _) = with_fish_on(server).await;
    extension.fall(Silence::Body);
    let answer = server.admin.raw(Method::GET, FISH, &[], "").await;
    assert_eq!(answer.status(), 200);
    let rest = tokio::time::timeout(PATIENCE, answer.into_body().collect());
    let rest = rest.await.expect("an end in time");
    assert!(rest.is_err(), "a part does not look like the whole");
    // Soon the server knows of this one and asks no more, so it comes last.
    for silence in [Silence::Answer, Silence::Connection] {
        extension.fall(silence);
        for query in ["", "?watch=1"] {
            let answer = server.admin.get(&format!("{FISH}{query}")).await;
            assert_eq!(
                answer.refused(),
                (
                    503,
                    "ServiceUnavailable".into(),
                    "error trying to reach service: context deadline exceeded".into()
                ),
                "{silence:?} {query}"
            );
        }
    }
    extension.fall(Silence::None);
    eventually(async || server.admin.get(FISH).await.code == 200).await;
}
