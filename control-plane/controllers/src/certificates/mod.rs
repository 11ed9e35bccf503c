//! CertificateSigningRequests: approves what nodes ask for themselves, signs what was approved,
//! and removes what is settled or forgotten.
//!
//! ```text
//! new ─► approve: a node for itself, and the authorizer agrees? ─► Approved
//!                  else a person decides (kubectl certificate approve)
//! Approved ─► sign: the signer's rules hold? ─► status.certificate
//!                                       else ─► Failed, with the rule
//! signed, denied, failed for an hour, or waiting for a day ─► deleted
//! ```

mod approve;
mod clean;
mod request;
mod sign;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use k8s_openapi::{
    ByteString,
    api::{
        certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition},
        core::v1::Node,
    },
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};
use kube::api::DeleteParams;

use crate::{
    pod_gc::ignore_gone,
    runtime::{Action, Controller, Delta, Informer, Key, ReconcileError, WorkQueue, Writer},
};
pub use request::{CLIENT_SIGNER, NODE_CLIENT_SIGNER, NODE_SERVING_SIGNER};
use request::{Signer, Unfit, Wanted};
pub use sign::{MAX_LIFE, SigningCa};

/// See the module.
pub struct CertificatesController {
    writer: Arc<dyn Writer>,
    ca: SigningCa,
    requests: Arc<Informer<CertificateSigningRequest>>,
    nodes: Arc<Informer<Node>>,
    queue: Arc<WorkQueue>,
}

impl CertificatesController {
    /// Connects the controller to its informers; it signs with `ca`.
    pub fn new(
        writer: Arc<dyn Writer>,
        ca: SigningCa,
        requests: Arc<Informer<CertificateSigningRequest>>,
        nodes: Arc<Informer<Node>>,
    ) -> Arc<Self> {
        let queue = Arc::new(WorkQueue::default());
        requests.on_change({
            let queue = queue.clone();
            move |delta| {
                if !matches!(delta, Delta::Deleted(_)) {
                    queue.add(Key::of(&**delta.newest()));
                }
            }
        });
        Arc::new(CertificatesController {
            writer,
            ca,
            requests,
            nodes,
            queue,
        })
    }

    async fn approve(
        &self,
        request: &CertificateSigningRequest,
        signer: Signer,
    ) -> Result<(), ReconcileError> {
        let Ok(wanted) = readable(request, signer, &self.ca) else {
            // Whoever decides sees the request; if it is approved, the signer says why not.
            return Ok(());
        };
        let Some(grounds) = approve::grounds(request, signer, &wanted, &self.nodes) else {
            return Ok(());
        };
        if !approve::may(&*self.writer, request, grounds.subresource).await? {
            return Ok(());
        }
        let words = grounds.message.to_owned();
        self.say(request, "approval", "Approved", "AutoApproved", words)
            .await?;
        tracing::info!(
            request = request.metadata.name,
            user = request.spec.username,
            grounds = grounds.subresource,
            "certificate request approved"
        );
        Ok(())
    }

    async fn sign(
        &self,
        request: &CertificateSigningRequest,
        signer: Signer,
    ) -> Result<(), ReconcileError> {
        let life = request
            .spec
            .expiration_seconds
            .and_then(|seconds| u64::try_from(seconds).ok())
            .map(Duration::from_secs);
        let signed = readable(request, signer, &self.ca).map(|wanted| {
            self.ca
                .sign(signer, wanted, life, Timestamp::now())
                .map_err(|error| Unfit::Unreadable(error.to_string()))
        });
        match signed {
            Ok(Ok(certificate)) => {
                let mut changed = request.clone();
                changed.status.get_or_insert_default().certificate =
                    Some(ByteString(certificate.into_bytes()));
                self.writer.replace_part(&changed, "status").await?;
                tracing::info!(
                    request = request.metadata.name,
                    signer = request.spec.signer_name,
                    user = request.spec.username,
                    "certificate signed"
                );
            }
            Err(unfit) | Ok(Err(unfit)) => {
                tracing::warn!(request = request.metadata.name, %unfit, "certificate not signed");
                let words = unfit.to_string();
                self.say(
                    request,
                    "status",
                    "Failed",
                    "SignerValidationFailure",
                    words,
                )
                .await?;
            }
        }
        Ok(())
    }

    /// Adds a condition, through the subresource that may write it.
    async fn say(
        &self,
        request: &CertificateSigningRequest,
        subresource: &'static str,
        kind: &str,
        reason: &str,
        message: String,
    ) -> Result<(), ReconcileError> {
        let mut changed = request.clone();
        let now = Some(Time(Timestamp::now()));
        let conditions = &mut changed.status.get_or_insert_default().conditions;
        conditions
            .get_or_insert_default()
            .push(CertificateSigningRequestCondition {
                type_: kind.into(),
                status: "True".into(),
                reason: Some(reason.into()),
                message: Some(message),
                last_update_time: now.clone(),
                last_transition_time: now,
            });
        self.writer.replace_part(&changed, subresource).await?;
        Ok(())
    }
}

/// The request, if its signer may sign it.
fn readable(
    request: &CertificateSigningRequest,
    signer: Signer,
    ca: &SigningCa,
) -> Result<Wanted, Unfit> {
    let wanted = Wanted::read(request)?;
    let usages = request.spec.usages.as_deref().unwrap_or_default();
    wanted.check(signer, usages, &ca.reserved_names)?;
    Ok(wanted)
}

/// What happened to a request so far.
fn has(request: &CertificateSigningRequest, kind: &str) -> bool {
    let conditions = request.status.as_ref().and_then(|s| s.conditions.as_ref());
    conditions.is_some_and(|list| list.iter().any(|condition| condition.type_ == kind))
}

fn is_signed(request: &CertificateSigningRequest) -> bool {
    let certificate = request.status.as_ref().and_then(|s| s.certificate.as_ref());
    certificate.is_some_and(|pem| !pem.0.is_empty())
}

#[async_trait::async_trait]
impl Controller for CertificatesController {
    fn name(&self) -> &'static str {
        "certificatesigningrequest"
    }

    fn queue(&self) -> &Arc<WorkQueue> {
        &self.queue
    }

    async fn reconcile(&self, key: &Key) -> Result<Action, ReconcileError> {
        let Some(request) = self.requests.get(key) else {
            return Ok(Action::Done);
        };
        let left = clean::left(&request, Timestamp::now());
        if left.is_zero() {
            tracing::info!(request = key.name, "certificate request removed");
            let gone = self
                .writer
                .delete_object(&*request, DeleteParams::default());
            ignore_gone(gone.await)?;
            return Ok(Action::Done);
        }
        let settled = is_signed(&request) || has(&request, "Denied") || has(&request, "Failed");
        if let Some(signer) = Signer::of(&request)
            && !settled
        {
            if has(&request, "Approved") {
                self.sign(&request, signer).await?;
            } else {
                self.approve(&request, signer).await?;
            }
        }
        Ok(Action::After(left))
    }
}
