//! Services of type LoadBalancer: addresses from a configured pool.
//!
//! `status.loadBalancer.ingress` gets one address per family of the service, the lowest that is
//! free or the one that `spec.loadBalancerIP` asks for; hull-netd accepts connections to it on
//! every node. That the network sends the pool's addresses to the nodes is its administrator's
//! part. Services with a `loadBalancerClass` are somebody else's.

mod pool;
#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
};

use hull_client::events::{EventType, Recorder, reference};
use k8s_openapi::api::core::v1::Service;
use parking_lot::Mutex;
use serde_json::json;

use crate::runtime::{Action, Controller, Informer, Key, ReconcileError, WorkQueue, Writer};
use pool::lowest_free;
pub use pool::{AddressRange, ParseRangeError};

/// See the module.
pub struct LoadBalancerController {
    writer: Arc<dyn Writer>,
    recorder: Recorder,
    pool: Vec<AddressRange>,
    services: Arc<Informer<Service>>,
    /// Addresses given, also those that the informer does not show yet.
    given: Mutex<HashMap<IpAddr, Key>>,
    queue: Arc<WorkQueue>,
}

/// The pool serves it.
fn is_ours(service: &Service) -> bool {
    service.metadata.deletion_timestamp.is_none()
        && service.spec.as_ref().is_some_and(|spec| {
            spec.type_.as_deref() == Some("LoadBalancer") && spec.load_balancer_class.is_none()
        })
}

/// The addresses that it has.
fn addresses(service: &Service) -> Vec<IpAddr> {
    let status = service.status.as_ref();
    let ingress = status.and_then(|status| status.load_balancer.as_ref()?.ingress.as_ref());
    let ingress = ingress.into_iter().flatten();
    ingress
        .filter_map(|one| one.ip.as_ref()?.parse().ok())
        .collect()
}

impl LoadBalancerController {
    /// Connects the controller to its informer.
    pub fn new(
        writer: Arc<dyn Writer>,
        recorder: Recorder,
        pool: Vec<AddressRange>,
        services: Arc<Informer<Service>>,
    ) -> Arc<Self> {
        let queue = Arc::new(WorkQueue::default());
        services.on_change({
            let (queue, all) = (queue.clone(), services.clone());
            move |delta| {
                let service = delta.newest();
                queue.add(Key::of(&**service));
                let gave_back =
                    !is_ours(service) || matches!(delta, crate::runtime::Delta::Deleted(_));
                if gave_back && !addresses(service).is_empty() {
                    // Its addresses may be what others wait for.
                    let waiting = all.all().into_iter().filter(|other| is_ours(other));
                    waiting.for_each(|other| queue.add(Key::of(&*other)));
                }
            }
        });
        Arc::new(LoadBalancerController {
            writer,
            recorder,
            pool,
            services,
            given: Mutex::default(),
            queue,
        })
    }

    fn in_pool(&self, address: IpAddr) -> bool {
        self.pool.iter().any(|range| range.contains(address))
    }

    /// Of two services with one address the older keeps it.
    fn has_first_right(&self, service: &Service, address: IpAddr) -> bool {
        let age = |service: &Service| {
            let created = service
                .metadata
                .creation_timestamp
                .as_ref()
                .map(|time| time.0);
            (created, Key::of(service))
        };
        let own = age(service);
        let mut others = self.services.all().into_iter();
        !others.any(|other| {
            is_ours(&other) && addresses(&other).contains(&address) && age(&other) < own
        })
    }

