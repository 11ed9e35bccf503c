//! Create, read, update: codes, reasons and messages are Kubernetes'.

use http::Method;
use serde_json::{Value, json};

use crate::harness::{
    CONFIG_MAPS, DEPLOYMENTS, PODS, TestServer, bind, config_map, deployment, pod,
};

#[tokio::test]
async fn an_object_lives_from_create_to_delete() {
    let server = TestServer::start().await;
    let client = &server.admin;
    let created = client.post(CONFIG_MAPS, &config_map("a")).await;
    assert_eq!(created.code, 201);
    let created = created.ok();
    for field in ["uid", "creationTimestamp", "resourceVersion"] {
        assert!(
            created["metadata"][field]
                .as_str()
                .is_some_and(|v| !v.is_empty()),
            "{field}"
        );
    }
    let path = format!("{CONFIG_MAPS}/a");
    assert_eq!(client.get(&path).await.ok(), created);

    let mut changed = created.clone();
    changed["data"]["a"] = json!("2");
    let updated = client.put(&path, &changed).await.ok();
    assert_ne!(
        updated["metadata"]["resourceVersion"],
        created["metadata"]["resourceVersion"]
    );
    // The same again changes nothing.
    let same = client.put(&path, &updated).await.ok();
    assert_eq!(same, updated);

    let deleted = client.delete(&path, &json!({})).await.ok();
    assert_eq!(deleted["status"], "Success");
    assert_eq!(
        client.get(&path).await.refused(),
        (404, "NotFound".into(), "configmaps \"a\" not found".into())
    );
}

#[tokio::test]
async fn refusals_have_kubernetes_words() {
    let server = TestServer::start().await;
    let client = &server.admin;
    client.post(CONFIG_MAPS, &config_map("a")).await.ok();
    let with = |mut object: Value, pointer: &str, value: Value| {
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        object.pointer_mut(parent).unwrap()[key] = value;
        object
    };
    for (path, object, code, reason, message) in [
        (
            CONFIG_MAPS,
            config_map("a"),
            409,
            "AlreadyExists",
            "configmaps \"a\" already exists",
        ),
        (
            "/api/v1/namespaces/nope/configmaps",
            config_map("a"),
            404,
            "NotFound",
            "namespaces \"nope\" not found",
        ),
        (
            CONFIG_MAPS,
            with(config_map("a"), "/metadata/namespace", json!("kube-system")),
            400,
            "BadRequest",
            "the namespace of the provided object does not match the namespace sent on the request",
        ),
        (
            CONFIG_MAPS,
            with(config_map("x"), "/metadata/resourceVersion", json!("1")),
            400,
            "BadRequest",
            "resourceVersion should not be set on objects to be created",
        ),
        (
            PODS,
            with(pod("x"), "/spec/containers", json!([])),
            422,
            "Invalid",
            "Pod \"x\" is invalid: spec.containers: Required value",
        ),
        (
            DEPLOYMENTS,
            with(
                deployment("x"),
                "/spec/template/metadata/labels",
                json!({"app": "y"}),
            ),
            422,
            "Invalid",
            "Deployment.apps \"x\" is invalid: spec.template.metadata.labels: Invalid value: {\"app\":\"y\"}: `selector` does not match template `labels`",
        ),
    ] {
        assert_eq!(
            client.post(path, &object).await.refused(),
            (code, reason.to_string(), message.to_string())
        );
    }
    let bad_name = client.post(CONFIG_MAPS, &config_map("A_b")).await;
    let (code, _, message) = bad_name.refused();
    assert_eq!(code, 422);
    assert!(message.starts_with("ConfigMap \"A_b\" is invalid: metadata.name: Invalid value: \"A_b\": a lowercase RFC 1123 subdomain"), "{message}");
    assert_eq!(
        bad_name.json()["details"]["causes"][0]["reason"],
        "FieldValueInvalid"
    );
    assert_eq!(
        bad_name.json()["details"]["causes"][0]["field"],
        "metadata.name"
    );
}

