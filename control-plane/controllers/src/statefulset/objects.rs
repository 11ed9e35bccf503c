//! Requests for pods and claims, and the events about them.

use hull_client::events::{EventType, reference};
use k8s_openapi::api::{
    apps::v1::StatefulSet,
    core::v1::{PersistentVolumeClaim, Pod},
};
use kube::api::DeleteParams;

use super::StatefulSetController;
use crate::runtime::{ReconcileError, WriteError};

fn name_of<K: kube::Resource>(object: &K) -> &str {
    object.meta().name.as_deref().unwrap_or_default()
}

impl StatefulSetController {
    fn say(
        &self,
        set: &StatefulSet,
        (done, failed): (&'static str, &'static str),
        what: &str,
        word: &str,
        outcome: Result<(), &WriteError>,
    ) {
        let set_name = name_of(set);
        let (kind, reason, message) = match outcome {
            Ok(()) => (
                EventType::Normal,
                done,
                format!("{what} in StatefulSet {set_name} {word}"),
            ),
            Err(error) => (
                EventType::Warning,
                failed,
                format!(
                    "{what} in StatefulSet {set_name} failed error: {}",
                    error.message()
                ),
            ),
        };
        self.recorder.event(reference(set), kind, reason, message);
    }

    pub(super) async fn create_pod(
        &self,
        set: &StatefulSet,
        pod: &Pod,
    ) -> Result<(), ReconcileError> {
        let outcome = self.writer.create_object(pod).await.map(|_| ());
        match &outcome {
            Err(error) if error.is_namespace_terminating() => return Ok(()),
            Err(error) if error.is_already_exists() => {
                let name = name_of(pod);
                return Err(ReconcileError::Waiting(format!(
                    "pod {name} is there already"
                )));
            }
            _ => {}
        }
        let what = format!("create Pod {}", name_of(pod));
        let reasons = ("SuccessfulCreate", "FailedCreate");
        self.say(set, reasons, &what, "successful", outcome.as_ref().copied());
        Ok(outcome?)
    }

    pub(super) async fn delete_pod(
        &self,
        set: &StatefulSet,
        pod: &Pod,
    ) -> Result<(), ReconcileError> {
        let outcome = self
            .writer
            .delete_object(pod, DeleteParams::default())
            .await;
        if outcome
            .as_ref()
            .is_err_and(|error| error.is_not_found() || error.is_conflict())
        {
            return Ok(());
        }
        let what = format!("delete Pod {}", name_of(pod));
        let reasons = ("SuccessfulDelete", "FailedDelete");
        self.say(set, reasons, &what, "successful", outcome.as_ref().copied());
        Ok(outcome?)
    }

    pub(super) async fn create_claim(
        &self,
        set: &StatefulSet,
        pod: &str,
        claim: &PersistentVolumeClaim,
    ) -> Result<(), ReconcileError> {
        let outcome = self.writer.create_object(claim).await.map(|_| ());
        match &outcome {
            Err(error) if error.is_namespace_terminating() => return Ok(()),
            // The informer is behind, or somebody made it for us.
            Err(error) if error.is_already_exists() => return Ok(()),
            _ => {}
        }
        let what = format!("create Claim {} Pod {pod}", name_of(claim));
        let reasons = ("SuccessfulCreate", "FailedCreate");
        self.say(set, reasons, &what, "success", outcome.as_ref().copied());
        Ok(outcome?)
    }
}
