//! Workloads under random faults: requests that fail before or after they took effect, watches that
//! fall behind or are dropped, pods that fail, end and vanish. Whatever happens, at each step no
//! workload has pods that it may not have and nothing foreign is gone; when the faults end,
//! everything comes to rest as it should be, and then nothing is written any more. A seed repeats
//! a run exactly.
//!
//! ```text
//! Faulty (Writer) ─► FakeApi ── log ─► feeds: a few events, none, or a new list ─► informers
//!      ▲                ▲                                                             │
//!  controllers      World::live: what scheduler, nodes and users do               queues
//! ```

mod daemon_set;
mod deployment;
pub(crate) mod faulty;
mod job;
mod replica_set;
mod stateful_set;

use std::sync::Arc;

use hull_client::events::Recorder;
use k8s_openapi::api::core::v1::Pod;
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};

use crate::{
    pods::is_terminal,
    runtime::{
        Controller, Informer, Key, Writer,
        fake::{FakeApi, settle},
        informer::controller_of,
    },
};
use faulty::Faulty;

/// Runs with different seeds; `HULL_INVARIANT_SEEDS` asks for more.
const SEEDS: u64 = 8;
/// Steps of a run with faults.
const STEPS: usize = 150;
/// Rounds in which everything comes to rest.
const CALM_ROUNDS: usize = 40;
/// Nodes that pods are put on when they do not say.
const NODES: usize = 4;

fn seeds() -> std::ops::Range<u64> {
    let asked = std::env::var("HULL_INVARIANT_SEEDS").ok();
    0..asked.and_then(|text| text.parse().ok()).unwrap_or(SEEDS)
}

/// What an informer gets to see.
enum Sight {
    /// Up to so many events.
    Events(usize),
    /// The watch was dropped: a new list.
    List,
}

type Feed = Box<dyn FnMut(&FakeApi, &Sight)>;

/// What may happen to pods besides becoming ready; chances per step.
#[derive(Clone, Copy, Default)]
struct Life {
    succeed: f64,
    fail: f64,
    /// Somebody deletes it.
    deleted: f64,
    /// Gone without a trace, as with its node.
    vanish: f64,
}

/// Pods only become ready and end when they are deleted.
const GENTLE: Life = Life {
    succeed: 0.0,
    fail: 0.0,
    deleted: 0.0,
    vanish: 0.0,
};
const ROUGH: Life = Life {
    succeed: 0.05,
    fail: 0.05,
    deleted: 0.1,
    vanish: 0.1,
};

