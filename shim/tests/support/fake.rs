//! A shim whose network and VMM are fakes, so that its state machine, its unwinding and
//! its recovery can be tested without KVM. The fake VM runs a fake agent behind a real
//! vsock socket, and boots as a real one does.

use async_trait::async_trait;
use hull_agent_protocol::boot::{BootLine, Phase};
use hull_agent_protocol::v1::agent_server::{Agent, AgentServer};
use hull_agent_protocol::v1::*;
use hull_shim::config::Config;
use hull_shim::journal::Journal;
use hull_shim::network::link::InterfaceState;
use hull_shim::network::pod::{NetworkError, NetworkRequest, PodNetwork, PodNetworkSetup};
use hull_shim::network::tap::TapError;
use hull_shim::shim::Shim;
use hull_shim::vmm::paths::SandboxPaths;
use hull_shim::vmm::{LaunchRequest, Share, Vm, VmExit, VmmError, VmmLauncher, VmmRecord};
use hull_vmm_client::exit::ExitReason;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tonic::{Request, Response, Status};

/// Where a start is made to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fault {
    #[default]
    None,
    Netns,
    Cni,
    Launch,
    /// The guest says a phase, writes to its console, and then nothing more.
    SilentGuest,
    /// The VM panics after a phase.
    Panic,
    /// The same, with much on the console.
    ChattyPanic,
    /// SetupSandbox fails.
    Setup,
}

/// The machine: what exists on it, whichever shim made it.
#[derive(Default)]
pub struct World {
    pub fault: Mutex<Fault>,
    pub namespaces: Mutex<BTreeSet<String>>,
    pub attached: Mutex<BTreeSet<String>>,
    pub vms: Mutex<BTreeMap<String, Arc<FakeVm>>>,
    /// What agents say of containers; they do it for every sandbox.
    pub containers: Mutex<Vec<ContainerInfo>>,
    /// Agents answer nothing.
    pub deaf: Mutex<bool>,
    /// CNI CHECK fails.
    pub check_fails: Mutex<bool>,
    /// CNI DEL fails.
    pub detach_fails: Mutex<bool>,
    next_pid: AtomicU32,
}

impl World {
    fn fails(&self, fault: Fault) -> bool {
        *self.fault.lock() == fault
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.namespaces.lock().is_empty()
            && self.attached.lock().is_empty()
            && self.vms.lock().is_empty()
    }

    /// Ends a VM from outside.
    pub fn kill(&self, id: &str) {
        self.end(id, ExitReason::Killed);
    }

    /// Ends a VM in one of the ways that there are.
    pub fn end(&self, id: &str, reason: ExitReason) {
        if let Some(vm) = self.vms.lock().remove(id) {
            vm.end_with(reason, "ended by the test");
        }
    }
}

pub struct FakeNetwork(pub Arc<World>);

fn refused(what: &str) -> NetworkError {
    let error: TapError = hull_shim::network::tap::create("").map(drop).unwrap_err();
    tracing::debug!(what, "a fault");
    NetworkError::Tap(error)
}

#[async_trait]
impl PodNetwork for FakeNetwork {
    async fn create_namespace(&self, netns: &Path) -> Result<(), NetworkError> {
        if self.0.fails(Fault::Netns) {
            return Err(refused("netns"));
        }
        let id = netns.file_name().unwrap().to_string_lossy().into_owned();
        self.0.namespaces.lock().insert(id);
        Ok(())
    }

    async fn attach(&self, request: &NetworkRequest) -> Result<PodNetworkSetup, NetworkError> {
        self.0.attached.lock().insert(request.id.clone());
        if self.0.fails(Fault::Cni) {
            return Err(refused("cni"));
        }
        Ok(PodNetworkSetup {
            tap: File::open("/dev/null").unwrap(),
            interface: InterfaceState {
                mac: "02:00:00:00:00:01".into(),
                mtu: 1500,
                ..Default::default()
            },
            addresses: vec!["10.1.2.3".parse().unwrap()],
        })
    }

    async fn check(&self, id: &str) -> Result<(), NetworkError> {
        match *self.0.check_fails.lock() || !self.0.attached.lock().contains(id) {
            true => Err(refused("check")),
            false => Ok(()),
        }
    }

    async fn detach(&self, id: &str, _netns: &Path) -> Result<(), NetworkError> {
        if *self.0.detach_fails.lock() {
            return Err(refused("detach"));
        }
        self.0.attached.lock().remove(id);
        self.0.namespaces.lock().remove(id);
        Ok(())
    }

    fn ready(&self) -> Result<String, NetworkError> {
        Ok("fake".into())
    }

    fn attached(&self) -> Vec<String> {
        self.0.attached.lock().iter().cloned().collect()
    }
}

pub struct FakeVm {
    record: VmmRecord,
    exit: watch::Sender<Option<VmExit>>,
}

