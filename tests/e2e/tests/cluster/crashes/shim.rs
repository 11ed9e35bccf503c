//! kill -9 of hull-shim.

use anyhow::{Context, Result, ensure};
use hull_e2e::{
    cluster::Cluster,
    processes::Frozen,
    relay::{Valve, registry_that_stops_after},
    wait,
};

use super::{Bystander, COUNTER};
use crate::pods::shell_pod;

/// Where the pull stands still: inside the image's first layer, of 1 MB.
const PULLED_BYTES: usize = 300_000;

/// With a steady pod; while an image is pulled; while a container is made.
pub fn killed(cluster: &mut Cluster) -> Result<()> {
    let before = cluster.traces()?;
    cluster.kubectl.apply(&shell_pod("survivor", COUNTER))?;
    let mut survivor = Bystander::of(cluster, "survivor")?;
    cluster.kill_shim()?;
    cluster.shim_is_back()?;
    survivor.goes_on(cluster)?;
    answers(cluster)?;

    let (registry, valve) = registry_that_stops_after(PULLED_BYTES)?;
    let newcomer = start_newcomer(cluster, &registry, &valve);
    // Nothing of the test may wait for it any longer.
    valve.open();
    newcomer?;
    survivor.goes_on(cluster)?;
    cluster.kubectl.delete_pod("newcomer")?;
    cluster.kubectl.delete_pod("survivor")?;
    cluster.wait_for_no_more(&before)
}

/// The shim serves, and reaches the container that outlived its predecessor.
fn answers(cluster: &Cluster) -> Result<()> {
    let echo = ["exec", "survivor", "--", "echo", "still here"];
    wait::until("an answer of the survivor", 30, || {
        let printed = cluster.kubectl.try_run(&echo, "")?;
        Ok(if printed.stdout == "still here\n" {
            Ok(())
        } else {
            Err(format!("{printed:?}"))
        })
    })
}

/// Brings up a pod although the shim is killed when half of its image is there, and again when its
/// container is half made.
fn start_newcomer(cluster: &Cluster, registry: &str, valve: &Valve) -> Result<()> {
    // Of an image that nobody else uses: a pull that has not to be done cannot be broken off.
    let image = format!("image: {registry}/test/zstd");
    let yaml = shell_pod("newcomer", COUNTER).replace("image: busybox", &image);
    cluster.kubectl.apply(&yaml)?;
    valve.stopped()?;
    let sandbox = cluster.pod_at("newcomer", "ready", |pod| pod.idles())?;
    cluster.kill_shim().context("during the pull")?;
    cluster.shim_is_back()?;
    // It has taken over the VMs, and may find one that stands still.
    answers(cluster)?;

    // A VM that stands still takes no disk: the container waits for its image's.
    let vmm = Frozen::new(sandbox.vmm.context("no VM")?)?;
    valve.open();
    cluster.pod_at("newcomer", "half made", |pod| {
        pod.containers == ["creating"]
    })?;
    cluster.kill_shim().context("during the creation")?;
    drop(vmm);
    cluster.shim_is_back()?;

    let pod = cluster.kubectl.pod_ready("newcomer")?;
    let status = &pod["status"]["containerStatuses"][0];
    ensure!(status["restartCount"] == 0, "it never ran before: {status}");
    let same = cluster.pod_at("newcomer", "running", |pod| pod.runs())?;
    ensure!(
        same.vmm == sandbox.vmm && same.containers.len() == 1,
        "another sandbox, or more containers than one: {same:?}"
    );
    Ok(())
}

/// While a pod is deleted.
pub fn killed_during_deletion(cluster: &mut Cluster) -> Result<()> {
    let before = cluster.traces()?;
    cluster
        .kubectl
        .apply(&shell_pod("leaver", "exec sleep 100000"))?;
    cluster
        .kubectl
        .pod_ready("leaver")
        .context("before the kill")?;
    cluster
        .kubectl
        .run(&["delete", "pod", "leaver", "--wait=false"])?;
    cluster.kill_shim()?;
    cluster.shim_is_back()?;
    cluster.kubectl.delete_pod("leaver")?;
    cluster.wait_for_no_more(&before)
}
