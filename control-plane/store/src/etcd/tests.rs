use hull_test_etcd::{EtcdProcess, Options};

use super::*;
use crate::prefix_range;

mod connections;
mod faults;
mod limits;

async fn fresh() -> (Arc<dyn Store>, EtcdProcess) {
    let etcd = EtcdProcess::single().await;
    (Arc::new(store_in(&etcd).await), etcd)
}

/// A store that compacts only when asked to.
pub(crate) async fn store_in(etcd: &EtcdProcess) -> EtcdStore {
    let mut config = EtcdConfig::from_address(&etcd.address(), None, None, None).unwrap();
    config.compact_interval = None;
    EtcdStore::connect(&config).await.unwrap()
}

mod conformance {
    crate::store_conformance_tests!(super::fresh);
}

async fn put(store: &EtcdStore, key: &str, value: &str) -> Result<Revision, StoreError> {
    let writes = vec![Write::Put(
        key.to_owned(),
        bytes::Bytes::copy_from_slice(value.as_bytes()),
    )];
    match store.txn(Vec::new(), writes).await? {
        TxnOutcome::Committed(revision) => Ok(revision),
        conflict @ TxnOutcome::Conflict { .. } => panic!("{conflict:?}"),
    }
}
