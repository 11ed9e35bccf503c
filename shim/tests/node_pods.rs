//! Pods through the CRI socket, with the real VMM, kernel and agent.

// Helpers of tests panic as tests do; the exemption covers only test functions themselves.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use hull_cri_api::v1::*;
use std::time::{Duration, Instant};
use support::{Node, Settings, patience};

/// Asserts that every thread of a VMM has no rights but those of its descriptors, and that it
/// sees no files but its own socket; gives its user.
fn locked_up(pid: u32) -> String {
    let process = std::path::PathBuf::from(format!("/proc/{pid}"));
    let comm = std::fs::read_to_string(process.join("comm")).unwrap();
    assert_eq!(comm.trim(), "hull-vmm");
    let mut users = std::collections::BTreeSet::new();
    for task in std::fs::read_dir(process.join("task")).unwrap() {
        let status = std::fs::read_to_string(task.unwrap().path().join("status")).unwrap();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap().trim().to_owned()
        };
        for (name, value) in [
            ("CapInh:", "0000000000000000"),
            ("CapPrm:", "0000000000000000"),
            ("CapEff:", "0000000000000000"),
            ("CapBnd:", "0000000000000000"),
            ("CapAmb:", "0000000000000000"),
            ("NoNewPrivs:", "1"),
            ("Seccomp:", "2"),
            ("Groups:", ""),
        ] {
            assert_eq!(field(name), value, "{name} of {pid}");
        }
        // Real, effective, saved and of file systems, of the user and of the group.
        users.extend(field("Uid:").split_whitespace().map(str::to_owned));
        users.extend(field("Gid:").split_whitespace().map(str::to_owned));
    }
    assert_eq!(users.len(), 1, "{users:?}");
    let user = users.pop_first().unwrap();
    assert_ne!(user, "0");
    let root = std::fs::read_dir(process.join("root")).unwrap();
    for entry in root {
        let entry = entry.unwrap();
        let kind = entry.file_type().unwrap();
        let socket = std::os::unix::fs::FileTypeExt::is_socket(&kind);
        assert!(socket, "{:?} in the root of {pid}", entry.file_name());
    }
    let mounts = std::fs::read_to_string(process.join("mountinfo")).unwrap();
    assert_eq!(mounts.lines().count(), 1, "{mounts}");
    user
}

#[tokio::test]
#[ignore = "needs KVM: run in the testnode (make test does)"]
async fn node_a_pod_runs_a_container_to_its_end() {
    let mut node = Node::start().await;
    node.pull("busybox").await;
    let pod = node.ready_pod("web").await;
    let script = "echo out; echo err >&2; hostname; exit 3";
    let config = node.container("main", &["sh", "-c", script]);
    let container = node.running(&pod, config).await;
    let status = node.exited(&container).await;
    assert_eq!(
        (status.exit_code, status.reason.as_str()),
        (3, "Error"),
        "{}",
        node.log()
    );
    let lines = node.log_lines("web", "main");
    assert!(
        lines.contains(&("stdout".into(), "out".into())),
        "{lines:?}"
    );
    assert!(
        lines.contains(&("stderr".into(), "err".into())),
        "{lines:?}"
    );
    assert!(
        lines.contains(&("stdout".into(), "web".into())),
        "{lines:?}"
    );

    let status = node.sandbox_status(&pod).await;
    eprintln!("phases: {}", status.info["phases"]);
    for phase in ["netns", "cni", "vmm_start", "kernel", "agent"] {
        assert!(status.info["phases"].contains(phase), "{:?}", status.info);
    }
    let ip = status.status.unwrap().network.unwrap().ip;
    assert!(ip.starts_with("10.99."), "{ip}");

    // A second pod beside it: each VMM is locked up by itself.
    let second = node.ready_pod("second").await;
    let vmms = node.vmm_pids();
    assert_eq!(vmms.len(), 2, "{vmms:?}");
    let users: std::collections::BTreeSet<String> = vmms.into_iter().map(locked_up).collect();
    assert_eq!(users.len(), 2, "one user for two pods: {users:?}");
    node.remove_pod(&second).await;

    node.remove_container(&container).await;
    node.stop_pod(&pod).await;
    node.stop_pod(&pod).await;
    node.remove_pod(&pod).await;
    node.remove_pod(&pod).await;
    assert_eq!(node.leftovers(), Vec::<String>::new());
}

