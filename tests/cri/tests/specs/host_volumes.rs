//! Directories and files of the host.

use crate::specs;
use crate::suite::Suite;
use hull_cri_api::v1::*;
use std::path::{Path, PathBuf};

specs! {
    "Container: runtime should support starting container with volume of the host" => directory,
    "Container: runtime should support starting container with volume when host path is a symlink" => symlink,
    "Container: runtime should support starting container with volume when host path doesn't exist" => missing,
    "Container Mount Readonly: a read-only host path cannot be changed" => read_only,
    "Container Mount Propagation: mounts of host paths with 'rslave' and 'rshared' are refused by name" => propagation,
    "a socket of the host is refused by its kind" => socket,
}

fn place(suite: &Suite, name: &str) -> PathBuf {
    let path = suite.node.path("host-volumes").join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    path
}

fn mount(host: &Path) -> Mount {
    Mount {
        container_path: "/volume".into(),
        host_path: host.display().to_string(),
        ..Default::default()
    }
}

/// A directory with a file in it.
fn filled(suite: &Suite, name: &str) -> PathBuf {
    let path = place(suite, name);
    std::fs::create_dir(&path).unwrap();
    std::fs::write(path.join("key"), "value\n").unwrap();
    path
}

async fn directory(suite: &mut Suite) {
    let path = filled(suite, "directory");
    let (code, text) = suite
        .script("cat /volume/key; echo made > /volume/new", |config| {
            config.mounts = vec![mount(&path)]
        })
        .await;
    assert_eq!((code, text.as_str()), (0, "value"));
    assert_eq!(std::fs::read_to_string(path.join("new")).unwrap(), "made\n");
}

async fn symlink(suite: &mut Suite) {
    let path = filled(suite, "target");
    let link = place(suite, "link");
    std::os::unix::fs::symlink(path, &link).unwrap();
    let (code, text) = suite
        .script("cat /volume/key", |config| {
            config.mounts = vec![mount(&link)]
        })
        .await;
    assert_eq!((code, text.as_str()), (0, "value"));
}

async fn missing(suite: &mut Suite) {
    let path = place(suite, "missing/directory");
    let (code, _) = suite
        .script("touch /volume/new", |config| {
            config.mounts = vec![mount(&path)]
        })
        .await;
    assert_eq!(code, 0);
    assert!(path.join("new").exists());
}

async fn read_only(suite: &mut Suite) {
    let path = filled(suite, "read-only");
    for recursive_read_only in [false, true] {
        let (code, text) = suite
            .script("cat /volume/key && rm /volume/key", |config| {
                config.mounts = vec![Mount {
                    readonly: true,
                    recursive_read_only,
                    ..mount(&path)
                }];
            })
            .await;
        assert!(code != 0 && text.contains("Read-only"), "{text}");
    }
    assert!(path.join("key").exists());
}

async fn propagation(suite: &mut Suite) {
    use MountPropagation::*;
    let path = filled(suite, "shared");
    for propagation in [PropagationHostToContainer, PropagationBidirectional] {
        let status = suite
            .refused(|config| {
                config.mounts = vec![Mount {
                    propagation: propagation as i32,
                    ..mount(&path)
                }];
            })
            .await;
        assert!(status.message().contains("native"), "{}", status.message());
    }
}

async fn socket(suite: &mut Suite) {
    let path = place(suite, "socket");
    let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let status = suite
        .refused(|config| config.mounts = vec![mount(&path)])
        .await;
    assert!(status.message().contains("socket"), "{}", status.message());
}
