//! Reading an interface and joining it to another one, with rtnetlink. Everything
//! here acts on the network namespace of the calling thread.

use futures::TryStreamExt;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::AddressAttribute;
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourState};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use rtnetlink::{Handle, LinkUnspec, RouteMessageBuilder};
use serde::{Deserialize, Serialize};
use std::future::Future;
use std::net::IpAddr;

/// What the guest takes over from the interface that a CNI plugin made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceState {
    /// "aa:bb:cc:dd:ee:ff".
    pub mac: String,
    /// Bytes.
    pub mtu: u32,
    /// Addresses with prefix lengths.
    pub addresses: Vec<(IpAddr, u8)>,
    /// Unicast routes of the main table, apart from those that follow from an address.
    pub routes: Vec<RouteState>,
    /// Permanent neighbours: address and MAC.
    pub neighbours: Vec<(IpAddr, String)>,
}

/// One route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteState {
    /// `None`: the default route.
    pub destination: Option<(IpAddr, u8)>,
    /// `None`: directly connected.
    pub gateway: Option<IpAddr>,
    /// 0: none.
    pub metric: u32,
    /// The gateway is reachable although no address covers it.
    pub on_link: bool,
    /// Of IPv6.
    pub ipv6: bool,
}

/// Why the interface could not be read or joined.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The netlink socket or the runtime around it.
    #[error("opening a netlink socket: {0}")]
    Socket(#[source] std::io::Error),
    /// The kernel refused.
    #[error("{action}: {source}")]
    Netlink {
        /// The step.
        action: String,
        /// Why.
        source: rtnetlink::Error,
    },
    /// There is no such interface.
    #[error("there is no interface {0} in the network namespace")]
    Missing(String),
    /// It has no MAC address: it cannot be bridged to an Ethernet device.
    #[error("interface {0} has no MAC address")]
    NoMac(String),
}

/// Runs `work` with a netlink connection of the calling thread's namespace.
pub fn with_netlink<T, F, Fut>(work: F) -> Result<T, LinkError>
where
    F: FnOnce(Handle) -> Fut,
    Fut: Future<Output = Result<T, LinkError>>,
{
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(LinkError::Socket)?;
    runtime.block_on(async {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(LinkError::Socket)?;
        let task = tokio::spawn(connection);
        let outcome = work(handle).await;
        task.abort();
        outcome
    })
}

fn context(action: impl Into<String>) -> impl FnOnce(rtnetlink::Error) -> LinkError {
    let action = action.into();
    move |source| LinkError::Netlink { action, source }
}

/// Brings an interface up.
pub async fn set_up(handle: &Handle, name: &str) -> Result<(), LinkError> {
    let link = find(handle, name).await?;
    handle
        .link()
        .set(LinkUnspec::new_with_index(link.header.index).up().build())
        .execute()
        .await
        .map_err(context(format!("bringing {name} up")))
}

/// Reads `name` and redirects all its traffic to the tap `tap` and back. Returns what
/// the guest takes over. The addresses stay on `name`, where CNI CHECK looks for them;
/// the redirect takes every frame before the host's stack could answer it.
pub async fn take_over(
    handle: &Handle,
    name: &str,
    tap: &str,
) -> Result<InterfaceState, LinkError> {
    let link = find(handle, name).await?;
    let index = link.header.index;
    let state = read(handle, name, &link).await?;
    let tap_link = find(handle, tap).await?;
    let tap_index = tap_link.header.index;
    handle
        .link()
        .set(
            LinkUnspec::new_with_index(tap_index)
                .mtu(state.mtu)
                .arp(false)
                .up()
                .build(),
        )
        .execute()
        .await
        .map_err(context(format!("bringing {tap} up with MTU {}", state.mtu)))?;
    set_up(handle, name).await?;
    redirect(handle, name, index, tap_index).await?;
    redirect(handle, tap, tap_index, index).await?;
    Ok(state)
}

