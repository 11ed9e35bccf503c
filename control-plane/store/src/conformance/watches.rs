//! Watches: order, completeness, progress.

use std::sync::Arc;

use futures::{StreamExt, future::join_all};

use super::{EVENT_TIMEOUT, all, committed, delete, key, next_change, put, value};
use crate::{
    Condition, KeyValue, PROGRESS_INTERVAL, Store, StoreError, TxnOutcome, WatchEvent, Write,
    prefix_range,
};

/// History first, then live changes, each with its previous state.
pub async fn watch_replays_then_follows(store: Arc<dyn Store>) {
    let key = key("follow", "a");
    let start = store.revision().await.unwrap();
    let first = put(&store, &key, "one").await;
    let second = put(&store, &key, "two").await;
    let mut watch = store.watch(all("follow"), Some(start)).await.unwrap();
    let one = KeyValue {
        key: key.clone(),
        value: value("one"),
        create_revision: first,
        mod_revision: first,
    };
    let two = KeyValue {
        value: value("two"),
        mod_revision: second,
        ..one.clone()
    };
    assert_eq!(
        next_change(&mut watch).await,
        WatchEvent::Put {
            current: one.clone(),
            previous: None
        }
    );
    assert_eq!(
        next_change(&mut watch).await,
        WatchEvent::Put {
            current: two.clone(),
            previous: Some(one)
        }
    );
    let third = delete(&store, &key).await;
    assert_eq!(
        next_change(&mut watch).await,
        WatchEvent::Delete {
            previous: two,
            revision: third
        }
    );
}

/// Without a start, nothing of the past comes.
pub async fn watch_from_now_sees_only_what_comes(store: Arc<dyn Store>) {
    put(&store, &key("now", "a"), "past").await;
    let mut watch = store.watch(all("now"), None).await.unwrap();
    let revision = put(&store, &key("now", "b"), "next").await;
    assert_eq!(next_change(&mut watch).await.revision(), revision);
}

/// Neighbouring keys do not show.
pub async fn watch_sees_only_its_range(store: Arc<dyn Store>) {
    let mut watch = store.watch(all("range"), None).await.unwrap();
    put(&store, "/conformance/range", "outside").await;
    put(&store, "/conformance/range0", "outside").await;
    let inside = put(&store, &key("range", "a"), "inside").await;
    assert_eq!(next_change(&mut watch).await.revision(), inside);
}

/// A silent watch says how far it is, past changes outside its range too.
pub async fn watch_reports_progress_in_silence(store: Arc<dyn Store>) {
    let mut watch = store.watch(all("silence"), None).await.unwrap();
    let elsewhere = put(&store, &key("silence-elsewhere", "a"), "x").await;
    let event = tokio::time::timeout(PROGRESS_INTERVAL * 3, watch.next())
        .await
        .unwrap();
    match event.unwrap().unwrap() {
        WatchEvent::Progress(revision) => assert!(revision >= elsewhere),
        change => panic!("expected progress, got {change:?}"),
    }
}

/// One revision's changes are not split by others.
pub async fn watch_gives_a_transactions_changes_together(store: Arc<dyn Store>) {
    let mut watch = store.watch(all("together"), None).await.unwrap();
    let writes: Vec<_> = (0..10)
        .map(|n| Write::Put(key("together", &n.to_string()), value("x")))
        .collect();
    let revision = committed(store.txn(Vec::new(), writes).await.unwrap());
    put(&store, &key("together", "later"), "x").await;
    for _ in 0..10 {
        assert_eq!(next_change(&mut watch).await.revision(), revision);
    }
    assert!(next_change(&mut watch).await.revision() > revision);
}

/// A watch of what has not happened would never tell whether it missed something.
pub async fn watching_from_the_future_is_refused(store: Arc<dyn Store>) {
    let ahead = store.revision().await.unwrap() + 1_000_000;
    let refused = store.watch(all("watch-future"), Some(ahead)).await.err();
    assert!(matches!(refused, Some(StoreError::Future { asked, .. }) if asked == ahead));
}

/// From the newest revision on is from now on.
pub async fn watch_from_the_newest_revision_misses_nothing(store: Arc<dyn Store>) {
    let newest = put(&store, &key("newest", "a"), "x").await;
    let mut watch = store.watch(all("newest"), Some(newest)).await.unwrap();
    let next = put(&store, &key("newest", "a"), "y").await;
    assert_eq!(next_change(&mut watch).await.revision(), next);
}

/// A deletion carries what was deleted.
pub async fn a_deletion_shows_the_last_state(store: Arc<dyn Store>) {
    let key = key("last-state", "a");
    let created = put(&store, &key, "one").await;
    let changed = put(&store, &key, "two").await;
    let mut watch = store.watch(all("last-state"), Some(changed)).await.unwrap();
    let deleted = delete(&store, &key).await;
    match next_change(&mut watch).await {
        WatchEvent::Delete { previous, revision } => {
            assert_eq!(revision, deleted);
            assert_eq!(previous.value, value("two"));
            assert_eq!(
                (previous.create_revision, previous.mod_revision),
                (created, changed)
            );
        }
        other => panic!("{other:?}"),
    }
}

