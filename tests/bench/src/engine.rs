//! Decisions of the scheduler's engine alone: no API server, no store, one thread.

use std::time::{Duration, Instant};

use anyhow::Context;
use clap::ValueEnum;
use hull_scheduler::{
    SchedulerConfig,
    core::{Change, Core, Decision},
    plugins::{ScoringStrategy, default_framework},
    pod::PodInfo,
};
use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;

use crate::Options;
use crate::stats::{Samples, rate};
use crate::table::{Report, Table, milliseconds};
use crate::workload::{Workload, node};

pub fn measure(options: &Options) -> anyhow::Result<Report> {
    let nodes = options.fake_nodes;
    let mut report = Report::new(&format!("Scheduler's engine alone on {nodes} nodes"));
    let mut table = Table::new(&[
        "workload",
        "pods bound",
        "per second",
        "median decision, ms",
        "longest, ms",
    ]);
    let workloads = match options.workload {
        Some(workload) => vec![workload],
        None => Workload::value_variants().to_vec(),
    };
    for workload in workloads {
        let outcome = run(workload, options).with_context(|| format!("{workload:?}"))?;
        table.row([
            workload
                .to_possible_value()
                .map_or_else(String::new, |value| value.get_name().to_owned()),
            format!("{} of {}", outcome.bound, outcome.wanted),
            format!("{:.0}", rate(outcome.bound, outcome.elapsed)),
            milliseconds(outcome.decisions.median()),
            milliseconds(outcome.decisions.max()),
        ]);
    }
    report.table(table);
    Ok(report)
}

struct Outcome {
    wanted: usize,
    bound: usize,
    elapsed: Duration,
    decisions: Samples,
}

fn parse(pod: Value) -> anyhow::Result<Pod> {
    Ok(serde_json::from_value(pod)?)
}

/// The engine with nodes and all pods that are not measured.
fn prepare(
    workload: Workload,
    nodes: usize,
    wanted: usize,
    now: &mut Instant,
) -> anyhow::Result<Core> {
    let config = SchedulerConfig::default();
    let framework = default_framework(ScoringStrategy::LeastAllocated);
    let mut core = Core::new(framework, &config);
    core.observe_pod(Change::ListBegins, *now);
    core.observe_pod(Change::ListEnds, *now);
    core.observe_node(Change::ListBegins, *now);
    for number in 0..nodes {
        let node = serde_json::from_value(node(number))?;
        core.observe_node(Change::Listed(node), *now);
    }
    core.observe_node(Change::ListEnds, *now);
    for pod in workload.placed(nodes) {
        core.observe_pod(Change::Applied(parse(pod)?), *now);
    }
    for pod in workload.waiting(wanted) {
        core.observe_pod(Change::Applied(parse(pod)?), *now);
    }
    while core.decide(*now).is_some() {}
    Ok(core)
}

fn run(workload: Workload, options: &Options) -> anyhow::Result<Outcome> {
    let nodes = options.fake_nodes;
    let wanted = workload.pods(nodes, options.bindings);
    // The engine has no clock of its own: waits take no time here.
    let mut now = Instant::now();
    let mut core = prepare(workload, nodes, wanted, &mut now)?;
    let pods: Vec<Pod> = (0..wanted)
        .map(|number| parse(workload.pod(number)))
        .collect::<anyhow::Result<_>>()?;
    let patience = Duration::from_secs(options.patience_seconds);
    let (mut bound, mut decisions) = (0, Samples::default());
    let begun = Instant::now();
    for pod in pods {
        core.observe_pod(Change::Applied(pod), now);
    }
    while bound < wanted && begun.elapsed() < patience {
        let before = Instant::now();
        let Some(decision) = core.decide(now) else {
            match core.next_wake() {
                Some(at) => now = now.max(at),
                None => break,
            }
            continue;
        };
        decisions.push(before.elapsed());
        match decision {
            Decision::Assigned { pod, node } => {
                bound += 1;
                write(&mut core, &pod, &node, now);
            }
            Decision::Unschedulable { preemption, .. } => {
                for victim in preemption.into_iter().flat_map(|found| found.victims) {
                    core.observe_pod(Change::Deleted(victim.pod.clone()), now);
                }
            }
        }
    }
    Ok(Outcome {
        wanted,
        bound,
        elapsed: begun.elapsed(),
        decisions,
    })
}

/// The binding comes back by the watch.
fn write(core: &mut Core, pod: &PodInfo, node: &str, now: Instant) {
    core.bound(pod);
    let mut written = pod.pod.clone();
    if let Some(spec) = &mut written.spec {
        spec.node_name = Some(node.to_owned());
    }
    core.observe_pod(Change::Applied(written), now);
}
