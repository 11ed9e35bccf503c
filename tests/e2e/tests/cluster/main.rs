//! End-to-end scenarios against one real cluster: stock kubectl, real VMs, a real
//! registry and real CNI plugins. Each needs KVM, so each is ignored unless asked
//! for; `make test` runs them where KVM is, one after the other, in this order.

mod benchmarks;
mod controllers;
mod crashes;
mod debugging;
mod errors;
mod identity;
mod pods;
mod scheduling;
mod services;
mod streams;
mod two_nodes;
mod volumes;

use std::sync::{Arc, Mutex};

use hull_e2e::cluster::Cluster;
use libtest_mimic::{Arguments, Failed, Trial};

/// A scenario: its name and what it does with the cluster.
pub type Scenario = (&'static str, fn(&mut Cluster) -> anyhow::Result<()>);

/// The cluster, started by the first scenario that runs.
type Shared = Arc<Mutex<Option<Cluster>>>;

fn trial((name, run): Scenario, shared: Shared) -> Trial {
    Trial::test(name, move || {
        let mut guard = shared
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        if guard.is_none() {
            *guard = Some(Cluster::start().map_err(|e| Failed::from(format!("{e:?}")))?);
        }
        let Some(cluster) = guard.as_mut() else {
            return Err("no cluster".into());
        };
        run(cluster).map_err(|e| Failed::from(format!("{e:?}\n{}", cluster.log_tail())))
    })
    .with_ignored_flag(true)
}

fn main() {
    let arguments = Arguments::from_args();
    let shared: Shared = Arc::default();
    let scenarios = [
        pods::ALL,
        volumes::ALL,
        identity::ALL,
        debugging::ALL,
        scheduling::ALL,
        controllers::ALL,
        services::ALL,
        benchmarks::ALL,
        errors::ALL,
        crashes::ALL,
        two_nodes::ALL,
    ]
    .concat();
    let trials = scenarios
        .into_iter()
        .map(|s| trial(s, shared.clone()))
        .collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    if let Some(cluster) = shared
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
        .take()
        && let Err(error) = cluster.stop()
    {
        eprintln!("stopping the cluster: {error:?}");
        std::process::exit(1);
    }
    conclusion.exit();
}
