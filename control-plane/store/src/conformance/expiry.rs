//! Keys that end by themselves.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{all, committed, delete, key, next_change, put, value};
use crate::{Condition, Revision, Store, TxnOutcome, WatchEvent, Write};

/// A short time to live.
const SHORT: Duration = Duration::from_secs(2);
/// One that does not end during a test.
const LONG: Duration = Duration::from_secs(3600);
/// Longest wait for the end of a key with [`SHORT`].
const END_TIMEOUT: Duration = Duration::from_secs(2 + 15 + 10);

async fn put_expiring(store: &Arc<dyn Store>, key: &str, text: &str, ttl: Duration) -> Revision {
    let writes = vec![Write::PutExpiring(key.to_owned(), value(text), ttl)];
    committed(store.txn(Vec::new(), writes).await.unwrap())
}

async fn wait_until_gone(store: &Arc<dyn Store>, key: &str) {
    let deadline = Instant::now() + END_TIMEOUT;
    while store.get(key).await.unwrap().is_some() {
        assert!(Instant::now() < deadline, "{key} does not end");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// It ends, not too early, and a watch is told.
pub async fn an_expiring_key_ends(store: Arc<dyn Store>) {
    let key = key("end", "a");
    let mut watch = store.watch(all("end"), None).await.unwrap();
    let start = Instant::now();
    let written = put_expiring(&store, &key, "x", SHORT).await;
    assert_eq!(next_change(&mut watch).await.revision(), written);
    assert_eq!(store.get(&key).await.unwrap().unwrap().value, value("x"));
    match next_change(&mut watch).await {
        WatchEvent::Delete { previous, revision } => {
            assert!(start.elapsed() >= SHORT, "after {:?}", start.elapsed());
            assert!(start.elapsed() < END_TIMEOUT, "after {:?}", start.elapsed());
            assert_eq!(previous.mod_revision, written);
            assert!(revision > written);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(store.get(&key).await.unwrap(), None);
}

/// Written again without an end it stays.
pub async fn a_plain_write_takes_the_end_away(store: Arc<dyn Store>) {
    let (kept, gone) = (key("stay", "kept"), key("stay", "gone"));
    put_expiring(&store, &kept, "x", SHORT).await;
    put(&store, &kept, "y").await;
    put_expiring(&store, &gone, "x", SHORT).await;
    wait_until_gone(&store, &gone).await;
    assert_eq!(store.get(&kept).await.unwrap().unwrap().value, value("y"));
}

/// Written again with a later end it lives longer.
pub async fn a_later_end_replaces_an_earlier_one(store: Arc<dyn Store>) {
    let (renewed, gone) = (key("renew", "renewed"), key("renew", "gone"));
    put_expiring(&store, &renewed, "x", SHORT).await;
    put_expiring(&store, &renewed, "y", LONG).await;
    put_expiring(&store, &gone, "x", SHORT).await;
    wait_until_gone(&store, &gone).await;
    assert_eq!(
        store.get(&renewed).await.unwrap().unwrap().value,
        value("y")
    );
}

/// Deleted and made again without an end it stays.
pub async fn a_recreated_key_has_no_end(store: Arc<dyn Store>) {
    let (again, gone) = (key("reborn", "again"), key("reborn", "gone"));
    put_expiring(&store, &again, "x", SHORT).await;
    delete(&store, &again).await;
    put(&store, &again, "y").await;
    put_expiring(&store, &gone, "x", SHORT).await;
    wait_until_gone(&store, &gone).await;
    assert_eq!(store.get(&again).await.unwrap().unwrap().value, value("y"));
}

/// Conditions guard it like any write.
pub async fn expiring_writes_obey_conditions(store: Arc<dyn Store>) {
    let key = key("guarded-end", "a");
    put(&store, &key, "x").await;
    let refused = store
        .txn(
            vec![Condition::Absent(key.clone())],
            vec![Write::PutExpiring(key.clone(), value("y"), SHORT)],
        )
        .await
        .unwrap();
    assert!(matches!(refused, TxnOutcome::Conflict { .. }));
    assert_eq!(store.get(&key).await.unwrap().unwrap().value, value("x"));
}

/// Many with different ends all end.
pub async fn many_expiring_keys_all_end(store: Arc<dyn Store>) {
    for n in 0..30 {
        let ttl = SHORT + Duration::from_millis(n % 3 * 100);
        put_expiring(&store, &key("many-ends", &n.to_string()), "x", ttl).await;
    }
    assert_eq!(store.count(all("many-ends")).await.unwrap(), 30);
    for n in 0..30 {
        wait_until_gone(&store, &key("many-ends", &n.to_string())).await;
    }
}
