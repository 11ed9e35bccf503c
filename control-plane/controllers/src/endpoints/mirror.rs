//! EndpointSlices for Endpoints that somebody wrote by hand for a service without a selector.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::{
    core::v1::{EndpointAddress, EndpointSubset, Endpoints, Service},
    discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice},
};

use super::{
    candidates::{self, Family},
    legacy,
    plan::{Common, Group},
    slices::Slices,
    watch,
};
use crate::{
    adopt::controller_reference,
    runtime::{Action, Controller, Informer, Key, ReconcileError, WorkQueue, Writer},
};

const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";
/// Endpoints with this label set to `true` are not mirrored.
const SKIP_MIRROR: &str = "endpointslice.kubernetes.io/skip-mirror";
/// Endpoints that are leader election records.
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
/// Most addresses of a subset that are mirrored.
const MAX_ADDRESSES: usize = 1000;

/// See the module.
pub struct EndpointSliceMirroringController {
    pub(super) services: Arc<Informer<Service>>,
    pub(super) endpoints: Arc<Informer<Endpoints>>,
    pub(super) slices: Slices,
    queue: Arc<WorkQueue>,
}

impl EndpointSliceMirroringController {
    /// Connects the controller to its informers.
    pub fn new(
        writer: Arc<dyn Writer>,
        services: Arc<Informer<Service>>,
        endpoints: Arc<Informer<Endpoints>>,
        slices: Arc<Informer<EndpointSlice>>,
    ) -> Arc<Self> {
        let queue = Arc::new(WorkQueue::default());
        watch::follow_services(&services, &queue);
        endpoints.on_change({
            let queue = queue.clone();
            move |delta| queue.add(Key::of(&**delta.newest()))
        });
        let slices = Slices::new(writer, slices, &queue, MANAGER);
        Arc::new(EndpointSliceMirroringController {
            services,
            endpoints,
            slices,
            queue,
        })
    }
}

fn is_mirrored(endpoints: &Endpoints) -> bool {
    let labels = endpoints.metadata.labels.clone().unwrap_or_default();
    let annotations = endpoints.metadata.annotations.as_ref();
    labels.get(SKIP_MIRROR).is_none_or(|skip| skip != "true")
        && !labels.contains_key(legacy::MANAGED_BY)
        && !annotations.is_some_and(|annotations| annotations.contains_key(LEADER))
        && endpoints.metadata.deletion_timestamp.is_none()
}

fn groups(endpoints: &Endpoints) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for subset in endpoints.subsets.iter().flatten() {
        for family in [Family::V4, Family::V6] {
            let found = of_family(subset, family);
            if !found.is_empty() {
                groups.push(Group {
                    address_type: family.as_str().into(),
                    ports: ports(subset),
                    endpoints: found,
                });
            }
        }
    }
    groups
}

fn ports(subset: &EndpointSubset) -> Vec<EndpointPort> {
    subset
        .ports
        .iter()
        .flatten()
        .map(|port| EndpointPort {
            name: Some(port.name.clone().unwrap_or_default()),
            port: Some(port.port),
            protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".into())),
            app_protocol: port.app_protocol.clone(),
        })
        .collect()
}

fn of_family(subset: &EndpointSubset, family: Family) -> Vec<Endpoint> {
    let endpoint = |address: &EndpointAddress, ready: bool| Endpoint {
        addresses: vec![address.ip.clone()],
        conditions: Some(EndpointConditions {
            ready: Some(ready),
            ..EndpointConditions::default()
        }),
        hostname: address.hostname.clone(),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Endpoint::default()
    };
    let ready = subset.addresses.iter().flatten().map(|a| (a, true));
    let waiting = subset
        .not_ready_addresses
        .iter()
        .flatten()
        .map(|a| (a, false));
    ready
        .chain(waiting)
        .filter(|(address, _)| Family::of(&address.ip) == Some(family))
        .take(MAX_ADDRESSES)
        .map(|(address, ready)| endpoint(address, ready))
        .collect()
}

#[async_trait::async_trait]
impl Controller for EndpointSliceMirroringController {
    fn name(&self) -> &'static str {
        "endpointslice-mirroring"
    }

    fn queue(&self) -> &Arc<WorkQueue> {
        &self.queue
    }

    async fn reconcile(&self, key: &Key) -> Result<Action, ReconcileError> {
        let endpoints = self.endpoints.get(key).filter(|e| is_mirrored(e));
        let service = self.services.get(key).filter(|service| {
            let selector = service
                .spec
                .as_ref()
                .and_then(|spec| spec.selector.as_ref());
            selector.is_none() && service.metadata.deletion_timestamp.is_none()
        });
        let (Some(endpoints), Some(_)) = (endpoints, service) else {
            self.slices.clear(key).await?;
            return Ok(Action::Done);
        };
        let mut labels: BTreeMap<String, String> =
            endpoints.metadata.labels.clone().unwrap_or_default();
        labels.remove(candidates::HEADLESS);
        let mut annotations = endpoints.metadata.annotations.clone().unwrap_or_default();
        annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
        annotations.remove("endpoints.kubernetes.io/last-change-trigger-time");
        let common = Common {
            namespace: key.namespace.clone(),
            owner_name: key.name.clone(),
            owner: controller_reference(&*endpoints),
            labels,
            annotations,
        };
        self.slices
            .bring_to(key, groups(&endpoints), common)
            .await?;
        Ok(Action::Done)
    }
}
