//! Containers: what they are made of and their life.
//!
//! ```text
//!            create                start               process ends          remove
//! (nothing) ────────► Created ───────────────► Running ────────────► Stopped ──────► (nothing)
//!    root, volumes, bundle,   command executed                 cgroup killed,
//!    cgroup, waiting process                                   unmounted, disk released
//! ```
//! [`containers::Containers`] holds them all and serialises creation and removal.

pub mod cgroup;
pub mod containers;
pub mod devices;
mod exec;
pub mod limits;
pub mod privileges;
pub mod process;
pub mod rootfs;
pub mod seccomp;
pub mod spec;
pub mod usage;
pub mod user;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use hull_agent_protocol::v1::container_info::State;
use hull_agent_protocol::v1::{ContainerInfo, CreateContainerRequest};
use parking_lot::Mutex;

use crate::engine::Report;
use crate::error::Error;
use cgroup::Cgroup;
use process::Process;

/// One container.
#[derive(Debug)]
pub struct Container {
    id: String,
    /// To recognise the same request.
    request: CreateContainerRequest,
    process: Arc<Process>,
    /// What execs start from.
    template: oci_spec::runtime::Process,
    root: PathBuf,
    cgroup: Cgroup,
    parts: Mutex<Parts>,
    start: tokio::sync::Mutex<Start>,
    started_at_ns: Mutex<Option<i64>>,
    /// `None`: being started.
    execs: Mutex<BTreeMap<String, Option<Arc<Process>>>>,
}

/// What a container holds besides its root.
#[derive(Debug, Default)]
struct Parts {
    /// Names of volumes that it uses, once per mount.
    volumes: Vec<String>,
    /// Names of directories of the host that it uses.
    shares: Vec<String>,
    /// Mount points of these volumes for this container.
    mounts: Vec<PathBuf>,
}

/// Whether the first process executes its command.
#[derive(Debug)]
enum Start {
    Waiting(Report),
    Started,
    Failed,
}

impl Container {
    /// The first process, or an exec.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn process(&self, exec: &str) -> Result<Arc<Process>, Error> {
        if exec.is_empty() {
            return Ok(Arc::clone(&self.process));
        }
        let execs = self.execs.lock();
        execs
            .get(exec)
            .and_then(Clone::clone)
            .ok_or_else(|| Error::NotFound {
                what: "exec",
                id: exec.to_owned(),
            })
    }

    /// Its cgroup.
    pub fn cgroup(&self) -> &Cgroup {
        &self.cgroup
    }

    /// State, for the host.
    pub fn info(&self) -> ContainerInfo {
        let exit = self.process.exit();
        let started = *self.started_at_ns.lock();
        let state = match (exit, started) {
            (Some(_), _) => State::Stopped,
            (None, Some(_)) => State::Running,
            (None, None) => State::Created,
        };
        ContainerInfo {
            container_id: self.id.clone(),
            state: state.into(),
            pid: self.process.pid().unsigned_abs(),
            exit,
            started_at_ns: started.unwrap_or_default(),
        }
    }
}
