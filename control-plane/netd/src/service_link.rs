//! The node's own place in the service network: an interface without a wire that holds the cluster DNS
//! address and the route of the service range.
//!
//! The route lets the node itself reach services where it has no default route, chooses the node's
//! address as the source, and keeps what no service takes from leaving the node.

use std::net::IpAddr;

use futures::TryStreamExt;
use ipnet::IpNet;
use netlink_packet_route::link::LinkMessage;
use netlink_packet_route::route::RouteMessage;
use rtnetlink::{Handle, LinkBridge, LinkDummy, LinkUnspec, RouteMessageBuilder};

/// The interface.
pub const NAME: &str = "hull-svc";

/// Why the interface could not be made.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// No netlink socket.
    #[error("opening a netlink socket: {0}")]
    Socket(#[source] std::io::Error),
    /// The kernel refused.
    #[error("{action}: {source}")]
    Netlink {
        /// The step.
        action: String,
        /// Why.
        #[source]
        source: rtnetlink::Error,
    },
    /// It is not there after it was made.
    #[error("interface {0} vanished")]
    Vanished(String),
}

pub(crate) fn context(action: impl Into<String>) -> impl FnOnce(rtnetlink::Error) -> LinkError {
    let action = action.into();
    move |source| LinkError::Netlink { action, source }
}

/// Makes the interface with its addresses and routes; what is there already stays.
///
/// # Errors
/// [`LinkError`].
pub async fn ensure(
    addresses: &[IpAddr],
    service_networks: &[IpNet],
    node_ips: &[IpAddr],
) -> Result<(), LinkError> {
    let (connection, handle, _) = rtnetlink::new_connection().map_err(LinkError::Socket)?;
    let connection = tokio::spawn(connection);
    let done = ensure_with(&handle, addresses, service_networks, node_ips).await;
    connection.abort();
    done
}

async fn ensure_with(
    handle: &Handle,
    addresses: &[IpAddr],
    service_networks: &[IpNet],
    node_ips: &[IpAddr],
) -> Result<(), LinkError> {
    if index(handle, NAME).await?.is_none() {
        make(handle)
            .await
            .map_err(context(format!("make {NAME}")))?;
    }
    let index = index(handle, NAME).await?;
    let index = index.ok_or_else(|| LinkError::Vanished(NAME.into()))?;
    let up = LinkUnspec::new_with_index(index).up().build();
    let up = handle.link().set(up).execute().await;
    up.map_err(context(format!("set {NAME} up")))?;
    for address in addresses {
        let length = if address.is_ipv6() { 128 } else { 32 };
        let add = handle.address().add(index, *address, length).replace();
        add.execute()
            .await
            .map_err(context(format!("add {address} to {NAME}")))?;
    }
    for network in service_networks {
        let route = route(index, *network, node_ips);
        let add = handle.route().add(route).replace().execute().await;
        add.map_err(context(format!("route {network} over {NAME}")))?;
    }
    Ok(())
}

/// A dummy interface; on a kernel without those a bridge that has no ports, which does as well.
async fn make(handle: &Handle) -> Result<(), rtnetlink::Error> {
    let dummy = LinkDummy::new(NAME).build();
    match handle.link().add(dummy).execute().await {
        Err(rtnetlink::Error::NetlinkError(message))
            if message.raw_code() == -rustix::io::Errno::OPNOTSUPP.raw_os_error() =>
        {
            let bridge = LinkBridge::new(NAME).build();
            handle.link().add(bridge).execute().await
        }
        outcome => outcome,
    }
}

async fn index(handle: &Handle, name: &str) -> Result<Option<u32>, LinkError> {
    let link = link(handle, name).await?;
    Ok(link.map(|link| link.header.index))
}

/// An interface, if there is one of the name.
pub(crate) async fn link(handle: &Handle, name: &str) -> Result<Option<LinkMessage>, LinkError> {
    let mut links = handle.link().get().match_name(name.to_string()).execute();
    match links.try_next().await {
        Ok(link) => Ok(link),
        Err(rtnetlink::Error::NetlinkError(message))
            if message.raw_code() == -rustix::io::Errno::NODEV.raw_os_error() =>
        {
            Ok(None)
        }
        Err(error) => Err(context(format!("look for {name}"))(error)),
    }
}

fn route(index: u32, network: IpNet, node_ips: &[IpAddr]) -> RouteMessage {
    match network {
        IpNet::V4(network) => {
            let mut route = RouteMessageBuilder::<std::net::Ipv4Addr>::new()
                .destination_prefix(network.network(), network.prefix_len())
                .output_interface(index);
            let own = node_ips.iter().find_map(|ip| match ip {
                IpAddr::V4(ip) if !ip.is_loopback() => Some(*ip),
                _ => None,
            });
            if let Some(own) = own {
                route = route.pref_source(own);
            }
            route.build()
        }
        IpNet::V6(network) => {
            let mut route = RouteMessageBuilder::<std::net::Ipv6Addr>::new()
                .destination_prefix(network.network(), network.prefix_len())
                .output_interface(index);
            let own = node_ips.iter().find_map(|ip| match ip {
                IpAddr::V6(ip) if !ip.is_loopback() => Some(*ip),
                _ => None,
            });
            if let Some(own) = own {
                route = route.pref_source(own);
            }
            route.build()
        }
    }
}
