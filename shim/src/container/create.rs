//! CreateContainer.

use super::mounts::{self, PlannedMount};
use super::object::Container;
use super::state::{ContainerEvent, ContainerState};
use super::{disks, shares, signal, spec, user, volumes};
use crate::error::Error;
use crate::ids;
use crate::journal::{ContainerRecord, VolumeKind};
use crate::sandbox::object::{Live, Sandbox};
use crate::sandbox::validate;
use crate::shim::{Shim, now_ns};
use hull_cri_api::v1::{
    ContainerConfig, ContainerEventType, LinuxContainerSecurityContext, NamespaceMode,
};
use hull_image::Image;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

/// Makes a container. Returns its id.
pub async fn create(
    shim: Arc<Shim>,
    sandbox: Arc<Sandbox>,
    config: ContainerConfig,
) -> Result<String, Error> {
    let metadata = config.metadata.clone().ok_or_else(|| {
        Error::InvalidArgument("container config must include metadata".to_string())
    })?;
    if metadata.name.is_empty() {
        return Err(Error::InvalidArgument(
            "container metadata has no name".to_string(),
        ));
    }
    if !config.devices.is_empty() || !config.cdi_devices.is_empty() {
        return Err(Error::Unimplemented(
            "host devices in a microVM".to_string(),
        ));
    }
    let _operation = sandbox.operation.lock().await;
    let live = sandbox.require_live()?;
    let pod = sandbox.record().config.metadata.unwrap_or_default();
    let name = format!(
        "{}_{}_{}_{}_{}",
        metadata.name, pod.name, pod.namespace, pod.uid, metadata.attempt
    );
    let id = ids::generate();
    shim.registry.reserve_container(&name, &id)?;
    let made = make(&shim, &sandbox, &live, &id, config).await;
    if made.is_err() {
        shim.images.release(&id);
        shim.registry.remove_container(&id);
    }
    made.map(|()| id)
}

async fn make(
    shim: &Arc<Shim>,
    sandbox: &Arc<Sandbox>,
    live: &Live,
    id: &str,
    config: ContainerConfig,
) -> Result<(), Error> {
    let wanted = config.image.clone().unwrap_or_default().image;
    let image = shim
        .images
        .lease(&wanted, id)
        .ok_or_else(|| Error::NotFound {
            kind: "image",
            id: wanted.clone(),
        })?;
    let mut planned = plan_mounts(sandbox, &config)?;
    shares::name(id, &mut planned)?;
    let target = pid_target(shim, sandbox, &config)?;
    let record = record(sandbox, id, config, &image, &planned, target.as_deref())?;
    shim.journal.save_container(&record)?;
    let container = Container::new(record, shim.journal.clone());
    let prepared = prepare(shim, sandbox, live, &container, &image, &planned).await;
    if let Err(error) = prepared {
        undo(shim, sandbox, live, &container).await;
        return Err(error);
    }
    shim.registry.insert_container(container.clone());
    crate::cri::events::publish(shim, &container, ContainerEventType::ContainerCreatedEvent);
    tracing::info!(
        sandbox_id = sandbox.id,
        container_id = id,
        image = image.id,
        "container created"
    );
    Ok(())
}

fn plan_mounts(sandbox: &Sandbox, config: &ContainerConfig) -> Result<Vec<PlannedMount>, Error> {
    let pod = sandbox.record().config;
    let uid = pod.metadata.unwrap_or_default().uid;
    config
        .mounts
        .iter()
        .map(|mount| mounts::plan(mount, &uid, &pod.annotations))
        .collect()
}

fn security(config: &ContainerConfig) -> LinuxContainerSecurityContext {
    let linux = config.linux.as_ref();
    linux
        .and_then(|linux| linux.security_context.clone())
        .unwrap_or_default()
}

/// The whole id of the container whose PID namespace is to be shared.
fn pid_target(
    shim: &Shim,
    sandbox: &Sandbox,
    config: &ContainerConfig,
) -> Result<Option<String>, Error> {
    let options = security(config).namespace_options.unwrap_or_default();
    if options.pid != NamespaceMode::Target as i32 {
        return Ok(None);
    }
    let target = shim.registry.container(&options.target_id)?;
    if target.sandbox_id != sandbox.id {
        return Err(Error::InvalidArgument(format!(
            "target container {} is in another sandbox",
            target.id
        )));
    }
    if target.state() != ContainerState::Running {
        return Err(Error::FailedPrecondition(format!(
            "target container {} does not run",
            target.id
        )));
    }
    Ok(Some(target.id.clone()))
}

