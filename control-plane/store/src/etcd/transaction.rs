//! Transactions.

use etcd_client::{Compare, CompareOp, PutOptions, Txn, TxnOp, TxnOpResponse, TxnResponse};

use super::{
    EtcdStore,
    call::{MAX_MESSAGE_BYTES, Retry},
    read::{key_value, revision, signed},
};
use crate::{Condition, KeyValue, StoreError, TxnOutcome, Write, last_of_each_key};

impl EtcdStore {
    pub(super) async fn transact(
        &self,
        conditions: Vec<Condition>,
        writes: Vec<Write>,
    ) -> Result<TxnOutcome, StoreError> {
        let writes = last_of_each_key(writes);
        let mut answer = self.send(&conditions, &writes).await;
        if matches!(answer, Err(StoreError::LeaseGone)) {
            self.leases.forget().await;
            answer = self.send(&conditions, &writes).await;
        }
        let answer = answer?;
        if answer.succeeded() {
            let header = answer.header();
            return Ok(TxnOutcome::Committed(revision(
                header.map_or(0, |header| header.revision()),
            )));
        }
        let found = answer.op_responses().into_iter().map(|response| {
            let TxnOpResponse::Get(mut found) = response else {
                return Ok(None);
            };
            found.take_kvs().pop().map(key_value).transpose()
        });
        first_conflict(conditions, found)
    }

    async fn send(
        &self,
        conditions: &[Condition],
        writes: &[Write],
    ) -> Result<TxnResponse, StoreError> {
        let compares: Vec<_> = conditions.iter().flat_map(compares).collect();
        let reads: Vec<_> = conditions
            .iter()
            .map(|condition| TxnOp::get(condition.key(), None))
            .collect();
        let mut changes = Vec::with_capacity(writes.len());
        for write in writes {
            changes.push(match write {
                Write::Put(key, value) => TxnOp::put(key.as_str(), value.as_ref(), None),
                Write::PutExpiring(key, value, ttl) => {
                    let lease = self.leases.lease(&self.connection, *ttl).await?;
                    let options = PutOptions::new().with_lease(lease);
                    TxnOp::put(key.as_str(), value.as_ref(), Some(options))
                }
                Write::Delete(key) => TxnOp::delete(key.as_str(), None),
            });
        }
        let txn = Txn::new().when(compares).and_then(changes).or_else(reads);
        self.connection
            .call("writing a transaction", Retry::Write, None, |client| {
                let txn = txn.clone();
                let mut kv = client
                    .kv_client()
                    .max_decoding_message_size(MAX_MESSAGE_BYTES);
                async move { kv.txn(txn).await }
            })
            .await
    }
}

/// A key at revision 0 does not exist, for etcd; nothing is ever last written at 0.
fn compares(condition: &Condition) -> Vec<Compare> {
    match condition {
        Condition::Absent(key) => {
            vec![Compare::create_revision(key.as_str(), CompareOp::Equal, 0)]
        }
        Condition::ModRevision(key, 0) => {
            vec![Compare::create_revision(key.as_str(), CompareOp::Less, 0)]
        }
        Condition::ModRevision(key, revision) => vec![Compare::mod_revision(
            key.as_str(),
            CompareOp::Equal,
            signed(*revision),
        )],
    }
}

fn first_conflict(
    conditions: Vec<Condition>,
    found: impl Iterator<Item = Result<Option<KeyValue>, StoreError>>,
) -> Result<TxnOutcome, StoreError> {
    for (condition, current) in conditions.into_iter().zip(found) {
        let current = current?;
        if !condition.holds(current.as_ref()) {
            return Ok(TxnOutcome::Conflict {
                key: condition.into_key(),
                current,
            });
        }
    }
    Err(StoreError::Io {
        doing: "writing a transaction",
        source: "etcd refused it although all its conditions hold".into(),
    })
}
