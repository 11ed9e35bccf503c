//! What namespaces allow and how much of it.

use serde_json::{Value, json};

use crate::harness::{PATIENCE, PODS, TestServer, pod};

const QUOTAS: &str = "/api/v1/namespaces/default/resourcequotas";
const LIMITS: &str = "/api/v1/namespaces/default/limitranges";
const CLAIMS: &str = "/api/v1/namespaces/default/persistentvolumeclaims";

fn with_resources(name: &str, resources: Value) -> Value {
    let mut object = pod(name);
    object["spec"]["containers"][0]["resources"] = resources;
    object
}

fn quota(name: &str, hard: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": name},
        "spec": {"hard": hard}})
}

/// Quotas and ranges are read from the cache, a moment after they were written.
async fn seen(server: &TestServer, path: &str) {
    let started = std::time::Instant::now();
    loop {
        let list = server
            .admin
            .get(&format!("{path}?resourceVersion=0"))
            .await
            .ok();
        if !list["items"].as_array().unwrap().is_empty() {
            return;
        }
        assert!(started.elapsed() < PATIENCE);
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn limit_ranges_bound_what_grows_later() {
    let server = TestServer::start().await;
    let admin = &server.admin;
    let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "c"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "5Gi"}}}});
    admin.post(CLAIMS, &claim).await.ok();
    let claim = format!("{CLAIMS}/c");
    let bound = json!({"status": {"phase": "Bound", "capacity": {"storage": "5Gi"}}});
    let status = format!("{claim}/status");
    admin.patch(&status, "merge-patch", &bound).await.ok();
    let object = with_resources("p", json!({"limits": {"memory": "512Mi"}}));
    admin.post(PODS, &object).await.ok();
    let range = json!({"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "l"},
        "spec": {"limits": [
            {"type": "Container", "max": {"memory": "1Gi"}},
            {"type": "PersistentVolumeClaim", "max": {"storage": "10Gi"}}]}});
    admin.post(LIMITS, &range).await.ok();
    seen(&server, LIMITS).await;
    let grow = |storage: &str| json!({"spec": {"resources": {"requests": {"storage": storage}}}});
    assert_eq!(
        admin.patch(&claim, "merge-patch", &grow("11Gi")).await.refused(),
        (
            403,
            "Forbidden".into(),
            "persistentvolumeclaims \"c\" is forbidden: maximum storage usage per PersistentVolumeClaim is 10Gi, but request is 11Gi".into()
        )
    );
    admin.patch(&claim, "merge-patch", &grow("9Gi")).await.ok();
    let resize = format!("{PODS}/p/resize");
    let memory = |amount: &str| {
        json!({"spec": {"containers": [{"name": "web",
            "resources": {"limits": {"memory": amount}, "requests": {"memory": amount}}}]}})
    };
    let refused = admin
        .patch(&resize, "strategic-merge-patch", &memory("2Gi"))
        .await;
    assert_eq!(
        refused.refused(),
        (
            403,
            "Forbidden".into(),
            "pods \"p\" is forbidden: maximum memory usage per Container is 1Gi, but limit is 2Gi"
                .into()
        )
    );
    admin
        .patch(&resize, "strategic-merge-patch", &memory("1Gi"))
        .await
        .ok();
}

#[tokio::test]
async fn a_claim_without_a_class_gets_the_newest_default_at_once() {
    let server = TestServer::start().await;
    let admin = &server.admin;
    let classes = "/apis/storage.k8s.io/v1/storageclasses";
    let class = |name: &str, default: &str| {
        json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "provisioner": "example.com/p",
            "metadata": {"name": name,
                "annotations": {"storageclass.kubernetes.io/is-default-class": default}}})
    };
    let claim = |name: &str| {
        json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "5Gi"}}}})
    };
    let dry = format!("{CLAIMS}?dryRun=All");
    admin.post(classes, &class("other", "false")).await.ok();
    seen(&server, classes).await;
    let plain = admin.post(&dry, &claim("a")).await.ok();
    assert!(plain["spec"].get("storageClassName").is_none());
    // Of the same second: the first by its name.
    for name in ["b", "a"] {
        admin.post(classes, &class(name, "true")).await.ok();
    }
    let class_of = async |claim: &Value| {
        let made = admin.post(&dry, claim).await.ok();
        made["spec"]["storageClassName"].clone()
    };
    crate::dynamic_admission::eventually(async || !class_of(&claim("a")).await.is_null()).await;
    let hard = json!({"a.storageclass.storage.k8s.io/persistentvolumeclaims": "1",
        "b.storageclass.storage.k8s.io/persistentvolumeclaims": "1"});
    admin.post(QUOTAS, &quota("q", hard)).await.ok();
    seen(&server, QUOTAS).await;
    let made = admin.post(CLAIMS, &claim("a")).await.ok();
    let chosen = made["spec"]["storageClassName"].as_str().unwrap();
    assert!(chosen == "a" || chosen == "b", "{chosen}");
    let (code, _, message) = admin.post(CLAIMS, &claim("b")).await.refused();
    assert_eq!(code, 403, "the class counts in quotas: {message}");
    let mut none = claim("none");
    none["spec"]["storageClassName"] = json!("");
    assert_eq!(class_of(&none).await, "");
    let mut old = claim("old");
    old["metadata"]["annotations"] = json!({"volume.beta.kubernetes.io/storage-class": "x"});
    assert!(class_of(&old).await.is_null());
}

