//! `/metrics/cadvisor`: the runtime's own metrics of its sandboxes and containers
//! (CRI ListMetricDescriptors and ListPodSandboxMetrics) as text.

use std::collections::BTreeMap;

use hull_cri_api::v1 as cri;

use super::exposition::Exposition;

/// The text. A metric without a descriptor, or whose labels are not as many as the descriptor
/// says, is left out.
pub fn metrics(descriptors: &[cri::MetricDescriptor], pods: &[cri::PodSandboxMetrics]) -> String {
    let mut found: BTreeMap<&str, Vec<&cri::Metric>> = BTreeMap::new();
    for pod in pods {
        let of_containers = pod.container_metrics.iter().flat_map(|c| &c.metrics);
        for metric in pod.metrics.iter().chain(of_containers) {
            found.entry(&metric.name).or_default().push(metric);
        }
    }
    let mut text = Exposition::default();
    for (name, metrics) in found {
        let Some(descriptor) = descriptors.iter().find(|d| d.name == name) else {
            continue;
        };
        let counter = cri::MetricType::Counter as i32;
        let is_counter = metrics.iter().all(|metric| metric.metric_type == counter);
        let kind = if is_counter { "counter" } else { "gauge" };
        text.metric(name, kind, &descriptor.help);
        for metric in metrics {
            if metric.label_values.len() != descriptor.label_keys.len() {
                continue;
            }
            let keys = descriptor.label_keys.iter().map(String::as_str);
            let values = metric.label_values.iter().map(String::as_str);
            let labels: Vec<(&str, &str)> = keys.zip(values).collect();
            let value = super::number(metric.value.as_ref()).unwrap_or(0);
            text.sample(name, &labels, value, metric.timestamp);
        }
    }
    text.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metric(name: &str, labels: &[&str], value: u64) -> cri::Metric {
        cri::Metric {
            name: name.into(),
            timestamp: 1_000_000,
            metric_type: cri::MetricType::Gauge as i32,
            label_values: labels.iter().map(|label| (*label).to_owned()).collect(),
            value: Some(cri::UInt64Value { value }),
        }
    }

    #[test]
    fn metrics_take_their_labels_from_the_descriptor() {
        let descriptor = cri::MetricDescriptor {
            name: "container_x".into(),
            help: "X.".into(),
            label_keys: vec!["pod".into(), "container".into()],
        };
        let pods = [cri::PodSandboxMetrics {
            pod_sandbox_id: "s".into(),
            metrics: vec![metric("container_x", &["p"], 1), metric("unknown", &[], 2)],
            container_metrics: vec![cri::ContainerMetrics {
                container_id: "c".into(),
                metrics: vec![metric("container_x", &["p", "c"], 3)],
            }],
        }];
        assert_eq!(
            metrics(&[descriptor], &pods),
            "# HELP container_x X.\n# TYPE container_x gauge\ncontainer_x{pod=\"p\",container=\"c\"} 3 1\n"
        );
    }
}
