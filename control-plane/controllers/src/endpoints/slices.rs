//! EndpointSlices of services that select pods.

use std::{collections::BTreeMap, sync::Arc};

use hull_client::events::{EventType, Recorder, reference};
use k8s_openapi::api::{
    core::v1::{Node, Pod, Service},
    discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice},
};
use kube::api::DeleteParams;

use super::{
    candidates::{self, Family, HEADLESS},
    plan::{Common, Group, Plan, plan},
    watch,
};
use crate::{
    adopt::controller_reference,
    pods,
    runtime::{
        Action, Controller, Delta, Informer, Key, ReconcileError, WorkQueue, WriteError, Writer,
        Written, written::version,
    },
};

/// Whose endpoints a slice holds.
pub(super) const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Who writes a slice.
pub(super) const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const MANAGER: &str = "endpointslice-controller.k8s.io";

/// The slices of one manager, and writing them.
pub(super) struct Slices {
    pub writer: Arc<dyn Writer>,
    pub informer: Arc<Informer<EndpointSlice>>,
    pub written: Arc<Written>,
    manager: &'static str,
}

fn label<'a>(slice: &'a EndpointSlice, name: &str) -> Option<&'a str> {
    let labels = slice.metadata.labels.as_ref()?;
    labels.get(name).map(String::as_str)
}

impl Slices {
    /// Wakes the service when somebody else changes one of its slices.
    pub fn new(
        writer: Arc<dyn Writer>,
        informer: Arc<Informer<EndpointSlice>>,
        queue: &Arc<WorkQueue>,
        manager: &'static str,
    ) -> Self {
        let written = Arc::new(Written::default());
        informer.on_change({
            let (queue, written) = (queue.clone(), written.clone());
            move |delta| {
                let slice = delta.newest();
                let (Some(service), Some(by)) =
                    (label(slice, SERVICE_NAME), label(slice, MANAGED_BY))
                else {
                    return;
                };
                if by != manager {
                    return;
                }
                let namespace = slice.metadata.namespace.clone().unwrap_or_default();
                let key = Key::new(namespace, service);
                if let Delta::Deleted(slice) = delta {
                    written.gone(&key, slice.metadata.uid.as_deref().unwrap_or_default());
                }
                queue.add(key);
            }
        });
        Slices {
            writer,
            informer,
            written,
            manager,
        }
    }

    fn existing(&self, key: &Key) -> Vec<Arc<EndpointSlice>> {
        let mut slices = self.informer.in_namespace(&key.namespace);
        slices.retain(|slice| {
            label(slice, SERVICE_NAME) == Some(&*key.name)
                && label(slice, MANAGED_BY) == Some(self.manager)
                && slice.metadata.deletion_timestamp.is_none()
        });
        slices
    }

    /// Brings the service's slices to what is wanted.
    pub async fn bring_to(
        &self,
        key: &Key,
        groups: Vec<Group>,
        mut common: Common,
    ) -> Result<(), ReconcileError> {
        let existing = self.existing(key);
        let seen = |uid: &str| {
            let slice = existing
                .iter()
                .find(|slice| slice.metadata.uid.as_deref() == Some(uid));
            slice.map(|slice| version(&**slice))
        };
        if !self.written.caught_up(key, seen) {
            return Err(ReconcileError::Waiting(format!(
                "endpoint slices of {key} are not up to date yet"
            )));
        }
        common.labels.insert(SERVICE_NAME.into(), key.name.clone());
        common.labels.insert(MANAGED_BY.into(), self.manager.into());
        self.write(key, plan(existing, groups, &common)).await?;
        Ok(())
    }

    /// Deletes all of the service's slices.
    pub async fn clear(&self, key: &Key) -> Result<(), ReconcileError> {
        let delete = self.existing(key);
        let plan = Plan {
            delete,
            ..Plan::default()
        };
        self.write(key, plan).await?;
        Ok(())
    }

