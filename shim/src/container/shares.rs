//! Host directories and files of a container, by virtio-fs. Each mount is a share of its own,
//! named after the container and the mount's number, so that what belongs to a container can
//! be found without a record.

use super::mounts::PlannedMount;
use crate::error::Error;
use crate::journal::VolumeKind;
use crate::sandbox::object::{Live, Sandbox};
use crate::vmm::{Share, VmmError};
use hull_vmm_client::share::{Access, Detached, FILE_NAME, detach};
use std::path::Path;

/// Gives the shares among the planned mounts their names, and those of single files the entry
/// that they are. Directories that do not exist are made, as other runtimes do.
pub fn name(container_id: &str, planned: &mut [PlannedMount]) -> Result<(), Error> {
    for (number, mount) in planned.iter_mut().enumerate() {
        if mount.record.kind != VolumeKind::Share {
            continue;
        }
        let path = &mount.record.host_path;
        let failed = || Error::io(format!("mount of {}", path.display()));
        if let Err(error) = std::fs::metadata(path) {
            if error.kind() != std::io::ErrorKind::NotFound {
                return Err(failed()(error));
            }
            std::fs::create_dir_all(path).map_err(failed())?;
        }
        mount.volume = format!("{}{number}", prefix(container_id));
        if !path.is_dir() {
            mount.sub_path = FILE_NAME.to_string();
        }
    }
    Ok(())
}

/// How the names of a container's shares begin.
fn prefix(container_id: &str) -> String {
    format!("{container_id}-")
}

/// Shows the guest what a mount names.
pub async fn attach(sandbox: &Sandbox, live: &Live, mount: &PlannedMount) -> Result<(), Error> {
    let access = match (mount.read_only, mount.recursive_read_only) {
        (false, _) => Access::ReadWrite,
        (true, false) => Access::ReadOnly,
        (true, true) => Access::RecursiveReadOnly,
    };
    let (path, propagation) = (mount.record.host_path.clone(), mount.propagation);
    let detached = tokio::task::spawn_blocking(move || detach(&path, access, propagation))
        .await
        .map_err(|_| Error::Task("sharing a host path"))?;
    let Detached { root, is_file } = detached.map_err(|error| {
        Error::InvalidArgument(format!("mount at {:?}: {error}", mount.container_path))
    })?;
    if is_file == mount.sub_path.is_empty() {
        return Err(changed(&mount.record.host_path));
    }
    let share = Share {
        name: mount.volume.clone(),
        root,
        // Otherwise the mount's own flag decides: file systems mounted in it may be writable.
        read_only: access == Access::RecursiveReadOnly,
        uid: sandbox.record().jail_uid,
    };
    live.vm.add_share(share).await.map_err(Error::from)
}

fn changed(path: &Path) -> Error {
    Error::FailedPrecondition(format!(
        "{} became another kind of file while the container was created",
        path.display()
    ))
}

/// Takes a container's shares away.
pub async fn detach_all(live: Option<&Live>, container_id: &str) -> Result<(), VmmError> {
    match live {
        Some(live) => live.vm.remove_shares(&prefix(container_id)).await,
        None => Ok(()),
    }
}