#[tokio::test]
async fn unknown_fields_are_refused_warned_about_or_dropped() {
    let server = TestServer::start().await;
    let client = &server.admin;
    let mut object = pod("x");
    object["spec"]["nope"] = json!(1);
    let strict = client
        .post(&format!("{PODS}?fieldValidation=Strict"), &object)
        .await;
    assert_eq!(
        strict.refused().2,
        "Pod in version \"v1\" cannot be handled as a Pod: strict decoding error: unknown field \"spec.nope\""
    );
    let warned = client.post(&format!("{PODS}?dryRun=All"), &object).await;
    assert_eq!(
        warned.headers["warning"],
        "299 - \"unknown field \\\"spec.nope\\\"\""
    );
    assert!(warned.ok()["spec"].get("nope").is_none());
    let ignored = client
        .post(
            &format!("{PODS}?dryRun=All&fieldValidation=Ignore"),
            &object,
        )
        .await;
    assert!(ignored.headers.get("warning").is_none());
    let duplicate = "{\"kind\":\"ConfigMap\",\"apiVersion\":\"v1\",\"metadata\":{\"name\":\"d\",\"name\":\"e\"}}";
    let strict = client
        .send(
            Method::POST,
            &format!("{CONFIG_MAPS}?fieldValidation=Strict"),
            &[],
            duplicate,
        )
        .await;
    assert!(
        strict
            .refused()
            .2
            .ends_with("duplicate field \"metadata.name\""),
        "{}",
        strict.text
    );
}

#[tokio::test]
async fn a_stale_resource_version_is_a_conflict() {
    let server = TestServer::start().await;
    let client = &server.admin;
    let first = client.post(CONFIG_MAPS, &config_map("a")).await.ok();
    let path = format!("{CONFIG_MAPS}/a");
    let mut second = first.clone();
    second["data"]["a"] = json!("2");
    client.put(&path, &second).await.ok();
    let mut stale = first.clone();
    stale["data"]["a"] = json!("3");
    assert_eq!(
        client.put(&path, &stale).await.refused(),
        (
            409,
            "Conflict".into(),
            "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please apply your changes to the latest version and try again".into()
        )
    );
    stale["metadata"]
        .as_object_mut()
        .unwrap()
        .remove("resourceVersion");
    assert_eq!(client.put(&path, &stale).await.ok()["data"]["a"], "3");
}

#[tokio::test]
async fn names_are_generated_and_dry_runs_leave_nothing() {
    let server = TestServer::start().await;
    let client = &server.admin;
    let mut object = config_map("");
    object["metadata"] = json!({"generateName": "gen-"});
    let one = client.post(CONFIG_MAPS, &object).await.ok();
    let two = client.post(CONFIG_MAPS, &object).await.ok();
    let name = one["metadata"]["name"].as_str().unwrap();
    assert!(name.starts_with("gen-") && name.len() == 9, "{name}");
    assert_ne!(one["metadata"]["name"], two["metadata"]["name"]);
    let dry = client
        .post(&format!("{CONFIG_MAPS}?dryRun=All"), &config_map("dry"))
        .await;
    assert_eq!(dry.code, 201);
    assert_eq!(client.get(&format!("{CONFIG_MAPS}/dry")).await.code, 404);
    assert_eq!(
        client
            .post(&format!("{CONFIG_MAPS}?dryRun=Maybe"), &config_map("dry"))
            .await
            .code,
        422
    );
}

#[tokio::test]
async fn a_pod_gets_defaults_and_keeps_its_spec() {
    let server = TestServer::start().await;
    let client = &server.admin;
    let created = client.post(PODS, &pod("p")).await.ok();
    assert_eq!(created["spec"]["restartPolicy"], "Always");
    assert_eq!(created["spec"]["serviceAccountName"], "default");
    assert_eq!(created["spec"]["priority"], 0);
    assert_eq!(
        created["spec"]["containers"][0]["imagePullPolicy"],
        "Always"
    );
    assert_eq!(created["spec"]["tolerations"].as_array().unwrap().len(), 2);
    assert_eq!(
        created["status"],
        json!({"phase": "Pending", "qosClass": "BestEffort"})
    );

    let path = format!("{PODS}/p");
    let mut changed = created.clone();
    changed["spec"]["containers"][0]["image"] = json!("nginx:2");
    let changed = client.put(&path, &changed).await.ok();
    assert_eq!(changed["metadata"]["generation"], 2);
    let mut illegal = changed.clone();
    illegal["spec"]["hostname"] = json!("other");
    let (code, reason, message) = client.put(&path, &illegal).await.refused();
    assert_eq!((code, reason.as_str()), (422, "Invalid"));
    assert!(
        message.starts_with(
            "Pod \"p\" is invalid: spec: Forbidden: pod updates may not change fields other than"
        ),
        "{message}"
    );
}

