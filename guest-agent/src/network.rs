//! The sandbox's network, as the host tells it: the guest takes over the addresses,
//! routes and neighbours that CNI gave to the pod's interface.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use futures::TryStreamExt;
use hull_agent_protocol::client::scaled;
use hull_agent_protocol::v1;
use netlink_packet_route::address::AddressHeaderFlags;
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use netlink_packet_route::route::{RouteMessage, RouteScope};
use rtnetlink::{Handle, LinkMessageBuilder, LinkUnspec, RouteMessageBuilder};
use tonic::Code;

/// How long a network device may take to appear, before [`scaled`].
const DEVICE_TIMEOUT: Duration = Duration::from_secs(5);
/// How often it is looked for.
const POLL_INTERVAL: Duration = Duration::from_millis(5);
/// Longest interface name in bytes (IFNAMSIZ without its zero byte).
const MAX_INTERFACE_NAME: usize = 15;

/// Why the network could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// A value that is none.
    #[error("interface {interface:?}: {what} {value:?} is malformed")]
    Malformed {
        /// Name of the interface.
        interface: String,
        /// Which value.
        what: &'static str,
        /// The value.
        value: String,
    },
    /// No device with this MAC address.
    #[error("no network device has the MAC address {0}")]
    NoDevice(String),
    /// The kernel refused.
    #[error("interface {interface:?}: cannot {doing}: {source}")]
    Netlink {
        /// Name of the interface.
        interface: String,
        /// What was being done.
        doing: String,
        /// Why it failed.
        source: rtnetlink::Error,
    },
    /// No netlink socket.
    #[error("cannot open a netlink socket: {0}")]
    Socket(#[from] io::Error),
}

impl NetworkError {
    /// The gRPC status code that this error becomes.
    pub fn code(&self) -> Code {
        match self {
            NetworkError::Malformed { .. } => Code::InvalidArgument,
            NetworkError::NoDevice(_) => Code::NotFound,
            NetworkError::Netlink { .. } | NetworkError::Socket(_) => Code::Internal,
        }
    }
}

/// A device of the guest.
#[derive(Debug, Clone)]
struct Device {
    index: u32,
    name: String,
    mac: Vec<u8>,
}

/// An interface whose texts are understood.
#[derive(Debug)]
struct Plan<'a> {
    request: &'a v1::Interface,
    mac: [u8; 6],
    addresses: Vec<(IpAddr, u8)>,
    routes: Vec<RouteMessageFor>,
    neighbours: Vec<(IpAddr, [u8; 6])>,
}

/// A route and how to call it in errors.
#[derive(Debug)]
struct RouteMessageFor {
    text: String,
    has_gateway: bool,
    message: RouteMessage,
}

/// Brings up the loopback device and the given interfaces. Idempotent.
///
/// # Errors
/// [`NetworkError`] names the interface and the step.
pub async fn configure(interfaces: &[v1::Interface]) -> Result<(), NetworkError> {
    let plans = interfaces.iter().map(plan).collect::<Result<Vec<_>, _>>()?;
    let (connection, handle, _) = rtnetlink::new_connection()?;
    let connection = tokio::spawn(connection);
    let configured = apply(&handle, &plans).await;
    connection.abort();
    configured
}

