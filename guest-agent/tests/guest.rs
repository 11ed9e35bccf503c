//! The agent as PID 1 of a real guest under hull-vmm.
//!
//! `HULL_VMM` names the program (default: beside this test's target directory); kernel and
//! initramfs are what images/guest.sh has left in the cache.

// Helpers of tests, like tests, panic when something is wrong.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use common::{PATIENCE, make_root, spec, wait_until};
use hull_agent_protocol::boot::{BootLine, Phase};
use hull_agent_protocol::client::{Address, scaled};
use hull_agent_protocol::stream::Header;
use hull_agent_protocol::v1::agent_client::AgentClient;
use hull_agent_protocol::v1::*;
use hull_agent_protocol::{BOOT_PORT, VERSION_MAJOR};
use hull_testnode::guest::Guest as GuestFiles;
use hull_vmm_client::client::ControlClient;
use hull_vmm_client::config::{
    BASE_COMMAND_LINE, BootConfig, DiskConfig, MemoryPages, VmConfig, VsockConfig,
};
use hull_vmm_client::exit::{ExitReason, read_record};
use hull_vmm_client::rate::RateLimits;
use hull_vmm_client::spawn::spawn;
use serde_json::json;
use tokio::io::AsyncReadExt;
use tonic::Code;
use tonic::transport::Channel;

/// Guest RAM in MiB.
const MEMORY_MIB: u64 = 384;

struct Guest {
    directory: tempfile::TempDir,
    vmm: Child,
    control: ControlClient,
    address: Address,
    boot: UnixListener,
}

fn path_from(variable: &str, default: impl FnOnce() -> PathBuf) -> PathBuf {
    std::env::var_os(variable).map_or_else(default, PathBuf::from)
}

/// The workspace's target directory holds hull-vmm in debug/.
fn vmm_program() -> PathBuf {
    path_from("HULL_VMM", || {
        let test = std::env::current_exe().unwrap();
        let beside = test.ancestors().map(|dir| dir.join("hull-vmm"));
        let target = test.ancestors().map(|dir| dir.join("debug/hull-vmm"));
        beside
            .chain(target)
            .find(|path| path.exists())
            .expect("hull-vmm is built")
    })
}

fn open(path: &Path) -> File {
    File::open(path).expect("images/guest.sh has run")
}