struct World {
    api: Arc<FakeApi>,
    faulty: Arc<Faulty>,
    random: StdRng,
    feeds: Vec<Feed>,
    /// What was asked of the API server since the last look.
    requests: Vec<String>,
    /// Ended pods: (uid, phase, completion index).
    ended: Vec<(String, &'static str, Option<String>)>,
}

impl World {
    fn new(seed: u64) -> Self {
        let api = FakeApi::new();
        api.delete_gracefully();
        let world = World {
            faulty: Arc::new(Faulty::new(api.clone(), seed)),
            api,
            random: StdRng::seed_from_u64(seed),
            feeds: Vec::new(),
            requests: Vec::new(),
            ended: Vec::new(),
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

    fn writer(&self) -> Arc<dyn Writer> {
        self.faulty.clone()
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
        let mut place = 0;
        self.feeds.push(Box::new(move |api, sight| match sight {
            Sight::Events(most) => place = api.follow(&own, place, *most),
            Sight::List => {
                place = api.now();
                api.pump(&own);
            }
        }));
        informer
    }

    /// The pods whose controller is of that kind.
    fn owned(&self, kind: &str) -> Vec<Pod> {
        let mut pods: Vec<Pod> = self.api.all();
        pods.retain(|pod| controller_of(pod).is_some_and(|owner| owner.kind == kind));
        pods
    }

    /// Scheduler, node or a user do something to one of the workload's pods.
    fn live(&mut self, kind: &str, life: Life) {
        let pods = self.owned(kind);
        if pods.is_empty() {
            return;
        }
        let pod = &pods[self.random.random_range(0..pods.len())];
        let key = Key::of(pod);
        if self.random.random_bool(life.vanish) {
            self.api.remove("pods", &key);
        } else if self.random.random_bool(life.deleted) && !is_leaving(pod) {
            self.api.delete_as_user("pods", &key);
        } else if self.random.random_bool(life.fail) {
            self.end(pod, "Failed");
        } else if self.random.random_bool(life.succeed) && !is_leaving(pod) {
            self.end(pod, "Succeeded");
        } else {
            self.tend(pod);
        }
    }

    /// The next thing in a pod's ordinary life.
    fn tend(&mut self, pod: &Pod) {
        let key = Key::of(pod);
        if is_leaving(pod) {
            if pod.metadata.deletion_grace_period_seconds.unwrap_or(0) > 0 {
                self.end(pod, "Failed");
                self.api.kill(&key);
            }
        } else if is_terminal(pod) {
        } else if !is_assigned(pod) {
            let intended = crate::daemonset::intended_node(pod).map(String::from);
            let node = self.random.random_range(0..NODES);
            let node = intended.unwrap_or_else(|| format!("n{node}"));
            let patch = json!({"spec": {"nodeName": node}});
            self.api.change("pods", &key, patch);
        } else {
            self.api.change("pods", &key, ready());
        }
    }

    /// The pod ends on its node. One that was never there cannot.
    fn end(&mut self, pod: &Pod, phase: &'static str) {
        if is_terminal(pod) || !is_assigned(pod) {
            return;
        }
        let meta = &pod.metadata;
        let annotations = meta.annotations.as_ref();
        let index = annotations.and_then(|own| own.get(crate::job::indexes::INDEX).cloned());
        self.ended.push((meta.uid.clone().unwrap(), phase, index));
        let status = json!({"status": {"phase": phase, "conditions": [], "containerStatuses": [{
            "name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"terminated": {"exitCode": 1, "finishedAt": "2020-01-01T00:00:00Z"}}
        }]}});
        self.api.change("pods", &Key::of(pod), status);
    }

    /// One step: some informers see something, some keys are worked on; `check` looks after each.
    async fn step(
        &mut self,
        controllers: &[Arc<dyn Controller>],
        mut check: impl FnMut(&mut World),
    ) {
        for feed in &mut self.feeds {
            let sight = match self.random.random_range(0..20) {
                0..5 => continue,
                5 => Sight::List,
                _ => Sight::Events(self.random.random_range(1..6)),
            };
            feed(&self.api, &sight);
        }
        for controller in controllers {
            for key in controller.queue().take_all() {
                if controller.reconcile(&key).await.is_err() {
                    controller.queue().add(key.clone());
                }
                self.requests = self.api.take_requests();
                check(self);
            }
        }
        assert_eq!(self.owned("Odd").len(), 3, "foreign pods are left alone");
    }

    /// No more faults: everything must come to rest. `tend` is the pods' life in quiet times.
    async fn calm(
        &mut self,
        controllers: &[Arc<dyn Controller>],
        keys: &[Key],
        mut tend: impl FnMut(&mut World),
    ) {
        self.faulty.stop();
        for round in 0..CALM_ROUNDS {
            self.api.take_requests();
            for controller in controllers {
                for key in keys {
                    controller.queue().add(key.clone());
                }
                let mut feeds = std::mem::take(&mut self.feeds);
                let see = std::cell::RefCell::new(&mut feeds);
                settle(&**controller, || {
                    for feed in see.borrow_mut().iter_mut() {
                        feed(&self.api, &Sight::Events(usize::MAX));
                    }
                })
                .await;
                self.feeds = feeds;
            }
            if round + 1 < CALM_ROUNDS {
                tend(self);
            }
        }
        let written = self.api.take_requests();
        assert!(written.is_empty(), "nothing comes to rest: {written:?}");
    }

    /// All pods of the kind get on with their ordinary lives.
    fn tend_all(&mut self, kind: &str) {
        for pod in self.owned(kind) {
            self.tend(&pod);
        }
    }

    fn chance(&mut self, chance: f64) -> bool {
        self.random.random_bool(chance)
    }
}

fn is_leaving(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

fn is_assigned(pod: &Pod) -> bool {
    let spec = pod.spec.as_ref();
    spec.is_some_and(|spec| spec.node_name.is_some())
}

fn ready() -> Value {
    json!({"status": {"phase": "Running", "conditions": [
        {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    ]}})
}

fn template(image: &str) -> Value {
    json!({
        "metadata": {"labels": {"app": "web"}},
        "spec": {"containers": [{"name": "c", "image": image}]}
    })
}

/// An object of the namespace `shop` that selects `app: web`.
fn workload(name: &str, spec: Value) -> Value {
    let mut full = json!({
        "selector": {"matchLabels": {"app": "web"}}, "template": template("v1")
    });
    for (key, value) in spec.as_object().unwrap() {
        full[key] = value.clone();
    }
    json!({"metadata": {"name": name, "namespace": "shop", "generation": 1}, "spec": full})
}

fn recorder() -> Recorder {
    Recorder::channel().0
}
