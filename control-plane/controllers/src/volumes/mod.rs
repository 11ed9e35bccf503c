//! Persistent storage: claims and volumes find each other, are kept while they are in use, and
//! pods get their own claims.
//!
//! ```text
//! claim ─► claims: default class, the volume that does ─► volume.claimRef, claim.volumeName, Bound
//! volume ─► reclaim: Available, Bound, Released; Retain or Delete
//! both ─► protection: finalizers while a pod uses the claim, while the volume is bound
//! pod ─► ephemeral: a claim for each volume with a template
//! ```
//!
//! Nothing here makes or deletes storage: that is the work of a class's provisioner.

mod claims;
mod ephemeral;
mod protection;
mod reclaim;
#[cfg(test)]
mod tests;

pub use claims::ClaimBinderController;
pub use ephemeral::EphemeralVolumeController;
pub use protection::{ClaimProtectionController, VolumeProtectionController};
pub use reclaim::VolumeReclaimController;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};

fn annotation<'o, K: kube::Resource>(object: &'o K, name: &str) -> Option<&'o str> {
    let annotations = object.meta().annotations.as_ref()?;
    annotations.get(name).map(String::as_str)
}

/// `spec.volumeName`; empty: none.
fn volume_name(claim: &PersistentVolumeClaim) -> &str {
    let spec = claim.spec.as_ref();
    spec.and_then(|spec| spec.volume_name.as_deref())
        .unwrap_or_default()
}

fn volume_phase(volume: &PersistentVolume) -> &str {
    let status = volume.status.as_ref();
    status
        .and_then(|status| status.phase.as_deref())
        .unwrap_or_default()
}
