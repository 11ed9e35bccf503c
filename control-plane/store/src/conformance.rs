//! What every [`Store`] must do, whatever it is made of.
//!
//! Each check works under its own prefix and needs nothing of the rest of the store, so it runs
//! against a shared server too. [`store_conformance_tests!`](crate::store_conformance_tests)
//! makes one test of each.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failed check is a failed test"
)]

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{StreamExt, future::join_all};

use crate::{
    Condition, KeyValue, PROGRESS_INTERVAL, Revision, Store, StoreError, TxnOutcome, WatchEvent,
    WatchStream, Write, prefix_range,
};

/// Longest wait for an event that must come.
const EVENT_TIMEOUT: Duration = Duration::from_secs(30);

/// Makes a `#[tokio::test]` of every check. The argument is an async expression's function that
/// returns an `Arc<dyn Store>` and something to keep alive with it.
#[macro_export]
macro_rules! store_conformance_tests {
    ($make:path) => {
        $crate::store_conformance_tests!(@each $make,
            creates_only_when_absent, replaces_only_at_the_expected_revision,
            deletes_only_at_the_expected_revision, gives_the_first_failed_condition,
            transactions_are_all_or_nothing, changing_nothing_takes_no_revision,
            the_last_write_to_a_key_counts, lists_in_key_order_within_the_range,
            pages_are_consistent_while_keys_change, an_old_revision_lists_as_it_was,
            a_future_revision_is_refused, compaction_forgets_older_revisions,
            watch_replays_then_follows, watch_from_now_sees_only_what_comes,
            watch_sees_only_its_range, watch_reports_progress_in_silence,
            watch_gives_a_transactions_changes_together, racing_writers_never_lose_an_update,
            watchers_agree_with_the_lists, empty_and_large_values_survive
        );
    };
    (@each $make:path, $($check:ident),+) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $check() {
            let (store, _keep) = $make().await;
            $crate::conformance::$check(store).await;
        })+
    };
}

fn key(prefix: &str, name: &str) -> String {
    format!("/conformance/{prefix}/{name}")
}

fn all(prefix: &str) -> std::ops::Range<String> {
    prefix_range(&format!("/conformance/{prefix}/"))
}

