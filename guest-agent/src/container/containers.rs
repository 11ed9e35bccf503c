//! All containers of the sandbox: create, start, remove.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hull_agent_protocol::client::scaled;
use hull_agent_protocol::v1::{ContainerInfo, CreateContainerRequest, RootFs as RootFsRequest};
use libc::SIGKILL;
use oci_spec::runtime::Spec;
use parking_lot::Mutex;
use tokio::task::spawn_blocking;

use super::cgroup::Cgroup;
use super::process::{self, Process, StreamOptions};
use super::rootfs::RootFs;
use super::spec::{self, Decisions, SHARE_TYPE, VOLUME_TYPE};
use super::{Container, Parts, Start, devices, limits};
use crate::engine::{Engine, EngineError};
use crate::error::Error;
use crate::events::Events;
use crate::layout::Layout;
use crate::mounts;
use crate::name;
use crate::reaper::{Reaper, now_ns};
use crate::resolve::fd_path;
use crate::shares::Shares;
use crate::volume::Volumes;

/// How long a process that was told to may take to execute its command, before [`scaled`].
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// Files of the sandbox that every container sees in its /etc.
const ETC_FILES: [(&str, &str); 3] = [
    ("hosts", "/etc/hosts"),
    ("hostname", "/etc/hostname"),
    ("resolv.conf", "/etc/resolv.conf"),
];

/// The sandbox's containers.
#[derive(Debug)]
pub struct Containers {
    pub(super) layout: Layout,
    pub(super) engine: Engine,
    pub(super) reaper: Arc<Reaper>,
    pub(super) events: Arc<Events>,
    roots: Arc<RootFs>,
    volumes: Arc<Volumes>,
    shares: Shares,
    /// Cgroup above the containers' ("/hull").
    cgroup_parent: String,
    all: Mutex<BTreeMap<String, Arc<Container>>>,
    /// Held while a container is created or removed.
    lifecycle: tokio::sync::Mutex<()>,
}

/// What is there before the engine makes the process.
struct Prepared {
    spec: Spec,
    root: PathBuf,
    bundle: PathBuf,
}

impl Containers {
    /// No containers yet.
    pub fn new(
        layout: Layout,
        reaper: Arc<Reaper>,
        events: Arc<Events>,
        roots: Arc<RootFs>,
        volumes: Arc<Volumes>,
        cgroup_parent: String,
    ) -> Containers {
        Containers {
            engine: Engine::new(Arc::clone(&reaper), layout.engine()),
            shares: Shares::new(layout.clone()),
            layout,
            reaper,
            events,
            roots,
            volumes,
            cgroup_parent,
            all: Mutex::default(),
            lifecycle: tokio::sync::Mutex::default(),
        }
    }

    /// The container `id`.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Name`].
    pub fn get(&self, id: &str) -> Result<Arc<Container>, Error> {
        name::check("container id", id)?;
        self.find(id).ok_or_else(|| Error::NotFound {
            what: "container",
            id: id.to_owned(),
        })
    }

    fn find(&self, id: &str) -> Option<Arc<Container>> {
        self.all.lock().get(id).cloned()
    }

    /// State of every container, by id.
    pub fn list(&self) -> Vec<ContainerInfo> {
        self.all
            .lock()
            .values()
            .map(|container| container.info())
            .collect()
    }

