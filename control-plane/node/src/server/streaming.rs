//! `/exec`, `/attach` and `/portForward`: asks the runtime for a streaming URL, repeats the
//! client's upgrade there and joins the two connections. The WebSocket inside (v4 or v5 channel
//! protocol) is between the client and the runtime; nothing here looks into it.

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderName, StatusCode, Uri, header};
use axum::response::Response;
use hull_cri_api::v1 as cri;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::{Refusal, Shared};
use crate::cri::ContainerPhase;
use hull_client::timeouts::scaled;

/// How long the runtime's streaming server may take to accept and to answer the upgrade, before
/// scaling.
const CONNECT_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(30);

/// Decodes a query string into its pairs; `+` is a space.
pub(super) fn query_pairs(query: &str) -> Vec<(String, String)> {
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (percent_decode(key), percent_decode(value))
        })
        .collect()
}

fn percent_decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut index = 0;
    while index < bytes.len() {
        let hex = (bytes[index] == b'%')
            .then(|| {
                text.get(index + 1..index + 3)
                    .and_then(|hex| u8::from_str_radix(hex, 16).ok())
            })
            .flatten();
        match (hex, bytes[index]) {
            (Some(byte), _) => {
                decoded.push(byte);
                index += 2;
            }
            (None, b'+') => decoded.push(b' '),
            (None, byte) => decoded.push(byte),
        }
        index += 1;
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[derive(Debug, Default, PartialEq, Eq)]
struct StreamQuery {
    command: Vec<String>,
    stdin: bool,
    stdout: bool,
    stderr: bool,
    tty: bool,
    ports: Vec<i32>,
}

/// Both the API server's names (`stdin`) and kubelet's own (`input`) are understood.
fn stream_query(uri: &Uri) -> StreamQuery {
    let mut query = StreamQuery::default();
    for (key, value) in query_pairs(uri.query().unwrap_or_default()) {
        let on = matches!(value.as_str(), "true" | "1");
        match key.as_str() {
            "command" => query.command.push(value),
            "stdin" | "input" => query.stdin = on,
            "stdout" | "output" => query.stdout = on,
            "stderr" | "error" => query.stderr = on,
            "tty" => query.tty = on,
            "port" | "ports" => query
                .ports
                .extend(value.split(',').filter_map(|p| p.parse::<i32>().ok())),
            _ => {}
        }
    }
    query
}

/// The running container's CRI id.
async fn running_container(
    shared: &Shared,
    namespace: &str,
    pod: &str,
    name: &str,
) -> Result<String, Refusal> {
    let pod = shared.pod(namespace, pod)?;
    let uid = pod.metadata.uid.clone().unwrap_or_default();
    let observed = shared.node.cri.observe(&uid).await?;
    match observed.latest(name) {
        Some(container) if container.phase == ContainerPhase::Running => Ok(container.id.clone()),
        Some(_) => Err(Refusal::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!(
                "container {name} of pod {namespace}/{} is not running",
                pod.metadata.name.clone().unwrap_or_default()
            ),
        )),
        None => Err(Refusal::new(
            StatusCode::NOT_FOUND,
            format!("container not found (\"{name}\")"),
        )),
    }
}

pub(super) async fn exec(
    State(shared): State<Shared>,
    Path((namespace, pod, container)): Path<(String, String, String)>,
    request: Request,
) -> Result<Response, Refusal> {
    let query = stream_query(request.uri());
    if query.command.is_empty() {
        return Err(Refusal::new(
            StatusCode::BAD_REQUEST,
            "you must specify at least 1 command",
        ));
    }
    let container_id = running_container(&shared, &namespace, &pod, &container).await?;
    let url = shared
        .node
        .cri
        .exec(cri::ExecRequest {
            container_id,
            cmd: query.command,
            tty: query.tty,
            stdin: query.stdin,
            stdout: query.stdout,
            // With a terminal there is one output stream.
            stderr: query.stderr && !query.tty,
        })
        .await?;
    splice(shared, request, &url).await
}

pub(super) async fn attach(
    State(shared): State<Shared>,
    Path((namespace, pod, container)): Path<(String, String, String)>,
    request: Request,
) -> Result<Response, Refusal> {
    let query = stream_query(request.uri());
    let container_id = running_container(&shared, &namespace, &pod, &container).await?;
    let url = shared
        .node
        .cri
        .attach(cri::AttachRequest {
            container_id,
            stdin: query.stdin,
            tty: query.tty,
            stdout: query.stdout,
            stderr: query.stderr && !query.tty,
        })
        .await?;
    splice(shared, request, &url).await
}