fn record(
    sandbox: &Sandbox,
    id: &str,
    config: ContainerConfig,
    image: &Image,
    planned: &[PlannedMount],
    pid_target: Option<&str>,
) -> Result<ContainerRecord, Error> {
    let pod = sandbox.record().config;
    let security = security(&config);
    validate::container_security(&security)?;
    let user = user::resolve(
        &security,
        &image.config.user,
        image.passwd.as_deref().unwrap_or_default(),
        image.group.as_deref().unwrap_or_default(),
    )?;
    let hostname = if pod.hostname.is_empty() {
        pod.metadata
            .map(|metadata| metadata.name)
            .unwrap_or_default()
    } else {
        pod.hostname
    };
    let spec = spec::build(&spec::SpecInput {
        id,
        config: &config,
        image: &image.config,
        user: &user,
        mounts: planned,
        hostname: &hostname,
        pid_target,
    })?;
    Ok(ContainerRecord {
        id: id.to_string(),
        sandbox_id: sandbox.id.clone(),
        log_path: log_path(&pod.log_directory, &config.log_path)?,
        image_id: image.id.clone(),
        image_ref: image
            .repo_digests
            .first()
            .cloned()
            .unwrap_or_else(|| image.id.clone()),
        stop_signal: signal::stop_signal(
            config.stop_signal(),
            image.config.stop_signal.as_deref(),
        )?,
        config,
        slot: String::new(),
        spec,
        state: ContainerState::Creating,
        created_at_ns: now_ns(),
        started_at_ns: 0,
        finished_at_ns: 0,
        exit_code: 0,
        reason: String::new(),
        message: String::new(),
    })
}

fn log_path(directory: &str, file: &str) -> Result<Option<PathBuf>, Error> {
    if directory.is_empty() || file.is_empty() {
        return Ok(None);
    }
    let relative = Path::new(file);
    if !relative
        .components()
        .all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
    {
        return Err(Error::InvalidArgument(format!(
            "log_path {file:?} leaves the log directory"
        )));
    }
    Ok(Some(Path::new(directory).join(relative)))
}

async fn prepare(
    shim: &Arc<Shim>,
    sandbox: &Arc<Sandbox>,
    live: &Live,
    container: &Arc<Container>,
    image: &Image,
    planned: &[PlannedMount],
) -> Result<(), Error> {
    let slots = shim.config.vmm.disk_slots;
    let slot = disks::attach(sandbox, live, image, &container.id, slots).await?;
    container.update(|record| record.slot = slot)?;
    for mount in planned {
        if mount.record.kind == VolumeKind::Share {
            shares::attach(sandbox, live, mount).await?;
            continue;
        }
        volumes::ensure(
            sandbox,
            &live.guest,
            mount,
            shim.config.volumes.max_copied_mib,
        )
        .await?;
    }
    container.apply(ContainerEvent::Created, |_| {})
}

async fn undo(shim: &Shim, sandbox: &Sandbox, live: &Live, container: &Container) {
    if let Err(error) = shares::detach_all(Some(live), &container.id).await {
        tracing::error!(sandbox_id = sandbox.id, container_id = container.id, %error, "undoing the host volumes of a failed container creation");
    }
    let slot = container.record().slot;
    let detached = disks::detach(sandbox, Some(live), &slot, &container.id).await;
    let forgotten = shim.journal.remove_container(&sandbox.id, &container.id);
    if let Err(error) = detached.and(forgotten.map_err(Error::from)) {
        tracing::error!(sandbox_id = sandbox.id, container_id = container.id, %error, "undoing a failed container creation");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_paths_stay_in_their_directory() {
        assert_eq!(
            log_path("/var/log/p", "c/0.log").unwrap().unwrap(),
            Path::new("/var/log/p/c/0.log")
        );
        assert!(log_path("/var/log/p", "../0.log").is_err());
        assert!(log_path("/var/log/p", "/etc/x").is_err());
        assert_eq!(log_path("", "c").unwrap(), None);
    }
}
