//! The sandbox's network, in a network namespace of the test's own. Needs root.

// Helpers of tests, like tests, panic when something is wrong.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::process::Command;

use common::Node;
use hull_agent_protocol::v1::*;
use serde_json::Value;
use tonic::Code;

/// A device pair: the pod's end and what would be the host's.
const MACS: [&str; 2] = ["02:00:00:00:aa:01", "02:00:00:00:aa:02"];

struct Network {
    node: Node,
}

impl Network {
    async fn start() -> Network {
        let network = Network {
            node: Node::start_in_new_network().await,
        };
        // Named the wrong way round: the agent has to swap them.
        network.ip(&[
            "link", "add", "eth1", "address", MACS[0], "type", "veth", "peer", "name", "eth0",
            "address", MACS[1],
        ]);
        network
    }

    fn command(&self, program: &str, args: &[&str]) -> String {
        let output = Command::new("nsenter")
            .args(["-n", "-t", &self.node.agent_pid().to_string(), program])
            .args(args)
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(
            output.status.success(),
            "{program} {args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        text
    }

    fn ip(&self, args: &[&str]) -> String {
        self.command("ip", args)
    }

    fn json(&self, args: &[&str]) -> Vec<Value> {
        let all = [&["-j"], args].concat();
        serde_json::from_str(&self.ip(&all)).unwrap()
    }
}

fn interface(mac: &str, name: &str) -> Interface {
    Interface {
        mac: mac.into(),
        name: name.into(),
        mtu: 1400,
        ..Default::default()
    }
}

fn request() -> SetupSandboxRequest {
    let mut pod = interface(MACS[0], "eth0");
    pod.addresses = vec![
        Address {
            ip: "10.5.0.2".into(),
            prefix_length: 24,
        },
        Address {
            ip: "fd00:5::2".into(),
            prefix_length: 64,
        },
    ];
    let route = |destination: &str, gateway: &str| Route {
        destination: destination.into(),
        gateway: gateway.into(),
        ..Default::default()
    };
    pod.routes = vec![
        route("", "10.5.0.1"),
        route("", "fd00:5::1"),
        Route {
            metric: 77,
            ..route("10.6.0.0/16", "")
        },
        // A gateway outside every subnet, as point-to-point plugins have.
        Route {
            on_link: true,
            ..route("10.7.0.0/16", "169.254.1.1")
        },
    ];
    pod.neighbours = vec![Neighbour {
        ip: "10.5.0.1".into(),
        mac: "02:00:00:00:bb:01".into(),
    }];
    SetupSandboxRequest {
        interfaces: vec![pod, interface(MACS[1], "eth1")],
        ..Default::default()
    }
}

#[tokio::test]
async fn interface_takes_over_what_the_host_says() {
    let mut network = Network::start().await;
    network.node.client.setup_sandbox(request()).await.unwrap();
    // Again with a change: everything that is there is fine.
    let mut again = request();
    again.hostname = "pod".into();
    network.node.client.setup_sandbox(again).await.unwrap();

    let links = network.json(&["addr", "show", "dev", "eth0"]);
    assert_eq!(
        (links[0]["address"].as_str(), links[0]["mtu"].as_u64()),
        (Some(MACS[0]), Some(1400))
    );
    let text = links[0]["addr_info"].to_string();
    for (local, prefix) in [("10.5.0.2", 24), ("fd00:5::2", 64)] {
        let mut given = links[0]["addr_info"].as_array().unwrap().iter();
        assert!(
            given.any(|address| address["local"] == local && address["prefixlen"] == prefix),
            "{local}/{prefix} in {text}"
        );
    }
    // The link-local address is the kernel's own and may still be tentative.
    let given = links[0]["addr_info"].as_array().unwrap().iter();
    let mut given = given.filter(|address| address["local"] == "fd00:5::2");
    assert!(
        given.all(|address| address.get("tentative").is_none()),
        "{text}"
    );
    let lo = network.json(&["link", "show", "dev", "lo"])[0]["flags"].to_string();
    assert!(lo.contains("UP"), "{lo}");

    let routes = network.ip(&["route", "show"]);
    for route in [
        "default via 10.5.0.1 dev eth0",
        "10.6.0.0/16 dev eth0 proto static scope link metric 77",
        "10.7.0.0/16 via 169.254.1.1 dev eth0 proto static onlink",
    ] {
        assert!(routes.contains(route), "{route} in {routes}");
    }
    let routes = network.ip(&["-6", "route", "show", "default"]);
    assert!(
        routes.contains("default via fd00:5::1 dev eth0"),
        "{routes}"
    );
    let neighbours = network.ip(&["neigh", "show", "10.5.0.1"]);
    assert!(
        neighbours.contains("lladdr 02:00:00:00:bb:01 PERMANENT"),
        "{neighbours}"
    );
}

#[tokio::test]
async fn malformed_interface_changes_nothing() {
    let mut network = Network::start().await;
    let mut request = request();
    request.interfaces[1].name = "a/b".into();
    let status = network
        .node
        .client
        .setup_sandbox(request)
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    let links = network.json(&["addr", "show", "dev", "eth1"]);
    assert_eq!(links[0]["address"].as_str(), Some(MACS[0]));
}
