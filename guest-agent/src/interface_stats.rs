//! Counters of the sandbox's network interfaces, from /proc/net/dev.

use std::io;

use hull_agent_protocol::v1::InterfaceStats;

/// Counters of a line: eight of receiving, eight of sending.
const COUNTERS: usize = 16;

/// Every interface but loopback.
///
/// # Errors
/// From reading the file.
pub fn all() -> io::Result<Vec<InterfaceStats>> {
    Ok(parse(&std::fs::read_to_string(
        "/proc/thread-self/net/dev",
    )?))
}

fn parse(text: &str) -> Vec<InterfaceStats> {
    text.lines().filter_map(interface).collect()
}

fn interface(line: &str) -> Option<InterfaceStats> {
    let (name, counters) = line.split_once(':')?;
    let counters: Vec<u64> = counters
        .split_whitespace()
        .map_while(|counter| counter.parse().ok())
        .collect();
    let name = name.trim();
    if name == "lo" || counters.len() < COUNTERS {
        return None;
    }
    Some(InterfaceStats {
        name: name.to_owned(),
        rx_bytes: counters[0],
        rx_packets: counters[1],
        rx_errors: counters[2],
        rx_dropped: counters[3],
        tx_bytes: counters[8],
        tx_packets: counters[9],
        tx_errors: counters[10],
        tx_dropped: counters[11],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_of_all_interfaces_but_loopback() {
        let text = "Inter-|   Receive  |  Transmit\n face |bytes packets|bytes packets\n\
            \x20   lo: 9 9 9 9 9 9 9 9 9 9 9 9 9 9 9 9\n\
            \x20 eth0:1 2 3 4 5 6 7 8 11 12 13 14 15 16 17 18\n";
        let expected = InterfaceStats {
            name: "eth0".into(),
            rx_bytes: 1,
            rx_packets: 2,
            rx_errors: 3,
            rx_dropped: 4,
            tx_bytes: 11,
            tx_packets: 12,
            tx_errors: 13,
            tx_dropped: 14,
        };
        assert_eq!(parse(text), [expected]);
    }
}
