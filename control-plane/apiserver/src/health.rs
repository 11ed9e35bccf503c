//! `/healthz`, `/livez`, `/readyz`: named checks; `?verbose` lists them, `/readyz/NAME` asks
//! one, `?exclude=NAME` leaves one out.

use http::{Response, StatusCode};

use crate::{
    ApiBody,
    handlers::Backend,
    http::{Query, text_response},
};

const CHECKS: [&str; 3] = ["ping", "store", "watch-cache"];

async fn check(backend: &Backend, name: &str) -> Result<(), String> {
    match name {
        "store" => backend
            .storage
            .store()
            .revision()
            .await
            .map(drop)
            .map_err(|error| error.to_string()),
        "watch-cache" if backend.cache.revision() == 0 => {
            Err("the cache has not been loaded".to_string())
        }
        _ => Ok(()),
    }
}

/// Answers a health path; `None` when it is none.
pub(crate) async fn respond(
    backend: &Backend,
    path: &str,
    query: &Query,
) -> Option<Response<ApiBody>> {
    let mut parts = path.trim_start_matches('/').splitn(2, '/');
    let endpoint = parts
        .next()
        .filter(|name| matches!(*name, "healthz" | "livez" | "readyz"))?;
    let only = parts.next().unwrap_or("");
    if !only.is_empty() && !CHECKS.contains(&only) {
        return Some(text_response(StatusCode::NOT_FOUND, "404 page not found\n"));
    }
    let mut lines = String::new();
    let mut failed = false;
    for name in CHECKS {
        let excluded = query.all("exclude").any(|other| other == name);
        if excluded || (!only.is_empty() && name != only) {
            continue;
        }
        match check(backend, name).await {
            Ok(()) => lines.push_str(&format!("[+]{name} ok\n")),
            Err(reason) => {
                tracing::warn!(check = name, %reason, "health check failed");
                failed = true;
                lines.push_str(&format!("[-]{name} failed: {reason}\n"));
            }
        }
    }
    Some(if failed {
        text_response(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("{lines}{endpoint} check failed\n"),
        )
    } else if query.flag("verbose") {
        text_response(StatusCode::OK, format!("{lines}{endpoint} check passed\n"))
    } else {
        text_response(StatusCode::OK, "ok")
    })
}
