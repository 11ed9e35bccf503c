//! What keys and values may be.

use std::sync::Arc;

use bytes::Bytes;

use super::{all, committed, key, next_change, put, value};
use crate::{Store, WatchEvent, Write};

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

/// Values are bytes, not text.
pub async fn values_are_any_bytes(store: Arc<dyn Store>) {
    let bytes: Vec<u8> = (0..=255).collect();
    let writes = vec![Write::Put(key("bytes", "a"), Bytes::from(bytes.clone()))];
    committed(store.txn(Vec::new(), writes).await.unwrap());
    let found = store.get(&key("bytes", "a")).await.unwrap().unwrap();
    assert_eq!(found.value, bytes);
}

/// Keys are text of any kind.
pub async fn keys_are_any_text(store: Arc<dyn Store>) {
    let names = [
        "with space",
        "ümlaut",
        "日本",
        "a\tb",
        "%2F",
        "x".repeat(700).as_str(),
    ]
    .map(str::to_owned);
    for name in &names {
        put(&store, &key("text", name), name).await;
    }
    for name in &names {
        let found = store.get(&key("text", name)).await.unwrap().unwrap();
        assert_eq!(found.value, value(name));
    }
    assert_eq!(store.count(all("text")).await.unwrap(), names.len() as u64);
}

/// Large values come through a watch too.
pub async fn watches_carry_large_values(store: Arc<dyn Store>) {
    let mut watch = store.watch(all("large-watch"), None).await.unwrap();
    let large = Bytes::from(vec![0x5a; 1_000_000]);
    for _ in 0..6 {
        let writes = vec![Write::Put(key("large-watch", "a"), large.clone())];
        committed(store.txn(Vec::new(), writes).await.unwrap());
    }
    for _ in 0..6 {
        match next_change(&mut watch).await {
            WatchEvent::Put { current, .. } => assert_eq!(current.value, large),
            other => panic!("{other:?}"),
        }
    }
}

/// Large values list together, more than one message of the usual size.
pub async fn large_values_list_together(store: Arc<dyn Store>) {
    let large = Bytes::from(vec![0xa5; 700_000]);
    for n in 0..12 {
        let writes = vec![Write::Put(
            key("large-list", &format!("{n:02}")),
            large.clone(),
        )];
        committed(store.txn(Vec::new(), writes).await.unwrap());
    }
    let page = store.list(all("large-list"), None, 0).await.unwrap();
    assert_eq!(page.items.len(), 12);
    assert!(page.items.iter().all(|item| item.value == large));
}

/// The store tells what it is and how large.
pub async fn status_tells_engine_revision_and_size(store: Arc<dyn Store>) {
    let revision = put(&store, &key("status", "a"), "x").await;
    let status = store.status().await.unwrap();
    assert!(["embedded", "etcd"].contains(&status.engine.as_str()));
    assert_eq!(status.revision, revision);
    assert!(status.keys >= 1);
    let member = status.members.first().unwrap();
    let state = member.state.as_ref().unwrap();
    assert!(state.bytes > 0 && state.leader && !state.version.is_empty());
}
