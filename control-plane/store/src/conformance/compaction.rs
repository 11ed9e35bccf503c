//! What is forgotten and what stays.

use std::sync::Arc;

use futures::StreamExt;

use super::{all, delete, key, next_change, put, value};
use crate::{Store, StoreError, WatchEvent};

/// After compaction at R: lists at R and watches after R work, older ones do not.
pub async fn compaction_forgets_older_revisions(store: Arc<dyn Store>) {
    let key = key("compact", "a");
    let first = put(&store, &key, "one").await;
    let second = put(&store, &key, "two").await;
    let third = put(&store, &key, "three").await;
    store.compact(second).await.unwrap();
    let old = store.list(all("compact"), Some(first), 0).await;
    assert!(matches!(old, Err(StoreError::Compacted { asked, .. }) if asked == first));
    let page = store.list(all("compact"), Some(second), 0).await.unwrap();
    assert_eq!(page.items[0].value, value("two"));
    let mut watch = store.watch(all("compact"), Some(second)).await.unwrap();
    assert_eq!(next_change(&mut watch).await.revision(), third);
    let early = match store.watch(all("compact"), Some(first)).await {
        Ok(mut watch) => watch.next().await.unwrap().err(),
        Err(error) => Some(error),
    };
    assert!(
        matches!(early, Some(StoreError::Compacted { .. })),
        "{early:?}"
    );
}

/// What is current stays, whatever is forgotten.
pub async fn compaction_keeps_the_current_state(store: Arc<dyn Store>) {
    let (kept, gone) = (key("keep", "kept"), key("keep", "gone"));
    let created = put(&store, &kept, "one").await;
    put(&store, &gone, "x").await;
    let changed = put(&store, &kept, "two").await;
    let deleted = delete(&store, &gone).await;
    store.compact(deleted).await.unwrap();
    let current = store.get(&kept).await.unwrap().unwrap();
    assert_eq!(
        (current.create_revision, current.mod_revision),
        (created, changed)
    );
    assert_eq!(store.get(&gone).await.unwrap(), None);
    assert_eq!(store.count(all("keep")).await.unwrap(), 1);
}

/// The newest revision can be compacted to, and listed at.
pub async fn compaction_to_now_leaves_now(store: Arc<dyn Store>) {
    let revision = put(&store, &key("to-now", "a"), "x").await;
    store.compact(revision).await.unwrap();
    let page = store.list(all("to-now"), Some(revision), 0).await.unwrap();
    assert_eq!(page.items.len(), 1);
    let mut watch = store.watch(all("to-now"), Some(revision)).await.unwrap();
    let next = put(&store, &key("to-now", "b"), "x").await;
    assert_eq!(next_change(&mut watch).await.revision(), next);
}

/// Nobody minds when somebody else was further.
pub async fn compacting_less_than_before_does_nothing(store: Arc<dyn Store>) {
    let first = put(&store, &key("less", "a"), "one").await;
    let second = put(&store, &key("less", "a"), "two").await;
    store.compact(second).await.unwrap();
    store.compact(second).await.unwrap();
    store.compact(first).await.unwrap();
    let page = store.list(all("less"), Some(second), 0).await.unwrap();
    assert_eq!(page.items.len(), 1);
}

/// The future cannot be forgotten.
pub async fn compacting_the_future_is_refused(store: Arc<dyn Store>) {
    let current = put(&store, &key("compact-future", "a"), "x").await;
    let refused = store.compact(current + 1_000).await;
    assert!(
        matches!(refused, Err(StoreError::Future { .. })),
        "{refused:?}"
    );
    assert!(
        store
            .list(all("compact-future"), Some(current), 0)
            .await
            .is_ok()
    );
}

/// A watch that has seen it all does not notice.
pub async fn a_current_watch_survives_compaction(store: Arc<dyn Store>) {
    let key = key("survive", "a");
    let mut watch = store.watch(all("survive"), None).await.unwrap();
    let first = put(&store, &key, "one").await;
    assert_eq!(next_change(&mut watch).await.revision(), first);
    store.compact(first).await.unwrap();
    let second = put(&store, &key, "two").await;
    match next_change(&mut watch).await {
        WatchEvent::Put { current, previous } => {
            assert_eq!(current.mod_revision, second);
            assert_eq!(previous.unwrap().value, value("one"));
        }
        other => panic!("{other:?}"),
    }
}

/// A page of a list that began before cannot go on.
pub async fn a_later_page_of_a_compacted_list_fails(store: Arc<dyn Store>) {
    for n in 0..4 {
        put(&store, &key("late-page", &n.to_string()), "x").await;
    }
    let page = store.list(all("late-page"), None, 2).await.unwrap();
    let newer = put(&store, &key("late-page", "9"), "x").await;
    store.compact(newer).await.unwrap();
    let rest = key("late-page", "2")..all("late-page").end;
    let failed = store.list(rest, Some(page.revision), 2).await;
    assert!(
        matches!(failed, Err(StoreError::Compacted { .. })),
        "{failed:?}"
    );
}

/// The error tells from where on it would work, at least.
pub async fn a_compacted_error_names_a_later_revision(store: Arc<dyn Store>) {
    let first = put(&store, &key("named", "a"), "one").await;
    let second = put(&store, &key("named", "a"), "two").await;
    store.compact(second).await.unwrap();
    match store.list(all("named"), Some(first), 0).await {
        Err(StoreError::Compacted { asked, oldest }) => {
            assert_eq!(asked, first);
            assert!(first < oldest && oldest <= second);
        }
        other => panic!("{other:?}"),
    }
}
