//! Containers through an agent on this machine, from the host's side of the protocol.

// Helpers of tests, like tests, panic when something is wrong.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::{Node, spec, wait_until};
use hull_agent_protocol::v1::*;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::Code;

#[tokio::test]
#[ignore = "needs KVM: run in the testnode (make test does)"]
async fn node_runs_a_command_and_reports_output_and_exit_code() {
    let mut node = Node::start().await;
    let request = node.request("c", &["sh", "-c", "echo hello; hostname; exit 7"]);
    let (output, exit) = node.run_to_end("c", request).await;
    assert_eq!(
        (output.as_str(), exit.code, exit.signal),
        ("hello\ntestpod\n", 7, 0)
    );
    node.remove("c").await;
    assert!(node.mounts_with("/containers/c").is_empty() && !node.cgroup("c").exists());
}

#[tokio::test]
#[ignore = "needs KVM: run in the testnode (make test does)"]
async fn node_waits_with_the_command_until_start() {
    let mut node = Node::start().await;
    let request = node.request("c", &["touch", "/ran"]);
    node.client.create_container(request).await.unwrap();
    let list = node
        .client
        .list_containers(ListContainersRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!(list.containers[0].state(), container_info::State::Created);
    let upper = node.mounts_with("/containers/c/rootfs");
    assert_eq!(upper.len(), 1);
    node.client
        .start_container(StartContainerRequest {
            container_id: "c".into(),
        })
        .await
        .unwrap();
    assert_eq!(node.wait("c", "").await.code, 0);
}

#[tokio::test]
#[ignore = "needs KVM: run in the testnode (make test does)"]
async fn node_never_started_container_can_be_removed() {
    let mut node = Node::start().await;
    let request = node.request("c", &["sleep", "1000"]);
    node.client.create_container(request).await.unwrap();
    node.remove("c").await;
    node.remove("c").await;
    assert!(node.mounts_with("/containers/c").is_empty() && !node.cgroup("c").exists());
}

#[tokio::test]
#[ignore = "needs KVM: run in the testnode (make test does)"]
async fn node_missing_command_is_named_and_leaves_nothing() {
    let mut node = Node::start().await;
    for (command, message) in [
        (
            "nosuch",
            r#"exec: "nosuch": executable file not found in $PATH"#,
        ),
        (
            "/bin/nosuch",
            r#"exec: "/bin/nosuch": stat /bin/nosuch: no such file or directory"#,
        ),
    ] {
        let request = node.request("c", &[command]);
        let status = node.client.create_container(request).await.unwrap_err();
        assert_eq!((status.code(), status.message()), (Code::NotFound, message));
    }
    let request = node.request("c", &["/etc/passwd"]);
    let status = node.client.create_container(request).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    assert!(node.mounts_with("/containers/c").is_empty() && !node.cgroup("c").exists());
}

#[tokio::test]
#[ignore = "needs KVM: run in the testnode (make test does)"]
async fn node_file_that_cannot_be_executed_fails_at_start() {
    let mut node = Node::start().await;
    let program = node.root.join("bin/garbage");
    std::fs::write(&program, [0x7f, b'E', b'L', b'F', 9, 9]).unwrap();
    std::fs::set_permissions(
        &program,
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    let request = node.request("c", &["garbage"]);
    node.client.create_container(request).await.unwrap();
    let start = StartContainerRequest {
        container_id: "c".into(),
    };
    let status = node.client.start_container(start).await.unwrap_err();
    assert!(
        status
            .message()
            .contains(r#"exec: "garbage": exec format error"#),
        "{status}"
    );
    node.wait("c", "").await;
    node.remove("c").await;
}

#[tokio::test]
#[ignore = "needs KVM: run in the testnode (make test does)"]
async fn node_same_create_again_is_the_same_container_another_is_refused() {
    let mut node = Node::start().await;
    let request = node.request("c", &["sleep", "1000"]);
    let first = node
        .client
        .create_container(request.clone())
        .await
        .unwrap()
        .into_inner();
    let second = node
        .client
        .create_container(request)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(first.pid, second.pid);
    let other = node.request("c", &["sleep", "1001"]);
    let status = node.client.create_container(other).await.unwrap_err();
    assert_eq!(status.code(), Code::AlreadyExists);
}

#[tokio::test]
#[ignore = "needs KVM: run in the testnode (make test does)"]
async fn node_unknown_and_bad_ids_are_told_apart() {
    let mut node = Node::start().await;
    for (id, code) in [
        ("nosuch", Code::NotFound),
        ("../x", Code::InvalidArgument),
        ("", Code::InvalidArgument),
    ] {
        let start = StartContainerRequest {
            container_id: id.into(),
        };
        let status = node.client.start_container(start).await.unwrap_err();
        assert_eq!(status.code(), code, "{id:?}");
        let exec = ExecRequest {
            container_id: id.into(),
            exec_id: "e".into(),
            ..Default::default()
        };
        assert_eq!(
            node.client.exec(exec).await.unwrap_err().code(),
            code,
            "{id:?}"
        );
        let request = CreateContainerRequest {
            container_id: "a/b".into(),
            ..Default::default()
        };
        assert_eq!(
            node.client
                .create_container(request)
                .await
                .unwrap_err()
                .code(),
            Code::InvalidArgument
        );
    }
}

#[tokio::test]
#[ignore = "needs KVM: run in the testnode (make test does)"]
async fn node_signal_ends_a_container_and_its_exit_says_so() {
    let mut node = Node::start().await;
    node.run_command(
        "c",
        &[
            "sh",
            "-c",
            "trap 'exit 3' TERM; echo up; while :; do sleep 0.05; done",
        ],
    )
    .await;
    let mut output = node.output("c", None, 0).await;
    let mut up = [0; 3];
    output.read_exact(&mut up).await.unwrap();
    let remove = RemoveContainerRequest {
        container_id: "c".into(),
    };
    let status = node.client.remove_container(remove).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    node.signal("c", "", libc::SIGTERM).await;
    assert_eq!(node.wait("c", "").await.code, 3);
    node.run_command("d", &["sleep", "1000"]).await;
    node.signal("d", "", libc::SIGKILL).await;
    let exit = node.wait("d", "").await;
    assert_eq!((exit.code, exit.signal, exit.oom_killed), (137, 9, false));
}

#[tokio::test]
#[ignore = "needs KVM: run in the testnode (make test does)"]
async fn node_stdin_is_passed_and_its_end_too() {
    let mut node = Node::start().await;
    let mut request = node.request("c", &["cat"]);
    (request.stdin, request.stdin_once) = (true, true);
    node.run(request).await;
    let mut stdin = node.stdin("c", None).await;
    stdin.write_all(b"one\ntwo\n").await.unwrap();
    stdin.shutdown().await.unwrap();
    assert_eq!(node.read_output("c", None).await, "one\ntwo\n");
    assert_eq!(node.wait("c", "").await.code, 0);
}

#[tokio::test]
#[ignore = "needs KVM: run in the testnode (make test does)"]
async fn node_output_is_kept_for_a_host_that_comes_back() {
    let mut node = Node::start().await;
    node.run_command("c", &["sh", "-c", "echo 0123456789"])
        .await;
    node.wait("c", "").await;
    assert_eq!(node.read_output("c", None).await, "0123456789\n");
    let mut again = node.output("c", None, 7).await;
    let mut text = String::new();
    again.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "789\n");
}

#[tokio::test]
#[ignore = "needs KVM: run in the testnode (make test does)"]
async fn node_exec_has_its_own_streams_directory_user_and_exit() {
    let mut node = Node::start().await;
    node.run_command("c", &["sleep", "1000"]).await;
    let request = ExecRequest {
        container_id: "c".into(),
        exec_id: "e".into(),
        args: [
            "sh",
            "-c",
            "pwd; id -u; id -G; echo $FROM_SPEC $MINE; cat; exit 5",
        ]
        .map(Into::into)
        .to_vec(),
        env: vec!["MINE=too".into()],
        cwd: "/tmp".into(),
        user: "web".into(),
        stdin: true,
        ..Default::default()
    };
    node.client.exec(request.clone()).await.unwrap();
    let status = node.client.exec(request).await.unwrap_err();
    assert_eq!(status.code(), Code::AlreadyExists);
    let mut stdin = node.stdin("c", Some("e")).await;
    stdin.write_all(b"input").await.unwrap();
    stdin.shutdown().await.unwrap();
    let output = node.read_output("c", Some("e")).await;
    assert_eq!(output, "/tmp\n33\n33 4\nyes too\ninput");
    assert_eq!(node.wait("c", "e").await.code, 5);
    let cgroup = std::fs::read_to_string(node.cgroup("c").join("cgroup.procs")).unwrap();
    assert_eq!(cgroup.lines().count(), 1);
}

#[tokio::test]
#[ignore = "needs KVM: run in the testnode (make test does)"]
async fn node_exec_of_a_missing_command_is_named() {
    let mut node = Node::start().await;
    node.run_command("c", &["sleep", "1000"]).await;
    let request = ExecRequest {
        container_id: "c".into(),
        exec_id: "e".into(),
        args: vec!["nosuch".into()],
        ..Default::default()
    };
    let status = node.client.exec(request).await.unwrap_err();
    let message = r#"exec: "nosuch": executable file not found in $PATH"#;
    assert_eq!((status.code(), status.message()), (Code::NotFound, message));
}

#[tokio::test]
#[ignore = "needs KVM: run in the testnode (make test does)"]
async fn node_exec_that_leaves_a_child_ends_all_the_same() {
    let mut node = Node::start().await;
    node.run_command("c", &["sleep", "1000"]).await;
    let request = ExecRequest {
        container_id: "c".into(),
        exec_id: "e".into(),
        args: ["sh", "-c", "sleep 1000 & echo left"]
            .map(Into::into)
            .to_vec(),
        ..Default::default()
    };
    node.client.exec(request).await.unwrap();
    assert_eq!(node.read_output("c", Some("e")).await, "left\n");
    assert_eq!(node.wait("c", "e").await.code, 0);
    let remove = RemoveExecRequest {
        container_id: "c".into(),
        exec_id: "e".into(),
    };
    node.client.remove_exec(remove).await.unwrap();
}

#[tokio::test]
#[ignore = "needs KVM: run in the testnode (make test does)"]
async fn node_terminal_has_a_size_that_can_be_changed() {
    let mut node = Node::start().await;
    node.run_command("c", &["sleep", "1000"]).await;
    let script = "stty size; read x; stty size; tty";
    let request = ExecRequest {
        container_id: "c".into(),
        exec_id: "e".into(),
        args: ["sh", "-c", script].map(Into::into).to_vec(),
        tty: true,
        stdin: true,
        tty_rows: 24,
        tty_columns: 80,
        ..Default::default()
    };
    node.client.exec(request).await.unwrap();
    let resize = ResizeTtyRequest {
        container_id: "c".into(),
        exec_id: "e".into(),
        rows: 50,
        columns: 132,
    };
    node.client.resize_tty(resize).await.unwrap();
    let mut stdin = node.stdin("c", Some("e")).await;
    stdin.write_all(b"\n").await.unwrap();
    let output = node.read_output("c", Some("e")).await;
    assert!(output.contains("50 132\r\n/dev/pts/"), "{output:?}");
    assert_eq!(node.wait("c", "e").await.code, 0);
}

#[tokio::test]
#[ignore = "needs KVM: run in the testnode (make test does)"]
async fn node_container_with_a_terminal_reads_and_echoes() {
    let mut node = Node::start().await;
    let mut request = node.request("c", &["sh", "-c", "test -t 0 && read x && echo got $x"]);
    (request.tty, request.stdin) = (true, true);
    node.run(request).await;
    let mut stdin = node.stdin("c", None).await;
    stdin.write_all(b"abc\n").await.unwrap();
    assert_eq!(node.read_output("c", None).await, "abc\r\ngot abc\r\n");
    assert_eq!(node.wait("c", "").await.code, 0);
}

#[tokio::test]
#[ignore = "needs KVM: run in the testnode (make test does)"]
async fn node_containers_see_the_sandboxs_files_and_volumes() {
    let mut node = Node::start().await;
    let file = |content: &str| SyncVolumeRequest {
        name: "config".into(),
        files: vec![VolumeFile {
            path: "a/key".into(),
            content: content.into(),
            mode: 0o444,
            ..Default::default()
        }],
        ..Default::default()
    };
    node.client.sync_volume(file("first")).await.unwrap();
    let empty = SyncVolumeRequest {
        name: "shared".into(),
        kind: sync_volume_request::Kind::EmptyDir.into(),
        ..Default::default()
    };
    node.client.sync_volume(empty).await.unwrap();
    let mut spec = spec(&[
        "sh",
        "-c",
        "grep elsewhere /etc/hosts; cat /etc/hostname /config/a/key; echo; \
        echo data > /sub/file; read x; cat /config/a/key; touch /config/x 2>/dev/null || echo read-only",
    ]);
    let mounts = spec["mounts"].as_array_mut().unwrap();
    mounts.push(json!({"destination": "/config", "type": "hull-volume", "source": "config", "options": ["ro"]}));
    mounts.push(json!({"destination": "/sub", "type": "hull-volume", "source": "shared/sub"}));
    let mut request = node.request_with("c", spec);
    (request.stdin, request.stdin_once) = (true, true);
    node.run(request).await;
    let mut output = node.output("c", None, 0).await;
    let before = "10.1.1.1 elsewhere\ntestpod\nfirst\n";
    let mut buffer = vec![0; before.len()];
    output.read_exact(&mut buffer).await.unwrap();
    assert_eq!(String::from_utf8(buffer).unwrap(), before);
    node.client.sync_volume(file("second")).await.unwrap();
    let in_use = RemoveVolumeRequest {
        name: "config".into(),
    };
    let status = node.client.remove_volume(in_use).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    let mut stdin = node.stdin("c", None).await;
    stdin.write_all(b"\n").await.unwrap();
    let mut after = String::new();
    output.read_to_string(&mut after).await.unwrap();
    assert_eq!(after, "secondread-only\n");
    let read = ReadVolumeFileRequest {
        name: "shared".into(),
        path: "sub/file".into(),
        max_bytes: 0,
    };
    let content = node
        .client
        .read_volume_file(read)
        .await
        .unwrap()
        .into_inner()
        .content;
    assert_eq!(content, b"data\n");
    node.wait("c", "").await;
    node.remove("c").await;
    node.client
        .remove_volume(RemoveVolumeRequest {
            name: "config".into(),
        })
        .await
        .unwrap();
}

#[tokio::test]
#[ignore = "needs KVM: run in the testnode (make test does)"]
async fn node_symlink_in_a_volume_does_not_lead_out_of_it() {
    let mut node = Node::start().await;
    let empty = SyncVolumeRequest {
        name: "shared".into(),
        kind: sync_volume_request::Kind::EmptyDir.into(),
        ..Default::default()
    };
    node.client.sync_volume(empty).await.unwrap();
    let mut planting = spec(&["ln", "-s", "/etc", "/shared/link"]);
    let mount =
        |source: &str| json!({"destination": "/shared", "type": "hull-volume", "source": source});
    planting["mounts"]
        .as_array_mut()
        .unwrap()
        .push(mount("shared"));
    let request = node.request_with("planter", planting);
    node.run_to_end("planter", request).await;
    let mut victim = spec(&["ls", "/shared"]);
    victim["mounts"]
        .as_array_mut()
        .unwrap()
        .push(mount("shared/link/ssl"));
    let request = node.request_with("victim", victim);
    let status = node.client.create_container(request).await.unwrap_err();
    assert!(!status.message().is_empty() && node.mounts_with("/containers/victim").is_empty());
    let read = ReadVolumeFileRequest {
        name: "shared".into(),
        path: "link/passwd".into(),
        max_bytes: 0,
    };
    let status = node.client.read_volume_file(read).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
}

#[tokio::test]
#[ignore = "needs KVM: run in the testnode (make test does)"]
async fn node_read_only_root_cannot_be_written() {
    let mut node = Node::start().await;
    let mut request = node.request(
        "c",
        &[
            "sh",
            "-c",
            "touch /x 2>/dev/null || echo refused; cat /etc/hostname",
        ],
    );
    request.rootfs.as_mut().unwrap().read_only = true;
    let (output, _) = node.run_to_end("c", request).await;
    assert_eq!(output, "refused\ntestpod\n");
}

#[tokio::test]
#[ignore = "needs KVM: run in the testnode (make test does)"]
async fn node_memory_limit_kills_and_the_exit_says_so() {
    let mut node = Node::start().await;
    let mut spec = spec(&["sh", "-c", "x=a; while :; do x=$x$x; done"]);
    spec["linux"]["resources"] = json!({
        "memory": {"limit": 16 << 20, "swap": 16 << 20},
        "pids": {"limit": 50},
        "cpu": {"shares": 512, "quota": 50_000, "period": 100_000},
    });
    let request = node.request_with("c", spec);
    node.run(request).await;
    let exit = node.wait("c", "").await;
    assert!(exit.oom_killed && exit.code != 0, "{exit:?}");
    let limit = std::fs::read_to_string(node.cgroup("c").join("pids.max")).unwrap();
    assert_eq!(limit.trim(), "50");
}

#[tokio::test]
#[ignore = "needs KVM: run in the testnode (make test does)"]
async fn node_statistics_count_processes_and_written_bytes() {
    let mut node = Node::start().await;
    node.run_command(
        "c",
        &[
            "sh",
            "-c",
            "dd if=/dev/zero of=/big bs=1024 count=512 2>/dev/null; echo done; sleep 1000",
        ],
    )
    .await;
    let mut output = node.output("c", None, 0).await;
    let mut done = [0; 5];
    output.read_exact(&mut done).await.unwrap();
    let request = ContainerStatsRequest {
        container_id: "c".into(),
    };
    let stats = node
        .client
        .container_stats(request)
        .await
        .unwrap()
        .into_inner();
    assert!(stats.writable_layer_bytes >= 512 * 1024, "{stats:?}");
    assert!(stats.cpu_usage_ns > 0, "{stats:?}");
}

#[tokio::test]
#[ignore = "needs KVM: run in the testnode (make test does)"]
async fn node_exits_are_replayed_to_a_new_subscriber() {
    let mut node = Node::start().await;
    for (id, code) in [("a", "1"), ("b", "2")] {
        node.run_command(id, &["sh", "-c", &format!("exit {code}")])
            .await;
        node.wait(id, "").await;
    }
    node.remove("a").await;
    let mut events = node
        .client
        .events(EventsRequest {})
        .await
        .unwrap()
        .into_inner();
    let event = events.message().await.unwrap().unwrap();
    assert_eq!(
        (event.container_id.as_str(), event.exit.unwrap().code),
        ("b", 2)
    );
    node.run_command("c", &["sh", "-c", "exit 3"]).await;
    let event = events.message().await.unwrap().unwrap();
    assert_eq!(
        (event.container_id.as_str(), event.exit.unwrap().code),
        ("c", 3)
    );
}

#[tokio::test]
#[ignore = "needs KVM: run in the testnode (make test does)"]
async fn node_connect_reaches_a_port_inside_the_sandbox() {
    let node = Node::start_bare().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let header = hull_agent_protocol::stream::Header::Connect { port };
    let (mut stream, _) = node.address.open_stream(&header).await.unwrap();
    let (mut served, _) = listener.accept().await.unwrap();
    stream.write_all(b"ping").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut text = String::new();
    served.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "ping");
    served.write_all(b"pong").await.unwrap();
    drop(served);
    text.clear();
    stream.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "pong");
    drop(listener);
    let error = node.address.open_stream(&header).await.unwrap_err();
    assert!(error.to_string().contains("refused"), "{error}");
}

