//! A second machine: a network namespace with a link to this one, in which `hull node join` runs.
//!
//! ```text
//!  this machine                        namespace hull-second
//!  hull up, 172.30.0.1 ── second ════ eth0 ── 172.30.0.2, hull node join
//!  registry 127.0.0.1:5000 ◄── lent ── 127.0.0.1:5000
//! ```

use std::{
    fs::{self, File},
    net::TcpListener,
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
    leaks::Traces,
    relay, wait,
};

/// The node's name.
pub const NAME: &str = "second";
const NAMESPACE: &str = "hull-second";
const DIRECTORY: &str = "/var/lib/hull-e2e-second";
/// Where it keeps what belongs to pods.
const STATE_DIRS: [&str; 2] = [
    "/var/lib/hull-e2e-second/data",
    "/var/lib/hull-e2e-second/run",
];
/// Port of its node agent.
const NODE_PORT: u16 = 20251;
/// Seconds that it may take until it is ready, on hardware.
const READY_S: u64 = 30;

/// The machine. [`SecondNode::stop`] ends it.
pub struct SecondNode {
    hull: Child,
    kubectl: Kubectl,
    /// Of `hull`.
    arguments: Vec<String>,
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
        let listen = format!("0.0.0.0:{NODE_PORT}");
        let own = [
            ("--token", token.as_str()),
            ("--ca-hash", hash.as_str()),
            ("--node-name", NAME),
            ("--node-ip", "172.30.0.2"),
            ("--node-listen", &listen),
            ("--pod-network", "routes"),
        ];
        let mut arguments = vec![
            "node".to_owned(),
            "join".to_owned(),
            format!("https://{server}:{API_PORT}"),
        ];
        arguments.extend(
            own.iter()
                .flat_map(|(key, value)| [*key, *value])
                .map(String::from),
        );
        arguments.extend(cluster.node_arguments(&directory)?);
        // The namespace has a /sys of its own, which lacks the cgroups.
        let script = "mount -t cgroup2 none /sys/fs/cgroup; exec hull \"$@\"";
        let enter = ["netns", "exec", NAMESPACE, "sh", "-c", script, "hull"];
        let mut second = SecondNode {
            hull: spawn(Command::new("ip").args(enter).args(&arguments))?,
            kubectl,
            arguments,
        };
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

    /// kill -9 of its node agent and netd. The shim and the VMs go on.
    pub fn kill(&mut self) -> Result<()> {
        self.hull.kill().context("killing hull node join")?;
        self.hull.wait().context("waiting for hull node join")?;
        Ok(())
    }

    /// Starts them again, on the same machine: the mounts are those that the shim sees.
    pub fn start_again(&mut self) -> Result<()> {
        let shim = PathBuf::from(DIRECTORY).join("run/shim.pid");
        let shim = fs::read_to_string(&shim).with_context(|| shim.display().to_string())?;
        let mut enter = Command::new("nsenter");
        enter
            .arg(format!("--mount=/proc/{}/ns/mnt", shim.trim()))
            .arg(format!("--net=/run/netns/{NAMESPACE}"))
            .arg("hull")
            .args(&self.arguments);
        self.hull = spawn(&mut enter)?;
        Ok(())
    }

    /// What pods leave on it, now.
    pub fn traces(&self) -> Result<Traces> {
        Traces::now(&STATE_DIRS)
    }

    /// Waits until nothing is left on it that was not there `before`.
    pub fn wait_for_no_more(&self, before: &Traces) -> Result<()> {
        before.wait_for_no_more(&STATE_DIRS)
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

/// Starts a program that logs where hull does.
fn spawn(command: &mut Command) -> Result<Child> {
    let log = File::options()
        .create(true)
        .append(true)
        .open(PathBuf::from(DIRECTORY).join("hull.log"))?;
    command
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("starting hull node join")
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
    relay::to_registry(listener);
    Ok(())
}
