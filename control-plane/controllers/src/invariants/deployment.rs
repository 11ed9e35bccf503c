//! Rollouts stay within surge and unavailability whatever the caches show.

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};

use super::*;
use crate::{
    deployment::{DeploymentController, size},
    pods::{is_active, is_ready},
    replicaset::ReplicaSetController,
};

const REPLICAS: i32 = 5;
const SURGE: i32 = 2;
const UNAVAILABLE: i32 = 1;

fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap()
}

async fn run(seed: u64, life: Life) {
    let mut world = World::new(seed);
    let writer = world.writer();
    let (deployments, sets) = (world.informer(), world.informer());
    let pods = world.informer();
    let deploys = DeploymentController::new(
        writer.clone(),
        recorder(),
        deployments,
        sets.clone(),
        pods.clone(),
    );
    let replicas = ReplicaSetController::new(writer, recorder(), sets, pods);
    let controllers: Vec<Arc<dyn Controller>> = vec![deploys, replicas];
    let bounds = json!({"maxSurge": SURGE, "maxUnavailable": UNAVAILABLE});
    let strategy = json!({"type": "RollingUpdate", "rollingUpdate": bounds});
    let spec = json!({"replicas": REPLICAS, "strategy": strategy, "revisionHistoryLimit": 2});
    world.api.seed::<Deployment>(workload("web", spec));
    let key = Key::new("shop", "web");
    let gentle = life.vanish == 0.0;
    let (mut version, mut generation, mut complete) = (1, 1, false);
    for _ in 0..STEPS * 2 {
        if (complete || !gentle) && world.chance(0.04) {
            generation += 1;
            // Forth, and now and then back to an old one.
            version = world.random.random_range(1..=version + 1);
            let image = format!("v{version}");
            let patch = json!({
                "metadata": {"generation": generation}, "spec": {"template": template(&image)}
            });
            world.api.change("deployments", &key, patch);
        }
        for _ in 0..3 {
            world.live("ReplicaSet", life);
        }
        let look = |world: &mut World| {
            let total: i32 = world.api.all::<ReplicaSet>().iter().map(size).sum();
            // A lost answer and a rollback at once may add up to one step more.
            let bound = if gentle {
                REPLICAS + SURGE
            } else {
                REPLICAS + 2 * SURGE
            };
            assert!(total <= bound, "seed {seed}: {total} wanted");
            let owned = world.owned("ReplicaSet");
            let serving = owned.iter().filter(|pod| is_active(pod) && is_ready(pod));
            let serving = count(serving.count());
            complete |= serving >= REPLICAS;
            let enough = !gentle || !complete || serving >= REPLICAS - UNAVAILABLE;
            assert!(enough, "seed {seed}: {serving} serve");
        };
        world.step(&controllers, look).await;
    }
    let keys = [key];
    world
        .calm(&controllers, &keys, |world| world.tend_all("ReplicaSet"))
        .await;
    let sets: Vec<ReplicaSet> = world.api.all();
    let full: Vec<_> = sets.iter().filter(|set| size(set) > 0).collect();
    assert_eq!(full.len(), 1, "seed {seed}");
    assert_eq!(size(full[0]), REPLICAS, "seed {seed}");
    let spec = full[0].spec.as_ref().unwrap().template.as_ref().unwrap();
    let image = spec.spec.as_ref().unwrap().containers[0].image.clone();
    assert_eq!(image, Some(format!("v{version}")), "seed {seed}");
    assert!(sets.len() <= 3, "seed {seed}: {} sets are kept", sets.len());
    let status = world.api.all::<Deployment>()[0].status.clone().unwrap();
    assert_eq!(status.available_replicas, Some(REPLICAS), "seed {seed}");
    assert_eq!(status.updated_replicas, Some(REPLICAS), "seed {seed}");
}

#[tokio::test]
async fn deployments_roll_out_within_their_bounds() {
    for seed in seeds() {
        run(seed, GENTLE).await;
    }
}

#[tokio::test]
async fn deployments_come_to_rest_although_pods_die() {
    for seed in seeds() {
        run(seed, ROUGH).await;
    }
}
