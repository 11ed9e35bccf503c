//! A hull-shim process with everything around it: directories, a CNI network, a CRI
//! client. For tests that run inside the testnode (or any machine with KVM), as root.

#![allow(dead_code)]

use hull_cri_api::v1::image_service_client::ImageServiceClient;
use hull_cri_api::v1::runtime_service_client::RuntimeServiceClient;
use hull_cri_api::v1::*;
use hull_testnode::guest::Guest;
use hyper_util::rt::TokioIo;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tonic::transport::{Channel, Endpoint};

/// Where `images/registry.sh start` serves the sample images.
const REGISTRY: &str = "http://127.0.0.1:5000";
/// For anything that a pod does, before scaling.
const PATIENCE: Duration = Duration::from_secs(20);

/// [`PATIENCE`] on this machine.
pub fn patience() -> Duration {
    hull_shim::timeouts::scaled(PATIENCE)
}

/// A shim and its surroundings.
pub struct Node {
    directory: tempfile::TempDir,
    pub run_dir: PathBuf,
    bridge: String,
    shim: Option<Child>,
    pub runtime: RuntimeServiceClient<Channel>,
    pub images: ImageServiceClient<Channel>,
    settings: Settings,
}

/// What a test may set otherwise.
#[derive(Clone, Default)]
pub struct Settings {
    pub initramfs: Option<PathBuf>,
    pub boot_timeout_seconds: Option<u64>,
    pub memory_mib: Option<u64>,
    pub disk_slots: Option<u8>,
}

/// The shim: Cargo names it to the tests of its own crate; to others it is where Cargo
/// puts programs, one directory above their own.
fn shim_program() -> PathBuf {
    if let Some(program) = option_env!("CARGO_BIN_EXE_hull-shim") {
        return program.into();
    }
    let own = std::env::current_exe().unwrap();
    own.parent().unwrap().with_file_name("hull-shim")
}

fn vmm_program() -> PathBuf {
    std::env::var_os("HULL_VMM")
        .map(PathBuf::from)
        .unwrap_or_else(|| shim_program().with_file_name("hull-vmm"))
}

impl Node {
    pub async fn start() -> Node {
        Self::start_with(Settings::default()).await
    }

    pub async fn start_with(settings: Settings) -> Node {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = (std::process::id() * 16 + NUMBER.fetch_add(1, Ordering::Relaxed)) % 200 + 20;
        let directory = tempfile::tempdir().unwrap();
        let run_dir = PathBuf::from(format!("/run/hull-t{}-{number}", std::process::id()));
        let bridge = format!("hullt{number}");
        write_network(directory.path(), &bridge, number);
        let socket = run_dir.join("shim.sock");
        let channel = Endpoint::from_static("http://shim.internal").connect_with_connector_lazy(
            tower::service_fn(move |_| {
                let socket = socket.clone();
                async move {
                    tokio::net::UnixStream::connect(socket)
                        .await
                        .map(TokioIo::new)
                }
            }),
        );
        let mut node = Node {
            directory,
            run_dir,
            bridge,
            shim: None,
            runtime: RuntimeServiceClient::new(channel.clone()),
            images: ImageServiceClient::new(channel),
            settings,
        };
        node.start_shim().await;
        node
    }

