//! The tunnel's device: VXLAN without learning or multicast. Every other node is a forwarding
//! entry (its MAC to its address) and neighbour entries (its inner addresses to its MAC), so no
//! frame is ever flooded.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use futures::TryStreamExt;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::AddressAttribute;
use netlink_packet_route::link::{InfoData, InfoVxlan, LinkAttribute, LinkInfo, LinkMessage};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage,
};
use rtnetlink::{LinkUnspec, LinkVxlan};

use super::kernel::Kernel;
use super::plan::Tunnel;
use super::ruleset::{DEVICE, PORT, VNI};
use crate::ports::attachment::Mac;
use crate::service_link::{LinkError, context, link};

/// Headers that the tunnel puts around a packet, bytes: Ethernet (inner), VXLAN, UDP, IPv4.
pub(super) const OVERHEAD_IPV4: u32 = 14 + 8 + 8 + 20;
/// The same over IPv6.
pub(super) const OVERHEAD_IPV6: u32 = 14 + 8 + 8 + 40;

/// Makes sure of the device and what it knows; what is right already stays. Gives its index.
pub(super) async fn ensure(kernel: &Kernel, tunnel: &Tunnel) -> Result<u32, LinkError> {
    let mtu = mtu(kernel, tunnel.local).await?;
    let handle = &kernel.handle;
    let mut device = link(handle, DEVICE).await?;
    if let Some(found) = &device
        && !is_like(found, tunnel)
    {
        tracing::info!(
            device = DEVICE,
            "the tunnel is made anew: it has other ends"
        );
        remove(kernel).await?;
        device = None;
    }
    if device.is_none() {
        make(kernel, tunnel, mtu).await?;
        device = link(handle, DEVICE).await?;
        tracing::info!(device = DEVICE, local = %tunnel.local, mtu, "tunnel made");
    }
    let device = device.ok_or_else(|| LinkError::Vanished(DEVICE.into()))?;
    let index = device.header.index;
    if mtu_of(&device).is_some_and(|now| now != mtu) {
        let change = LinkUnspec::new_with_index(index).mtu(mtu).build();
        let changed = handle.link().set(change).execute().await;
        changed.map_err(context(format!("set the MTU of {DEVICE} to {mtu}")))?;
    }
    let up = LinkUnspec::new_with_index(index).up().build();
    let up = handle.link().set(up).execute().await;
    up.map_err(context(format!("set {DEVICE} up")))?;
    addresses(kernel, index, tunnel).await?;
    entries(kernel, index, tunnel).await?;
    Ok(index)
}

/// Takes the device away, with all that it knows and its routes.
pub(super) async fn remove(kernel: &Kernel) -> Result<(), LinkError> {
    let Some(device) = link(&kernel.handle, DEVICE).await? else {
        return Ok(());
    };
    let index = device.header.index;
    let gone = kernel.handle.link().del(index).execute().await;
    gone.map_err(context(format!("remove {DEVICE}")))?;
    tracing::info!(device = DEVICE, "tunnel removed");
    Ok(())
}

async fn make(kernel: &Kernel, tunnel: &Tunnel, mtu: u32) -> Result<(), LinkError> {
    let link = LinkVxlan::new(DEVICE, VNI).port(PORT).learning(false);
    let link = match tunnel.local {
        IpAddr::V4(local) => link.local(local),
        IpAddr::V6(local) => link.local6(local),
    };
    let link = link.address(tunnel.mac.0.to_vec()).mtu(mtu).build();
    let made = kernel.handle.link().add(link).execute().await;
    made.map_err(context(format!("make {DEVICE}")))
}

/// Whether the device has this tunnel's end; the rest can be changed while it works.
fn is_like(device: &LinkMessage, tunnel: &Tunnel) -> bool {
    let wanted = [
        InfoVxlan::Id(VNI),
        InfoVxlan::Port(PORT),
        match tunnel.local {
            IpAddr::V4(local) => InfoVxlan::Local(local),
            IpAddr::V6(local) => InfoVxlan::Local6(local),
        },
    ];
    let mut infos = device.attributes.iter().filter_map(|attribute| {
        let LinkAttribute::LinkInfo(infos) = attribute else {
            return None;
        };
        infos.iter().find_map(|info| match info {
            LinkInfo::Data(InfoData::Vxlan(info)) => Some(info),
            _ => None,
        })
    });
    let mac = LinkAttribute::Address(tunnel.mac.0.to_vec());
    device.attributes.contains(&mac)
        && infos.any(|info| wanted.iter().all(|wanted| info.contains(wanted)))
}

fn mtu_of(link: &LinkMessage) -> Option<u32> {
    link.attributes
        .iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::Mtu(mtu) => Some(*mtu),
            _ => None,
        })
}

/// What fits into the packets of the link that has the node's address.
async fn mtu(kernel: &Kernel, local: IpAddr) -> Result<u32, LinkError> {
    let mut links = kernel.handle.address().get();
    links = links.set_address_filter(local);
    let found = links.execute().try_next().await;
    let found = found.map_err(context(format!("look for the link of {local}")))?;
    let index = found.map(|address| address.header.index);
    let index = index.ok_or_else(|| LinkError::Vanished(format!("with the address {local}")))?;
    let mut links = kernel.handle.link().get().match_index(index).execute();
    let link = links.try_next().await;
    let link = link.map_err(context(format!("look at the link of {local}")))?;
    let mtu = link.as_ref().and_then(mtu_of);
    let mtu = mtu.ok_or_else(|| LinkError::Vanished(format!("with the address {local}")))?;
    let overhead = if local.is_ipv6() {
        OVERHEAD_IPV6
    } else {
        OVERHEAD_IPV4
    };
    Ok(mtu.saturating_sub(overhead))
}

