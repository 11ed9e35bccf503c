//! etcd's limits, and the history that is dropped by itself.

use std::time::Duration;

use bytes::Bytes;

use super::*;

#[tokio::test]
async fn a_value_beyond_etcds_limit_is_too_large_and_changes_nothing() {
    let etcd = EtcdProcess::single().await;
    let store = store_in(&etcd).await;
    let before = store.revision().await.unwrap();
    let writes = vec![Write::Put("/a".into(), Bytes::from(vec![1; 2_000_000]))];
    let refused = store.txn(Vec::new(), writes).await;
    assert!(
        matches!(refused, Err(StoreError::TooLarge { .. })),
        "{refused:?}"
    );
    let writes = (0..200).map(|n| Write::Put(format!("/k/{n}"), Bytes::new()));
    let refused = store.txn(Vec::new(), writes.collect()).await;
    assert!(
        matches!(refused, Err(StoreError::TooLarge { .. })),
        "{refused:?}"
    );
    assert_eq!(store.revision().await.unwrap(), before);
}

#[tokio::test]
async fn a_full_etcd_refuses_writes_as_out_of_space_and_keeps_reading() {
    let options = Options {
        arguments: vec!["--quota-backend-bytes=4194304".into()],
        ..Options::default()
    };
    let etcd = EtcdProcess::start(1, options).await;
    let store = store_in(&etcd).await;
    let mut written = 0;
    let error = loop {
        let key = format!("/k/{written}");
        let writes = vec![Write::Put(key, Bytes::from(vec![1; 400_000]))];
        match store.txn(Vec::new(), writes).await {
            Ok(_) => written += 1,
            Err(error) => break error,
        }
        assert!(written < 100, "etcd does not fill up");
    };
    assert!(error.is_out_of_space(), "{error:?}");
    // etcd looks at the quota before a write is proposed and again as it is applied; what is
    // refused the second time has been written all the same.
    let kept = store.count(prefix_range("/k/")).await.unwrap();
    assert!(
        kept == written || kept == written + 1,
        "{kept} of {written}"
    );
}

#[tokio::test]
async fn old_history_is_compacted_by_itself() {
    let etcd = EtcdProcess::single().await;
    let mut config = EtcdConfig::from_address(&etcd.address(), None, None, None).unwrap();
    config.compact_interval = Some(Duration::from_millis(100));
    let store = EtcdStore::connect(&config).await.unwrap();
    let first = put(&store, "/a", "one").await.unwrap();
    let second = put(&store, "/a", "two").await.unwrap();
    let compacted = async {
        loop {
            match store.list(prefix_range("/"), Some(first), 0).await {
                Err(StoreError::Compacted { .. }) => return,
                other => drop(other.unwrap()),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), compacted)
        .await
        .unwrap();
    let page = store
        .list(prefix_range("/"), Some(second), 0)
        .await
        .unwrap();
    assert_eq!(page.items.len(), 1);
}

#[tokio::test]
async fn a_lease_that_etcd_lost_is_replaced() {
    let etcd = EtcdProcess::single().await;
    let store = store_in(&etcd).await;
    let write = async |key: &str| {
        let ttl = Duration::from_secs(3600);
        let writes = vec![Write::PutExpiring(key.to_owned(), Bytes::new(), ttl)];
        store.txn(Vec::new(), writes).await.unwrap()
    };
    write("/a").await;
    let mut leases = store.connection.client().lease_client();
    for lease in leases.leases().await.unwrap().leases() {
        leases.revoke(lease.id()).await.unwrap();
    }
    assert_eq!(
        store.get("/a").await.unwrap(),
        None,
        "it ends with its lease"
    );
    write("/b").await;
    assert!(store.get("/b").await.unwrap().is_some());
}
