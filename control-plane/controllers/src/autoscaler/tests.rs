//! An autoscaler on the recording API.

use super::*;
use crate::runtime::fake::{FakeApi, settle};
use hull_client::events::Record;
use k8s_openapi::api::apps::v1::Deployment;
use serde_json::{Value, json};
use tokio::sync::mpsc::Receiver;

struct Shop {
    api: Arc<FakeApi>,
    controller: Arc<HorizontalPodAutoscalerController>,
    events: Receiver<Record>,
}

fn cpu(percent: i32) -> Value {
    json!([{"type": "Resource", "resource": {"name": "cpu",
        "target": {"type": "Utilization", "averageUtilization": percent}}}])
}

/// A Deployment of so many pods that ask for 1 CPU, with an autoscaler.
fn shop(replicas: usize, spec: Value) -> Shop {
    let api = FakeApi::new();
    let (recorder, events) = Recorder::channel();
    let controller = HorizontalPodAutoscalerController::new(
        api.clone(),
        recorder,
        Arc::default(),
        Arc::default(),
    );
    api.seed::<Deployment>(json!({"metadata": {"name": "web", "namespace": "shop"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "template": {}},
        "status": {"replicas": replicas}}));
    let mut full = json!({"maxReplicas": 10, "metrics": cpu(50),
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}});
    for (field, value) in spec.as_object().unwrap() {
        full[field] = value.clone();
    }
    api.seed::<HorizontalPodAutoscaler>(
        json!({"metadata": {"name": "web", "namespace": "shop"}, "spec": full}),
    );
    let shop = Shop {
        api,
        controller,
        events,
    };
    for number in 0..replicas {
        shop.pod(&format!("web-{number}"), true);
    }
    shop
}

impl Shop {
    fn pod(&self, name: &str, ready: bool) {
        let state = if ready { "True" } else { "False" };
        self.api.seed::<Pod>(json!({
            "metadata": {"name": name, "namespace": "shop", "labels": {"app": "web"}},
            "spec": {"containers": [
                {"name": "c", "resources": {"requests": {"cpu": "900m"}}},
                {"name": "side", "resources": {"requests": {"cpu": "100m"}}}]},
            "status": {"phase": "Running", "startTime": "2026-01-01T00:00:00Z", "conditions": [
                {"type": "Ready", "status": state, "lastTransitionTime": "2026-01-01T00:00:05Z"}]}
        }));
    }

    fn uses(&self, name: &str, cpu: &str, side: &str) {
        self.api.seed_dynamic(
            "pods.metrics.k8s.io",
            json!({
            "metadata": {"name": name, "namespace": "shop"},
            "timestamp": Timestamp::now().to_string(), "window": "10s",
            "containers": [{"name": "c", "usage": {"cpu": cpu, "memory": "100Mi"}},
                {"name": "side", "usage": {"cpu": side, "memory": "1Mi"}}]}),
        );
    }

    async fn sync(&self) {
        let c = &self.controller;
        c.queue.add(Key::new("shop", "web"));
        settle(&**c, || {
            self.api.pump(&c.pods);
            self.api.pump(&c.autoscalers);
        })
        .await;
    }

    fn replicas(&self) -> i32 {
        let found = self.api.all::<Deployment>();
        found[0].spec.as_ref().unwrap().replicas.unwrap()
    }

    fn status(&self) -> Status {
        self.api.all::<HorizontalPodAutoscaler>()[0]
            .status
            .clone()
            .unwrap()
    }

    /// `True ReadyForNewScale`
    fn condition(&self, kind: &str) -> String {
        let status = self.status();
        let conditions = status.conditions.unwrap();
        let found = conditions.iter().find(|own| own.type_ == kind).unwrap();
        format!("{} {}", found.status, found.reason.clone().unwrap())
    }

    fn events(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.events.try_recv().ok())
            .map(|record| format!("{}: {}", record.reason, record.message))
            .collect()
    }
}

#[tokio::test]
async fn scales_up_to_what_the_load_asks_for() {
    let mut shop = shop(2, json!({}));
    shop.uses("web-0", "1000m", "100m");
    shop.uses("web-1", "800m", "100m");
    shop.sync().await;
    assert_eq!(
        shop.replicas(),
        4,
        "100 % is used of 2 CPU, 50 % is aimed at"
    );
    assert_eq!(
        shop.events(),
        [
            "SuccessfulRescale: New size: 4; reason: cpu resource utilization (percentage of request) above target"
        ]
    );
    assert_eq!(shop.condition("AbleToScale"), "True SucceededRescale");
    assert_eq!(shop.condition("ScalingActive"), "True ValidMetricFound");
    assert_eq!(shop.condition("ScalingLimited"), "False DesiredWithinRange");
    let status = shop.status();
    assert_eq!(
        (status.current_replicas, status.desired_replicas),
        (Some(2), 4)
    );
    let metric = status
        .current_metrics
        .unwrap()
        .remove(0)
        .resource
        .unwrap()
        .current;
    assert_eq!(metric.average_utilization, Some(100));
    assert_eq!(metric.average_value.unwrap().0, "1");
    assert!(status.last_scale_time.is_some());
}

