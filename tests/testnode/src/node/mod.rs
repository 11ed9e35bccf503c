//! The life of a node: up, down, status.
//!
//! ```text
//!   absent ──up──► starting ──agent answers──► ready ──down / QEMU dies──► absent
//!                     └── time-out or QEMU dies: QEMU is ended, the error says why
//! ```
//!
//! State directory `CACHE/testnode/NAME/`: `lock`, `state.json`, `config.json` (holds the
//! token, mode 0600), `console.log`, `qemu.log`, `disk.img`, `share/`.

mod boot;
mod error;
mod files;
mod watch;

use std::fs;
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::Duration;

use crate::cache;
use crate::client::{self, ClientError};
use crate::frame;
use crate::protocol::{self, Action};
use crate::qemu::{self, Options};

pub use error::NodeError;
pub use files::State;

/// How long one question to the agent may take.
const PING_TIMEOUT: Duration = Duration::from_secs(5);
/// How long QEMU may take to end before it is killed.
const STOP_GRACE: Duration = Duration::from_secs(5);
/// Longest node name; it becomes the host name inside.
const MAX_NAME: usize = 40;

/// A node by its name; it need not be up.
#[derive(Debug, Clone)]
pub struct Node {
    name: String,
    directory: PathBuf,
}

impl Node {
    /// The node of that name.
    pub fn new(name: &str) -> Result<Self, NodeError> {
        let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(legal) {
            return Err(NodeError::Name(name.to_owned()));
        }
        let directory = cache::directory()?.join("testnode").join(name);
        Ok(Self {
            name: name.to_owned(),
            directory,
        })
    }