#[tokio::test]
async fn status_and_spec_are_written_apart() {
    let server = TestServer::start().await;
    let client = &server.admin;
    let mut pod = client.post(PODS, &pod("p")).await.ok();
    pod["status"]["phase"] = json!("Running");
    let through_spec = client.put(&format!("{PODS}/p"), &pod).await.ok();
    assert_eq!(through_spec["status"]["phase"], "Pending");
    pod["metadata"]["resourceVersion"] = Value::Null;
    pod["spec"]["hostname"] = json!("ignored");
    let through_status = client.put(&format!("{PODS}/p/status"), &pod).await.ok();
    assert_eq!(through_status["status"]["phase"], "Running");
    assert!(through_status["spec"].get("hostname").is_none());
}

#[tokio::test]
async fn selectors_of_workloads_do_not_change() {
    let server = TestServer::start().await;
    let client = &server.admin;
    let mut object = client.post(DEPLOYMENTS, &deployment("d")).await.ok();
    assert_eq!(object["metadata"]["generation"], 1);
    assert_eq!(
        object["spec"]["strategy"]["rollingUpdate"]["maxSurge"],
        "25%"
    );
    object["spec"]["selector"]["matchLabels"] = json!({"app": "e"});
    object["spec"]["template"]["metadata"]["labels"] = json!({"app": "e"});
    assert_eq!(
        client
            .put(&format!("{DEPLOYMENTS}/d"), &object)
            .await
            .refused()
            .2,
        "Deployment.apps \"d\" is invalid: spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"e\"}}: field is immutable"
    );
}

#[tokio::test]
async fn scale_changes_replicas_only() {
    let server = TestServer::start().await;
    let client = &server.admin;
    client.post(DEPLOYMENTS, &deployment("d")).await.ok();
    let path = format!("{DEPLOYMENTS}/d/scale");
    let mut scale = client.get(&path).await.ok();
    assert_eq!(scale["spec"]["replicas"], 3);
    assert_eq!(scale["status"]["selector"], "app=d");
    scale["spec"]["replicas"] = json!(5);
    assert_eq!(client.put(&path, &scale).await.ok()["spec"]["replicas"], 5);
    assert_eq!(client.put(&path, &scale).await.code, 409);
    let patched = client
        .patch(&path, "merge-patch", &json!({"spec": {"replicas": 2}}))
        .await
        .ok();
    assert_eq!(patched["spec"]["replicas"], 2);
    let (code, _, _) = client
        .patch(&path, "merge-patch", &json!({"spec": {"replicas": -1}}))
        .await
        .refused();
    assert_eq!(code, 422);
    assert_eq!(
        client.get(&format!("{DEPLOYMENTS}/d")).await.ok()["metadata"]["generation"],
        3
    );
}

#[tokio::test]
async fn a_pod_is_bound_once() {
    let server = TestServer::start().await;
    let client = &server.admin;
    client.post(PODS, &pod("p")).await.ok();
    let path = format!("{PODS}/p/binding");
    for metadata in [json!({"name": "q"}), json!({})] {
        let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": metadata,
            "target": {"kind": "Node", "name": "node-a"}});
        let (code, reason, message) = client.post(&path, &binding).await.refused();
        assert_eq!((code, reason.as_str()), (400, "BadRequest"));
        assert_eq!(message, "name in URL does not match name in Binding object");
    }
    assert_eq!(bind(client, "p", "node-a").await.code, 201);
    let bound = client.get(&format!("{PODS}/p")).await.ok();
    assert_eq!(bound["spec"]["nodeName"], "node-a");
    assert_eq!(bound["status"]["conditions"][0]["type"], "PodScheduled");
    let (code, _, message) = bind(client, "p", "node-b").await.refused();
    assert_eq!(code, 409);
    assert_eq!(
        message,
        "Operation cannot be fulfilled on pods/binding \"p\": pod p is already assigned to node \"node-a\""
    );
}

