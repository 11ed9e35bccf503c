//! What is wrong with a request, in Kubernetes' codes, reasons and words.

use http::Method;
use serde_json::{Value, json};

use crate::harness::{
    Answer, ApiClient, CONFIG_MAPS, DEPLOYMENTS, PODS, TestServer, config_map, deployment, pod,
};

const SECRETS: &str = "/api/v1/namespaces/default/secrets";
const JSON: &str = "application/json";
const YAML: &str = "application/yaml";

/// The object with another value at a place.
fn with(mut object: Value, pointer: &str, value: Value) -> Value {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let parent = object.pointer_mut(parent).unwrap();
    match parent {
        Value::Array(items) => items[key.parse::<usize>().unwrap()] = value,
        other => other[key] = value,
    }
    object
}

/// The object without a place.
fn without(mut object: Value, pointer: &str) -> Value {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let parent = object.pointer_mut(parent).unwrap().as_object_mut();
    parent.unwrap().remove(key).unwrap();
    object
}

async fn send(client: &ApiClient, method: &Method, path: &str, media: &str, body: &str) -> Answer {
    let headers = [("content-type", media)];
    let headers = if media.is_empty() { &[][..] } else { &headers };
    client
        .send(method.clone(), path, headers, body.to_string())
        .await
}

/// Method, path, media type, body; code, reason, message.
type Case<'a> = (Method, &'a str, &'a str, String, u16, &'a str, &'a str);

/// Sends all and shows every answer that differs.
async fn refused(client: &ApiClient, cases: Vec<Case<'_>>) {
    let mut wrong = String::new();
    for (method, path, media, body, code, reason, message) in cases {
        let answer = send(client, &method, path, media, &body).await;
        let expected = (code, reason.to_string(), message.to_string());
        if answer.code < 400 || answer.refused() != expected {
            let text = &answer.text;
            wrong += &format!("{method} {path} {body}\n  {text}\n  wanted {expected:?}\n");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// Creates with an object that is wrong.
fn creates<'a>(cases: Vec<(&'a str, Value, u16, &'a str, &'a str)>) -> Vec<Case<'a>> {
    let posts = cases
        .into_iter()
        .map(|(path, object, code, reason, message)| {
            (
                Method::POST,
                path,
                JSON,
                object.to_string(),
                code,
                reason,
                message,
            )
        });
    posts.collect()
}

#[tokio::test]
async fn bodies_that_are_no_objects_of_the_kind() {
    let server = TestServer::start().await;
    let post = |media, body: &str, message| {
        let reason = "BadRequest";
        (
            Method::POST,
            CONFIG_MAPS,
            media,
            body.to_string(),
            400,
            reason,
            message,
        )
    };
    let cases = vec![
        post(
            JSON,
            "{\"kind\": \"ConfigMap\"",
            "the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; json parse error: unexpected end of JSON input ({\"kind\": \"ConfigMap\")",
        ),
        post(
            JSON,
            "",
            "the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; json parse error: unexpected end of JSON input (<empty>)",
        ),
        post(
            JSON,
            "[1]",
            "the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; json parse error: json: cannot unmarshal array into Go value of type struct { APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \"json:\\\"kind,omitempty\\\"\" } (5b315d)",
        ),
        post(
            JSON,
            r#"{"kind":"Pod","apiVersion":"v1"}"#,
            "Pod in version \"v1\" cannot be handled as a ConfigMap: converting (v1.Pod) to (core.ConfigMap): unknown conversion",
        ),
        post(
            JSON,
            r#"{"kind":"Deployment","apiVersion":"apps/v1"}"#,
            "Deployment in version \"v1\" cannot be handled as a ConfigMap: converting (v1.Deployment) to (core.ConfigMap): unknown conversion",
        ),
        post(
            JSON,
            r#"{"kind":"ConfigMap","apiVersion":"v7"}"#,
            "ConfigMap in version \"v7\" cannot be handled as a ConfigMap: no kind \"ConfigMap\" is registered for version \"v7\" in scheme \"pkg/api/legacyscheme/scheme.go:30\"",
        ),
        post(
            JSON,
            r#"{"kind":"Unheard","apiVersion":"v1"}"#,
            "Unheard in version \"v1\" cannot be handled as a ConfigMap: no kind \"Unheard\" is registered for version \"v1\" in scheme \"pkg/api/legacyscheme/scheme.go:30\"",
        ),
        post(
            JSON,
            r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"x"},"data":{"a":5}}"#,
            "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: json: cannot unmarshal number into Go struct field ConfigMap.data of type string",
        ),
    ];
    refused(&server.admin, cases).await;
    // The rest of these is the parser's.
    let yaml = send(&server.admin, &Method::POST, CONFIG_MAPS, YAML, "kind: [").await;
    let (code, reason, message) = yaml.refused();
    assert_eq!((code, reason.as_str()), (400, "BadRequest"));
    let start = "the object provided is unrecognized (must be of type ConfigMap): error converting YAML to JSON: yaml: ";
    assert!(message.starts_with(start), "{message}");
    assert!(message.ends_with(" (6b696e643a205b)"), "{message}");
    assert!(!message.contains('\n'), "{message}");
    let events = "/api/v1/namespaces/default/events";
    let other =
        json!({"kind": "Event", "apiVersion": "events.k8s.io/v1", "metadata": {"name": "e"}});
    let (_, _, message) = server.admin.post(events, &other).await.refused();
    assert_eq!(
        message,
        "the API version in the data (events.k8s.io/v1) does not match the expected API version (v1)"
    );
}

