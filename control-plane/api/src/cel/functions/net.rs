//! Addresses and networks.

use std::net::IpAddr;

use super::Outcome;
use crate::cel::{eval::failed, value::Value};

fn parse_cidr(text: &str) -> Option<(IpAddr, u8)> {
    let (address, bits) = text.split_once('/')?;
    let address: IpAddr = parse_ip(address)?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let bits: u8 = bits.parse().ok().filter(|bits| *bits <= most)?;
    Some((address, bits))
}

/// Neither zones nor IPv4 in IPv6.
fn parse_ip(text: &str) -> Option<IpAddr> {
    let address: IpAddr = text.parse().ok()?;
    let mapped = matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some());
    (!mapped).then_some(address)
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)) << 96,
        IpAddr::V6(v6) => u128::from(v6),
    }
}

fn mask(bits: u8) -> u128 {
    u128::MAX
        .checked_shl(128 - u32::from(bits))
        .unwrap_or_default()
}

fn network(address: IpAddr, bits: u8) -> IpAddr {
    let masked = number(address) & mask(bits);
    match address {
        IpAddr::V4(_) => {
            let high = u32::try_from(masked >> 96).unwrap_or_default();
            IpAddr::V4(high.into())
        }
        IpAddr::V6(_) => IpAddr::V6(masked.into()),
    }
}

fn contains((address, bits): (IpAddr, u8), other: IpAddr) -> bool {
    address.is_ipv4() == other.is_ipv4() && network(address, bits) == network(other, bits)
}

pub(super) fn convert<'a>(name: &str, text: &str) -> Option<Outcome<'a>> {
    Some(match name {
        "ip" => parse_ip(text).map(Value::Ip).ok_or_else(|| {
            failed(format!(
                "IP Address {text:?} parse error during conversion from string"
            ))
        }),
        "isIP" => Ok(Value::Bool(parse_ip(text).is_some())),
        "ip.isCanonical" => Ok(Value::Bool(
            parse_ip(text).is_some_and(|address| address.to_string() == text),
        )),
        "cidr" => parse_cidr(text)
            .map(|(address, bits)| Value::Cidr(address, bits))
            .ok_or_else(|| {
                failed(format!(
                    "network address parse error during conversion from string: {text:?}"
                ))
            }),
        "isCIDR" => Ok(Value::Bool(parse_cidr(text).is_some())),
        _ => return None,
    })
}

/// The argument of `containsIP` and `containsCIDR`, which may be text.
fn argument(value: &Value<'_>) -> Option<(IpAddr, Option<u8>)> {
    match value {
        Value::Ip(address) => Some((*address, None)),
        Value::Cidr(address, bits) => Some((*address, Some(*bits))),
        Value::String(text) => parse_ip(text.as_str())
            .map(|address| (address, None))
            .or_else(|| parse_cidr(text.as_str()).map(|(address, bits)| (address, Some(bits)))),
        _ => None,
    }
}

pub(super) fn call<'a>(name: &str, values: &[Value<'a>]) -> Option<Outcome<'a>> {
    let result = match (name, values) {
        ("family", [Value::Ip(address)]) => Value::Int(if address.is_ipv4() { 4 } else { 6 }),
        ("isUnspecified", [Value::Ip(address)]) => Value::Bool(address.is_unspecified()),
        ("isLoopback", [Value::Ip(address)]) => Value::Bool(address.is_loopback()),
        ("isLinkLocalMulticast", [Value::Ip(address)]) => Value::Bool(match address {
            IpAddr::V4(v4) => v4.octets()[..3] == [224, 0, 0],
            IpAddr::V6(v6) => v6.segments()[0] & 0xff0f == 0xff02,
        }),
        ("isLinkLocalUnicast", [Value::Ip(address)]) => Value::Bool(is_link_local(*address)),
        ("isGlobalUnicast", [Value::Ip(address)]) => Value::Bool(
            !(address.is_unspecified()
                || address.is_loopback()
                || address.is_multicast()
                || is_link_local(*address)
                || matches!(address, IpAddr::V4(v4) if v4.is_broadcast())),
        ),
        ("containsIP", [Value::Cidr(address, bits), other]) => match argument(other)? {
            (other, None) => Value::Bool(contains((*address, *bits), other)),
            _ => return None,
        },
        ("containsCIDR", [Value::Cidr(address, bits), other]) => match argument(other)? {
            (other, Some(longer)) => {
                Value::Bool(longer >= *bits && contains((*address, *bits), other))
            }
            _ => return None,
        },
        ("ip", [Value::Cidr(address, _)]) => Value::Ip(*address),
        ("masked", [Value::Cidr(address, bits)]) => Value::Cidr(network(*address, *bits), *bits),
        ("prefixLength", [Value::Cidr(_, bits)]) => Value::Int(i64::from(*bits)),
        _ => return None,
    };
    Some(Ok(result))
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}
