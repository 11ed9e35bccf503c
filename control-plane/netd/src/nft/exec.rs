//! Runs Debian's `nft`. The program is the one well-kept implementation under a licence that the
//! workspace allows: the Rust crates that speak nf_tables' netlink are either GPL or wrap the C
//! library. See docs/netd.md for what a run costs.

use std::ffi::OsString;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// Bounds one run; the first transaction of a large cluster takes about a second.
const RUN_TIMEOUT: Duration = Duration::from_secs(60);
/// Of nft's complaints, this much is kept. It quotes the lines it could not apply.
const COMPLAINT_LIMIT: usize = 2000;

/// Why the kernel's tables could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum NftError {
    /// The program is not there or cannot be executed.
    #[error("cannot run {program}: {source} (Debian package nftables)")]
    Start {
        /// The program.
        program: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Its input or output broke.
    #[error("talking to nft: {0}")]
    Pipe(#[source] std::io::Error),
    /// It did not end.
    #[error("nft did not end within {0:?}")]
    Timeout(Duration),
    /// The transaction was refused; nothing of it is in force.
    #[error("nft refused the transaction: {0}")]
    Refused(String),
}

/// How to run `nft`.
#[derive(Debug, Clone)]
pub struct Nft {
    command: Vec<OsString>,
    timeout: Duration,
}

impl Nft {
    /// `nft` from PATH, in this process' network namespace.
    pub fn new(timeout_scale: f64) -> Self {
        Nft {
            command: vec!["nft".into()],
            timeout: RUN_TIMEOUT.mul_f64(timeout_scale.max(0.01)),
        }
    }

    /// `nft` in a named network namespace.
    pub fn in_namespace(name: &str) -> Self {
        Nft {
            command: ["ip", "netns", "exec", name, "nft"]
                .map(OsString::from)
                .to_vec(),
            timeout: RUN_TIMEOUT,
        }
    }

    /// Applies a transaction: all of it or nothing.
    ///
    /// # Errors
    /// [`NftError`].
    pub async fn apply(&self, transaction: &str) -> Result<(), NftError> {
        self.run(&["-f", "-"], transaction).await.map(|_| ())
    }

    /// Whether the kernel still has a chain of a table.
    ///
    /// # Errors
    /// [`NftError`], except for a table or chain that is not there.
    pub async fn has_chain(&self, table: &str, chain: &str) -> Result<bool, NftError> {
        let mut arguments = vec!["-t", "list", "chain"];
        arguments.extend(table.split(' '));
        arguments.push(chain);
        match self.run(&arguments, "").await {
            Ok(_) => Ok(true),
            Err(NftError::Refused(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn run(&self, arguments: &[&str], input: &str) -> Result<String, NftError> {
        let program = self.command[0].to_string_lossy().into_owned();
        let mut child = Command::new(&self.command[0])
            .args(&self.command[1..])
            .args(arguments)
            // In English, whatever the administrator's language is.
            .env("LC_ALL", "C")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|source| NftError::Start { program, source })?;
        let stdin = child.stdin.take();
        let exchange = async {
            let write = async {
                if let Some(mut stdin) = stdin {
                    // A refusal may close the pipe early; the exit status tells.
                    let _ = stdin.write_all(input.as_bytes()).await;
                }
            };
            let ((), output) = tokio::join!(write, child.wait_with_output());
            output
        };
        let output = tokio::time::timeout(self.timeout, exchange)
            .await
            .map_err(|_| NftError::Timeout(self.timeout))?
            .map_err(NftError::Pipe)?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let mut complaint = String::from_utf8_lossy(&output.stderr).trim().to_string();
        if complaint.len() > COMPLAINT_LIMIT {
            let end = complaint.floor_char_boundary(COMPLAINT_LIMIT);
            complaint.truncate(end);
        }
        Err(NftError::Refused(complaint))
    }
}
