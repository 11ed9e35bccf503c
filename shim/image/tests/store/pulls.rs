//! Pulls that succeed.

use std::fs;
use std::path::Path;

use serde_json::json;
use tar::EntryType;

use crate::support::facts::{Mounted, assert_same_tree, run};
use crate::support::image::{Compression, Image, Layer, OCI_INDEX, OCI_MANIFEST, small};
use crate::support::registry::Registry;
use crate::support::store;

/// Unpacks archives over each other, as they are, with GNU tar.
fn unpack(archives: &[&[u8]], target: &Path) {
    for archive in archives {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), archive).unwrap();
        let options = ["--numeric-owner", "-p", "-x", "-f"].map(AsRef::as_ref);
        let places = [file.path().as_os_str(), "-C".as_ref(), target.as_os_str()];
        run("tar", &[&options[..], &places[..]].concat());
    }
}

fn base() -> Layer {
    Layer::new()
        .entry(EntryType::Directory, "./", "", b"")
        .entry(EntryType::Directory, "etc", "", b"")
        .file(
            "etc/passwd",
            b"root:x:0:0::/root:/bin/sh\nweb:x:33:33::/:/bin/false\n",
        )
        .file("etc/group", b"root:x:0:\nweb:x:33:\n")
        .file("etc/old", b"old")
        .entry(EntryType::Directory, "usr", "", b"")
        .entry(EntryType::Directory, "usr/bin", "", b"")
        .entry(EntryType::Symlink, "bin", "usr/bin", b"")
        .file("usr/bin/tool", &[b't'; 10_000])
        .entry(EntryType::Link, "usr/bin/tool2", "usr/bin/tool", b"")
}

#[tokio::test]
async fn layers_of_every_compression_become_one_filesystem() {
    let registry = Registry::start();
    let middle = || {
        Layer::new()
            .file("etc/.wh.old", b"")
            .file("etc/new", b"new")
    };
    // A directory's own entry comes last, since GNU tar would change its time with later files.
    let top = || {
        Layer::new()
            .file("usr/bin/tool", b"replaced")
            .entry(EntryType::Directory, "usr/bin", "", b"")
            .entry(EntryType::Directory, "etc", "", b"")
    };
    let image = Image::with_config(
        vec![
            (base(), Compression::Gzip),
            (middle(), Compression::Zstd),
            (top(), Compression::None),
        ],
        json!({
            "Entrypoint": ["/usr/bin/tool"],
            "Cmd": ["-v"],
            "Env": ["A=b"],
            "User": "web",
            "WorkingDir": "/etc",
            "StopSignal": "SIGQUIT",
            "ExposedPorts": {"80/tcp": {}, "443/tcp": {}},
            "Labels": {"k": "v"},
        }),
        "amd64",
    );
    let digest = image.push(&registry, "library/tool", "latest").await;
    let root = tempfile::tempdir().unwrap();
    let store = store(root.path(), &registry.url());

    let pulled = store.pull("tool", None).await.unwrap();

    assert_eq!(pulled.id, image.id());
    assert_eq!(pulled.repo_tags, ["docker.io/library/tool:latest"]);
    assert_eq!(
        pulled.repo_digests,
        [format!("docker.io/library/tool@{digest}")]
    );
    assert_eq!(pulled.config.entrypoint, ["/usr/bin/tool"]);
    assert_eq!(pulled.config.cmd, ["-v"]);
    assert_eq!(pulled.config.user, "web");
    assert_eq!(pulled.config.working_dir, "/etc");
    assert_eq!(pulled.config.stop_signal.as_deref(), Some("SIGQUIT"));
    assert_eq!(pulled.config.exposed_ports, ["443/tcp", "80/tcp"]);
    assert_eq!(pulled.config.labels["k"], "v");
    assert!(pulled.passwd.as_deref().unwrap().contains("web:x:33"));
    assert!(pulled.group.as_deref().unwrap().starts_with("root:x:0"));
    assert_eq!(
        pulled.size_bytes,
        fs::metadata(&pulled.erofs_path).unwrap().len()
    );
    run("fsck.erofs", &[pulled.erofs_path.as_ref()]);
    let expected = tempfile::tempdir().unwrap();
    unpack(
        &[&base().archive(), &middle().archive(), &top().archive()],
        expected.path(),
    );
    fs::remove_file(expected.path().join("etc/.wh.old")).unwrap();
    fs::remove_file(expected.path().join("etc/old")).unwrap();
    unpack(
        &[&Layer::new()
            .entry(EntryType::Directory, "etc", "", b"")
            .archive()],
        expected.path(),
    );
    let base_root = Layer::new()
        .entry(EntryType::Directory, "./", "", b"")
        .archive();
    unpack(&[&base_root], expected.path());
    assert_same_tree(Mounted::new(&pulled.erofs_path).path(), expected.path());
}

