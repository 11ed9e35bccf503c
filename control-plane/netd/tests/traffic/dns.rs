//! Cluster DNS on the node's own service interface, asked by pods.

use std::net::UdpSocket;
use std::sync::Arc;
use std::time::Duration;

use hull_netd::dns::forward::Forwarder;
use hull_netd::dns::metrics::DnsMetrics;
use hull_netd::dns::server::{Resolver, run};
use hull_netd::dns::zone::Zone;
use hull_netd::service_link;
use parking_lot::RwLock;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::world::{PATIENCE, World};

/// `web.a.svc.cluster.local` A.
fn query() -> Vec<u8> {
    let mut message = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in "web.a.svc.cluster.local".split('.') {
        message.push(label.len() as u8);
        message.extend(label.as_bytes());
    }
    message.extend([0, 0, 1, 0, 1]);
    message
}

fn ask() -> Option<Vec<u8>> {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut buffer = [0; 512];
    // The server may not listen yet.
    for _ in 0..20 {
        socket.send_to(&query(), "10.43.0.10:53").unwrap();
        match socket.recv(&mut buffer) {
            Ok(length) => return Some(buffer[..length].to_vec()),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
    None
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_and_the_node_ask_the_cluster_dns_address() {
    let mut world = World::new(false);
    world.sync().await;
    let mut zone = Zone::new("cluster.local", Vec::new());
    let service =
        json!({"metadata": {"namespace": "a", "name": "web"}, "spec": {"clusterIP": "10.43.0.5"}});
    zone.apply_service(Arc::new(serde_json::from_value(service).unwrap()));
    let forwarder = Forwarder::new([], Vec::new(), 1.0);
    let zone = Arc::new(RwLock::new(zone));
    let resolver = Arc::new(Resolver::new(zone, forwarder, DnsMetrics::default()));
    let stop = CancellationToken::new();
    let node = world.spawn("n", {
        let stop = stop.clone();
        move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let own = ["10.43.0.10".parse().unwrap()];
                let networks = ["10.43.0.0/16".parse().unwrap()];
                let node_ips = ["192.0.2.1".parse().unwrap()];
                // Twice: what is there already stays.
                for _ in 0..2 {
                    let made = service_link::ensure(&own, &networks, &node_ips).await;
                    made.unwrap();
                }
                run("10.43.0.10:53".parse().unwrap(), resolver, stop).await;
            });
        }
    });
    for from in ["p1", "n", "c"] {
        let answer = world.inside(from, ask);
        assert!(answer.unwrap().ends_with(&[10, 43, 0, 5]), "{from}");
    }
    stop.cancel();
    node.join().unwrap();
}
