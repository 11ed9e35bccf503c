//! What client and guest agent say to each other inside [`crate::frame`]s.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// TCP port of the guest agent inside the node.
pub const AGENT_PORT: u16 = 16_990;

/// Changed whenever client and agent of different builds would not understand each other, or
/// a node of the older build lacks what the newer one relies on.
pub const VERSION: u32 = 2;

/// What the agent writes to the node's console once it listens.
pub const READY_LINE: &str = "testnode: the guest agent listens";

/// What a connection is for. It carries the node's token, so another user of the
/// host who finds the port cannot run commands.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Request {
    /// The node's secret, from its state directory.
    pub token: String,
    /// What to do.
    pub action: Action,
}

/// The verbs of the guest agent.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Answer with [`Exit::Code`] 0: the node is up.
    Ping,
    /// Run a command.
    Run(Command),
}

/// A command to run inside the node.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Command {
    /// Program and arguments; the program is looked up in `env`'s `PATH`.
    pub argv: Vec<String>,
    /// Working directory.
    pub cwd: PathBuf,
    /// The whole environment.
    pub env: BTreeMap<String, String>,
    /// Directories of the host in which changes made after boot must be seen.
    pub live: Vec<PathBuf>,
    /// Rows and columns of the terminal to give the command, instead of pipes.
    pub terminal: Option<(u16, u16)>,
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    /// It exited with this code.
    Code(i32),
    /// This signal killed it.
    Signal(i32),
}

impl Exit {
    /// The exit code a shell would report.
    pub fn shell_code(self) -> i32 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128 + signal,
        }
    }
}

/// What guest init needs to know; written by `up` into the state directory.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GuestConfig {
    /// Host name of the node.
    pub name: String,
    /// Secret for [`Request::token`].
    pub token: String,
    /// The cache directory of the host, always live.
    pub cache: PathBuf,
    /// Unpacked `lib/modules/VERSION` of the node's kernel.
    pub modules: PathBuf,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_maps_to_the_code_a_shell_reports() {
        assert_eq!(Exit::Code(3).shell_code(), 3);
        assert_eq!(Exit::Signal(9).shell_code(), 137);
    }
}
