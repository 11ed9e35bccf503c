//! `hull server` as a process of the benchmark's own, and what /proc tells of it.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::Context;
use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};
use tempfile::TempDir;
use tokio::process::{Child, Command};

/// Longest start, with all objects in the store.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// How often a server that starts is asked.
const START_POLL: Duration = Duration::from_millis(5);
/// Between two looks at a server's memory while it comes to rest.
const SETTLE_INTERVAL: Duration = Duration::from_secs(3);
/// It is at rest when it changes by less, KiB.
const SETTLED_KIB: u64 = 1024;
/// Longest wait for that.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(120);
/// Ticks per second of the times in /proc/PID/stat, which is the same on all x86-64.
const USER_HZ: f64 = 100.0;
/// Where it listens.
const LISTEN: &str = "127.0.0.1:16443";

/// Where a server keeps its data; gone when this is dropped.
pub struct Place {
    folder: TempDir,
    /// `--store`, if it is not in the folder.
    store: Option<String>,
}

/// A server that answers.
pub struct Server {
    process: Child,
    pub client: Client,
    pub config: kube::Config,
    /// From starting the process to its being ready.
    pub took: Duration,
}

impl Place {
    pub fn new(store: Option<String>) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir().context("making a folder for the server")?;
        Ok(Self { folder, store })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts a server on what is here and waits until it is ready.
    pub async fn start(&self) -> anyhow::Result<Server> {
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.path("log"))
            .context("opening the server's log")?;
        let mut command = Command::new("hull");
        command
            .args(["server", "--listen", LISTEN])
            .arg("--data-dir")
            .arg(self.path("data"))
            .arg("--run-dir")
            .arg(self.path("run"))
            .arg("--kubeconfig")
            .arg(self.path("kubeconfig"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true);
        if let Some(store) = &self.store {
            command.args(["--store", store]);
        }
        let begun = Instant::now();
        let mut process = command.spawn().context("starting hull (PATH)")?;
        loop {
            if let Ok((config, client)) = self.connect().await
                && is_ready(&client).await
            {
                let took = begun.elapsed();
                return Ok(Server {
                    process,
                    client,
                    config,
                    took,
                });
            }
            let ended = process.try_wait()?;
            if ended.is_some() || begun.elapsed() > START_TIMEOUT {
                let log = fs::read_to_string(self.path("log")).unwrap_or_default();
                anyhow::bail!("hull server is not ready ({ended:?}):\n{log}");
            }
            tokio::time::sleep(START_POLL).await;
        }
    }

    async fn connect(&self) -> anyhow::Result<(kube::Config, Client)> {
        let kubeconfig = Kubeconfig::read_from(self.path("kubeconfig"))?;
        let options = KubeConfigOptions::default();
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await?;
        let client = Client::try_from(config.clone())?;
        Ok((config, client))
    }
}

async fn is_ready(client: &Client) -> bool {
    let request = http::Request::get("/readyz").body(Vec::new());
    match request {
        Ok(request) => client.request_text(request).await.is_ok(),
        Err(_) => false,
    }
}

impl Server {
    /// SIGTERM, and waits for the end.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.pid()?)?);
        let pid = pid.context("no process id")?;
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        self.process.wait().await.context("waiting for hull")?;
        Ok(())
    }

    fn pid(&self) -> anyhow::Result<u32> {
        self.process.id().context("hull has ended")
    }

    /// Resident memory, KiB.
    pub fn resident_kib(&self) -> anyhow::Result<u64> {
        self.status("VmRSS:")
    }

    /// Waits until what is resident hardly changes any more: the informers of scheduler and
    /// controllers have filled, and what that took is given back.
    pub async fn settle(&self) -> anyhow::Result<()> {
        let begun = Instant::now();
        let mut before = self.resident_kib()?;
        while begun.elapsed() < SETTLE_TIMEOUT {
            tokio::time::sleep(SETTLE_INTERVAL).await;
            let now = self.resident_kib()?;
            if now.abs_diff(before) < SETTLED_KIB {
                return Ok(());
            }
            before = now;
        }
        anyhow::bail!("the server's memory does not come to rest")
    }

    /// The most that was resident since [`Self::forget_peak`], KiB.
    pub fn peak_kib(&self) -> anyhow::Result<u64> {
        self.status("VmHWM:")
    }

    /// Makes what is resident now the peak (proc(5), `clear_refs`).
    pub fn forget_peak(&self) -> anyhow::Result<()> {
        let path = format!("/proc/{}/clear_refs", self.pid()?);
        fs::write(&path, "5").with_context(|| format!("writing {path}"))
    }

    fn status(&self, field: &str) -> anyhow::Result<u64> {
        let path = format!("/proc/{}/status", self.pid()?);
        let text = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
        let line = text.lines().find_map(|line| line.strip_prefix(field));
        let number = line.and_then(|rest| rest.split_ascii_whitespace().next());
        let number = number.with_context(|| format!("{path} has no {field}"))?;
        Ok(number.parse()?)
    }

    /// CPU time that it has used, all threads.
    pub fn cpu_time(&self) -> anyhow::Result<Duration> {
        let path = format!("/proc/{}/stat", self.pid()?);
        let text = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
        ticks_of(&text)
            .map(|ticks| Duration::from_secs_f64(ticks as f64 / USER_HZ))
            .with_context(|| format!("{path} cannot be read: {text}"))
    }
}

/// utime and stime of a line of /proc/PID/stat; the name before them may hold blanks.
fn ticks_of(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_user_and_system_of_a_name_with_blanks() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194560 100 0 0 0 250 30 9 9 20 0 4 0 100 1 2";
        assert_eq!(ticks_of(stat), Some(280));
    }
}
