//! The control socket: the protocol of `hull_vmm_client::control`, of which hull-fsd serves
//! `state`, `metrics`, `add-share` and `remove-share`. One client at a time.

use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::time::Duration;

use hull_vmm_client::control::{Answer, Request};
use hull_vmm_client::descriptor::receive;

use crate::filesystem::ShareFs;
use crate::metrics;

/// How long a client may take to send a request and to take the answer.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest request line, bytes.
const REQUEST_MAX_BYTES: usize = 4096;

/// Serves requests until the process ends.
pub fn serve(listener: &UnixListener, fs: &Arc<ShareFs>, id: &str) {
    loop {
        let served = listener
            .accept()
            .and_then(|(stream, _)| serve_client(&stream, fs, id));
        if let Err(error) = served {
            tracing::debug!(%error, "A client of the control socket is gone");
        }
    }
}

fn serve_client(mut stream: &UnixStream, fs: &ShareFs, id: &str) -> io::Result<()> {
    stream.set_read_timeout(Some(CLIENT_TIMEOUT))?;
    stream.set_write_timeout(Some(CLIENT_TIMEOUT))?;
    let mut line = Vec::new();
    let mut file = None;
    loop {
        let mut bytes = [0; REQUEST_MAX_BYTES];
        let count = receive(stream, &mut bytes, &mut file, 0)?;
        if count == 0 {
            return Ok(());
        }
        line.extend_from_slice(&bytes[..count]);
        while let Some(end) = line.iter().position(|byte| *byte == b'\n') {
            let request: Vec<u8> = line.drain(..=end).collect();
            let answer = match serde_json::from_slice(&request) {
                Ok(request) => answer(request, file.take(), fs, id),
                Err(error) => refused(format!("Not a request: {error}")),
            };
            let mut text = serde_json::to_vec(&answer)?;
            text.push(b'\n');
            stream.write_all(&text)?;
        }
        if line.len() > REQUEST_MAX_BYTES {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
}

fn answer(request: Request, file: Option<OwnedFd>, fs: &ShareFs, id: &str) -> Answer {
    let outcome = match request {
        Request::State => {
            return Answer::Shares {
                id: id.to_owned(),
                pid: std::process::id(),
                shares: names(fs),
            };
        }
        Request::Metrics => {
            return Answer::Metrics {
                text: metrics::render(fs),
            };
        }
        Request::AddShare { name, read_only } => match file {
            Some(root) => fs.shares.add(&name, root, read_only),
            None => return refused("AddShare came without a descriptor"),
        },
        Request::RemoveShare { name } => fs.remove_share(&name),
        _ => return refused("hull-fsd serves state, metrics, add-share and remove-share only"),
    };
    match outcome {
        Ok(()) => Answer::Ok,
        Err(error) => refused(error.to_string()),
    }
}

fn names(fs: &ShareFs) -> Vec<String> {
    let shares = fs.shares.all();
    let name = |share: &Arc<crate::share::Share>| share.name.to_string_lossy().into_owned();
    shares.iter().map(name).collect()
}

fn refused(message: impl Into<String>) -> Answer {
    Answer::Error {
        message: message.into(),
    }
}