    async fn write(&self, key: &Key, plan: Plan) -> Result<(), WriteError> {
        for slice in &plan.create {
            match self.writer.create_object(slice).await {
                Ok(created) => self.written.record(key, &created),
                // Its slices are going anyway.
                Err(error) if error.is_namespace_terminating() => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        for slice in &plan.update {
            let updated = self.writer.replace_object(slice).await?;
            self.written.record(key, &updated);
        }
        for slice in &plan.delete {
            let deleted = self.writer.delete_object(&**slice, DeleteParams::default());
            match deleted.await {
                Err(error) if !error.is_not_found() && !error.is_conflict() => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

/// See the module.
pub struct EndpointSliceController {
    recorder: Recorder,
    pub(super) services: Arc<Informer<Service>>,
    pub(super) pods: Arc<Informer<Pod>>,
    pub(super) nodes: Arc<Informer<Node>>,
    pub(super) slices: Slices,
    queue: Arc<WorkQueue>,
}

impl EndpointSliceController {
    /// Connects the controller to its informers.
    pub fn new(
        writer: Arc<dyn Writer>,
        recorder: Recorder,
        services: Arc<Informer<Service>>,
        pods: Arc<Informer<Pod>>,
        nodes: Arc<Informer<Node>>,
        slices: Arc<Informer<EndpointSlice>>,
    ) -> Arc<Self> {
        let queue = Arc::new(WorkQueue::default());
        watch::follow_services(&services, &queue);
        watch::follow_pods(&services, &pods, &queue);
        watch::follow_zones(&services, &pods, &nodes, &queue);
        let slices = Slices::new(writer, slices, &queue, MANAGER);
        Arc::new(EndpointSliceController {
            recorder,
            services,
            pods,
            nodes,
            slices,
            queue,
        })
    }

    /// One group per address type and set of ports.
    fn groups(&self, service: &Service) -> Vec<Group> {
        let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
        let pods: Vec<Arc<Pod>> = self
            .pods
            .in_namespace(namespace)
            .into_iter()
            .filter(|pod| candidates::selects(service, pod) && candidates::counts(pod, true))
            .collect();
        let mut groups = Vec::new();
        for family in candidates::families(service) {
            let mut by_ports: Vec<(Vec<EndpointPort>, Vec<Endpoint>)> = Vec::new();
            for pod in &pods {
                let Some(endpoint) = self.endpoint(service, pod, family) else {
                    continue;
                };
                let ports = candidates::ports(service, pod);
                match by_ports.iter_mut().find(|(own, _)| *own == ports) {
                    Some((_, endpoints)) => endpoints.push(endpoint),
                    None => by_ports.push((ports, vec![endpoint])),
                }
            }
            if by_ports.is_empty() {
                by_ports.push((Vec::new(), Vec::new()));
            }
            groups.extend(by_ports.into_iter().map(|(ports, endpoints)| Group {
                address_type: family.as_str().into(),
                ports,
                endpoints,
            }));
        }
        groups
    }

    fn endpoint(&self, service: &Service, pod: &Pod, family: Family) -> Option<Endpoint> {
        let addresses: Vec<String> = candidates::addresses(pod)
            .into_iter()
            .filter(|address| Family::of(address) == Some(family))
            .map(str::to_owned)
            .collect();
        if addresses.is_empty() {
            return None;
        }
        let spec = service.spec.as_ref();
        let publish = spec.and_then(|spec| spec.publish_not_ready_addresses) == Some(true);
        let serving = pods::is_ready(pod);
        let terminating = pod.metadata.deletion_timestamp.is_some();
        let node = candidates::node(pod);
        let zone = node
            .and_then(|name| self.nodes.get(&Key::new("", name)))
            .and_then(|node| watch::zone_of(&node).cloned());
        Some(Endpoint {
            addresses,
            conditions: Some(EndpointConditions {
                ready: Some(publish || (serving && !terminating)),
                serving: Some(serving),
                terminating: Some(terminating),
            }),
            hostname: candidates::hostname(service, pod),
            node_name: node.map(str::to_owned),
            target_ref: Some(candidates::reference(pod)),
            zone,
            ..Endpoint::default()
        })
    }

    fn common(service: &Service) -> Common {
        let mut labels: BTreeMap<String, String> =
            service.metadata.labels.clone().unwrap_or_default();
        labels.remove(HEADLESS);
        if candidates::is_headless(service) {
            labels.insert(HEADLESS.into(), String::new());
        }
        Common {
            namespace: service.metadata.namespace.clone().unwrap_or_default(),
            owner_name: service.metadata.name.clone().unwrap_or_default(),
            owner: controller_reference(service),
            labels,
            annotations: BTreeMap::new(),
        }
    }
}

#[async_trait::async_trait]
impl Controller for EndpointSliceController {
    fn name(&self) -> &'static str {
        "endpointslice"
    }

    fn queue(&self) -> &Arc<WorkQueue> {
        &self.queue
    }

    async fn reconcile(&self, key: &Key) -> Result<Action, ReconcileError> {
        // The slices of a service that is gone go with it: they name it as their owner.
        let Some(service) = self.services.get(key) else {
            return Ok(Action::Done);
        };
        if !candidates::selects_pods(&service) || service.metadata.deletion_timestamp.is_some() {
            return Ok(Action::Done);
        }
        let groups = self.groups(&service);
        let outcome = self
            .slices
            .bring_to(key, groups, Self::common(&service))
            .await;
        if let Err(ReconcileError::Write(error)) = &outcome
            && !error.is_conflict()
            && !error.is_not_found()
        {
            self.recorder.event(
                reference(&*service),
                EventType::Warning,
                "FailedToUpdateEndpointSlices",
                format!(
                    "Error updating Endpoint Slices for Service {key}: {}",
                    error.message()
                ),
            );
        }
        outcome.map(|()| Action::Done)
    }
}
