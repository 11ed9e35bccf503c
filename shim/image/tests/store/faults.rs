//! Images and registries that are wrong: a clear error, and nothing left behind.

use std::fs;

use hull_image::{PullCause, PullError, PullErrorKind};
use serde_json::json;
use tar::EntryType;

use crate::support::facts::run;
use crate::support::image::{Compression, Image, Layer, OCI_MANIFEST, compress, small};
use crate::support::registry::{Registry, digest, free_port};
use crate::support::{assert_empty, store};

/// Pushes the image, spoils what `spoil` says, and returns what its pull says.
async fn failing_pull(image: Image, spoil: impl FnOnce(&Registry, &Image)) -> PullError {
    let registry = Registry::start();
    image.push(&registry, "library/bad", "latest").await;
    spoil(&registry, &image);
    let root = tempfile::tempdir().unwrap();
    let store = store(root.path(), &registry.url());
    let error = store.pull("bad", None).await.unwrap_err();
    assert_empty(&store);
    let text = error.to_string();
    assert!(text.contains("docker.io/library/bad:latest"), "{text}");
    assert!(text.contains(&registry.url()), "{text}");
    error
}

fn flip_a_byte(registry: &Registry, digest: &str) {
    let path = registry.blob_file(digest);
    let mut content = fs::read(&path).unwrap();
    let middle = content.len() / 2;
    content[middle] ^= 1;
    fs::write(&path, content).unwrap();
}

#[tokio::test]
async fn an_image_that_does_not_exist() {
    let registry = Registry::start();
    small().push(&registry, "library/there", "latest").await;
    let root = tempfile::tempdir().unwrap();
    let store = store(root.path(), &registry.url());
    let missing_digest = format!("there@sha256:{}", "0".repeat(64));
    for reference in ["missing", "there:no-such-tag", &missing_digest] {
        let error = store.pull(reference, None).await.unwrap_err();
        assert_eq!(error.kind(), PullErrorKind::NotFound, "{error}");
        assert!(error.to_string().contains("not found"), "{error}");
        assert!(error.to_string().contains("MANIFEST_UNKNOWN"), "{error}");
    }
    let error = store.pull("no such reference", None).await.unwrap_err();
    assert_eq!(error.kind(), PullErrorKind::Invalid, "{error}");
    assert_empty(&store);
}

#[tokio::test]
async fn a_registry_that_is_down() {
    let root = tempfile::tempdir().unwrap();
    let store = store(root.path(), &format!("http://127.0.0.1:{}", free_port()));
    let error = store.pull("nginx", None).await.unwrap_err();
    assert_eq!(error.kind(), PullErrorKind::Unavailable);
    let text = error.to_string();
    assert!(text.contains("registry unavailable"), "{text}");
    assert!(text.contains("Connection refused"), "{text}");
    assert!(text.contains("docker.io/library/nginx:latest"), "{text}");
    assert_empty(&store);
}

#[tokio::test]
async fn a_layer_that_was_tampered_with() {
    let error = failing_pull(small(), |registry, image| {
        flip_a_byte(registry, &digest(&image.blobs[0]));
    })
    .await;
    assert!(
        matches!(&*error.cause, PullCause::DigestMismatch { what, .. } if what == "layer 0"),
        "{error}"
    );
}

#[tokio::test]
async fn a_layer_that_was_cut_short() {
    let layer = Layer::new().file("data", &[1; 100_000]);
    let image = Image::new(vec![(layer, Compression::None)]);
    let error = failing_pull(image, |registry, image| {
        let path = registry.blob_file(&digest(&image.blobs[0]));
        fs::File::options()
            .write(true)
            .open(path)
            .unwrap()
            .set_len(50_000)
            .unwrap();
    })
    .await;
    assert!(
        matches!(
            error.kind(),
            PullErrorKind::DigestMismatch | PullErrorKind::Unavailable
        ),
        "{error}"
    );
}

#[tokio::test]
async fn a_layer_that_is_missing() {
    let error = failing_pull(small(), |registry, image| {
        fs::remove_file(registry.blob_file(&digest(&image.blobs[0]))).unwrap();
    })
    .await;
    assert_eq!(error.kind(), PullErrorKind::NotFound, "{error}");
}

#[tokio::test]
async fn a_configuration_that_was_tampered_with() {
    let error = failing_pull(small(), |registry, image| {
        flip_a_byte(registry, &image.id())
    })
    .await;
    assert!(
        matches!(&*error.cause, PullCause::DigestMismatch { what, .. } if what == "config"),
        "{error}"
    );
}

