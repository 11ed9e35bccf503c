//! What webhooks are asked about besides creates and updates of built-in objects: connections,
//! deletes, what is created through subresources, scales and custom resources.

use serde_json::{Value, json};

use crate::{
    custom_resources::{DEFINITIONS, TABS, definition, tab, with_tabs},
    dynamic_admission::{REGISTRATION, bind_mutating, create, eventually, mutating},
    harness::{CONFIG_MAPS, DEPLOYMENTS, PODS, TestServer, bind, config_map, deployment, pod},
    webhooks::{configuration, patching, webhook},
};

/// A configuration with other rules, asked about everything that these name.
fn with_rules(kind: &str, name: &str, client: Value, operations: Value, resources: Value) -> Value {
    let mut object = configuration(kind, name, client);
    object["webhooks"][0]["rules"] = json!([{"apiGroups": [""], "apiVersions": ["v1"],
        "operations": operations, "resources": resources}]);
    object["webhooks"][0]
        .as_object_mut()
        .unwrap()
        .remove("matchConditions");
    object
}

#[tokio::test(flavor = "multi_thread")]
async fn webhooks_guard_what_is_done_with_a_pod() {
    let server = TestServer::start().await;
    let admin = &server.admin;
    let (port, bundle, seen) = webhook(
        &["127.0.0.1"],
        |_| json!({"allowed": false, "status": {"code": 403, "message": "hands off"}}),
    )
    .await;
    let client = json!({"url": format!("https://127.0.0.1:{port}/"), "caBundle": bundle});
    admin.post(PODS, &pod("p")).await.ok();
    let object = with_rules(
        "ValidatingWebhookConfiguration",
        "guard",
        client,
        json!(["CONNECT", "CREATE", "DELETE"]),
        json!([
            "pods/exec",
            "pods/attach",
            "pods/portforward",
            "pods/eviction",
            "pods/binding",
            "serviceaccounts/token"
        ]),
    );
    create(admin, "validatingwebhookconfigurations", object).await;
    let exec = format!("{PODS}/p/exec?command=ls&command=-l&stdout=true&container=web");
    eventually(async || admin.post(&exec, &json!({})).await.code == 403).await;
    let denied = "admission webhook \"guard.example.com\" denied the request: hands off";
    let last = || seen.lock().unwrap().last().cloned().unwrap();
    assert_eq!(admin.get(&exec).await.refused().2, denied);
    let review = last();
    assert_eq!(review["operation"], "CONNECT");
    assert_eq!(
        (&review["subResource"], &review["name"], &review["kind"]),
        (
            &json!("exec"),
            &json!("p"),
            &json!({"group": "", "version": "v1", "kind": "PodExecOptions"})
        )
    );
    assert_eq!(
        review["object"],
        json!({"kind": "PodExecOptions", "apiVersion": "v1", "stdout": true, "container": "web",
            "command": ["ls", "-l"]})
    );
    assert!(review["options"].is_null(), "a connection has none");
    let refused = admin
        .post(&format!("{PODS}/p/attach?tty=1"), &json!({}))
        .await;
    assert_eq!(refused.refused().2, denied);
    assert_eq!(last()["kind"]["kind"], "PodAttachOptions");
    assert_eq!(last()["object"]["tty"], true);
    let refused = admin
        .get(&format!("{PODS}/p/portforward?ports=80,81"))
        .await;
    assert_eq!(refused.refused().2, denied);
    assert_eq!(last()["object"]["ports"], json!([80, 81]));
    let eviction =
        json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}});
    let refused = admin.post(&format!("{PODS}/p/eviction"), &eviction).await;
    assert_eq!(refused.refused().2, denied);
    let review = last();
    assert_eq!(
        (
            &review["operation"],
            &review["kind"],
            &review["object"]["kind"]
        ),
        (
            &json!("CREATE"),
            &json!({"group": "policy", "version": "v1", "kind": "Eviction"}),
            &json!("Eviction")
        )
    );
    let refused = bind(admin, "p", "n").await;
    assert_eq!(refused.refused().2, denied);
    assert_eq!(last()["object"]["target"]["name"], "n");
    let token = "/api/v1/namespaces/default/serviceaccounts/default/token";
    let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
        "metadata": {}, "spec": {"audiences": ["a"]}});
    assert_eq!(admin.post(token, &request).await.refused().2, denied);
    assert_eq!(last()["object"]["spec"]["audiences"], json!(["a"]));
    assert_eq!(last()["name"], "default");
    let kept = admin.get(&format!("{PODS}/p")).await.ok();
    assert!(kept["spec"].get("nodeName").is_none());
    // They are not asked about the pod itself.
    admin.delete(&format!("{PODS}/p"), &json!({})).await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_eviction_is_no_delete_to_a_webhook() {
    let server = TestServer::start().await;
    let admin = &server.admin;
    let (port, bundle, seen) = webhook(&["127.0.0.1"], |_| json!({"allowed": true})).await;
    let client = json!({"url": format!("https://127.0.0.1:{port}/"), "caBundle": bundle});
    let object = with_rules(
        "ValidatingWebhookConfiguration",
        "watch",
        client,
        json!(["*"]),
        json!(["pods", "pods/eviction"]),
    );
    create(admin, "validatingwebhookconfigurations", object).await;
    let dry = format!("{PODS}?dryRun=All");
    eventually(async || {
        admin.post(&dry, &pod("probe")).await;
        !seen.lock().unwrap().is_empty()
    })
    .await;
    admin.post(PODS, &pod("p")).await.ok();
    seen.lock().unwrap().clear();
    let eviction =
        json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}});
    admin
        .post(&format!("{PODS}/p/eviction"), &eviction)
        .await
        .ok();
    assert_eq!(admin.get(&format!("{PODS}/p")).await.code, 404);
    let asked: Vec<Value> = seen
        .lock()
        .unwrap()
        .iter()
        .map(|review| json!([review["operation"], review["subResource"]]))
        .collect();
    assert_eq!(asked, [json!(["CREATE", "eviction"])]);
}

