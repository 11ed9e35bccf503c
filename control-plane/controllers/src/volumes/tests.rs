//! Claims and volumes on the recording API.

use std::sync::Arc;

use hull_client::events::{Record, Recorder};
use k8s_openapi::api::{
    core::v1::{PersistentVolume, PersistentVolumeClaim, Pod},
    storage::v1::StorageClass,
};
use serde_json::{Value, json};
use tokio::sync::mpsc::Receiver;

use super::*;
use crate::runtime::{
    Key,
    fake::{FakeApi, settle},
};

struct Shop {
    api: Arc<FakeApi>,
    binder: Arc<ClaimBinderController>,
    reclaim: Arc<VolumeReclaimController>,
    events: Receiver<Record>,
}

fn shop() -> Shop {
    let api = FakeApi::new();
    let (recorder, events) = Recorder::channel();
    let binder = ClaimBinderController::new(
        api.clone(),
        recorder.clone(),
        Arc::default(),
        Arc::default(),
        Arc::default(),
    );
    let reclaim =
        VolumeReclaimController::new(api.clone(), recorder, Arc::default(), Arc::default());
    Shop {
        api,
        binder,
        reclaim,
        events,
    }
}

fn data() -> Key {
    Key::new("shop", "data")
}

impl Shop {
    async fn settle(&self) {
        for _ in 0..3 {
            settle(&*self.reclaim, || {
                self.api.pump(&self.reclaim.claims);
                self.api.pump(&self.reclaim.volumes);
            })
            .await;
            settle(&*self.binder, || {
                self.api.pump(&self.binder.classes);
                self.api.pump(&self.binder.volumes);
                self.api.pump(&self.binder.claims);
            })
            .await;
        }
    }

    fn volume(&self, name: &str, size: &str, spec: Value) {
        let mut full = json!({"capacity": {"storage": size}, "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain", "volumeMode": "Filesystem"});
        for (field, value) in spec.as_object().unwrap() {
            full[field] = value.clone();
        }
        self.api
            .seed::<PersistentVolume>(json!({"metadata": {"name": name}, "spec": full}));
    }

    fn claim(&self, name: &str, spec: Value) {
        let mut full = json!({"resources": {"requests": {"storage": "5Gi"}},
            "accessModes": ["ReadWriteOnce"], "volumeMode": "Filesystem", "storageClassName": ""});
        for (field, value) in spec.as_object().unwrap() {
            full[field] = value.clone();
        }
        self.api.seed::<PersistentVolumeClaim>(
            json!({"metadata": {"name": name, "namespace": "shop"}, "spec": full}),
        );
    }

    fn class(&self, name: &str, provisioner: &str, mode: &str, default: &str) {
        self.api
            .seed::<StorageClass>(json!({"metadata": {"name": name, "annotations":
            {"storageclass.kubernetes.io/is-default-class": default}},
            "provisioner": provisioner, "volumeBindingMode": mode}));
    }

    /// `Bound right`
    fn claim_state(&self, name: &str) -> String {
        let claims = self.api.all::<PersistentVolumeClaim>();
        let claim = claims
            .iter()
            .find(|c| c.metadata.name.as_deref() == Some(name))
            .unwrap();
        let phase = claim
            .status
            .clone()
            .unwrap_or_default()
            .phase
            .unwrap_or_default();
        format!("{phase} {}", volume_name(claim))
    }

    /// `Bound data`
    fn volume_state(&self, name: &str) -> String {
        let volumes = self.api.all::<PersistentVolume>();
        let volume = volumes
            .iter()
            .find(|v| v.metadata.name.as_deref() == Some(name))
            .unwrap();
        let held = volume.spec.as_ref().unwrap().claim_ref.clone();
        let held = held.and_then(|held| held.name).unwrap_or_default();
        format!("{} {held}", volume_phase(volume))
    }

    fn events(&mut self) -> Vec<String> {
        let records = std::iter::from_fn(|| self.events.try_recv().ok());
        let mut said: Vec<String> = records
            .map(|record| format!("{}: {}", record.reason, record.message))
            .collect();
        said.dedup();
        said
    }
}

