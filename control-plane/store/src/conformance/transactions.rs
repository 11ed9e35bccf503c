//! Transactions: conditions, writes, revisions.

use std::sync::Arc;

use super::{all, committed, delete, key, next_change, put, value};
use crate::{Condition, KeyValue, Store, TxnOutcome, Write};

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

/// Both what is absent and what is at a revision can be asked for at once.
pub async fn conditions_about_several_keys_hold_together(store: Arc<dyn Store>) {
    let (a, b) = (key("both", "a"), key("both", "b"));
    let first = put(&store, &a, "a").await;
    let attempt = |revision| {
        store.txn(
            vec![
                Condition::ModRevision(a.clone(), revision),
                Condition::Absent(b.clone()),
            ],
            vec![Write::Put(b.clone(), value("b"))],
        )
    };
    assert!(
        matches!(attempt(first + 1).await.unwrap(), TxnOutcome::Conflict { key, .. } if key == a)
    );
    committed(attempt(first).await.unwrap());
    assert!(matches!(attempt(first).await.unwrap(), TxnOutcome::Conflict { key, .. } if key == b));
}

/// Nothing was ever written at revision 0: not even an absent key is there.
pub async fn no_key_is_at_revision_zero(store: Arc<dyn Store>) {
    let key = key("zero", "absent");
    let outcome = store
        .txn(vec![Condition::ModRevision(key.clone(), 0)], Vec::new())
        .await
        .unwrap();
    assert_eq!(outcome, TxnOutcome::Conflict { key, current: None });
}

/// A transaction without writes only asks.
pub async fn conditions_alone_are_a_question(store: Arc<dyn Store>) {
    let key = key("question", "a");
    let revision = put(&store, &key, "x").await;
    let asked = store
        .txn(vec![Condition::ModRevision(key, revision)], Vec::new())
        .await
        .unwrap();
    assert_eq!(committed(asked), revision);
}

/// A transaction may write keys that its conditions do not name.
pub async fn conditions_guard_writes_to_other_keys(store: Arc<dyn Store>) {
    let (lock, data) = (key("guard", "lock"), key("guard", "data"));
    let held = put(&store, &lock, "me").await;
    let write = |revision, text: &str| {
        store.txn(
            vec![Condition::ModRevision(lock.clone(), revision)],
            vec![Write::Put(data.clone(), value(text))],
        )
    };
    committed(write(held, "one").await.unwrap());
    put(&store, &lock, "other").await;
    assert!(matches!(
        write(held, "two").await.unwrap(),
        TxnOutcome::Conflict { .. }
    ));
    assert_eq!(store.get(&data).await.unwrap().unwrap().value, value("one"));
}

/// Deleting what is absent takes nothing away from the other writes.
pub async fn deleting_an_absent_key_beside_a_put_commits_the_put(store: Arc<dyn Store>) {
    let writes = vec![
        Write::Delete(key("beside", "absent")),
        Write::Put(key("beside", "a"), value("x")),
    ];
    let revision = committed(store.txn(Vec::new(), writes).await.unwrap());
    let page = store.list(all("beside"), None, 0).await.unwrap();
    assert_eq!(page.items.len(), 1);
    assert_eq!(page.items[0].mod_revision, revision);
}

/// Put then delete is a deletion.
pub async fn a_put_and_a_deletion_of_one_key_delete_it(store: Arc<dyn Store>) {
    let key = key("undo", "a");
    put(&store, &key, "x").await;
    let writes = vec![
        Write::Put(key.clone(), value("y")),
        Write::Delete(key.clone()),
    ];
    committed(store.txn(Vec::new(), writes).await.unwrap());
    assert_eq!(store.get(&key).await.unwrap(), None);
}

/// Delete then put replaces: the key was there all the time.
pub async fn a_deletion_and_a_put_of_one_key_replace_it(store: Arc<dyn Store>) {
    let key = key("redo", "a");
    let created = put(&store, &key, "x").await;
    let writes = vec![
        Write::Delete(key.clone()),
        Write::Put(key.clone(), value("y")),
    ];
    let replaced = committed(store.txn(Vec::new(), writes).await.unwrap());
    let current = store.get(&key).await.unwrap().unwrap();
    assert_eq!(
        (current.create_revision, current.mod_revision),
        (created, replaced)
    );
}

/// The same value written again is a change.
pub async fn an_unchanged_value_takes_a_revision(store: Arc<dyn Store>) {
    let key = key("same", "a");
    let first = put(&store, &key, "x").await;
    assert_eq!(put(&store, &key, "x").await, first + 1);
}

/// Each change takes the next revision; conflicts take none.
pub async fn revisions_have_no_gaps(store: Arc<dyn Store>) {
    let key = key("gaps", "a");
    let mut last = put(&store, &key, "0").await;
    for _ in 0..10 {
        let refused = store
            .txn(
                vec![Condition::Absent(key.clone())],
                vec![Write::Delete(key.clone())],
            )
            .await
            .unwrap();
        assert!(matches!(refused, TxnOutcome::Conflict { .. }));
        let next = put(&store, &key, "x").await;
        assert_eq!(next, last + 1);
        last = next;
    }
    assert_eq!(store.revision().await.unwrap(), last);
}

/// As many as etcd takes.
pub async fn a_hundred_writes_are_one_revision(store: Arc<dyn Store>) {
    let writes: Vec<_> = (0..100)
        .map(|n| Write::Put(key("hundred", &format!("{n:03}")), value("x")))
        .collect();
    let revision = committed(store.txn(Vec::new(), writes).await.unwrap());
    let page = store.list(all("hundred"), None, 0).await.unwrap();
    assert_eq!(page.items.len(), 100);
    assert!(page.items.iter().all(|item| item.mod_revision == revision));
}

/// A key that was deleted and made again begins anew.
pub async fn a_recreated_key_has_a_new_create_revision(store: Arc<dyn Store>) {
    let key = key("again", "a");
    let first = put(&store, &key, "x").await;
    delete(&store, &key).await;
    let second = put(&store, &key, "x").await;
    let current = store.get(&key).await.unwrap().unwrap();
    assert!(second > first);
    assert_eq!(
        (current.create_revision, current.mod_revision),
        (second, second)
    );
    let stale = store
        .txn(
            vec![Condition::ModRevision(key.clone(), first)],
            vec![Write::Delete(key)],
        )
        .await
        .unwrap();
    assert!(matches!(
        stale,
        TxnOutcome::Conflict {
            current: Some(_),
            ..
        }
    ));
}
