use bytes::Bytes;
use futures::StreamExt;

use super::*;
use crate::{WatchEvent, prefix_range};

mod durability;
mod faults;
mod syncs;

async fn fresh() -> (Arc<dyn Store>, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(folder.path().join("hull.db")).unwrap();
    (Arc::new(store), folder)
}

mod conformance {
    crate::store_conformance_tests!(super::fresh);
}

async fn put(store: &EmbeddedStore, key: &str, value: impl Into<Bytes>) -> Revision {
    let writes = vec![Write::Put(key.to_owned(), value.into())];
    match store.txn(Vec::new(), writes).await.unwrap() {
        TxnOutcome::Committed(revision) => revision,
        conflict @ TxnOutcome::Conflict { .. } => panic!("{conflict:?}"),
    }
}

fn retained(store: &EmbeddedStore) -> (usize, usize, usize) {
    store.shared.state.read().index.retained()
}

#[tokio::test]
async fn history_is_bounded_by_number_and_bytes() {
    for (retention, most) in [
        (
            Retention {
                max_changes: 50,
                ..Retention::default()
            },
            50,
        ),
        (
            Retention {
                max_bytes: 10_000,
                ..Retention::default()
            },
            10,
        ),
        (
            Retention {
                max_age: Duration::ZERO,
                ..Retention::default()
            },
            1,
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let store = EmbeddedStore::open_with(folder.path().join("db"), retention).unwrap();
        for n in 0..500 {
            put(&store, &format!("/k/{}", n % 5), vec![7; 1000]).await;
        }
        let (changes, bytes, versions) = retained(&store);
        assert!(changes <= most, "{changes} changes, at most {most}");
        assert!(bytes <= changes * 1010);
        assert!(versions <= changes + 5, "{versions} versions of 5 keys");
        assert_eq!(
            store
                .list(prefix_range("/k/"), None, 0)
                .await
                .unwrap()
                .items
                .len(),
            5
        );
    }
}

#[tokio::test]
async fn deleted_keys_leave_nothing_behind_once_compacted() {
    let folder = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(folder.path().join("db")).unwrap();
    for n in 0..100 {
        put(&store, &format!("/k/{n}"), "x").await;
        store
            .txn(Vec::new(), vec![Write::Delete(format!("/k/{n}"))])
            .await
            .unwrap();
    }
    store.compact(200).await.unwrap();
    assert_eq!(retained(&store), (0, 0, 0));
}

#[tokio::test]
async fn a_slow_watcher_is_told_and_never_blocks_the_writer() {
    let folder = tempfile::tempdir().unwrap();
    let retention = Retention {
        max_changes: 10,
        ..Retention::default()
    };
    let store = EmbeddedStore::open_with(folder.path().join("db"), retention).unwrap();
    let mut slow = store.watch(prefix_range("/k/"), None).await.unwrap();
    for n in 0..100 {
        put(&store, "/k/a", n.to_string()).await;
    }
    match slow.next().await {
        Some(Err(StoreError::Compacted {
            asked: 0,
            oldest: 90,
        })) => {}
        other => panic!("expected Compacted, got {other:?}"),
    }
    assert!(slow.next().await.is_none(), "the stream has ended");
}

#[tokio::test]
async fn an_idle_watcher_does_not_fall_behind_others_changes() {
    let folder = tempfile::tempdir().unwrap();
    let retention = Retention {
        max_changes: 10,
        ..Retention::default()
    };
    let store = EmbeddedStore::open_with(folder.path().join("db"), retention).unwrap();
    let mut idle = store.watch(prefix_range("/idle/"), None).await.unwrap();
    for n in 0..100 {
        put(&store, "/busy/a", n.to_string()).await;
    }
    let revision = put(&store, "/idle/a", "x").await;
    assert_eq!(idle.next().await.unwrap().unwrap().revision(), revision);
}

#[tokio::test]
async fn many_queued_transactions_share_commits_and_keep_their_own_revisions() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(EmbeddedStore::open(folder.path().join("db")).unwrap());
    let mut watch = store.watch(prefix_range("/k/"), None).await.unwrap();
    let writes = (0..2000).map(|n| {
        let store = store.clone();
        async move { put(&store, &format!("/k/{n}"), "x").await }
    });
    let start = std::time::Instant::now();
    let mut revisions = futures::future::join_all(writes).await;
    println!(
        "{:.0} transactions/s",
        2000.0 / start.elapsed().as_secs_f64()
    );
    revisions.sort_unstable();
    assert!(
        revisions.into_iter().eq(1..=2000),
        "each has its own, without gaps"
    );
    for expected in 1..=2000 {
        assert_eq!(watch.next().await.unwrap().unwrap().revision(), expected);
    }
}

#[tokio::test]
async fn dropped_watches_are_forgotten() {
    let (store, _folder) = {
        let folder = tempfile::tempdir().unwrap();
        (
            EmbeddedStore::open(folder.path().join("db")).unwrap(),
            folder,
        )
    };
    let watch = store.watch(prefix_range("/"), None).await.unwrap();
    assert_eq!(store.shared.state.read().watchers.len(), 1);
    drop(watch);
    assert_eq!(store.shared.state.read().watchers.len(), 0);
}

#[tokio::test]
async fn closing_the_store_ends_its_watches() {
    let folder = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(folder.path().join("db")).unwrap();
    let mut watch = store.watch(prefix_range("/"), None).await.unwrap();
    let revision = put(&store, "/a", "x").await;
    drop(store);
    assert!(
        matches!(watch.next().await, Some(Ok(WatchEvent::Put { current, .. }))
        if current.mod_revision == revision)
    );
    assert!(matches!(watch.next().await, Some(Err(StoreError::Closed))));
    assert!(watch.next().await.is_none());
}
