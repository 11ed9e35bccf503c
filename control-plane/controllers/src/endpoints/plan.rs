//! Which slices to write so that together they hold what is wanted.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{
    api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice},
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use kube::api::ObjectMeta;

/// Most endpoints in a slice.
pub(super) const MAX_ENDPOINTS: usize = 100;

/// Endpoints with the same ports and address type.
#[derive(Debug, Clone, Default)]
pub(super) struct Group {
    /// `IPv4`, `IPv6` or `FQDN`.
    pub address_type: String,
    /// The ports of all its endpoints.
    pub ports: Vec<EndpointPort>,
    /// Its endpoints.
    pub endpoints: Vec<Endpoint>,
}

/// What all slices of an owner have in common.
#[derive(Debug, Clone)]
pub(super) struct Common {
    pub namespace: String,
    /// Names begin with it.
    pub owner_name: String,
    pub owner: OwnerReference,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
}

/// Requests.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub create: Vec<EndpointSlice>,
    pub update: Vec<EndpointSlice>,
    pub delete: Vec<Arc<EndpointSlice>>,
}

/// A slice that is there, with what it will hold.
struct Kept {
    slice: Arc<EndpointSlice>,
    endpoints: Vec<Endpoint>,
    changed: bool,
}

fn sorted(mut ports: Vec<EndpointPort>) -> Vec<EndpointPort> {
    let key = |port: &EndpointPort| (port.name.clone(), port.port, port.protocol.clone());
    ports.sort_by_key(key);
    ports
}

fn same_ports(a: &[EndpointPort], b: &[EndpointPort]) -> bool {
    sorted(a.to_vec()) == sorted(b.to_vec())
}

/// What tells endpoints apart.
fn identity(endpoint: &Endpoint) -> (Vec<String>, Option<String>) {
    let uid = endpoint.target_ref.as_ref().and_then(|r| r.uid.clone());
    (endpoint.addresses.clone(), uid)
}

impl Common {
    fn metadata_of(&self, old: Option<&ObjectMeta>) -> ObjectMeta {
        let base = match old {
            Some(old) => old.clone(),
            None => ObjectMeta {
                generate_name: Some(format!("{}-", self.owner_name)),
                namespace: Some(self.namespace.clone()),
                ..ObjectMeta::default()
            },
        };
        ObjectMeta {
            owner_references: Some(vec![self.owner.clone()]),
            labels: Some(self.labels.clone()),
            annotations: (!self.annotations.is_empty()).then(|| self.annotations.clone()),
            ..base
        }
    }

    fn differs(&self, slice: &EndpointSlice) -> bool {
        let meta = &slice.metadata;
        meta.labels.as_ref() != Some(&self.labels)
            || meta.annotations.clone().unwrap_or_default() != self.annotations
            || !meta
                .owner_references
                .iter()
                .flatten()
                .any(|r| *r == self.owner)
    }

    fn slice(
        &self,
        group: &Group,
        endpoints: Vec<Endpoint>,
        old: Option<&EndpointSlice>,
    ) -> EndpointSlice {
        EndpointSlice {
            metadata: self.metadata_of(old.map(|old| &old.metadata)),
            address_type: group.address_type.clone(),
            ports: Some(group.ports.clone()),
            endpoints: Some(endpoints),
        }
    }
}

/// Works it out. Every group keeps at least one slice, also without endpoints.
pub(super) fn plan(existing: Vec<Arc<EndpointSlice>>, groups: Vec<Group>, common: &Common) -> Plan {
    let mut plan = Plan::default();
    let mut rest = existing;
    for group in &groups {
        let (own, others): (Vec<_>, Vec<_>) = rest.into_iter().partition(|slice| {
            slice.address_type == group.address_type
                && same_ports(slice.ports.as_deref().unwrap_or_default(), &group.ports)
        });
        rest = others;
        plan_group(own, group, common, &mut plan);
    }
    plan.delete.extend(rest);
    plan
}

