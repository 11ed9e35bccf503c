//! Which endpoints take traffic.

use std::net::SocketAddr;

use super::model::Endpoint;

/// Where this node is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place {
    /// The node's name.
    pub node: String,
    /// Its `topology.kubernetes.io/zone`.
    pub zone: Option<String>,
}

/// The endpoints of one port and one address family.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chosen {
    /// Under a traffic policy of Cluster.
    pub cluster: Vec<SocketAddr>,
    /// Under a traffic policy of Local.
    pub local: Vec<SocketAddr>,
    /// On this node, whatever their state: their hairpin traffic needs masquerading.
    pub on_this_node: Vec<SocketAddr>,
}

/// Chooses. Ready ones; where there are none, those which go away but still serve: a connection
/// that they may finish is better than a refused one.
pub fn choose(endpoints: &[Endpoint], ipv6: bool, place: &Place) -> Chosen {
    let of_family: Vec<&Endpoint> = endpoints
        .iter()
        .filter(|endpoint| endpoint.address.is_ipv6() == ipv6)
        .collect();
    let local: Vec<&Endpoint> = of_family.iter().copied().filter(|e| e.local).collect();
    let ready: Vec<&Endpoint> = of_family.iter().copied().filter(|e| e.ready).collect();
    let cluster = if ready.is_empty() {
        usable(&of_family)
    } else {
        near(ready, place)
    };
    Chosen {
        cluster: sockets(&cluster),
        local: sockets(&usable(&local)),
        on_this_node: sockets(&local),
    }
}

fn usable<'a>(endpoints: &[&'a Endpoint]) -> Vec<&'a Endpoint> {
    let that = |wanted: fn(&Endpoint) -> bool| -> Vec<&'a Endpoint> {
        endpoints.iter().copied().filter(|e| wanted(e)).collect()
    };
    let ready = that(|e| e.ready);
    if ready.is_empty() {
        that(|e| e.serving && e.terminating)
    } else {
        ready
    }
}

/// Those hinted to this node, else to its zone. Hints count only when every endpoint has them and
/// one is for here: a half written set of hints must not starve anybody.
fn near<'a>(ready: Vec<&'a Endpoint>, place: &Place) -> Vec<&'a Endpoint> {
    let hinted = |hints: fn(&Endpoint) -> &[String], here: &str| -> Option<Vec<&'a Endpoint>> {
        if ready.iter().any(|e| hints(e).is_empty()) {
            return None;
        }
        let near: Vec<&'a Endpoint> = ready
            .iter()
            .copied()
            .filter(|e| hints(e).iter().any(|hint| hint == here))
            .collect();
        (!near.is_empty()).then_some(near)
    };
    hinted(|e| &e.hinted_nodes, &place.node)
        .or_else(|| hinted(|e| &e.hinted_zones, place.zone.as_deref()?))
        .unwrap_or(ready)
}

fn sockets(endpoints: &[&Endpoint]) -> Vec<SocketAddr> {
    endpoints
        .iter()
        .map(|e| SocketAddr::new(e.address, e.port))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(last: u8, state: &str) -> Endpoint {
        Endpoint {
            address: [10, 42, 0, last].into(),
            port: 80,
            ready: state.contains('r'),
            serving: state.contains('s'),
            terminating: state.contains('t'),
            local: state.contains('l'),
            hinted_nodes: Vec::new(),
            hinted_zones: Vec::new(),
        }
    }

    fn lasts(sockets: &[SocketAddr]) -> Vec<u8> {
        let last = |socket: &SocketAddr| match socket.ip() {
            std::net::IpAddr::V4(ip) => ip.octets()[3],
            std::net::IpAddr::V6(_) => panic!("IPv6"),
        };
        sockets.iter().map(last).collect()
    }

    fn chosen(endpoints: &[Endpoint]) -> (Vec<u8>, Vec<u8>) {
        let place = Place {
            node: "n1".into(),
            zone: Some("z1".into()),
        };
        let chosen = choose(endpoints, false, &place);
        (lasts(&chosen.cluster), lasts(&chosen.local))
    }

    #[test]
    fn ready_ones_are_chosen_alone() {
        let found = chosen(&[
            endpoint(1, "rsl"),
            endpoint(2, "st"),
            endpoint(3, "rs"),
            endpoint(4, ""),
        ]);
        assert_eq!(found, (vec![1, 3], vec![1]));
    }

    #[test]
    fn terminating_ones_serve_when_nothing_else_does() {
        let found = chosen(&[endpoint(1, "stl"), endpoint(2, "t"), endpoint(3, "st")]);
        assert_eq!(found, (vec![1, 3], vec![1]));
        assert_eq!(
            chosen(&[endpoint(1, "s")]),
            (vec![], vec![]),
            "not ready, not terminating"
        );
    }

    #[test]
    fn local_policy_falls_back_on_its_own() {
        let found = chosen(&[endpoint(1, "stl"), endpoint(2, "rs")]);
        assert_eq!(found, (vec![2], vec![1]));
    }

    #[test]
    fn hints_count_when_all_have_them_and_one_is_for_here() {
        let zoned = |last, zone: &str| Endpoint {
            hinted_zones: vec![zone.into()],
            ..endpoint(last, "rs")
        };
        assert_eq!(chosen(&[zoned(1, "z1"), zoned(2, "z2")]).0, [1]);
        assert_eq!(chosen(&[zoned(1, "z3"), zoned(2, "z2")]).0, [1, 2]);
        assert_eq!(chosen(&[zoned(1, "z1"), endpoint(2, "rs")]).0, [1, 2]);
        let on_node = Endpoint {
            hinted_nodes: vec!["n1".into()],
            ..zoned(3, "z2")
        };
        assert_eq!(
            chosen(&[on_node.clone(), zoned(1, "z1")]).0,
            [1],
            "not all name nodes"
        );
        assert_eq!(chosen(&[on_node]).0, [3]);
    }
}
