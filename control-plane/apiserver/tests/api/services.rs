//! Addresses and node ports of services.

use std::collections::HashSet;

use serde_json::{Value, json};

use crate::harness::{ApiClient, TestServer};

const SERVICES: &str = "/api/v1/namespaces/default/services";
const ADDRESSES: &str = "/apis/networking.k8s.io/v1/ipaddresses";

fn service(name: &str, spec: Value) -> Value {
    let mut object = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"selector": {"app": name}, "ports": [{"port": 80}]}});
    for (key, value) in spec.as_object().unwrap() {
        object["spec"][key] = value.clone();
    }
    object
}

async fn create(client: &ApiClient, name: &str, spec: Value) -> Value {
    client.post(SERVICES, &service(name, spec)).await.ok()
}

async fn refused(client: &ApiClient, name: &str, spec: Value) -> String {
    let (code, _, message) = client.post(SERVICES, &service(name, spec)).await.refused();
    assert_eq!(code, 422, "{message}");
    message
}

#[tokio::test(flavor = "multi_thread")]
async fn services_get_what_their_type_asks_for() {
    let server = TestServer::start().await;
    let client = &server.admin;
    let plain = create(client, "plain", json!({})).await;
    let address = plain["spec"]["clusterIP"].as_str().unwrap();
    assert!(address.starts_with("10.43."), "{address}");
    assert_eq!(plain["spec"]["clusterIPs"], json!([address]));
    assert_eq!(plain["spec"]["ipFamilies"], json!(["IPv4"]));
    assert_eq!(plain["spec"]["ports"][0]["targetPort"], 80);
    let held = client.get(&format!("{ADDRESSES}/{address}")).await.ok();
    assert_eq!(held["spec"]["parentRef"]["name"], "plain");

    let headless = create(client, "headless", json!({"clusterIP": "None"})).await;
    assert_eq!(headless["spec"]["clusterIPs"], json!(["None"]));

    let outside = json!({"type": "ExternalName", "externalName": "example.com", "ports": []});
    let outside = create(client, "outside", outside).await;
    assert!(outside["spec"].get("clusterIP").is_none());

    let node = create(client, "node", json!({"type": "NodePort"})).await;
    let port = node["spec"]["ports"][0]["nodePort"].as_i64().unwrap();
    assert!((30_000..=32_767).contains(&port), "{port}");
    let two = json!({"type": "NodePort", "ports": [
        {"name": "t", "port": 53, "protocol": "TCP"},
        {"name": "u", "port": 53, "protocol": "UDP"},
    ]});
    let two = create(client, "two", two).await;
    assert_eq!(
        two["spec"]["ports"][0]["nodePort"],
        two["spec"]["ports"][1]["nodePort"]
    );

    let local = json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local"});
    let local = create(client, "local", local).await;
    assert!(local["spec"]["healthCheckNodePort"].as_i64().unwrap() >= 30_000);

    let own = client.get(&format!("{SERVICES}/kubernetes")).await.ok();
    assert_eq!(own["spec"]["clusterIP"], "10.43.0.1");
    let slice = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes";
    let slice = client.get(slice).await.ok();
    assert_eq!(slice["endpoints"][0]["addresses"], json!(["127.0.0.1"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_taken_or_outside_is_refused_and_free_again_after_a_delete() {
    let server = TestServer::start().await;
    let client = &server.admin;
    let fixed = || json!({"clusterIP": "10.43.0.99", "type": "NodePort", "ports": [{"port": 80, "nodePort": 30_080}]});
    create(client, "first", fixed()).await;
    assert_eq!(
        refused(client, "second", fixed()).await,
        "Service \"second\" is invalid: spec.clusterIPs: Invalid value: [\"10.43.0.99\"]: failed to allocate IP 10.43.0.99: provided IP is already allocated"
    );
    let port = json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30_080}]});
    assert_eq!(
        refused(client, "second", port).await,
        "Service \"second\" is invalid: spec.ports[0].nodePort: Invalid value: 30080: provided port is already allocated"
    );
    for (spec, words) in [
        (
            json!({"clusterIP": "192.168.1.1"}),
            "The range of valid IPs is 10.43.0.0/16",
        ),
        (
            json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 80}]}),
            "The range of valid ports is 30000-32767",
        ),
        (json!({"ports": []}), "spec.ports: Required value"),
        (
            json!({"ports": [{"port": 80, "nodePort": 30_081}]}),
            "spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'",
        ),
        (
            json!({"ipFamilyPolicy": "RequireDualStack"}),
            "this cluster is not configured for dual-stack services",
        ),
    ] {
        let message = refused(client, "other", spec).await;
        assert!(message.contains(words), "{message}");
    }
    client
        .delete(&format!("{SERVICES}/first"), &json!({}))
        .await
        .ok();
    create(client, "second", fixed()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn updates_keep_and_release_what_was_given() {
    let server = TestServer::start().await;
    let client = &server.admin;
    let created = create(client, "web", json!({"type": "NodePort"})).await;
    let path = format!("{SERVICES}/web");
    // A client that sends only what it wrote itself.
    let again = client
        .put(&path, &service("web", json!({"type": "NodePort"})))
        .await
        .ok();
    assert_eq!(again["spec"], created["spec"]);
    let mut moved = created.clone();
    moved["spec"]["clusterIP"] = json!("10.43.0.77");
    moved["spec"]["clusterIPs"] = json!(["10.43.0.77"]);
    let (code, _, message) = client.put(&path, &moved).await.refused();
    assert_eq!(code, 422);
    assert!(message.contains("may not change once set"), "{message}");
    let inside = json!({"spec": {"type": "ClusterIP"}});
    let inside = client.patch(&path, "merge-patch", &inside).await.ok();
    assert!(inside["spec"]["ports"][0].get("nodePort").is_none());
    assert!(inside["spec"].get("externalTrafficPolicy").is_none());
    let port = created["spec"]["ports"][0]["nodePort"].clone();
    let taken = json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": port}]});
    create(client, "other", taken).await;
    let outside = json!({"spec": {"type": "ExternalName", "externalName": "example.com"}});
    let outside = client.patch(&path, "merge-patch", &outside).await.ok();
    assert!(outside["spec"].get("clusterIPs").is_none(), "{outside}");
    let address = created["spec"]["clusterIP"].as_str().unwrap();
    assert_eq!(
        client.get(&format!("{ADDRESSES}/{address}")).await.code,
        404
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn no_address_is_given_twice_however_many_ask_at_once() {
    const COUNT: usize = 48;
    let server = TestServer::start().await;
    let asks = (0..COUNT).map(|n| {
        let client = server.admin.clone();
        async move { create(&client, &format!("s{n}"), json!({"type": "NodePort"})).await }
    });
    let created = futures::future::join_all(asks).await;
    let distinct = |pointer: &str| {
        let values: HashSet<String> = created
            .iter()
            .map(|service| service.pointer(pointer).unwrap().to_string())
            .collect();
        values.len()
    };
    assert_eq!(distinct("/spec/clusterIP"), COUNT);
    assert_eq!(distinct("/spec/ports/0/nodePort"), COUNT);
    let held = server.admin.get(ADDRESSES).await.ok();
    // Those of the services, and of `kubernetes`.
    assert_eq!(held["items"].as_array().unwrap().len(), COUNT + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_and_ports_are_exact_across_servers_on_one_store() {
    let first = TestServer::start().await;
    let second = first.sibling().await;
    let attempts = (0..24).map(|n| {
        let client = [&first.admin, &second.admin][n % 2].clone();
        async move {
            // Every two ask for the same port, every one for some address.
            let port = 31_000 + n / 2;
            let spec = json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": port}]});
            client
                .post(SERVICES, &service(&format!("s{n}"), spec))
                .await
        }
    });
    let answers = futures::future::join_all(attempts).await;
    let (mut addresses, mut ports) = (HashSet::new(), HashSet::new());
    for answer in &answers {
        if answer.code == 201 {
            let made = answer.json();
            let address = made["spec"]["clusterIP"].as_str().unwrap().to_string();
            assert!(addresses.insert(address), "an address twice");
            let port = made["spec"]["ports"][0]["nodePort"].as_u64().unwrap();
            assert!(ports.insert(port), "a port twice");
        } else {
            let (code, _, message) = answer.refused();
            assert_eq!(code, 422, "{message}");
            assert!(
                message.contains("provided port is already allocated"),
                "{message}"
            );
        }
    }
    assert_eq!(ports.len(), 12, "one of every two has it");
}
