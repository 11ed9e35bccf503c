//! Name servers as they are written in settings.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, bail};

/// The port of DNS.
const PORT: u16 = 53;

/// An address with or without a port.
fn server(text: &str) -> Option<SocketAddr> {
    let plain = || Some(SocketAddr::new(text.parse::<IpAddr>().ok()?, PORT));
    text.parse().ok().or_else(plain)
}

/// `dns_upstream`.
pub fn upstreams(texts: &[String]) -> anyhow::Result<Vec<SocketAddr>> {
    texts
        .iter()
        .map(|text| {
            server(text)
                .with_context(|| format!("dns_upstream {text:?} is not of the form ADDRESS[:PORT]"))
        })
        .collect()
}

/// `stub_domain`: the servers of each domain, in the order in which they are named.
pub fn stub_domains(texts: &[String]) -> anyhow::Result<Vec<(String, Vec<SocketAddr>)>> {
    let mut domains: Vec<(String, Vec<SocketAddr>)> = Vec::new();
    for text in texts {
        let parts = text.split_once('=');
        let parts = parts.and_then(|(domain, address)| Some((domain, server(address)?)));
        let Some((domain, server)) = parts.filter(|(domain, _)| is_domain(domain)) else {
            bail!("stub_domain {text:?} is not of the form DOMAIN=ADDRESS[:PORT]");
        };
        let domain = domain.trim_end_matches('.').to_lowercase();
        match domains.iter_mut().find(|(known, _)| *known == domain) {
            Some((_, servers)) => servers.push(server),
            None => domains.push((domain, vec![server])),
        }
    }
    Ok(domains)
}

/// Labels of letters, digits, hyphens and underscores.
fn is_domain(text: &str) -> bool {
    let label = |label: &str| {
        let known = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        !label.is_empty() && label.len() <= 63 && label.chars().all(known)
    };
    let text = text.strip_suffix('.').unwrap_or(text);
    text.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(all: &[&str]) -> Vec<String> {
        all.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn servers_have_the_port_of_dns_unless_they_name_another() {
        let found = upstreams(&texts(&["192.0.2.1", "192.0.2.2:5353", "fd00::1"])).unwrap();
        let wanted = ["192.0.2.1:53", "192.0.2.2:5353", "[fd00::1]:53"];
        assert_eq!(found, wanted.map(|text| text.parse().unwrap()));
        assert!(upstreams(&texts(&["dns.example"])).is_err());
    }

    #[test]
    fn servers_of_one_stub_domain_are_joined() {
        let written = [
            "corp.example=192.0.2.1",
            "x=192.0.2.9",
            "Corp.Example.=192.0.2.2:5353",
        ];
        let found = stub_domains(&texts(&written)).unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].0, "corp.example");
        assert_eq!(found[0].1.len(), 2);
        for bad in [
            "corp.example",
            "=192.0.2.1",
            "a b=192.0.2.1",
            "a..b=192.0.2.1",
            "a=b",
        ] {
            assert!(stub_domains(&texts(&[bad])).is_err(), "{bad}");
        }
    }
}