#[tokio::test]
#[ignore = "needs KVM: run in the testnode (make test does)"]
async fn node_a_command_that_does_not_exist_is_the_containers_error() {
    let mut node = Node::start().await;
    node.pull("busybox").await;
    let pod = node.ready_pod("p").await;
    let config = node.container("main", &["/no/such/program"]);
    let id = node.create(&pod, config).await.unwrap();
    let error = node.start_container(&id).await.unwrap_err();
    assert!(
        error.message().contains("/no/such/program"),
        "{}",
        error.message()
    );
    let status = node.status(&id).await;
    assert_eq!(status.state, ContainerState::ContainerExited as i32);
    assert_eq!(
        (status.exit_code, status.reason.as_str()),
        (128, "StartError")
    );
    assert!(
        status.message.contains("/no/such/program"),
        "{}",
        status.message
    );
    // The sandbox is none the worse for it.
    let config = node.container("second", &["true"]);
    let second = node.running(&pod, config).await;
    assert_eq!(node.exited(&second).await.reason, "Completed");
    node.remove_pod(&pod).await;
    assert_eq!(node.leftovers(), Vec::<String>::new());
}

/// The names of the guest's zombies.
const ZOMBIES: &str =
    "sed -n '/^Name:/h; /^State:.Z/{x;s/Name:.//p}' /proc/[0-9]*/status 2>/dev/null";

