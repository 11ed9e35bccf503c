//! The benchmarks of pods still run: everything once. What they measure is not looked at.

use anyhow::{Result, ensure};
use hull_e2e::cluster::Cluster;

use crate::Scenario;

pub const ALL: &[Scenario] = &[("node_benchmarks_of_pods_print_every_row", every_row)];

/// Benchmarks of `hull-bench`, and rows that their tables must have.
const BENCHMARKS: [(&str, &[&str]); 3] = [
    (
        "sandbox",
        &[
            "| netns |",
            "| cni |",
            "| vmm_start |",
            "| kernel |",
            "| agent |",
            "| RunPodSandbox, as its caller sees it |",
            "| StopPodSandbox and RemovePodSandbox |",
        ],
    ),
    (
        "pods",
        &[
            "| create to bound |",
            "| bound to running |",
            "| **create to running** |",
            "| delete (1 s grace) to gone |",
        ],
    ),
    (
        "memory",
        &[
            "| hull-vmm (an idle pod) |",
            "| **an idle pod, all processes** |",
            "| hull (daemon) |",
            "| hull-shim (daemon) |",
            "| hull-fsd (a pod with busybox and a host directory) |",
        ],
    ),
];

fn every_row(cluster: &mut Cluster) -> Result<()> {
    let before = cluster.traces()?;
    for (benchmark, rows) in BENCHMARKS {
        let printed = cluster.bench(benchmark)?;
        for row in rows {
            ensure!(printed.contains(row), "{row} is not in\n{printed}");
        }
    }
    cluster.wait_for_no_more(&before)
}
