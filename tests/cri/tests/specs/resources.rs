//! Container OOM, limits, volumes, mounts.

use crate::specs;
use crate::suite::{FOREVER, Suite, resources};
use hull_cri_api::v1::*;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

specs! {
    "Container OOM: should terminate with exitCode 137 and reason OOMKilled" => oom,
    "a limit that is updated holds in the guest at once" => update,
    "a limit on processes holds" => pids_limit,
    "Container: runtime should support starting container with volume" => volume,
    "Container Mount Readonly: should support recursive readonly mounts" => recursive_read_only,
    "Container Mount Readonly: should reject a recursive readonly mount with propagation or with ReadOnly: false" => recursive_read_only_refused,
    "Container Mount Propagation: mount with 'rprivate' should not support propagation; others are refused" => propagation,
    "a volume has the group that fsGroup gave it" => fs_group,
    "an emptyDir in memory holds no more than its size limit" => size_limit,
    "disk slots that run out are named, and come back" => slots,
}

const MIB: i64 = 1 << 20;

async fn oom(suite: &mut Suite) {
    let pod = suite.pod().await;
    let script = "dd if=/dev/zero of=/dev/null bs=100M";
    let config = suite.config(&["sh", "-c", script], |config| {
        resources(config).memory_limit_in_bytes = 15 * MIB;
        resources(config).memory_swap_limit_in_bytes = 15 * MIB;
    });
    let id = suite.node.running(&pod, config).await;
    let status = suite.node.exited(&id).await;
    assert_eq!(
        (status.exit_code, status.reason.as_str()),
        (137, "OOMKilled")
    );
    suite.remove(&[&id]).await;
}

const CGROUP: &str = "/sys/fs/cgroup";

async fn update(suite: &mut Suite) {
    let id = suite
        .running(FOREVER, |config| {
            resources(config).memory_limit_in_bytes = 32 * MIB;
            resources(config).cpu_shares = 512;
        })
        .await;
    let memory = format!("cat {CGROUP}/memory.max");
    assert_eq!(suite.exec(&id, &memory).await, (32 * MIB).to_string());
    let linux = LinuxContainerResources {
        memory_limit_in_bytes: 48 * MIB,
        cpu_quota: 50_000,
        cpu_period: 100_000,
        ..Default::default()
    };
    let request = UpdateContainerResourcesRequest {
        container_id: id[..12].into(),
        linux: Some(linux),
        ..Default::default()
    };
    suite
        .node
        .runtime
        .update_container_resources(request)
        .await
        .unwrap();
    assert_eq!(suite.exec(&id, &memory).await, (48 * MIB).to_string());
    let cpu = format!("cat {CGROUP}/cpu.max");
    assert_eq!(suite.exec(&id, &cpu).await, "50000 100000");
    let linux = suite
        .node
        .status(&id)
        .await
        .resources
        .unwrap()
        .linux
        .unwrap();
    assert_eq!(
        (linux.memory_limit_in_bytes, linux.cpu_shares),
        (48 * MIB, 512)
    );
    suite.remove(&[&id]).await;
}

async fn pids_limit(suite: &mut Suite) {
    let script = "for i in 1 2 3 4 5 6 7 8; do sleep 5 & done; echo all";
    let (_, text) = suite
        .script(script, |config| {
            let unified = &mut resources(config).unified;
            unified.insert("pids.max".into(), "4".into());
        })
        .await;
    assert!(text.contains("fork"), "{text}");
}

/// A directory where a node agent would have the pod's volume.
fn host_directory(suite: &Suite, kind: &str, name: &str) -> PathBuf {
    let pods = suite.node.path("kubelet/pods/uid-shared/volumes");
    let path = pods.join(format!("kubernetes.io~{kind}")).join(name);
    std::fs::create_dir_all(&path).unwrap();
    path
}

fn mount(host: &std::path::Path) -> Mount {
    Mount {
        container_path: "/volume".into(),
        host_path: host.display().to_string(),
        ..Default::default()
    }
}

async fn volume(suite: &mut Suite) {
    let directory = host_directory(suite, "configmap", "settings");
    std::fs::write(directory.join("key"), "value\n").unwrap();
    let (code, text) = suite
        .script("cat /volume/key", |config| {
            config.mounts = vec![mount(&directory)]
        })
        .await;
    assert_eq!((code, text.as_str()), (0, "value"));
}