fn value(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn committed(outcome: TxnOutcome) -> Revision {
    match outcome {
        TxnOutcome::Committed(revision) => revision,
        conflict @ TxnOutcome::Conflict { .. } => panic!("expected a commit, got {conflict:?}"),
    }
}

async fn put(store: &Arc<dyn Store>, key: &str, text: &str) -> Revision {
    let writes = vec![Write::Put(key.to_owned(), value(text))];
    committed(store.txn(Vec::new(), writes).await.unwrap())
}

async fn delete(store: &Arc<dyn Store>, key: &str) -> Revision {
    committed(
        store
            .txn(Vec::new(), vec![Write::Delete(key.to_owned())])
            .await
            .unwrap(),
    )
}

/// The next change, skipping progress.
async fn next_change(watch: &mut WatchStream) -> WatchEvent {
    loop {
        let event = tokio::time::timeout(EVENT_TIMEOUT, watch.next())
            .await
            .unwrap_or_else(|_| panic!("no event within {EVENT_TIMEOUT:?}"))
            .unwrap_or_else(|| panic!("the watch ended"));
        match event.unwrap() {
            WatchEvent::Progress(_) => {}
            change => return change,
        }
    }
}

/// `Absent` guards creation.
pub async fn creates_only_when_absent(store: Arc<dyn Store>) {
    let key = key("create", "a");
    let create = |text: &str| {
        store.txn(
            vec![Condition::Absent(key.clone())],
            vec![Write::Put(key.clone(), value(text))],
        )
    };
    let revision = committed(create("one").await.unwrap());
    let current = KeyValue {
        key: key.clone(),
        value: value("one"),
        create_revision: revision,
        mod_revision: revision,
    };
    assert_eq!(store.get(&key).await.unwrap(), Some(current.clone()));
    let second = create("two").await.unwrap();
    assert_eq!(
        second,
        TxnOutcome::Conflict {
            key: key.clone(),
            current: Some(current)
        }
    );
    delete(&store, &key).await;
    committed(create("three").await.unwrap());
}

/// `ModRevision` guards updates; a replaced key keeps its create revision.
pub async fn replaces_only_at_the_expected_revision(store: Arc<dyn Store>) {
    let key = key("replace", "a");
    let first = put(&store, &key, "one").await;
    let replace = |revision, text: &str| {
        store.txn(
            vec![Condition::ModRevision(key.clone(), revision)],
            vec![Write::Put(key.clone(), value(text))],
        )
    };
    let second = committed(replace(first, "two").await.unwrap());
    assert!(second > first);
    let current = store.get(&key).await.unwrap().unwrap();
    assert_eq!(
        (current.create_revision, current.mod_revision),
        (first, second)
    );
    let stale = replace(first, "three").await.unwrap();
    assert_eq!(
        stale,
        TxnOutcome::Conflict {
            key: key.clone(),
            current: Some(current)
        }
    );
}

/// `ModRevision` guards deletions; an absent key is at no revision.
pub async fn deletes_only_at_the_expected_revision(store: Arc<dyn Store>) {
    let key = key("delete", "a");
    let first = put(&store, &key, "one").await;
    let second = put(&store, &key, "two").await;
    let remove = |revision| {
        store.txn(
            vec![Condition::ModRevision(key.clone(), revision)],
            vec![Write::Delete(key.clone())],
        )
    };
    assert!(matches!(
        remove(first).await.unwrap(),
        TxnOutcome::Conflict { .. }
    ));
    committed(remove(second).await.unwrap());
    assert_eq!(store.get(&key).await.unwrap(), None);
    let gone = remove(second).await.unwrap();
    assert_eq!(
        gone,
        TxnOutcome::Conflict {
            key: key.clone(),
            current: None
        }
    );
    let recreated = put(&store, &key, "three").await;
    assert_eq!(
        store.get(&key).await.unwrap().unwrap().create_revision,
        recreated
    );
}

/// Conditions are checked in order.
pub async fn gives_the_first_failed_condition(store: Arc<dyn Store>) {
    let (a, b) = (key("first", "a"), key("first", "b"));
    put(&store, &a, "a").await;
    put(&store, &b, "b").await;
    let outcome = store
        .txn(
            vec![Condition::Absent(b.clone()), Condition::Absent(a.clone())],
            Vec::new(),
        )
        .await
        .unwrap();
    assert!(matches!(outcome, TxnOutcome::Conflict { key, .. } if key == b));
}

/// A failed condition stops all writes; a commit gives all of them one revision.
pub async fn transactions_are_all_or_nothing(store: Arc<dyn Store>) {
    let (a, b) = (key("atomic", "a"), key("atomic", "b"));
    put(&store, &a, "a").await;
    let writes = vec![Write::Put(b.clone(), value("b")), Write::Delete(a.clone())];
    let refused = store
        .txn(vec![Condition::Absent(a.clone())], writes.clone())
        .await
        .unwrap();
    assert!(matches!(refused, TxnOutcome::Conflict { .. }));
    assert_eq!(store.get(&b).await.unwrap(), None);
    let revision = committed(store.txn(Vec::new(), writes).await.unwrap());
    assert_eq!(store.get(&b).await.unwrap().unwrap().mod_revision, revision);
    assert_eq!(store.get(&a).await.unwrap(), None);
}

/// No writes, or deletions of absent keys, leave the revision alone.
pub async fn changing_nothing_takes_no_revision(store: Arc<dyn Store>) {
    let before = store.revision().await.unwrap();
    assert_eq!(delete(&store, &key("nothing", "absent")).await, before);
    assert_eq!(
        committed(store.txn(Vec::new(), Vec::new()).await.unwrap()),
        before
    );
    assert_eq!(store.revision().await.unwrap(), before);
}

/// Two writes to one key in one transaction are one change.
pub async fn the_last_write_to_a_key_counts(store: Arc<dyn Store>) {
    let key = key("last", "a");
    let before = store.revision().await.unwrap();
    let mut watch = store.watch(all("last"), Some(before)).await.unwrap();
    let writes = vec![
        Write::Put(key.clone(), value("one")),
        Write::Put(key.clone(), value("two")),
    ];
    let revision = committed(store.txn(Vec::new(), writes).await.unwrap());
    assert_eq!(store.get(&key).await.unwrap().unwrap().value, value("two"));
    let end = delete(&store, &key).await;
    assert_eq!(next_change(&mut watch).await.revision(), revision);
    assert_eq!(next_change(&mut watch).await.revision(), end);
}

/// Keys sort as bytes; the end of a range is not in it.
pub async fn lists_in_key_order_within_the_range(store: Arc<dyn Store>) {
    for name in ["b", "a", "c/d", "ä", "c"] {
        put(&store, &key("order", name), name).await;
    }
    put(&store, "/conformance/order", "outside").await;
    put(&store, "/conformance/order0", "outside").await;
    let page = store.list(all("order"), None, 0).await.unwrap();
    let names: Vec<_> = page
        .items
        .iter()
        .map(|item| item.key.rsplit_once("order/").unwrap().1)
        .collect();
    assert_eq!(names, ["a", "b", "c", "c/d", "ä"]);
    assert_eq!(page.remaining, 0);
    assert_eq!(store.count(all("order")).await.unwrap(), 5);
    let part = store
        .list(key("order", "b")..key("order", "c/d"), None, 0)
        .await
        .unwrap();
    assert_eq!(part.items.len(), 2);
    let inverted = store
        .list(key("order", "c")..key("order", "a"), None, 0)
        .await
        .unwrap();
    assert!(inverted.items.is_empty());
}

/// Pages taken at one revision together are the list at that revision.
pub async fn pages_are_consistent_while_keys_change(store: Arc<dyn Store>) {
    for n in 0..25 {
        put(&store, &key("pages", &format!("{n:02}")), "old").await;
    }
    let mut page = store.list(all("pages"), None, 10).await.unwrap();
    assert_eq!((page.items.len(), page.remaining), (10, 15));
    let revision = page.revision;
    for n in 0..25 {
        let key = key("pages", &format!("{n:02}"));
        if n % 2 == 0 {
            delete(&store, &key).await
        } else {
            put(&store, &key, "new").await
        };
        put(&store, &self::key("pages", &format!("{n:02}x")), "new").await;
    }
    let mut items = page.items;
    loop {
        let next = format!("{}\0", items.last().unwrap().key);
        page = store
            .list(next..all("pages").end, Some(revision), 10)
            .await
            .unwrap();
        assert_eq!(page.revision, revision);
        items.extend(page.items);
        if page.remaining == 0 {
            break;
        }
    }
    assert_eq!(items.len(), 25);
    assert!(items.iter().all(|item| item.value == value("old")));
}

/// Replaced, deleted and recreated keys show their state of then.
pub async fn an_old_revision_lists_as_it_was(store: Arc<dyn Store>) {
    let key = key("old", "a");
    let first = put(&store, &key, "one").await;
    let second = put(&store, &key, "two").await;
    let deleted = delete(&store, &key).await;
    let again = put(&store, &key, "three").await;
    for (at, expected) in [
        (first, Some("one")),
        (second, Some("two")),
        (deleted, None),
        (again, Some("three")),
    ] {
        let page = store.list(all("old"), Some(at), 0).await.unwrap();
        assert_eq!(
            page.items.first().map(|item| item.value.clone()),
            expected.map(value)
        );
        assert_eq!(page.revision, at);
    }
}

/// Lists and watches of what has not happened fail at once.
pub async fn a_future_revision_is_refused(store: Arc<dyn Store>) {
    let ahead = store.revision().await.unwrap() + 1_000_000;
    let list = store.list(all("future"), Some(ahead), 0).await;
    assert!(matches!(list, Err(StoreError::Future { asked, .. }) if asked == ahead));
}

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

/// Compare-and-swap loops from many tasks add up.
pub async fn racing_writers_never_lose_an_update(store: Arc<dyn Store>) {
    const TASKS: u64 = 8;
    const INCREMENTS: u64 = 25;
    let key = key("race", "counter");
    put(&store, &key, "0").await;
    let increment = async || {
        let mut done = 0;
        while done < INCREMENTS {
            let current = store.get(&key).await.unwrap().unwrap();
            let count: u64 = std::str::from_utf8(&current.value)
                .unwrap()
                .parse()
                .unwrap();
            let outcome = store
                .txn(
                    vec![Condition::ModRevision(key.clone(), current.mod_revision)],
                    vec![Write::Put(key.clone(), value(&(count + 1).to_string()))],
                )
                .await
                .unwrap();
            done += u64::from(matches!(outcome, TxnOutcome::Committed(_)));
        }
    };
    join_all((0..TASKS).map(|_| increment())).await;
    let total = store.get(&key).await.unwrap().unwrap();
    assert_eq!(total.value, value(&(TASKS * INCREMENTS).to_string()));
}

/// A list plus the changes after it is the state, for watches started at any time.
pub async fn watchers_agree_with_the_lists(store: Arc<dyn Store>) {
    const WRITES: u32 = 400;
    let writer = tokio::spawn({
        let store = store.clone();
        async move {
            for n in 0..WRITES {
                let key = key("agree", &(n % 37).to_string());
                if n % 5 == 4 {
                    delete(&store, &key).await;
                } else {
                    put(&store, &key, &n.to_string()).await;
                }
            }
            put(&store, &self::key("agree", "end"), "end").await
        }
    });
    let follow = async || {
        let page = store.list(all("agree"), None, 0).await.unwrap();
        let mut state: BTreeMap<_, _> = page
            .items
            .into_iter()
            .map(|item| (item.key, item.value))
            .collect();
        let mut watch = store
            .watch(all("agree"), Some(page.revision))
            .await
            .unwrap();
        let mut last = page.revision;
        while !state.contains_key(&key("agree", "end")) {
            let event = next_change(&mut watch).await;
            assert!(
                event.revision() > last,
                "revisions go up without duplicates"
            );
            last = event.revision();
            match event {
                WatchEvent::Put { current, previous } => {
                    let before = state.insert(current.key, current.value);
                    assert_eq!(before, previous.map(|item| item.value));
                }
                WatchEvent::Delete { previous, .. } => {
                    assert_eq!(state.remove(&previous.key), Some(previous.value));
                }
                WatchEvent::Progress(_) => {}
            }
        }
        state
    };
    let mut states = Vec::new();
    for _ in 0..4 {
        states.push(follow().await);
    }
    writer.await.unwrap();
    let page = store.list(all("agree"), None, 0).await.unwrap();
    let expected: BTreeMap<_, _> = page
        .items
        .into_iter()
        .map(|item| (item.key, item.value))
        .collect();
    assert!(states.into_iter().all(|state| state == expected));
}

/// From nothing to Kubernetes' largest object.
pub async fn empty_and_large_values_survive(store: Arc<dyn Store>) {
    put(&store, &key("sizes", "empty"), "").await;
    let large = Bytes::from(vec![0xa5; 1_500_000]);
    let writes = vec![Write::Put(key("sizes", "large"), large.clone())];
    committed(store.txn(Vec::new(), writes).await.unwrap());
    let page = store.list(all("sizes"), None, 0).await.unwrap();
    assert_eq!(page.items[0].value, Bytes::new());
    assert_eq!(page.items[1].value, large);
}