async fn find(handle: &Handle, name: &str) -> Result<LinkMessage, LinkError> {
    let found = handle
        .link()
        .get()
        .match_name(name)
        .execute()
        .try_next()
        .await;
    match found {
        Ok(Some(link)) => Ok(link),
        Ok(None) => Err(LinkError::Missing(name.to_string())),
        Err(rtnetlink::Error::NetlinkError(message))
            if message.raw_code().abs() == libc::ENODEV =>
        {
            Err(LinkError::Missing(name.to_string()))
        }
        Err(source) => Err(context(format!("looking for {name}"))(source)),
    }
}

async fn read(
    handle: &Handle,
    name: &str,
    link: &LinkMessage,
) -> Result<InterfaceState, LinkError> {
    let index = link.header.index;
    let mut state = InterfaceState {
        mtu: DEFAULT_MTU,
        ..Default::default()
    };
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::Address(bytes) if bytes.len() == MAC_BYTES => {
                state.mac = mac_text(bytes)
            }
            LinkAttribute::Mtu(mtu) => state.mtu = *mtu,
            _ => {}
        }
    }
    if state.mac.is_empty() {
        return Err(LinkError::NoMac(name.to_string()));
    }
    let mut addresses = handle
        .address()
        .get()
        .set_link_index_filter(index)
        .execute();
    while let Some(message) = addresses
        .try_next()
        .await
        .map_err(context(format!("reading addresses of {name}")))?
    {
        let local = message
            .attributes
            .iter()
            .find_map(|attribute| match attribute {
                AddressAttribute::Local(ip) => Some(*ip),
                _ => None,
            });
        let peer = message
            .attributes
            .iter()
            .find_map(|attribute| match attribute {
                AddressAttribute::Address(ip) => Some(*ip),
                _ => None,
            });
        if let Some(ip) = local.or(peer).filter(|ip| !is_ipv6_link_local(ip)) {
            state.addresses.push((ip, message.header.prefix_len));
        }
    }
    let connected = read_routes(handle, name, index, &mut state).await?;
    for (ip, prefix_length) in &mut state.addresses {
        // Without its connected route (ptp plugins remove it) the guest must not
        // get one by assigning the address: a full-length prefix avoids that.
        if !connected.contains(&(network_of(*ip, *prefix_length), *prefix_length)) {
            *prefix_length = if ip.is_ipv4() { 32 } else { 128 };
        }
    }
    read_neighbours(handle, name, index, &mut state).await?;
    Ok(state)
}

/// Fills `state.routes`, and returns the destinations of the routes that the kernel
/// made for the addresses.
async fn read_routes(
    handle: &Handle,
    name: &str,
    index: u32,
    state: &mut InterfaceState,
) -> Result<Vec<(IpAddr, u8)>, LinkError> {
    let mut connected = Vec::new();
    for query in [
        RouteMessageBuilder::<std::net::Ipv4Addr>::new().build(),
        RouteMessageBuilder::<std::net::Ipv6Addr>::new().build(),
    ] {
        let mut routes = handle.route().get(query).execute();
        while let Some(route) = routes
            .try_next()
            .await
            .map_err(context(format!("reading routes of {name}")))?
        {
            let ours = route.attributes.contains(&RouteAttribute::Oif(index));
            if !ours
                || route.header.table != RouteHeader::RT_TABLE_MAIN
                || route.header.kind != RouteType::Unicast
            {
                continue;
            }
            let parsed = parse_route(&route);
            match parsed.destination {
                Some((ip, _)) if is_ipv6_link_local(&ip) || ip.is_multicast() => {}
                Some(destination) if route.header.protocol == RouteProtocol::Kernel => {
                    connected.push(destination);
                }
                _ => state.routes.push(parsed),
            }
        }
    }
    // Routes to gateways come before routes that use them.
    state
        .routes
        .sort_by_key(|route| (route.gateway.is_some(), route.destination.is_none()));
    Ok(connected)
}