async fn recursive_read_only(suite: &mut Suite) {
    let directory = host_directory(suite, "empty-dir", "readonly");
    let (code, text) = suite
        .script("touch /volume/file", |config| {
            config.mounts = vec![Mount {
                readonly: true,
                recursive_read_only: true,
                ..mount(&directory)
            }];
        })
        .await;
    assert!(code != 0 && text.contains("Read-only"), "{text}");
}

async fn recursive_read_only_refused(suite: &mut Suite) {
    use MountPropagation::*;
    let directory = host_directory(suite, "empty-dir", "readonly");
    for (readonly, propagation) in [
        (false, PropagationPrivate),
        (true, PropagationHostToContainer),
        (true, PropagationBidirectional),
    ] {
        let status = suite
            .refused(|config| {
                config.mounts = vec![Mount {
                    readonly,
                    recursive_read_only: true,
                    propagation: propagation as i32,
                    ..mount(&directory)
                }];
            })
            .await;
        assert_eq!(
            status.code(),
            tonic::Code::InvalidArgument,
            "{}",
            status.message()
        );
    }
}

async fn propagation(suite: &mut Suite) {
    use MountPropagation::*;
    let directory = host_directory(suite, "empty-dir", "propagation");
    for propagation in [PropagationHostToContainer, PropagationBidirectional] {
        let status = suite
            .refused(|config| {
                config.mounts = vec![Mount {
                    propagation: propagation as i32,
                    ..mount(&directory)
                }];
            })
            .await;
        assert!(status.message().contains("native"), "{}", status.message());
    }
    let script = "mount -t tmpfs none /volume && touch /volume/inside && exec sleep 99999";
    let private = |config: &mut ContainerConfig| {
        config.mounts = vec![mount(&directory)];
        crate::suite::security(config).privileged = true;
    };
    let other = suite.running(&["sh", "-c", script], private).await;
    Suite::until("it is mounted", async || {
        let answer = suite
            .node
            .exec(&other, &["test", "-e", "/volume/inside"])
            .await;
        answer.unwrap().exit_code == 0
    })
    .await;
    let (_, text) = suite.script("ls /volume; echo end", private).await;
    assert_eq!(text, "end");
    suite.remove(&[&other]).await;
}

async fn fs_group(suite: &mut Suite) {
    let directory = host_directory(suite, "empty-dir", "grouped");
    std::os::unix::fs::chown(&directory, Some(0), Some(4711)).unwrap();
    std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(0o2777)).unwrap();
    let (_, text) = suite
        .script(
            "touch /volume/file; stat -c %g /volume /volume/file",
            |config| {
                config.mounts = vec![mount(&directory)];
                crate::suite::security(config).run_as_user = Some(Int64Value { value: 1000 });
            },
        )
        .await;
    assert_eq!(text, "4711\n4711");
}

async fn size_limit(suite: &mut Suite) {
    let pod = suite.configured_pod().await;
    let pods = suite.node.path("kubelet/pods/uid-configured/volumes");
    let directory = pods.join("kubernetes.io~empty-dir/limited");
    std::fs::create_dir_all(&directory).unwrap();
    let script = "dd if=/dev/zero of=/volume/file bs=1024 count=4096; stat -c %s /volume/file";
    let (_, text) = suite
        .script_in(&pod, "configured", script, |config| {
            config.mounts = vec![mount(&directory)]
        })
        .await;
    assert!(
        text.contains("No space left") && text.contains("2097152"),
        "{text}"
    );
}

/// The suite's VMs have two slots, of which one holds busybox.
async fn slots(suite: &mut Suite) {
    let pod = suite.pod().await;
    let busybox = suite.running(FOREVER, |_| {}).await;
    for image in ["test/layers", "test/zstd"] {
        suite.node.pull(image).await;
    }
    let using = |image: &str| {
        let image = crate::support::spec(image);
        move |config: &mut ContainerConfig| config.image = Some(image)
    };
    let layers = suite.running(FOREVER, using("test/layers")).await;
    let config = suite.config(FOREVER, using("test/zstd"));
    let status = suite.node.create(&pod, config.clone()).await.unwrap_err();
    assert_eq!(
        status.code(),
        tonic::Code::ResourceExhausted,
        "{}",
        status.message()
    );
    assert!(
        status.message().contains("vmm.disk_slots"),
        "{}",
        status.message()
    );
    suite.remove(&[&layers]).await;
    let zstd = suite.node.create(&pod, config).await.unwrap();
    suite.remove(&[&zstd, &busybox]).await;
}