#[tokio::test]
async fn an_ingress_without_a_class_gets_the_default_one() {
    const INGRESSES: &str = "/apis/networking.k8s.io/v1/namespaces/default/ingresses?dryRun=All";
    let server = TestServer::start().await;
    let admin = &server.admin;
    let class = json!({"apiVersion": "networking.k8s.io/v1", "kind": "IngressClass",
        "metadata": {"name": "c",
            "annotations": {"ingressclass.kubernetes.io/is-default-class": "true"}},
        "spec": {"controller": "example.com/c"}});
    let ingress = |annotations: Value| {
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
            "metadata": {"name": "i", "annotations": annotations},
            "spec": {"defaultBackend": {"service": {"name": "s", "port": {"number": 80}}}}})
    };
    let class_of = async |annotations: Value| {
        let made = admin.post(INGRESSES, &ingress(annotations)).await.ok();
        made["spec"]["ingressClassName"].clone()
    };
    assert!(class_of(json!({})).await.is_null());
    let classes = "/apis/networking.k8s.io/v1/ingressclasses";
    admin.post(classes, &class).await.ok();
    crate::dynamic_admission::eventually(async || class_of(json!({})).await == "c").await;
    let old = json!({"kubernetes.io/ingress.class": "x"});
    assert!(class_of(old).await.is_null());
}

#[tokio::test]
async fn limit_ranges_give_defaults_and_set_bounds() {
    let server = TestServer::start().await;
    let admin = &server.admin;
    let range = json!({"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "l"},
        "spec": {"limits": [
            {"type": "Container", "default": {"memory": "256Mi"}, "defaultRequest": {"memory": "128Mi"},
             "max": {"memory": "1Gi"}},
            {"type": "PersistentVolumeClaim", "min": {"storage": "1Gi"}}]}});
    admin.post(LIMITS, &range).await.ok();
    seen(&server, LIMITS).await;
    let defaulted = admin.post(PODS, &pod("a")).await.ok();
    assert_eq!(
        defaulted["spec"]["containers"][0]["resources"],
        json!({"limits": {"memory": "256Mi"}, "requests": {"memory": "128Mi"}})
    );
    let greedy = with_resources("b", json!({"limits": {"memory": "2Gi"}}));
    let (code, _, message) = admin.post(PODS, &greedy).await.refused();
    assert_eq!(code, 403);
    assert_eq!(
        message,
        "pods \"b\" is forbidden: maximum memory usage per Container is 1Gi, but limit is 2Gi"
    );
    let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "c"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "5Mi"}}}});
    let (_, _, message) = admin.post(CLAIMS, &claim).await.refused();
    assert!(
        message
            .contains("minimum storage usage per PersistentVolumeClaim is 1Gi, but request is 5Mi"),
        "{message}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_requests_at_once_exactly_those_that_fit_succeed() {
    let server = TestServer::start().await;
    let admin = &server.admin;
    admin
        .post(
            QUOTAS,
            &quota("q", json!({"pods": "5", "requests.cpu": "10"})),
        )
        .await
        .ok();
    seen(&server, QUOTAS).await;
    let mut tasks = Vec::new();
    for number in 0..24 {
        let client = admin.clone();
        tasks.push(tokio::spawn(async move {
            let object = with_resources(&format!("p{number}"), json!({"requests": {"cpu": "1"}}));
            client.post(PODS, &object).await
        }));
    }
    let mut succeeded = 0;
    for task in tasks {
        let answer = task.await.unwrap();
        if answer.code == 201 {
            succeeded += 1;
        } else {
            let (code, _, message) = answer.refused();
            assert_eq!(code, 403);
            assert!(
                message.ends_with("is forbidden: exceeded quota: q, requested: pods=1, used: pods=5, limited: pods=5"),
                "{message}"
            );
        }
    }
    assert_eq!(succeeded, 5);
    let shown = admin.get(&format!("{QUOTAS}/q")).await.ok();
    assert_eq!(
        shown["status"]["used"],
        json!({"pods": "5", "requests.cpu": "5"})
    );
    let list = admin.get(PODS).await.ok();
    let name = list["items"][0]["metadata"]["name"]
        .as_str()
        .unwrap()
        .to_string();
    admin
        .delete(&format!("{PODS}/{name}"), &json!({"gracePeriodSeconds": 0}))
        .await
        .ok();
    let (_, _, message) = admin.post(PODS, &pod("unspecified")).await.refused();
    assert!(
        message.ends_with("failed quota: q: must specify requests.cpu for: web"),
        "{message}"
    );
    let object = with_resources("again", json!({"requests": {"cpu": "7"}}));
    let (_, _, message) = admin.post(PODS, &object).await.refused();
    assert!(
        message
            .contains("requested: requests.cpu=7, used: requests.cpu=4, limited: requests.cpu=10"),
        "{message}"
    );
    let object = with_resources("again", json!({"requests": {"cpu": "6"}}));
    admin.post(PODS, &object).await.ok();
}