#[tokio::test]
async fn values_that_are_missing_or_wrong() {
    let server = TestServer::start().await;
    let client = &server.admin;
    let container =
        |field: &str, value: Value| with(pod("x"), &format!("/spec/containers/0/{field}"), value);
    let cases = creates(vec![
        (
            CONFIG_MAPS,
            without(config_map("x"), "/metadata/name"),
            422,
            "Invalid",
            "ConfigMap \"\" is invalid: metadata.name: Required value: name or generateName is required",
        ),
        (
            PODS,
            without(pod("x"), "/spec/containers"),
            422,
            "Invalid",
            "Pod \"x\" is invalid: spec.containers: Required value",
        ),
        (
            PODS,
            without(pod("x"), "/spec/containers/0/image"),
            422,
            "Invalid",
            "Pod \"x\" is invalid: spec.containers[0].image: Required value",
        ),
        (
            PODS,
            without(pod("x"), "/spec/containers/0/name"),
            422,
            "Invalid",
            "Pod \"x\" is invalid: spec.containers[0].name: Required value",
        ),
        (
            PODS,
            container("name", json!("Web")),
            422,
            "Invalid",
            "Pod \"x\" is invalid: spec.containers[0].name: Invalid value: \"Web\": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
        ),
        (
            PODS,
            container("imagePullPolicy", json!("Sometimes")),
            422,
            "Invalid",
            "Pod \"x\" is invalid: spec.containers[0].imagePullPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"IfNotPresent\", \"Never\"",
        ),
        (
            PODS,
            container("ports", json!([{"containerPort": 0}])),
            422,
            "Invalid",
            "Pod \"x\" is invalid: spec.containers[0].ports[0].containerPort: Required value",
        ),
        (
            PODS,
            container("ports", json!([{"containerPort": 65536}])),
            422,
            "Invalid",
            "Pod \"x\" is invalid: spec.containers[0].ports[0].containerPort: Invalid value: 65536: must be between 1 and 65535, inclusive",
        ),
        (
            PODS,
            container("resources", json!({"requests": {"cpu": "lots"}})),
            400,
            "BadRequest",
            "Pod in version \"v1\" cannot be handled as a Pod: quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        ),
        (
            PODS,
            container("resources", json!({"requests": {"cpu": "-1"}})),
            422,
            "Invalid",
            "Pod \"x\" is invalid: spec.containers[0].resources.requests[cpu]: Invalid value: \"-1\": must be greater than or equal to 0",
        ),
        (
            PODS,
            container(
                "resources",
                json!({"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}),
            ),
            422,
            "Invalid",
            "Pod \"x\" is invalid: spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1",
        ),
        (
            CONFIG_MAPS,
            with(config_map("x"), "/metadata/labels", json!({"a": "b c"})),
            422,
            "Invalid",
            "ConfigMap \"x\" is invalid: metadata.labels: Invalid value: \"b c\": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')",
        ),
        (
            CONFIG_MAPS,
            with(config_map("x"), "/metadata/labels", json!({"-a": "b"})),
            422,
            "Invalid",
            "ConfigMap \"x\" is invalid: metadata.labels: Invalid value: \"-a\": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')",
        ),
        (
            CONFIG_MAPS,
            with(config_map("x"), "/data", json!({"a/b": "c"})),
            422,
            "Invalid",
            "ConfigMap \"x\" is invalid: data[a/b]: Invalid value: \"a/b\": a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')",
        ),
        (
            DEPLOYMENTS,
            with(deployment("x"), "/spec/replicas", json!(-1)),
            422,
            "Invalid",
            "Deployment.apps \"x\" is invalid: spec.replicas: Invalid value: -1: must be greater than or equal to 0",
        ),
        (
            "/api/v1/namespaces/default/configmaps?fieldValidation=Sometimes",
            config_map("x"),
            422,
            "Invalid",
            "CreateOptions.meta.k8s.io \"\" is invalid: fieldValidation: Unsupported value: \"Sometimes\": supported values: \"\", \"Ignore\", \"Strict\", \"Warn\"",
        ),
    ]);
    refused(client, cases).await;
    // A namespace where there is none is no mistake.
    let node = json!({"metadata": {"name": "n", "namespace": "default"}});
    let created = client.post("/api/v1/nodes", &node).await.ok();
    assert!(created["metadata"].get("namespace").is_none());
}

#[tokio::test]
async fn duplicate_fields_of_yaml_are_refused_warned_about_or_dropped() {
    let server = TestServer::start().await;
    let body =
        "kind: ConfigMap\napiVersion: v1\nmetadata:\n  name: x\ndata:\n  a: \"1\"\n  a: \"2\"\n";
    let post = async |mode: &str| {
        let path = format!("{CONFIG_MAPS}?dryRun=All&fieldValidation={mode}");
        send(&server.admin, &Method::POST, &path, YAML, body).await
    };
    let (code, reason, message) = post("Strict").await.refused();
    assert_eq!((code, reason.as_str()), (400, "BadRequest"));
    assert_eq!(
        message,
        "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: error converting YAML to JSON: yaml: unmarshal errors:\n  line 7: key \"a\" already set in map"
    );
    let warned = post("Warn").await;
    assert_eq!(
        warned.headers["warning"],
        "299 - \"error converting YAML to JSON: yaml: unmarshal errors:   line 7: key \\\"a\\\" already set in map\""
    );
    assert_eq!(warned.ok()["data"]["a"], "2");
    let ignored = post("Ignore").await;
    assert!(!ignored.headers.contains_key("warning"));
    ignored.ok();
}

#[tokio::test]
async fn changes_of_what_stays() {
    let server = TestServer::start().await;
    let client = &server.admin;
    let secret = json!({"metadata": {"name": "s"}, "immutable": true, "data": {"a": "MQ=="}});
    let secret = client.post(SECRETS, &secret).await.ok();
    let map = client.post(CONFIG_MAPS, &config_map("a")).await.ok();
    client.post(PODS, &pod("p")).await.ok();
    let live = client.post(DEPLOYMENTS, &deployment("d")).await.ok();
    let mut stale = map.clone();
    stale["metadata"]["resourceVersion"] = json!("1");
    let (s, a) = (format!("{SECRETS}/s"), format!("{CONFIG_MAPS}/a"));
    let d = format!("{DEPLOYMENTS}/d");
    let (s, a, d) = (s.as_str(), a.as_str(), d.as_str());
    let put = |path, object: Value, code, reason, message| {
        (
            Method::PUT,
            path,
            JSON,
            object.to_string(),
            code,
            reason,
            message,
        )
    };
    let uid = map["metadata"]["uid"].as_str().unwrap();
    let wrong_uid = format!(
        "Operation cannot be fulfilled on configmaps \"a\": StorageError: invalid object, Code: 4, Key: /registry/configmaps/default/a, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: UID in precondition: other, UID in object meta: {uid}"
    );
    let gone = format!(
        "Operation cannot be fulfilled on ConfigMap \"a\": the UID in the precondition (other) does not match the UID in record ({uid}). The object might have been deleted and then recreated"
    );
    let mut moved = live.clone();
    moved["spec"]["selector"]["matchLabels"] = json!({"app": "e"});
    moved["spec"]["template"]["metadata"]["labels"] = json!({"app": "e"});
    let cases = vec![
        put(
            s,
            with(secret.clone(), "/data/a", json!("Mg==")),
            422,
            "Invalid",
            "Secret \"s\" is invalid: data: Forbidden: field is immutable when `immutable` is set",
        ),
        put(
            s,
            without(secret.clone(), "/immutable"),
            422,
            "Invalid",
            "Secret \"s\" is invalid: immutable: Forbidden: field is immutable when `immutable` is set",
        ),
        put(
            s,
            with(secret.clone(), "/type", json!("other")),
            422,
            "Invalid",
            "Secret \"s\" is invalid: type: Invalid value: \"other\": field is immutable",
        ),
        put(
            d,
            moved,
            422,
            "Invalid",
            "Deployment.apps \"d\" is invalid: spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"e\"}}: field is immutable",
        ),
        put(
            a,
            stale,
            409,
            "Conflict",
            "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please apply your changes to the latest version and try again",
        ),
        put(
            a,
            with(map.clone(), "/metadata/uid", json!("other")),
            409,
            "Conflict",
            &wrong_uid,
        ),
        put(
            a,
            with(map.clone(), "/metadata/name", json!("b")),
            400,
            "BadRequest",
            "the name of the object (b) does not match the name on the URL (a)",
        ),
        put(
            a,
            without(map.clone(), "/metadata/name"),
            400,
            "BadRequest",
            "the name of the object (a based on URL) was undeterminable: name must be provided",
        ),
        put(
            a,
            with(map.clone(), "/metadata/namespace", json!("other")),
            400,
            "BadRequest",
            "the namespace of the provided object does not match the namespace sent on the request",
        ),
        (
            Method::DELETE,
            a,
            JSON,
            json!({"preconditions": {"uid": "other"}}).to_string(),
            409,
            "Conflict",
            &gone,
        ),
    ];
    refused(client, cases).await;
    let p = format!("{PODS}/p");
    let live = client.get(&p).await.ok();
    let command = with(live, "/spec/containers/0/command", json!(["other"]));
    let (code, reason, message) = client.put(&p, &command).await.refused();
    assert_eq!((code, reason.as_str()), (422, "Invalid"));
    // Kubernetes goes on with a comparison that its authors keep from being relied upon.
    let start = "Pod \"p\" is invalid: spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";
    assert!(message.starts_with(start), "{message}");
}

#[tokio::test]
async fn patches_methods_and_media_types_that_do_not_fit() {
    let server = TestServer::start().await;
    let client = &server.admin;
    client.post(CONFIG_MAPS, &config_map("a")).await.ok();
    client.post(PODS, &pod("p")).await.ok();
    let a = format!("{CONFIG_MAPS}/a");
    let validated = format!("{a}?fieldValidation=Sometimes");
    let unknown_part = format!("{PODS}/p/unheard");
    let (a, validated) = (a.as_str(), validated.as_str());
    let patch = |path, media, body: Value, code, reason, message| {
        (
            Method::PATCH,
            path,
            media,
            body.to_string(),
            code,
            reason,
            message,
        )
    };
    let merge = "application/merge-patch+json";
    let not_allowed = "the server does not allow this method on the requested resource";
    let operations: Vec<_> = (0..10_001)
        .map(|_| json!({"op": "test", "path": "/kind", "value": "ConfigMap"}))
        .collect();
    let cases = vec![
        patch(
            a,
            merge,
            json!([1]),
            400,
            "BadRequest",
            "error decoding patch: json: cannot unmarshal array into Go value of type map[string]interface {}",
        ),
        patch(
            a,
            "application/json-patch+json",
            json!({"data": {}}),
            400,
            "BadRequest",
            "error decoding patch: json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp",
        ),
        patch(
            a,
            "application/json-patch+json",
            json!([{"op": "test", "path": "/data/a", "value": "2"}]),
            422,
            "Invalid",
            "the server rejected our request due to an error in our request",
        ),
        patch(
            a,
            "application/json-patch+json",
            Value::Array(operations),
            413,
            "RequestEntityTooLarge",
            "Request entity too large: The allowed maximum operations in a JSON patch is 10000, got 10001",
        ),
        patch(
            a,
            JSON,
            json!({}),
            415,
            "UnsupportedMediaType",
            "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json, application/apply-patch+yaml",
        ),
        patch(
            a,
            merge,
            json!({"metadata": {"name": "b"}}),
            400,
            "BadRequest",
            "the name of the object (b) does not match the name on the URL (a)",
        ),
        patch(
            validated,
            merge,
            json!({}),
            422,
            "Invalid",
            "PatchOptions.meta.k8s.io \"\" is invalid: fieldValidation: Unsupported value: \"Sometimes\": supported values: \"\", \"Ignore\", \"Strict\", \"Warn\"",
        ),
        (
            Method::POST,
            CONFIG_MAPS,
            "text/csv",
            "a,b".to_string(),
            415,
            "UnsupportedMediaType",
            "the body of the request was in an unknown format - accepted media types include: application/json, application/yaml, application/vnd.kubernetes.protobuf",
        ),
        (
            Method::PUT,
            CONFIG_MAPS,
            JSON,
            "{}".to_string(),
            405,
            "MethodNotAllowed",
            not_allowed,
        ),
        (
            Method::POST,
            a,
            JSON,
            "{}".to_string(),
            405,
            "MethodNotAllowed",
            not_allowed,
        ),
        (
            Method::GET,
            unknown_part.as_str(),
            "",
            String::new(),
            404,
            "NotFound",
            "the server could not find the requested resource",
        ),
    ];
    refused(client, cases).await;
    let test = json!([{"op": "test", "path": "/data/a", "value": "2"}]);
    let failed = client.patch(a, "json-patch", &test).await.json();
    let cause = failed["details"]["causes"][0]["message"].as_str().unwrap();
    assert!(cause.contains("/data/a"), "{cause}");
}
