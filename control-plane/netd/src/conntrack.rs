//! The kernel's table of connections, over ctnetlink: listing UDP flows and forgetting those that
//! have become wrong. Blocking; acts on the calling thread's network namespace.

use std::io;
use std::net::{IpAddr, SocketAddr};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_netfilter::conntrack::{
    ConntrackAttribute, ConntrackMessage, IPTuple, ProtoTuple, Protocol, Tuple,
};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
};
use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr as NetlinkAddress};

use crate::services::stale::Flow;

/// One read of the kernel's answer holds at most this much, in bytes (the kernel fills 32 KiB).
const RECEIVE_BUFFER: usize = 64 * 1024;

/// Why connection tracking could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum ConntrackError {
    /// The socket failed.
    #[error("connection tracking: {doing}: {source}")]
    Socket {
        /// What was being done.
        doing: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The kernel's answer could not be read.
    #[error("connection tracking: the kernel's answer cannot be read: {0}")]
    Decode(#[from] netlink_packet_core::DecodeError),
    /// The kernel refused.
    #[error("connection tracking: the kernel refused: {0}")]
    Refused(#[source] io::Error),
}

fn socket_error(doing: &'static str) -> impl FnOnce(io::Error) -> ConntrackError {
    move |source| ConntrackError::Socket { doing, source }
}

/// Forgets the UDP flows that `wrong` picks; says how many.
///
/// # Errors
/// [`ConntrackError`].
pub fn forget_udp(wrong: impl Fn(&Flow) -> bool) -> Result<usize, ConntrackError> {
    let mut socket = Socket::new(NETLINK_NETFILTER).map_err(socket_error("open"))?;
    socket.bind_auto().map_err(socket_error("bind"))?;
    socket
        .connect(&NetlinkAddress::new(0, 0))
        .map_err(socket_error("connect"))?;
    let mut forgotten = 0;
    for family in [NetfilterProtoFamily::IPv4, NetfilterProtoFamily::IPv6] {
        for original in udp_flows(&socket, family, &wrong)? {
            forgotten += usize::from(delete(&socket, family, original)?);
        }
    }
    Ok(forgotten)
}

fn send(
    socket: &Socket,
    family: NetfilterProtoFamily,
    flags: u16,
    message: ConntrackMessage,
) -> Result<(), ConntrackError> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    let payload = NetfilterMessage::new(NetfilterHeader::new(family, 0, 0), message);
    let mut packet = NetlinkMessage::new(header, NetlinkPayload::from(payload));
    packet.finalize();
    let mut bytes = vec![0; packet.buffer_len()];
    packet.serialize(&mut bytes);
    socket.send(&bytes, 0).map_err(socket_error("send"))?;
    Ok(())
}

/// Hands every message of one answer to `each` until the kernel says that it is over.
fn receive(socket: &Socket, mut each: impl FnMut(ConntrackMessage)) -> Result<(), ConntrackError> {
    loop {
        let mut buffer = Vec::with_capacity(RECEIVE_BUFFER);
        socket
            .recv(&mut buffer, 0)
            .map_err(socket_error("receive"))?;
        let mut rest = &buffer[..];
        while !rest.is_empty() {
            let message = NetlinkMessage::<NetfilterMessage>::deserialize(rest)?;
            // Messages are padded to four bytes.
            let length = (message.header.length as usize).next_multiple_of(4);
            if length == 0 {
                break;
            }
            rest = rest.get(length..).unwrap_or_default();
            match message.payload {
                NetlinkPayload::Done(_) => return Ok(()),
                NetlinkPayload::Error(error) if error.code.is_none() => return Ok(()),
                NetlinkPayload::Error(error) => {
                    return Err(ConntrackError::Refused(error.to_io()));
                }
                NetlinkPayload::InnerMessage(NetfilterMessage {
                    inner: NetfilterMessageInner::Conntrack(found),
                    ..
                }) => each(found),
                _ => {}
            }
        }
    }
}

fn udp_flows(
    socket: &Socket,
    family: NetfilterProtoFamily,
    wrong: impl Fn(&Flow) -> bool,
) -> Result<Vec<Vec<Tuple>>, ConntrackError> {
    send(socket, family, NLM_F_DUMP, ConntrackMessage::Get(vec![]))?;
    let mut found = Vec::new();
    receive(socket, |message| {
        let ConntrackMessage::New(attributes) = message else {
            return;
        };
        let (mut original, mut reply) = (None, None);
        for attribute in attributes {
            match attribute {
                ConntrackAttribute::CtaTupleOrig(tuple) => original = Some(tuple),
                ConntrackAttribute::CtaTupleReply(tuple) => reply = Some(tuple),
                _ => {}
            }
        }
        let Some((original, reply)) = original.zip(reply) else {
            return;
        };
        let flow = || {
            Some(Flow {
                destination: udp_end(&original, false)?,
                answered_by: udp_end(&reply, true)?,
            })
        };
        if flow().is_some_and(|flow| wrong(&flow)) {
            found.push(original);
        }
    })?;
    Ok(found)
}

/// Source or destination of a UDP tuple.
fn udp_end(tuple: &[Tuple], source: bool) -> Option<SocketAddr> {
    let (mut address, mut port, mut udp): (Option<IpAddr>, Option<u16>, bool) = (None, None, false);
    for part in tuple {
        match part {
            Tuple::Ip(parts) => {
                for part in parts {
                    match part {
                        IPTuple::SourceAddress(ip) if source => address = Some(*ip),
                        IPTuple::DestinationAddress(ip) if !source => address = Some(*ip),
                        _ => {}
                    }
                }
            }
            Tuple::Proto(parts) => {
                for part in parts {
                    match part {
                        ProtoTuple::Protocol(protocol) => udp = *protocol == Protocol::Udp,
                        ProtoTuple::SourcePort(number) if source => port = Some(*number),
                        ProtoTuple::DestinationPort(number) if !source => port = Some(*number),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    udp.then_some(SocketAddr::new(address?, port?))
}

/// Whether it was there.
fn delete(
    socket: &Socket,
    family: NetfilterProtoFamily,
    original: Vec<Tuple>,
) -> Result<bool, ConntrackError> {
    let message = ConntrackMessage::Delete(vec![ConntrackAttribute::CtaTupleOrig(original)]);
    send(socket, family, NLM_F_ACK, message)?;
    match receive(socket, |_| {}) {
        Ok(()) => Ok(true),
        Err(ConntrackError::Refused(error)) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