#[tokio::test]
async fn a_claim_gets_the_smallest_volume_that_does_and_both_say_so() {
    let shop = shop();
    shop.volume("big", "50Gi", json!({}));
    shop.volume("right", "6Gi", json!({}));
    shop.volume("small", "1Gi", json!({}));
    shop.claim("data", json!({}));
    shop.settle().await;
    assert_eq!(shop.claim_state("data"), "Bound right");
    assert_eq!(shop.volume_state("right"), "Bound data");
    assert_eq!(shop.volume_state("big"), "Available ");
    let claim = shop.api.all::<PersistentVolumeClaim>().remove(0);
    assert_eq!(claim.status.unwrap().capacity.unwrap()["storage"].0, "6Gi");
    let annotations = claim.metadata.annotations.unwrap();
    assert_eq!(annotations["pv.kubernetes.io/bind-completed"], "yes");
    assert_eq!(annotations["pv.kubernetes.io/bound-by-controller"], "yes");
    shop.api.take_requests();
    shop.binder.queue.add(data());
    shop.settle().await;
    assert!(
        shop.api.take_requests().is_empty(),
        "nothing is written in vain"
    );
}

#[tokio::test]
async fn two_claims_never_get_one_volume() {
    let mut shop = shop();
    shop.volume("only", "6Gi", json!({}));
    shop.claim("data", json!({}));
    shop.claim("more", json!({}));
    shop.settle().await;
    let states = [shop.claim_state("data"), shop.claim_state("more")];
    assert_eq!(
        states.iter().filter(|state| *state == "Bound only").count(),
        1,
        "{states:?}"
    );
    assert_eq!(
        states.iter().filter(|state| *state == "Pending ").count(),
        1,
        "{states:?}"
    );
    let message =
        "FailedBinding: no persistent volumes available for this claim and no storage class is set";
    assert!(shop.events().contains(&message.to_owned()));
}

#[tokio::test]
async fn a_named_volume_must_do() {
    let mut shop = shop();
    shop.volume("small", "1Gi", json!({}));
    shop.claim("data", json!({"volumeName": "small"}));
    shop.settle().await;
    assert_eq!(shop.claim_state("data"), "Pending small");
    assert_eq!(
        shop.events(),
        ["VolumeMismatch: Cannot bind to requested volume \"small\": requested PV is too small"]
    );
    let bigger = json!({"spec": {"capacity": {"storage": "9Gi"}}});
    shop.api
        .change("persistentvolumes", &Key::new("", "small"), bigger);
    shop.binder.queue.add(data());
    shop.settle().await;
    assert_eq!(shop.claim_state("data"), "Bound small");
}

#[tokio::test]
async fn a_claim_without_a_class_gets_the_default_and_a_provisioner_is_asked() {
    let mut shop = shop();
    shop.class("fast", "csi.example.com", "Immediate", "true");
    shop.claim("data", json!({"storageClassName": null}));
    shop.settle().await;
    let claim = shop.api.all::<PersistentVolumeClaim>().remove(0);
    assert_eq!(
        claim.spec.unwrap().storage_class_name.as_deref(),
        Some("fast")
    );
    let annotations = claim.metadata.annotations.unwrap();
    assert_eq!(
        annotations["volume.kubernetes.io/storage-provisioner"],
        "csi.example.com"
    );
    assert!(shop.events()[0].starts_with("ExternalProvisioning: Waiting for a volume to be created either by the external provisioner 'csi.example.com'"));
    // The provisioner makes a volume for it.
    shop.volume(
        "pvc-1",
        "5Gi",
        json!({"storageClassName": "fast",
        "claimRef": {"namespace": "shop", "name": "data"}}),
    );
    shop.settle().await;
    assert_eq!(shop.claim_state("data"), "Bound pvc-1");
    assert_eq!(shop.volume_state("pvc-1"), "Bound data");
}