/// The device has its inner addresses and no others but its link-local one.
async fn addresses(kernel: &Kernel, index: u32, tunnel: &Tunnel) -> Result<(), LinkError> {
    let handle = &kernel.handle;
    let mut listed = handle
        .address()
        .get()
        .set_link_index_filter(index)
        .execute();
    let mut missing: BTreeSet<IpAddr> = tunnel.addresses.iter().copied().collect();
    let failed = || context(format!("list the addresses of {DEVICE}"));
    while let Some(message) = listed.try_next().await.map_err(failed())? {
        let address = message
            .attributes
            .iter()
            .find_map(|attribute| match attribute {
                AddressAttribute::Address(address) => Some(*address),
                _ => None,
            });
        let Some(address) = address else { continue };
        let link_local = matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
        if !missing.remove(&address) && !link_local {
            let gone = handle.address().del(message).execute().await;
            gone.map_err(context(format!("take {address} from {DEVICE}")))?;
        }
    }
    for address in missing {
        let length = if address.is_ipv6() { 128 } else { 32 };
        let add = handle.address().add(index, address, length).replace();
        let added = add.execute().await;
        added.map_err(context(format!("add {address} to {DEVICE}")))?;
    }
    Ok(())
}

/// Brings the forwarding and neighbour entries up to the peers.
async fn entries(kernel: &Kernel, index: u32, tunnel: &Tunnel) -> Result<(), LinkError> {
    let handle = &kernel.handle;
    let mut forwarding: BTreeMap<Mac, IpAddr> = BTreeMap::new();
    let mut neighbours: BTreeMap<IpAddr, Mac> = BTreeMap::new();
    for (mac, peer) in &tunnel.peers {
        forwarding.insert(*mac, peer.outer);
        neighbours.extend(peer.inner.iter().map(|inner| (*inner, *mac)));
    }
    let families = [
        AddressFamily::Bridge,
        AddressFamily::Inet,
        AddressFamily::Inet6,
    ];
    for family in families {
        for entry in listed(kernel, index, family).await? {
            let (mac, address) = ends_of(&entry);
            let kept = match (family, mac, address) {
                (AddressFamily::Bridge, Some(mac), Some(outer)) => {
                    forwarding.get(&mac) == Some(&outer) && forwarding.remove(&mac).is_some()
                        || forwarding.contains_key(&mac)
                }
                (AddressFamily::Bridge, ..) => true,
                (_, mac, Some(inner)) => {
                    let right = mac.is_some() && neighbours.get(&inner).copied() == mac;
                    if right {
                        neighbours.remove(&inner);
                    }
                    right || neighbours.contains_key(&inner) || !is_permanent(&entry)
                }
                _ => true,
            };
            if !kept {
                let gone = handle.neighbours().del(entry).execute().await;
                gone.map_err(context(format!("remove an entry of {DEVICE}")))?;
            }
        }
    }
    for (mac, outer) in forwarding {
        let add = handle.neighbours().add_bridge(index, &mac.0);
        let add = add.destination(outer).flags(NeighbourFlags::Own).replace();
        let added = add.execute().await;
        added.map_err(context(format!("send {mac} to {outer}")))?;
    }
    for (inner, mac) in neighbours {
        let add = handle.neighbours().add(index, inner);
        let added = add.link_layer_address(&mac.0).replace().execute().await;
        added.map_err(context(format!("make {inner} known as {mac}")))?;
    }
    Ok(())
}

async fn listed(
    kernel: &Kernel,
    index: u32,
    family: AddressFamily,
) -> Result<Vec<NeighbourMessage>, LinkError> {
    let get = kernel.handle.neighbours().get();
    let mut entries = get.set_address_family(family).execute();
    let mut found = Vec::new();
    let failed = || context(format!("list the entries of {DEVICE}"));
    while let Some(entry) = entries.try_next().await.map_err(failed())? {
        if entry.header.ifindex == index && entry.header.family == family {
            found.push(entry);
        }
    }
    Ok(found)
}

fn is_permanent(entry: &NeighbourMessage) -> bool {
    use netlink_packet_route::neighbour::NeighbourState;
    entry.header.state == NeighbourState::Permanent
}

/// An entry's MAC and IP address.
fn ends_of(entry: &NeighbourMessage) -> (Option<Mac>, Option<IpAddr>) {
    let (mut mac, mut address) = (None, None);
    for attribute in &entry.attributes {
        match attribute {
            NeighbourAttribute::LinkLayerAddress(bytes) => {
                mac = <[u8; 6]>::try_from(bytes.as_slice()).ok().map(Mac);
            }
            NeighbourAttribute::Destination(destination) => {
                address = match destination {
                    NeighbourAddress::Inet(v4) => Some((*v4).into()),
                    NeighbourAddress::Inet6(v6) => Some((*v6).into()),
                    // Forwarding entries do not say which version it is but by its length.
                    NeighbourAddress::Other(bytes) => {
                        let v4 = <[u8; 4]>::try_from(bytes.as_slice()).map(IpAddr::from);
                        let v6 = || <[u8; 16]>::try_from(bytes.as_slice()).map(IpAddr::from);
                        v4.or_else(|_| v6()).ok()
                    }
                    _ => None,
                };
            }
            _ => {}
        }
    }
    (mac, address)
}