    /// Creates a container; the process waits for [`Containers::start`]. The same
    /// request again returns the same container.
    ///
    /// # Errors
    /// [`Error`]; nothing of the container is left then.
    pub async fn create(
        self: &Arc<Self>,
        request: CreateContainerRequest,
    ) -> Result<Arc<Container>, Error> {
        let id = request.container_id.clone();
        name::check("container id", &id)?;
        let _lifecycle = self.lifecycle.lock().await;
        if let Some(existing) = self.find(&id) {
            return match existing.request == request {
                true => Ok(existing),
                false => Err(Error::Exists {
                    what: "container",
                    id,
                }),
            };
        }
        let spec = spec::parse(&request.oci_spec_json)?;
        let disk = disk_of(&request).to_owned();
        let (prepared, parts) = {
            let (this, request) = (Arc::clone(self), request.clone());
            spawn_blocking(move || {
                let mut parts = Parts::default();
                let prepared = this.prepare(&request, spec, &mut parts);
                (prepared, parts)
            })
            .await?
        };
        let launched = match prepared {
            Ok(prepared) => self.launch(&request, prepared).await,
            Err(error) => Err(error),
        };
        match launched {
            Ok(mut container) => {
                container.parts = Mutex::new(parts);
                let container = Arc::new(container);
                self.all.lock().insert(id, Arc::clone(&container));
                Ok(container)
            }
            Err(error) => {
                let this = Arc::clone(self);
                let mut parts = parts;
                let undo = move || this.tear_down(&id, &disk, &mut parts);
                if let Err(left) = spawn_blocking(undo).await? {
                    tracing::error!(%left, "undoing a failed creation failed");
                }
                Err(error)
            }
        }
    }

    /// Mounts the root and volumes and writes the bundle. Blocks. What it mounts is in
    /// `parts`, also when it fails.
    fn prepare(
        &self,
        request: &CreateContainerRequest,
        mut spec: Spec,
        parts: &mut Parts,
    ) -> Result<Prepared, Error> {
        let id = &request.container_id;
        let directory = self.layout.container(id);
        let bundle = directory.join("bundle");
        std::fs::create_dir_all(&bundle).map_err(Error::io("make the bundle directory"))?;
        let root = self.roots.mount(id, disk_of(request))?;
        self.mount_volumes(&mut spec, &directory.join("mounts"), parts)?;
        let etc = ETC_FILES.map(|(name, destination)| (self.layout.etc(name), destination));
        let cgroup = self.cgroup(id);
        let decisions = Decisions {
            root: &root,
            read_only: request
                .rootfs
                .as_ref()
                .is_some_and(|rootfs| rootfs.read_only),
            tty: request.tty,
            cgroup: cgroup.path(),
            etc: etc
                .into_iter()
                .filter(|(source, _)| source.exists())
                .collect(),
            shm: self.layout.shm(),
            pid_of: &|id| self.running_pid(id),
        };
        spec::apply(&mut spec, &decisions)?;
        let json = serde_json::to_vec(&spec).map_err(spec::SpecError::from)?;
        std::fs::write(bundle.join("config.json"), json).map_err(Error::io("write the bundle"))?;
        Ok(Prepared { spec, root, bundle })
    }

    /// Bind-mounts each volume and share that the spec names to a place of this container's
    /// own, which no container can change before the engine mounts it.
    fn mount_volumes(
        &self,
        spec: &mut Spec,
        directory: &Path,
        parts: &mut Parts,
    ) -> Result<(), Error> {
        let mut all = spec.mounts().clone().unwrap_or_default();
        for (number, mount) in all.iter_mut().enumerate() {
            let source = mount.source().clone().unwrap_or_default();
            let source = source.to_string_lossy();
            let target = directory.join(number.to_string());
            match mount.typ().as_deref() {
                Some(VOLUME_TYPE) => {
                    let (volume, opened) = self.volumes.hold(&source)?;
                    parts.volumes.push(volume);
                    let opened_path = fd_path(&opened);
                    let metadata = std::fs::metadata(&opened_path);
                    let metadata = metadata.map_err(Error::io("look at a volume"))?;
                    bind_volume(&opened_path, &target, metadata.is_dir())?;
                }
                Some(SHARE_TYPE) => {
                    let (share, path, is_directory) = self.shares.find(&source)?;
                    parts.shares.push(share);
                    bind_volume(&path, &target, is_directory)?;
                }
                _ => continue,
            }
            parts.mounts.push(target.clone());
            spec::bind_from(mount, target);
        }
        spec.set_mounts(Some(all));
        Ok(())
    }

