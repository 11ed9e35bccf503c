//! Pod networks with real CNI plugins, inside network namespaces of their own.

// Helpers of tests panic as tests do; the exemption covers only test functions themselves.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use hull_shim::cni::cache::Cache;
use hull_shim::cni::exec::Executor;
use hull_shim::cni::{CniRuntime, PortMapping};
use hull_shim::network::netns;
use hull_shim::network::pod::{CniPodNetwork, NetworkRequest, PodNetwork, PodNetworkSetup};
use std::future::Future;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const PLUGINS: &str = "/usr/lib/cni";

/// Runs a test in a fresh network namespace that stands for the host's.
fn on_a_host_of_its_own<F, Fut>(test: F)
where
    F: FnOnce(PathBuf) -> Fut + Send + 'static,
    Fut: Future<Output = ()>,
{
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_path_buf();
    let outcome = std::thread::spawn(move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(test(path));
    })
    .join();
    // What a failed test left must not keep the directory from going.
    let _ = netns::remove(&directory.path().join("netns/p1"));
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

fn network(directory: &Path, config: &str) -> CniPodNetwork {
    std::fs::create_dir_all(directory.join("net.d")).unwrap();
    std::fs::create_dir_all(directory.join("bin")).unwrap();
    std::fs::write(directory.join("net.d/10-n.conflist"), config).unwrap();
    CniPodNetwork {
        cni: CniRuntime {
            config_directories: vec![directory.join("net.d")],
            executor: Executor {
                directories: vec![directory.join("bin"), PLUGINS.into()],
                timeout: Duration::from_secs(20),
            },
            cache: Cache::new(directory.join("cache")),
        },
    }
}

fn plugin(directory: &Path, name: &str, script: &str) {
    std::fs::create_dir_all(directory.join("bin")).unwrap();
    let path = directory.join("bin").join(name);
    std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

fn bridge(directory: &Path, more: &str) -> String {
    format!(
        r#"{{"cniVersion": "1.0.0", "name": "n", "plugins": [
            {{"type": "bridge", "bridge": "b0", "isGateway": true, "mtu": 1400,
              "ipam": {{"type": "host-local", "dataDir": "{}",
                        "ranges": [[{{"subnet": "10.77.0.0/24"}}], [{{"subnet": "fd77::/64"}}]],
                        "routes": [{{"dst": "0.0.0.0/0"}}, {{"dst": "::/0"}}]}}}}{more}]}}"#,
        directory.join("ipam").display()
    )
}

fn request(directory: &Path) -> NetworkRequest {
    NetworkRequest {
        id: "p1".into(),
        netns: directory.join("netns/p1"),
        pod: ["ns".into(), "pod".into(), "uid".into()],
        port_mappings: Vec::new(),
    }
}

async fn attached(network: &CniPodNetwork, directory: &Path) -> PodNetworkSetup {
    let request = request(directory);
    network.create_namespace(&request.netns).await.unwrap();
    network.attach(&request).await.unwrap()
}

fn given_addresses(directory: &Path) -> usize {
    let entries = std::fs::read_dir(directory.join("ipam/n"))
        .into_iter()
        .flatten()
        .flatten();
    entries
        .filter(|entry| entry.file_name().to_string_lossy().contains("77"))
        .count()
}

#[test]
fn a_pod_gets_what_the_bridge_plugin_gave_and_gives_it_back() {
    on_a_host_of_its_own(|directory| async move {
        let network = network(&directory, &bridge(&directory, ""));
        let setup = attached(&network, &directory).await;
        assert_eq!(setup.interface.mtu, 1400);
        assert_eq!(setup.addresses.len(), 2);
        let addresses: Vec<String> = setup
            .interface
            .addresses
            .iter()
            .map(|(ip, length)| format!("{ip}/{length}"))
            .collect();
        assert!(
            addresses.contains(&format!("{}/24", setup.addresses[0])),
            "{addresses:?}"
        );
        assert!(
            addresses.contains(&format!("{}/64", setup.addresses[1])),
            "{addresses:?}"
        );
        let gateways: Vec<String> = setup
            .interface
            .routes
            .iter()
            .filter(|route| route.destination.is_none())
            .map(|route| route.gateway.unwrap().to_string())
            .collect();
        assert_eq!(gateways, ["10.77.0.1", "fd77::1"]);
        network.check("p1").await.unwrap();
        assert_eq!(given_addresses(&directory), 2);

        let netns = directory.join("netns/p1");
        drop(setup);
        network.detach("p1", &netns).await.unwrap();
        network.detach("p1", &netns).await.unwrap();
        assert!(!netns.exists());
        assert_eq!(given_addresses(&directory), 0);
        assert!(network.attached().is_empty());
    });
}

