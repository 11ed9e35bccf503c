use std::sync::Arc;

use hull_client::events::Recorder;
use k8s_openapi::api::{
    core::v1::{Endpoints, Node, Pod, Service},
    discovery::v1::EndpointSlice,
};
use serde_json::{Value, json};

use super::*;
use crate::runtime::{
    Key,
    fake::{FakeApi, refused, settle},
};

struct Bench {
    api: Arc<FakeApi>,
    slices: Arc<EndpointSliceController>,
    legacy: Arc<EndpointsController>,
    mirror: Arc<EndpointSliceMirroringController>,
}

fn bench() -> Bench {
    let api = FakeApi::new();
    let (recorder, _) = Recorder::channel();
    let none = Arc::default;
    let slices = EndpointSliceController::new(
        api.clone(),
        recorder.clone(),
        none(),
        Arc::default(),
        Arc::default(),
        Arc::default(),
    );
    let legacy = EndpointsController::new(
        api.clone(),
        recorder,
        slices.services.clone(),
        slices.pods.clone(),
        Arc::default(),
    );
    let mirror = EndpointSliceMirroringController::new(
        api.clone(),
        slices.services.clone(),
        legacy.endpoints.clone(),
        slices.slices.informer.clone(),
    );
    Bench {
        api,
        slices,
        legacy,
        mirror,
    }
}

impl Bench {
    fn pump(&self) {
        self.api.pump(&self.slices.nodes);
        self.api.pump(&self.slices.services);
        self.api.pump(&self.slices.pods);
        self.api.pump(&self.slices.slices.informer);
        self.api.pump(&self.legacy.endpoints);
    }

    async fn settle(&self) {
        settle(&*self.slices, || self.pump()).await;
        settle(&*self.legacy, || self.pump()).await;
        settle(&*self.mirror, || self.pump()).await;
    }

    fn service(&self, spec: Value) {
        self.api.seed::<Service>(json!({
            "metadata": {"name": "web", "namespace": "shop", "labels": {"team": "a"}}, "spec": spec
        }));
    }

    fn pod(&self, name: &str, ip: &str, ready: bool) {
        let ready = if ready { "True" } else { "False" };
        self.api.seed::<Pod>(json!({
            "metadata": {"name": name, "namespace": "shop", "labels": {"app": "web"}},
            "spec": {
                "nodeName": "n1",
                "containers": [{"name": "c", "ports": [{"name": "http", "containerPort": 8080}]}]
            },
            "status": {
                "phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
                "conditions": [{"type": "Ready", "status": ready}]
            }
        }));
    }

    fn all(&self) -> Vec<EndpointSlice> {
        self.api.all()
    }
}

fn selecting() -> Value {
    json!({
        "selector": {"app": "web"}, "clusterIP": "10.96.0.7", "ipFamilies": ["IPv4"],
        "ports": [{"name": "web", "port": 80, "targetPort": "http", "protocol": "TCP"}]
    })
}

#[tokio::test]
async fn slices_hold_the_pods_with_ports_node_and_zone() {
    let bench = bench();
    bench.api.seed::<Node>(json!({
        "metadata": {"name": "n1", "labels": {"topology.kubernetes.io/zone": "z1"}}
    }));
    bench.service(selecting());
    bench.pod("a", "10.0.0.1", true);
    bench.pod("b", "10.0.0.2", false);
    bench.pod("without-address", "", true);
    bench.api.change(
        "pods",
        &Key::new("shop", "without-address"),
        json!({"status": {"podIP": null, "podIPs": null}}),
    );
    bench.settle().await;
    let slices = bench.all();
    assert_eq!(slices.len(), 1);
    let slice = &slices[0];
    let labels = slice.metadata.labels.as_ref().unwrap();
    assert_eq!(labels["kubernetes.io/service-name"], "web");
    assert_eq!(
        labels["endpointslice.kubernetes.io/managed-by"],
        "endpointslice-controller.k8s.io"
    );
    assert_eq!(labels["team"], "a");
    assert_eq!(slice.address_type, "IPv4");
    let port = &slice.ports.as_ref().unwrap()[0];
    assert_eq!((port.name.as_deref(), port.port), (Some("web"), Some(8080)));
    let endpoints = slice.endpoints.as_ref().unwrap();
    let ready: Vec<_> = endpoints
        .iter()
        .map(|endpoint| {
            let conditions = endpoint.conditions.as_ref().unwrap();
            (endpoint.addresses[0].as_str(), conditions.ready.unwrap())
        })
        .collect();
    assert_eq!(ready, [("10.0.0.1", true), ("10.0.0.2", false)]);
    assert_eq!(endpoints[0].zone.as_deref(), Some("z1"));
    assert_eq!(endpoints[0].node_name.as_deref(), Some("n1"));
}

