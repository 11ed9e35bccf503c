//! Taking a sandbox away. Every step is idempotent and finds its object by the
//! sandbox's id, so that a teardown which was interrupted is simply done again.

use super::object::Sandbox;
use crate::error::Error;
use crate::shim::Shim;

/// Ends the VM and the network; the record and the files stay.
pub async fn stop_resources(shim: &Shim, sandbox: &Sandbox) -> Result<(), Error> {
    let linux = sandbox.record().config.linux.unwrap_or_default();
    sandbox.end_live();
    shim.vmm
        .destroy(&sandbox.id, &sandbox.paths, &linux.cgroup_parent)
        .await?;
    shim.network
        .detach(&sandbox.id, &sandbox.paths.netns)
        .await?;
    Ok(())
}

/// Ends and removes everything, the record last. The sandbox is unknown afterwards.
pub async fn everything(shim: &Shim, sandbox: &Sandbox) -> Result<(), Error> {
    stop_resources(shim, sandbox).await?;
    for container in shim.registry.containers_of(&sandbox.id) {
        shim.images.release(&container.id);
        shim.registry.remove_container(&container.id);
    }
    let paths = sandbox.paths.clone();
    tokio::task::spawn_blocking(move || paths.remove())
        .await
        .map_err(|_| Error::Task("removing the files of a sandbox"))?
        .map_err(Error::io(format!(
            "removing the files of sandbox {}",
            sandbox.id
        )))?;
    shim.journal.remove_sandbox(&sandbox.id)?;
    shim.registry.remove_sandbox(&sandbox.id);
    Ok(())
}