impl FakeVm {
    fn end_with(&self, reason: ExitReason, message: &str) {
        self.exit.send_replace(Some(VmExit {
            reason,
            message: message.into(),
        }));
    }
}

#[async_trait]
impl Vm for FakeVm {
    fn record(&self) -> VmmRecord {
        self.record
    }

    async fn attach_disk(&self, _serial: &str, _file: File) -> Result<(), VmmError> {
        Ok(())
    }

    async fn detach_disk(&self, _serial: &str) -> Result<(), VmmError> {
        Ok(())
    }

    async fn add_share(&self, _share: Share) -> Result<(), VmmError> {
        Ok(())
    }

    async fn remove_shares(&self, _prefix: &str) -> Result<(), VmmError> {
        Ok(())
    }

    async fn vcpus(&self) -> Result<Vec<String>, VmmError> {
        Ok(vec!["vCPU 0 halted in the kernel at 0x1000".to_owned()])
    }

    async fn end(&self, reason: ExitReason, message: &str) -> Result<(), VmmError> {
        self.end_with(reason, message);
        Ok(())
    }

    async fn exited(&self) -> VmExit {
        let mut exit = self.exit.subscribe();
        exit.wait_for(Option::is_some)
            .await
            .unwrap()
            .clone()
            .unwrap()
    }
}

pub struct FakeLauncher(pub Arc<World>);

#[async_trait]
impl VmmLauncher for FakeLauncher {
    async fn launch(&self, request: LaunchRequest) -> Result<Arc<dyn Vm>, VmmError> {
        if self.0.fails(Fault::Launch) {
            return Err(VmmError::Spawn {
                program: "/nonexistent".into(),
                source: std::io::ErrorKind::NotFound.into(),
            });
        }
        assert!(request.scratch.exists());
        let pid = self.0.next_pid.fetch_add(1, Ordering::Relaxed) + 1;
        let vm = Arc::new(FakeVm {
            record: VmmRecord {
                pid,
                start_ticks: u64::from(pid),
            },
            exit: watch::channel(None).0,
        });
        self.0.vms.lock().insert(request.id.clone(), vm.clone());
        let fault = *self.0.fault.lock();
        serve_agent(&request.paths, fault == Fault::Setup, self.0.clone());
        tokio::spawn(boot(request.paths.clone(), fault, vm.clone()));
        Ok(vm)
    }

    async fn adopt(
        &self,
        id: &str,
        _paths: &SandboxPaths,
        record: &VmmRecord,
    ) -> Result<Result<Arc<dyn Vm>, VmExit>, VmmError> {
        match self.0.vms.lock().get(id) {
            Some(vm) if vm.record == *record => Ok(Ok(vm.clone())),
            _ => Ok(Err(VmExit {
                reason: ExitReason::Killed,
                message: "gone".into(),
            })),
        }
    }

    async fn destroy(&self, id: &str, _: &SandboxPaths, _: &str) -> Result<(), VmmError> {
        self.0.kill(id);
        Ok(())
    }

    async fn destroy_unknown(&self, known: &[String]) -> Vec<String> {
        let ids: Vec<String> = self.0.vms.lock().keys().cloned().collect();
        let unknown: Vec<String> = ids.into_iter().filter(|id| !known.contains(id)).collect();
        unknown.iter().for_each(|id| self.0.kill(id));
        unknown
    }
}

async fn boot(paths: SandboxPaths, fault: Fault, vm: Arc<FakeVm>) {
    std::fs::write(
        &paths.console,
        "Linux version 6\nhull-agent: phase=init\nlast words\n",
    )
    .unwrap();
    let mut stream = UnixStream::connect(&paths.boot).await.unwrap();
    for phase in [Phase::Init, Phase::Mounts, Phase::Ready] {
        if phase == Phase::Ready && fault == Fault::SilentGuest {
            std::future::pending::<()>().await;
        }
        if phase == Phase::Ready && fault == Fault::ChattyPanic {
            let much = format!("{}\n", "trace ".repeat(30)).repeat(100);
            std::fs::write(&paths.console, format!("{much}the very last line\n")).unwrap();
        }
        if phase == Phase::Ready && matches!(fault, Fault::Panic | Fault::ChattyPanic) {
            return vm.end_with(ExitReason::GuestPanic, "the guest kernel panicked");
        }
        let line = BootLine {
            phase,
            uptime_ms: 1,
            error: None,
        };
        let mut text = serde_json::to_vec(&line).unwrap();
        text.push(b'\n');
        stream.write_all(&text).await.unwrap();
    }
}

