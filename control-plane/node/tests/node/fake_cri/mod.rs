//! A container runtime in memory, served as CRI over a unix socket. Tests steer it: images that
//! fail, sandboxes that cannot be made, containers that end, VMs that die.

mod image;
mod runtime;
mod stats;
mod streaming;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hull_cri_api::v1 as cri;
use hull_cri_api::v1::image_service_server::ImageServiceServer;
use hull_cri_api::v1::runtime_service_server::RuntimeServiceServer;
use jiff::Timestamp;
use parking_lot::Mutex;

#[derive(Debug, Clone)]
pub struct Sandbox {
    pub config: cri::PodSandboxConfig,
    pub handler: String,
    pub ready: bool,
    pub created_at: i64,
    pub ip: String,
}

#[derive(Debug, Clone)]
pub struct Container {
    pub sandbox_id: String,
    pub config: cri::ContainerConfig,
    pub log_path: PathBuf,
    pub state: cri::ContainerState,
    pub created_at: i64,
    pub started_at: i64,
    pub finished_at: i64,
    pub exit_code: i32,
    pub reason: String,
    pub message: String,
}

#[derive(Default)]
pub struct State {
    pub sandboxes: BTreeMap<String, Sandbox>,
    pub containers: BTreeMap<String, Container>,
    /// Images on the node.
    pub images: BTreeMap<String, cri::Image>,
    /// Images that cannot be pulled, and why.
    pub bad_images: HashMap<String, String>,
    /// Credentials that an image needs.
    pub private_images: HashMap<String, (String, String)>,
    /// Why no sandbox can be made.
    pub sandbox_error: Option<String>,
    /// Containers (by name) that end at once with this code.
    pub exits: HashMap<String, i32>,
    /// Containers (by name) that StopContainer fails to stop.
    pub stubborn: HashSet<String>,
    /// Every mutating call, in order.
    pub calls: Vec<String>,
    /// What ExecSync answers.
    pub exec_exit_code: i32,
    /// Where exec and attach stream.
    pub streaming: Option<std::net::SocketAddr>,
}

#[derive(Clone, Default)]
pub struct FakeCri {
    pub state: Arc<Mutex<State>>,
    next: Arc<AtomicU64>,
}

pub fn now() -> i64 {
    i64::try_from(Timestamp::now().as_nanosecond()).unwrap()
}

/// A serving runtime. It has threads of its own: dropping it ends its open connections too, as
/// the death of a process does.
pub struct Serving(Option<tokio::runtime::Runtime>);

impl Drop for Serving {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl FakeCri {
    /// Serves at a socket until [`Serving`] is dropped.
    pub fn serve(&self, socket: &Path) -> Serving {
        let _ = std::fs::remove_file(socket);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let guard = runtime.enter();
        let listener = tokio::net::UnixListener::bind(socket).unwrap();
        let stream = tokio_stream::wrappers::UnixListenerStream::new(listener);
        let server = tonic::transport::Server::builder()
            .add_service(RuntimeServiceServer::new(self.clone()))
            .add_service(ImageServiceServer::new(self.clone()))
            .serve_with_incoming(stream);
        runtime.spawn(async move { server.await.unwrap() });
        drop(guard);
        Serving(Some(runtime))
    }

    pub async fn serve_streaming(&self) {
        let address = streaming::serve().await;
        self.state.lock().streaming = Some(address);
    }

    pub fn id(&self) -> String {
        format!("{:032x}", self.next.fetch_add(1, Ordering::Relaxed) + 1)
    }

    pub fn called(&self, prefix: &str) -> usize {
        self.state
            .lock()
            .calls
            .iter()
            .filter(|call| call.starts_with(prefix))
            .count()
    }

    /// The newest container of a name.
    pub fn container(&self, name: &str) -> Option<(String, Container)> {
        let state = self.state.lock();
        state
            .containers
            .iter()
            .rev()
            .find(|(_, container)| container.config.metadata.as_ref().unwrap().name == name)
            .map(|(id, container)| (id.clone(), container.clone()))
    }

    /// Ends the newest container of a name.
    pub fn exit(&self, name: &str, code: i32) {
        let (id, _) = self.container(name).unwrap();
        let mut state = self.state.lock();
        end(state.containers.get_mut(&id).unwrap(), code, "");
    }

    /// The VM of a pod is gone.
    pub fn kill_vm(&self, pod: &str) {
        let mut state = self.state.lock();
        let (id, sandbox) = state
            .sandboxes
            .iter_mut()
            .filter(|(_, sandbox)| sandbox.ready)
            .find(|(_, sandbox)| sandbox.config.metadata.as_ref().unwrap().name == pod)
            .unwrap();
        sandbox.ready = false;
        let id = id.clone();
        for container in state.containers.values_mut().filter(|c| c.sandbox_id == id) {
            if container.state == cri::ContainerState::ContainerRunning {
                end(container, 137, "VMMKilled");
                container.message = "hull-vmm was killed by signal 9".into();
            }
        }
    }

    pub fn is_empty(&self) -> bool {
        let state = self.state.lock();
        state.sandboxes.is_empty() && state.containers.is_empty()
    }
}

pub fn end(container: &mut Container, code: i32, reason: &str) {
    container.state = cri::ContainerState::ContainerExited;
    container.exit_code = code;
    container.reason = reason.into();
    container.finished_at = now();
}