    /// Every node that has a state directory.
    pub fn all() -> Result<Vec<Self>, NodeError> {
        let parent = cache::directory()?.join("testnode");
        let Ok(entries) = fs::read_dir(&parent) else {
            return Ok(Vec::new());
        };
        let mut names: Vec<_> = entries
            .filter_map(Result::ok)
            .filter(|entry| entry.path().join("lock").exists())
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names.iter().map(|name| Self::new(name)).collect()
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Host directory that the node sees read-write at `/run/hull-testnode/share`.
    pub fn share(&self) -> PathBuf {
        self.directory.join("share")
    }

    /// The serial console's log.
    pub fn console(&self) -> PathBuf {
        self.directory.join("console.log")
    }

    /// The state of a QEMU process that runs, if one does.
    pub fn running(&self) -> Result<Option<State>, NodeError> {
        Ok(self.state()?.filter(|state| state.process.is_alive()))
    }

    /// Boots the node unless it is up, and returns once its agent answers.
    pub fn up(&self, options: &Options) -> Result<State, NodeError> {
        if let Some(state) = self.running()?.filter(|state| state.ready)
            && self.ping(&state, PING_TIMEOUT).is_ok()
        {
            self.check_options(&state, options)?;
            return Ok(state);
        }
        let _lock = self.lock()?;
        if let Some(state) = self.running()? {
            if self.check_options(&state, options).is_ok()
                && let Ok(state) = self.wait_ready(state.clone())
            {
                return Ok(state);
            }
            if state.ready && self.ping(&state, PING_TIMEOUT).is_ok() {
                self.check_options(&state, options)?;
            }
            tracing::warn!(
                node = self.name,
                "the node does not answer: starting it anew"
            );
            state.process.end(STOP_GRACE);
        }
        self.clean()?;
        let booted = self.boot(options);
        if booted.is_err() {
            self.clean()?;
        }
        booted
    }

    /// Ends the node and removes what belonged to its life. The share stays.
    pub fn down(&self) -> Result<bool, NodeError> {
        let _lock = self.lock()?;
        let running = self.running()?;
        if let Some(state) = &running {
            state.process.end(STOP_GRACE);
        }
        self.clean()?;
        Ok(running.is_some())
    }

    /// Ends a QEMU process whose start this very process had begun and not finished.
    pub fn abandon_start(&self) {
        if let Ok(Some(state)) = self.running()
            && !state.ready
            && state.starter == std::process::id()
        {
            state.process.end(STOP_GRACE);
        }
    }

    /// Opens a connection to the agent of a node that is up and sends a request.
    pub fn connect(&self, state: &State, action: Action) -> Result<TcpStream, NodeError> {
        let config = self.guest_config()?;
        let request = protocol::Request {
            token: config.token,
            action,
        };
        Ok(client::connect(state.agent_port, &request)?)
    }

    fn ping(&self, state: &State, timeout: Duration) -> Result<(), NodeError> {
        let mut stream = self.connect(state, Action::Ping)?;
        stream
            .set_read_timeout(Some(timeout))
            .map_err(ClientError::Connect)?;
        match frame::read(&mut stream).map_err(ClientError::Frame)? {
            Some(frame) if frame.kind == frame::Kind::Exit => Ok(()),
            _ => Err(NodeError::NotUp(self.name.clone())),
        }
    }

    fn check_options(&self, state: &State, wanted: &Options) -> Result<(), NodeError> {
        let has = &state.options;
        let differs = |wanted: Option<u32>, has: Option<u32>, default: u32| {
            wanted.is_some_and(|value| value != has.unwrap_or(default))
        };
        let what = [
            (
                differs(wanted.memory_mib, has.memory_mib, qemu::DEFAULT_MEMORY_MIB),
                "memory",
            ),
            (differs(wanted.cpus, has.cpus, qemu::DEFAULT_CPUS), "cpus"),
            (
                differs(wanted.disk_gib, has.disk_gib, qemu::DEFAULT_DISK_GIB),
                "disk",
            ),
            (
                !wanted.forwards.iter().all(|one| has.forwards.contains(one)),
                "forwards",
            ),
            (
                !wanted.devices.iter().all(|one| has.devices.contains(one)),
                "devices",
            ),
            (
                !wanted.backends.iter().all(|one| has.backends.contains(one)),
                "back ends",
            ),
            (
                !wanted
                    .kernel_args
                    .iter()
                    .all(|one| has.kernel_args.contains(one)),
                "kernel args",
            ),
            (wanted.isolated && !has.isolated, "isolation"),
            (
                state.protocol != protocol::VERSION,
                "version of hull-testnode",
            ),
        ];
        let what: Vec<_> = what
            .iter()
            .filter(|(bad, _)| *bad)
            .map(|(_, name)| *name)
            .collect();
        if what.is_empty() {
            return Ok(());
        }
        Err(NodeError::Different {
            name: self.name.clone(),
            what: what.join(", "),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::ProcessId;

    #[test]
    fn names_that_could_leave_the_cache_are_refused() {
        for name in ["", "..", "a/b", "UP", "a b", &"x".repeat(MAX_NAME + 1)] {
            assert!(matches!(Node::new(name), Err(NodeError::Name(_))), "{name}");
        }
    }

    #[test]
    fn a_running_node_satisfies_only_what_it_has() {
        let node = Node {
            name: "n".into(),
            directory: "/nonexistent".into(),
        };
        let state = State {
            process: ProcessId { pid: 1, start: 1 },
            agent_port: 1,
            ready: true,
            starter: 1,
            protocol: protocol::VERSION,
            options: Options {
                forwards: vec!["80".parse().unwrap()],
                ..Options::default()
            },
        };
        let with = |port: &str| Options {
            forwards: vec![port.parse().unwrap()],
            ..Options::default()
        };
        assert!(node.check_options(&state, &Options::default()).is_ok());
        assert!(node.check_options(&state, &with("80")).is_ok());
        let error = node.check_options(&state, &with("81")).unwrap_err();
        assert!(error.to_string().contains("forwards"), "{error}");
        let same = Options {
            memory_mib: Some(qemu::DEFAULT_MEMORY_MIB),
            ..Options::default()
        };
        assert!(node.check_options(&state, &same).is_ok());
    }
}
