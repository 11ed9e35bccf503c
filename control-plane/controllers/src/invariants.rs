//! StatefulSets under random faults: requests that fail before or after they took effect, informers
//! that fall behind, pods that fail, end and vanish. Whatever happens, at each step no set
//! has pods that it may not have and nothing foreign is gone; when the faults end, everything
//! comes to rest as it should be. A seed repeats a run exactly.

use std::sync::Arc;

use hull_client::events::Recorder;
use k8s_openapi::api::{apps::v1::StatefulSet, core::v1::Pod};
use kube::api::{DeleteParams, DynamicObject};
use parking_lot::Mutex;
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};

use crate::{
    pods::{is_active, is_terminal},
    runtime::{
        Controller, Informer, Key, Target, WriteError, Writer,
        fake::{FakeApi, refused, settle},
        informer::controller_of,
        writer::Served,
    },
    statefulset::StatefulSetController,
};

/// Runs with different seeds.
const SEEDS: u64 = 12;
/// Steps of a run with faults.
const STEPS: usize = 120;
/// Share of the requests that fail.
const FAULTS: f64 = 0.15;

/// An API server that fails now and then.
struct Faulty {
    api: Arc<FakeApi>,
    random: Mutex<StdRng>,
    rate: Mutex<f64>,
}

enum Fault {
    Before(WriteError),
    After,
}

impl Faulty {
    fn fault(&self) -> Option<Fault> {
        let mut random = self.random.lock();
        if !random.random_bool(*self.rate.lock()) {
            return None;
        }
        Some(match random.random_range(0..3) {
            0 => Fault::Before(refused(409, "Conflict", "changed meanwhile")),
            1 => Fault::Before(refused(500, "InternalError", "time-out")),
            _ => Fault::After,
        })
    }
}

fn lost<T>(_: T) -> Result<T, WriteError> {
    Err(refused(500, "InternalError", "the answer was lost"))
}

#[async_trait::async_trait]
impl Writer for Faulty {
    async fn resources(&self) -> Result<Vec<Served>, WriteError> {
        self.api.resources().await
    }

    async fn get(&self, target: Target<'_>) -> Result<Value, WriteError> {
        self.api.get(target).await
    }

    async fn list(&self, target: Target<'_>) -> Result<Vec<DynamicObject>, WriteError> {
        self.api.list(target).await
    }

    async fn create(&self, target: Target<'_>, body: Value) -> Result<Value, WriteError> {
        match self.fault() {
            // A pod of a generated name whose creation looks failed is made again by design, so
            // answers to creations are not lost here.
            Some(Fault::Before(error)) => Err(error),
            _ => self.api.create(target, body).await,
        }
    }

    async fn replace(
        &self,
        target: Target<'_>,
        subresource: Option<&'static str>,
        body: Value,
    ) -> Result<Value, WriteError> {
        match self.fault() {
            Some(Fault::Before(error)) => Err(error),
            Some(Fault::After) => lost(self.api.replace(target, subresource, body).await?),
            None => self.api.replace(target, subresource, body).await,
        }
    }

    async fn patch(
        &self,
        target: Target<'_>,
        subresource: Option<&'static str>,
        body: Value,
    ) -> Result<Value, WriteError> {
        match self.fault() {
            Some(Fault::Before(error)) => Err(error),
            Some(Fault::After) => lost(self.api.patch(target, subresource, body).await?),
            None => self.api.patch(target, subresource, body).await,
        }
    }

    async fn delete(&self, target: Target<'_>, options: DeleteParams) -> Result<(), WriteError> {
        match self.fault() {
            Some(Fault::Before(error)) => Err(error),
            Some(Fault::After) => lost(self.api.delete(target, options).await?),
            None => self.api.delete(target, options).await,
        }
    }
}

/// What brings one informer up to date.
type Pump = Box<dyn Fn(&FakeApi)>;

struct World {
    api: Arc<FakeApi>,
    faulty: Arc<Faulty>,
    random: StdRng,
    pumps: Vec<Pump>,
}

impl World {
    fn new(seed: u64) -> Self {
        let api = FakeApi::new();
        let faulty = Arc::new(Faulty {
            api: api.clone(),
            random: Mutex::new(StdRng::seed_from_u64(seed ^ 0xfa)),
            rate: Mutex::new(FAULTS),
        });
        let world = World {
            api,
            faulty,
            random: StdRng::seed_from_u64(seed),
            pumps: Vec::new(),
        };
        for number in 0..3 {
            world.api.seed::<Pod>(json!({
                "metadata": {
                    "name": format!("foreign-{number}"), "namespace": "shop",
                    "labels": {"app": "web"},
                    "ownerReferences": [{
                        "apiVersion": "x/v1", "kind": "Odd", "name": "odd", "uid": "odd",
                        "controller": true
                    }]
                },
                "spec": {"containers": []}, "status": {"phase": "Running"}
            }));
        }
        world
    }

