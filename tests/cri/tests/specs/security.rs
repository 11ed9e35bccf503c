//! Security Context.

use crate::specs;
use crate::suite::{FOREVER, Suite, security};
use hull_cri_api::v1::security_profile::ProfileType;
use hull_cri_api::v1::*;

specs! {
    "Security Context: runtime should support HostPID, HostIpc and HostNetwork: refused, naming the native handler" => host_namespaces,
    "Security Context: runtime should support HostIpc is false" => own_ipc,
    "Security Context: runtime should support PodPID" => pod_pid,
    "Security Context: runtime should support ContainerPID" => container_pid,
    "Security Context: runtime should support target PID" => target_pid,
    "Security Context: runtime should support HostNetwork is false" => own_network,
    "Security Context: runtime should support SupplementalGroups" => supplemental_groups,
    "Security Context: runtime should support RunAsUser" => run_as_user,
    "Security Context: runtime should support RunAsUserName" => run_as_user_name,
    "Security Context: runtime should support RunAsGroup" => run_as_group,
    "Security Context: runtime should return error if RunAsGroup is set without RunAsUser" => group_without_user,
    "Security Context: runtime should support that ReadOnlyRootfs is false" => writable_root,
    "Security Context: runtime should support that ReadOnlyRootfs is true" => read_only_root,
    "Security Context: runtime should support Privileged is true" => privileged,
    "Security Context: runtime should support Privileged is false" => not_privileged,
    "Security Context: runtime should support adding capability" => adding_capability,
    "Security Context: runtime should support dropping capability" => dropping_capability,
    "Security Context: runtime should support adding ALL capabilities" => adding_all,
    "Security Context: runtime should support dropping ALL capabilities" => dropping_all,
    "Security Context: runtime should support MaskedPaths" => masked_paths,
    "Security Context: runtime should support ReadonlyPaths" => read_only_paths,
    "Security Context: if the container's primary UID belongs to some groups in the image, runtime should add SupplementalGroups to them" => groups_merged,
    "Security Context: even if the container's primary UID belongs to some groups in the image, runtime should not add SupplementalGroups to them" => groups_strict,
    "Security Context: should support seccomp unconfined on the container" => seccomp_unconfined,
    "Security Context: should support seccomp localhost profile on the container" => seccomp_localhost,
    "Security Context: should support seccomp default on the container" => seccomp_default,
    "Security Context: should support nil profile, which is unconfined" => seccomp_nil,
    "Security Context: runtime should not block setting host name with unconfined seccomp and SYS_ADMIN" => hostname_unconfined,
    "Security Context: runtime should support an seccomp profile that blocks setting hostname with SYS_ADMIN" => hostname_blocked,
    "Security Context: runtime should ignore a seccomp profile that blocks setting hostname when privileged" => hostname_privileged,
    "Security Context: NoNewPrivs: should not allow privilege escalation when true" => no_new_privileges,
    "Security Context: NoNewPrivs: should allow privilege escalation when false" => new_privileges,
    "Security Context: UserNamespaces: refused, with the reason" => user_namespaces,
    "AppArmor: should fail with an unloaded apparmor_profile" => apparmor,
    "a container that makes a node of a disk cannot open it" => disks_are_closed,
}

fn options(config: &mut ContainerConfig) -> &mut NamespaceOption {
    security(config).namespace_options.get_or_insert_default()
}

fn seccomp(config: &mut ContainerConfig, kind: ProfileType, path: &str) {
    security(config).seccomp = Some(SecurityProfile {
        profile_type: kind as i32,
        localhost_ref: path.into(),
    });
}

fn capabilities(config: &mut ContainerConfig, add: &[&str], drop: &[&str]) {
    let list = |names: &[&str]| names.iter().map(|name| name.to_string()).collect();
    security(config).capabilities = Some(Capability {
        add_capabilities: list(add),
        drop_capabilities: list(drop),
        add_ambient_capabilities: Vec::new(),
    });
}

async fn host_namespaces(suite: &mut Suite) {
    for change in [
        (|options: &mut NamespaceOption| options.pid = NamespaceMode::Node as i32) as fn(&mut _),
        |options| options.ipc = NamespaceMode::Node as i32,
        |options| options.network = NamespaceMode::Node as i32,
    ] {
        let mut config = suite.node.pod("host-namespaces");
        let linux = config.linux.get_or_insert_default();
        let security = linux.security_context.get_or_insert_default();
        change(security.namespace_options.get_or_insert_default());
        let status = suite.run_pod(config).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::InvalidArgument);
        assert!(status.message().contains("native"), "{}", status.message());
    }
}

