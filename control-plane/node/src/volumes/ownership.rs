//! Whom the files of a volume belong to: the pod's fsGroup, and the one user of a pod whose
//! containers all run as the same.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

use k8s_openapi::api::core::v1::Pod;

use super::atomic::Payload;

/// What fsGroup adds to the mode of a file that containers only read.
const GROUP_READS: u32 = 0o440;
/// What it adds to a directory that they write: read, write, enter, and new files get the group.
const GROUP_WRITES_DIRECTORY: u32 = 0o2770;
/// Mode of a token that belongs to one user or group.
const PRIVATE_TOKEN_MODE: u32 = 0o600;

/// The owner that a pod gives to its volumes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ownership {
    fs_group: Option<u32>,
}

impl Ownership {
    pub(super) fn of(pod: &Pod) -> Self {
        Ownership {
            fs_group: fs_group(pod),
        }
    }

    /// Files that the agent writes.
    pub(super) fn give_files(self, payload: &mut Payload) {
        let Some(group) = self.fs_group else { return };
        for file in payload.values_mut() {
            file.gid = Some(group);
            file.mode |= GROUP_READS;
        }
    }

    /// The directory that stands for an emptyDir: the guest's gets its group and bits.
    pub(super) fn give_directory(self, directory: &Path) -> std::io::Result<()> {
        let Some(group) = self.fs_group else {
            return Ok(());
        };
        let metadata = std::fs::metadata(directory)?;
        let mode = metadata.permissions().mode() & 0o7777;
        if metadata.gid() != group {
            chown(directory, None, Some(group))?;
        }
        // Changing the group may have cleared the set-group-id bit.
        let wanted = std::fs::Permissions::from_mode(mode | GROUP_WRITES_DIRECTORY);
        std::fs::set_permissions(directory, wanted)
    }
}

fn fs_group(pod: &Pod) -> Option<u32> {
    let security = pod.spec.as_ref()?.security_context.as_ref()?;
    u32::try_from(security.fs_group?).ok()
}

/// Owner and mode of a service account token: readable by nobody else where the pod has one user
/// or a group of its own, of mode `default` otherwise.
pub(super) fn of_token(pod: &Pod, default: u32) -> (Option<u32>, u32) {
    let user = only_user(pod);
    if user.is_some() || fs_group(pod).is_some() {
        return (user, PRIVATE_TOKEN_MODE);
    }
    (None, default)
}

/// The user that every container of the pod runs as, where it is one and written down.
fn only_user(pod: &Pod) -> Option<u32> {
    let spec = pod.spec.as_ref()?;
    let pod_user = spec.security_context.as_ref().and_then(|s| s.run_as_user);
    let containers = spec
        .containers
        .iter()
        .chain(spec.init_containers.iter().flatten());
    let mut users = containers.map(|container| {
        let own = container.security_context.as_ref();
        own.and_then(|security| security.run_as_user).or(pod_user)
    });
    let first = users.next()??;
    let same = users.all(|user| user == Some(first));
    same.then(|| u32::try_from(first).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volumes::atomic::{self, FileContent};
    use serde_json::{Value, json};

    fn pod(security: Value, containers: Value) -> Pod {
        serde_json::from_value(json!({"metadata": {},
            "spec": {"containers": containers, "securityContext": security}}))
        .unwrap()
    }

    #[test]
    fn tokens_belong_to_the_pods_only_user() {
        let own = |user: i64| json!({"name": "c", "securityContext": {"runAsUser": user}});
        for (security, containers, expected) in [
            (json!({}), json!([{"name": "c"}]), (None, 0o644)),
            (
                json!({"runAsUser": 7}),
                json!([{"name": "c"}]),
                (Some(7), 0o600),
            ),
            (
                json!({"runAsUser": 7}),
                json!([{"name": "c"}, own(8)]),
                (None, 0o644),
            ),
            (json!({}), json!([own(8), own(8)]), (Some(8), 0o600)),
            (json!({"fsGroup": 9}), json!([{"name": "c"}]), (None, 0o600)),
        ] {
            assert_eq!(of_token(&pod(security, containers), 0o644), expected);
        }
    }

    #[test]
    fn files_and_directories_get_the_fs_group() {
        let root = tempfile::tempdir().unwrap();
        let ownership = Ownership::of(&pod(json!({"fsGroup": 2000}), json!([])));
        let mut payload = Payload::new();
        payload.insert("t".into(), FileContent::new(b"x".to_vec(), 0o600));
        ownership.give_files(&mut payload);
        let volume = root.path().join("v");
        assert!(atomic::write(&volume, &payload).unwrap());
        assert!(
            !atomic::write(&volume, &payload).unwrap(),
            "nothing changed"
        );
        let file = std::fs::metadata(volume.join("t")).unwrap();
        assert_eq!((file.gid(), file.mode() & 0o7777), (2000, 0o640));
        let empty = root.path().join("empty");
        std::fs::create_dir(&empty).unwrap();
        ownership.give_directory(&empty).unwrap();
        let directory = std::fs::metadata(&empty).unwrap();
        assert_eq!(directory.gid(), 2000);
        assert_eq!(directory.mode() & 0o2070, 0o2070);
    }
}
