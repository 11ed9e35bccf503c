//! What the API server says, through one `kubectl proxy` that stays: a program started for every
//! look would take the processor from the VMs that are waited for.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::wait;

/// Seconds that `kubectl proxy` may take until it listens, on hardware.
const LISTENS_S: u64 = 5;
/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(60);

/// `kubectl proxy` on a unix socket; ends with the value.
#[derive(Debug)]
pub(crate) struct Proxy {
    child: Child,
    socket: PathBuf,
}

impl Proxy {
    /// Starts one that uses the kubeconfig, its socket beside it.
    pub(crate) fn start(kubeconfig: &Path) -> Result<Proxy> {
        let socket = kubeconfig.with_extension("proxy");
        let child = Command::new("kubectl")
            .arg("--kubeconfig")
            .arg(kubeconfig)
            .args(["proxy", "--unix-socket"])
            .arg(&socket)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            // Of a server that is away its answers tell too.
            .stderr(Stdio::null())
            .spawn()
            .context("starting kubectl proxy")?;
        let mut proxy = Proxy { child, socket };
        wait::until("kubectl proxy to listen", LISTENS_S, || {
            if let Some(status) = proxy.child.try_wait()? {
                bail!("kubectl proxy ended with {status}");
            }
            Ok(match UnixStream::connect(&proxy.socket) {
                Ok(_) => Ok(()),
                Err(error) => Err(error.to_string()),
            })
        })?;
        Ok(proxy)
    }

    /// What is at a path of the API; `None` when there is nothing.
    pub(crate) fn get(&self, path: &str) -> Result<Option<Value>> {
        let (code, body) = self
            .ask(path)
            .with_context(|| format!("GET {path} through kubectl proxy"))?;
        match code {
            200 => serde_json::from_str(&body)
                .with_context(|| format!("{path} is not JSON: {body}"))
                .map(Some),
            404 => Ok(None),
            code => bail!("GET {path}: {code}: {body}"),
        }
    }

    /// The status and body of an answer.
    fn ask(&self, path: &str) -> Result<(u16, String)> {
        let mut stream = UnixStream::connect(&self.socket)?;
        stream.set_read_timeout(Some(ANSWER))?;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        let answer = String::from_utf8(answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("no answer")?;
        let code = head.split(' ').nth(1).context("no status")?.parse()?;
        ensure!(!body.is_empty(), "an empty answer: {head}");
        Ok((code, body.to_owned()))
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
