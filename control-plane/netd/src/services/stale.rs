//! UDP flows that the kernel remembers and that have become wrong.
//!
//! A UDP flow has no end: a client that keeps sending from one port stays on the endpoint (or on
//! the missing one) that its first packet met. Such flows are taken out of connection tracking:
//! those to an endpoint that went, and those to a port that had no endpoint and got one.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

/// What a remembered UDP flow looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flow {
    /// Where the client sends to.
    pub destination: SocketAddr,
    /// Who answers.
    pub answered_by: SocketAddr,
}

/// UDP destinations of one Service, with who may answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UdpPorts {
    /// Address and port; without an address, the port on any address of the node.
    pub destinations: BTreeSet<(Option<IpAddr>, u16)>,
    /// Endpoints.
    pub endpoints: BTreeSet<SocketAddr>,
}

/// Whether a flow is wrong now that `old` has become `new`.
pub fn is_stale(flow: &Flow, old: &UdpPorts, new: &UdpPorts) -> bool {
    let to = |ports: &UdpPorts| {
        let port = flow.destination.port();
        ports
            .destinations
            .contains(&(Some(flow.destination.ip()), port))
            || ports.destinations.contains(&(None, port))
    };
    if !to(old) && !to(new) {
        return false;
    }
    let known_before = old.endpoints.contains(&flow.answered_by);
    let known_now = new.endpoints.contains(&flow.answered_by);
    let untranslated = flow.answered_by == flow.destination;
    (known_before && !known_now) || (untranslated && !new.endpoints.is_empty())
}

/// Whether a change can have left stale flows behind.
pub fn may_leave_stale(old: &UdpPorts, new: &UdpPorts) -> bool {
    let gained_first = old.endpoints.is_empty() && !new.endpoints.is_empty();
    let lost = old.endpoints.difference(&new.endpoints).next().is_some();
    let had_or_has_ports = !old.destinations.is_empty() || !new.destinations.is_empty();
    had_or_has_ports && (gained_first || lost)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(endpoints: &[&str]) -> UdpPorts {
        UdpPorts {
            destinations: [(Some("10.43.0.10".parse().unwrap()), 53), (None, 30053)].into(),
            endpoints: endpoints.iter().map(|e| e.parse().unwrap()).collect(),
        }
    }

    fn flow(destination: &str, answered_by: &str) -> Flow {
        Flow {
            destination: destination.parse().unwrap(),
            answered_by: answered_by.parse().unwrap(),
        }
    }

    #[test]
    fn flows_to_an_endpoint_that_went_are_stale() {
        let (old, new) = (
            ports(&["10.42.0.5:53", "10.42.0.6:53"]),
            ports(&["10.42.0.6:53"]),
        );
        assert!(may_leave_stale(&old, &new));
        assert!(is_stale(&flow("10.43.0.10:53", "10.42.0.5:53"), &old, &new));
        assert!(is_stale(
            &flow("192.0.2.7:30053", "10.42.0.5:53"),
            &old,
            &new
        ));
        assert!(!is_stale(
            &flow("10.43.0.10:53", "10.42.0.6:53"),
            &old,
            &new
        ));
        assert!(
            !is_stale(&flow("10.43.0.11:53", "10.42.0.5:53"), &old, &new),
            "another service's"
        );
    }

    #[test]
    fn flows_that_met_nobody_are_stale_once_somebody_is_there() {
        let (old, new) = (ports(&[]), ports(&["10.42.0.6:53"]));
        assert!(may_leave_stale(&old, &new));
        assert!(is_stale(
            &flow("10.43.0.10:53", "10.43.0.10:53"),
            &old,
            &new
        ));
    }

    #[test]
    fn an_added_endpoint_leaves_nothing_stale() {
        let (old, new) = (
            ports(&["10.42.0.5:53"]),
            ports(&["10.42.0.5:53", "10.42.0.6:53"]),
        );
        assert!(!may_leave_stale(&old, &new));
    }
}