    /// Has the engine make the waiting process.
    async fn launch(
        &self,
        request: &CreateContainerRequest,
        prepared: Prepared,
    ) -> Result<Container, Error> {
        let id = &request.container_id;
        let template = prepared.spec.process().clone();
        let template = template.ok_or(spec::SpecError::Missing("process"))?;
        let (stdio, streams) = process::prepare(StreamOptions {
            tty: request.tty,
            stdin: request.stdin,
            close_stdin_at_end: request.stdin_once,
            uid: template.user().uid(),
            gid: template.user().gid(),
        })
        .map_err(Error::io("make the process's pipes"))?;
        let launched = self
            .engine
            .create(id, &prepared.bundle, request.tty, stdio)
            .await
            .map_err(command_error)?;
        self.restrict_devices(id, &prepared.spec)?;
        let events = Arc::clone(&self.events);
        let (process, report) = Process::adopt(id, "", launched, streams, self.cgroup(id), events)
            .map_err(Error::io("read the process's output"))?;
        if let (Some(terminal), Some(size)) = (process.terminal(), template.console_size()) {
            let (rows, columns) = (clamp(size.height()), clamp(size.width()));
            if rows > 0 && columns > 0 {
                terminal
                    .resize(rows, columns)
                    .map_err(Error::io("size the terminal"))?;
            }
        }
        Ok(Container {
            id: id.clone(),
            request: request.clone(),
            process,
            template,
            root: prepared.root,
            cgroup: self.cgroup(id),
            parts: Mutex::default(),
            start: tokio::sync::Mutex::new(Start::Waiting(report)),
            started_at_ns: Mutex::default(),
            execs: Mutex::default(),
        })
    }

    /// Enforces the spec's device rules; without any, all devices may be used.
    fn restrict_devices(&self, id: &str, spec: &Spec) -> Result<(), Error> {
        let linux = spec.linux().as_ref();
        let resources = linux.and_then(|linux| linux.resources().as_ref());
        match resources.and_then(|resources| resources.devices().as_deref()) {
            Some(rules) if !rules.is_empty() => {
                Ok(devices::restrict(&self.cgroup(id).file(""), rules)?)
            }
            _ => Ok(()),
        }
    }

    /// Lets the container's process execute its command. Returns when it did, unix time
    /// in nanoseconds; the first time when called again.
    ///
    /// # Errors
    /// [`Error::Command`] when it could not; [`Error::State`] when the process is gone.
    pub async fn start(&self, id: &str) -> Result<i64, Error> {
        let container = self.get(id)?;
        let mut start = container.start.lock().await;
        match &*start {
            Start::Started => {
                let started = *container.started_at_ns.lock();
                return Ok(started.unwrap_or_default());
            }
            Start::Failed => {
                let message =
                    format!("container {id:?} was started and could not execute its command");
                return Err(Error::State(message));
            }
            Start::Waiting(_) if container.process.exit().is_some() => {
                return Err(Error::State(format!("container {id:?} has ended")));
            }
            Start::Waiting(_) => {}
        }
        self.engine.start(id).await.map_err(command_error)?;
        let Start::Waiting(report) = std::mem::replace(&mut *start, Start::Failed) else {
            return Err(Error::State(format!("container {id:?} is not waiting")));
        };
        let waited = spawn_blocking(move || report.wait());
        let timeout = scaled(START_TIMEOUT);
        let executed = tokio::time::timeout(timeout, waited).await;
        executed
            .map_err(|_| EngineError::TimedOut(timeout))??
            .map_err(command_error)?;
        let now = now_ns();
        *container.started_at_ns.lock() = Some(now);
        *start = Start::Started;
        Ok(now)
    }

