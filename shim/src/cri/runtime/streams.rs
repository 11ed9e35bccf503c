//! ExecSync, and the URLs of streams.

use crate::container::exec;
use crate::error::Error;
use crate::shim::{Shim, detached};
use crate::streaming::tokens::StreamRequest;
use hull_cri_api::v1::*;
use std::sync::Arc;
use std::time::Duration;

pub async fn exec_sync(
    shim: &Arc<Shim>,
    request: ExecSyncRequest,
) -> Result<ExecSyncResponse, Error> {
    let container = shim.registry.container(&request.container_id)?;
    let limit = (request.timeout > 0).then(|| Duration::from_secs(request.timeout as u64));
    let shim = shim.clone();
    let work = async move { exec::sync(&shim, &container, request.cmd, limit).await };
    let output = detached("ExecSync", work).await?;
    Ok(ExecSyncResponse {
        stdout: output.stdout,
        stderr: output.stderr,
        exit_code: output.exit_code,
    })
}

fn url(shim: &Shim, base: &str, path: &str, request: StreamRequest) -> Result<String, Error> {
    let token = shim.tokens.issue(request).ok_or_else(|| {
        Error::Exhausted("too many streams were asked for and not opened".to_string())
    })?;
    Ok(format!("{base}/{path}/{token}"))
}

fn check_streams(streams: [bool; 3], tty: bool) -> Result<(), Error> {
    if tty && streams[2] {
        return Err(Error::InvalidArgument(
            "tty and stderr cannot both be true".to_string(),
        ));
    }
    if streams == [false; 3] {
        return Err(Error::InvalidArgument(
            "one of stdin, stdout, or stderr must be set".to_string(),
        ));
    }
    Ok(())
}

pub fn exec(shim: &Shim, base: &str, request: ExecRequest) -> Result<ExecResponse, Error> {
    let streams = [request.stdin, request.stdout, request.stderr];
    check_streams(streams, request.tty)?;
    let container = shim.registry.container(&request.container_id)?;
    exec::running(shim, &container)?;
    let request = StreamRequest::Exec {
        container_id: container.id.clone(),
        command: request.cmd,
        tty: request.tty,
        streams,
    };
    Ok(ExecResponse {
        url: url(shim, base, "exec", request)?,
    })
}

pub fn attach(shim: &Shim, base: &str, request: AttachRequest) -> Result<AttachResponse, Error> {
    let streams = [request.stdin, request.stdout, request.stderr];
    check_streams(streams, request.tty)?;
    let container = shim.registry.container(&request.container_id)?;
    exec::running(shim, &container)?;
    let request = StreamRequest::Attach {
        container_id: container.id.clone(),
        tty: request.tty,
        streams,
    };
    Ok(AttachResponse {
        url: url(shim, base, "attach", request)?,
    })
}

pub fn port_forward(
    shim: &Shim,
    base: &str,
    request: PortForwardRequest,
) -> Result<PortForwardResponse, Error> {
    let sandbox = shim.registry.sandbox(&request.pod_sandbox_id)?;
    sandbox.require_live()?;
    let port = |number: &i32| {
        u16::try_from(*number)
            .ok()
            .filter(|port| *port != 0)
            .ok_or_else(|| {
                Error::InvalidArgument(format!("port {number} is not between 1 and 65535"))
            })
    };
    let ports = request
        .port
        .iter()
        .map(port)
        .collect::<Result<Vec<u16>, Error>>()?;
    let request = StreamRequest::PortForward {
        sandbox_id: sandbox.id.clone(),
        ports,
    };
    Ok(PortForwardResponse {
        url: url(shim, base, "portforward", request)?,
    })
}