async fn apply(handle: &Handle, plans: &[Plan<'_>]) -> Result<(), NetworkError> {
    loopback_up(handle).await?;
    let mut devices = Vec::new();
    for plan in plans {
        devices.push(wait_device(handle, &plan.mac).await?);
    }
    rename(handle, plans, &devices).await?;
    for (plan, device) in plans.iter().zip(&devices) {
        apply_interface(handle, plan, device.index).await?;
    }
    Ok(())
}

async fn loopback_up(handle: &Handle) -> Result<(), NetworkError> {
    let failed = failed("lo", "bring it up");
    let lo = LinkUnspec::new_with_name("lo").up().build();
    handle.link().set(lo).execute().await.map_err(failed)
}

/// Gives the devices their names. Two of them may have swapped names: those that are
/// called differently go through a name that nobody has.
async fn rename(
    handle: &Handle,
    plans: &[Plan<'_>],
    devices: &[Device],
) -> Result<(), NetworkError> {
    let wrong = || {
        plans
            .iter()
            .zip(devices)
            .filter(|(plan, device)| plan.request.name != device.name)
    };
    for (plan, device) in wrong() {
        let name = format!("hulltmp{}", device.index);
        set_name(handle, device.index, &name, &plan.request.name).await?;
    }
    for (plan, device) in wrong() {
        set_name(handle, device.index, &plan.request.name, &plan.request.name).await?;
    }
    Ok(())
}

async fn set_name(
    handle: &Handle,
    index: u32,
    name: &str,
    wanted: &str,
) -> Result<(), NetworkError> {
    // Only a device that is down can be renamed.
    let link = |builder: LinkMessageBuilder<LinkUnspec>| handle.link().set(builder.build());
    let unspec = || LinkUnspec::new_with_index(index);
    link(unspec().down())
        .execute()
        .await
        .map_err(failed(wanted, "bring it down"))?;
    link(unspec().name(name))
        .execute()
        .await
        .map_err(failed(wanted, "rename it"))
}

async fn apply_interface(handle: &Handle, plan: &Plan<'_>, index: u32) -> Result<(), NetworkError> {
    let name = &plan.request.name;
    let mut link = LinkUnspec::new_with_index(index).up();
    if plan.request.mtu > 0 {
        link = link.mtu(plan.request.mtu);
    }
    let set = handle.link().set(link.build()).execute();
    set.await.map_err(failed(name, "bring it up"))?;
    for (ip, prefix) in &plan.addresses {
        let mut add = handle.address().add(index, *ip, *prefix).replace();
        if ip.is_ipv6() {
            // The host side has already made sure that nobody else has the address.
            add.message_mut().header.flags |= AddressHeaderFlags::Nodad;
        }
        let doing = format!("add address {ip}/{prefix}");
        add.execute().await.map_err(failed(name, &doing))?;
    }
    // Routes to gateways before routes through them.
    for with_gateway in [false, true] {
        for route in plan
            .routes
            .iter()
            .filter(|route| route.has_gateway == with_gateway)
        {
            let mut message = route.message.clone();
            message
                .attributes
                .push(netlink_packet_route::route::RouteAttribute::Oif(index));
            let doing = format!("add route {}", route.text);
            let add = handle.route().add(message).replace().execute();
            add.await.map_err(failed(name, &doing))?;
        }
    }
    for (ip, mac) in &plan.neighbours {
        let add = handle
            .neighbours()
            .add(index, *ip)
            .link_layer_address(mac)
            .replace();
        let doing = format!("add neighbour {ip}");
        add.execute().await.map_err(failed(name, &doing))?;
    }
    Ok(())
}

async fn wait_device(handle: &Handle, mac: &[u8; 6]) -> Result<Device, NetworkError> {
    let search = async {
        loop {
            if let Some(device) = find_device(handle, mac).await? {
                return Ok(device);
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    };
    let found = tokio::time::timeout(scaled(DEVICE_TIMEOUT), search).await;
    found.unwrap_or_else(|_| {
        let text: Vec<String> = mac.iter().map(|byte| format!("{byte:02x}")).collect();
        Err(NetworkError::NoDevice(text.join(":")))
    })
}

async fn find_device(handle: &Handle, mac: &[u8; 6]) -> Result<Option<Device>, NetworkError> {
    let mut links = handle.link().get().execute();
    let mut found = None;
    let failed = failed("", "list devices");
    loop {
        match links.try_next().await {
            Ok(Some(link)) => {
                let device = device_of(&link);
                if device.mac == mac {
                    found = Some(device);
                }
            }
            Ok(None) => return Ok(found),
            Err(error) => return Err(failed(error)),
        }
    }
}

fn device_of(link: &LinkMessage) -> Device {
    let mut device = Device {
        index: link.header.index,
        name: String::new(),
        mac: Vec::new(),
    };
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::IfName(name) => device.name.clone_from(name),
            LinkAttribute::Address(mac) => device.mac.clone_from(mac),
            _ => {}
        }
    }
    device
}

fn plan(request: &v1::Interface) -> Result<Plan<'_>, NetworkError> {
    let bad = |what, value: &str| NetworkError::Malformed {
        interface: request.name.clone(),
        what,
        value: value.to_owned(),
    };
    let name = &request.name;
    if name.is_empty()
        || name.len() > MAX_INTERFACE_NAME
        || name == "."
        || name == ".."
        || !name
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'/' && byte != b':')
    {
        return Err(bad("name", name));
    }
    let parse_mac = |text: &str| mac(text).ok_or_else(|| bad("MAC address", text));
    let addresses = request.addresses.iter().map(|address| {
        let text = format!("{}/{}", address.ip, address.prefix_length);
        prefix(&text).ok_or_else(|| bad("address", &text))
    });
    let neighbours = request.neighbours.iter().map(|neighbour| {
        let ip = neighbour
            .ip
            .parse()
            .map_err(|_| bad("neighbour", &neighbour.ip))?;
        Ok::<_, NetworkError>((ip, parse_mac(&neighbour.mac)?))
    });
    let routes = request.routes.iter().map(|route| {
        let text = format!("{} via {}", route.destination, route.gateway);
        route_message(route)
            .map(|message| RouteMessageFor {
                has_gateway: !route.gateway.is_empty(),
                text: text.clone(),
                message,
            })
            .ok_or_else(|| bad("route", &text))
    });
    Ok(Plan {
        request,
        mac: parse_mac(&request.mac)?,
        addresses: addresses.collect::<Result<_, _>>()?,
        routes: routes.collect::<Result<_, _>>()?,
        neighbours: neighbours.collect::<Result<_, _>>()?,
    })
}