#[tokio::test]
#[ignore = "needs KVM: run in the testnode (make test does)"]
async fn node_shutdown_ends_containers_and_the_agent() {
    let mut node = Node::start().await;
    node.run_command(
        "c",
        &["sh", "-c", "trap '' TERM; while :; do sleep 1; done"],
    )
    .await;
    let _events = node.client.events(EventsRequest {}).await.unwrap();
    node.client
        .shutdown(ShutdownRequest { grace_ms: 100 })
        .await
        .unwrap();
    wait_until("the agent ends", || node.agent_has_ended()).await;
    assert!(!node.cgroup("c").exists());
}

#[tokio::test]
#[ignore = "needs KVM: run in the testnode (make test does)"]
async fn node_many_containers_start_and_end_at_once() {
    let mut node = Node::start().await;
    let ids: Vec<String> = (0..8).map(|n| format!("c{n}")).collect();
    let mut tasks = Vec::new();
    for id in &ids {
        let request = node.request(id, &["sh", "-c", &format!("echo {id}; exit 9")]);
        let mut client = node.client.clone();
        tasks.push(tokio::spawn(async move {
            let container_id = request.container_id.clone();
            client.create_container(request).await.unwrap();
            client
                .start_container(StartContainerRequest { container_id })
                .await
                .unwrap();
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    for id in &ids {
        assert_eq!(node.read_output(id, None).await, format!("{id}\n"));
        assert_eq!(node.wait(id, "").await.code, 9);
        node.remove(id).await;
    }
}

#[tokio::test]
#[ignore = "needs KVM: run in the testnode (make test does)"]
async fn node_processes_of_a_shared_pid_namespace_end_with_the_container() {
    let mut node = Node::start().await;
    let mut spec = spec(&["sh", "-c", "sleep 1000 & exit 0"]);
    spec["linux"]["namespaces"] = json!([{"type": "mount"}, {"type": "cgroup"}]);
    let request = node.request_with("c", spec);
    node.run(request).await;
    assert_eq!(node.wait("c", "").await.code, 0);
    let procs = node.cgroup("c").join("cgroup.procs");
    wait_until("the cgroup is empty", || {
        std::fs::read_to_string(&procs).unwrap().is_empty()
    })
    .await;
    node.remove("c").await;
}
