//! The older form: one Endpoints object per service, with at most 1000 addresses of the
//! service's first address family.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use hull_client::events::{EventType, Recorder, reference};
use k8s_openapi::api::core::v1::{
    EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Pod, Service,
};
use kube::api::ObjectMeta;

use super::{
    candidates::{self, Family, HEADLESS},
    watch,
};
use crate::{
    pods,
    runtime::{Action, Controller, Informer, Key, ReconcileError, WorkQueue, WriteError, Writer},
};

/// Most addresses; what is beyond is left out and the annotation says so.
const MAX_ADDRESSES: usize = 1000;
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
const TRUNCATED: &str = "truncated";
/// Tells what controllers wrote from what people wrote.
pub(super) const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const MANAGER: &str = "endpoint-controller";

/// See the module.
pub struct EndpointsController {
    writer: Arc<dyn Writer>,
    recorder: Recorder,
    pub(super) services: Arc<Informer<Service>>,
    pub(super) pods: Arc<Informer<Pod>>,
    pub(super) endpoints: Arc<Informer<Endpoints>>,
    queue: Arc<WorkQueue>,
}

impl EndpointsController {
    /// Connects the controller to its informers.
    pub fn new(
        writer: Arc<dyn Writer>,
        recorder: Recorder,
        services: Arc<Informer<Service>>,
        pods: Arc<Informer<Pod>>,
        endpoints: Arc<Informer<Endpoints>>,
    ) -> Arc<Self> {
        let queue = Arc::new(WorkQueue::default());
        watch::follow_services(&services, &queue);
        watch::follow_pods(&services, &pods, &queue);
        endpoints.on_change({
            let queue = queue.clone();
            move |delta| queue.add(Key::of(&**delta.newest()))
        });
        Arc::new(EndpointsController {
            writer,
            recorder,
            services,
            pods,
            endpoints,
            queue,
        })
    }

    fn wanted(&self, service: &Service) -> (Vec<EndpointSubset>, bool) {
        let spec = candidates::spec(service);
        let publish = spec.publish_not_ready_addresses == Some(true);
        let family = candidates::families(service).first().copied();
        let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
        let mut by_port = Ports::default();
        let mut pods = self.pods.in_namespace(namespace);
        pods.retain(|pod| candidates::selects(service, pod) && candidates::counts(pod, publish));
        pods.sort_by_key(|pod| !(publish || pods::is_ready(pod)));
        let truncated = pods.len() > MAX_ADDRESSES;
        for pod in pods.iter().take(MAX_ADDRESSES) {
            let address = candidates::addresses(pod)
                .into_iter()
                .find(|address| Family::of(address) == family);
            let Some(ip) = address else { continue };
            let address = EndpointAddress {
                ip: ip.to_owned(),
                hostname: candidates::hostname(service, pod),
                node_name: candidates::node(pod).map(str::to_owned),
                target_ref: Some(candidates::reference(pod)),
            };
            by_port.add(service, pod, address, publish || pods::is_ready(pod));
        }
        (by_port.subsets(), truncated)
    }

    async fn write(
        &self,
        service: &Service,
        current: Option<&Endpoints>,
        wanted: Endpoints,
    ) -> Result<(), WriteError> {
        let outcome = match current {
            None => self.writer.create_object(&wanted).await,
            Some(_) => self.writer.replace_object(&wanted).await,
        };
        let Err(error) = outcome else { return Ok(()) };
        if error.is_namespace_terminating() || error.is_already_exists() {
            return Ok(());
        }
        let (reason, verb) = match current {
            None => ("FailedToCreateEndpoint", "create"),
            Some(_) => ("FailedToUpdateEndpoint", "update"),
        };
        if !error.is_conflict() {
            self.recorder.event(
                reference(service),
                EventType::Warning,
                reason,
                format!(
                    "Failed to {verb} endpoint {}: {}",
                    Key::of(service),
                    error.message()
                ),
            );
        }
        Err(error)
    }
}

type Port = (Option<String>, i32, String, Option<String>);

/// Addresses by port; ports with the same addresses become one subset.
#[derive(Default)]
struct Ports {
    addresses: BTreeMap<Option<Port>, (Vec<EndpointAddress>, Vec<EndpointAddress>)>,
}