#[tokio::test]
async fn a_class_that_waits_binds_when_the_scheduler_has_chosen() {
    let mut shop = shop();
    shop.class(
        "local",
        "kubernetes.io/no-provisioner",
        "WaitForFirstConsumer",
        "false",
    );
    shop.volume("disk", "6Gi", json!({"storageClassName": "local"}));
    shop.claim("data", json!({"storageClassName": "local"}));
    shop.settle().await;
    assert_eq!(shop.claim_state("data"), "Pending ");
    assert_eq!(
        shop.events(),
        ["WaitForFirstConsumer: waiting for first consumer to be created before binding"]
    );
    let chosen = json!({"spec": {"claimRef": {"namespace": "shop", "name": "data"}}});
    shop.api
        .change("persistentvolumes", &Key::new("", "disk"), chosen);
    shop.settle().await;
    assert_eq!(shop.claim_state("data"), "Bound disk");
}

#[tokio::test]
async fn what_becomes_of_a_volume_is_its_policy() {
    let mut shop = shop();
    shop.volume("kept", "6Gi", json!({}));
    shop.volume(
        "deleted",
        "7Gi",
        json!({"persistentVolumeReclaimPolicy": "Delete"}),
    );
    shop.claim("data", json!({}));
    shop.claim(
        "more",
        json!({"resources": {"requests": {"storage": "7Gi"}}}),
    );
    shop.settle().await;
    for name in ["data", "more"] {
        shop.api
            .remove("persistentvolumeclaims", &Key::new("shop", name));
    }
    shop.settle().await;
    assert_eq!(shop.volume_state("kept"), "Released data");
    assert_eq!(shop.volume_state("deleted"), "Failed more");
    assert_eq!(
        shop.events(),
        [
            "VolumeFailedDelete: error getting deleter volume plugin for volume \"deleted\": no deletable volume plugin matched"
        ]
    );
    // Another claim of the name is not the one that the data belongs to.
    shop.claim("data", json!({}));
    shop.settle().await;
    assert_eq!(shop.claim_state("data"), "Pending ");
    assert_eq!(shop.volume_state("kept"), "Released data");
}

#[tokio::test]
async fn a_claim_whose_volume_vanished_is_lost() {
    let mut shop = shop();
    shop.volume("right", "6Gi", json!({}));
    shop.claim("data", json!({}));
    shop.settle().await;
    shop.api.remove("persistentvolumes", &Key::new("", "right"));
    shop.settle().await;
    assert_eq!(shop.claim_state("data"), "Lost right");
    let message =
        "ClaimLost: Bound claim has lost its PersistentVolume. Data on the volume is lost!";
    assert!(shop.events().contains(&message.to_owned()));
}

fn pod(api: &FakeApi, node: Option<&str>) {
    api.seed::<Pod>(json!({"metadata": {"name": "web", "namespace": "shop"},
        "spec": {"nodeName": node, "containers": [], "volumes": [
            {"name": "d", "persistentVolumeClaim": {"claimName": "data"}},
            {"name": "scratch", "ephemeral": {"volumeClaimTemplate": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"resources": {"requests": {"storage": "1Gi"}}}}}}]}}));
}

#[tokio::test]
async fn a_claim_in_use_stays_until_its_pod_has_ended() {
    let shop = shop();
    let api = &shop.api;
    let controller = ClaimProtectionController::new(api.clone(), Arc::default(), Arc::default());
    let pump = || {
        api.pump(&controller.claims);
        api.pump(&controller.pods);
    };
    shop.claim("data", json!({}));
    pod(api, Some("a"));
    settle(&*controller, pump).await;
    api.delete_as_user("persistentvolumeclaims", &data());
    settle(&*controller, pump).await;
    assert_eq!(api.all::<PersistentVolumeClaim>().len(), 1);
    let ended = json!({"status": {"phase": "Succeeded"}});
    api.change("pods", &Key::new("shop", "web"), ended);
    settle(&*controller, pump).await;
    assert!(api.all::<PersistentVolumeClaim>().is_empty());
}