    pub fn bridge(&self) -> &str {
        &self.bridge
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn config(&self) -> String {
        let settings = &self.settings;
        let guest = Guest::in_cache().unwrap();
        let initramfs = settings.initramfs.clone().unwrap_or(guest.initramfs);
        format!(
            r#"
state_dir = "{state}"
run_dir = "{run}"
socket = "{run}/shim.sock"
[vmm]
program = "{vmm}"
kernel = "{kernel}"
initramfs = "{initramfs}"
boot_timeout_seconds = {boot}
memory_mib = {memory}
disk_slots = {slots}
scratch_mib = 256
[cni]
config_dirs = ["{net}"]
plugin_dirs = ["{plugins}", "/usr/lib/cni"]
[registries.hosts."docker.io"]
endpoints = ["{REGISTRY}"]
fall_back = false
[volumes]
resync_interval_ms = 200
"#,
            state = self.path("state").display(),
            run = self.run_dir.display(),
            vmm = vmm_program().display(),
            kernel = guest.kernel.display(),
            initramfs = initramfs.display(),
            boot = settings.boot_timeout_seconds.unwrap_or(15),
            memory = settings.memory_mib.unwrap_or(256),
            slots = settings.disk_slots.unwrap_or(8),
            net = self.path("net.d").display(),
            plugins = self.path("plugins").display(),
        )
    }

    /// Starts the shim and waits until it answers.
    pub async fn start_shim(&mut self) {
        let config = self.path("shim.toml");
        std::fs::write(&config, self.config()).unwrap();
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.path("shim.log"))
            .unwrap();
        let child = Command::new(shim_program())
            .arg("--config")
            .arg(&config)
            .env("RUST_LOG", "info,hull_shim=debug")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.shim = Some(child);
        let deadline = Instant::now() + patience();
        while self
            .runtime
            .version(VersionRequest::default())
            .await
            .is_err()
        {
            assert!(
                Instant::now() < deadline,
                "the shim does not answer:\n{}",
                self.log()
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// kill -9.
    pub fn kill_shim(&mut self) {
        if let Some(mut child) = self.shim.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path("shim.log")).unwrap_or_default()
    }

    pub async fn pull(&mut self, image: &str) -> String {
        let request = PullImageRequest {
            image: Some(spec(image)),
            ..Default::default()
        };
        self.images
            .pull_image(request)
            .await
            .unwrap()
            .into_inner()
            .image_ref
    }

    pub fn pod(&self, name: &str) -> PodSandboxConfig {
        PodSandboxConfig {
            metadata: Some(PodSandboxMetadata {
                name: name.into(),
                uid: format!("uid-{name}"),
                namespace: "test".into(),
                attempt: 0,
            }),
            hostname: name.into(),
            log_directory: self.path("logs").join(name).display().to_string(),
            labels: HashMap::from([("io.kubernetes.pod.uid".into(), format!("uid-{name}"))]),
            ..Default::default()
        }
    }

    pub async fn run_pod(&mut self, name: &str) -> Result<String, tonic::Status> {
        let config = Some(self.pod(name));
        let request = RunPodSandboxRequest {
            config,
            runtime_handler: String::new(),
        };
        Ok(self
            .runtime
            .run_pod_sandbox(request)
            .await?
            .into_inner()
            .pod_sandbox_id)
    }

    /// [`Node::run_pod`] that must work.
    pub async fn ready_pod(&mut self, name: &str) -> String {
        match self.run_pod(name).await {
            Ok(id) => id,
            Err(status) => panic!("{}\n{}", status.message(), self.log()),
        }
    }

    pub fn container(&self, name: &str, command: &[&str]) -> ContainerConfig {
        ContainerConfig {
            metadata: Some(ContainerMetadata {
                name: name.into(),
                attempt: 0,
            }),
            image: Some(spec("busybox")),
            command: command.iter().map(|word| word.to_string()).collect(),
            log_path: format!("{name}/0.log"),
            linux: Some(LinuxContainerConfig {
                security_context: Some(LinuxContainerSecurityContext {
                    namespace_options: Some(NamespaceOption {
                        pid: NamespaceMode::Container as i32,
                        ..Default::default()
                    }),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    pub async fn create(
        &mut self,
        pod: &str,
        config: ContainerConfig,
    ) -> Result<String, tonic::Status> {
        let request = CreateContainerRequest {
            pod_sandbox_id: pod.into(),
            config: Some(config),
            sandbox_config: None,
        };
        Ok(self
            .runtime
            .create_container(request)
            .await?
            .into_inner()
            .container_id)
    }

    pub async fn start_container(&mut self, id: &str) -> Result<(), tonic::Status> {
        let request = StartContainerRequest {
            container_id: id.into(),
        };
        self.runtime.start_container(request).await.map(drop)
    }

    /// Creates and starts a container, which must work.
    pub async fn running(&mut self, pod: &str, config: ContainerConfig) -> String {
        let id = match self.create(pod, config).await {
            Ok(id) => id,
            Err(status) => panic!("create: {}\n{}", status.message(), self.log()),
        };
        if let Err(status) = self.start_container(&id).await {
            panic!("start: {}\n{}", status.message(), self.log());
        }
        id
    }

    pub async fn status(&mut self, id: &str) -> ContainerStatus {
        let request = ContainerStatusRequest {
            container_id: id.into(),
            verbose: false,
        };
        self.runtime
            .container_status(request)
            .await
            .unwrap()
            .into_inner()
            .status
            .unwrap()
    }

    pub async fn sandbox_status(&mut self, id: &str) -> PodSandboxStatusResponse {
        let request = PodSandboxStatusRequest {
            pod_sandbox_id: id.into(),
            verbose: true,
        };
        self.runtime
            .pod_sandbox_status(request)
            .await
            .unwrap()
            .into_inner()
    }

    pub async fn exited(&mut self, id: &str) -> ContainerStatus {
        let deadline = Instant::now() + patience();
        loop {
            let status = self.status(id).await;
            if status.state == ContainerState::ContainerExited as i32 {
                return status;
            }
            assert!(Instant::now() < deadline, "{id} still runs\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub async fn exec(
        &mut self,
        id: &str,
        command: &[&str],
    ) -> Result<ExecSyncResponse, tonic::Status> {
        let request = ExecSyncRequest {
            container_id: id.into(),
            cmd: command.iter().map(|word| word.to_string()).collect(),
            timeout: patience().as_secs() as i64,
        };
        Ok(self.runtime.exec_sync(request).await?.into_inner())
    }

    pub async fn stop_container(&mut self, id: &str, timeout: i64) {
        let request = StopContainerRequest {
            container_id: id.into(),
            timeout,
        };
        self.runtime.stop_container(request).await.unwrap();
    }

    pub async fn remove_container(&mut self, id: &str) {
        let request = RemoveContainerRequest {
            container_id: id.into(),
        };
        self.runtime.remove_container(request).await.unwrap();
    }

    pub async fn stop_pod(&mut self, id: &str) {
        let request = StopPodSandboxRequest {
            pod_sandbox_id: id.into(),
        };
        self.runtime.stop_pod_sandbox(request).await.unwrap();
    }

    pub async fn remove_pod(&mut self, id: &str) {
        let request = RemovePodSandboxRequest {
            pod_sandbox_id: id.into(),
        };
        self.runtime.remove_pod_sandbox(request).await.unwrap();
    }

    /// Content of a container's log lines, by stream.
    pub fn log_lines(&self, pod: &str, container: &str) -> Vec<(String, String)> {
        let path = self.path("logs").join(pod).join(container).join("0.log");
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        text.lines()
            .filter_map(|line| {
                let mut fields = line.splitn(4, ' ').skip(1);
                let (stream, _, content) = (fields.next()?, fields.next()?, fields.next()?);
                Some((stream.to_string(), content.to_string()))
            })
            .collect()
    }

    /// Waits until the log satisfies `condition`.
    pub async fn wait_log(
        &self,
        pod: &str,
        container: &str,
        condition: impl Fn(&[(String, String)]) -> bool,
    ) -> Vec<(String, String)> {
        let deadline = Instant::now() + patience();
        loop {
            let lines = self.log_lines(pod, container);
            if condition(&lines) {
                return lines;
            }
            assert!(Instant::now() < deadline, "log: {lines:?}\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// What is left of sandboxes on this machine; empty if nothing leaked.
    pub fn leftovers(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut directory = |path: PathBuf, accept: &dyn Fn(&str) -> bool| {
            for entry in std::fs::read_dir(&path).into_iter().flatten().flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                if accept(&name) {
                    found.push(path.join(name).display().to_string());
                }
            }
        };
        let any = |_: &str| true;
        directory(self.run_dir.join("netns"), &any);
        directory(self.run_dir.join("sandboxes"), &any);
        directory(self.path("state/sandboxes"), &any);
        directory(self.path("state/cni"), &any);
        directory(self.path("state/scratch"), &|name| {
            !name.starts_with("template-")
        });
        directory(self.path("ipam").join("testnet"), &|name| {
            name.starts_with("10.")
        });
        directory(
            PathBuf::from(format!("/sys/class/net/{}/brif", self.bridge)),
            &any,
        );
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        let run_dir = self.run_dir.display().to_string();
        found.extend(
            mounts
                .lines()
                .filter(|line| line.contains(&run_dir))
                .map(str::to_string),
        );
        let processes = hull_shim::vmm::procfs::sandbox_processes(&self.run_dir.join("sandboxes"));
        found.extend(
            processes
                .into_iter()
                .map(|(pid, _)| format!("process {pid}")),
        );
        found
    }

    pub fn vmm_pids(&self) -> Vec<u32> {
        hull_shim::vmm::procfs::sandbox_processes(&self.run_dir.join("sandboxes"))
            .into_iter()
            .map(|(pid, _)| pid)
            .collect()
    }

    /// Replaces the CNI configuration.
    pub fn write_network_file(&self, text: &str) {
        std::fs::write(self.path("net.d/10-test.conflist"), text).unwrap();
    }
}

/// Lines of each log that a test that failed shows.
const LAST_LINES: usize = 40;

impl Node {
    /// The end of every log: what a test that failed leaves behind.
    fn show_logs(&self) {
        let mut files = vec![self.path("shim.log")];
        let sandboxes = std::fs::read_dir(self.run_dir.join("sandboxes"));
        for sandbox in sandboxes.into_iter().flatten().flatten() {
            for name in ["vmm.log", "console.log", "exit.json", "fsd.log"] {
                files.push(sandbox.path().join(name));
            }
        }
        for file in files {
            let Ok(bytes) = std::fs::read(&file) else {
                continue;
            };
            let text = String::from_utf8_lossy(&bytes);
            let lines: Vec<&str> = text.lines().collect();
            let last = &lines[lines.len().saturating_sub(LAST_LINES)..];
            eprintln!("--- {}\n{}", file.display(), last.join("\n"));
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.show_logs();
        }
        self.kill_shim();
        for pid in self.vmm_pids() {
            let pid = nix::unistd::Pid::from_raw(pid as i32);
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
        }
        for entry in std::fs::read_dir(self.run_dir.join("netns"))
            .into_iter()
            .flatten()
            .flatten()
        {
            let _ = hull_shim::network::netns::remove(&entry.path());
        }
        let _ = Command::new("ip")
            .args(["link", "delete", &self.bridge])
            .status();
        let _ = std::fs::remove_dir_all(&self.run_dir);
    }
}

fn write_network(directory: &Path, bridge: &str, number: u32) {
    for name in ["net.d", "plugins", "ipam"] {
        std::fs::create_dir(directory.join(name)).unwrap();
    }
    let text = format!(
        r#"{{"cniVersion": "1.0.0", "name": "testnet", "plugins": [
            {{"type": "bridge", "bridge": "{bridge}", "isGateway": true,
              "ipam": {{"type": "host-local", "dataDir": "{ipam}",
                        "ranges": [[{{"subnet": "10.99.{number}.0/24"}}]],
                        "routes": [{{"dst": "0.0.0.0/0"}}]}}}}]}}"#,
        ipam = directory.join("ipam").display(),
    );
    std::fs::write(directory.join("net.d/10-test.conflist"), text).unwrap();
}

pub fn spec(image: &str) -> ImageSpec {
    ImageSpec {
        image: image.into(),
        ..Default::default()
    }
}
