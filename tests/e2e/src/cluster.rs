//! A one-machine cluster of the test's own: `hull up` in a directory of its own, on
//! ports of its own, with the local registry of sample images.

use std::{
    fs::{self, File},
    io::{Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use hull_testnode::guest::Guest as GuestFiles;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    guest::{self, Guest},
    journal::{self, Noted},
    kubectl::Kubectl,
    leaks::Traces,
    processes::{kill_named, pids_of},
    wait,
};

/// Port of the API server under test.
pub(crate) const API_PORT: u16 = 16443;
/// Where the sample images are served.
pub(crate) const REGISTRY: &str = "127.0.0.1:5000";
/// Port of the node agent under test.
const NODE_PORT: u16 = 20250;
/// Seconds that a guest may take until its agent answers, on hardware.
const GUEST_BOOT_S: u64 = 5;
/// Seconds that `hull up` may take until its node is ready, on hardware.
const READY_S: u64 = 60;
/// Bytes of the daemons' log shown with a failure.
const LOG_TAIL_BYTES: usize = 6000;

/// The cluster under test. [`Cluster::stop`] ends it.
pub struct Cluster {
    /// kubectl with administrator's rights.
    pub kubectl: Kubectl,
    dir: PathBuf,
    hull: Option<Child>,
    /// Where the API server listens.
    listen: &'static str,
    /// How pods of other nodes are reached.
    pod_network: &'static str,
}

/// `kubectl logs --follow` in the background.
pub struct Follower(Child);

impl Cluster {
    /// Starts everything and waits until the node is ready.
    pub fn start() -> Result<Cluster> {
        let dir = PathBuf::from("/var/lib/hull-e2e");
        if dir.exists() {
            fs::remove_dir_all(&dir).with_context(|| format!("removing {}", dir.display()))?;
        }
        fs::create_dir_all(dir.join("cni/net.d"))?;
        fs::create_dir_all(dir.join("cni/bin"))?;
        write_executable(&dir.join("cni/bin/broken"), BROKEN_PLUGIN)?;
        fs::write(dir.join("cni/net.d/10-test.conflist"), CONFLIST)?;
        Guest::Agent.install(&dir)?;
        registry("start")?;
        let kubectl = Kubectl::new(&dir.join("kubeconfig"));
        let mut cluster = Cluster {
            kubectl,
            dir,
            hull: None,
            listen: "127.0.0.1",
            pod_network: "auto",
        };
        cluster.start_hull().context("starting hull up")?;
        Ok(cluster)
    }

    /// Starts `hull up` (again) and waits until its node is ready.
    pub fn start_hull(&mut self) -> Result<()> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.dir.join("hull.log"))?;
        let child = Command::new("hull")
            .arg("up")
            .arg("--kubeconfig")
            .arg(self.dir.join("kubeconfig"))
            .args(["--listen", &format!("{}:{API_PORT}", self.listen)])
            .args(["--node-listen", &format!("0.0.0.0:{NODE_PORT}")])
            .args(["--pod-network", self.pod_network])
            .args(self.node_arguments(&self.dir)?)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("starting the hull program")?;
        self.hull = Some(child);
        wait::until("the node to be ready", READY_S, || {
            if let Some(status) = self
                .hull
                .as_mut()
                .and_then(|hull| hull.try_wait().ok().flatten())
            {
                bail!("hull up ended with {status}: {}", self.log_tail());
            }
            if !self.dir.join("kubeconfig").exists() {
                return Ok(Err("no kubeconfig".into()));
            }
            // It does not serve at once.
            Ok(match self.kubectl.nodes_ready() {
                Ok(seen) => seen,
                Err(error) => Err(format!("{error:#}")),
            })
        })
    }

    /// What every node of the cluster is started with, its files below `dir`.
    pub(crate) fn node_arguments(&self, dir: &Path) -> Result<Vec<String>> {
        let kernel = GuestFiles::in_cache()?.kernel.display().to_string();
        let path = |name: &str| dir.join(name).display().to_string();
        let initramfs = self.dir.join(guest::INITRAMFS).display().to_string();
        let arguments = [
            ("--data-dir", path("data")),
            ("--run-dir", path("run")),
            ("--cni-conf-dir", path("cni/net.d")),
            ("--cni-bin-dir", path("cni/bin")),
            ("--cni-bin-dir", "/usr/lib/cni".into()),
            ("--guest-kernel", kernel),
            ("--guest-initramfs", initramfs),
            ("--guest-boot-timeout", GUEST_BOOT_S.to_string()),
            ("--registry-mirror", format!("docker.io=http://{REGISTRY}")),
        ];
        let pairs = arguments.into_iter();
        Ok(pairs.flat_map(|(key, value)| [key.into(), value]).collect())
    }

    /// The newest lines of the daemons' log.
    pub fn log_tail(&self) -> String {
        let log = tail_of(&self.dir.join("hull.log"));
        format!("--- log of hull up:\n{log}")
    }

    /// Starts `hull up` anew so that other machines reach its API server and its pods, from then
    /// on.
    pub fn open_to_others(&mut self) -> Result<()> {
        self.end_hull()?;
        (self.listen, self.pod_network) = ("0.0.0.0", "routes");
        self.start_hull()
    }

    fn end_hull(&mut self) -> Result<()> {
        match self.hull.take() {
            Some(mut hull) => ends_when_told(&mut hull).context("hull up"),
            None => Ok(()),
        }
    }

    /// The body of `GET /` from a pod.
    pub fn http_get(&self, address: &str, port: u16) -> Result<String> {
        wait::until(&format!("an answer from {address}:{port}"), 10, || {
            let ask = || -> std::io::Result<String> {
                let mut stream = TcpStream::connect((address, port))?;
                stream.set_read_timeout(Some(Duration::from_secs(20)))?;
                write!(stream, "GET / HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
                let mut answer = String::new();
                stream.read_to_string(&mut answer)?;
                Ok(answer)
            };
            Ok(ask().map_err(|error| error.to_string()))
        })
    }

    /// What pods leave on the node, now.
    pub fn traces(&self) -> Result<Traces> {
        Traces::now(&self.state_dirs())
    }

    /// Waits until nothing is left on the node that was not there `before`.
    pub fn wait_for_no_more(&self, before: &Traces) -> Result<()> {
        before.wait_for_no_more(&self.state_dirs())
    }

    /// The same while the pod is there and waits for another sandbox.
    pub fn wait_for_no_more_sandboxes(&self, before: &Traces) -> Result<()> {
        before.wait_for_no_more_sandboxes(&self.state_dirs())
    }

    fn state_dirs(&self) -> [&'static str; 2] {
        ["/var/lib/hull-e2e/data", "/var/lib/hull-e2e/run"]
    }

    /// What hull-shim has on disk about the pods whose names begin so, now.
    pub fn noted(&self, prefix: &str) -> Vec<Noted> {
        journal::pods(&self.dir.join("data/shim/sandboxes"), prefix)
    }

    /// Waits until one of these pods is at a moment of its life, and tells which. Looks often:
    /// moments pass.
    pub fn pod_at(
        &self,
        prefix: &str,
        what: &str,
        moment: impl Fn(&Noted) -> bool,
    ) -> Result<Noted> {
        wait::closely(&format!("a pod {prefix}... {what}"), 60, || {
            let all = self.noted(prefix);
            let found = all.iter().find(|pod| moment(pod)).cloned();
            Ok(found.ok_or_else(|| format!("{all:?}")))
        })
    }

    /// A benchmark of `hull-bench` on this cluster, as small as can be: what it prints.
    pub fn bench(&self, benchmark: &str) -> Result<String> {
        let output = Command::new("hull-bench")
            .arg(benchmark)
            .args(["--sandboxes", "1", "--pods", "1", "--cri-socket"])
            .arg(self.dir.join("run/shim.sock"))
            .env("KUBECONFIG", self.kubectl.kubeconfig())
            .output()
            .context("running hull-bench")?;
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{benchmark}: {printed}{said}");
        Ok(printed)
    }

    /// Follows a pod's log in the background.
    pub fn follow_logs(&self, pod: &str) -> Result<Follower> {
        let child = Command::new("kubectl")
            .arg("--kubeconfig")
            .arg(self.dir.join("kubeconfig"))
            .args(["logs", "--follow", pod])
            .stdout(Stdio::piped())
            .spawn()
            .context("starting kubectl logs")?;
        Ok(Follower(child))
    }

    /// What the VMs of pods created from now on boot.
    pub fn boot(&self, guest: Guest) -> Result<()> {
        guest.install(&self.dir)
    }

    /// Puts a CNI configuration in front whose plugin always fails.
    pub fn break_cni(&self) -> Result<()> {
        fs::write(
            self.dir.join("cni/net.d/00-broken.conflist"),
            BROKEN_CONFLIST,
        )
        .context("writing the broken conflist")
    }

    /// Takes it away again.
    pub fn mend_cni(&self) -> Result<()> {
        fs::remove_file(self.dir.join("cni/net.d/00-broken.conflist"))
            .context("removing the broken conflist")
    }

    /// kill -9 of hull-shim.
    pub fn kill_shim(&self) -> Result<()> {
        ensure!(kill_named("hull-shim")? > 0, "no hull-shim runs");
        Ok(())
    }

    /// Waits until a shim serves again.
    pub fn shim_is_back(&self) -> Result<()> {
        wait::until("hull-shim to be back", 20, || {
            Ok(if pids_of("hull-shim")?.is_empty() {
                Err("not running".into())
            } else {
                Ok(())
            })
        })
    }

    /// kill -9 of every VM.
    pub fn kill_vmms(&self) -> Result<()> {
        ensure!(kill_named("hull-vmm")? > 0, "no hull-vmm runs");
        Ok(())
    }

    /// kill -9 of what serves host directories to VMs.
    pub fn kill_file_servers(&self) -> Result<()> {
        ensure!(kill_named("hull-fsd")? > 0, "no hull-fsd runs");
        Ok(())
    }

    /// kill -9 of the control plane and node agent.
    pub fn kill_hull(&mut self) -> Result<()> {
        let mut hull = self.hull.take().context("hull up does not run")?;
        hull.kill().context("killing hull up")?;
        hull.wait().context("waiting for hull up")?;
        Ok(())
    }

    /// Ends everything; fails if `hull up` did not end well.
    pub fn stop(mut self) -> Result<()> {
        let ended = self.end_hull();
        for name in ["hull-shim", "hull-vmm"] {
            kill_named(name)?;
        }
        ended
    }
}