    /// Removes a stopped or never started container. One that does not exist is removed.
    ///
    /// # Errors
    /// [`Error::State`] while it runs; others when something is still in use: call again.
    pub async fn remove(self: &Arc<Self>, id: &str) -> Result<(), Error> {
        name::check("container id", id)?;
        let _lifecycle = self.lifecycle.lock().await;
        let Some(container) = self.find(id) else {
            return Ok(());
        };
        if container.process.exit().is_none() {
            if container.started_at_ns.lock().is_some() {
                return Err(Error::State(format!("container {id:?} is running")));
            }
            self.reaper
                .signal(container.process.pid(), SIGKILL)
                .map_err(Error::io("kill the waiting process"))?;
            container.process.wait().await;
        }
        let this = Arc::clone(self);
        let owned = Arc::clone(&container);
        spawn_blocking(move || {
            let mut parts = std::mem::take(&mut *owned.parts.lock());
            let done = this.tear_down(&owned.id, disk_of(&owned.request), &mut parts);
            if done.is_err() {
                *owned.parts.lock() = parts;
            }
            done
        })
        .await??;
        self.events.forget(id, None);
        self.all.lock().remove(id);
        Ok(())
    }

    /// Undoes what creating a container does, as far as it was done. Blocks.
    fn tear_down(&self, id: &str, disk: &str, parts: &mut Parts) -> Result<(), Error> {
        let cgroup = self.cgroup(id);
        cgroup.destroy().map_err(Error::io(format!(
            "remove cgroup {}",
            cgroup.path().display()
        )))?;
        while let Some(mount) = parts.mounts.last() {
            mounts::unmount(mount).map_err(super::rootfs::RootFsError::from)?;
            parts.mounts.pop();
        }
        for volume in parts.volumes.drain(..) {
            self.volumes.release(&volume);
        }
        for share in parts.shares.drain(..) {
            self.shares.release(&share);
        }
        self.roots.unmount(id, disk)?;
        for directory in [self.layout.container(id), self.engine.directory(id)] {
            match std::fs::remove_dir_all(&directory) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::io(format!("remove {}", directory.display()))(error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Every container, for shutdown and statistics.
    pub fn all(&self) -> Vec<Arc<Container>> {
        self.all.lock().values().cloned().collect()
    }

    /// The first process of a container that runs.
    fn running_pid(&self, id: &str) -> Option<i32> {
        let container = self.find(id)?;
        let process = &container.process;
        process.exit().is_none().then(|| process.pid())
    }

    /// Changes the limits of a container's cgroup.
    ///
    /// # Errors
    /// [`Error::Limit`] names the limit; [`Error::State`] when the container has ended.
    pub fn update(&self, id: &str, resources_json: &[u8]) -> Result<(), Error> {
        let container = self.get(id)?;
        if container.process.exit().is_some() {
            return Err(Error::State(format!("container {id:?} has ended")));
        }
        let resources = serde_json::from_slice(resources_json).map_err(spec::SpecError::from)?;
        Ok(limits::apply(&container.cgroup, &resources)?)
    }

    /// The cgroup above the containers'.
    pub fn parent_cgroup(&self) -> Cgroup {
        Cgroup::new(&self.cgroup_parent)
    }

    fn cgroup(&self, id: &str) -> Cgroup {
        Cgroup::new(&format!("{}/{id}", self.cgroup_parent))
    }
}

/// Makes `target`, and mounts `source` there.
fn bind_volume(source: &Path, target: &Path, is_directory: bool) -> Result<(), Error> {
    let directory = target.parent().unwrap_or(target);
    let made = if is_directory {
        std::fs::create_dir_all(target)
    } else {
        std::fs::create_dir_all(directory).and_then(|()| std::fs::File::create(target).map(drop))
    };
    made.map_err(Error::io("make a volume's mount point"))?;
    Ok(mounts::bind(source, target).map_err(super::rootfs::RootFsError::from)?)
}

fn disk_of(request: &CreateContainerRequest) -> &str {
    request
        .rootfs
        .as_ref()
        .map_or("", |RootFsRequest { disk, .. }| disk)
}

pub(super) fn command_error(error: EngineError) -> Error {
    match error {
        EngineError::Command(failure) => Error::Command(failure),
        other => Error::Engine(other),
    }
}

pub(super) fn clamp(size: u64) -> u16 {
    u16::try_from(size).unwrap_or(u16::MAX)
}
