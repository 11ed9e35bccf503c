//! A second machine: a network namespace with a link to this one, in which `hull node join` runs,
//! or `hull node` and `hull netd`.
//!
//! ```text
//!  this machine                        namespace hull-second
//!  hull up, 172.30.0.1 ── second ════ eth0 ── 172.30.0.2, hull node join
//!  registry 127.0.0.1:5000 ◄── lent ── 127.0.0.1:5000
//! ```

use std::{
    fs::{self, File},
    net::TcpListener,
    os::fd::{AsFd, AsRawFd},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
};

use anyhow::{Context, Result, bail, ensure};
use nix::sched::{CloneFlags, setns};
use serde_json::json;

use crate::{
    cluster::{API_PORT, Cluster, REGISTRY, ends_when_told, tail_of},
    kubectl::{Kubectl, is_ready},
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
/// Port of its netd.
const NETD_PORT: u16 = 10249;
/// Seconds that it may take until it is ready, on hardware.
const READY_S: u64 = 30;

/// The machine. [`SecondNode::stop`] ends it.
pub struct SecondNode {
    /// `hull node join`, or what it is made of, with the names.
    programs: Vec<(&'static str, Child)>,
    kubectl: Kubectl,
    /// The machine's, once a program of it was started again: its child opens them by this file.
    mounts: Option<File>,
    /// Where the API server is.
    server: String,
    /// Of `hull node join`.
    arguments: Vec<String>,
    /// The settings among them.
    settings: Vec<String>,
}

const JOIN: &str = "hull node join";

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
            ("--node-name", NAME),
            ("--node-ip", "172.30.0.2"),
            ("--node-listen", &listen),
            ("--pod-network", "routes"),
        ];
        let own = own.iter().flat_map(|(key, value)| [*key, *value]);
        let mut settings: Vec<String> = own.map(String::from).collect();
        settings.extend(cluster.node_arguments(&directory)?);
        let server = format!("https://{server}:{API_PORT}");
        let invited = ["--token", &token, "--ca-hash", &hash].map(String::from);
        let mut arguments = ["node", "join", &server].map(String::from).to_vec();
        arguments.extend(invited.into_iter().chain(settings.clone()));
        // The namespace has a /sys of its own, which lacks the cgroups.
        let script = "mount -t cgroup2 none /sys/fs/cgroup; exec hull \"$@\"";
        let enter = ["netns", "exec", NAMESPACE, "sh", "-c", script, "hull"];
        let hull = spawn(Command::new("ip").args(enter).args(&arguments))?;
        let mut second = SecondNode {
            programs: vec![(JOIN, hull)],
            kubectl,
            mounts: None,
            server,
            arguments,
            settings,
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
            for (name, program) in &mut self.programs {
                if let Some(status) = program.try_wait()? {
                    bail!("{name} ended with {status}");
                }
            }
            let node = self.kubectl.get("nodes", NAME)?;
            let ready = node.as_ref().is_some_and(is_ready).then_some(());
            Ok(ready.ok_or_else(|| format!("{node:?}")))
        })
    }

    /// kill -9 of its node agent and netd. The shim and the VMs go on.
    pub fn kill(&mut self) -> Result<()> {
        for (name, mut program) in self.programs.drain(..) {
            program.kill().with_context(|| format!("killing {name}"))?;
            program.wait()?;
        }
        Ok(())
    }

    /// Starts them again, on the same machine.
    pub fn start_again(&mut self) -> Result<()> {
        self.mounts = Some(mounts()?);
        let hull = spawn(self.within()?.args(&self.arguments))?;
        self.programs = vec![(JOIN, hull)];
        Ok(())
    }

    /// Ends them well, and runs their parts as programs of their own: `hull node` and `hull netd`,
    /// each with the certificate that the node has got for it.
    pub fn take_apart(&mut self) -> Result<()> {
        self.mounts = Some(mounts()?);
        self.end()?;
        let pki = Path::new(DIRECTORY).join("data/node-pki");
        let (serving, key) = split_pair("serving")?;
        let certificates = [
            ("--node-cert", serving),
            ("--node-key", key),
            ("--node-client-ca", pki.join("ca.crt")),
        ];
        let mut node = self.within()?;
        node.arg("node").args(&self.settings);
        node.arg("--kubeconfig").arg(self.kubeconfig("client")?);
        for (flag, file) in certificates {
            node.arg(flag).arg(file);
        }
        let mut netd = self.within()?;
        netd.arg("netd").args(&self.settings);
        netd.arg("--kubeconfig").arg(self.kubeconfig("netd")?);
        self.programs = vec![
            ("hull node", spawn(&mut node)?),
            ("hull netd", spawn(&mut netd)?),
        ];
        Ok(())
    }

    /// The program `hull` on the machine.
    fn within(&self) -> Result<Command> {
        let mounts = self.mounts.as_ref().context("no mounts")?.as_raw_fd();
        let this = std::process::id();
        let mut enter = Command::new("nsenter");
        enter
            .arg(format!("--mount=/proc/{this}/fd/{mounts}"))
            .arg(format!("--net=/run/netns/{NAMESPACE}"))
            .arg("hull");
        Ok(enter)
    }

    /// A kubeconfig with one of the node's certificates.
    fn kubeconfig(&self, pair: &str) -> Result<PathBuf> {
        let (certificate, key) = split_pair(pair)?;
        let ca = Path::new(DIRECTORY).join("data/node-pki/ca.crt");
        let content = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "it", "cluster": {"server": self.server, "certificate-authority": ca}}],
            "users": [{"name": "it", "user": {"client-certificate": certificate, "client-key": key}}],
            "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
            "current-context": "it",
        });
        let file = Path::new(DIRECTORY).join(format!("{pair}.kubeconfig"));
        fs::write(&file, content.to_string())?;
        Ok(file)
    }

    /// What its netd answers at this path.
    pub fn ask_netd(&self, path: &str) -> Result<String> {
        let url = format!("http://127.0.0.1:{NETD_PORT}{path}");
        wait::until(&format!("an answer of {url}"), READY_S, || {
            let ask = ["netns", "exec", NAMESPACE, "curl", "-sS", "--fail", &url];
            let output = Command::new("ip").args(ask).output()?;
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            Ok(if output.status.success() {
                Ok(text(&output.stdout))
            } else {
                Err(text(&output.stderr))
            })
        })
    }

    /// SIGTERM; fails if one of the programs does not end well.
    fn end(&mut self) -> Result<()> {
        let ended: Vec<Result<()>> = self
            .programs
            .drain(..)
            .map(|(name, mut program)| ends_when_told(&mut program).context(name))
            .collect();
        ended.into_iter().collect()
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
        let ended = self.end();
        self.kubectl
            .run(&["delete", "node", NAME, "--ignore-not-found"])?;
        ip("link del second")?;
        ip(&format!("netns del {NAMESPACE}"))?;
        ended
    }
}

/// The mounts of the machine, which its shim sees.
fn mounts() -> Result<File> {
    let shim = PathBuf::from(DIRECTORY).join("run/shim.pid");
    let shim = fs::read_to_string(&shim).with_context(|| shim.display().to_string())?;
    Ok(File::open(format!("/proc/{}/ns/mnt", shim.trim()))?)
}

/// The certificate and the key of one of the node's pairs, as files of their own.
fn split_pair(pair: &str) -> Result<(PathBuf, PathBuf)> {
    let both = Path::new(DIRECTORY).join(format!("data/node-pki/{pair}.pem"));
    let text = fs::read_to_string(&both).with_context(|| both.display().to_string())?;
    let start = text.find("-----BEGIN CERTIFICATE");
    let (key, certificate) = text.split_at(start.context("no certificate")?);
    let files = (both.with_extension("crt"), both.with_extension("key"));
    fs::write(&files.0, certificate)?;
    fs::write(&files.1, key)?;
    Ok(files)
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