#[tokio::test]
async fn a_layer_that_is_not_the_one_of_the_configuration() {
    let archive = Layer::new().file("x", b"y").archive();
    let blob = compress(&archive, Compression::Gzip);
    let config = json!({
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [digest(b"something else")]},
    });
    let descriptor = json!({
        "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
        "digest": digest(&blob),
        "size": blob.len(),
    });
    let image = Image::assemble(config.to_string(), vec![blob], vec![descriptor]);
    let error = failing_pull(image, |_, _| {}).await;
    assert!(
        error.to_string().contains("layer 0 uncompressed (diff_id)"),
        "{error}"
    );
}

#[tokio::test]
async fn layers_that_climb_out() {
    for (layer, path) in [
        (
            Layer::new().file("../../../tmp/hull-escaped", b"x"),
            "../../../tmp/hull-escaped",
        ),
        (
            Layer::new().file("a/../../hull-escaped", b"x"),
            "a/../../hull-escaped",
        ),
        (
            Layer::new().entry(EntryType::Link, "shadow", "/etc/shadow", b""),
            "/etc/shadow",
        ),
        (
            Layer::new().entry(EntryType::Link, "shadow", "../etc/shadow", b""),
            "../etc/shadow",
        ),
    ] {
        let first = Layer::new().file("fine", b"x");
        let image = Image::new(vec![(first, Compression::Gzip), (layer, Compression::Gzip)]);
        let error = failing_pull(image, |_, _| {}).await;
        let text = error.to_string();
        assert!(
            text.contains(&format!("unsafe path in layer 1: {path}")),
            "{text}"
        );
    }
    assert!(!std::path::Path::new("/tmp/hull-escaped").exists());
}

#[tokio::test]
async fn a_layer_that_is_no_archive() {
    let blob = vec![b'x'; 2000];
    let config = json!({
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [digest(&blob)]},
    });
    let descriptor = json!({
        "mediaType": "application/vnd.oci.image.layer.v1.tar",
        "digest": digest(&blob),
        "size": blob.len(),
    });
    let image = Image::assemble(config.to_string(), vec![blob], vec![descriptor]);
    let error = failing_pull(image, |_, _| {}).await;
    assert!(error.to_string().contains("invalid layer 0"), "{error}");
}

#[tokio::test]
async fn an_artifact_that_is_no_image() {
    let registry = Registry::start();
    let config = registry.push_blob("library/chart", b"{}").await;
    let blob = registry.push_blob("library/chart", b"chart").await;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": "application/vnd.cncf.helm.config.v1+json", "digest": config, "size": 2},
        "layers": [{"mediaType": "application/vnd.cncf.helm.chart.content.v1.tar+gzip", "digest": blob, "size": 5}],
    });
    registry
        .push_manifest(
            "library/chart",
            "latest",
            OCI_MANIFEST,
            &manifest.to_string(),
        )
        .await;
    let root = tempfile::tempdir().unwrap();
    let store = store(root.path(), &registry.url());
    let error = store.pull("chart", None).await.unwrap_err();
    assert!(
        matches!(&*error.cause, PullCause::Unsupported(what) if what.contains("helm")),
        "{error}"
    );
    assert_empty(&store);
}

/// A tmpfs of a few MiB, gone with the value.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn new(size: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let options = format!("size={size}");
        let path = directory.path().as_os_str();
        run(
            "mount",
            &[
                "-t".as_ref(),
                "tmpfs".as_ref(),
                "-o".as_ref(),
                options.as_ref(),
                "none".as_ref(),
                path,
            ],
        );
        Self(directory)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        run("umount", &[self.0.path().as_ref()]);
    }
}

#[tokio::test]
async fn a_full_disk() {
    let registry = Registry::start();
    let large = Layer::new().file("zeros", &vec![0; 6 << 20]);
    Image::new(vec![(large, Compression::Gzip)])
        .push(&registry, "library/large", "latest")
        .await;
    small().push(&registry, "library/small", "latest").await;
    // The spool fits neither of the two, or the spool fits and the image file beside it does not.
    for size in ["4m", "9m"] {
        let disk = SmallDisk::new(size);
        let store = store(disk.0.path(), &registry.url());
        let error = store.pull("large", None).await.unwrap_err();
        assert!(
            matches!(&*error.cause, PullCause::DiskFull { .. }),
            "{error}"
        );
        assert_eq!(error.kind(), PullErrorKind::ResourceExhausted);
        assert_empty(&store);
        // What was freed is enough for an image that fits.
        store.pull("small", None).await.unwrap();
        drop(store);
    }
}