    fn informer<K>(&mut self) -> Arc<Informer<K>>
    where
        K: kube::Resource<DynamicType = ()>
            + serde::de::DeserializeOwned
            + std::fmt::Debug
            + Send
            + Sync
            + 'static,
    {
        let informer = Arc::new(Informer::<K>::default());
        let own = informer.clone();
        self.pumps.push(Box::new(move |api| api.pump(&own)));
        informer
    }

    fn pump_all(&self) {
        for pump in &self.pumps {
            pump(&self.api);
        }
    }

    /// The pods that the workload owns.
    fn owned(&self, kind: &str) -> Vec<Pod> {
        let mut pods: Vec<Pod> = self.api.all();
        pods.retain(|pod| controller_of(pod).is_some_and(|owner| owner.kind == kind));
        pods
    }

    /// Something happens to one pod of the workload.
    fn disturb(&mut self, kind: &str) {
        let pods = self.owned(kind);
        if pods.is_empty() {
            return;
        }
        let pod = &pods[self.random.random_range(0..pods.len())];
        if is_terminal(pod) {
            return;
        }
        let key = Key::of(pod);
        let ended = |phase: &str| {
            json!({"status": {"phase": phase, "containerStatuses": [{
                "name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                "state": {"terminated": {"exitCode": 1, "finishedAt": "2020-01-01T00:00:00Z"}}
            }]}})
        };
        match self.random.random_range(0..10) {
            0 => self.api.remove("pods", &key),
            1 => self.api.change("pods", &key, ended("Failed")),
            2 => self.api.change("pods", &key, ended("Succeeded")),
            _ => self.api.change("pods", &key, ready()),
        }
    }

    /// One step: some informers catch up, some keys are worked on.
    async fn step(&mut self, controllers: &[Arc<dyn Controller>]) {
        for pump in &self.pumps {
            if self.random.random_bool(0.6) {
                pump(&self.api);
            }
        }
        for controller in controllers {
            for key in controller.queue().take_all() {
                if controller.reconcile(&key).await.is_err() {
                    controller.queue().add(key);
                }
            }
        }
        let foreign: Vec<Pod> = self.api.all();
        let foreign = foreign
            .iter()
            .filter(|pod| controller_of(*pod).is_some_and(|owner| owner.kind == "Odd"));
        assert_eq!(foreign.count(), 3, "foreign pods are left alone");
    }

    /// No more faults: everything must come to rest, and stay there.
    async fn calm(&mut self, controllers: &[Arc<dyn Controller>]) {
        *self.faulty.rate.lock() = 0.0;
        for controller in controllers {
            settle(&**controller, || self.pump_all()).await;
        }
    }
}

fn ready() -> Value {
    json!({"status": {"phase": "Running", "conditions": [
        {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    ]}})
}

fn workload(name: &str, spec: Value) -> Value {
    let mut full = json!({
        "selector": {"matchLabels": {"app": "web"}},
        "template": {
            "metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "c", "image": "v1"}]}
        }
    });
    for (key, value) in spec.as_object().unwrap() {
        full[key] = value.clone();
    }
    json!({"metadata": {"name": name, "namespace": "shop"}, "spec": full})
}

fn recorder() -> Recorder {
    Recorder::channel().0
}

/// Errors of the last seed's key must not linger in expectations for minutes.
async fn wake(controller: &dyn Controller, name: &str) {
    controller.queue().add(Key::new("shop", name));
}

#[tokio::test]
async fn stateful_sets_keep_order_and_names() {
    for seed in 0..SEEDS {
        let mut world = World::new(seed);
        let writer: Arc<dyn Writer> = world.faulty.clone();
        let controller = StatefulSetController::new(
            writer,
            recorder(),
            world.informer(),
            world.informer(),
            world.informer(),
            world.informer(),
        );
        let controllers: Vec<Arc<dyn Controller>> = vec![controller.clone()];
        let spec = json!({
            "replicas": 4, "serviceName": "db",
            "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {}}]
        });
        world.api.seed::<StatefulSet>(workload("db", spec));
        for _ in 0..STEPS {
            world.disturb("StatefulSet");
            world.step(&controllers).await;
            let owned = world.owned("StatefulSet");
            let known = ["db-0", "db-1", "db-2", "db-3"];
            assert!(
                owned
                    .iter()
                    .all(|pod| known.contains(&pod.metadata.name.as_deref().unwrap()))
            );
        }
        for _ in 0..20 {
            wake(&*controller, "db").await;
            world.calm(&controllers).await;
            for pod in world.owned("StatefulSet") {
                if is_active(&pod) {
                    world.api.change("pods", &Key::of(&pod), ready());
                }
            }
        }
        assert_eq!(world.owned("StatefulSet").len(), 4, "seed {seed}");
        let status = world.api.all::<StatefulSet>()[0].status.clone().unwrap();
        assert_eq!(status.ready_replicas, Some(4), "seed {seed}");
    }
}
