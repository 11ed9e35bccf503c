//! What runs: every pod in short, and one pod in full.

use std::collections::{HashMap, HashSet};

use hull_cri_api::v1 as cri;

use super::client::{Cri, CriError};
use super::labels;
use super::observed::{ObservedContainer, ObservedPod, ObservedSandbox, PodSummary};

impl Cri {
    /// ListContainers: every container that runs.
    pub async fn running_containers(&self) -> Result<Vec<cri::Container>, CriError> {
        let mut client = self.runtime.clone();
        let timeout = self.timings.runtime_timeout;
        let state = cri::ContainerStateValue {
            state: cri::ContainerState::ContainerRunning as i32,
        };
        let filter = cri::ContainerFilter {
            state: Some(state),
            ..Default::default()
        };
        let request = cri::ListContainersRequest {
            filter: Some(filter),
        };
        let call = client.list_containers(request);
        Ok(self.call("ListContainers", timeout, call).await?.containers)
    }

    /// The images of every container, running or not, by each name the runtime gives them.
    pub async fn used_images(&self) -> Result<HashSet<String>, CriError> {
        let mut client = self.runtime.clone();
        let timeout = self.timings.runtime_timeout;
        let call = client.list_containers(cri::ListContainersRequest { filter: None });
        let listed = self.call("ListContainers", timeout, call).await?;
        let mut used = HashSet::new();
        for container in listed.containers {
            used.extend([container.image_ref, container.image_id]);
            if let Some(image) = container.image {
                used.extend([image.image, image.user_specified_image]);
            }
        }
        used.remove("");
        Ok(used)
    }

    /// Every pod the runtime knows, by UID.
    pub async fn list_pods(&self) -> Result<HashMap<String, PodSummary>, CriError> {
        let mut client = self.runtime.clone();
        let timeout = self.timings.runtime_timeout;
        let sandboxes = self
            .call(
                "ListPodSandbox",
                timeout,
                client.list_pod_sandbox(cri::ListPodSandboxRequest { filter: None }),
            )
            .await?
            .items;
        let containers = self
            .call(
                "ListContainers",
                timeout,
                client.list_containers(cri::ListContainersRequest { filter: None }),
            )
            .await?
            .containers;
        let mut pods: HashMap<String, PodSummary> = HashMap::new();
        let sandboxes = sandboxes.into_iter().map(|s| (s.labels, s.id, s.state));
        let containers = containers.into_iter().map(|c| (c.labels, c.id, c.state));
        for (labels, id, state) in sandboxes.chain(containers) {
            // Sandboxes without the label belong to someone else's tools: left alone.
            let Some(uid) = labels.get(labels::POD_UID).filter(|uid| !uid.is_empty()) else {
                continue;
            };
            let summary = pods.entry(uid.clone()).or_default();
            summary.fingerprint.entries.push((id, state));
            if summary.name.is_empty() {
                summary.name = labels.get(labels::POD_NAME).cloned().unwrap_or_default();
                summary.namespace = labels
                    .get(labels::POD_NAMESPACE)
                    .cloned()
                    .unwrap_or_default();
            }
        }
        for summary in pods.values_mut() {
            summary.fingerprint.entries.sort();
        }
        Ok(pods)
    }

    /// The sandboxes and containers of one pod with their statuses. What disappears between the
    /// list and the status call is left out.
    pub async fn observe(&self, uid: &str) -> Result<ObservedPod, CriError> {
        let selector: HashMap<String, String> =
            HashMap::from([(labels::POD_UID.to_owned(), uid.to_owned())]);
        let timeout = self.timings.runtime_timeout;
        let mut client = self.runtime.clone();
        let mut pod = ObservedPod::default();
        let filter = cri::PodSandboxFilter {
            label_selector: selector.clone(),
            ..Default::default()
        };
        let request = cri::ListPodSandboxRequest {
            filter: Some(filter),
        };
        let sandboxes = self
            .call("ListPodSandbox", timeout, client.list_pod_sandbox(request))
            .await?
            .items;
        for sandbox in sandboxes.into_iter().filter(|s| belongs(&s.labels, uid)) {
            let request = cri::PodSandboxStatusRequest {
                pod_sandbox_id: sandbox.id,
                verbose: false,
            };
            let call = self.call(
                "PodSandboxStatus",
                timeout,
                client.pod_sandbox_status(request),
            );
            match call.await {
                Ok(response) => pod
                    .sandboxes
                    .extend(response.status.map(ObservedSandbox::from)),
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        let filter = cri::ContainerFilter {
            label_selector: selector,
            ..Default::default()
        };
        let request = cri::ListContainersRequest {
            filter: Some(filter),
        };
        let containers = self
            .call("ListContainers", timeout, client.list_containers(request))
            .await?
            .containers;
        for container in containers.into_iter().filter(|c| belongs(&c.labels, uid)) {
            let request = cri::ContainerStatusRequest {
                container_id: container.id,
                verbose: false,
            };
            let call = self.call("ContainerStatus", timeout, client.container_status(request));
            match call.await {
                Ok(response) => pod.containers.extend(response.status.map(|status| {
                    ObservedContainer::from_status(container.pod_sandbox_id, status)
                })),
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        pod.sort();
        Ok(pod)
    }
}

fn belongs(labels: &HashMap<String, String>, uid: &str) -> bool {
    labels
        .get(labels::POD_UID)
        .is_some_and(|label| label == uid)
}
