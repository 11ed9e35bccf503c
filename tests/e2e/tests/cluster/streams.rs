//! What exec carries besides bytes: the terminal's size, and the status to clients of an older
//! protocol. Parts of other scenarios, in a pod of theirs.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    net::TcpStream,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use hull_e2e::{
    kubectl::Kubectl,
    terminal::{Size, Terminal},
};
use hull_timeouts::scaled;
use serde_json::Value;
use tokio_tungstenite::tungstenite::{
    self, Message, client::IntoClientRequest, protocol::WebSocket,
};

/// What the server may take for a message, on hardware.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(20);

/// kubectl on a terminal: its size is the container's, also when it changes; what is typed and the
/// exit code arrive.
pub fn terminal_has_the_users_size(kubectl: &Kubectl, pod: &str) -> Result<()> {
    let script = "while ! read -t 1 line; do stty size; done; echo heard $line; exit 7";
    let (rows, columns) = (31, 97);
    let exec = ["exec", "-it", pod, "--", "sh", "-c", script];
    let mut terminal = Terminal::start(kubectl, &exec, Size { rows, columns })?;
    terminal.shows("31 97")?;
    let (rows, columns) = (45, 123);
    terminal.resize(Size { rows, columns })?;
    terminal.shows("45 123")?;
    terminal.type_in("a word\n")?;
    terminal.shows("heard a word")?;
    let code = terminal.exit_code()?;
    ensure!(code == 7, "exit code {code}");
    Ok(())
}

/// A client that speaks `v4.channel.k8s.io`: standard streams without a terminal, each on its
/// channel, and the exit code in the status at the end.
pub fn version_4_carries_streams_and_status(kubectl: &Kubectl, pod: &str) -> Result<()> {
    let proxy = Proxy::start(kubectl)?;
    let script = "read line; echo got $line; echo err >&2; exit 9";
    let command = ["sh", "-c", script].map(|word| format!("command={}&", encoded(word)));
    let url = format!(
        "ws://{}/api/v1/namespaces/default/pods/{pod}/exec?{}stdin=true&stdout=true&stderr=true",
        proxy.address,
        command.concat()
    );
    let mut request = url.into_client_request()?;
    let protocol = "v4.channel.k8s.io";
    let headers = request.headers_mut();
    headers.insert("Sec-WebSocket-Protocol", protocol.parse()?);
    let stream = TcpStream::connect(&proxy.address)?;
    stream.set_read_timeout(Some(scaled(MESSAGE_TIMEOUT)))?;
    let (mut socket, answer) =
        tungstenite::client(request, stream).context("opening the WebSocket")?;
    ensure!(
        answer.headers()["Sec-WebSocket-Protocol"] == protocol,
        "{answer:?}"
    );
    socket.send(Message::binary(b"\0words\n".to_vec()))?;
    let channels = channels(&mut socket)?;
    let stream = |channel: u8| channels.get(&channel).map(String::as_str);
    ensure!(stream(1) == Some("got words\n"), "{channels:?}");
    ensure!(stream(2) == Some("err\n"), "{channels:?}");
    let status: Value = serde_json::from_str(stream(3).context("no status")?)?;
    ensure!(status["reason"] == "NonZeroExitCode", "{status}");
    ensure!(status["details"]["causes"][0]["message"] == "9", "{status}");
    Ok(())
}

/// Everything that arrives until the server closes, by channel.
fn channels(socket: &mut WebSocket<TcpStream>) -> Result<BTreeMap<u8, String>> {
    let mut channels: BTreeMap<u8, String> = BTreeMap::new();
    loop {
        match socket.read() {
            Ok(Message::Binary(bytes)) => {
                let (channel, bytes) = bytes.split_first().context("an empty message")?;
                let text = channels.entry(*channel).or_default();
                text.push_str(&String::from_utf8_lossy(bytes));
            }
            Ok(Message::Close(_)) | Err(tungstenite::Error::ConnectionClosed) => {
                return Ok(channels);
            }
            Ok(_) => {}
            Err(error) => return Err(error).with_context(|| format!("so far {channels:?}")),
        }
    }
}

/// A word in a query.
fn encoded(word: &str) -> String {
    word.bytes().map(|byte| format!("%{byte:02x}")).collect()
}

/// `kubectl proxy`: the API server without TLS, on a port of loopback.
struct Proxy {
    kubectl: Child,
    address: String,
}

impl Proxy {
    fn start(kubectl: &Kubectl) -> Result<Proxy> {
        let mut kubectl = Command::new("kubectl")
            .arg("--kubeconfig")
            .arg(kubectl.kubeconfig())
            // Without being told so it refuses exec.
            .args(["proxy", "--port=0", "--reject-paths=^$"])
            .stdout(Stdio::piped())
            .spawn()
            .context("starting kubectl proxy")?;
        let stdout = kubectl.stdout.take();
        let mut proxy = Proxy {
            kubectl,
            address: String::new(),
        };
        let mut line = String::new();
        BufReader::new(stdout.context("no output")?).read_line(&mut line)?;
        let address = line.trim().strip_prefix("Starting to serve on ");
        proxy.address = address.with_context(|| line.clone())?.to_owned();
        Ok(proxy)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // Errors here mean that it is gone already.
        let _ = self.kubectl.kill();
        let _ = self.kubectl.wait();
    }
}