/// Runs a script of the image's shell until it says `words`, and no more than that.
async fn until_said(node: &mut Node, container: &str, script: &str, words: &str) {
    let deadline = std::time::Instant::now() + patience();
    loop {
        let answer = node.exec(container, &["sh", "-c", script]).await.unwrap();
        let said = String::from_utf8_lossy(&answer.stdout).trim().to_owned();
        if said == words {
            return;
        }
        let in_time = std::time::Instant::now() < deadline;
        assert!(in_time, "{script} says {said:?}, not {words:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
#[ignore = "needs KVM: run in the testnode (make test does)"]
async fn node_commands_are_executed_in_running_containers() {
    let mut node = Node::start().await;
    node.pull("busybox").await;
    let pod = node.ready_pod("p").await;
    let config = node.container("main", &["sleep", "3600"]);
    let id = node.running(&pod, config).await;
    let answer = node
        .exec(&id, &["sh", "-c", "echo out; echo err >&2; exit 7"])
        .await
        .unwrap();
    assert_eq!(answer.exit_code, 7);
    assert_eq!(String::from_utf8_lossy(&answer.stdout), "out\n");
    assert_eq!(String::from_utf8_lossy(&answer.stderr), "err\n");
    let many = node.exec(&id, &["sh", "-c", "seq 1 20000"]).await.unwrap();
    assert_eq!(
        many.stdout.iter().filter(|byte| **byte == b'\n').count(),
        20000
    );

    let request = ExecSyncRequest {
        container_id: id.clone(),
        cmd: vec!["sleep".into(), "3600".into()],
        timeout: 1,
    };
    let error = node.runtime.exec_sync(request).await.unwrap_err();
    assert_eq!(
        error.code(),
        tonic::Code::DeadlineExceeded,
        "{}",
        error.message()
    );

    // The guest knows by how much time-outs are stretched here.
    let answer = node.exec(&id, &["cat", "/proc/cmdline"]).await.unwrap();
    let line = String::from_utf8_lossy(&answer.stdout).into_owned();
    let told = line
        .split_whitespace()
        .find_map(|word| word.strip_prefix("HULL_TIMEOUT_SCALE="));
    let scale = hull_shim::timeouts::timeout_scale();
    let expected = (scale != 1.0).then(|| scale.to_string());
    assert_eq!(told, expected.as_deref(), "{line}");

    // Prefixes of ids do, unknown ones do not.
    let answer = node.exec(&id[..8], &["true"]).await.unwrap();
    assert_eq!(answer.exit_code, 0);
    let error = node.exec("nonsense", &["true"]).await.unwrap_err();
    assert_eq!(error.code(), tonic::Code::NotFound);

    // Orphans: that of a container with processes of its own is its first process' to reap,
    // which sleeps; that of one that shares the guest's goes to the agent.
    let script = "sh -c 'sleep 3600 & echo $! > /tmp/orphan'; exec sleep 3600";
    let mut config = node.container("shared", &["sh", "-c", script]);
    let security = config.linux.as_mut().unwrap().security_context.as_mut();
    let namespaces = security.unwrap().namespace_options.as_mut().unwrap();
    namespaces.pid = NamespaceMode::Pod as i32;
    let shared = node.running(&pod, config).await;
    until_said(
        &mut node,
        &shared,
        "cut -d' ' -f4 /proc/$(cat /tmp/orphan)/stat",
        "1",
    )
    .await;
    node.exec(&id, &["sh", "-c", "sleep 0 &"]).await.unwrap();
    until_said(&mut node, &shared, ZOMBIES, "sleep").await;
    let script = "kill -9 $(cat /tmp/orphan); while [ -e /proc/$(cat /tmp/orphan) ]; do usleep 20000; done; echo reaped";
    until_said(&mut node, &shared, script, "reaped").await;

    node.stop_container(&id, 1).await;
    let status = node.exited(&id).await;
    assert_eq!(
        status.exit_code, 137,
        "PID 1 without a handler ignores SIGTERM"
    );
    until_said(&mut node, &shared, ZOMBIES, "").await;
    node.remove_pod(&pod).await;
    assert_eq!(node.leftovers(), Vec::<String>::new());
}

/// Numbers in the log of a container that counts.
fn numbers(lines: &[(String, String)]) -> Vec<u64> {
    lines
        .iter()
        .filter_map(|(_, content)| content.parse().ok())
        .collect()
}

#[tokio::test]
#[ignore = "needs KVM: run in the testnode (make test does)"]
async fn node_a_killed_shim_is_replaced_and_pods_go_on() {
    let mut node = Node::start().await;
    node.pull("busybox").await;
    let pod = node.ready_pod("p").await;
    let script = "i=0; while true; do i=$((i+1)); echo $i; usleep 20000; done";
    let config = node.container("count", &["sh", "-c", script]);
    let id = node.running(&pod, config).await;
    let config = node.container("ends", &["sh", "-c", "sleep 2; exit 5"]);
    let ends = node.running(&pod, config).await;
    let pids = node.vmm_pids();
    for _ in 0..3 {
        let seen = numbers(&node.wait_log("p", "count", |lines| lines.len() > 3).await).len();
        node.kill_shim();
        // It goes on counting while there is no shim.
        std::thread::sleep(Duration::from_millis(500));
        node.start_shim().await;
        node.wait_log("p", "count", |lines| lines.len() > seen + 10)
            .await;
    }
    assert_eq!(node.vmm_pids(), pids, "the same VM");
    let counted = numbers(&node.log_lines("p", "count"));
    let expected: Vec<u64> = (1..=counted.len() as u64).collect();
    assert_eq!(counted, expected, "no line lost or doubled");
    let status = node.exited(&ends).await;
    assert_eq!(status.exit_code, 5, "an exit while no shim ran is not lost");
    assert_eq!(
        node.status(&id).await.state,
        ContainerState::ContainerRunning as i32
    );
    let answer = node.exec(&id, &["hostname"]).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&answer.stdout).trim(), "p");
    node.remove_pod(&pod).await;
    assert_eq!(node.leftovers(), Vec::<String>::new());
}

#[tokio::test]
#[ignore = "needs KVM: run in the testnode (make test does)"]
async fn node_a_shim_that_is_killed_while_it_starts_a_pod_leaves_nothing() {
    let mut node = Node::start().await;
    let mut client = node.runtime.clone();
    let request = RunPodSandboxRequest {
        config: Some(node.pod("p")),
        runtime_handler: String::new(),
    };
    let starting = tokio::spawn(async move { client.run_pod_sandbox(request).await });
    let deadline = std::time::Instant::now() + patience();
    while node.vmm_pids().is_empty() {
        assert!(std::time::Instant::now() < deadline, "{}", node.log());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    node.kill_shim();
    assert!(starting.await.unwrap().is_err());
    assert!(!node.leftovers().is_empty());
    node.start_shim().await;
    assert_eq!(node.leftovers(), Vec::<String>::new(), "{}", node.log());
    // The name is free.
    let pod = node.ready_pod("p").await;
    node.remove_pod(&pod).await;
    assert_eq!(node.leftovers(), Vec::<String>::new());
}

#[tokio::test]
#[ignore = "needs KVM: run in the testnode (make test does)"]
async fn node_the_end_of_a_vmm_is_reported() {
    let mut node = Node::start().await;
    node.pull("busybox").await;
    let pod = node.ready_pod("p").await;
    let config = node.container("main", &["sleep", "3600"]);
    let id = node.running(&pod, config).await;
    let request = ExecSyncRequest {
        container_id: id.clone(),
        cmd: vec!["sleep".into(), "3600".into()],
        timeout: 0,
    };
    let mut runtime = node.runtime.clone();
    let executing = tokio::spawn(async move { runtime.exec_sync(request).await });
    for pid in node.vmm_pids() {
        let pid = nix::unistd::Pid::from_raw(pid as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    }
    // Whatever it was at when its VM went, that is what it says.
    let error = executing.await.unwrap().unwrap_err();
    let said = error.message();
    assert!(
        said.contains("virtual machine ended") || said.contains("not running"),
        "{said}"
    );
    let status = node.exited(&id).await;
    assert_eq!(
        (status.exit_code, status.reason.as_str()),
        (137, "VMMKilled")
    );
    assert!(
        status.message.contains("virtual machine"),
        "{}",
        status.message
    );
    let sandbox = node.sandbox_status(&pod).await.status.unwrap();
    assert_eq!(sandbox.state, PodSandboxState::SandboxNotready as i32);
    let config = node.container("late", &["true"]);
    assert!(node.create(&pod, config).await.is_err());
    node.remove_pod(&pod).await;
    assert_eq!(node.leftovers(), Vec::<String>::new());
}

#[tokio::test]
#[ignore = "needs KVM: run in the testnode (make test does)"]
async fn node_a_failing_network_takes_the_sandbox_down() {
    let mut node = Node::start().await;
    let plugin = node.path("plugins/broken");
    std::fs::write(&plugin, "#!/bin/sh\n[ $CNI_COMMAND = ADD ] || exit 0\necho '{\"code\":7,\"msg\":\"out of luck\"}'; exit 1\n").unwrap();
    std::fs::set_permissions(&plugin, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let good = std::fs::read_to_string(node.path("net.d/10-test.conflist")).unwrap();
    let plugins = good.strip_suffix("]}").unwrap();
    node.write_network_file(&format!("{plugins}, {{\"type\": \"broken\"}}]}}"));
    let error = node.run_pod("p").await.unwrap_err();
    for word in ["phase cni", "broken", "out of luck"] {
        assert!(error.message().contains(word), "{}", error.message());
    }
    assert_eq!(node.leftovers(), Vec::<String>::new());
    node.write_network_file(&good);
    let pod = node.ready_pod("p").await;
    node.remove_pod(&pod).await;
    assert_eq!(node.leftovers(), Vec::<String>::new());
}

/// What a failed start takes beside the time that the guest is given: network, scratch disk,
/// VMM, and taking all of that away.
fn around_a_boot() -> Duration {
    hull_shim::timeouts::scaled(Duration::from_millis(1500))
}

/// An initramfs whose init is the given shell script.
fn initramfs(directory: &std::path::Path, script: Option<&str>) -> std::path::PathBuf {
    let root = directory.join("root");
    std::fs::create_dir_all(root.join("bin")).unwrap();
    std::fs::create_dir_all(root.join("dev")).unwrap();
    if let Some(script) = script {
        for applet in ["sh", "sleep"] {
            std::fs::copy("/bin/busybox", root.join("bin").join(applet)).unwrap();
        }
        std::fs::write(root.join("init"), format!("#!/bin/sh\n{script}\n")).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(root.join("init"), mode).unwrap();
        let made = std::process::Command::new("mknod")
            .args([root.join("dev/console").to_str().unwrap(), "c", "5", "1"])
            .status()
            .unwrap();
        assert!(made.success());
    }
    let path = directory.join("initramfs.cpio");
    let packed = std::process::Command::new("sh")
        .args([
            "-c",
            "cd \"$1\" && find . | cpio -o -H newc --quiet > \"$2\"",
            "sh",
        ])
        .args([&root, &path])
        .status()
        .unwrap();
    assert!(packed.success());
    path
}

#[tokio::test]
#[ignore = "needs KVM: run in the testnode (make test does)"]
async fn node_a_guest_that_never_answers_fails_with_its_phase_and_console() {
    let files = tempfile::tempdir().unwrap();
    let silent = initramfs(
        files.path(),
        Some("echo here I hang; while true; do sleep 100; done"),
    );
    let settings = Settings {
        initramfs: Some(silent),
        boot_timeout_seconds: Some(2),
        ..Default::default()
    };
    let mut node = Node::start_with(settings).await;
    let began = Instant::now();
    let error = node.run_pod("p").await.unwrap_err();
    let took = began.elapsed();
    let limit = hull_shim::timeouts::scaled(Duration::from_secs(2));
    assert!(
        took >= limit && took < limit + around_a_boot(),
        "{took:?} of {limit:?}"
    );
    for word in ["phase kernel", "last phase", "vCPU 0 ", "here I hang"] {
        assert!(error.message().contains(word), "{}", error.message());
    }
    assert_eq!(node.leftovers(), Vec::<String>::new());
}

#[tokio::test]
#[ignore = "needs KVM: run in the testnode (make test does)"]
async fn node_a_guest_that_panics_fails_with_its_console() {
    let files = tempfile::tempdir().unwrap();
    let settings = Settings {
        initramfs: Some(initramfs(files.path(), None)),
        ..Default::default()
    };
    let mut node = Node::start_with(settings).await;
    let began = Instant::now();
    let error = node.run_pod("p").await.unwrap_err();
    // The end is seen, not waited for.
    let limit = hull_shim::timeouts::scaled(Duration::from_secs(15));
    assert!(began.elapsed() < limit, "{:?}", began.elapsed());
    for word in ["phase kernel", "GuestPanic", "panic", "last phase"] {
        assert!(error.message().contains(word), "{}", error.message());
    }
    assert_eq!(node.leftovers(), Vec::<String>::new());
}

/// A volume as node agents write it.
fn atomic_volume(dir: &std::path::Path, content: &str, generation: &str) {
    std::fs::create_dir_all(dir.join(generation)).unwrap();
    std::fs::write(dir.join(generation).join("key"), content).unwrap();
    let next = dir.join("..data_tmp");
    std::os::unix::fs::symlink(generation, &next).unwrap();
    std::fs::rename(&next, dir.join("..data")).unwrap();
    let _ = std::os::unix::fs::symlink("..data/key", dir.join("key"));
}

fn mount(host: &std::path::Path, container: &str) -> Mount {
    Mount {
        host_path: host.display().to_string(),
        container_path: container.into(),
        ..Default::default()
    }
}

#[tokio::test]
#[ignore = "needs KVM: run in the testnode (make test does)"]
async fn node_volumes_are_copied_shared_and_followed() {
    let mut node = Node::start().await;
    node.pull("busybox").await;
    let root = node.path("pods/uid-p");
    let config_map = root.join("volumes/kubernetes.io~configmap/c");
    let shared = root.join("volumes/kubernetes.io~empty-dir/shared");
    let message = root.join("containers/main/abc");
    for dir in [&config_map, &shared, &root.join("containers/main")] {
        std::fs::create_dir_all(dir).unwrap();
    }
    atomic_volume(&config_map, "one", "..1");
    std::fs::write(&message, "").unwrap();
    let pod = node.ready_pod("p").await;
    let mut config = node.container("main", &["sh", "-c", "cat /config/key > /shared/copy; while [ \"$(cat /config/key)\" = one ]; do usleep 100000; done; echo -n farewell > /dev/termination-log"]);
    config.mounts = vec![
        mount(&config_map, "/config"),
        mount(&shared, "/shared"),
        mount(&message, "/dev/termination-log"),
    ];
    let main = node.running(&pod, config).await;
    let mut config = node.container("other", &["sleep", "3600"]);
    config.mounts = vec![mount(&shared, "/there")];
    let other = node.running(&pod, config).await;
    let deadline = std::time::Instant::now() + patience();
    loop {
        let answer = node.exec(&other, &["cat", "/there/copy"]).await.unwrap();
        if answer.stdout == b"one" {
            break;
        }
        assert!(std::time::Instant::now() < deadline);
    }
    atomic_volume(&config_map, "two", "..2");
    let status = node.exited(&main).await;
    assert_eq!(status.exit_code, 0);
    assert_eq!(std::fs::read_to_string(&message).unwrap(), "farewell");
    let mut config = node.container("host", &["true"]);
    let mut outwards = mount(std::path::Path::new("/etc"), "/x");
    outwards.propagation = MountPropagation::PropagationBidirectional as i32;
    config.mounts = vec![outwards];
    let error = node.create(&pod, config).await.unwrap_err();
    assert_eq!(error.code(), tonic::Code::Unimplemented);
    assert!(error.message().contains("native"), "{}", error.message());
    node.remove_pod(&pod).await;
    assert_eq!(node.leftovers(), Vec::<String>::new());
}

#[tokio::test]
#[ignore = "needs KVM: run in the testnode (make test does)"]
async fn node_what_is_not_there_says_so() {
    let mut node = Node::start().await;
    let status = node
        .runtime
        .status(StatusRequest { verbose: true })
        .await
        .unwrap()
        .into_inner();
    let conditions = status.status.unwrap().conditions;
    assert!(
        conditions.iter().all(|condition| condition.status),
        "{conditions:?}"
    );
    let error = node
        .runtime
        .checkpoint_container(CheckpointContainerRequest::default())
        .await
        .unwrap_err();
    assert_eq!(error.message(), "unimplemented: CheckpointContainer");
    let request = RunPodSandboxRequest {
        config: Some(node.pod("p")),
        runtime_handler: "native".into(),
    };
    let error = node.runtime.run_pod_sandbox(request).await.unwrap_err();
    assert_eq!(error.code(), tonic::Code::Unimplemented);
    let mut config = node.pod("p");
    config.linux = Some(LinuxPodSandboxConfig {
        security_context: Some(LinuxSandboxSecurityContext {
            namespace_options: Some(NamespaceOption {
                network: NamespaceMode::Node as i32,
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    });
    let request = RunPodSandboxRequest {
        config: Some(config),
        runtime_handler: String::new(),
    };
    let error = node.runtime.run_pod_sandbox(request).await.unwrap_err();
    assert_eq!(error.code(), tonic::Code::InvalidArgument);
    assert!(error.message().contains("native"), "{}", error.message());
}
