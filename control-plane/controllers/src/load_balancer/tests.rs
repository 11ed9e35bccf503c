//! Addresses from the pool, on the recording API.

use super::*;
use crate::runtime::fake::{FakeApi, settle};
use hull_client::events::Record;
use serde_json::Value;
use tokio::sync::mpsc::Receiver;

struct Shop {
    api: Arc<FakeApi>,
    controller: Arc<LoadBalancerController>,
    events: Receiver<Record>,
}

fn shop(pool: &[&str]) -> Shop {
    let api = FakeApi::new();
    let (recorder, events) = Recorder::channel();
    let pool = pool.iter().map(|text| text.parse().unwrap()).collect();
    let controller = LoadBalancerController::new(api.clone(), recorder, pool, Arc::default());
    Shop {
        api,
        controller,
        events,
    }
}

impl Shop {
    fn service(&self, name: &str, spec: Value) {
        let mut full = json!({"type": "LoadBalancer", "ipFamilies": ["IPv4"]});
        for (field, value) in spec.as_object().unwrap() {
            full[field] = value.clone();
        }
        self.api.seed::<Service>(
            json!({"metadata": {"name": name, "namespace": "shop"}, "spec": full}),
        );
    }

    async fn settle(&self) {
        settle(&*self.controller, || {
            self.api.pump(&self.controller.services)
        })
        .await;
    }

    fn addresses(&self, name: &str) -> Vec<String> {
        let services = self.api.all::<Service>();
        let named = |service: &&Service| service.metadata.name.as_deref() == Some(name);
        let service = services.iter().find(named).unwrap();
        addresses(service).iter().map(IpAddr::to_string).collect()
    }
}

#[tokio::test]
async fn each_service_gets_its_own_address_of_each_family() {
    let shop = shop(&["192.0.2.8-192.0.2.9", "fd00::/126"]);
    shop.service("a", json!({}));
    shop.service("b", json!({"ipFamilies": ["IPv6", "IPv4"]}));
    shop.service("other", json!({"loadBalancerClass": "example.com/lb"}));
    shop.service("plain", json!({"type": "ClusterIP"}));
    shop.settle().await;
    let (a, b) = (shop.addresses("a"), shop.addresses("b"));
    assert_eq!(a.len(), 1);
    assert_eq!(b[0], "fd00::");
    let mut all = vec![a[0].clone(), b[1].clone()];
    all.sort();
    assert_eq!(all, ["192.0.2.8", "192.0.2.9"]);
    assert!(shop.addresses("other").is_empty() && shop.addresses("plain").is_empty());
    shop.api.take_requests();
    shop.controller.queue.add(Key::new("shop", "a"));
    shop.settle().await;
    assert!(
        shop.api.take_requests().is_empty(),
        "nothing is written in vain"
    );
}

#[tokio::test]
async fn an_address_is_asked_for_kept_and_given_back() {
    let mut shop = shop(&["192.0.2.0/30"]);
    shop.service("a", json!({"loadBalancerIP": "192.0.2.2"}));
    shop.settle().await;
    assert_eq!(shop.addresses("a"), ["192.0.2.2"]);
    shop.service("b", json!({"loadBalancerIP": "192.0.2.2"}));
    shop.service("c", json!({"loadBalancerIP": "198.51.100.1"}));
    shop.settle().await;
    assert!(shop.addresses("b").is_empty());
    let said: Vec<String> = std::iter::from_fn(|| shop.events.try_recv().ok())
        .map(|record| record.message)
        .collect();
    let start = "Error syncing load balancer: failed to ensure load balancer: ";
    for problem in ["192.0.2.2 is in use", "198.51.100.1 is not in the pool"] {
        assert!(said.contains(&format!("{start}{problem}")), "{said:?}");
    }
    let plain = json!({"spec": {"type": "ClusterIP"}});
    shop.api.change("services", &Key::new("shop", "a"), plain);
    shop.settle().await;
    assert!(shop.addresses("a").is_empty());
    assert_eq!(shop.addresses("b"), ["192.0.2.2"]);
}

#[tokio::test]
async fn an_empty_pool_is_said_and_a_deleted_service_makes_room() {
    let mut shop = shop(&["192.0.2.1"]);
    shop.service("a", json!({}));
    shop.settle().await;
    shop.service("b", json!({}));
    shop.settle().await;
    assert!(shop.addresses("b").is_empty());
    let said: Vec<String> = std::iter::from_fn(|| shop.events.try_recv().ok())
        .map(|record| format!("{}: {}", record.reason, record.message))
        .collect();
    assert_eq!(
        said,
        [
            "EnsuredLoadBalancer: Ensured load balancer",
            "SyncLoadBalancerFailed: Error syncing load balancer: failed to ensure load balancer: no IPv4 address is left in the pool",
        ]
    );
    shop.api.remove("services", &Key::new("shop", "a"));
    shop.settle().await;
    assert_eq!(shop.addresses("b"), ["192.0.2.1"]);
}
