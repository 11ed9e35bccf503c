//! When a request is of no more use.

use std::time::Duration;

use k8s_openapi::{
    api::certificates::v1::CertificateSigningRequest, apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};

/// A request that was signed or denied, or failed, is kept so long: time to fetch the answer.
pub const SETTLED_KEPT: Duration = Duration::from_secs(3600);
/// A request that nobody decided on, or that nobody signs, is kept so long.
pub const PENDING_KEPT: Duration = Duration::from_secs(24 * 3600);

/// How long the request still stays; zero: it goes now.
pub(super) fn left(request: &CertificateSigningRequest, now: Timestamp) -> Duration {
    let (since, kept) = match settled_at(request) {
        Some(time) => (Some(time), SETTLED_KEPT),
        None => (request.metadata.creation_timestamp.as_ref(), PENDING_KEPT),
    };
    let Some(Time(since)) = since else {
        return kept;
    };
    let passed = Duration::try_from(now.duration_since(*since)).unwrap_or_default();
    kept.saturating_sub(passed)
}

/// When it was denied, failed, or (being signed) approved.
fn settled_at(request: &CertificateSigningRequest) -> Option<&Time> {
    let status = request.status.as_ref()?;
    let signed = status
        .certificate
        .as_ref()
        .is_some_and(|certificate| !certificate.0.is_empty());
    status
        .conditions
        .iter()
        .flatten()
        .filter(|condition| match condition.type_.as_str() {
            "Denied" | "Failed" => true,
            "Approved" => signed,
            _ => false,
        })
        .filter_map(|condition| condition.last_update_time.as_ref())
        .max_by_key(|time| time.0)
}