async fn own_ipc(suite: &mut Suite) {
    let shared = tempfile::NamedTempFile::new_in("/dev/shm").unwrap();
    let name = shared
        .path()
        .file_name()
        .unwrap()
        .to_string_lossy()
        .into_owned();
    let (code, text) = suite
        .script(&format!("test ! -e /dev/shm/{name}"), |_| {})
        .await;
    assert_eq!(code, 0, "{text}");
}

async fn own_network(suite: &mut Suite) {
    let (_, text) = suite.script("ls /sys/class/net", |_| {}).await;
    let names: Vec<&str> = text.split_whitespace().collect();
    assert!(names.contains(&"eth0") && names.contains(&"lo"), "{text}");
    // The host's side of the pod's network.
    let bridge = suite.node.bridge();
    assert!(std::path::Path::new("/sys/class/net").join(bridge).exists());
    assert!(!names.contains(&bridge), "{text}");
}

const MARKED: &[&str] = &["sh", "-c", "sleep 99999 & wait"];
const SEES_IT: &str = "ps -o args | grep -q '^sleep 99999'";

async fn pod_pid(suite: &mut Suite) {
    let share = |config: &mut ContainerConfig| options(config).pid = NamespaceMode::Pod as i32;
    let other = suite.running(MARKED, share).await;
    let (code, text) = suite.script(SEES_IT, share).await;
    assert_eq!(code, 0, "{text}");
    suite.remove(&[&other]).await;
}

async fn container_pid(suite: &mut Suite) {
    let other = suite.running(MARKED, |_| {}).await;
    let (code, _) = suite.script(SEES_IT, |_| {}).await;
    assert_eq!(code, 1);
    let (_, text) = suite
        .script(
            "[ $(readlink /proc/1/ns/pid) = $(readlink /proc/self/ns/pid) ] && echo $$",
            |_| {},
        )
        .await;
    assert_eq!(text.trim(), "1");
    suite.remove(&[&other]).await;
}

async fn target_pid(suite: &mut Suite) {
    let target = suite.running(MARKED, |_| {}).await;
    let join = |config: &mut ContainerConfig, target: &str| {
        let options = options(config);
        options.pid = NamespaceMode::Target as i32;
        options.target_id = target.into();
    };
    let (code, text) = suite
        .script(SEES_IT, |config| join(config, &target[..12]))
        .await;
    assert_eq!(code, 0, "{text}");
    suite.remove(&[&target]).await;
    let status = suite.refused(|config| join(config, &target)).await;
    assert_eq!(status.code(), tonic::Code::NotFound, "{}", status.message());
}

async fn supplemental_groups(suite: &mut Suite) {
    let (_, text) = suite
        .script("id -G", |config| {
            security(config).supplemental_groups = vec![1234]
        })
        .await;
    assert!(text.split(' ').any(|group| group == "1234"), "{text}");
}

fn user(config: &mut ContainerConfig, uid: i64) {
    security(config).run_as_user = Some(Int64Value { value: uid });
}

async fn run_as_user(suite: &mut Suite) {
    let (_, text) = suite.script("id -u", |config| user(config, 1001)).await;
    assert_eq!(text, "1001");
}

async fn run_as_user_name(suite: &mut Suite) {
    let (_, text) = suite
        .script("id -u; id -g", |config| {
            security(config).run_as_username = "app".into()
        })
        .await;
    assert_eq!(text, "1000\n1000");
}

async fn run_as_group(suite: &mut Suite) {
    let (_, text) = suite
        .script("id -u; id -g", |config| {
            user(config, 1001);
            security(config).run_as_group = Some(Int64Value { value: 1002 });
        })
        .await;
    assert_eq!(text, "1001\n1002");
}

async fn group_without_user(suite: &mut Suite) {
    let status = suite
        .refused(|config| security(config).run_as_group = Some(Int64Value { value: 1002 }))
        .await;
    assert!(
        status.message().contains("run_as_group"),
        "{}",
        status.message()
    );
}

async fn writable_root(suite: &mut Suite) {
    let (code, _) = suite.script("echo x > /file && cat /file", |_| {}).await;
    assert_eq!(code, 0);
}

async fn read_only_root(suite: &mut Suite) {
    let (code, text) = suite
        .script("echo x > /file", |config| {
            security(config).readonly_rootfs = true
        })
        .await;
    assert!(code != 0 && text.contains("Read-only"), "{text}");
}