#[tokio::test]
async fn a_digest_and_two_tags_share_one_image() {
    let registry = Registry::start();
    let image = small();
    let digest = image.push(&registry, "library/small", "one").await;
    image.push(&registry, "library/small", "two").await;
    image.push(&registry, "team/copy", "v1").await;
    let root = tempfile::tempdir().unwrap();
    let store = store(root.path(), &registry.url());
    let by_digest = format!("docker.io/library/small@{digest}");

    for reference in ["small:one", "small:two", "team/copy:v1", &by_digest] {
        assert_eq!(store.pull(reference, None).await.unwrap().id, image.id());
    }

    let [only] = store.list().try_into().unwrap();
    assert_eq!(
        only.repo_tags,
        [
            "docker.io/library/small:one",
            "docker.io/library/small:two",
            "docker.io/team/copy:v1"
        ]
    );
    assert_eq!(
        only.repo_digests,
        [by_digest.clone(), format!("docker.io/team/copy@{digest}")]
    );
    assert_eq!(fs::read_dir(root.path().join("erofs")).unwrap().count(), 1);
    let hex = only.id.strip_prefix("sha256:").unwrap();
    for name in [
        "small:two",
        "docker.io/team/copy:v1",
        &by_digest,
        &only.id,
        hex,
        &hex[..12],
    ] {
        assert_eq!(store.get(name).as_ref(), Some(&only), "{name}");
    }
    assert_eq!(store.get("small"), None);
}

#[tokio::test]
async fn an_index_gives_this_machines_image() {
    let registry = Registry::start();
    let arm = Image::with_config(vec![], json!({}), "arm64");
    let amd = small();
    let entry = |image: &Image, digest: &str, architecture: &str| {
        json!({
            "mediaType": OCI_MANIFEST,
            "digest": digest,
            "size": image.manifest.len(),
            "platform": {"os": "linux", "architecture": architecture},
        })
    };
    let arm_digest = arm.push(&registry, "library/multi", "arm").await;
    let amd_digest = amd.push(&registry, "library/multi", "amd").await;
    let manifests = [
        entry(&arm, &arm_digest, "arm64"),
        entry(&amd, &amd_digest, "amd64"),
    ];
    let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests});
    let index_digest = registry
        .push_manifest("library/multi", "latest", OCI_INDEX, &index.to_string())
        .await;
    let root = tempfile::tempdir().unwrap();
    let store = store(root.path(), &registry.url());

    let pulled = store.pull("multi", None).await.unwrap();

    assert_eq!(pulled.id, amd.id());
    assert_eq!(
        pulled.repo_digests,
        [format!("docker.io/library/multi@{index_digest}")]
    );
    let error = store.pull("multi:arm", None).await.unwrap_err().to_string();
    assert!(
        error.contains("no matching platform: wanted linux/amd64, image has linux/arm64"),
        "{error}"
    );
}

#[tokio::test]
async fn a_tag_that_moved_names_the_new_image() {
    let registry = Registry::start();
    let (old, new) = (small(), Image::new(vec![(base(), Compression::Zstd)]));
    let root = tempfile::tempdir().unwrap();
    let store = store(root.path(), &registry.url());
    old.push(&registry, "library/app", "latest").await;
    store.pull("app", None).await.unwrap();
    new.push(&registry, "library/app", "latest").await;

    assert_eq!(store.pull("app", None).await.unwrap().id, new.id());

    assert_eq!(store.get("app").unwrap().id, new.id());
    let left_over = store.get(&old.id()).unwrap();
    assert!(left_over.repo_tags.is_empty());
    assert_eq!(left_over.repo_digests.len(), 1);
}

#[tokio::test]
async fn skopeo_made_docker_images_are_pulled() {
    let registry = Registry::start();
    small().push(&registry, "library/source", "latest").await;
    let from = format!(
        "docker://127.0.0.1:{}/library/source:latest",
        registry.port()
    );
    let to = format!(
        "docker://127.0.0.1:{}/library/docker:latest",
        registry.port()
    );
    let options = [
        "copy",
        "--insecure-policy",
        "--src-tls-verify=false",
        "--dest-tls-verify=false",
        "--format",
        "v2s2",
    ];
    let arguments: Vec<_> = options
        .iter()
        .copied()
        .chain([&*from, &*to])
        .map(AsRef::as_ref)
        .collect();
    run("skopeo", &arguments);
    let root = tempfile::tempdir().unwrap();
    let store = store(root.path(), &registry.url());

    let pulled = store.pull("docker", None).await.unwrap();

    let mounted = Mounted::new(&pulled.erofs_path);
    assert_eq!(
        fs::read_to_string(mounted.path().join("etc/motd")).unwrap(),
        "hello"
    );
}