impl Follower {
    /// Everything it printed until the log ended.
    pub fn wait_for_end(&mut self) -> Result<String> {
        let mut text = String::new();
        self.0
            .stdout
            .take()
            .context("read already")?
            .read_to_string(&mut text)?;
        self.0.wait()?;
        Ok(text)
    }
}

/// SIGTERM, upon which a daemon ends with status 0.
pub(crate) fn ends_when_told(daemon: &mut Child) -> Result<()> {
    kill(Pid::from_raw(daemon.id() as i32), Signal::SIGTERM).context("sending SIGTERM")?;
    let status = daemon.wait()?;
    ensure!(status.success(), "ended with {status} after SIGTERM");
    Ok(())
}

/// The newest lines of a log.
pub(crate) fn tail_of(path: &Path) -> String {
    let log = fs::read_to_string(path).unwrap_or_default();
    let start = (0..=log.len())
        .rev()
        .find(|n| log.len() - n >= LOG_TAIL_BYTES && log.is_char_boundary(*n));
    log[start.unwrap_or(0)..].to_owned()
}

/// `images/registry.sh VERB`.
fn registry(verb: &str) -> Result<()> {
    // Asked when run: what compiled this may have been another checkout.
    let package = std::env::var_os("CARGO_MANIFEST_DIR").context("not run by cargo")?;
    let script = Path::new(&package).join("../../images/registry.sh");
    let status = Command::new(&script)
        .arg(verb)
        .stdin(Stdio::null())
        .status();
    let status = status.with_context(|| format!("running {}", script.display()))?;
    ensure!(
        status.success(),
        "{} {verb} ended with {status}",
        script.display()
    );
    Ok(())
}

fn write_executable(path: &Path, text: &str) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::write(path, text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("chmod {}", path.display()))
}

/// A network of the test's own, which Hull leaves as it is; its addresses are those that the first
/// node of a cluster is given.
const CONFLIST: &str = r#"{
  "cniVersion": "0.4.0", "name": "e2e",
  "plugins": [{
    "type": "bridge", "bridge": "hull-e2e", "isGateway": true,
    "ipam": {"type": "host-local", "dataDir": "/var/lib/hull-e2e/ipam", "ranges": [[{"subnet": "10.42.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}
  }]
}"#;

const BROKEN_CONFLIST: &str =
    r#"{"cniVersion": "0.4.0", "name": "broken", "plugins": [{"type": "broken"}]}"#;

/// A CNI plugin that fails ADD as the CNI specification prescribes.
const BROKEN_PLUGIN: &str = r#"#!/bin/sh
cat >/dev/null
case $CNI_COMMAND in
VERSION) echo '{"cniVersion":"0.4.0","supportedVersions":["0.4.0"]}' ;;
DEL) ;;
*) echo '{"cniVersion":"0.4.0","code":100,"msg":"broken on purpose"}'; exit 1 ;;
esac
"#;
