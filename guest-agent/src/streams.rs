//! The stream port: one connection per byte stream, opened with one line
//! (`hull_agent_protocol::stream`).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hull_agent_protocol::client::scaled;
use hull_agent_protocol::stream::{Answer, Header, MAX_LINE};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::container::containers::Containers;
use crate::container::process::Process;
use crate::error::Error;
use crate::io::output::{Next, Output};
use crate::listen::{Connection, Listener};

/// How long a connection may take to send its header, before [`scaled`].
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a TCP connection inside the sandbox may take, before [`scaled`].
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves streams for ever.
pub async fn serve(listener: Listener, containers: Arc<Containers>) {
    loop {
        let connection = listener.accept().await;
        let containers = Arc::clone(&containers);
        tokio::spawn(async move {
            if let Err(error) = serve_one(connection, &containers).await {
                tracing::debug!(%error, "a stream ended early");
            }
        });
    }
}

async fn serve_one(mut connection: Connection, containers: &Containers) -> io::Result<()> {
    let header = tokio::time::timeout(scaled(HEADER_TIMEOUT), read_header(&mut connection));
    let header = match header.await?? {
        Ok(header) => header,
        Err(message) => return refuse(connection, message).await,
    };
    match &header {
        Header::Stdin { container, exec } => match find(containers, container, exec.as_deref()) {
            Ok(process) => serve_stdin(connection, &process).await,
            Err(error) => refuse(connection, error.to_string()).await,
        },
        Header::Output {
            container,
            exec,
            stderr,
            offset,
        } => match find(containers, container, exec.as_deref()) {
            Ok(process) => match process.output(*stderr) {
                Some(output) => serve_output(connection, output, *offset).await,
                None => refuse(connection, "a terminal has no standard error".into()).await,
            },
            Err(error) => refuse(connection, error.to_string()).await,
        },
        Header::Connect { port } => serve_connect(connection, *port).await,
    }
}

fn find(
    containers: &Containers,
    container: &str,
    exec: Option<&str>,
) -> Result<Arc<Process>, Error> {
    containers.get(container)?.process(exec.unwrap_or_default())
}

/// Reads byte by byte: what follows the line is the stream's.
async fn read_header(connection: &mut Connection) -> io::Result<Result<Header, String>> {
    let mut line = Vec::new();
    loop {
        match connection.read_u8().await? {
            b'\n' => break,
            byte => line.push(byte),
        }
        if line.len() >= MAX_LINE {
            return Ok(Err(format!("the header is longer than {MAX_LINE} bytes")));
        }
    }
    let line = String::from_utf8_lossy(&line);
    Ok(line.parse::<Header>().map_err(|error| error.to_string()))
}

async fn answer(connection: &mut Connection, answer: Answer) -> io::Result<()> {
    let mut line = answer.to_string();
    // Longer messages are cut at a character's border.
    while line.len() >= MAX_LINE {
        line.pop();
    }
    line.push('\n');
    connection.write_all(line.as_bytes()).await
}

async fn refuse(mut connection: Connection, message: String) -> io::Result<()> {
    answer(&mut connection, Answer::Error(message)).await?;
    connection.shutdown().await
}

async fn serve_stdin(mut connection: Connection, process: &Process) -> io::Result<()> {
    let Some(stdin) = process.stdin() else {
        return refuse(connection, "the process has no standard input".into()).await;
    };
    answer(&mut connection, Answer::Ok(0)).await?;
    stdin.copy_from(&mut connection).await
}

async fn serve_output(
    mut connection: Connection,
    output: &Arc<Output>,
    offset: u64,
) -> io::Result<()> {
    let (mut reader, offset) = output.attach(offset);
    answer(&mut connection, Answer::Ok(offset)).await?;
    loop {
        let Next::Bytes(bytes) = reader.next().await else {
            return connection.shutdown().await;
        };
        tokio::select! {
            written = connection.write_all(&bytes) => written?,
            () = reader.superseded() => return Ok(()),
        }
        reader.sent(bytes.len());
    }
}

async fn serve_connect(mut connection: Connection, port: u16) -> io::Result<()> {
    let targets = [
        IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(Ipv6Addr::LOCALHOST),
    ];
    let mut refusal = String::new();
    for ip in targets {
        let connect = TcpStream::connect(SocketAddr::new(ip, port));
        match tokio::time::timeout(scaled(CONNECT_TIMEOUT), connect).await {
            Ok(Ok(mut target)) => {
                answer(&mut connection, Answer::Ok(0)).await?;
                tokio::io::copy_bidirectional(&mut connection, &mut target).await?;
                return Ok(());
            }
            // The IPv4 reason is the one that people look for.
            Ok(Err(error)) if refusal.is_empty() => refusal = format!("port {port}: {error}"),
            Err(_) if refusal.is_empty() => refusal = format!("port {port}: no answer"),
            _ => {}
        }
    }
    refuse(connection, refusal).await
}
