//! A pod's number, and what follows from it: name, labels, volumes.

use std::collections::BTreeMap;

use k8s_openapi::api::{
    apps::v1::StatefulSet,
    core::v1::{PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, Pod, Volume},
};

use super::View;
use crate::{history::REVISION_LABEL, pod_control::pod_from_template};

const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
const POD_INDEX: &str = "apps.kubernetes.io/pod-index";

/// The pod's number, if its name is one of this set.
pub(super) fn ordinal(set: &StatefulSet, pod: &Pod) -> Option<i32> {
    let name = pod.metadata.name.as_deref()?;
    let (parent, number) = name.rsplit_once('-')?;
    let canonical = number == "0" || !number.starts_with('0');
    let digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    if Some(parent) != set.metadata.name.as_deref() || !canonical || !digits {
        return None;
    }
    number.parse().ok()
}

pub(super) fn pod_name(set: &StatefulSet, ordinal: i32) -> String {
    format!(
        "{}-{ordinal}",
        set.metadata.name.as_deref().unwrap_or_default()
    )
}

/// The revision that the pod was made from.
pub(super) fn revision(pod: &Pod) -> &str {
    let labels = pod.metadata.labels.as_ref();
    labels
        .and_then(|labels| labels.get(REVISION_LABEL))
        .map_or("", String::as_str)
}

fn identity_labels(view: &View<'_>, ordinal: i32) -> [(String, String); 2] {
    [
        (POD_NAME.into(), pod_name(view.set, ordinal)),
        (POD_INDEX.into(), ordinal.to_string()),
    ]
}

/// A new pod of this number.
pub(super) fn new_pod(view: &View<'_>, ordinal: i32) -> Pod {
    let (revision, template) = view.revision_of(ordinal);
    let mut pod = pod_from_template(view.set, Some(template));
    let name = pod_name(view.set, ordinal);
    pod.metadata.generate_name = None;
    pod.metadata.name = Some(name.clone());
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.extend(identity_labels(view, ordinal));
    labels.insert(REVISION_LABEL.into(), revision.to_owned());
    let spec = pod.spec.get_or_insert_default();
    spec.hostname = Some(name);
    spec.subdomain = view.spec.service_name.clone();
    let volumes = spec.volumes.take().unwrap_or_default();
    let claims = templates(view).map(|template| Volume {
        name: template_name(template).to_owned(),
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
            claim_name: claim_name(view, template, ordinal),
            read_only: Some(false),
        }),
        ..Volume::default()
    });
    let mut all: Vec<Volume> = claims.collect();
    // A claim goes before a volume of its name in the template.
    let others = volumes
        .into_iter()
        .filter(|volume| all.iter().all(|own| own.name != volume.name))
        .collect::<Vec<_>>();
    all.extend(others);
    spec.volumes = (!all.is_empty()).then_some(all);
    pod
}

/// Labels that the pod should have and has not.
pub(super) fn missing_labels(view: &View<'_>, ordinal: i32, pod: &Pod) -> BTreeMap<String, String> {
    let labels = pod.metadata.labels.clone().unwrap_or_default();
    identity_labels(view, ordinal)
        .into_iter()
        .filter(|(key, value)| labels.get(key) != Some(value))
        .collect()
}

pub(super) fn templates<'a>(view: &'a View<'_>) -> impl Iterator<Item = &'a PersistentVolumeClaim> {
    view.spec.volume_claim_templates.iter().flatten()
}

fn template_name(template: &PersistentVolumeClaim) -> &str {
    template.metadata.name.as_deref().unwrap_or_default()
}

/// The claim of a template for the pod of this number.
pub(super) fn claim_name(
    view: &View<'_>,
    template: &PersistentVolumeClaim,
    ordinal: i32,
) -> String {
    format!(
        "{}-{}",
        template_name(template),
        pod_name(view.set, ordinal)
    )
}