fn mac(text: &str) -> Option<[u8; 6]> {
    let bytes: Vec<u8> = text
        .split(':')
        .map(|part| {
            u8::from_str_radix(part, 16)
                .ok()
                .filter(|_| part.len() == 2)
        })
        .collect::<Option<_>>()?;
    bytes.try_into().ok()
}

/// "ip/length".
fn prefix(text: &str) -> Option<(IpAddr, u8)> {
    let (ip, length) = text.split_once('/')?;
    let ip: IpAddr = ip.parse().ok()?;
    let length: u8 = length.parse().ok()?;
    let longest = if ip.is_ipv4() { 32 } else { 128 };
    (length <= longest).then_some((ip, length))
}

/// The route without its device; `None` if it makes no sense.
fn route_message(route: &v1::Route) -> Option<RouteMessage> {
    let gateway: Option<IpAddr> = match route.gateway.as_str() {
        "" => None,
        text => Some(text.parse().ok()?),
    };
    let destination = match route.destination.as_str() {
        "" => None,
        text => Some(prefix(text)?),
    };
    let is_ipv6 = gateway
        .or(destination.map(|(ip, _)| ip))
        .is_some_and(|ip| ip.is_ipv6());
    let mut message = if is_ipv6 {
        let mut builder = RouteMessageBuilder::<Ipv6Addr>::new();
        if let Some((IpAddr::V6(ip), length)) = destination.filter(|(_, length)| *length > 0) {
            builder = builder.destination_prefix(ip, length);
        }
        builder = match gateway {
            Some(IpAddr::V6(gateway)) => builder.gateway(gateway),
            _ => builder,
        };
        finish(builder.get_mut(), route, gateway.is_some());
        builder.build()
    } else {
        let mut builder = RouteMessageBuilder::<Ipv4Addr>::new();
        if let Some((IpAddr::V4(ip), length)) = destination.filter(|(_, length)| *length > 0) {
            builder = builder.destination_prefix(ip, length);
        }
        builder = match gateway {
            Some(IpAddr::V4(gateway)) => builder.gateway(gateway),
            _ => builder,
        };
        finish(builder.get_mut(), route, gateway.is_some());
        builder.build()
    };
    if gateway.is_some_and(|g| destination.is_some_and(|(d, _)| d.is_ipv4() != g.is_ipv4())) {
        return None;
    }
    if route.metric > 0 {
        let metric = netlink_packet_route::route::RouteAttribute::Priority(route.metric);
        message.attributes.push(metric);
    }
    Some(message)
}

fn finish(message: &mut RouteMessage, route: &v1::Route, has_gateway: bool) {
    if !has_gateway {
        message.header.scope = RouteScope::Link;
    }
    if route.on_link && has_gateway {
        message.header.flags |= netlink_packet_route::route::RouteFlags::Onlink;
    }
}

fn failed(interface: &str, doing: &str) -> impl FnOnce(rtnetlink::Error) -> NetworkError {
    let (interface, doing) = (interface.to_owned(), doing.to_owned());
    move |source| NetworkError::Netlink {
        interface,
        doing,
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface() -> v1::Interface {
        v1::Interface {
            mac: "02:00:00:00:00:01".into(),
            name: "eth0".into(),
            ..Default::default()
        }
    }

    #[test]
    fn malformed_values_are_named() {
        type Break = fn(&mut v1::Interface);
        let cases: [(&str, Break); 5] = [
            ("MAC address", |i| i.mac = "2:0:0:0:0:1".into()),
            ("name", |i| i.name = "../eth0".into()),
            ("address", |i| {
                i.addresses.push(v1::Address {
                    ip: "10.0.0.1".into(),
                    prefix_length: 33,
                });
            }),
            ("route", |i| {
                i.routes.push(v1::Route {
                    destination: "10.0.0.0/8".into(),
                    gateway: "fe80::1".into(),
                    ..Default::default()
                });
            }),
            ("neighbour", |i| {
                i.neighbours.push(v1::Neighbour {
                    ip: "x".into(),
                    mac: "02:00:00:00:00:02".into(),
                });
            }),
        ];
        for (what, break_it) in cases {
            let mut interface = interface();
            break_it(&mut interface);
            let error = plan(&interface).unwrap_err();
            assert!(
                matches!(&error, NetworkError::Malformed { what: w, .. } if *w == what),
                "{error}"
            );
        }
    }

    #[test]
    fn default_route_of_each_family_is_understood() {
        for gateway in ["10.0.0.1", "fe80::1"] {
            let route = v1::Route {
                gateway: gateway.into(),
                ..Default::default()
            };
            let message = route_message(&route).unwrap();
            assert_eq!(message.header.destination_prefix_length, 0);
        }
    }

    #[tokio::test]
    async fn missing_device_is_reported_by_its_address() {
        let (connection, handle, _) = rtnetlink::new_connection().unwrap();
        tokio::spawn(connection);
        let found = find_device(&handle, &[2, 0xde, 0xad, 0, 0, 1])
            .await
            .unwrap();
        assert!(found.is_none());
    }
}
