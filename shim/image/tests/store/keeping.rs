//! What the store keeps: removal, leases, restarts, crashes.

use std::fs;

use hull_image::{ImageStore, OpenError, RemoveError};

use crate::support::image::{Compression, Image, Layer, small};
use crate::support::registry::Registry;
use crate::support::{assert_empty, config, store};

#[tokio::test]
async fn an_image_goes_with_its_last_name() {
    let registry = Registry::start();
    small().push(&registry, "library/a", "one").await;
    small().push(&registry, "library/a", "two").await;
    let root = tempfile::tempdir().unwrap();
    let store = store(root.path(), &registry.url());
    let image = store.pull("a:one", None).await.unwrap();
    store.pull("a:two", None).await.unwrap();

    store.remove("a:one").await.unwrap();
    assert!(store.get("a:one").is_none());
    assert!(image.erofs_path.exists());
    store.remove("a:two").await.unwrap();
    assert_empty(&store);
    store.remove("a:two").await.unwrap();
    store.remove(&image.id).await.unwrap();

    store.pull("a:one", None).await.unwrap();
    store.pull("a:two", None).await.unwrap();
    store.remove(&image.id).await.unwrap();
    assert_empty(&store);
}

#[tokio::test]
async fn an_image_in_use_is_not_removed() {
    let registry = Registry::start();
    small().push(&registry, "library/a", "latest").await;
    let root = tempfile::tempdir().unwrap();
    let store = store(root.path(), &registry.url());
    assert!(store.lease("a", "pod-1").is_none());
    let image = store.pull("a", None).await.unwrap();
    assert_eq!(store.lease("a", "pod-1").as_ref(), Some(&image));
    store.lease(&image.id, "pod-2").unwrap();

    for name in ["a", &image.id] {
        let error = store.remove(name).await.unwrap_err();
        assert!(
            matches!(&error, RemoveError::InUse { holders, .. } if *holders == ["pod-1", "pod-2"]),
            "{error}"
        );
    }
    assert_eq!(store.get("a").as_ref(), Some(&image));
    store.release("pod-1");
    store.release("pod-1");
    assert!(store.remove("a").await.is_err());
    store.release("pod-2");
    store.remove("a").await.unwrap();
    assert_empty(&store);
}

#[tokio::test]
async fn images_survive_a_restart() {
    let registry = Registry::start();
    small().push(&registry, "library/a", "latest").await;
    let root = tempfile::tempdir().unwrap();
    let first = store(root.path(), &registry.url());
    let image = first.pull("a", None).await.unwrap();
    let in_use = ImageStore::open(config(root.path(), &registry.url()))
        .err()
        .unwrap();
    assert!(matches!(in_use, OpenError::InUse { .. }), "{in_use}");
    drop(first);
    assert_eq!(store(root.path(), &registry.url()).list(), [image]);
}

#[tokio::test]
async fn what_a_crash_left_is_cleaned_up() {
    let registry = Registry::start();
    small().push(&registry, "library/a", "latest").await;
    let other = Image::new(vec![(Layer::new().file("b", b"b"), Compression::Gzip)]);
    other.push(&registry, "library/b", "latest").await;
    let root = tempfile::tempdir().unwrap();
    let first = store(root.path(), &registry.url());
    let kept = first.pull("a", None).await.unwrap();
    let cut = first.pull("b", None).await.unwrap();
    drop(first);
    // Renamed but not in the index, half converted, half written, and cut by a disk fault.
    fs::write(
        root.path()
            .join("erofs")
            .join(format!("{}.erofs", "0".repeat(64))),
        "x",
    )
    .unwrap();
    fs::write(root.path().join("spool/.tmp123"), "x").unwrap();
    fs::write(root.path().join("index.json.new"), "{").unwrap();
    fs::File::options()
        .write(true)
        .open(&cut.erofs_path)
        .unwrap()
        .set_len(100)
        .unwrap();

    let again = store(root.path(), &registry.url());

    assert_eq!(again.list(), std::slice::from_ref(&kept));
    assert_eq!(fs::read_dir(root.path().join("erofs")).unwrap().count(), 1);
    assert_eq!(fs::read_dir(root.path().join("spool")).unwrap().count(), 0);
    again.pull("b", None).await.unwrap();
    assert_eq!(again.list().len(), 2);
}

#[tokio::test]
async fn usage_counts_what_is_there() {
    let registry = Registry::start();
    let layer = Layer::new().file("data", &vec![1; 1 << 20]);
    Image::new(vec![(layer, Compression::Gzip)])
        .push(&registry, "library/a", "latest")
        .await;
    let root = tempfile::tempdir().unwrap();
    let store = store(root.path(), &registry.url());
    let before = store.usage().unwrap();
    let image = store.pull("a", None).await.unwrap();
    let after = store.usage().unwrap();
    assert!(after.bytes >= before.bytes + image.size_bytes);
    assert_eq!(after.inodes, before.inodes + 2);
    store.remove("a").await.unwrap();
    assert!(store.usage().unwrap().bytes < before.bytes + image.size_bytes);
}

#[tokio::test]
async fn a_pull_whose_caller_goes_away_leaves_nothing_half_done() {
    let registry = Registry::start();
    let layer = Layer::new().file("data", &vec![1; 8 << 20]);
    Image::new(vec![(layer, Compression::None)])
        .push(&registry, "library/a", "latest")
        .await;
    let root = tempfile::tempdir().unwrap();
    let store = store(root.path(), &registry.url());
    for milliseconds in [1, 5, 10, 20, 40] {
        let patience = std::time::Duration::from_millis(milliseconds);
        let _ = tokio::time::timeout(patience, store.pull("a", None)).await;
    }
    // Waits for whatever still converts, and finds a whole image either way.
    let image = store.pull("a", None).await.unwrap();
    assert_eq!(
        fs::metadata(&image.erofs_path).unwrap().len(),
        image.size_bytes
    );
    assert_eq!(fs::read_dir(root.path().join("spool")).unwrap().count(), 0);
}
