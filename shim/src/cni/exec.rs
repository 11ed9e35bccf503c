//! One execution of one plugin (CNI spec 1.0.0, section 2).

use super::types::PluginFailure;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncWriteExt;

/// How much of a plugin's standard error is kept, bytes.
const MAX_STDERR_BYTES: usize = 4096;
/// Name of the interface that plugins make in the netns.
pub const INTERFACE_NAME: &str = "eth0";

/// CNI_COMMAND.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// ADD.
    Add,
    /// CHECK.
    Check,
    /// DEL.
    Del,
}

impl Command {
    /// As in the environment.
    pub fn name(self) -> &'static str {
        match self {
            Command::Add => "ADD",
            Command::Check => "CHECK",
            Command::Del => "DEL",
        }
    }
}

/// Why a plugin did not do what it was told.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// It is in none of the directories.
    #[error("the CNI plugin {plugin} is in none of {search}")]
    NotFound {
        /// `type`.
        plugin: String,
        /// Directories, colon separated.
        search: String,
    },
    /// It could not be started or talked to.
    #[error("executing the CNI plugin {plugin}: {source}")]
    Run {
        /// `type`.
        plugin: String,
        /// Why.
        source: std::io::Error,
    },
    /// It answered with an error object.
    #[error("the CNI plugin {plugin} failed to {command}: {failure}{stderr}")]
    Failed {
        /// `type`.
        plugin: String,
        /// CNI_COMMAND.
        command: &'static str,
        /// The object.
        failure: PluginFailure,
        /// Its standard error, with a label, or nothing.
        stderr: String,
    },
    /// It failed without an error object.
    #[error("the CNI plugin {plugin} failed to {command}: {status}{stderr}")]
    Died {
        /// `type`.
        plugin: String,
        /// CNI_COMMAND.
        command: &'static str,
        /// How it ended.
        status: std::process::ExitStatus,
        /// Its standard error, with a label, or nothing.
        stderr: String,
    },
    /// It took too long and was killed.
    #[error("the CNI plugin {plugin} did not finish {command} within {limit:?}")]
    TimedOut {
        /// `type`.
        plugin: String,
        /// CNI_COMMAND.
        command: &'static str,
        /// The limit.
        limit: Duration,
    },
}

/// For which container a plugin is executed.
#[derive(Debug, Clone)]
pub struct Target {
    /// CNI_CONTAINERID.
    pub container_id: String,
    /// CNI_NETNS.
    pub netns: PathBuf,
    /// CNI_ARGS.
    pub args: String,
}

/// Where plugins are and how long they may take.
#[derive(Debug, Clone)]
pub struct Executor {
    /// CNI_PATH.
    pub directories: Vec<PathBuf>,
    /// For one execution.
    pub timeout: Duration,
}

impl Executor {
    /// Executes `plugin` with `stdin` and returns what it printed.
    pub async fn execute(
        &self,
        plugin: &str,
        command: Command,
        target: &Target,
        stdin: &[u8],
    ) -> Result<Vec<u8>, ExecError> {
        let run = |source| ExecError::Run {
            plugin: plugin.to_string(),
            source,
        };
        let program = self.find(plugin)?;
        let mut child = tokio::process::Command::new(program)
            .env("CNI_COMMAND", command.name())
            .env("CNI_CONTAINERID", &target.container_id)
            .env("CNI_NETNS", &target.netns)
            .env("CNI_IFNAME", INTERFACE_NAME)
            .env("CNI_ARGS", &target.args)
            .env("CNI_PATH", self.search_path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(run)?;
        let pipe = child.stdin.take();
        let exchange = async {
            if let Some(mut pipe) = pipe {
                match pipe.write_all(stdin).await {
                    // A plugin that fails early need not read its input.
                    Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
                        return Err(error);
                    }
                    _ => {}
                }
            }
            child.wait_with_output().await
        };
        let output = tokio::time::timeout(self.timeout, exchange)
            .await
            .map_err(|_| ExecError::TimedOut {
                plugin: plugin.to_string(),
                command: command.name(),
                limit: self.timeout,
            })?
            .map_err(run)?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        let stderr = stderr_text(&output.stderr);
        match serde_json::from_slice::<PluginFailure>(&output.stdout) {
            Ok(failure) => Err(ExecError::Failed {
                plugin: plugin.to_string(),
                command: command.name(),
                failure,
                stderr,
            }),
            Err(_) => Err(ExecError::Died {
                plugin: plugin.to_string(),
                command: command.name(),
                status: output.status,
                stderr,
            }),
        }
    }

    fn search_path(&self) -> String {
        let texts: Vec<String> = self
            .directories
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        texts.join(":")
    }

    fn find(&self, plugin: &str) -> Result<PathBuf, ExecError> {
        self.directories
            .iter()
            .map(|directory: &PathBuf| Path::new(directory).join(plugin))
            .find(|path| path.is_file())
            .ok_or_else(|| ExecError::NotFound {
                plugin: plugin.to_string(),
                search: self.search_path(),
            })
    }
}

fn stderr_text(bytes: &[u8]) -> String {
    let tail = &bytes[bytes.len().saturating_sub(MAX_STDERR_BYTES)..];
    let text = String::from_utf8_lossy(tail);
    match text.trim() {
        "" => String::new(),
        text => format!("; standard error: {text}"),
    }
}