impl Guest {
    /// Boots with an empty slot "image-0" and an ext4 disk "scratch".
    fn boot() -> Guest {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str| {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false);
            options.open(directory.path().join(name)).unwrap()
        };
        let listen = |name: &str| UnixListener::bind(directory.path().join(name)).unwrap();
        let scratch = file("scratch.img");
        scratch.set_len(64 << 20).unwrap();
        let scratch_path = directory.path().join("scratch.img");
        run(Command::new("mke2fs")
            .args(["-q", "-t", "ext4", "-F"])
            .arg(scratch_path));
        let files = GuestFiles::in_cache().unwrap();
        let (kernel, initramfs) = (open(&files.kernel), open(&files.initramfs));
        let kvm = OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/kvm")
            .expect("/dev/kvm");
        let (console, exit) = (file("console"), file("exit"));
        let (vsock, control) = (listen("vsock"), listen("control"));
        let boot = listen(&format!("vsock_{BOOT_PORT}"));
        let sockets = File::open(directory.path()).unwrap();
        let config = VmConfig {
            id: "agent-test".into(),
            kvm_fd: kvm.as_raw_fd(),
            vcpus: 2,
            memory_mib: MEMORY_MIB,
            boot: BootConfig {
                kernel_fd: kernel.as_raw_fd(),
                initramfs_fd: Some(initramfs.as_raw_fd()),
                cmdline: BASE_COMMAND_LINE.into(),
            },
            disks: vec![
                DiskConfig {
                    serial: "image-0".into(),
                    fd: None,
                    read_only: true,
                    limits: RateLimits::default(),
                },
                DiskConfig {
                    serial: "scratch".into(),
                    fd: Some(scratch.as_raw_fd()),
                    read_only: false,
                    limits: RateLimits::default(),
                },
            ],
            nets: Vec::new(),
            fs: None,
            vfio: None,
            memory_pages: MemoryPages::default(),
            balloon: false,
            vsock: Some(VsockConfig {
                guest_cid: 3,
                listener_fd: vsock.as_raw_fd(),
                guest_socket_dir_fd: sockets.as_raw_fd(),
                guest_socket_prefix: "vsock".into(),
            }),
            console_fd: console.as_raw_fd(),
            control_fd: control.as_raw_fd(),
            exit_fd: exit.as_raw_fd(),
            jail: None,
        };
        let vmm = spawn(&vmm_program(), &config, Stdio::inherit()).unwrap();
        Guest {
            vmm,
            control: ControlClient::new(directory.path().join("control")),
            address: Address::Vsock(directory.path().join("vsock")),
            boot,
            directory,
        }
    }

    /// Reads the boot phases until the agent is ready.
    fn phases(&self) -> Vec<Phase> {
        let mut phases = Vec::new();
        while phases.last() != Some(&Phase::Ready) {
            let (connection, _) = self.boot.accept().unwrap();
            connection.set_read_timeout(Some(scaled(PATIENCE))).unwrap();
            for line in BufReader::new(connection).lines() {
                let line: BootLine = serde_json::from_str(&line.unwrap()).unwrap();
                assert_eq!(line.error, None);
                println!("{} at {} ms", line.phase.name(), line.uptime_ms);
                phases.push(line.phase);
            }
        }
        phases
    }

    async fn ready(&self) -> AgentClient<Channel> {
        let boot = self.boot.try_clone().unwrap();
        boot.set_nonblocking(false).unwrap();
        let phases = tokio::task::block_in_place(|| self.phases());
        let all = [Phase::Init, Phase::Mounts, Phase::Modules, Phase::Ready];
        assert_eq!(phases, all, "console:\n{}", self.console());
        self.address.client().await.unwrap()
    }

    async fn set_up(&self) -> AgentClient<Channel> {
        let mut client = self.ready().await;
        let request = SetupSandboxRequest {
            sandbox_id: "s".into(),
            hostname: "pod".into(),
            scratch_disk: "scratch".into(),
            sysctls: [("net.ipv4.ip_unprivileged_port_start".into(), "0".into())].into(),
            ..Default::default()
        };
        client
            .setup_sandbox(request)
            .await
            .unwrap_or_else(|e| panic!("{e}\n{}", self.console()));
        client
    }

    /// An EROFS image of the busybox root with a file that says `mark`.
    fn image(&self, mark: &str) -> File {
        let root = self.directory.path().join(format!("root-{mark}"));
        make_root(&root);
        std::fs::write(root.join("mark"), mark).unwrap();
        let image = self.directory.path().join(format!("{mark}.erofs"));
        run(Command::new("mkfs.erofs")
            .arg(&image)
            .arg(&root)
            .stdout(Stdio::null()));
        File::open(image).unwrap()
    }

    async fn attach(&self, image: &File) {
        self.control
            .attach_disk("image-0", image.as_fd())
            .await
            .unwrap();
    }

    async fn run(
        &self,
        client: &mut AgentClient<Channel>,
        request: CreateContainerRequest,
    ) -> String {
        let id = request.container_id.clone();
        client
            .create_container(request)
            .await
            .unwrap_or_else(|e| panic!("{e}\n{}", self.console()));
        client
            .start_container(StartContainerRequest {
                container_id: id.clone(),
            })
            .await
            .unwrap();
        let header = Header::Output {
            container: id,
            exec: None,
            stderr: false,
            offset: 0,
        };
        let (mut stream, _) = self.address.open_stream(&header).await.unwrap();
        let mut text = String::new();
        let read = tokio::time::timeout(scaled(PATIENCE), stream.read_to_string(&mut text));
        read.await.expect("the output ends").unwrap();
        text
    }

    fn console(&self) -> String {
        let bytes = std::fs::read(self.directory.path().join("console")).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    async fn exit_reason(&mut self) -> ExitReason {
        let mut status = None;
        wait_until("the VMM ends", || {
            status = self.vmm.try_wait().unwrap();
            status.is_some()
        })
        .await;
        let record = std::fs::read_to_string(self.directory.path().join("exit")).unwrap();
        read_record(&record, status).reason
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        if self.vmm.try_wait().unwrap().is_none() {
            self.vmm.kill().unwrap();
            self.vmm.wait().unwrap();
        }
        if std::thread::panicking() {
            eprintln!("console:\n{}", self.console());
        }
    }
}

fn run(command: &mut Command) {
    let status = command
        .status()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(status.success(), "{command:?}");
}

