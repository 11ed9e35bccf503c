//! Waiting for a guest to come up: the boot lines that the agent sends
//! ([`hull_agent_protocol::boot`]), the end of the VMM, or the time-out, whichever is first.

use crate::error::Error;
use crate::vmm::console;
use crate::vmm::paths::SandboxPaths;
use crate::vmm::{Vm, VmmError};
use hull_agent_protocol::boot::{BootLine, Phase};
use hull_agent_protocol::stream::MAX_LINE;
use hull_vmm_client::exit::ExitReason;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::UnixListener;

/// Of how many vCPUs the error says where they stood.
const VCPUS_TOLD: usize = 2;

/// Why a guest did not come up. The console lines are added by the caller.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// It did not say that it is ready in time.
    #[error(
        "the guest did not become ready within {limit:?}; its last phase was {last_phase}; {vcpus}"
    )]
    TimedOut {
        /// The limit.
        limit: Duration,
        /// What it said last.
        last_phase: String,
        /// Where its first vCPUs stood then.
        vcpus: String,
    },
    /// The VM ended.
    #[error(
        "the VM ended while the guest booted ({reason:?}: {message}); its last phase was {last_phase}"
    )]
    VmEnded {
        /// How.
        reason: ExitReason,
        /// The VMM's sentence.
        message: String,
        /// What the guest said last.
        last_phase: String,
    },
    /// The agent found something wrong.
    #[error("the agent failed after phase {last_phase}: {message}")]
    Agent {
        /// Its error.
        message: String,
        /// What it said last.
        last_phase: String,
    },
}

/// The socket on which the boot connection arrives. Removed on drop.
pub struct BootListener {
    listener: UnixListener,
    paths: SandboxPaths,
}

/// Moments of a boot.
#[derive(Debug, Clone, Copy)]
pub struct BootTimes {
    /// When PID 1 said that it runs.
    pub init: Instant,
}

impl BootListener {
    /// Listens where the VMM, as user `uid`, will connect to.
    pub fn bind(paths: &SandboxPaths, uid: u32) -> Result<Self, Error> {
        let fail = |action| {
            let path = paths.boot.clone();
            move |source| {
                Error::Vmm(VmmError::File {
                    action,
                    path,
                    source,
                })
            }
        };
        let listener = UnixListener::bind(&paths.boot).map_err(fail("listening on"))?;
        std::os::unix::fs::chown(&paths.boot, Some(uid), Some(uid)).map_err(fail("chown"))?;
        Ok(Self {
            listener,
            paths: paths.clone(),
        })
    }

    /// Waits until the agent is ready.
    pub async fn wait(self, vm: &dyn Vm, limit: Duration) -> Result<BootTimes, BootError> {
        let mut progress = Progress::default();
        let outcome = tokio::select! {
            biased;
            outcome = follow(&self.listener, &mut progress) => outcome,
            exit = vm.exited() => Err(Interrupted::Ended(exit.reason, exit.message)),
            () = tokio::time::sleep(limit) => Err(Interrupted::TimedOut),
        };
        let last_phase = || self.last_phase(&progress);
        match outcome {
            Ok(()) => Ok(BootTimes {
                init: progress.init.unwrap_or_else(Instant::now),
            }),
            Err(Interrupted::Agent(message)) => Err(BootError::Agent {
                message,
                last_phase: last_phase(),
            }),
            Err(Interrupted::TimedOut) => Err(BootError::TimedOut {
                limit,
                last_phase: last_phase(),
                vcpus: where_vcpus_stand(vm).await,
            }),
            Err(Interrupted::Ended(reason, message)) => Err(BootError::VmEnded {
                reason,
                message,
                last_phase: last_phase(),
            }),
        }
    }

    /// A guest whose vsock does not work still names its phases on the console.
    fn last_phase(&self, progress: &Progress) -> String {
        let said = progress.phase.map(|phase| phase.name().to_string());
        said.or_else(|| console::last_phase(&self.paths.console))
            .unwrap_or_else(|| "kernel (the agent never spoke)".to_string())
    }
}

impl Drop for BootListener {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.paths.boot);
    }
}

/// Of a guest that does not come up: the first vCPUs, in few words. All go to the log.
async fn where_vcpus_stand(vm: &dyn Vm) -> String {
    match vm.vcpus().await {
        Ok(vcpus) if vcpus.is_empty() => "its vCPUs cannot be stopped".to_string(),
        Ok(vcpus) => {
            tracing::warn!(pid = vm.record().pid, ?vcpus, "a guest does not come up");
            vcpus[..vcpus.len().min(VCPUS_TOLD)].join("; ")
        }
        Err(error) => format!("its vCPUs cannot be asked: {error}"),
    }
}

#[derive(Default)]
struct Progress {
    phase: Option<Phase>,
    init: Option<Instant>,
}

enum Interrupted {
    TimedOut,
    Ended(ExitReason, String),
    Agent(String),
}

/// Reads boot lines until the agent is ready. Connections that break are followed by
/// the next one: the agent may dial again.
async fn follow(listener: &UnixListener, progress: &mut Progress) -> Result<(), Interrupted> {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors, for instance: the time-out ends this.
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let mut reader = BufReader::new(stream);
        loop {
            let mut line = String::new();
            let read = (&mut reader)
                .take(MAX_LINE as u64)
                .read_line(&mut line)
                .await;
            if !matches!(read, Ok(count) if count > 0) {
                break;
            }
            let Ok(said) = serde_json::from_str::<BootLine>(&line) else {
                tracing::warn!("a malformed boot line");
                break;
            };
            tracing::debug!(
                phase = said.phase.name(),
                uptime_ms = said.uptime_ms,
                "guest boot"
            );
            progress.init.get_or_insert_with(Instant::now);
            progress.phase = Some(said.phase);
            if let Some(error) = said.error {
                return Err(Interrupted::Agent(error));
            }
            if said.phase == Phase::Ready {
                return Ok(());
            }
        }
    }
}
