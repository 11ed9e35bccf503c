//! Host directories in microVM pods, with everything real: VM, hull-fsd, files.

#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use hull_cri_api::v1::{
    ContainerConfig, ListPodSandboxRequest, Mount, PodSandboxState, RunPodSandboxRequest,
};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use support::Node;

/// Files of the archive that is unpacked.
const FILES: usize = 1000;

fn mount(host: &Path, container: &str, read_only: bool) -> Mount {
    Mount {
        host_path: host.display().to_string(),
        container_path: container.into(),
        readonly: read_only,
        recursive_read_only: read_only,
        ..Default::default()
    }
}

/// A container that sleeps, with these mounts and the host's own programs.
fn sleeper(node: &Node, name: &str, mounts: Vec<Mount>) -> ContainerConfig {
    let mut config = node.container(name, &["/bin/sleep", "3600"]);
    config.mounts = mounts;
    for path in ["/usr", "/lib", "/lib64"] {
        config.mounts.push(mount(Path::new(path), path, true));
    }
    config
}

/// Runs a script of the image's shell, which must work; gives what it said.
async fn run(node: &mut Node, container: &str, script: &str) -> String {
    let answer = node.exec(container, &["/bin/sh", "-c", script]).await;
    let answer = match answer {
        Ok(answer) => answer,
        Err(status) => panic!("{script}: {}\n{}", status.message(), node.log()),
    };
    let (said, errors) = (
        String::from_utf8_lossy(&answer.stdout).trim().to_owned(),
        String::from_utf8_lossy(&answer.stderr).into_owned(),
    );
    assert_eq!(answer.exit_code, 0, "{script}: {said} {errors}");
    said
}

/// Runs a script that must fail; gives its errors.
async fn fails(node: &mut Node, container: &str, script: &str) -> String {
    let answer = node
        .exec(container, &["/bin/sh", "-c", script])
        .await
        .unwrap();
    assert_ne!(answer.exit_code, 0, "{script}");
    String::from_utf8_lossy(&answer.stderr).into_owned()
}

/// Process ids of the pod's file server.
fn file_servers(node: &Node) -> Vec<u32> {
    let is_server = |pid: &u32| {
        std::fs::read_to_string(format!("/proc/{pid}/comm"))
            .is_ok_and(|name| name.trim() == "hull-fsd")
    };
    node.vmm_pids().into_iter().filter(is_server).collect()
}

#[tokio::test]
#[ignore = "needs KVM: run in the testnode (make test does)"]
async fn node_host_directories_and_files_are_shared() {
    let mut node = Node::start().await;
    node.pull("busybox").await;
    let (data, fixed, absent) = (node.path("data"), node.path("fixed"), node.path("absent"));
    let file = node.path("settings");
    for directory in [&data, &fixed] {
        std::fs::create_dir(directory).unwrap();
        std::fs::write(directory.join("hello"), "from the host").unwrap();
    }
    std::fs::write(&file, "one\n").unwrap();
    std::os::unix::fs::symlink("/etc/hostname", data.join("outside")).unwrap();
    let pod = node.ready_pod("p").await;
    assert!(file_servers(&node).is_empty());
    let mounts = vec![
        mount(&data, "/data", false),
        mount(&fixed, "/fixed", true),
        mount(&file, "/etc/settings", false),
        mount(&absent, "/absent", false),
    ];
    let config = sleeper(&node, "main", mounts);
    let main = node.running(&pod, config).await;
    assert_eq!(file_servers(&node).len(), 1);

    assert_eq!(
        run(&mut node, &main, "cat /data/hello").await,
        "from the host"
    );
    run(
        &mut node,
        &main,
        "echo two >> /etc/settings; touch /absent/made",
    )
    .await;
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "one\ntwo\n");
    assert!(absent.join("made").exists());
    // A link of the host means a file of the guest.
    assert_eq!(run(&mut node, &main, "cat /data/outside").await, "p");
    for script in ["echo x > /fixed/new", "rm /fixed/hello", "mkdir /fixed/d"] {
        let error = fails(&mut node, &main, script).await;
        assert!(error.contains("Read-only file system"), "{script}: {error}");
    }
    let script = "cd /data && mkdir d && echo x > d/f && chown 1000:2000 d/f && chmod 4750 d/f \
        && ln d/f hard && mv d/f d/g && ln -s ../../../../etc/passwd link && mkfifo pipe";
    run(&mut node, &main, script).await;
    let made = data.join("d/g").metadata().unwrap();
    assert_eq!((made.uid(), made.gid(), made.nlink()), (1000, 2000, 2));
    assert_eq!(made.permissions().mode() & 0o7777, 0o4750);
    let devices = "stat -c %d /data /fixed / | sort -u | wc -l";
    assert_eq!(run(&mut node, &main, devices).await, "3");

    // A second container's share is added to the process that runs, and taken away with it.
    let config = sleeper(&node, "other", vec![mount(&data, "/there", true)]);
    let other = node.running(&pod, config).await;
    assert_eq!(file_servers(&node).len(), 1);
    assert_eq!(run(&mut node, &other, "cat /there/d/g").await, "x");
    node.stop_container(&other, 0).await;
    node.remove_container(&other).await;
    run(&mut node, &main, "echo still > /data/here").await;

    // A shim that was killed finds everything as it was.
    node.kill_shim();
    run_on_host(&data);
    node.start_shim().await;
    assert_eq!(run(&mut node, &main, "cat /data/here").await, "host");
    let config = sleeper(&node, "third", vec![mount(&fixed, "/there", true)]);
    let third = node.running(&pod, config).await;
    assert_eq!(file_servers(&node).len(), 1);
    assert_eq!(
        run(&mut node, &third, "cat /there/hello").await,
        "from the host"
    );
    node.remove_pod(&pod).await;
    assert_eq!(node.leftovers(), Vec::<String>::new());
}