/// Accepts vsock connections to the control port and serves the fake agent on them.
fn serve_agent(paths: &SandboxPaths, setup_fails: bool, world: Arc<World>) {
    let listener = UnixListener::bind(&paths.vsock).unwrap();
    let (sender, receiver) = tokio::sync::mpsc::channel::<std::io::Result<UnixStream>>(8);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut line = Vec::new();
            while !line.ends_with(b"\n") {
                let Ok(byte) = stream.read_u8().await else {
                    break;
                };
                line.push(byte);
            }
            if line == b"CONNECT 1024\n" && stream.write_all(b"OK 1\n").await.is_ok() {
                let _ = sender.send(Ok(stream)).await;
            }
        }
    });
    tokio::spawn(
        tonic::transport::Server::builder()
            .add_service(AgentServer::new(FakeAgent { setup_fails, world }))
            .serve_with_incoming(tokio_stream::wrappers::ReceiverStream::new(receiver)),
    );
}

struct FakeAgent {
    setup_fails: bool,
    world: Arc<World>,
}

impl FakeAgent {
    /// Returns when the agent is not deaf.
    async fn hear(&self) {
        while *self.world.deaf.lock() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }
}

type Answer<T> = Result<Response<T>, Status>;

macro_rules! absent {
    ($($name:ident($request:ty) -> $response:ty;)*) => {
        #[tonic::async_trait]
        impl Agent for FakeAgent {
            async fn hello(&self, _: Request<HelloRequest>) -> Answer<HelloResponse> {
                self.hear().await;
                Ok(Response::new(HelloResponse {
                    major: hull_agent_protocol::VERSION_MAJOR,
                    minor: 0,
                    agent_version: "fake".into(),
                    kernel_release: "6.12-fake".into(),
                }))
            }

            async fn setup_sandbox(
                &self,
                _: Request<SetupSandboxRequest>,
            ) -> Answer<SetupSandboxResponse> {
                if self.setup_fails {
                    return Err(Status::internal("no such interface"));
                }
                Ok(Response::new(SetupSandboxResponse {}))
            }

            async fn list_containers(
                &self,
                _: Request<ListContainersRequest>,
            ) -> Answer<ListContainersResponse> {
                self.hear().await;
                let containers = self.world.containers.lock().clone();
                Ok(Response::new(ListContainersResponse { containers }))
            }

            async fn remove_container(
                &self,
                request: Request<RemoveContainerRequest>,
            ) -> Answer<RemoveContainerResponse> {
                let id = request.into_inner().container_id;
                let mut containers = self.world.containers.lock();
                containers.retain(|info| info.container_id != id);
                Ok(Response::new(RemoveContainerResponse {}))
            }

            async fn signal(&self, _: Request<SignalRequest>) -> Answer<SignalResponse> {
                self.hear().await;
                Err(Status::internal("not permitted here"))
            }

            type EventsStream =
                Pin<Box<dyn tokio_stream::Stream<Item = Result<Event, Status>> + Send>>;

            async fn events(&self, _: Request<EventsRequest>) -> Answer<Self::EventsStream> {
                Ok(Response::new(Box::pin(tokio_stream::pending())))
            }

            $(
                async fn $name(&self, _: Request<$request>) -> Answer<$response> {
                    Err(Status::unimplemented(stringify!($name)))
                }
            )*
        }
    };
}

absent! {
    shutdown(ShutdownRequest) -> ShutdownResponse;
    sync_volume(SyncVolumeRequest) -> SyncVolumeResponse;
    remove_volume(RemoveVolumeRequest) -> RemoveVolumeResponse;
    read_volume_file(ReadVolumeFileRequest) -> ReadVolumeFileResponse;
    create_container(CreateContainerRequest) -> CreateContainerResponse;
    start_container(StartContainerRequest) -> StartContainerResponse;
    container_stats(ContainerStatsRequest) -> ContainerStatsResponse;
    sandbox_stats(SandboxStatsRequest) -> SandboxStatsResponse;
    update_container(UpdateContainerRequest) -> UpdateContainerResponse;
    exec(ExecRequest) -> ExecResponse;
    remove_exec(RemoveExecRequest) -> RemoveExecResponse;
    resize_tty(ResizeTtyRequest) -> ResizeTtyResponse;
    wait(WaitRequest) -> WaitResponse;
}

/// A shim in `directory` on the machine `world`. A second one in the same directory is
/// a restarted one; the first must be dropped before.
pub fn shim(directory: &Path, world: &Arc<World>) -> Arc<Shim> {
    let mut config = Config {
        state_dir: directory.join("state"),
        run_dir: directory.join("run"),
        ..Default::default()
    };
    config.vmm.scratch_mib = 16;
    config.vmm.boot_timeout_seconds = 2;
    let journal = Journal::open(config.state_dir.join("sandboxes")).unwrap();
    let images = hull_image::StoreConfig::new(config.state_dir.join("images"));
    Shim::new(
        config,
        journal,
        hull_image::ImageStore::open(images).unwrap(),
        Arc::new(FakeNetwork(world.clone())),
        Arc::new(FakeLauncher(world.clone())),
    )
}