    /// What the service is to have; remembers it.
    fn allocate(&self, key: &Key, service: &Service) -> Result<Vec<IpAddr>, String> {
        let spec = service.spec.clone().unwrap_or_default();
        let families = spec.ip_families.unwrap_or_else(|| vec!["IPv4".into()]);
        let asked = spec
            .load_balancer_ip
            .as_deref()
            .filter(|text| !text.is_empty());
        let asked: Option<IpAddr> = match asked.map(str::parse) {
            Some(Ok(address)) => Some(address),
            Some(Err(_)) => return Err("spec.loadBalancerIP is no address".into()),
            None => None,
        };
        if let Some(address) = asked.filter(|address| !self.in_pool(*address)) {
            return Err(format!("{address} is not in the pool"));
        }
        let mut given = self.given.lock();
        given.retain(|_, holder| {
            holder != key
                && self
                    .services
                    .get(holder)
                    .is_some_and(|other| is_ours(&other))
        });
        let mut taken: HashSet<IpAddr> = given.keys().copied().collect();
        for other in self.services.all() {
            if is_ours(&other) && Key::of(&*other) != *key {
                taken.extend(addresses(&other));
            }
        }
        let mut chosen = Vec::new();
        for family in &families {
            let ipv6 = family == "IPv6";
            let kept = addresses(service).into_iter().find(|address| {
                let wanted = asked.is_none_or(|asked| asked.is_ipv6() != ipv6 || asked == *address);
                address.is_ipv6() == ipv6
                    && wanted
                    && self.in_pool(*address)
                    && self.has_first_right(service, *address)
            });
            let asked = asked.filter(|asked| asked.is_ipv6() == ipv6);
            let address = match (kept, asked) {
                (Some(kept), _) => kept,
                (None, Some(asked)) if taken.contains(&asked) => {
                    return Err(format!("{asked} is in use"));
                }
                (None, Some(asked)) => asked,
                (None, None) => lowest_free(&self.pool, ipv6, &taken)
                    .ok_or_else(|| format!("no {family} address is left in the pool"))?,
            };
            chosen.push(address);
        }
        given.extend(chosen.iter().map(|address| (*address, key.clone())));
        Ok(chosen)
    }

    async fn show(&self, service: &Service, wanted: &[IpAddr]) -> Result<(), ReconcileError> {
        let ingress: Vec<_> = wanted
            .iter()
            .map(|address| json!({"ip": address.to_string(), "ipMode": "VIP"}))
            .collect();
        let ingress = if ingress.is_empty() {
            json!(null)
        } else {
            json!(ingress)
        };
        let patch = json!({
            "metadata": {"resourceVersion": service.metadata.resource_version},
            "status": {"loadBalancer": {"ingress": ingress}},
        });
        match self
            .writer
            .patch_object(service, Some("status"), patch)
            .await
        {
            Err(error) if !error.is_not_found() => Err(error.into()),
            _ => Ok(()),
        }
    }
}

#[async_trait::async_trait]
impl Controller for LoadBalancerController {
    fn name(&self) -> &'static str {
        "service-load-balancer"
    }

    fn queue(&self) -> &Arc<WorkQueue> {
        &self.queue
    }

    async fn reconcile(&self, key: &Key) -> Result<Action, ReconcileError> {
        let Some(service) = self.services.get(key) else {
            self.given.lock().retain(|_, holder| holder != key);
            return Ok(Action::Done);
        };
        let has = addresses(&service);
        if !is_ours(&service) {
            let elsewhere = service
                .spec
                .as_ref()
                .and_then(|spec| spec.load_balancer_class.as_ref());
            // What the pool gave while the service was of that type.
            if elsewhere.is_none() && has.iter().any(|address| self.in_pool(*address)) {
                self.show(&service, &[]).await?;
            }
            return Ok(Action::Done);
        }
        match self.allocate(key, &service) {
            Ok(wanted) if wanted == has => {}
            Ok(wanted) => {
                self.show(&service, &wanted).await?;
                let object = reference(&*service);
                self.recorder.event(
                    object,
                    EventType::Normal,
                    "EnsuredLoadBalancer",
                    "Ensured load balancer",
                );
            }
            // Asked again when a service gives an address back or changes.
            Err(problem) => {
                let message = format!(
                    "Error syncing load balancer: failed to ensure load balancer: {problem}"
                );
                let object = reference(&*service);
                self.recorder.event(
                    object,
                    EventType::Warning,
                    "SyncLoadBalancerFailed",
                    message,
                );
                if !has.is_empty() {
                    self.show(&service, &[]).await?;
                }
            }
        }
        Ok(Action::Done)
    }
}