/// What the host does while no shim runs.
fn run_on_host(data: &Path) {
    std::fs::write(data.join("here"), "host").unwrap();
}

#[tokio::test]
#[ignore = "needs KVM: run in the testnode (make test does)"]
async fn node_real_programs_work_on_host_directories() {
    let mut node = Node::start().await;
    node.pull("busybox").await;
    let data = node.path("data");
    let many = data.join("many");
    std::fs::create_dir_all(&many).unwrap();
    for number in 0..FILES {
        std::fs::write(many.join(format!("f{number}")), number.to_string()).unwrap();
    }
    let pod = node.ready_pod("p").await;
    let config = sleeper(&node, "main", vec![mount(&data, "/data", false)]);
    let main = node.running(&pod, config).await;
    let tar = "cd /data && tar cf all.tar many && mkdir copy && tar xf all.tar -C copy \
        && ls copy/many | wc -l";
    assert_eq!(run(&mut node, &main, tar).await, FILES.to_string());
    let last = format!("copy/many/f{}", FILES - 1);
    let last = std::fs::read_to_string(data.join(last)).unwrap();
    assert_eq!(last, (FILES - 1).to_string());
    // A write-ahead log is shared memory: mmap and locks.
    let sqlite = "cd /data && sqlite3 base 'pragma journal_mode=wal; create table t(n); \
        insert into t values(1),(2); select sum(n) from t; pragma integrity_check;'";
    let said = run(&mut node, &main, sqlite).await;
    assert!(said.ends_with("3\nok"), "{said}");
    let git = "export HOME=/data PATH=$PATH:/usr/bin:/usr/local/bin; cd /data && mkdir repository \
        && cd repository && git init -q . && mkdir many && cp ../copy/many/f1?? many \
        && git add . \
        && git -c user.name=a -c user.email=a@b commit -q -m one && cd .. \
        && git clone -q repository clone && cd clone && git status --short && git fsck 2>&1 \
        && ls many | wc -l";
    let said = run(&mut node, &main, git).await;
    assert!(said.ends_with("100"), "{said}");
    node.remove_pod(&pod).await;
    assert_eq!(node.leftovers(), Vec::<String>::new());
}

/// kill -9 of the pod's file server.
fn kill_file_server(node: &Node) {
    let servers = file_servers(node);
    assert_eq!(servers.len(), 1, "{servers:?}");
    let server = nix::unistd::Pid::from_raw(servers[0] as i32);
    nix::sys::signal::kill(server, nix::sys::signal::Signal::SIGKILL).unwrap();
}

#[tokio::test]
#[ignore = "needs KVM: run in the testnode (make test does)"]
async fn node_a_dead_file_server_ends_the_pod_with_that_reason() {
    let mut node = Node::start().await;
    node.pull("busybox").await;
    let data = node.path("data");
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("hello"), "x").unwrap();
    // The same pod twice, as its owner makes it anew: the first loses its file server under
    // a shim, the second while none runs.
    for attempt in 0..2 {
        let mut config = node.pod("p");
        config.metadata.as_mut().unwrap().attempt = attempt;
        let request = RunPodSandboxRequest {
            config: Some(config),
            runtime_handler: String::new(),
        };
        let pod = node.runtime.run_pod_sandbox(request).await.unwrap();
        let pod = pod.into_inner().pod_sandbox_id;
        let mut config = node.container("main", &["/bin/sleep", "3600"]);
        config.metadata.as_mut().unwrap().attempt = attempt;
        config.mounts = vec![mount(&data, "/data", false)];
        let main = node.running(&pod, config).await;
        assert_eq!(run(&mut node, &main, "cat /data/hello").await, "x");
        let mut config = node.container("without", &["/bin/sleep", "3600"]);
        config.metadata.as_mut().unwrap().attempt = attempt;
        let without = node.running(&pod, config).await;
        let how = if attempt == 0 {
            kill_file_server(&node);
            "SIGKILL"
        } else {
            node.kill_shim();
            kill_file_server(&node);
            node.start_shim().await;
            "hull-fsd"
        };
        for container in [&main, &without] {
            let status = node.exited(container).await;
            let told = (status.exit_code, status.reason.as_str());
            assert_eq!(told, (137, "FileServerDied"), "{}", status.message);
            for word in ["hull-fsd", "host volumes", how] {
                assert!(status.message.contains(word), "{}", status.message);
            }
        }
        let sandbox = node.sandbox_status(&pod).await.status.unwrap();
        assert_eq!(sandbox.state, PodSandboxState::SandboxNotready as i32);
        assert!(node.vmm_pids().is_empty());
        node.stop_pod(&pod).await;
    }
    let list = ListPodSandboxRequest::default();
    let list = node.runtime.list_pod_sandbox(list).await.unwrap();
    for pod in list.into_inner().items {
        node.remove_pod(&pod.id).await;
    }
    assert_eq!(node.leftovers(), Vec::<String>::new());
}
