//! RunPodSandbox to ready, by phase.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::Options;
use crate::cri::Runtime;
use crate::peer;
use crate::stats::Samples;
use crate::table::{Report, Table, milliseconds};

/// The order in which hull-shim goes through its phases.
const PHASES: [&str; 5] = ["netns", "cni", "vmm_start", "kernel", "agent"];

#[derive(Default)]
struct Measured {
    phases: BTreeMap<String, Samples>,
    start: Samples,
    remove: Samples,
}

pub async fn measure(options: &Options) -> anyhow::Result<Report> {
    let mut runtime = Runtime::connect(&options.cri_socket).await?;
    // The first one finds cold caches, which is a figure of its own.
    let mut cold = Measured::default();
    measure_one(&mut runtime, "bench-cold", &mut cold).await?;
    let mut warm = Measured::default();
    for number in 0..options.sandboxes {
        measure_one(&mut runtime, &format!("bench-{number}"), &mut warm).await?;
    }
    let mut report = Report::new("RunPodSandbox to ready");
    let mut table = Table::new(&["phase (ms)", "min", "median", "max", "first"]);
    for (phase, samples) in in_order(&warm.phases) {
        let first = cold
            .phases
            .get(phase)
            .map(Samples::median)
            .unwrap_or_default();
        add(&mut table, phase, samples, first);
    }
    add(
        &mut table,
        "RunPodSandbox, as its caller sees it",
        &warm.start,
        cold.start.median(),
    );
    add(
        &mut table,
        "StopPodSandbox and RemovePodSandbox",
        &warm.remove,
        cold.remove.median(),
    );
    report.table(table);
    report.remark(format!(
        "{} sandboxes, one after the other.",
        options.sandboxes
    ));
    peer::compare_boot(options, &warm.phases, &mut report).await;
    Ok(report)
}

async fn measure_one(
    runtime: &mut Runtime,
    name: &str,
    measured: &mut Measured,
) -> anyhow::Result<()> {
    let begun = Instant::now();
    let id = runtime.run_sandbox(name).await?;
    measured.start.push(begun.elapsed());
    let phases = runtime.phases(&id).await;
    let begun = Instant::now();
    runtime.remove_sandbox(&id).await?;
    measured.remove.push(begun.elapsed());
    for (phase, took) in phases? {
        measured.phases.entry(phase).or_default().push(took);
    }
    Ok(())
}

fn add(table: &mut Table, name: &str, samples: &Samples, first: Duration) {
    let cells = [samples.min(), samples.median(), samples.max(), first].map(milliseconds);
    table.row([name.to_owned()].into_iter().chain(cells));
}

/// Known phases in their order, then any that are new.
fn in_order(phases: &BTreeMap<String, Samples>) -> Vec<(&str, &Samples)> {
    let known = PHASES.iter().filter_map(|name| phases.get_key_value(*name));
    let others = phases
        .iter()
        .filter(|(name, _)| !PHASES.contains(&name.as_str()));
    known
        .chain(others)
        .map(|(name, samples)| (name.as_str(), samples))
        .collect()
}
