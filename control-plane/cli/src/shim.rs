//! hull-shim as a child: started, restarted when it dies, asked to end at shutdown. Pods run on
//! without it; a shim that an earlier `hull` left behind is replaced.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use hull_client::timeouts::scaled;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;

use crate::cni::find_program;
use crate::files::{make_private_dir, write_atomically};
use crate::settings::Resolved;
use crate::shim_config;

/// The program's name, also as the kernel shows it.
const PROGRAM: &str = "hull-shim";
/// Delays before a restart: the first, and the longest.
const RESTART_INITIAL: Duration = Duration::from_millis(200);
const RESTART_MAX: Duration = Duration::from_secs(10);
/// A shim that ran for so long starts its delays anew.
const STABLE_AFTER: Duration = Duration::from_secs(10);
/// How long a shim may take to end after SIGTERM, before scaling.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// The supervised shim.
pub struct Shim {
    program: PathBuf,
    config: PathBuf,
    pid_file: PathBuf,
}

impl Shim {
    /// Writes the shim's settings and replaces one that still runs.
    pub async fn prepare(settings: &Resolved) -> anyhow::Result<Self> {
        let program = locate(settings)?;
        make_private_dir(&settings.run_dir)?;
        let config = match &settings.shim_config {
            Some(config) => config.clone(),
            None => {
                let path = settings.data_dir.join("shim.toml");
                write_atomically(&path, &shim_config::generate(settings)?, 0o600)?;
                path
            }
        };
        let shim = Shim {
            program,
            config,
            pid_file: settings.run_dir.join("shim.pid"),
        };
        shim.replace_orphan().await?;
        Ok(shim)
    }

    /// Ends a shim whose parent was killed. Its successor adopts the pods.
    async fn replace_orphan(&self) -> anyhow::Result<()> {
        let Ok(text) = std::fs::read_to_string(&self.pid_file) else {
            return Ok(());
        };
        let Ok(number) = text.trim().parse::<i32>() else {
            return Ok(());
        };
        if !is_shim(number) {
            return Ok(());
        }
        let pid = Pid::from_raw(number);
        tracing::info!(
            pid = number,
            "replacing the hull-shim that an earlier hull left"
        );
        let _ = kill(pid, Signal::SIGTERM);
        let (begun, patience) = (Instant::now(), scaled(STOP_TIMEOUT));
        while is_shim(number) {
            if begun.elapsed() > patience * 2 {
                bail!("hull-shim (process {number}) does not end");
            }
            if begun.elapsed() > patience {
                let _ = kill(pid, Signal::SIGKILL);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    fn start(&self) -> anyhow::Result<Child> {
        let child = Command::new(&self.program)
            .arg("--config")
            .arg(&self.config)
            .stdin(std::process::Stdio::null())
            .spawn()
            .with_context(|| format!("start {}", self.program.display()))?;
        if let Some(pid) = child.id() {
            write_atomically(&self.pid_file, &pid.to_string(), 0o600)?;
            tracing::info!(pid, config = %self.config.display(), "hull-shim started");
        }
        Ok(child)
    }

    /// Keeps the shim running until `shutdown`.
    pub async fn supervise(self, shutdown: CancellationToken) {
        let mut delay = RESTART_INITIAL;
        while !shutdown.is_cancelled() {
            let begun = Instant::now();
            match self.start() {
                Ok(mut child) => {
                    tokio::select! {
                        status = child.wait() => match status {
                            Ok(status) => tracing::error!(%status, "hull-shim ended, starting it again"),
                            Err(error) => tracing::error!(%error, "hull-shim cannot be waited for"),
                        },
                        () = shutdown.cancelled() => {
                            stop(child).await;
                            let _ = std::fs::remove_file(&self.pid_file);
                            return;
                        }
                    }
                }
                Err(error) => tracing::error!("{error:#}"),
            }
            delay = if begun.elapsed() > STABLE_AFTER {
                RESTART_INITIAL
            } else {
                delay
            };
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                () = shutdown.cancelled() => return,
            }
            delay = (delay * 2).min(RESTART_MAX);
        }
    }
}

async fn stop(mut child: Child) {
    if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
    }
    if tokio::time::timeout(scaled(STOP_TIMEOUT), child.wait())
        .await
        .is_err()
    {
        tracing::warn!("hull-shim does not end, killing it");
        let _ = child.kill().await;
    }
}

/// Whether a process exists and is a shim, not something else that got its number.
fn is_shim(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let Some((head, tail)) = stat.rsplit_once(") ") else {
        return false;
    };
    head.ends_with(&format!("({PROGRAM}")) && !tail.starts_with('Z')
}

/// The program: as set, beside this one, or in PATH.
pub fn locate(settings: &Resolved) -> anyhow::Result<PathBuf> {
    if let Some(program) = &settings.shim {
        return Ok(program.clone());
    }
    let beside = std::env::current_exe()
        .ok()
        .and_then(|own| own.parent().map(|directory: &Path| directory.join(PROGRAM)));
    beside
        .filter(|path| path.is_file())
        .or_else(|| find_program(PROGRAM))
        .context("hull-shim is neither beside hull nor in PATH: give --shim")
}