#[tokio::test]
async fn a_load_within_the_tolerance_changes_nothing() {
    let mut shop = shop(2, json!({}));
    for name in ["web-0", "web-1"] {
        shop.uses(name, "500m", "40m");
    }
    shop.sync().await;
    assert_eq!(shop.replicas(), 2);
    assert_eq!(shop.condition("AbleToScale"), "True ReadyForNewScale");
    assert!(shop.events().is_empty());
    let narrow = json!({"spec": {"behavior": {"scaleUp": {"tolerance": "50m"}}}});
    shop.api
        .change("horizontalpodautoscalers", &Key::new("shop", "web"), narrow);
    shop.sync().await;
    assert_eq!(shop.replicas(), 3, "8 % above is more than 5 %");
}

#[tokio::test]
async fn scaling_down_waits_and_bounds_are_kept() {
    let idle = shop(4, json!({"minReplicas": 2}));
    for number in 0..4 {
        idle.uses(&format!("web-{number}"), "10m", "0");
    }
    idle.sync().await;
    assert_eq!(idle.replicas(), 4);
    assert_eq!(idle.condition("AbleToScale"), "True ScaleDownStabilized");
    let at_once = json!({"spec": {"behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}}}});
    idle.api.change(
        "horizontalpodautoscalers",
        &Key::new("shop", "web"),
        at_once,
    );
    idle.sync().await;
    assert_eq!(idle.replicas(), 2);
    assert_eq!(idle.condition("ScalingLimited"), "True TooFewReplicas");

    let mut above = shop(12, json!({}));
    above.sync().await;
    assert_eq!(above.replicas(), 10);
    assert_eq!(
        above.events(),
        [
            "SuccessfulRescale: New size: 10; reason: Current number of replicas above Spec.MaxReplicas"
        ]
    );
}

#[tokio::test]
async fn a_container_and_an_average_value_can_be_aimed_at() {
    let metrics = json!([
        {"type": "ContainerResource", "containerResource": {"name": "cpu", "container": "side",
            "target": {"type": "Utilization", "averageUtilization": 100}}},
        {"type": "Resource", "resource": {"name": "memory",
            "target": {"type": "AverageValue", "averageValue": "50Mi"}}}]);
    let mut shop = shop(2, json!({"metrics": metrics}));
    for name in ["web-0", "web-1"] {
        shop.uses(name, "10m", "150m");
    }
    shop.sync().await;
    assert_eq!(
        shop.replicas(),
        5,
        "memory asks for more: 202 of 50 MiB, against 3 by the sidecar"
    );
    assert_eq!(
        shop.events(),
        ["SuccessfulRescale: New size: 5; reason: memory resource above target"]
    );
    let shown = shop.status().current_metrics.unwrap();
    let sidecar = shown[0].container_resource.clone().unwrap().current;
    assert_eq!(sidecar.average_utilization, Some(150));
    let memory = shown[1]
        .resource
        .clone()
        .unwrap()
        .current
        .average_value
        .unwrap();
    assert_eq!(memory.0, (101 << 20).to_string());
}

#[tokio::test]
async fn pods_that_are_not_measured_speak_against_the_change() {
    let up = shop(3, json!({}));
    up.uses("web-0", "800m", "0");
    up.sync().await;
    assert_eq!(
        up.replicas(),
        3,
        "80 % of one, and nothing of two, is below the aim"
    );
    up.uses("web-1", "900m", "0");
    up.uses("web-2", "900m", "0");
    up.pod("web-3", false);
    up.uses("web-3", "1", "0");
    up.sync().await;
    assert_eq!(
        up.replicas(),
        6,
        "260 % over four pods, the unready one unused"
    );
}

#[tokio::test]
async fn what_cannot_be_measured_is_said() {
    let mut shop = shop(1, json!({}));
    shop.sync().await;
    let problem = "failed to get cpu utilization: did not receive metrics for targeted pods (pods might be unready)";
    assert_eq!(
        shop.events(),
        [
            format!("FailedGetResourceMetric: {problem}"),
            format!(
                "FailedComputeMetricsReplicas: invalid metrics (1 invalid out of 1), first error is: {problem}"
            ),
        ]
    );
    assert_eq!(
        shop.condition("ScalingActive"),
        "False FailedGetResourceMetric"
    );
    assert_eq!(shop.condition("AbleToScale"), "True SucceededGetScale");

    shop.api.remove("deployments", &Key::new("shop", "web"));
    shop.sync().await;
    assert_eq!(shop.condition("AbleToScale"), "False FailedGetScale");
    assert!(shop.events()[0].starts_with("FailedGetScale: "));
}

#[tokio::test]
async fn a_target_without_replicas_is_left_alone() {
    let shop = shop(0, json!({}));
    shop.sync().await;
    assert_eq!(shop.replicas(), 0);
    assert_eq!(shop.condition("ScalingActive"), "False ScalingDisabled");
}

#[tokio::test]
async fn a_metric_that_fails_forbids_scaling_down_only() {
    let mut metrics = cpu(50);
    metrics
        .as_array_mut()
        .unwrap()
        .push(json!({"type": "Pods", "pods": {
        "metric": {"name": "requests"}, "target": {"type": "AverageValue", "averageValue": "1"}}}));
    let mut shop = shop(
        2,
        json!({"metrics": metrics,
        "behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}}}),
    );
    for name in ["web-0", "web-1"] {
        shop.uses(name, "10m", "0");
    }
    shop.sync().await;
    assert_eq!(shop.replicas(), 2);
    assert_eq!(shop.condition("ScalingActive"), "False FailedGetPodsMetric");
    for name in ["web-0", "web-1"] {
        shop.uses(name, "900m", "0");
    }
    shop.events();
    shop.sync().await;
    assert_eq!(shop.replicas(), 4);
}
