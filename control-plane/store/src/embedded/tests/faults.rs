//! Disks that fail.

use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::*;

/// A file system of a given size. Needs root, as the whole suite does.
struct TinyDisk {
    folder: tempfile::TempDir,
}

impl TinyDisk {
    fn new(bytes: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = format!("size={bytes}");
        mount(
            Some("tmpfs"),
            folder.path(),
            Some("tmpfs"),
            MsFlags::empty(),
            Some(options.as_str()),
        )
        .unwrap();
        TinyDisk { folder }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for TinyDisk {
    fn drop(&mut self) {
        let _ = umount2(self.folder.path(), MntFlags::MNT_DETACH);
    }
}

const SIZE: usize = 16 << 20;
const BALLAST: usize = 6 << 20;

async fn try_put(store: &EmbeddedStore, key: &str) -> Result<TxnOutcome, StoreError> {
    let value = Bytes::from(vec![b'x'; 64 << 10]);
    store
        .txn(
            vec![Condition::Absent(key.to_owned())],
            vec![Write::Put(key.to_owned(), value)],
        )
        .await
}

/// Writes until the disk is full; gives the keys that are there and the error.
async fn fill(store: &EmbeddedStore) -> (Vec<String>, StoreError) {
    let mut keys = Vec::new();
    for n in 0..SIZE >> 16 {
        let key = format!("/k/{n:04}");
        match try_put(store, &key).await {
            Ok(_) => keys.push(key),
            Err(error) => return (keys, error),
        }
    }
    panic!("the disk does not fill up");
}

#[tokio::test]
async fn a_full_disk_refuses_writes_and_keeps_reading_until_space_returns() {
    let disk = TinyDisk::new(SIZE);
    let ballast = disk.path().join("ballast");
    std::fs::write(&ballast, vec![1; BALLAST]).unwrap();
    let file = disk.path().join("hull.db");
    let store = EmbeddedStore::open(&file).unwrap();
    let mut watch = store.watch(prefix_range("/k/"), None).await.unwrap();
    let (mut keys, error) = fill(&store).await;
    assert!(error.is_out_of_space(), "{error}");
    assert!(
        error.to_string().contains("No space left on device"),
        "{error}"
    );

    for _ in 0..3 {
        assert!(try_put(&store, "/k/refused").await.is_err());
    }
    let page = store.list(prefix_range("/k/"), None, 0).await.unwrap();
    assert_eq!(page.items.len(), keys.len(), "reads go on");
    for _ in &keys {
        watch.next().await.unwrap().unwrap();
    }

    std::fs::remove_file(&ballast).unwrap();
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    while try_put(&store, "/k/after").await.is_err() {
        assert!(std::time::Instant::now() < deadline, "does not recover");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    keys.push("/k/after".into());
    let revision = store.revision().await.unwrap();
    // A write that failed may have happened after all, as after a time-out.
    let now: Vec<_> = store
        .list(prefix_range("/k/"), None, 0)
        .await
        .unwrap()
        .items
        .into_iter()
        .map(|item| item.key)
        .collect();
    assert!(keys.iter().all(|key| now.contains(key)));
    assert_eq!(now.len() as u64, revision, "one key per revision");

    drop(store);
    let store = EmbeddedStore::open(&file).unwrap();
    assert_eq!(store.revision().await.unwrap(), revision);
    assert_eq!(store.count(prefix_range("/k/")).await.unwrap(), revision);
}

#[tokio::test]
async fn a_store_that_filled_its_disk_opens_again() {
    let disk = TinyDisk::new(SIZE);
    let file = disk.path().join("hull.db");
    let store = EmbeddedStore::open(&file).unwrap();
    let (keys, _) = fill(&store).await;
    drop(store);
    let store = EmbeddedStore::open(&file).unwrap();
    let stored = store.list(prefix_range("/k/"), None, 0).await.unwrap();
    assert!(stored.items.len() >= keys.len());
}

#[tokio::test]
async fn what_is_not_a_store_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("letter.txt");
    let text = "Dear reader, this is not a database.".repeat(1000);
    std::fs::write(&file, &text).unwrap();
    let error = EmbeddedStore::open(&file).err().unwrap();
    assert!(matches!(error, StoreError::Io { .. }), "{error}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
    assert!(matches!(
        EmbeddedStore::open(folder.path()).err(),
        Some(StoreError::Io { .. })
    ));
}