pub(super) async fn port_forward(
    State(shared): State<Shared>,
    Path((namespace, name)): Path<(String, String)>,
    request: Request,
) -> Result<Response, Refusal> {
    let query = stream_query(request.uri());
    let pod = shared.pod(&namespace, &name)?;
    let uid = pod.metadata.uid.clone().unwrap_or_default();
    let observed = shared.node.cri.observe(&uid).await?;
    let Some(sandbox) = observed.ready_sandbox() else {
        return Err(Refusal::new(
            StatusCode::BAD_REQUEST,
            format!("pod {namespace}/{name} has no running sandbox"),
        ));
    };
    match shared.node.cri.port_forward(&sandbox.id, query.ports).await {
        Ok(url) => splice(shared, request, &url).await,
        Err(error) if error.is_unimplemented() => Err(Refusal::new(
            StatusCode::NOT_IMPLEMENTED,
            "unimplemented: port-forward: the container runtime has no PortForward",
        )),
        Err(error) => Err(error.into()),
    }
}

fn gateway(message: impl std::fmt::Display) -> Refusal {
    Refusal::new(
        StatusCode::BAD_GATEWAY,
        format!("runtime streaming server: {message}"),
    )
}

/// Repeats the client's upgrade request at `url` and joins the connections.
async fn splice(shared: Shared, mut request: Request, url: &str) -> Result<Response, Refusal> {
    let target: Uri = url
        .parse()
        .map_err(|error| gateway(format!("URL {url:?}: {error}")))?;
    if target.scheme_str() != Some("http") {
        return Err(gateway(format!(
            "unimplemented: streaming URL scheme of {url:?}"
        )));
    }
    let authority = target
        .authority()
        .ok_or_else(|| gateway("URL without a host"))?
        .clone();
    let address = (
        authority.host().trim_matches(['[', ']']).to_owned(),
        authority.port_u16().unwrap_or(80),
    );
    let limit = scaled(CONNECT_TIMEOUT);
    let connect = TcpStream::connect(address);
    let stream = tokio::time::timeout(limit, connect)
        .await
        .map_err(|_| gateway("connect timed out"))?
        .map_err(|error| gateway(format!("connect {authority}: {error}")))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake::<_, Body>(TokioIo::new(stream))
            .await
            .map_err(gateway)?;
    tokio::spawn(connection.with_upgrades());
    let client_upgrade = hyper::upgrade::on(&mut request);
    let path = target.path_and_query().map_or("/", |path| path.as_str());
    let mut outgoing = hyper::Request::builder()
        .method(request.method().clone())
        .uri(path)
        .body(Body::empty())
        .map_err(gateway)?;
    copy_headers(request.headers(), outgoing.headers_mut());
    let host = authority.as_str().parse().map_err(gateway)?;
    outgoing.headers_mut().insert(header::HOST, host);
    let answer = tokio::time::timeout(limit, sender.send_request(outgoing))
        .await
        .map_err(|_| gateway("no answer to the upgrade"))?
        .map_err(gateway)?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        // The runtime's own words: a bad request, an expired URL.
        return Ok(answer.map(Body::new));
    }
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    copy_headers(answer.headers(), response.headers_mut());
    tokio::spawn(async move {
        let (client, runtime) = match tokio::try_join!(client_upgrade, hyper::upgrade::on(answer)) {
            Ok(both) => both,
            Err(error) => {
                tracing::debug!(%error, "streaming upgrade failed");
                return;
            }
        };
        let (mut client, mut runtime) = (TokioIo::new(client), TokioIo::new(runtime));
        tokio::select! {
            result = tokio::io::copy_bidirectional(&mut client, &mut runtime) => {
                if let Err(error) = result {
                    tracing::debug!(%error, "streaming connection ended");
                }
            }
            () = shared.shutdown.cancelled() => {}
        }
    });
    Ok(response)
}

/// Everything but what belongs to one connection; the upgrade itself goes along.
fn copy_headers(from: &HeaderMap, to: &mut HeaderMap) {
    let skipped: [HeaderName; 4] = [
        header::HOST,
        header::CONTENT_LENGTH,
        header::TRANSFER_ENCODING,
        header::AUTHORIZATION,
    ];
    for (name, value) in from {
        if !skipped.contains(name) {
            to.append(name.clone(), value.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_and_streams_are_read_from_the_query() {
        let uri = "/exec/d/p/c?command=sh&command=-c&command=echo+a%26b&stdin=true&output=1&tty=true&ports=80,81"
            .parse()
            .unwrap();
        assert_eq!(
            stream_query(&uri),
            StreamQuery {
                command: vec!["sh".into(), "-c".into(), "echo a&b".into()],
                stdin: true,
                stdout: true,
                stderr: false,
                tty: true,
                ports: vec![80, 81],
            }
        );
        assert_eq!(percent_decode("%zz%4"), "%zz%4");
        assert_eq!(percent_decode("%E2%82%AC"), "€");
    }
}