/// A key made again has no past.
pub async fn a_recreation_has_no_previous_state(store: Arc<dyn Store>) {
    let key = key("no-past", "a");
    put(&store, &key, "one").await;
    let deleted = delete(&store, &key).await;
    let mut watch = store.watch(all("no-past"), Some(deleted)).await.unwrap();
    let again = put(&store, &key, "two").await;
    match next_change(&mut watch).await {
        WatchEvent::Put {
            current,
            previous: None,
        } => {
            assert_eq!(
                (current.create_revision, current.mod_revision),
                (again, again)
            );
        }
        other => panic!("{other:?}"),
    }
}

/// Refused transactions do not show.
pub async fn conflicts_are_not_watched(store: Arc<dyn Store>) {
    let key = key("refused", "a");
    let first = put(&store, &key, "x").await;
    let mut watch = store.watch(all("refused"), Some(first)).await.unwrap();
    for _ in 0..3 {
        let refused = store
            .txn(
                vec![Condition::Absent(key.clone())],
                vec![Write::Put(key.clone(), value("y"))],
            )
            .await
            .unwrap();
        assert!(matches!(refused, TxnOutcome::Conflict { .. }));
    }
    let next = put(&store, &key, "z").await;
    assert_eq!(next_change(&mut watch).await.revision(), next);
}

/// A key in two ranges shows in both watches.
pub async fn overlapping_watches_each_see_the_change(store: Arc<dyn Store>) {
    let mut wide = store.watch(all("overlap"), None).await.unwrap();
    let inner = prefix_range(&key("overlap", "in/"));
    let mut narrow = store.watch(inner, None).await.unwrap();
    let outside = put(&store, &key("overlap", "out"), "x").await;
    let inside = put(&store, &key("overlap", "in/a"), "x").await;
    assert_eq!(next_change(&mut wide).await.revision(), outside);
    assert_eq!(next_change(&mut wide).await.revision(), inside);
    assert_eq!(next_change(&mut narrow).await.revision(), inside);
}

/// The range of one key.
pub async fn one_key_can_be_watched(store: Arc<dyn Store>) {
    let one = key("watch-one", "a");
    let mut watch = store
        .watch(one.clone()..format!("{one}\0"), None)
        .await
        .unwrap();
    put(&store, &key("watch-one", "a/b"), "x").await;
    put(&store, &key("watch-one", "b"), "x").await;
    let revision = put(&store, &one, "x").await;
    assert_eq!(next_change(&mut watch).await.revision(), revision);
}

/// A transaction over several ranges shows in each its part.
pub async fn a_transaction_shows_each_watch_its_part(store: Arc<dyn Store>) {
    let mut left = store.watch(all("part-left"), None).await.unwrap();
    let mut right = store.watch(all("part-right"), None).await.unwrap();
    let writes = vec![
        Write::Put(key("part-left", "a"), value("x")),
        Write::Put(key("part-right", "b"), value("y")),
    ];
    let revision = committed(store.txn(Vec::new(), writes).await.unwrap());
    for (watch, text) in [(&mut left, "x"), (&mut right, "y")] {
        match next_change(watch).await {
            WatchEvent::Put { current, .. } => {
                assert_eq!(
                    (current.value, current.mod_revision),
                    (value(text), revision)
                );
            }
            other => panic!("{other:?}"),
        }
    }
}

/// History of many revisions comes in order, none missing.
pub async fn a_long_history_replays_in_order(store: Arc<dyn Store>) {
    const CHANGES: u64 = 1_500;
    let start = store.revision().await.unwrap();
    let writes = (0..CHANGES).map(|n| {
        let store = store.clone();
        async move { put(&store, &key("long", &(n % 7).to_string()), &n.to_string()).await }
    });
    join_all(writes).await;
    let mut watch = store.watch(all("long"), Some(start)).await.unwrap();
    for expected in start + 1..=start + CHANGES {
        assert_eq!(next_change(&mut watch).await.revision(), expected);
    }
}

/// Progress never runs ahead of what was delivered, and never back.
pub async fn progress_never_overtakes_changes(store: Arc<dyn Store>) {
    let mut watch = store.watch(all("overtake"), None).await.unwrap();
    let mut reached = 0;
    for round in 0..2 {
        let written = put(&store, &key("overtake", &round.to_string()), "x").await;
        let mut delivered = false;
        while reached < written || !delivered {
            let event = tokio::time::timeout(EVENT_TIMEOUT, watch.next())
                .await
                .unwrap();
            let event = event.unwrap().unwrap();
            assert!(
                event.revision() >= reached,
                "back from {reached} to {event:?}"
            );
            reached = event.revision();
            if let WatchEvent::Progress(progress) = event {
                assert!(
                    delivered || progress < written,
                    "{progress} without its change"
                );
            } else {
                assert_eq!(reached, written);
                delivered = true;
            }
        }
        let event = tokio::time::timeout(EVENT_TIMEOUT, watch.next())
            .await
            .unwrap();
        match event {
            Some(Ok(WatchEvent::Progress(progress))) => {
                assert!(progress >= written);
                reached = progress;
            }
            other => panic!("{other:?}"),
        }
    }
}

/// A watch that nobody reads holds nobody up.
pub async fn an_unread_watch_does_not_slow_writers(store: Arc<dyn Store>) {
    let mut unread = store.watch(all("unread"), None).await.unwrap();
    let mut revisions = Vec::new();
    for n in 0..300 {
        revisions.push(put(&store, &key("unread", &n.to_string()), "x").await);
    }
    for revision in revisions {
        assert_eq!(next_change(&mut unread).await.revision(), revision);
    }
}