/// An Ethernet broadcast that asks who has `ip`, found among what arrives at the tap.
fn wait_for_arp(tap: &mut std::fs::File, ip: [u8; 4]) -> Vec<u8> {
    const VNET_HEADER: usize = 10;
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut buffer = [0; 2048];
    while Instant::now() < deadline {
        match tap.read(&mut buffer) {
            Ok(count) => {
                let frame = &buffer[VNET_HEADER..count];
                if frame.len() >= 42 && frame[12..14] == [8, 6] && frame[38..42] == ip {
                    return frame.to_vec();
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(error) => panic!("{error}"),
        }
    }
    panic!("no ARP request arrived");
}

fn mac(text: &str) -> Vec<u8> {
    text.split(':')
        .map(|pair| u8::from_str_radix(pair, 16).unwrap())
        .collect()
}

#[test]
fn frames_pass_between_the_bridge_and_the_tap_both_ways() {
    on_a_host_of_its_own(|directory| async move {
        let network = network(&directory, &bridge(&directory, ""));
        let mut setup = attached(&network, &directory).await;
        let std::net::IpAddr::V4(ip) = setup.addresses[0] else {
            panic!()
        };
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.send_to(b"hello", (ip, 9)).unwrap();
        let question = wait_for_arp(&mut setup.tap, ip.octets());
        // Nobody but the guest may have answered; now the guest does.
        let own = mac(&setup.interface.mac);
        let mut answer = vec![0; 10];
        answer.extend_from_slice(&question[6..12]);
        answer.extend_from_slice(&own);
        answer.extend_from_slice(&[8, 6, 0, 1, 8, 0, 6, 4, 0, 2]);
        answer.extend_from_slice(&own);
        answer.extend_from_slice(&ip.octets());
        answer.extend_from_slice(&question[22..32]);
        setup.tap.write_all(&answer).unwrap();
        // The datagram that waited for the answer follows.
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut buffer = [0; 2048];
        loop {
            assert!(Instant::now() < deadline, "the datagram did not arrive");
            match setup.tap.read(&mut buffer) {
                Ok(count) if buffer[..count].ends_with(b"hello") => break,
                Ok(_) => {}
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
            }
        }
        network
            .detach("p1", &directory.join("netns/p1"))
            .await
            .unwrap();
    });
}

#[test]
fn the_ptp_plugin_needs_no_connected_route_in_the_guest() {
    on_a_host_of_its_own(|directory| async move {
        let config = format!(
            r#"{{"cniVersion": "0.4.0", "name": "n", "type": "ptp",
                "ipam": {{"type": "host-local", "dataDir": "{}", "subnet": "10.77.1.0/24",
                          "routes": [{{"dst": "0.0.0.0/0"}}]}}}}"#,
            directory.join("ipam").display()
        );
        let network = network(&directory, &config);
        let setup = attached(&network, &directory).await;
        assert_eq!(setup.interface.addresses[0].1, 32);
        let routes = &setup.interface.routes;
        assert_eq!(
            routes[0].destination,
            Some(("10.77.1.1".parse().unwrap(), 32)),
            "{routes:?}"
        );
        assert_eq!(routes.last().unwrap().destination, None, "{routes:?}");
        network
            .detach("p1", &directory.join("netns/p1"))
            .await
            .unwrap();
    });
}

