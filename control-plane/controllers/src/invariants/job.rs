//! No more pods at a time than allowed, each end counted once, no index run again after a success.

use std::collections::BTreeSet;

use k8s_openapi::api::batch::v1::{Job, JobStatus};

use super::*;
use crate::{
    job::{JobController, JobOrphansController, TRACKING_FINALIZER, end_of, indexes::INDEX},
    pods::is_active,
};

const COMPLETIONS: usize = 8;
const PARALLELISM: usize = 3;
/// No pod of a job vanishes: its finalizer holds it.
const LIFE: Life = Life {
    succeed: 0.2,
    fail: 0.1,
    deleted: 0.05,
    vanish: 0.0,
};

fn index_of(pod: &Pod) -> Option<&String> {
    pod.metadata.annotations.as_ref()?.get(INDEX)
}

fn ended(world: &World, phase: &str) -> usize {
    world
        .ended
        .iter()
        .filter(|(_, own, _)| *own == phase)
        .count()
}

fn check(world: &World, indexed: bool) -> Result<(), String> {
    let owned = world.owned("Job");
    let active: Vec<&Pod> = owned.iter().filter(|pod| is_active(pod)).collect();
    if active.len() > PARALLELISM {
        return Err(format!("{} pods at a time", active.len()));
    }
    if end_of(&world.api.all::<Job>()[0]).is_some() && !active.is_empty() {
        return Err("a pod runs although the job has ended".into());
    }
    if !indexed {
        return Ok(());
    }
    let mut seen = BTreeSet::new();
    for pod in active {
        let index = index_of(pod).ok_or("a pod without index")?;
        if !seen.insert(index.clone()) {
            return Err(format!("two pods of index {index}"));
        }
        let done = |(_, phase, own): &(String, &str, Option<String>)| {
            *phase == "Succeeded" && own.as_ref() == Some(index)
        };
        if world.ended.iter().any(done) {
            return Err(format!("index {index} runs again"));
        }
    }
    Ok(())
}

async fn run(seed: u64, indexed: bool) -> (World, JobStatus) {
    let mut world = World::new(seed);
    let writer = world.writer();
    let (jobs, pods) = (world.informer(), world.informer());
    let controller = JobController::new(writer.clone(), recorder(), jobs.clone(), pods.clone());
    let orphans = JobOrphansController::new(writer, jobs, pods);
    let controllers: Vec<Arc<dyn Controller>> = vec![controller, orphans];
    let mode = if indexed { "Indexed" } else { "NonIndexed" };
    let spec = json!({
        "completions": COMPLETIONS, "parallelism": PARALLELISM, "backoffLimit": 1000,
        "completionMode": mode
    });
    world.api.seed::<Job>(workload("web", spec));
    let keys = [Key::new("shop", "web")];
    let look = |world: &mut World| {
        if let Err(problem) = check(world, indexed) {
            panic!("seed {seed}: {problem}");
        }
    };
    for _ in 0..STEPS {
        world.live("Job", LIFE);
        world.step(&controllers, look).await;
    }
    let succeed = |world: &mut World| {
        for pod in world.owned("Job") {
            if !is_leaving(&pod) && is_assigned(&pod) {
                world.end(&pod, "Succeeded");
            } else {
                world.tend(&pod);
            }
            look(world);
        }
    };
    // The orphans' keys are pods, which enqueue themselves.
    world.calm(&controllers, &keys, succeed).await;
    let job = world.api.all::<Job>().pop().unwrap();
    assert_eq!(end_of(&job), Some("Complete"), "seed {seed}");
    for pod in world.owned("Job") {
        let finalizers = pod.metadata.finalizers.unwrap_or_default();
        assert!(!finalizers.iter().any(|own| own == TRACKING_FINALIZER));
    }
    (world, job.status.unwrap())
}

#[tokio::test]
async fn jobs_count_every_end_once() {
    for seed in seeds() {
        let (world, status) = run(seed, false).await;
        let count = |number: Option<i32>| usize::try_from(number.unwrap_or(0)).unwrap();
        let succeeded = ended(&world, "Succeeded");
        assert_eq!(count(status.succeeded), succeeded, "seed {seed}");
        assert_eq!(succeeded, COMPLETIONS, "seed {seed}");
        assert!(
            count(status.failed) >= ended(&world, "Failed"),
            "seed {seed}"
        );
    }
}

#[tokio::test]
async fn indexed_jobs_run_each_index_until_it_succeeds_once() {
    for seed in seeds() {
        let (world, status) = run(seed, true).await;
        assert_eq!(status.completed_indexes.as_deref(), Some("0-7"));
        assert_eq!(ended(&world, "Succeeded"), COMPLETIONS, "seed {seed}");
    }
}
