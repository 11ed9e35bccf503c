//! HTTP routes of the streaming server.

use super::protocol::SUBPROTOCOLS;
use super::tokens::StreamRequest;
use super::{attach, exec, portforward};
use crate::shim::Shim;
use axum::Router;
use axum::extract::ws::{WebSocketUpgrade, rejection::WebSocketUpgradeRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header::UPGRADE};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use std::sync::Arc;

/// Longest message of a client, bytes.
const MAX_MESSAGE_BYTES: usize = 1 << 20;

/// The routes; the last part of each path is a token.
pub fn router(shim: Arc<Shim>) -> Router {
    Router::new()
        .route("/exec/{token}", any(stream))
        .route("/attach/{token}", any(stream))
        .route("/portforward/{token}", any(stream))
        .with_state(shim)
}

async fn stream(
    State(shim): State<Arc<Shim>>,
    Path(token): Path<String>,
    Query(query): Query<Vec<(String, String)>>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    let upgrade = match upgrade {
        Ok(upgrade) => upgrade,
        Err(rejection) => return refuse(&headers, rejection),
    };
    // Redeemed only now: a client that tries SPDY first keeps its token.
    let Some(request) = shim.tokens.redeem(&token) else {
        return (
            StatusCode::NOT_FOUND,
            "unknown, used or expired stream token\n",
        )
            .into_response();
    };
    let upgrade = upgrade
        .protocols(SUBPROTOCOLS)
        .max_message_size(MAX_MESSAGE_BYTES)
        .max_frame_size(MAX_MESSAGE_BYTES);
    match request {
        StreamRequest::Exec {
            container_id,
            command,
            tty,
            streams,
        } => {
            let options = exec::Options {
                container_id,
                command,
                tty,
                streams,
            };
            upgrade.on_upgrade(move |socket| exec::serve(shim, socket, options))
        }
        StreamRequest::Attach {
            container_id,
            streams,
            ..
        } => upgrade.on_upgrade(move |socket| attach::serve(shim, socket, container_id, streams)),
        StreamRequest::PortForward { sandbox_id, ports } => match ports_of(ports, &query) {
            Ok(ports) => upgrade
                .on_upgrade(move |socket| portforward::serve(shim, socket, sandbox_id, ports)),
            Err(problem) => (StatusCode::BAD_REQUEST, problem).into_response(),
        },
    }
}

fn refuse(headers: &HeaderMap, rejection: WebSocketUpgradeRejection) -> Response {
    let spdy = headers
        .get(UPGRADE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.to_ascii_lowercase().starts_with("spdy"));
    if spdy {
        let text = "unimplemented: SPDY streams; use WebSocket with v5.channel.k8s.io or v4.channel.k8s.io\n";
        return (StatusCode::NOT_IMPLEMENTED, text).into_response();
    }
    rejection.into_response()
}

/// The ports that CRI named, or else those of the query.
fn ports_of(named: Vec<u16>, query: &[(String, String)]) -> Result<Vec<u16>, String> {
    let mut ports = named;
    if ports.is_empty() {
        for (_, value) in query
            .iter()
            .filter(|(key, _)| key == "port" || key == "ports")
        {
            for text in value.split(',') {
                let port = text.parse::<u16>().ok().filter(|port| *port != 0);
                ports.push(
                    port.ok_or_else(|| format!("port {text:?} is not between 1 and 65535\n"))?,
                );
            }
        }
    }
    if ports.is_empty() || ports.len() > portforward::MAX_PORTS {
        return Err(format!(
            "1 to {} ports are needed\n",
            portforward::MAX_PORTS
        ));
    }
    Ok(ports)
}
