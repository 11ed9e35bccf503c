//! The ranges that are given out.

use std::{fmt, net::Ipv4Addr, ops::RangeInclusive, str::FromStr};

/// Addresses of services when nothing else is configured.
const DEFAULT_ADDRESSES: Ipv4Range = Ipv4Range {
    network: Ipv4Addr::new(10, 43, 0, 0),
    prefix: 16,
};
/// Kubernetes' range.
const DEFAULT_NODE_PORTS: RangeInclusive<u16> = 30_000..=32_767;
/// Smallest range: fewer addresses than this are a mistake.
const MAX_PREFIX: u8 = 30;
/// Largest range, as in Kubernetes.
const MIN_PREFIX: u8 = 12;
/// Addresses at the start that are not given out by themselves, so that they can be asked for:
/// a sixteenth of the range within these bounds.
const RESERVED: RangeInclusive<u32> = 16..=256;

/// Why a text is no range of addresses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// Not `ADDRESS/BITS`.
    #[error("{0:?} is no IPv4 range (such as 10.43.0.0/16)")]
    Syntax(String),
    /// Larger or smaller than what can be managed.
    #[error("a service range has /{MIN_PREFIX} to /{MAX_PREFIX}, not /{0}")]
    Size(u8),
}

/// A range of IPv4 addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ipv4Range {
    network: Ipv4Addr,
    prefix: u8,
}

impl FromStr for Ipv4Range {
    type Err = RangeError;

    fn from_str(text: &str) -> Result<Self, RangeError> {
        let syntax = || RangeError::Syntax(text.to_string());
        let (address, prefix) = text.split_once('/').ok_or_else(syntax)?;
        let address: Ipv4Addr = address.parse().map_err(|_| syntax())?;
        let prefix: u8 = prefix.parse().map_err(|_| syntax())?;
        if !(MIN_PREFIX..=MAX_PREFIX).contains(&prefix) {
            return Err(RangeError::Size(prefix));
        }
        let mask = u32::MAX << (32 - prefix);
        Ok(Ipv4Range {
            network: Ipv4Addr::from_bits(address.to_bits() & mask),
            prefix,
        })
    }
}

impl fmt::Display for Ipv4Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

impl Ipv4Range {
    /// Addresses in the range, the first and the last one included.
    fn size(&self) -> u32 {
        1 << (32 - self.prefix)
    }

    /// The address at a position, 0 being the network's own.
    fn at(&self, position: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.network.to_bits() + position)
    }

    /// The address of the service `kubernetes`.
    pub fn first(&self) -> Ipv4Addr {
        self.at(1)
    }

    /// A service may have this address: it is in the range and neither its first nor last.
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        let position = address.to_bits().wrapping_sub(self.network.to_bits());
        (1..self.size() - 1).contains(&position)
    }

    /// Every address that is given out, beginning anywhere: first those that nobody is likely to
    /// ask for, then the others.
    pub(super) fn candidates(&self, start: u32) -> impl Iterator<Item = Ipv4Addr> {
        let last = self.size() - 1;
        let reserved = (self.size() / 16)
            .clamp(*RESERVED.start(), *RESERVED.end())
            .min(last / 2);
        let (low, count) = (reserved + 1, last - reserved - 1);
        let upper = (0..count).map(move |n| low + (start % count + n) % count);
        let range = *self;
        upper
            .chain(2..low)
            .map(move |position| range.at(position))
            .filter(move |address| range.contains(*address))
    }
}

/// What services are given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceNetwork {
    /// Cluster addresses.
    pub addresses: Ipv4Range,
    /// Ports on every node.
    pub node_ports: RangeInclusive<u16>,
}

impl Default for ServiceNetwork {
    fn default() -> Self {
        ServiceNetwork {
            addresses: DEFAULT_ADDRESSES,
            node_ports: DEFAULT_NODE_PORTS,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_and_know_their_addresses() {
        let range: Ipv4Range = "10.43.7.9/24".parse().unwrap();
        assert_eq!(range.to_string(), "10.43.7.0/24");
        assert_eq!(range.first().to_string(), "10.43.7.1");
        for (address, inside) in [
            ("10.43.7.0", false),
            ("10.43.7.1", true),
            ("10.43.7.254", true),
            ("10.43.7.255", false),
            ("10.43.8.1", false),
            ("10.43.6.255", false),
        ] {
            assert_eq!(
                range.contains(address.parse().unwrap()),
                inside,
                "{address}"
            );
        }
        for bad in ["10.0.0.0", "10.0.0.0/8", "10.0.0.0/31", "x/16", "::/64"] {
            assert!(bad.parse::<Ipv4Range>().is_err(), "{bad}");
        }
    }

    #[test]
    fn every_address_but_the_first_is_a_candidate_once() {
        for text in ["10.43.7.0/24", "10.43.7.0/30", "10.43.0.0/20"] {
            let range: Ipv4Range = text.parse().unwrap();
            let mut all: Vec<Ipv4Addr> = range.candidates(12_345).collect();
            assert_eq!(all.len() as u32, range.size() - 3, "{text}");
            all.sort_unstable();
            all.dedup();
            assert_eq!(all.len() as u32, range.size() - 3, "{text}");
            assert!(!all.contains(&range.first()));
        }
        let range: Ipv4Range = "10.43.7.0/24".parse().unwrap();
        assert_eq!(range.candidates(0).next(), Some(range.at(17)));
    }
}