#[tokio::test(flavor = "multi_thread")]
async fn mutating_webhooks_may_deny_a_delete_but_change_nothing_in_it() {
    let server = TestServer::start().await;
    let admin = &server.admin;
    let (port, bundle, seen) = webhook(&["127.0.0.1"], |request| {
        if request["operation"] != "DELETE" {
            return json!({"allowed": true});
        }
        match request["name"].as_str().unwrap() {
            "kept" => json!({"allowed": false, "status": {"code": 403, "message": "kept"}}),
            "odd" => patching(&json!([{"op": "remove", "path": "/data"}])),
            _ => json!({"allowed": true}),
        }
    })
    .await;
    let client = json!({"url": format!("https://127.0.0.1:{port}/"), "caBundle": bundle});
    let object = with_rules(
        "MutatingWebhookConfiguration",
        "keep",
        client,
        json!(["*"]),
        json!(["configmaps"]),
    );
    create(admin, "mutatingwebhookconfigurations", object).await;
    let dry = format!("{CONFIG_MAPS}?dryRun=All");
    eventually(async || {
        admin.post(&dry, &config_map("probe")).await;
        !seen.lock().unwrap().is_empty()
    })
    .await;
    for name in ["kept", "odd", "free"] {
        admin.post(CONFIG_MAPS, &config_map(name)).await.ok();
    }
    let delete = async |name: &str| {
        let path = format!("{CONFIG_MAPS}/{name}");
        admin.delete(&path, &json!({})).await
    };
    assert_eq!(delete("kept").await.refused().0, 403);
    let review = seen.lock().unwrap().last().cloned().unwrap();
    assert!(review["object"].is_null());
    assert_eq!(review["oldObject"]["metadata"]["name"], "kept");
    let (code, _, message) = delete("odd").await.refused();
    assert_eq!(code, 500);
    assert_eq!(
        message,
        "Internal error occurred: admission webhook \"keep.example.com\" attempted to modify the object, which is not supported for this operation"
    );
    delete("free").await.ok();
    assert_eq!(admin.get(&format!("{CONFIG_MAPS}/kept")).await.code, 200);
    assert_eq!(admin.get(&format!("{CONFIG_MAPS}/odd")).await.code, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_see_again_what_webhooks_changed() {
    let server = TestServer::start().await;
    let expression = "[JSONPatch{op: 'add', path: '/data/seen', value: 'yes'}]";
    let mutations = json!([{"patchType": "JSONPatch", "jsonPatch": {"expression": expression}}]);
    let mut policy = mutating("again", mutations);
    policy["spec"]["reinvocationPolicy"] = json!("IfNeeded");
    policy["spec"]["matchConstraints"]["resourceRules"] = json!([{"apiGroups": [""],
        "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}]);
    policy["spec"]["matchConditions"] =
        json!([{"name": "stamped", "expression": "'stamp' in object.data"}]);
    create(&server.admin, "mutatingadmissionpolicies", policy).await;
    bind_mutating(&server.admin, "again").await;
    let stamp = json!([{"op": "add", "path": "/data/stamp", "value": "yes"}]);
    let (port, bundle, _) = webhook(&["127.0.0.1"], move |_| patching(&stamp)).await;
    let client = json!({"url": format!("https://127.0.0.1:{port}/"), "caBundle": bundle});
    let object = configuration("MutatingWebhookConfiguration", "stamp", client);
    create(&server.admin, "mutatingwebhookconfigurations", object).await;
    let dry = format!("{CONFIG_MAPS}?dryRun=All");
    let made = async || server.admin.post(&dry, &config_map("a")).await.ok()["data"].clone();
    eventually(async || made().await["stamp"] == "yes").await;
    assert_eq!(
        made().await,
        json!({"a": "1", "stamp": "yes", "seen": "yes"})
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn webhooks_guard_definitions_and_never_the_registration_of_webhooks() {
    let server = TestServer::start().await;
    let admin = &server.admin;
    let everything = |object: &mut Value| {
        object["webhooks"][0]["rules"] = json!([{"apiGroups": ["*"], "apiVersions": ["*"],
            "operations": ["*"], "resources": ["customresourcedefinitions",
                "validatingwebhookconfigurations", "mutatingwebhookconfigurations"]}]);
        object["metadata"]["labels"] = json!({"of": "this"});
    };
    let (port, bundle, seen) = webhook(
        &["127.0.0.1"],
        |_| json!({"allowed": false, "status": {"code": 403, "message": "no"}}),
    )
    .await;
    let client = json!({"url": format!("https://127.0.0.1:{port}/"), "caBundle": bundle});
    let plural = "validatingwebhookconfigurations";
    let none = json!([]);
    let kind = "ValidatingWebhookConfiguration";
    let mut object = with_rules(kind, "judge", client.clone(), none.clone(), none.clone());
    everything(&mut object);
    create(admin, plural, object).await;
    let (port, bundle, _) = webhook(&["127.0.0.1"], |_| {
        patching(&json!([{"op": "add", "path": "/metadata/labels", "value": {"by": "webhook"}}]))
    })
    .await;
    let changer = json!({"url": format!("https://127.0.0.1:{port}/"), "caBundle": bundle});
    let kind = "MutatingWebhookConfiguration";
    let mut object = with_rules(kind, "change", changer, none.clone(), none.clone());
    everything(&mut object);
    create(admin, "mutatingwebhookconfigurations", object).await;

    let dry = format!("{DEFINITIONS}?dryRun=All");
    eventually(async || admin.post(&dry, &definition()).await.code == 403).await;
    let refused = admin.post(DEFINITIONS, &definition()).await.refused();
    let denied = "admission webhook \"judge.example.com\" denied the request: no";
    assert_eq!((refused.0, refused.2.as_str()), (403, denied));
    let changed = || {
        let review = seen.lock().unwrap().last().cloned().unwrap();
        review["object"]["metadata"]["labels"]["by"] == "webhook"
    };
    eventually(async || {
        admin.post(&dry, &definition()).await;
        changed()
    })
    .await;

    // Who could forbid that could never be got rid of.
    let kind = "ValidatingWebhookConfiguration";
    let mut other = with_rules(kind, "other", client, json!(["CREATE"]), json!(["secrets"]));
    other["metadata"]["labels"] = json!({"of": "that"});
    let made = create(admin, plural, other).await;
    assert_eq!(made["metadata"]["labels"], json!({"of": "that"}));
    let path = format!("{REGISTRATION}/{plural}/other");
    let patch = json!({"metadata": {"labels": {"more": "x"}}});
    admin.patch(&path, "merge-patch", &patch).await.ok();
    admin.delete(&path, &json!({})).await.ok();

    // Those that are listed are deleted together, and then nobody is asked.
    for plural in [plural, "mutatingwebhookconfigurations"] {
        let these = format!("{REGISTRATION}/{plural}?labelSelector=of%3Dthis");
        assert_eq!(
            admin.get(&these).await.ok()["items"]
                .as_array()
                .unwrap()
                .len(),
            1
        );
        admin.delete(&these, &json!({})).await.ok();
    }
    eventually(async || admin.post(&dry, &definition()).await.code == 201).await;
    let made = admin.post(DEFINITIONS, &definition()).await.ok();
    assert!(made["metadata"].get("labels").is_none(), "{made}");
}

#[tokio::test(flavor = "multi_thread")]
async fn webhooks_guard_custom_resources_too() {
    let server = with_tabs().await;
    let admin = &server.admin;
    let rules = |object: &mut Value| {
        object["webhooks"][0]["rules"] = json!([{"apiGroups": ["stable.example.com"],
            "apiVersions": ["v1"], "operations": ["*"], "resources": ["crontabs"]}]);
    };
    let (port, bundle, _) = webhook(&["127.0.0.1"], |request| {
        if request["operation"] == "DELETE" {
            return json!({"allowed": true});
        }
        // A replaced default, and a field that the definition does not have.
        patching(
            &json!([{"op": "replace", "path": "/spec/image", "value": "changed"},
            {"op": "add", "path": "/spec/unknown", "value": 1}]),
        )
    })
    .await;
    let client = json!({"url": format!("https://127.0.0.1:{port}/"), "caBundle": bundle});
    let mut object = configuration("MutatingWebhookConfiguration", "change", client);
    rules(&mut object);
    create(admin, "mutatingwebhookconfigurations", object).await;
    let (port, bundle, seen) = webhook(&["127.0.0.1"], |request| {
        let red = request["object"]["spec"]["color"] == "red";
        let kept = request["operation"] == "DELETE" && request["name"] == "kept";
        json!({"allowed": !red && !kept, "status": {"code": 403, "message": "no"}})
    })
    .await;
    let client = json!({"url": format!("https://127.0.0.1:{port}/"), "caBundle": bundle});
    let mut object = configuration("ValidatingWebhookConfiguration", "judge", client);
    rules(&mut object);
    create(admin, "validatingwebhookconfigurations", object).await;
    let dry = format!("{TABS}?dryRun=All");
    eventually(async || {
        admin.post(&dry, &tab("probe")).await;
        !seen.lock().unwrap().is_empty()
    })
    .await;
    let made = admin.post(TABS, &tab("kept")).await.ok();
    assert_eq!(made["spec"]["image"], "changed");
    assert!(made["spec"].get("unknown").is_none(), "pruned: {made}");
    let review = seen.lock().unwrap().last().cloned().unwrap();
    assert_eq!(
        (&review["kind"]["kind"], &review["object"]["spec"]["image"]),
        (&json!("CronTab"), &json!("changed"))
    );
    let mut red = tab("red");
    red["spec"]["color"] = json!("red");
    assert_eq!(admin.post(TABS, &red).await.refused().0, 403);
    let path = format!("{TABS}/kept");
    let change = json!({"spec": {"color": "red"}});
    let refused = admin.patch(&path, "merge-patch", &change).await;
    assert_eq!(refused.refused().0, 403);
    let review = seen.lock().unwrap().last().cloned().unwrap();
    assert_eq!(review["operation"], "UPDATE");
    assert!(review["oldObject"]["spec"].get("color").is_none());
    assert_eq!(admin.delete(&path, &json!({})).await.refused().0, 403);
    // Of a collection each object is asked about.
    let all = admin.delete(TABS, &json!({})).await;
    assert_eq!(all.refused().0, 403);
    admin.get(&path).await.ok();
    admin.post(TABS, &tab("free")).await.ok();
    admin.delete(&format!("{TABS}/free"), &json!({})).await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn webhooks_see_a_scale_as_such() {
    let server = TestServer::start().await;
    let admin = &server.admin;
    admin.post(DEPLOYMENTS, &deployment("d")).await.ok();
    let (port, bundle, _) = webhook(&["127.0.0.1"], |request| {
        match request["object"]["spec"]["replicas"].as_i64() {
            Some(4) => patching(&json!([{"op": "replace", "path": "/spec/replicas", "value": 5}])),
            _ => json!({"allowed": true}),
        }
    })
    .await;
    let rules = |object: &mut Value| {
        object["webhooks"][0]["rules"] = json!([{"apiGroups": ["apps"], "apiVersions": ["v1"],
            "operations": ["UPDATE"], "resources": ["*/scale"]}]);
    };
    let client = json!({"url": format!("https://127.0.0.1:{port}/"), "caBundle": bundle});
    let mut object = configuration("MutatingWebhookConfiguration", "more", client);
    rules(&mut object);
    create(admin, "mutatingwebhookconfigurations", object).await;
    let (port, bundle, seen) = webhook(&["127.0.0.1"], |request| {
        let many = request["object"]["spec"]["replicas"].as_i64() > Some(5);
        json!({"allowed": !many, "status": {"code": 403, "message": "too many"}})
    })
    .await;
    let client = json!({"url": format!("https://127.0.0.1:{port}/"), "caBundle": bundle});
    let mut object = configuration("ValidatingWebhookConfiguration", "limit", client);
    rules(&mut object);
    create(admin, "validatingwebhookconfigurations", object).await;
    let path = format!("{DEPLOYMENTS}/d/scale");
    let to = |replicas: i64| json!({"spec": {"replicas": replicas}});
    let dry = format!("{path}?dryRun=All");
    eventually(async || admin.patch(&dry, "merge-patch", &to(9)).await.code == 403).await;
    let review = seen.lock().unwrap().last().cloned().unwrap();
    assert_eq!(
        (
            &review["kind"],
            &review["resource"]["resource"],
            &review["subResource"]
        ),
        (
            &json!({"group": "autoscaling", "version": "v1", "kind": "Scale"}),
            &json!("deployments"),
            &json!("scale")
        )
    );
    assert_eq!(review["object"]["kind"], "Scale");
    assert_eq!(review["oldObject"]["spec"], json!({"replicas": 3}));
    let scaled = admin.patch(&path, "merge-patch", &to(4)).await.ok();
    assert_eq!(scaled["spec"]["replicas"], 5, "as the webhook changed it");
    let shown = admin.get(&format!("{DEPLOYMENTS}/d")).await.ok();
    assert_eq!(shown["spec"]["replicas"], 5);
    let apply = json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "spec": {"replicas": 7}});
    let path = format!("{path}?fieldManager=me&force=true");
    let refused = admin
        .send(
            http::Method::PATCH,
            &path,
            &[("content-type", "application/apply-patch+yaml")],
            apply.to_string(),
        )
        .await;
    assert_eq!(refused.refused().0, 403);
}
