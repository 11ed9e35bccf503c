//! A second machine: a network namespace with a link to this one, in which `hull node join` runs.
//!
//! ```text
//!  this machine                        namespace hull-second
//!  hull up, 172.30.0.1 ── second ════ eth0 ── 172.30.0.2, hull node join
//!  registry 127.0.0.1:5000 ◄── lent ── 127.0.0.1:5000
//! ```

use std::{
    fs::{self, File},
    io,
    net::{TcpListener, TcpStream},
    os::fd::AsFd,
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    sched::{CloneFlags, setns},
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    cluster::{API_PORT, Cluster, REGISTRY, tail_of},
    kubectl::Kubectl,
    wait,
};

/// The node's name.
pub const NAME: &str = "second";
const NAMESPACE: &str = "hull-second";
const DIRECTORY: &str = "/var/lib/hull-e2e-second";
/// Port of its node agent.
const NODE_PORT: u16 = 20251;
/// Seconds that it may take until it is ready, on hardware.
const READY_S: u64 = 30;

/// The machine. [`SecondNode::stop`] ends it.
pub struct SecondNode {
    hull: Child,
    kubectl: Kubectl,
}

fn ip(arguments: &str) -> Result<()> {
    let output = Command::new("ip")
        .args(arguments.split(' '))
        .output()
        .context("running ip")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "ip {arguments}: {said}");
    Ok(())
}

impl SecondNode {
    /// Joins the cluster, whose first node is at `server`, and waits until the node is ready.
    pub fn join(cluster: &Cluster, server: &str) -> Result<SecondNode> {
        let kubectl = cluster.kubectl.clone();
        let (token, hash) = invitation(&kubectl)?;
        plug(server)?;
        lend_registry()?;
        let directory = PathBuf::from(DIRECTORY);
        if directory.exists() {
            // Certificates of another run's cluster are among it.
            fs::remove_dir_all(&directory)?;
        }
        fs::create_dir_all(&directory)?;
        let log = File::create(directory.join("hull.log"))?;
        // The namespace has a /sys of its own, which lacks the cgroups.
        let script = "mount -t cgroup2 none /sys/fs/cgroup; exec hull node join \"$@\"";
        let hull = Command::new("ip")
            .args(["netns", "exec", NAMESPACE, "sh", "-c", script, "hull"])
            .arg(format!("https://{server}:{API_PORT}"))
            .args(["--token", &token, "--ca-hash", &hash])
            .args(["--node-name", NAME, "--node-ip", "172.30.0.2"])
            .args(["--node-listen", &format!("0.0.0.0:{NODE_PORT}")])
            .args(["--pod-network", "routes"])
            .args(cluster.node_arguments(&directory)?)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("starting hull node join")?;
        let mut second = SecondNode { hull, kubectl };
        match second.ready() {
            Ok(()) => Ok(second),
            Err(error) => {
                let error = error.context(second.log_tail());
                second.stop()?;
                Err(error)
            }
        }
    }

    fn ready(&mut self) -> Result<()> {
        wait::until("the second node to be ready", READY_S, || {
            if let Some(status) = self.hull.try_wait()? {
                bail!("hull node join ended with {status}");
            }
            let node = self.kubectl.get("node", NAME)?;
            let conditions = node.map(|node| node["status"]["conditions"].clone());
            let conditions = conditions.unwrap_or_default();
            let ready = conditions.as_array().is_some_and(|all| {
                all.iter()
                    .any(|c| c["type"] == "Ready" && c["status"] == "True")
            });
            Ok(if ready {
                Ok(())
            } else {
                Err(conditions.to_string())
            })
        })
    }

    /// The newest lines of its log.
    pub fn log_tail(&self) -> String {
        let log = tail_of(&PathBuf::from(DIRECTORY).join("hull.log"));
        format!("--- log of hull node join:\n{log}")
    }

    /// Ends it and takes it out of the cluster; its pods must be gone.
    pub fn stop(mut self) -> Result<()> {
        // Errors here mean that it is gone already.
        let _ = kill(Pid::from_raw(self.hull.id() as i32), Signal::SIGTERM);
        self.hull.wait()?;
        self.kubectl
            .run(&["delete", "node", NAME, "--ignore-not-found"])?;
        ip("link del second")?;
        ip(&format!("netns del {NAMESPACE}"))
    }
}

/// A token and the hash of the cluster's CA.
fn invitation(kubectl: &Kubectl) -> Result<(String, String)> {
    let output = Command::new("hull")
        .args(["token", "create", "--kubeconfig"])
        .arg(kubectl.kubeconfig())
        .output()
        .context("running hull token create")?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "hull token create: {said}");
    let token = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let hash = said.split("--ca-hash ").nth(1);
    let hash = hash.and_then(|rest| rest.split_whitespace().next());
    Ok((token, hash.context("no hash of the CA")?.to_owned()))
}

/// Makes the namespace and the link. The first node's address is on it, too.
fn plug(server: &str) -> Result<()> {
    ip(&format!("netns add {NAMESPACE}"))?;
    ip(&format!(
        "link add second type veth peer name eth0 netns {NAMESPACE}"
    ))?;
    ip("addr add 172.30.0.1/24 dev second")?;
    ip("link set second up")?;
    ip(&format!("-n {NAMESPACE} link set lo up"))?;
    ip(&format!("-n {NAMESPACE} addr add 172.30.0.2/24 dev eth0"))?;
    ip(&format!("-n {NAMESPACE} link set eth0 up"))?;
    ip(&format!("-n {NAMESPACE} route add {server}/32 dev eth0"))?;
    ip(&format!("-n {NAMESPACE} route add default via 172.30.0.1"))
}

/// The registry answers on the second machine's loopback as it does on this one's, until this
/// process ends.
fn lend_registry() -> Result<()> {
    let listener = thread::spawn(|| -> Result<TcpListener> {
        let namespace = File::open(format!("/run/netns/{NAMESPACE}"))?;
        setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET)?;
        Ok(TcpListener::bind(REGISTRY)?)
    });
    let Ok(listener) = listener.join() else {
        bail!("the registry cannot be lent");
    };
    let listener = listener.context("lending the registry")?;
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let Ok(server) = TcpStream::connect(REGISTRY) else {
                continue;
            };
            let (Ok(client_too), Ok(server_too)) = (client.try_clone(), server.try_clone()) else {
                continue;
            };
            pump(client, server);
            pump(server_too, client_too);
        }
    });
    Ok(())
}

/// Copies until the sender is done, and says so to the receiver.
fn pump(mut from: TcpStream, mut to: TcpStream) {
    thread::spawn(move || {
        let _ = io::copy(&mut from, &mut to);
        let _ = to.shutdown(std::net::Shutdown::Write);
    });
}