fn parse_route(route: &RouteMessage) -> RouteState {
    let mut destination = None;
    let mut gateway = None;
    let mut metric = 0;
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Destination(address) => destination = route_ip(address),
            RouteAttribute::Gateway(address) => gateway = route_ip(address),
            RouteAttribute::Priority(priority) => metric = *priority,
            _ => {}
        }
    }
    RouteState {
        destination: destination.map(|ip| (ip, route.header.destination_prefix_length)),
        gateway,
        metric,
        on_link: gateway.is_none() && route.header.scope == RouteScope::Link
            || route
                .header
                .flags
                .contains(netlink_packet_route::route::RouteFlags::Onlink),
        ipv6: route.header.address_family == AddressFamily::Inet6,
    }
}

async fn read_neighbours(
    handle: &Handle,
    name: &str,
    index: u32,
    state: &mut InterfaceState,
) -> Result<(), LinkError> {
    let mut neighbours = handle.neighbours().get().execute();
    while let Some(message) = neighbours
        .try_next()
        .await
        .map_err(context(format!("reading neighbours of {name}")))?
    {
        if message.header.ifindex != index || message.header.state != NeighbourState::Permanent {
            continue;
        }
        let ip = message
            .attributes
            .iter()
            .find_map(|attribute| match attribute {
                NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => {
                    Some(IpAddr::V4(*ip))
                }
                NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => {
                    Some(IpAddr::V6(*ip))
                }
                _ => None,
            });
        let mac = message
            .attributes
            .iter()
            .find_map(|attribute| match attribute {
                NeighbourAttribute::LinkLayerAddress(bytes) if bytes.len() == MAC_BYTES => {
                    Some(mac_text(bytes))
                }
                _ => None,
            });
        if let (Some(ip), Some(mac)) = (ip, mac) {
            state.neighbours.push((ip, mac));
        }
    }
    Ok(())
}

/// Everything that arrives at `from` leaves through `to`.
async fn redirect(handle: &Handle, name: &str, from: u32, to: u32) -> Result<(), LinkError> {
    handle
        .qdisc()
        .add(from as i32)
        .ingress()
        .execute()
        .await
        .map_err(context(format!("adding an ingress qdisc to {name}")))?;
    handle
        .traffic_filter(from as i32)
        .add()
        .parent(INGRESS_HANDLE)
        .priority(1)
        .protocol((libc::ETH_P_ALL as u16).to_be())
        .redirect(to)
        .map_err(context(format!("building the redirect filter of {name}")))?
        .execute()
        .await
        .map_err(context(format!("redirecting {name}")))
}

/// `ffff:0000`, the handle of the ingress qdisc.
const INGRESS_HANDLE: u32 = 0xffff_0000;
const MAC_BYTES: usize = 6;
const DEFAULT_MTU: u32 = 1500;

fn route_ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some(IpAddr::V4(*ip)),
        RouteAddress::Inet6(ip) => Some(IpAddr::V6(*ip)),
        _ => None,
    }
}

fn mac_text(bytes: &[u8]) -> String {
    let pairs: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    pairs.join(":")
}

fn is_ipv6_link_local(ip: &IpAddr) -> bool {
    matches!(ip, IpAddr::V6(v6) if v6.segments()[0] & 0xffc0 == 0xfe80)
}

fn network_of(ip: IpAddr, prefix_length: u8) -> IpAddr {
    match ip {
        IpAddr::V4(v4) => {
            let mask = u32::MAX
                .checked_shl(32 - u32::from(prefix_length.min(32)))
                .unwrap_or(0);
            IpAddr::V4((u32::from(v4) & mask).into())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX
                .checked_shl(128 - u32::from(prefix_length.min(128)))
                .unwrap_or(0);
            IpAddr::V6((u128::from(v6) & mask).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_cut_at_the_prefix() {
        let network = |ip: &str, length| network_of(ip.parse().unwrap(), length).to_string();
        assert_eq!(network("10.88.3.7", 16), "10.88.0.0");
        assert_eq!(network("10.88.3.7", 0), "0.0.0.0");
        assert_eq!(network("10.88.3.7", 32), "10.88.3.7");
        assert_eq!(network("fd00::5", 64), "fd00::");
        assert_eq!(network("fd00::5", 0), "::");
    }
}
