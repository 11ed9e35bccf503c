//! Never more pods than wanted, never one less by our own hand.

use k8s_openapi::api::apps::v1::ReplicaSet;

use super::*;
use crate::{pods::is_active, replicaset::ReplicaSetController};

fn active(world: &World) -> usize {
    let owned = world.owned("ReplicaSet");
    owned.iter().filter(|pod| is_active(pod)).count()
}

/// Runs `STEPS` steps, with another size now and then if `scales`.
async fn run(seed: u64, scales: bool) {
    let mut world = World::new(seed);
    let writer = world.writer();
    let controller =
        ReplicaSetController::new(writer, recorder(), world.informer(), world.informer());
    let controllers: Vec<Arc<dyn Controller>> = vec![controller];
    world
        .api
        .seed::<ReplicaSet>(workload("web", json!({"replicas": 5})));
    let key = Key::new("shop", "web");
    let (mut wanted, mut most) = (5, 5);
    for _ in 0..STEPS {
        if scales && world.chance(0.05) {
            wanted = [0, 2, 5, 8][world.random.random_range(0..4)];
            most = most.max(wanted);
            let patch = json!({"spec": {"replicas": wanted}});
            world.api.change("replicasets", &key, patch);
        }
        world.live("ReplicaSet", ROUGH);
        let look = |world: &mut World| {
            assert!(active(world) <= most, "seed {seed}: too many pods");
            let deletes = |request: &String| request.starts_with("delete pods");
            let deleted = world.requests.iter().any(deletes);
            assert!(scales || !deleted, "seed {seed}: {:?}", world.requests);
        };
        world.step(&controllers, look).await;
    }
    let keys = [key];
    world
        .calm(&controllers, &keys, |world| world.tend_all("ReplicaSet"))
        .await;
    assert_eq!(active(&world), wanted, "seed {seed}");
    let status = world.api.all::<ReplicaSet>()[0].status.clone().unwrap();
    let ready = status.ready_replicas.unwrap_or(0);
    assert_eq!(usize::try_from(ready), Ok(wanted), "seed {seed}");
}

#[tokio::test]
async fn replica_sets_keep_their_number() {
    for seed in seeds() {
        run(seed, false).await;
    }
}

#[tokio::test]
async fn replica_sets_follow_their_scale() {
    for seed in seeds() {
        run(seed, true).await;
    }
}