#[tokio::test]
async fn a_binding_of_its_own_binds_the_pod_of_its_name() {
    let server = TestServer::start().await;
    let client = &server.admin;
    let bindings = "/api/v1/namespaces/default/bindings";
    client.post(PODS, &pod("p")).await.ok();
    let mut binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {},
        "target": {"kind": "Node", "name": "node-a"}});
    assert_eq!(client.post(bindings, &binding).await.refused().0, 422);
    binding["metadata"]["name"] = json!("p");
    assert_eq!(client.post(bindings, &binding).await.code, 201);
    let bound = client.get(&format!("{PODS}/p")).await.ok();
    assert_eq!(bound["spec"]["nodeName"], "node-a");
    let (code, _, message) = client.post(bindings, &binding).await.refused();
    assert_eq!(code, 409);
    assert!(message.contains("already assigned to node"), "{message}");
    assert_eq!(client.get(bindings).await.refused().0, 405);
    assert_eq!(client.get(&format!("{bindings}/p")).await.refused().0, 405);
}

#[tokio::test]
async fn whoever_uses_a_deprecated_kind_is_told() {
    let server = TestServer::start().await;
    let client = &server.admin;
    let path = "/api/v1/namespaces/default/endpoints";
    let endpoints = json!({"metadata": {"name": "e"},
        "subsets": [{"notReadyAddresses": [{"ip": "2001:DB8::1"}]}]});
    let deprecated =
        "299 - \"v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice\"";
    let written = client.post(path, &endpoints).await;
    let told: Vec<_> = written.headers.get_all("warning").iter().collect();
    assert_eq!(told.len(), 2, "{told:?}");
    assert_eq!(told[0], deprecated);
    let address = told[1].to_str().unwrap();
    assert!(
        address.contains("subsets[0].notReadyAddresses[0].ip: IPv6 address"),
        "{address}"
    );
    written.ok();
    for path in [path.to_string(), format!("{path}/e")] {
        assert_eq!(client.get(&path).await.headers["warning"], deprecated);
    }
    // Beside an error too.
    let absent = client.get(&format!("{path}/absent")).await;
    assert_eq!(absent.headers["warning"], deprecated);
    assert_eq!(absent.refused().0, 404);
}

#[tokio::test]
async fn the_parts_of_the_control_plane_are_asked_when_they_are_read() {
    let server = TestServer::start().await;
    let client = &server.admin;
    let path = "/api/v1/componentstatuses";
    let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": "kube-scheduler"},
        "spec": {"holderIdentity": "a", "leaseDurationSeconds": 15, "renewTime": "2020-01-01T00:00:00.000000Z"}});
    let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases";
    client.post(leases, &lease).await.ok();
    let answer = client.get(path).await;
    assert_eq!(
        answer.headers["warning"],
        "299 - \"v1 ComponentStatus is deprecated in v1.19+\""
    );
    let list = answer.ok();
    assert_eq!(list["kind"], "ComponentStatusList");
    let names: Vec<&str> = list["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["metadata"]["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["controller-manager", "scheduler", "etcd-0"]);
    assert_eq!(
        list["items"][1]["conditions"],
        json!([{"type": "Healthy", "status": "False", "message": "a does not renew its lease"}])
    );
    let store = client.get(&format!("{path}/etcd-0")).await.ok();
    assert_eq!(store["conditions"][0]["status"], "True");
    assert_eq!(client.get(&format!("{path}/x")).await.refused().0, 404);
    assert_eq!(client.post(path, &store).await.refused().0, 405);
}