fn request(id: &str, command: &[&str]) -> CreateContainerRequest {
    CreateContainerRequest {
        container_id: id.into(),
        oci_spec_json: serde_json::to_vec(&spec(command)).unwrap(),
        rootfs: Some(RootFs {
            disk: "image-0".into(),
            read_only: false,
        }),
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs KVM: run in the testnode (make test does)"]
async fn node_guest_boots_says_hello_and_powers_off() {
    let mut guest = Guest::boot();
    let mut client = guest.ready().await;
    let hello = HelloRequest {
        major: VERSION_MAJOR,
        minor: 0,
    };
    let hello = client.hello(hello).await.unwrap().into_inner();
    assert_eq!(hello.major, VERSION_MAJOR);
    assert!(!hello.kernel_release.is_empty());
    let other = HelloRequest {
        major: VERSION_MAJOR + 1,
        minor: 0,
    };
    assert_eq!(
        client.hello(other).await.unwrap_err().code(),
        Code::FailedPrecondition
    );
    client
        .shutdown(ShutdownRequest { grace_ms: 0 })
        .await
        .unwrap();
    assert_eq!(guest.exit_reason().await, ExitReason::GuestShutdown);
    assert!(guest.console().contains("hull-agent: phase=ready"));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs KVM: run in the testnode (make test does)"]
async fn node_guest_runs_containers_from_disks_that_come_and_go() {
    let guest = Guest::boot();
    let mut client = guest.set_up().await;
    for mark in ["first", "second-which-is-longer"] {
        let image = guest.image(mark);
        guest.attach(&image).await;
        let script =
            "cat /mark; echo; hostname; cat /proc/1/comm; echo $$; touch /written && echo ok";
        let output = guest
            .run(&mut client, request("a", &["sh", "-c", script]))
            .await;
        assert_eq!(output, format!("{mark}\npod\nsh\n1\nok\n"));
        // A second container shares the image's mount.
        let output = guest
            .run(&mut client, request("b", &["cat", "/mark"]))
            .await;
        assert_eq!(output, mark);
        for id in ["a", "b"] {
            client
                .wait(WaitRequest {
                    container_id: id.into(),
                    exec_id: String::new(),
                })
                .await
                .unwrap();
            client
                .remove_container(RemoveContainerRequest {
                    container_id: id.into(),
                })
                .await
                .unwrap();
        }
        guest.control.detach_disk("image-0").await.unwrap();
    }
    let missing = client.create_container(request("c", &["true"])).await;
    let status = missing.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
    assert!(status.message().contains("image-0"), "{status}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs KVM: run in the testnode (make test does)"]
async fn node_guest_limits_memory_and_measures() {
    let guest = Guest::boot();
    let mut client = guest.set_up().await;
    let image = guest.image("limits");
    guest.attach(&image).await;
    let mut spec = spec(&["sh", "-c", "x=a; while :; do x=$x$x; done"]);
    spec["linux"]["resources"] = json!({"memory": {"limit": 16 << 20}, "pids": {"limit": 50}});
    let mut hungry = request("hungry", &[]);
    hungry.oci_spec_json = serde_json::to_vec(&spec).unwrap();
    guest.run(&mut client, hungry).await;
    let wait = WaitRequest {
        container_id: "hungry".into(),
        exec_id: String::new(),
    };
    let exit = client.wait(wait).await.unwrap().into_inner().exit.unwrap();
    assert!(exit.oom_killed, "{exit:?}\n{}", guest.console());
    let stats = ContainerStatsRequest {
        container_id: "hungry".into(),
    };
    assert!(
        client
            .container_stats(stats)
            .await
            .unwrap()
            .into_inner()
            .cpu_usage_ns
            > 0
    );
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs KVM: run in the testnode (make test does)"]
async fn node_guest_execs_with_a_terminal() {
    let guest = Guest::boot();
    let mut client = guest.set_up().await;
    let image = guest.image("exec");
    guest.attach(&image).await;
    let create = request("c", &["sleep", "1000"]);
    client.create_container(create).await.unwrap();
    client
        .start_container(StartContainerRequest {
            container_id: "c".into(),
        })
        .await
        .unwrap();
    let exec = ExecRequest {
        container_id: "c".into(),
        exec_id: "e".into(),
        args: ["sh", "-c", "tty; stty size"].map(Into::into).to_vec(),
        tty: true,
        tty_rows: 33,
        tty_columns: 99,
        ..Default::default()
    };
    client
        .exec(exec)
        .await
        .unwrap_or_else(|e| panic!("{e}\n{}", guest.console()));
    let header = Header::Output {
        container: "c".into(),
        exec: Some("e".into()),
        stderr: false,
        offset: 0,
    };
    let (mut stream, _) = guest.address.open_stream(&header).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    assert!(text.starts_with("/dev/pts/"), "{text:?}");
}
