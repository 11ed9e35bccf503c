//! Where the API server is reached: by people, and by pods.
//!
//! Pods have no way to the node's loopback. Where the API server listens on nothing else, it also
//! listens on an address that only this node and its pods know: the one that the service network
//! keeps for itself.

use std::net::{IpAddr, SocketAddr};

use anyhow::Context;
use hull_netd::config::dns_address;
use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::{TcpListener, TcpSocket};

use crate::settings::Resolved;

/// Connections that wait to be accepted.
const BACKLOG: u32 = 1024;

/// The API server's addresses besides the one in the settings.
pub struct Doors {
    /// What the service `kubernetes` leads to.
    pub advertised: SocketAddr,
    /// To be listened on, too.
    pub for_pods: Option<SocketAddr>,
}

impl Doors {
    /// By what is listened on, the node's address and whether the service network runs here.
    pub fn of(settings: &Resolved) -> Self {
        let (ip, port) = (settings.listen.ip(), settings.listen.port());
        let everywhere = ip.is_unspecified();
        let reached = if everywhere { settings.node_ip } else { ip };
        let plain = Doors {
            advertised: SocketAddr::new(reached, port),
            for_pods: None,
        };
        let networks = settings.service_networks.iter().copied();
        let own = networks.filter_map(dns_address).find(IpAddr::is_ipv4);
        match own {
            Some(own) if reached.is_loopback() && settings.netd => {
                let own = SocketAddr::new(own, port);
                Doors {
                    advertised: own,
                    for_pods: (!everywhere).then_some(own),
                }
            }
            _ => plain,
        }
    }
}

/// A listener on an IPv4 address that the machine may be given later.
pub fn listen_early(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let open = || -> std::io::Result<TcpListener> {
        let socket = TcpSocket::new_v4()?;
        setsockopt(&socket, sockopt::IpFreebind, &true)?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    open().with_context(|| format!("API server: listen on {address}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;

    fn doors(listen: &str, node_ip: &str, netd: bool) -> (String, Option<String>) {
        let settings = Settings {
            listen: Some(listen.parse().unwrap()),
            node_ip: Some(node_ip.parse().unwrap()),
            netd: Some(netd),
            ..Default::default()
        };
        // Not the machine's own settings file.
        let file = tempfile::NamedTempFile::new().unwrap();
        let doors = Doors::of(&settings.resolve(Some(file.path())).unwrap());
        let text = |address: SocketAddr| address.to_string();
        (text(doors.advertised), doors.for_pods.map(text))
    }

    #[test]
    fn pods_are_led_to_an_address_that_they_reach() {
        let everywhere = ("192.0.2.7:6443".to_string(), None);
        assert_eq!(doors("0.0.0.0:6443", "192.0.2.7", true), everywhere);
        assert_eq!(doors("192.0.2.7:6443", "127.0.0.1", true), everywhere);
        let own = "10.43.0.10:6443".to_string();
        assert_eq!(
            doors("127.0.0.1:6443", "192.0.2.7", true),
            (own.clone(), Some(own.clone()))
        );
        assert_eq!(doors("0.0.0.0:6443", "127.0.0.1", true), (own, None));
        let nowhere = ("127.0.0.1:6443".to_string(), None);
        assert_eq!(doors("127.0.0.1:6443", "192.0.2.7", false), nowhere);
    }
}
