//! What sandboxes and containers use.

use hull_cri_api::v1 as cri;

use super::client::{Cri, CriError};

impl Cri {
    /// ListPodSandboxStats of every sandbox.
    pub async fn list_pod_stats(&self) -> Result<Vec<cri::PodSandboxStats>, CriError> {
        let mut client = self.runtime.clone();
        let timeout = self.timings.runtime_timeout;
        let request = cri::ListPodSandboxStatsRequest { filter: None };
        let call = client.list_pod_sandbox_stats(request);
        Ok(self.call("ListPodSandboxStats", timeout, call).await?.stats)
    }

    /// ListMetricDescriptors.
    pub async fn metric_descriptors(&self) -> Result<Vec<cri::MetricDescriptor>, CriError> {
        let mut client = self.runtime.clone();
        let timeout = self.timings.runtime_timeout;
        let call = client.list_metric_descriptors(cri::ListMetricDescriptorsRequest {});
        Ok(self
            .call("ListMetricDescriptors", timeout, call)
            .await?
            .descriptors)
    }

    /// ListPodSandboxMetrics.
    pub async fn pod_metrics(&self) -> Result<Vec<cri::PodSandboxMetrics>, CriError> {
        let mut client = self.runtime.clone();
        let timeout = self.timings.runtime_timeout;
        let call = client.list_pod_sandbox_metrics(cri::ListPodSandboxMetricsRequest {});
        Ok(self
            .call("ListPodSandboxMetrics", timeout, call)
            .await?
            .pod_metrics)
    }
}