#[tokio::test]
async fn a_bound_volume_stays() {
    let shop = shop();
    let api = &shop.api;
    let controller = VolumeProtectionController::new(api.clone(), Arc::default());
    let pump = || api.pump(&controller.volumes);
    let key = Key::new("", "disk");
    shop.volume("disk", "6Gi", json!({}));
    api.change(
        "persistentvolumes",
        &key,
        json!({"status": {"phase": "Bound"}}),
    );
    settle(&*controller, pump).await;
    api.delete_as_user("persistentvolumes", &key);
    settle(&*controller, pump).await;
    assert_eq!(api.all::<PersistentVolume>().len(), 1);
    api.change(
        "persistentvolumes",
        &key,
        json!({"status": {"phase": "Released"}}),
    );
    settle(&*controller, pump).await;
    assert!(api.all::<PersistentVolume>().is_empty());
}

#[tokio::test]
async fn a_volume_that_was_deleted_before_its_claim_goes_after_it() {
    let shop = shop();
    let api = &shop.api;
    let controller = VolumeProtectionController::new(api.clone(), Arc::default());
    let pump = || api.pump(&controller.volumes);
    shop.volume("disk", "6Gi", json!({}));
    shop.claim("data", json!({}));
    settle(&*controller, pump).await;
    shop.settle().await;
    assert_eq!(shop.volume_state("disk"), "Bound data");
    api.delete_as_user("persistentvolumes", &Key::new("", "disk"));
    settle(&*controller, pump).await;
    shop.settle().await;
    assert_eq!(shop.volume_state("disk"), "Bound data", "the claim has it");
    api.remove("persistentvolumeclaims", &data());
    shop.settle().await;
    settle(&*controller, pump).await;
    assert!(api.all::<PersistentVolume>().is_empty());
}

#[tokio::test]
async fn a_volume_that_a_claim_is_about_to_have_stays() {
    let shop = shop();
    let api = &shop.api;
    let controller = VolumeProtectionController::new(api.clone(), Arc::default());
    let pump = || api.pump(&controller.volumes);
    let claim = |uid: &str| json!({"namespace": "shop", "name": "data", "uid": uid});
    for (name, uid) in [("chosen", "u"), ("reserved", "")] {
        shop.volume(name, "6Gi", json!({"claimRef": claim(uid)}));
        settle(&*controller, pump).await;
        api.delete_as_user("persistentvolumes", &Key::new("", name));
    }
    settle(&*controller, pump).await;
    let left = api.all::<PersistentVolume>();
    let left: Vec<_> = left.iter().map(|left| &left.metadata.name).collect();
    assert_eq!(left, [&Some("chosen".to_owned())]);
}

#[tokio::test]
async fn a_pod_gets_its_own_claim_and_never_anothers() {
    let mut shop = shop();
    let api = shop.api.clone();
    let (recorder, mut events) = Recorder::channel();
    let controller =
        EphemeralVolumeController::new(api.clone(), recorder, Arc::default(), Arc::default());
    let pump = || {
        api.pump(&controller.pods);
        api.pump(&controller.claims);
    };
    pod(&api, None);
    settle(&*controller, pump).await;
    let claim = api.all::<PersistentVolumeClaim>().remove(0);
    assert_eq!(claim.metadata.name.as_deref(), Some("web-scratch"));
    assert_eq!(claim.metadata.labels.unwrap()["app"], "web");
    assert_eq!(claim.metadata.owner_references.unwrap()[0].kind, "Pod");

    let key = Key::new("shop", "web-scratch");
    api.remove("persistentvolumeclaims", &key);
    shop.claim("web-scratch", json!({}));
    pump();
    controller.queue.take_all();
    use crate::runtime::Controller as _;
    let refused = controller.reconcile(&Key::new("shop", "web")).await;
    assert!(refused.is_err());
    assert!(
        events
            .try_recv()
            .unwrap()
            .message
            .ends_with("(pod is not owner)")
    );
    assert!(shop.events().is_empty());
}