#[tokio::test]
async fn the_older_form_sorts_addresses_by_readiness() {
    let bench = bench();
    bench.service(selecting());
    bench.pod("a", "10.0.0.1", true);
    bench.pod("b", "10.0.0.2", false);
    bench.settle().await;
    let endpoints: Endpoints = bench.api.all().pop().unwrap();
    let subsets = endpoints.subsets.unwrap();
    assert_eq!(subsets.len(), 1);
    assert_eq!(subsets[0].addresses.as_ref().unwrap()[0].ip, "10.0.0.1");
    let waiting = subsets[0].not_ready_addresses.as_ref().unwrap();
    assert_eq!(waiting[0].ip, "10.0.0.2");
    assert_eq!(subsets[0].ports.as_ref().unwrap()[0].port, 8080);
}

#[tokio::test]
async fn terminating_pods_serve_but_are_not_ready() {
    let bench = bench();
    bench.service(selecting());
    bench.pod("a", "10.0.0.1", true);
    bench.settle().await;
    bench.api.change(
        "pods",
        &Key::new("shop", "a"),
        json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}),
    );
    bench.settle().await;
    let endpoints = bench.all()[0].endpoints.clone().unwrap();
    let conditions = endpoints[0].conditions.clone().unwrap();
    assert_eq!(
        (conditions.ready, conditions.serving, conditions.terminating),
        (Some(false), Some(true), Some(true))
    );
    let legacy: Endpoints = bench.api.all().pop().unwrap();
    assert_eq!(legacy.subsets, None);
    bench.api.remove("pods", &Key::new("shop", "a"));
    bench.settle().await;
    let slices = bench.all();
    assert_eq!(slices.len(), 1, "one slice stays, empty");
    assert_eq!(slices[0].endpoints.clone().unwrap_or_default(), []);
}

#[tokio::test]
async fn headless_services_name_their_pods_and_may_publish_them_early() {
    let bench = bench();
    let mut spec = selecting();
    spec["clusterIP"] = "None".into();
    spec["publishNotReadyAddresses"] = true.into();
    bench.service(spec);
    bench.pod("a", "10.0.0.1", false);
    bench.api.change(
        "pods",
        &Key::new("shop", "a"),
        json!({"spec": {"hostname": "db-0", "subdomain": "web"}}),
    );
    bench.settle().await;
    let slice = bench.all().pop().unwrap();
    assert!(
        slice
            .metadata
            .labels
            .unwrap()
            .contains_key("service.kubernetes.io/headless")
    );
    let endpoint = slice.endpoints.unwrap().pop().unwrap();
    assert_eq!(endpoint.hostname.as_deref(), Some("db-0"));
    assert_eq!(endpoint.conditions.unwrap().ready, Some(true));
}

#[tokio::test]
async fn does_not_create_again_what_the_informer_does_not_show_yet() {
    let bench = bench();
    bench.service(selecting());
    bench.pod("a", "10.0.0.1", true);
    bench.pump();
    let key = Key::new("shop", "web");
    use crate::runtime::Controller;
    bench.slices.reconcile(&key).await.unwrap();
    assert!(bench.slices.reconcile(&key).await.is_err(), "waits");
    assert_eq!(bench.all().len(), 1);
    bench.settle().await;
    assert_eq!(bench.all().len(), 1);
}

#[tokio::test]
async fn a_conflict_is_tried_again_and_nothing_foreign_is_touched() {
    let bench = bench();
    bench.service(selecting());
    bench.pod("a", "10.0.0.1", true);
    bench.api.seed::<EndpointSlice>(json!({
        "metadata": {
            "name": "mine", "namespace": "shop", "labels": {"kubernetes.io/service-name": "web"}
        },
        "addressType": "IPv4", "endpoints": []
    }));
    bench.settle().await;
    bench.api.fail(
        "replace endpointslices",
        refused(409, "Conflict", "changed"),
    );
    bench.pod("b", "10.0.0.2", true);
    bench.settle().await;
    let slices = bench.all();
    assert_eq!(slices.len(), 2);
    let ours = slices
        .iter()
        .find(|slice| slice.metadata.name.as_deref() != Some("mine"))
        .unwrap();
    assert_eq!(ours.endpoints.as_ref().unwrap().len(), 2);
}

#[tokio::test]
async fn endpoints_written_by_hand_are_mirrored_and_follow() {
    let bench = bench();
    bench.service(json!({"clusterIP": "10.96.0.7", "ports": [{"port": 80}]}));
    bench.api.seed::<Endpoints>(json!({
        "metadata": {"name": "web", "namespace": "shop"},
        "subsets": [{"addresses": [{"ip": "192.0.2.1"}], "ports": [{"port": 80}]}]
    }));
    bench.settle().await;
    let slices = bench.all();
    assert_eq!(slices.len(), 1);
    assert_eq!(
        slices[0].metadata.labels.as_ref().unwrap()["endpointslice.kubernetes.io/managed-by"],
        "endpointslicemirroring-controller.k8s.io"
    );
    let address = slices[0].endpoints.as_ref().unwrap()[0].addresses[0].clone();
    assert_eq!(address, "192.0.2.1");
    bench.api.remove("endpoints", &Key::new("shop", "web"));
    bench.settle().await;
    assert!(bench.all().is_empty());
}