#[test]
fn a_failing_plugin_in_a_chain_is_undone_and_named_with_its_words() {
    on_a_host_of_its_own(|directory| async move {
        plugin(
            &directory,
            "broken",
            r#"[ "$CNI_COMMAND" = ADD ] || exit 0
               echo 'from standard error' >&2
               echo '{"cniVersion":"1.0.0","code":99,"msg":"no luck","details":"today"}'; exit 1"#,
        );
        let network = network(&directory, &bridge(&directory, r#", {"type": "broken"}"#));
        let request = request(&directory);
        network.create_namespace(&request.netns).await.unwrap();
        let error = network.attach(&request).await.unwrap_err().to_string();
        for word in [
            "broken",
            "ADD",
            "no luck",
            "code 99",
            "today",
            "from standard error",
        ] {
            assert!(error.contains(word), "{error}");
        }
        assert_eq!(
            given_addresses(&directory),
            0,
            "the first plugin was told DEL"
        );
        assert!(network.attached().is_empty());
        network.detach("p1", &request.netns).await.unwrap();
    });
}

#[test]
fn plugins_see_chained_results_capabilities_and_pod_arguments() {
    on_a_host_of_its_own(|directory| async move {
        let seen = directory.join("seen");
        let script = format!(
            r#"cat > {0}.$CNI_COMMAND; env | grep ^CNI_ > {0}.env
               [ "$CNI_COMMAND" = ADD ] || exit 0
               sed 's/.*"prevResult":\(.*\)}}$/\1/' {0}.ADD > /dev/null
               python3 -c 'import json,sys; print(json.dumps(json.load(open("{0}.ADD"))["prevResult"]))'"#,
            seen.display()
        );
        plugin(&directory, "witness", &script);
        let more =
            r#", {"type": "witness", "capabilities": {"portMappings": true, "other": true}}"#;
        let network = network(&directory, &bridge(&directory, more));
        let mut request = request(&directory);
        request.port_mappings = vec![PortMapping {
            host_port: 8080,
            container_port: 80,
            protocol: "tcp".into(),
            host_ip: String::new(),
        }];
        network.create_namespace(&request.netns).await.unwrap();
        let setup = network.attach(&request).await.unwrap();
        assert_eq!(setup.addresses.len(), 2);
        let read = |suffix: &str| std::fs::read_to_string(seen.with_extension(suffix)).unwrap();
        let input: serde_json::Value = serde_json::from_str(&read("ADD")).unwrap();
        assert_eq!(input["runtimeConfig"]["portMappings"][0]["hostPort"], 8080);
        assert_eq!(input["name"], "n");
        assert!(input["prevResult"]["ips"].is_array());
        assert!(read("env").contains("K8S_POD_NAME=pod"), "{}", read("env"));
        assert!(read("env").contains("CNI_IFNAME=eth0"));
        network.detach("p1", &request.netns).await.unwrap();
        let input: serde_json::Value = serde_json::from_str(&read("DEL")).unwrap();
        assert!(
            input["prevResult"]["ips"].is_array(),
            "DEL sees the result of ADD"
        );
    });
}

#[test]
fn a_plugin_that_hangs_is_killed() {
    on_a_host_of_its_own(|directory| async move {
        plugin(
            &directory,
            "hang",
            "[ \"$CNI_COMMAND\" = ADD ] && exec sleep 600; exit 0",
        );
        let mut network = network(
            &directory,
            r#"{"cniVersion": "1.0.0", "name": "n", "plugins": [{"type": "hang"}]}"#,
        );
        network.cni.executor.timeout = Duration::from_millis(500);
        let request = request(&directory);
        network.create_namespace(&request.netns).await.unwrap();
        let error = network.attach(&request).await.unwrap_err().to_string();
        assert!(
            error.contains("hang") && error.contains("within"),
            "{error}"
        );
        network.detach("p1", &request.netns).await.unwrap();
    });
}

/// Deletes the interface that CNI made, as somebody on the node may.
fn delete_interface(directory: &Path) {
    let netns = directory.join("netns/p1");
    netns::run_inside(&netns, || {
        let deleted = std::process::Command::new("ip")
            .args(["link", "delete", "eth0"])
            .status();
        assert!(deleted.unwrap().success());
    })
    .unwrap();
}

#[test]
fn a_network_that_was_taken_apart_fails_its_check_and_names_the_plugin() {
    on_a_host_of_its_own(|directory| async move {
        let network = network(&directory, &bridge(&directory, ""));
        let _setup = attached(&network, &directory).await;
        network.check("p1").await.unwrap();
        delete_interface(&directory);
        let error = network.check("p1").await.unwrap_err().to_string();
        for word in ["bridge", "CHECK", "eth0", "network \"n\""] {
            assert!(error.contains(word), "{error}");
        }
        // The plugin can be told to undo what is left.
        let netns = directory.join("netns/p1");
        network.detach("p1", &netns).await.unwrap();
        assert_eq!(given_addresses(&directory), 0);
    });
}

#[test]
fn a_network_that_wants_no_checks_is_not_checked() {
    on_a_host_of_its_own(|directory| async move {
        let config = bridge(&directory, "").replacen('{', r#"{"disableCheck": true, "#, 1);
        let network = network(&directory, &config);
        let _setup = attached(&network, &directory).await;
        delete_interface(&directory);
        network.check("p1").await.unwrap();
        let netns = directory.join("netns/p1");
        network.detach("p1", &netns).await.unwrap();
    });
}

#[test]
fn without_a_configuration_the_network_is_not_ready() {
    on_a_host_of_its_own(|directory| async move {
        let network = network(&directory, "{}");
        std::fs::remove_file(directory.join("net.d/10-n.conflist")).unwrap();
        let error = network.ready().unwrap_err().to_string();
        assert!(error.contains("net.d"), "{error}");
    });
}
