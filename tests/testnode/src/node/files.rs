//! A node's state directory.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;

use serde::{Deserialize, Serialize};

use super::{Node, NodeError};
use crate::cache::{self, Lock, io_error};
use crate::process::ProcessId;
use crate::protocol::GuestConfig;
use crate::qemu::Options;

/// What QEMU says, and the serial console.
const LOGS: [&str; 2] = ["qemu.log", "console.log"];
/// Lines of console and QEMU output that an error shows.
const TAIL_LINES: usize = 30;

/// What is kept about a QEMU process.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct State {
    /// QEMU.
    pub process: ProcessId,
    /// Port on 127.0.0.1 that leads to the agent.
    pub agent_port: u16,
    /// Whether the agent has answered.
    pub ready: bool,
    /// Process that started it; it alone may abandon the start.
    pub starter: u32,
    /// [`VERSION`](crate::protocol::VERSION) of the program that started it, which is its agent, too.
    #[serde(default)]
    pub protocol: u32,
    /// What it was made of.
    pub options: Options,
}

impl Node {
    pub(super) fn lock(&self) -> Result<Lock, NodeError> {
        cache::create_directory(&self.directory)?;
        Ok(cache::lock(&self.directory.join("lock"))?)
    }

    pub(super) fn state(&self) -> Result<Option<State>, NodeError> {
        let path = self.directory.join("state.json");
        let Ok(bytes) = fs::read(&path) else {
            return Ok(None);
        };
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|source| NodeError::State { path, source })
    }

    pub(super) fn write_state(&self, state: &State) -> Result<(), NodeError> {
        let path = self.directory.join("state.json");
        let bytes = serde_json::to_vec_pretty(state).map_err(|source| NodeError::State {
            path: path.clone(),
            source,
        })?;
        Ok(cache::write_atomically(&path, &bytes)?)
    }

    pub(super) fn guest_config(&self) -> Result<GuestConfig, NodeError> {
        let path = self.directory.join("config.json");
        let bytes = fs::read(&path).map_err(io_error("reading", &path))?;
        serde_json::from_slice(&bytes).map_err(|source| NodeError::State { path, source })
    }

    pub(super) fn write_config(&self, config: &GuestConfig) -> Result<(), NodeError> {
        let path = self.directory.join("config.json");
        let bytes = serde_json::to_vec(config).map_err(|source| NodeError::State {
            path: path.clone(),
            source,
        })?;
        self.remove("config.json")?;
        let mut file = File::options()
            .create_new(true)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(io_error("creating", &path))?;
        file.write_all(&bytes).map_err(io_error("writing", &path))?;
        Ok(())
    }

    pub(super) fn clean(&self) -> Result<(), NodeError> {
        for name in ["state.json", "config.json", "disk.img"] {
            self.remove(name)?;
        }
        Ok(())
    }

    pub(super) fn remove(&self, name: &str) -> Result<(), NodeError> {
        let path = self.directory.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(io_error("removing", &path)(error).into())
            }
            _ => Ok(()),
        }
    }

    /// What the last QEMU and its guest said stays readable beside the new logs.
    pub(super) fn keep_previous_logs(&self) -> Result<(), NodeError> {
        for name in LOGS {
            let path = self.directory.join(name);
            match fs::rename(&path, self.directory.join(format!("previous-{name}"))) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(io_error("renaming", &path)(error).into());
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Why a command's connection ended before the command: QEMU's state and last words.
    pub fn lost(&self) -> NodeError {
        match self.state() {
            Ok(Some(state)) if state.process.is_alive() => NodeError::Disconnected {
                name: self.name.clone(),
                log: self.tail(),
            },
            _ => self.died(),
        }
    }

    pub(super) fn died(&self) -> NodeError {
        NodeError::Died {
            name: self.name.clone(),
            log: self.tail(),
        }
    }

    pub(super) fn tail(&self) -> String {
        let mut text = String::new();
        for name in LOGS {
            let bytes = fs::read(self.directory.join(name)).unwrap_or_default();
            let log = String::from_utf8_lossy(&bytes);
            // QEMU says at every start what of the EPYC model its software CPU lacks.
            let lines: Vec<_> = log
                .lines()
                .filter(|line| !line.contains("TCG doesn't support"))
                .collect();
            for line in lines.iter().skip(lines.len().saturating_sub(TAIL_LINES)) {
                text.push_str(&format!("  {line}\n"));
            }
        }
        text
    }
}