fn plan_group(own: Vec<Arc<EndpointSlice>>, group: &Group, common: &Common, plan: &mut Plan) {
    let mut wanted: BTreeMap<_, Endpoint> = group
        .endpoints
        .iter()
        .map(|endpoint| (identity(endpoint), endpoint.clone()))
        .collect();
    let mut kept: Vec<Kept> = own
        .into_iter()
        .map(|slice| {
            let before = slice.endpoints.clone().unwrap_or_default();
            let endpoints: Vec<Endpoint> = before
                .iter()
                .filter_map(|endpoint| wanted.remove(&identity(endpoint)))
                .collect();
            let changed = endpoints != before || common.differs(&slice);
            Kept {
                slice,
                endpoints,
                changed,
            }
        })
        .collect();
    let mut new: Vec<Endpoint> = wanted.into_values().collect();
    fill(&mut kept, &mut new);
    // A slice that lost everything goes, unless it is the only one left.
    let total: usize = kept.iter().map(|kept| kept.endpoints.len()).sum();
    let mut placeholder = total + new.len() == 0;
    for kept in kept {
        if kept.endpoints.is_empty() && !std::mem::take(&mut placeholder) {
            plan.delete.push(kept.slice);
        } else if kept.changed {
            let slice = common.slice(group, kept.endpoints, Some(&kept.slice));
            plan.update.push(slice);
        }
    }
    for endpoints in new.chunks(MAX_ENDPOINTS) {
        let slice = common.slice(group, endpoints.to_vec(), None);
        plan.create.push(slice);
    }
    if placeholder {
        plan.create.push(common.slice(group, Vec::new(), None));
    }
}

/// Puts new endpoints into slices that are written anyway; what is left and does not make a full
/// slice of its own into the fullest one that has room.
fn fill(kept: &mut [Kept], new: &mut Vec<Endpoint>) {
    for kept in kept.iter_mut().filter(|kept| kept.changed) {
        let room = MAX_ENDPOINTS
            .saturating_sub(kept.endpoints.len())
            .min(new.len());
        kept.endpoints.extend(new.drain(..room));
    }
    let partial = new.len() % MAX_ENDPOINTS;
    if partial == 0 {
        return;
    }
    let fits = kept
        .iter_mut()
        .filter(|kept| !kept.changed && kept.endpoints.len() + partial <= MAX_ENDPOINTS)
        .max_by_key(|kept| kept.endpoints.len());
    if let Some(kept) = fits {
        kept.endpoints.extend(new.drain(..partial));
        kept.changed = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints(range: std::ops::Range<usize>) -> Vec<Endpoint> {
        range
            .map(|n| Endpoint {
                addresses: vec![format!("10.0.{}.{}", n / 250, n % 250)],
                ..Endpoint::default()
            })
            .collect()
    }

    fn common() -> Common {
        Common {
            namespace: "shop".into(),
            owner_name: "web".into(),
            owner: OwnerReference::default(),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
        }
    }

    fn group(endpoints: Vec<Endpoint>) -> Group {
        Group {
            address_type: "IPv4".into(),
            ports: Vec::new(),
            endpoints,
        }
    }

    fn planned(existing: &[EndpointSlice], wanted: Vec<Endpoint>) -> Plan {
        let existing = existing.iter().cloned().map(Arc::new).collect();
        plan(existing, vec![group(wanted)], &common())
    }

    #[test]
    fn a_hundred_endpoints_fill_a_slice() {
        let plan = planned(&[], endpoints(0..250));
        let mut sizes: Vec<_> = plan
            .create
            .iter()
            .map(|slice| slice.endpoints.as_ref().unwrap().len())
            .collect();
        sizes.sort_unstable();
        assert_eq!(sizes, [50, 100, 100]);
    }

    #[test]
    fn one_more_endpoint_changes_one_slice() {
        let existing = planned(&[], endpoints(0..150)).create;
        let plan = planned(&existing, endpoints(0..151));
        assert!(plan.create.is_empty() && plan.delete.is_empty());
        assert_eq!(plan.update.len(), 1);
        assert_eq!(plan.update[0].endpoints.as_ref().unwrap().len(), 51);
    }

    #[test]
    fn unchanged_endpoints_change_nothing() {
        let existing = planned(&[], endpoints(0..150)).create;
        let plan = planned(&existing, endpoints(0..150));
        assert!(plan.create.is_empty() && plan.update.is_empty() && plan.delete.is_empty());
    }

    #[test]
    fn emptied_slices_go_but_the_last_one_stays() {
        let existing = planned(&[], endpoints(0..150)).create;
        let plan = planned(&existing, Vec::new());
        assert_eq!((plan.delete.len(), plan.update.len()), (1, 1));
        let none = planned(&[], Vec::new());
        assert_eq!(none.create.len(), 1);
        assert!(planned(&none.create, Vec::new()).update.is_empty());
    }

    #[test]
    fn slices_of_other_ports_go() {
        let mut existing = planned(&[], endpoints(0..1)).create;
        existing[0].ports = Some(vec![EndpointPort {
            port: Some(80),
            ..EndpointPort::default()
        }]);
        let plan = planned(&existing, endpoints(0..1));
        assert_eq!((plan.create.len(), plan.delete.len()), (1, 1));
    }
}