#[tokio::test]
async fn a_gated_pod_is_bound_once_its_gates_are_gone() {
    let server = TestServer::start().await;
    let client = &server.admin;
    let path = format!("{PODS}/p");
    let mut gated = pod("p");
    gated["spec"]["schedulingGates"] = json!([{"name": "a.b/c"}, {"name": "d"}]);
    let created = client.post(PODS, &gated).await.ok();
    let condition = &created["status"]["conditions"][0];
    assert_eq!(
        (&condition["type"], &condition["reason"]),
        (&json!("PodScheduled"), &json!("SchedulingGated"))
    );
    let (code, _, message) = bind(client, "p", "node-a").await.refused();
    assert_eq!(
        (code, message.as_str()),
        (
            409,
            "Operation cannot be fulfilled on pods/binding \"p\": pod p has non-empty .spec.schedulingGates"
        )
    );
    let narrower =
        json!({"spec": {"nodeSelector": {"disk": "ssd"}, "schedulingGates": [{"name": "d"}]}});
    let changed = client.patch(&path, "merge-patch", &narrower).await.ok();
    assert_eq!(changed["spec"]["nodeSelector"]["disk"], "ssd");
    let more = json!({"spec": {"schedulingGates": [{"name": "d"}, {"name": "e"}]}});
    let (code, _, message) = client.patch(&path, "merge-patch", &more).await.refused();
    assert_eq!(code, 422);
    assert!(
        message.ends_with("spec.schedulingGates[1].name: Forbidden: only deletion is allowed, but found new scheduling gate 'e'"),
        "{message}"
    );
    let free = json!({"spec": {"schedulingGates": null}});
    client.patch(&path, "merge-patch", &free).await.ok();
    let wider = json!({"spec": {"nodeSelector": null}});
    let (code, ..) = client.patch(&path, "merge-patch", &wider).await.refused();
    assert_eq!(code, 422);
    assert_eq!(bind(client, "p", "node-a").await.code, 201);
    gated["metadata"]["name"] = json!("q");
    gated["spec"]["nodeName"] = json!("node-a");
    let (_, _, message) = client.post(PODS, &gated).await.refused();
    assert!(
        message.ends_with(
            "spec.nodeName: Forbidden: cannot be set until all schedulingGates have been cleared"
        ),
        "{message}"
    );
}

#[tokio::test]
async fn immutable_data_stays() {
    let server = TestServer::start().await;
    let client = &server.admin;
    let mut object = config_map("a");
    object["immutable"] = json!(true);
    let mut object = client.post(CONFIG_MAPS, &object).await.ok();
    object["data"]["a"] = json!("2");
    assert_eq!(
        client
            .put(&format!("{CONFIG_MAPS}/a"), &object)
            .await
            .refused()
            .2,
        "ConfigMap \"a\" is invalid: data: Forbidden: field is immutable when `immutable` is set"
    );
}

#[tokio::test]
async fn events_have_two_faces() {
    let server = TestServer::start().await;
    let client = &server.admin;
    let core = json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "e", "namespace": "default"},
        "involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"}, "reason": "Started",
        "message": "hello", "type": "Normal", "source": {"component": "test"}, "count": 2});
    client
        .post("/api/v1/namespaces/default/events", &core)
        .await
        .ok();
    let other = client
        .get("/apis/events.k8s.io/v1/namespaces/default/events/e")
        .await
        .ok();
    assert_eq!(other["apiVersion"], "events.k8s.io/v1");
    assert_eq!(other["note"], "hello");
    assert_eq!(other["regarding"]["name"], "p");
    assert_eq!(other["deprecatedCount"], 2);
    let new = json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "f", "namespace": "default"},
        "eventTime": "2026-01-01T00:00:00.000000Z", "reportingController": "c", "reportingInstance": "i",
        "action": "Binding", "reason": "Scheduled", "type": "Normal", "note": "text",
        "regarding": {"kind": "Pod", "name": "p", "namespace": "default"}});
    client
        .post("/apis/events.k8s.io/v1/namespaces/default/events", &new)
        .await
        .ok();
    let found = client
        .get("/api/v1/namespaces/default/events?fieldSelector=involvedObject.name%3Dp,reason%3DScheduled")
        .await
        .ok();
    assert_eq!(found["items"].as_array().unwrap().len(), 1);
    assert_eq!(found["items"][0]["message"], "text");
    let list = client
        .get("/apis/events.k8s.io/v1/namespaces/default/events")
        .await
        .ok();
    assert_eq!(list["items"].as_array().unwrap().len(), 2);
    assert_eq!(list["items"][0]["apiVersion"], "events.k8s.io/v1");
}