#[tokio::test]
async fn quotas_with_scopes_count_the_pods_in_them() {
    let server = TestServer::start().await;
    let admin = &server.admin;
    let class = json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass",
        "metadata": {"name": "high"}, "value": 1000});
    let classes = "/apis/scheduling.k8s.io/v1/priorityclasses";
    admin.post(classes, &class).await.ok();
    let scoped = |name: &str, scopes: Value| {
        let mut object = quota(name, json!({"pods": "1"}));
        object["spec"]["scopes"] = scopes;
        object
    };
    let mut high = quota("high", json!({"pods": "1"}));
    high["spec"]["scopeSelector"] = json!({"matchExpressions": [
        {"scopeName": "PriorityClass", "operator": "In", "values": ["high"]}]});
    let quotas = [
        scoped("effortless", json!(["BestEffort"])),
        scoped("ending", json!(["Terminating", "NotBestEffort"])),
        high,
    ];
    for object in &quotas {
        admin.post(QUOTAS, object).await.ok();
    }
    let listed = format!("{QUOTAS}?resourceVersion=0");
    crate::dynamic_admission::eventually(async || {
        admin.get(&listed).await.ok()["items"]
            .as_array()
            .unwrap()
            .len()
            == quotas.len()
    })
    .await;
    let requests = || json!({"requests": {"cpu": "1m"}});
    let ending = |name: &str| {
        let mut object = with_resources(name, requests());
        object["spec"]["activeDeadlineSeconds"] = json!(60);
        object
    };
    let important = |name: &str| {
        let mut object = with_resources(name, requests());
        object["spec"]["priorityClassName"] = json!("high");
        object
    };
    for (quota, first, second) in [
        ("effortless", pod("a"), pod("b")),
        ("ending", ending("c"), ending("d")),
        ("high", important("e"), important("f")),
    ] {
        admin.post(PODS, &first).await.ok();
        let (code, _, message) = admin.post(PODS, &second).await.refused();
        assert_eq!(code, 403);
        let expected =
            format!("exceeded quota: {quota}, requested: pods=1, used: pods=1, limited: pods=1");
        assert!(message.ends_with(&expected), "{message}");
        let shown = admin.get(&format!("{QUOTAS}/{quota}")).await.ok();
        assert_eq!(shown["status"]["used"], json!({"pods": "1"}));
    }
    // In no scope.
    for name in ["g", "h"] {
        let object = with_resources(name, requests());
        admin.post(PODS, &object).await.ok();
    }
}

