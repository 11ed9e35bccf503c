//! What a pod that lies gets through: nothing.

use std::process::Command;

use super::world::World;

fn inside(world: &World, pod: &'static str, command: String) {
    world.inside(pod, move || {
        let output = Command::new("sh").args(["-c", &command]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command}: {text}");
    });
}

async fn world() -> World {
    let mut world = World::new(false);
    world.sync().await;
    world.serve_tcp("p2", 8080);
    assert_eq!(world.ask("p1", "10.42.0.12:8080").unwrap(), "p2 10.42.0.11");
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn another_address_is_not_heard() {
    let world = world().await;
    inside(
        &world,
        "p1",
        "ip addr del 10.42.0.11/24 dev eth0 && ip addr add 10.42.0.99/24 dev eth0 && ip route add default via 10.42.0.1".into(),
    );
    assert!(world.ask("p1", "10.42.0.12:8080").is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn another_mac_is_not_heard() {
    let world = world().await;
    inside(
        &world,
        "p1",
        "ip link set eth0 address 02:00:00:00:01:77".into(),
    );
    assert!(world.ask("p1", "10.42.0.12:8080").is_err());
    inside(
        &world,
        "p1",
        "ip link set eth0 address 02:00:00:00:01:01".into(),
    );
    assert!(
        world.ask("p1", "10.42.0.12:8080").is_ok(),
        "its own is heard again"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn arp_for_the_gateway_is_not_believed() {
    let world = world().await;
    // Gratuitous ARP: the gateway's address is at this pod's MAC.
    let lie = "ip addr add 10.42.0.1/32 dev eth0; echo 1 >/proc/sys/net/ipv4/conf/eth0/arp_notify; \
               ip link set eth0 down; ip link set eth0 up";
    inside(&world, "p2", "ip neigh flush dev eth0".into());
    inside(&world, "p1", lie.into());
    // Nobody listens there: the answer alone shows that the gateway is the gateway.
    assert_eq!(
        world.ask("p2", "10.42.0.1:9").unwrap_err(),
        "connection refused"
    );
    let truth = "ip neigh show 10.42.0.1 | grep -q 02:00:00:00:00:01";
    inside(&world, "p2", truth.into());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_port_of_the_bridge_is_dead() {
    let mut world = world().await;
    world.ports.table.set_fragment("port 1", None);
    world.sync().await;
    assert!(world.ask("p1", "10.42.0.12:8080").is_err());
}
