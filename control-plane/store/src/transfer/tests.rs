mod live;

use std::sync::Arc;

use bytes::Bytes;
use hull_test_etcd::EtcdProcess;

use super::*;
use crate::{Store, Write, embedded::EmbeddedStore, etcd::tests::store_in};

fn embedded() -> (EmbeddedStore, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(folder.path().join("db")).unwrap();
    (store, folder)
}

fn silent() -> impl FnMut(Progress) + Send {
    |_| {}
}

async fn put(store: &dyn Store, key: &str, value: impl Into<Bytes>) {
    let writes = vec![Write::Put(key.to_owned(), value.into())];
    store.txn(Vec::new(), writes).await.unwrap();
}

/// Small and large values, more keys than a page and a batch have.
async fn fill(store: &dyn Store) -> u64 {
    for chunk in 0..21 {
        let writes = (0..60)
            .map(|n| Write::Put(format!("/k/{chunk:02}/{n:02}"), Bytes::from(vec![n; 100])))
            .collect();
        store.txn(Vec::new(), writes).await.unwrap();
    }
    put(store, "/large", vec![7; 1_400_000]).await;
    put(store, "/empty", Bytes::new()).await;
    21 * 60 + 2
}

#[tokio::test]
async fn every_key_moves_to_etcd_and_back() {
    let (source, _folder) = embedded();
    let keys = fill(&source).await;
    let etcd = EtcdProcess::single().await;
    let between = store_in(&etcd).await;
    let mut steps = Vec::new();
    let moved = copy(&source, &between, &mut |progress| steps.push(progress))
        .await
        .unwrap();
    assert_eq!(moved.keys, keys);
    for step in [Step::Copy, Step::Verify] {
        let last = steps
            .iter()
            .rfind(|progress| progress.step == step)
            .unwrap();
        assert_eq!((last.done, last.total), (keys, keys));
    }

    let folder = tempfile::tempdir().unwrap();
    let back = EmbeddedStore::create_after(folder.path().join("db"), moved.revision).unwrap();
    let returned = copy(&between, &back, &mut silent()).await.unwrap();
    assert_eq!((returned.keys, returned.bytes), (keys, moved.bytes));
    assert_eq!(verify(&source, &back, &mut silent()).await.unwrap(), keys);
    assert!(back.revision().await.unwrap() > source.revision().await.unwrap());
}

#[tokio::test]
async fn a_target_with_keys_is_refused_until_it_is_cleared() {
    let (source, _a) = embedded();
    let (target, _b) = embedded();
    fill(&source).await;
    fill(&target).await;
    put(&target, "/zz", "x").await;
    let refused = copy(&source, &target, &mut silent()).await.unwrap_err();
    assert!(
        matches!(refused, TransferError::NotEmpty(1263)),
        "{refused}"
    );
    assert_eq!(clear(&target, &mut silent()).await.unwrap(), 1263);
    copy(&source, &target, &mut silent()).await.unwrap();
}

#[tokio::test]
async fn differences_are_found_and_named() {
    for (key, value, difference) in [
        ("/k/20/59", Some("other"), "another one"),
        ("/k/20/58", None, "does not have it"),
        ("/zzz", Some("x"), "the source does not have it"),
        ("/a", Some("x"), "has a key before it"),
    ] {
        let (left, _a) = embedded();
        let (right, _b) = embedded();
        fill(&left).await;
        fill(&right).await;
        match value {
            Some(value) => put(&right, key, value).await,
            None => {
                let writes = vec![Write::Delete(key.to_owned())];
                right.txn(Vec::new(), writes).await.unwrap();
            }
        }
        let error = verify(&left, &right, &mut silent())
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains("differs"), "{key}: {error}");
        assert!(
            error.contains(difference) || key == "/k/20/58",
            "{key}: {error}"
        );
    }
}

#[tokio::test]
async fn a_source_that_changes_meanwhile_is_told() {
    let (source, _a) = embedded();
    let (target, _b) = embedded();
    fill(&source).await;
    let source = Arc::new(source);
    let writer = source.clone();
    let mut wrote = false;
    let result = copy(source.as_ref(), &target, &mut move |_| {
        if !wrote {
            wrote = true;
            let writer = writer.clone();
            let write = async move { put(writer.as_ref(), "/a", "late").await };
            std::thread::spawn(move || futures::executor::block_on(write))
                .join()
                .unwrap();
        }
    })
    .await;
    assert!(
        matches!(
            result,
            Err(TransferError::SourceChanged { .. } | TransferError::Differs { .. })
        ),
        "{result:?}"
    );
}

#[tokio::test]
async fn a_backup_restores_every_key() {
    let (source, folder) = embedded();
    let keys = fill(&source).await;
    let path = folder.path().join("backup");
    let written = back_up(&source, &path, &mut silent()).await.unwrap();
    assert_eq!(written.keys, keys);
    let mode = std::os::unix::fs::PermissionsExt::mode(&path.metadata().unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let again = back_up(&source, &path, &mut silent()).await;
    assert!(
        matches!(again, Err(TransferError::File { .. })),
        "never overwritten"
    );

    let backup = Backup::open(&path).unwrap();
    assert_eq!(
        (backup.keys, backup.revision),
        (keys, source.revision().await.unwrap())
    );
    let etcd = EtcdProcess::single().await;
    let target = store_in(&etcd).await;
    let restored = restore(&backup, &target, &mut silent()).await.unwrap();
    assert_eq!(restored, written);
    assert_eq!(verify(&source, &target, &mut silent()).await.unwrap(), keys);
}

#[tokio::test]
async fn a_damaged_backup_is_refused() {
    let (source, folder) = embedded();
    for n in 0..50 {
        put(&source, &format!("/k/{n}"), vec![n; 40]).await;
    }
    let path = folder.path().join("backup");
    back_up(&source, &path, &mut silent()).await.unwrap();
    let whole = std::fs::read(&path).unwrap();
    let opened = |content: &[u8]| {
        std::fs::write(&path, content).unwrap();
        Backup::open(&path)
    };
    assert!(opened(&whole).is_ok());
    for cut in [
        0,
        5,
        25,
        40,
        whole.len() / 2,
        whole.len() - 33,
        whole.len() - 1,
    ] {
        let error = opened(&whole[..cut]).unwrap_err();
        assert!(
            matches!(error, TransferError::Damaged { .. }),
            "cut at {cut}: {error}"
        );
    }
    for at in (0..whole.len()).step_by(13) {
        let mut changed = whole.clone();
        changed[at] ^= 0x41;
        assert!(opened(&changed).is_err(), "byte {at} changed");
    }
    let longer = [&whole[..], b"x"].concat();
    assert!(
        opened(&longer)
            .unwrap_err()
            .to_string()
            .contains("more after its end")
    );
}