#[tokio::test]
async fn quotas_count_what_grows_later() {
    const SERVICES: &str = "/api/v1/namespaces/default/services";
    let server = TestServer::start().await;
    let admin = &server.admin;
    let hard = json!({"requests.memory": "1Gi", "services.loadbalancers": "0",
        "requests.storage": "10Gi"});
    admin.post(QUOTAS, &quota("q", hard)).await.ok();
    seen(&server, QUOTAS).await;
    let memory =
        |amount: &str| json!({"requests": {"memory": amount}, "limits": {"memory": "2Gi"}});
    let object = with_resources("p", memory("512Mi"));
    admin.post(PODS, &object).await.ok();
    let resize = async |amount: &str| {
        let change =
            json!({"spec": {"containers": [{"name": "web", "resources": memory(amount)}]}});
        let path = format!("{PODS}/p/resize");
        admin.patch(&path, "strategic-merge-patch", &change).await
    };
    let (code, _, message) = resize("1025Mi").await.refused();
    assert_eq!(code, 403);
    assert!(
        message.ends_with("exceeded quota: q, requested: requests.memory=513Mi, used: requests.memory=512Mi, limited: requests.memory=1Gi"),
        "{message}"
    );
    resize("1Gi").await.ok();
    let shown = admin.get(&format!("{QUOTAS}/q")).await.ok();
    assert_eq!(shown["status"]["used"]["requests.memory"], "1Gi");
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"},
        "spec": {"ports": [{"port": 80}]}});
    admin.post(SERVICES, &service).await.ok();
    let path = format!("{SERVICES}/s");
    let change = json!({"spec": {"type": "LoadBalancer"}});
    let (code, _, message) = admin.patch(&path, "merge-patch", &change).await.refused();
    assert_eq!(code, 403);
    assert!(
        message.contains("requested: services.loadbalancers=1"),
        "{message}"
    );
    let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "c"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "5Gi"}}}});
    admin.post(CLAIMS, &claim).await.ok();
    let path = format!("{CLAIMS}/c");
    let bound = json!({"status": {"phase": "Bound", "capacity": {"storage": "5Gi"}}});
    let status = format!("{path}/status");
    admin.patch(&status, "merge-patch", &bound).await.ok();
    let grow = |storage: &str| json!({"spec": {"resources": {"requests": {"storage": storage}}}});
    let refused = admin.patch(&path, "merge-patch", &grow("11Gi")).await;
    assert_eq!(refused.refused().0, 403);
    admin.patch(&path, "merge-patch", &grow("10Gi")).await.ok();
}

#[tokio::test]
async fn pods_need_their_service_account_and_get_its_token() {
    let server = TestServer::start_with(|config| config.service_account_admission = true).await;
    let admin = &server.admin;
    let created = admin.post(PODS, &pod("a")).await.ok();
    assert_eq!(created["spec"]["serviceAccountName"], "default");
    let volume = &created["spec"]["volumes"][0];
    let name = volume["name"].as_str().unwrap();
    assert!(
        name.starts_with("kube-api-access-") && name.len() == 21,
        "{name}"
    );
    let sources = volume["projected"]["sources"].as_array().unwrap();
    assert_eq!(
        sources[0],
        json!({"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}})
    );
    assert_eq!(sources[1]["configMap"]["name"], "kube-root-ca.crt");
    assert_eq!(
        created["spec"]["containers"][0]["volumeMounts"],
        json!([{"name": name, "readOnly": true, "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}])
    );
    let mut other = pod("b");
    other["spec"]["serviceAccountName"] = json!("nope");
    let (code, _, message) = admin.post(PODS, &other).await.refused();
    assert_eq!(code, 403);
    assert_eq!(
        message,
        "pods \"b\" is forbidden: error looking up service account default/nope: serviceaccount \"nope\" not found"
    );
    let mut without = pod("c");
    without["spec"]["automountServiceAccountToken"] = json!(false);
    let created = admin.post(PODS, &without).await.ok();
    assert!(created["spec"].get("volumes").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_is_exact_across_servers_on_one_store() {
    const LIMIT: usize = 7;
    let first = TestServer::start().await;
    let second = first.sibling().await;
    let hard = json!({"count/configmaps": LIMIT.to_string(), "configmaps": LIMIT.to_string()});
    first.admin.post(QUOTAS, &quota("q", hard)).await.ok();
    for server in [&first, &second] {
        seen(server, QUOTAS).await;
    }
    let maps = "/api/v1/namespaces/default/configmaps";
    let attempts = (0..30).map(|n| {
        let admin = [&first.admin, &second.admin][n % 2].clone();
        async move {
            let map = json!({"apiVersion": "v1", "kind": "ConfigMap",
                "metadata": {"name": format!("m{n}")}});
            admin.post(maps, &map).await
        }
    });
    let answers = futures::future::join_all(attempts).await;
    let created = answers.iter().filter(|answer| answer.code == 201).count();
    assert_eq!(created, LIMIT);
    for answer in answers.iter().filter(|answer| answer.code != 201) {
        let (code, _, message) = answer.refused();
        assert!(
            code == 403 && message.contains("exceeded quota"),
            "{code}: {message}"
        );
    }
    let shown = second.admin.get(&format!("{QUOTAS}/q")).await.ok();
    assert_eq!(shown["status"]["used"]["configmaps"], LIMIT.to_string());
}
