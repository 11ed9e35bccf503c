//! The addresses that services of type LoadBalancer get.

use std::{
    collections::HashSet,
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use ipnet::IpNet;

/// A text that is no range of addresses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no range of addresses: {problem}")]
pub struct ParseRangeError {
    text: String,
    problem: &'static str,
}

/// Addresses from the first to the last: `192.0.2.0/28`, `192.0.2.10-192.0.2.20`, `fd00::1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressRange {
    first: IpAddr,
    last: IpAddr,
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

impl AddressRange {
    /// Its addresses are of IPv6.
    pub fn is_ipv6(&self) -> bool {
        self.first.is_ipv6()
    }

    /// The address is one of them.
    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv6() == self.is_ipv6()
            && (number(self.first)..=number(self.last)).contains(&number(address))
    }

    fn addresses(self) -> impl Iterator<Item = IpAddr> {
        let ipv6 = self.is_ipv6();
        (number(self.first)..=number(self.last)).filter_map(move |bits| {
            Some(match ipv6 {
                true => Ipv6Addr::from_bits(bits).into(),
                false => Ipv4Addr::from_bits(u32::try_from(bits).ok()?).into(),
            })
        })
    }
}

impl FromStr for AddressRange {
    type Err = ParseRangeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = |problem| ParseRangeError {
            text: text.into(),
            problem,
        };
        let address = |part: &str| {
            let parsed = part.trim().parse::<IpAddr>();
            parsed.map_err(|_| wrong("expected ADDRESS, NETWORK/LENGTH or ADDRESS-ADDRESS"))
        };
        let (first, last) = if text.contains('/') {
            let network: IpNet = text.trim().parse().map_err(|_| wrong("not a network"))?;
            (network.network(), network.broadcast())
        } else if let Some((first, last)) = text.split_once('-') {
            (address(first)?, address(last)?)
        } else {
            (address(text)?, address(text)?)
        };
        if first.is_ipv6() != last.is_ipv6() {
            return Err(wrong("its ends are of different families"));
        }
        if number(first) > number(last) {
            return Err(wrong("its end is before its beginning"));
        }
        Ok(AddressRange { first, last })
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

/// The lowest address of the family that nobody has.
pub(super) fn lowest_free(
    ranges: &[AddressRange],
    ipv6: bool,
    taken: &HashSet<IpAddr>,
) -> Option<IpAddr> {
    let ranges = ranges.iter().filter(|range| range.is_ipv6() == ipv6);
    let mut addresses = ranges.flat_map(|range| range.addresses());
    addresses.find(|address| !taken.contains(address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_ranges_and_single_addresses_are_read() {
        for (text, expected) in [
            ("192.0.2.0/30", "192.0.2.0-192.0.2.3"),
            ("192.0.2.9 - 192.0.2.11", "192.0.2.9-192.0.2.11"),
            ("fd00::5", "fd00::5-fd00::5"),
        ] {
            assert_eq!(text.parse::<AddressRange>().unwrap().to_string(), expected);
        }
        for (text, problem) in [
            ("192.0.2.9-192.0.2.1", "its end is before its beginning"),
            ("192.0.2.9-fd00::1", "its ends are of different families"),
            (
                "pool",
                "expected ADDRESS, NETWORK/LENGTH or ADDRESS-ADDRESS",
            ),
            ("192.0.2.0/40", "not a network"),
        ] {
            assert_eq!(text.parse::<AddressRange>().unwrap_err().problem, problem);
        }
    }
}