impl Ports {
    fn add(&mut self, service: &Service, pod: &Pod, address: EndpointAddress, ready: bool) {
        let ports = candidates::ports(service, pod);
        let has_ports = service
            .spec
            .as_ref()
            .and_then(|spec| spec.ports.as_ref())
            .is_some_and(|ports| !ports.is_empty());
        let mut keys: BTreeSet<Option<Port>> = ports
            .into_iter()
            .map(|port| {
                let name = port.name.filter(|name| !name.is_empty());
                let protocol = port.protocol.unwrap_or_default();
                Some((
                    name,
                    port.port.unwrap_or_default(),
                    protocol,
                    port.app_protocol,
                ))
            })
            .collect();
        if !has_ports && candidates::is_headless(service) {
            keys.insert(None);
        }
        for key in keys {
            let (up, down) = self.addresses.entry(key).or_default();
            if ready { up } else { down }.push(address.clone());
        }
    }

    fn subsets(self) -> Vec<EndpointSubset> {
        let mut subsets: Vec<EndpointSubset> = Vec::new();
        for (port, (mut ready, mut waiting)) in self.addresses {
            let order = |address: &EndpointAddress| {
                let uid = address.target_ref.as_ref().and_then(|r| r.uid.clone());
                (address.ip.clone(), uid)
            };
            ready.sort_by_key(order);
            waiting.sort_by_key(order);
            let some = |list: Vec<EndpointAddress>| (!list.is_empty()).then_some(list);
            let (ready, waiting) = (some(ready), some(waiting));
            let port = port.map(|(name, port, protocol, app_protocol)| EndpointPort {
                name,
                port,
                protocol: Some(protocol),
                app_protocol,
            });
            let same = subsets
                .iter_mut()
                .find(|subset| subset.addresses == ready && subset.not_ready_addresses == waiting);
            match same {
                Some(subset) => subset.ports.get_or_insert_default().extend(port),
                None => subsets.push(EndpointSubset {
                    addresses: ready,
                    not_ready_addresses: waiting,
                    ports: port.map(|port| vec![port]),
                }),
            }
        }
        subsets
    }
}

fn metadata(service: &Service, old: Option<&Endpoints>, truncated: bool) -> ObjectMeta {
    let mut meta = match old {
        Some(old) => old.metadata.clone(),
        None => ObjectMeta {
            name: service.metadata.name.clone(),
            namespace: service.metadata.namespace.clone(),
            ..ObjectMeta::default()
        },
    };
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.remove(HEADLESS);
    if candidates::is_headless(service) {
        labels.insert(HEADLESS.into(), String::new());
    }
    labels.insert(MANAGED_BY.into(), MANAGER.into());
    meta.labels = Some(labels);
    let mut annotations = meta.annotations.take().unwrap_or_default();
    annotations.remove(OVER_CAPACITY);
    if truncated {
        annotations.insert(OVER_CAPACITY.into(), TRUNCATED.into());
    }
    meta.annotations = (!annotations.is_empty()).then_some(annotations);
    meta
}

#[async_trait::async_trait]
impl Controller for EndpointsController {
    fn name(&self) -> &'static str {
        "endpoint"
    }

    fn queue(&self) -> &Arc<WorkQueue> {
        &self.queue
    }

    async fn reconcile(&self, key: &Key) -> Result<Action, ReconcileError> {
        let current = self.endpoints.get(key);
        let Some(service) = self.services.get(key) else {
            // Those that people wrote are theirs to delete.
            let ours = current.filter(|endpoints| {
                let labels = endpoints.metadata.labels.as_ref();
                labels
                    .and_then(|labels| labels.get(MANAGED_BY))
                    .is_some_and(|by| by == MANAGER)
            });
            if let Some(endpoints) = ours {
                let deleted = self.writer.delete_object(&*endpoints, Default::default());
                crate::pod_gc::ignore_gone(deleted.await)?;
            }
            return Ok(Action::Done);
        };
        if !candidates::selects_pods(&service) || service.metadata.deletion_timestamp.is_some() {
            return Ok(Action::Done);
        }
        let (subsets, truncated) = self.wanted(&service);
        let wanted = Endpoints {
            metadata: metadata(&service, current.as_deref(), truncated),
            subsets: (!subsets.is_empty()).then_some(subsets),
        };
        let same = current.as_deref().is_some_and(|current| {
            current.subsets.clone().unwrap_or_default()
                == wanted.subsets.clone().unwrap_or_default()
                && current.metadata.labels == wanted.metadata.labels
                && current.metadata.annotations.clone().unwrap_or_default()
                    == wanted.metadata.annotations.clone().unwrap_or_default()
        });
        if !same {
            self.write(&service, current.as_deref(), wanted).await?;
        }
        Ok(Action::Done)
    }
}
