use super::*;
use serde_json::{Value, json};

fn zone() -> Zone {
    let networks = ["10.42.0.0/16", "10.43.0.0/16", "fd43::/108"];
    let mut zone = Zone::new(
        "Cluster.Local.",
        networks.map(|n| n.parse().unwrap()).to_vec(),
    );
    let mut service = |name: &str, spec: Value| {
        let service = json!({"metadata": {"namespace": "a", "name": name}, "spec": spec});
        zone.apply_service(Arc::new(serde_json::from_value(service).unwrap()));
    };
    service(
        "web",
        json!({"clusterIP": "10.43.0.5", "clusterIPs": ["10.43.0.5", "fd43::5"],
        "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]}),
    );
    service(
        "db",
        json!({"clusterIP": "None", "clusterIPs": ["None"],
        "ports": [{"name": "sql", "port": 5432}]}),
    );
    service(
        "out",
        json!({"type": "ExternalName", "externalName": "Example.org."}),
    );
    zone.apply_slice(Arc::new(serde_json::from_value(json!({
        "metadata": {"namespace": "a", "name": "db-1", "labels": {"kubernetes.io/service-name": "db"}},
        "addressType": "IPv4", "ports": [{"name": "sql", "port": 5432, "protocol": "TCP"}],
        "endpoints": [
            {"addresses": ["10.42.0.5"], "hostname": "db-0", "conditions": {"ready": true}},
            {"addresses": ["10.42.0.6"]},
            {"addresses": ["10.42.0.7"], "conditions": {"ready": false}},
        ],
    })).unwrap()));
    zone
}

fn ask(zone: &Zone, name: &str, want: Want) -> Answer {
    let labels: Vec<String> = name.split('.').map(str::to_string).collect();
    zone.answer(&labels, want)
}

fn ips(texts: &[&str]) -> Answer {
    let data = texts.iter().map(|ip| Data::Address(ip.parse().unwrap()));
    Answer::Records(data.collect())
}

#[test]
fn services_have_their_addresses_by_family() {
    let zone = zone();
    let name = "web.a.svc.cluster.local";
    assert_eq!(ask(&zone, name, Want::A), ips(&["10.43.0.5"]));
    assert_eq!(ask(&zone, name, Want::Aaaa), ips(&["fd43::5"]));
    assert_eq!(
        ask(&zone, name, Want::Txt),
        ips(&[]),
        "exists, without text"
    );
    assert_eq!(
        ask(&zone, "nope.a.svc.cluster.local", Want::A),
        Answer::NoName
    );
    assert_eq!(
        ask(&zone, "x.web.a.svc.cluster.local", Want::A),
        Answer::NoName
    );
}

#[test]
fn headless_services_are_their_ready_endpoints() {
    let zone = zone();
    assert_eq!(
        ask(&zone, "db.a.svc.cluster.local", Want::A),
        ips(&["10.42.0.5", "10.42.0.6"])
    );
    assert_eq!(ask(&zone, "db.a.svc.cluster.local", Want::Aaaa), ips(&[]));
    assert_eq!(
        ask(&zone, "db-0.db.a.svc.cluster.local", Want::A),
        ips(&["10.42.0.5"])
    );
    assert_eq!(
        ask(&zone, "10-42-0-6.db.a.svc.cluster.local", Want::A),
        ips(&["10.42.0.6"])
    );
    assert_eq!(
        ask(&zone, "10-42-0-7.db.a.svc.cluster.local", Want::A),
        Answer::NoName
    );
}

#[test]
fn ports_are_found_by_name_and_protocol() {
    let zone = zone();
    let srv = |port, target: &str, ip: &[&str]| Data::Srv {
        port,
        target: target.into(),
        addresses: ip.iter().map(|ip| ip.parse().unwrap()).collect(),
    };
    assert_eq!(
        ask(&zone, "_http._tcp.web.a.svc.cluster.local", Want::Srv),
        Answer::Records(vec![srv(
            80,
            "web.a.svc.cluster.local",
            &["10.43.0.5", "fd43::5"]
        )])
    );
    assert_eq!(
        ask(&zone, "_sql._tcp.db.a.svc.cluster.local", Want::Srv),
        Answer::Records(vec![
            srv(5432, "db-0.db.a.svc.cluster.local", &["10.42.0.5"]),
            srv(5432, "10-42-0-6.db.a.svc.cluster.local", &["10.42.0.6"]),
        ])
    );
    assert_eq!(
        ask(&zone, "_http._udp.web.a.svc.cluster.local", Want::Srv),
        Answer::NoName
    );
}

#[test]
fn external_names_are_aliases() {
    let found = ask(&zone(), "out.a.svc.cluster.local", Want::A);
    assert_eq!(
        found,
        Answer::Records(vec![Data::Cname("example.org".into())])
    );
}

#[test]
fn pods_are_found_by_address_inside_the_clusters_networks() {
    let zone = zone();
    assert_eq!(
        ask(&zone, "10-42-7-9.a.pod.cluster.local", Want::A),
        ips(&["10.42.7.9"])
    );
    assert_eq!(
        ask(&zone, "192-0-2-9.a.pod.cluster.local", Want::A),
        Answer::NoName
    );
    assert_eq!(
        ask(&zone, "nonsense.a.pod.cluster.local", Want::A),
        Answer::NoName
    );
}

#[test]
fn addresses_have_names() {
    let zone = zone();
    let ptr = |name: &str| Answer::Records(vec![Data::Ptr(name.into())]);
    assert_eq!(
        ask(&zone, "5.0.43.10.in-addr.arpa", Want::Ptr),
        ptr("web.a.svc.cluster.local")
    );
    assert_eq!(
        ask(&zone, "5.0.42.10.in-addr.arpa", Want::Ptr),
        ptr("db-0.db.a.svc.cluster.local")
    );
    let six = format!("5.{}3.4.d.f.ip6.arpa", "0.".repeat(27));
    assert_eq!(ask(&zone, &six, Want::Ptr), ptr("web.a.svc.cluster.local"));
    assert_eq!(
        ask(&zone, "9.9.43.10.in-addr.arpa", Want::Ptr),
        Answer::NoName
    );
    assert_eq!(
        ask(&zone, "8.8.8.8.in-addr.arpa", Want::Ptr),
        Answer::NotOurs
    );
}

#[test]
fn other_names_are_not_ours_and_empty_ones_exist() {
    let zone = zone();
    assert_eq!(ask(&zone, "example.org", Want::A), Answer::NotOurs);
    for name in ["cluster.local", "svc.cluster.local", "a.svc.cluster.local"] {
        assert_eq!(ask(&zone, name, Want::A), ips(&[]), "{name}");
    }
    assert_eq!(ask(&zone, "b.svc.cluster.local", Want::A), Answer::NoName);
    let version = ask(&zone, "dns-version.cluster.local", Want::Txt);
    assert_eq!(version, Answer::Records(vec![Data::Text("1.1.0")]));
}

#[test]
fn what_went_is_forgotten() {
    let mut zone = zone();
    zone.remove_slice("a", "db-1");
    assert_eq!(ask(&zone, "db.a.svc.cluster.local", Want::A), ips(&[]));
    assert_eq!(
        ask(&zone, "5.0.42.10.in-addr.arpa", Want::Ptr),
        Answer::NoName
    );
    for name in ["web", "db", "out"] {
        zone.remove_service(&ServiceKey {
            namespace: "a".into(),
            name: name.into(),
        });
    }
    assert_eq!(
        ask(&zone, "web.a.svc.cluster.local", Want::A),
        Answer::NoName
    );
    assert!(zone.by_address.is_empty() && zone.namespaces.is_empty());
}