async fn privileged(suite: &mut Suite) {
    let script = "ip link add dummy7 type dummy && ip link del dummy7 || ip link set lo down && ip link set lo up";
    let (code, text) = suite
        .script(script, |config| security(config).privileged = true)
        .await;
    assert_eq!(code, 0, "{text}");
}

async fn not_privileged(suite: &mut Suite) {
    let (code, text) = suite.script("ip link set lo down", |_| {}).await;
    assert!(code != 0 && text.contains("not permitted"), "{text}");
}

const NET_ADMIN: &str = "ip link set lo down && ip link set lo up";

async fn adding_capability(suite: &mut Suite) {
    let (code, text) = suite
        .script(NET_ADMIN, |config| {
            capabilities(config, &["NET_ADMIN"], &[])
        })
        .await;
    assert_eq!(code, 0, "{text}");
}

async fn dropping_capability(suite: &mut Suite) {
    let script = "touch /file && chown 1000 /file";
    assert_eq!(suite.script(script, |_| {}).await.0, 0);
    let (code, text) = suite
        .script(script, |config| capabilities(config, &[], &["CHOWN"]))
        .await;
    assert!(code != 0 && text.contains("not permitted"), "{text}");
}

const EFFECTIVE: &str = "grep CapEff /proc/self/status | cut -f 2";

async fn adding_all(suite: &mut Suite) {
    let (_, text) = suite
        .script(EFFECTIVE, |config| capabilities(config, &["ALL"], &[]))
        .await;
    assert_eq!(text, "000001ffffffffff");
}

async fn dropping_all(suite: &mut Suite) {
    let (_, text) = suite
        .script(EFFECTIVE, |config| capabilities(config, &[], &["ALL"]))
        .await;
    assert_eq!(text, "0000000000000000");
}

async fn masked_paths(suite: &mut Suite) {
    let (_, text) = suite
        .script("cat /proc/version; ls /proc/sys | wc -l", |config| {
            security(config).masked_paths = vec!["/proc/version".into(), "/proc/sys".into()];
        })
        .await;
    assert_eq!(text, "0");
}

async fn read_only_paths(suite: &mut Suite) {
    let (code, text) = suite
        .script("mkdir /usr/local && echo made; touch /etc/new", |config| {
            security(config).readonly_paths = vec!["/etc".into()];
        })
        .await;
    assert!(code != 0 && text.contains("Read-only"), "{text}");
}

async fn groups(suite: &mut Suite, policy: SupplementalGroupsPolicy) -> String {
    let (_, text) = suite
        .script("id -G", |config| {
            user(config, 1000);
            let security = security(config);
            security.supplemental_groups = vec![1234];
            security.supplemental_groups_policy = policy as i32;
        })
        .await;
    text
}

async fn groups_merged(suite: &mut Suite) {
    // The image's user 1000 is in the group audio, 29.
    assert_eq!(
        groups(suite, SupplementalGroupsPolicy::Merge).await,
        "1000 29 1234"
    );
}

async fn groups_strict(suite: &mut Suite) {
    assert_eq!(
        groups(suite, SupplementalGroupsPolicy::Strict).await,
        "1000 1234"
    );
}

const SECCOMP_MODE: &str = "grep Seccomp: /proc/self/status | cut -f 2";

async fn seccomp_mode(suite: &mut Suite, change: impl FnOnce(&mut ContainerConfig)) -> String {
    suite.script(SECCOMP_MODE, change).await.1
}

async fn seccomp_unconfined(suite: &mut Suite) {
    let mode = seccomp_mode(suite, |config| seccomp(config, ProfileType::Unconfined, "")).await;
    assert_eq!(mode, "0");
}

async fn seccomp_nil(suite: &mut Suite) {
    assert_eq!(seccomp_mode(suite, |_| {}).await, "0");
}

async fn seccomp_default(suite: &mut Suite) {
    let default = |config: &mut ContainerConfig| seccomp(config, ProfileType::RuntimeDefault, "");
    assert_eq!(seccomp_mode(suite, default).await, "2");
    // The capability is not enough: the call is not in the profile without it, either.
    let (code, _) = suite.script("unshare -n true", default).await;
    assert_ne!(code, 0);
    // What installing the filter needed is not left to the container.
    let (_, text) = suite
        .script(EFFECTIVE, |config| {
            default(config);
            capabilities(config, &[], &["ALL"]);
        })
        .await;
    assert_eq!(text, "0000000000000000");
    // Execs are under it, too.
    let id = suite.running(FOREVER, default).await;
    assert_eq!(suite.exec(&id, SECCOMP_MODE).await, "2");
    suite.remove(&[&id]).await;
}

