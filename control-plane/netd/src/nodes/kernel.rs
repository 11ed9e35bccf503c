//! The kernel's routes to the other nodes' pods.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures::TryStreamExt;
use ipnet::IpNet;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteType,
};
use rtnetlink::{Handle, RouteMessageBuilder};

use super::plan::{Hop, Plan, Reach};
use super::tunnel;
use crate::service_link::{LinkError, context};

/// The protocol number of our routes (`ip route show proto 168`): rtnetlink leaves the numbers
/// that no daemon is known for to everybody.
const PROTOCOL: u8 = 168;
/// Their metric. It is part of what tells routes to one network apart, so nobody else's is
/// replaced; one of a smaller metric, such as an operator's, goes before ours.
const METRIC: u32 = 168;

/// A netlink socket in the network namespace of the thread that opened it.
pub struct Kernel {
    pub(super) handle: Handle,
    connection: tokio::task::JoinHandle<()>,
}

impl Drop for Kernel {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// Where a route leads: what tells it from another one to the same network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Way {
    gateway: Option<IpAddr>,
    link: Option<u32>,
}

impl Kernel {
    /// Opens it.
    ///
    /// # Errors
    /// [`LinkError::Socket`].
    pub fn open() -> Result<Self, LinkError> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(LinkError::Socket)?;
        Ok(Kernel {
            handle,
            connection: tokio::spawn(connection),
        })
    }

    /// How the kernel gets to an address.
    ///
    /// # Errors
    /// [`LinkError`], also when there is no way.
    pub async fn reach(&self, address: IpAddr) -> Result<Reach, LinkError> {
        let length = if address.is_ipv6() { 128 } else { 32 };
        let Ok(ask) = RouteMessageBuilder::<IpAddr>::new().destination_prefix(address, length)
        else {
            return Ok(Reach::Routed);
        };
        let mut answers = self.handle.route().get(ask.build()).execute();
        let answer = answers.try_next().await;
        let answer = answer.map_err(context(format!("look up the route to {address}")))?;
        let way = answer.as_ref().map(way_of);
        Ok(match (answer, way) {
            (
                Some(route),
                Some(Way {
                    gateway: None,
                    link: Some(link),
                }),
            ) if route.header.kind == RouteType::Unicast => Reach::Link(link),
            _ => Reach::Routed,
        })
    }

    /// Brings tunnel and routes up to the plan. A step that fails does not keep the others from
    /// being done.
    ///
    /// # Errors
    /// The first [`LinkError`].
    pub async fn apply(&self, plan: &Plan) -> Result<(), LinkError> {
        let (device, mut outcome) = match &plan.tunnel {
            Some(tunnel) => match tunnel::ensure(self, tunnel).await {
                Ok(device) => (Some(device), Ok(())),
                // A kernel without VXLAN does as well where nobody is reached through it.
                Err(error) if !tunnel.needed => {
                    tracing::debug!(%error, "no tunnel to listen on");
                    (None, Ok(()))
                }
                Err(error) => (None, Err(error)),
            },
            None => (None, Ok(())),
        };
        let present = self.routes().await?;
        for (network, hop) in &plan.routes {
            let (gateway, link, onlink) = match (*hop, device) {
                (Hop::Link { gateway, link }, _) => (gateway, link, false),
                (Hop::Tunnel { inner }, Some(device)) => (inner, device, true),
                (Hop::Tunnel { .. }, None) => continue,
            };
            let way = Way {
                gateway: Some(gateway),
                link: Some(link),
            };
            let found = present.get(&(*network, METRIC)).map(|(way, _)| *way);
            if found == Some(way) {
                continue;
            }
            let done = self.set_route(*network, gateway, link, onlink).await;
            match &done {
                Ok(()) => {
                    tracing::info!(%network, %gateway, onlink, "route to another node's pods")
                }
                Err(error) => {
                    tracing::warn!(%network, %gateway, %error, "route to another node's pods")
                }
            }
            outcome = outcome.and(done);
        }
        for ((network, metric), (_, route)) in present {
            if metric == METRIC && plan.routes.contains_key(&network) {
                continue;
            }
            let gone = self.handle.route().del(route).execute().await;
            outcome = outcome.and(gone.map_err(context(format!("remove the route to {network}"))));
            tracing::info!(%network, metric, "route to a vanished node's pods removed");
        }
        if plan.tunnel.is_none() {
            outcome = outcome.and(tunnel::remove(self).await);
        }
        outcome
    }

    async fn set_route(
        &self,
        network: IpNet,
        gateway: IpAddr,
        link: u32,
        onlink: bool,
    ) -> Result<(), LinkError> {
        let route = RouteMessageBuilder::<IpAddr>::new()
            .destination_prefix(network.network(), network.prefix_len())
            .and_then(|route| route.gateway(gateway));
        let Ok(mut route) = route else {
            // The plan has no route whose gateway is of another version.
            return Ok(());
        };
        route = route
            .output_interface(link)
            .priority(METRIC)
            .protocol(RouteProtocol::Other(PROTOCOL));
        if onlink {
            route = route.onlink();
        }
        let add = self.handle.route().add(route.build()).replace();
        let added = add.execute().await;
        added.map_err(context(format!("route {network} via {gateway}")))
    }

    /// Our routes in the main table, by network and metric.
    async fn routes(&self) -> Result<BTreeMap<(IpNet, u32), (Way, RouteMessage)>, LinkError> {
        let mut found = BTreeMap::new();
        let families = [
            RouteMessageBuilder::<Ipv4Addr>::new().build(),
            RouteMessageBuilder::<Ipv6Addr>::new().build(),
        ];
        for family in families {
            let mut routes = self.handle.route().get(family).execute();
            let next = async |routes: &mut _| {
                let next = TryStreamExt::try_next(routes).await;
                next.map_err(context("list routes"))
            };
            while let Some(route) = next(&mut routes).await? {
                let ours = route.header.protocol == RouteProtocol::Other(PROTOCOL)
                    && route.header.table == RouteHeader::RT_TABLE_MAIN;
                if let Some(network) = network_of(&route).filter(|_| ours) {
                    found.insert((network, metric_of(&route)), (way_of(&route), route));
                }
            }
        }
        Ok(found)
    }
}

fn address_of(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}

fn network_of(route: &RouteMessage) -> Option<IpNet> {
    let address = route
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Destination(address) => address_of(address),
            _ => None,
        })?;
    IpNet::new(address, route.header.destination_prefix_length).ok()
}

fn metric_of(route: &RouteMessage) -> u32 {
    let metrics = route.attributes.iter();
    let mut metrics = metrics.filter_map(|attribute| match attribute {
        RouteAttribute::Priority(metric) => Some(*metric),
        _ => None,
    });
    metrics.next().unwrap_or(0)
}

fn way_of(route: &RouteMessage) -> Way {
    let mut way = Way {
        gateway: None,
        link: None,
    };
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Gateway(address) => way.gateway = address_of(address),
            // A gateway of another version: behind a router, too.
            RouteAttribute::Via(_) => way.gateway = Some(Ipv6Addr::UNSPECIFIED.into()),
            RouteAttribute::Oif(link) => way.link = Some(*link),
            _ => {}
        }
    }
    way
}