#[tokio::test]
async fn runtime_class_and_priority_class_shape_the_pod() {
    let server = TestServer::start().await;
    let client = &server.admin;
    client
        .post("/apis/node.k8s.io/v1/runtimeclasses", &json!({"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass",
            "metadata": {"name": "microvm"}, "handler": "microvm", "overhead": {"podFixed": {"memory": "64Mi"}},
            "scheduling": {"nodeSelector": {"vm": "yes"}}}))
        .await
        .ok();
    client
        .post(
            "/apis/scheduling.k8s.io/v1/priorityclasses",
            &json!({"apiVersion": "scheduling.k8s.io/v1",
            "kind": "PriorityClass", "metadata": {"name": "high"}, "value": 1000}),
        )
        .await
        .ok();
    let mut object = pod("p");
    object["spec"]["runtimeClassName"] = json!("microvm");
    object["spec"]["priorityClassName"] = json!("high");
    let created = client.post(PODS, &object).await.ok();
    assert_eq!(created["spec"]["overhead"], json!({"memory": "64Mi"}));
    assert_eq!(created["spec"]["nodeSelector"], json!({"vm": "yes"}));
    assert_eq!(created["spec"]["priority"], 1000);
    object["metadata"]["name"] = json!("q");
    object["spec"]["runtimeClassName"] = json!("nope");
    assert_eq!(
        client.post(PODS, &object).await.refused(),
        (
            403,
            "Forbidden".into(),
            "pods \"q\" is forbidden: pod rejected: RuntimeClass \"nope\" not found".into()
        )
    );
}

#[tokio::test]
async fn pods_without_a_priority_class_are_of_the_default_one() {
    const CLASSES: &str = "/apis/scheduling.k8s.io/v1/priorityclasses";
    let server = TestServer::start().await;
    let client = &server.admin;
    let system = client.get(&format!("{CLASSES}/system-node-critical")).await;
    assert_eq!(system.ok()["value"], 2_000_001_000);
    let system = format!("{CLASSES}/system-cluster-critical");
    assert_eq!(client.get(&system).await.ok()["value"], 2_000_000_000);
    let plain = client.post(PODS, &pod("plain")).await.ok();
    assert_eq!(plain["spec"]["priority"], 0);
    assert!(plain["spec"].get("priorityClassName").is_none());
    let class = |name: &str, value: i64, default: bool| {
        json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass",
            "metadata": {"name": name}, "value": value, "globalDefault": default,
            "preemptionPolicy": "Never"})
    };
    client.post(CLASSES, &class("usual", 7, true)).await.ok();
    let dry = format!("{PODS}?dryRun=All");
    crate::dynamic_admission::eventually(async || {
        let made = client.post(&dry, &pod("a")).await.ok();
        made["spec"]["priorityClassName"] == "usual"
    })
    .await;
    let made = client.post(PODS, &pod("a")).await.ok();
    assert_eq!(made["spec"]["priority"], 7);
    assert_eq!(made["spec"]["preemptionPolicy"], "Never");
    let mut eager = pod("b");
    eager["spec"]["preemptionPolicy"] = json!("PreemptLowerPriority");
    assert_eq!(
        client.post(PODS, &eager).await.refused(),
        (
            403,
            "Forbidden".into(),
            "pods \"b\" is forbidden: the string value of PreemptionPolicy (PreemptLowerPriority) must not be provided in pod spec; priority admission controller computed Never from the given PriorityClass name".into()
        )
    );
    let second = client.post(CLASSES, &class("second", 8, true)).await;
    assert_eq!(
        second.refused(),
        (
            403,
            "Forbidden".into(),
            "priorityclasses.scheduling.k8s.io \"second\" is forbidden: PriorityClass usual is already marked as default. Only one default can exist".into()
        )
    );
    client.post(CLASSES, &class("second", 8, false)).await.ok();
    let make_default = json!({"globalDefault": true});
    let path = format!("{CLASSES}/second");
    let changed = client.patch(&path, "merge-patch", &make_default).await;
    assert_eq!(changed.code, 403);
    // The default itself may be written again.
    let path = format!("{CLASSES}/usual");
    let label = json!({"metadata": {"labels": {"a": "b"}}});
    client.patch(&path, "merge-patch", &label).await.ok();
}

#[tokio::test]
async fn a_lease_is_created_by_put() {
    let server = TestServer::start().await;
    let path = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n";
    let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": "n", "namespace": "kube-node-lease"}, "spec": {"holderIdentity": "n", "leaseDurationSeconds": 40,
        "renewTime": "2026-01-01T00:00:00Z"}});
    let created = server.admin.put(path, &lease).await;
    assert_eq!(created.code, 201);
    assert_eq!(
        created.ok()["spec"]["renewTime"],
        "2026-01-01T00:00:00.000000Z"
    );
    assert_eq!(server.admin.put(path, &lease).await.code, 200);
}