async fn seccomp_localhost(suite: &mut Suite) {
    let path = profile(suite, r#"["chmod", "fchmod", "fchmodat", "fchmodat2"]"#);
    let (code, text) = suite
        .script("touch /file && chmod 600 /file", |config| {
            seccomp(config, ProfileType::Localhost, &path);
        })
        .await;
    assert!(code != 0 && text.contains("not permitted"), "{text}");
    let status = suite
        .refused(|config| seccomp(config, ProfileType::Localhost, "/no/such/profile"))
        .await;
    assert!(
        status.message().contains("/no/such/profile"),
        "{}",
        status.message()
    );
}

/// A profile that refuses calls.
fn profile(suite: &Suite, calls: &str) -> String {
    let path = suite.node.path("profile.json");
    let text = format!(
        r#"{{"defaultAction": "SCMP_ACT_ALLOW",
             "syscalls": [{{"names": {calls}, "action": "SCMP_ACT_ERRNO"}}]}}"#
    );
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

const SET_HOSTNAME: &str = "hostname shared";

async fn hostname_unconfined(suite: &mut Suite) {
    let (code, text) = suite
        .script(SET_HOSTNAME, |config| {
            seccomp(config, ProfileType::Unconfined, "");
            capabilities(config, &["SYS_ADMIN"], &[]);
        })
        .await;
    assert_eq!(code, 0, "{text}");
}

async fn hostname_blocked(suite: &mut Suite) {
    let path = profile(suite, r#"["sethostname"]"#);
    let (code, text) = suite
        .script(SET_HOSTNAME, |config| {
            seccomp(config, ProfileType::Localhost, &path);
            capabilities(config, &["SYS_ADMIN"], &[]);
        })
        .await;
    assert!(code != 0 && text.contains("not permitted"), "{text}");
}

async fn hostname_privileged(suite: &mut Suite) {
    let path = profile(suite, r#"["sethostname"]"#);
    let (code, text) = suite
        .script(SET_HOSTNAME, |config| {
            seccomp(config, ProfileType::Localhost, &path);
            security(config).privileged = true;
        })
        .await;
    assert_eq!(code, 0, "{text}");
}

async fn no_new_privileges(suite: &mut Suite) {
    let flag = "grep NoNewPrivs /proc/self/status | cut -f 2";
    let (_, text) = suite
        .script(flag, |config| security(config).no_new_privs = true)
        .await;
    assert_eq!(text, "1");
}

async fn new_privileges(suite: &mut Suite) {
    let flag = "grep NoNewPrivs /proc/self/status | cut -f 2";
    assert_eq!(suite.script(flag, |_| {}).await.1, "0");
}

async fn user_namespaces(suite: &mut Suite) {
    let mapping = |container_id| IdMapping {
        host_id: 100_000,
        container_id,
        length: 65536,
    };
    for (mode, mappings, word) in [
        (NamespaceMode::Pod, vec![mapping(0)], "user namespaces"),
        (NamespaceMode::Pod, vec![mapping(0), mapping(1)], "one uid"),
        (NamespaceMode::Pod, vec![mapping(1)], "id 0"),
        (NamespaceMode::Container, vec![mapping(0)], "unsupported"),
        (NamespaceMode::Target, vec![mapping(0)], "unsupported"),
    ] {
        let mut config = suite.node.pod("user-namespace");
        let linux = config.linux.get_or_insert_default();
        let security = linux.security_context.get_or_insert_default();
        security
            .namespace_options
            .get_or_insert_default()
            .userns_options = Some(UserNamespace {
            mode: mode as i32,
            uids: mappings.clone(),
            gids: mappings,
        });
        let status = suite.run_pod(config).await.unwrap_err();
        assert!(
            status.message().contains(word),
            "{word}: {}",
            status.message()
        );
    }
}

async fn apparmor(suite: &mut Suite) {
    let status = suite
        .refused(|config| {
            security(config).apparmor = Some(SecurityProfile {
                profile_type: ProfileType::Localhost as i32,
                localhost_ref: "not-loaded".into(),
            });
        })
        .await;
    assert!(
        status.message().contains("AppArmor"),
        "{}",
        status.message()
    );
}

async fn disks_are_closed(suite: &mut Suite) {
    let script = "set -e; test -e /sys/class/block/vda/dev; \
                  IFS=: read major minor < /sys/class/block/vda/dev; \
                  mknod /disk b $major $minor; echo made; head -c 1 /disk";
    let (code, text) = suite.script(script, |_| {}).await;
    assert!(code != 0 && text.contains("made"), "{text}");
    assert!(text.contains("not permitted"), "{text}");
}
