//! How the members are.

use std::time::Duration;

use super::{EtcdConfig, EtcdStore, call::Connection, read::start_key};
use crate::{MemberState, MemberStatus, StoreError, StoreStatus};

/// Longest wait for one member.
const MEMBER_TIMEOUT: Duration = Duration::from_secs(3);

impl EtcdStore {
    pub(super) async fn cluster_status(&self) -> Result<StoreStatus, StoreError> {
        let all = start_key("").to_owned()..String::from("\u{10FFFF}");
        let page = self.list_range(all.clone(), None, 1).await?;
        let members = self.inner.config.endpoints.iter().map(|endpoint| {
            let alone = EtcdConfig {
                endpoints: vec![endpoint.clone()],
                request_timeout: MEMBER_TIMEOUT,
                ..self.inner.config.clone()
            };
            async move {
                MemberStatus {
                    name: endpoint.to_string(),
                    state: member(&alone).await,
                }
            }
        });
        Ok(StoreStatus {
            engine: "etcd".to_owned(),
            revision: page.revision,
            keys: page.items.len() as u64 + page.remaining,
            members: futures::future::join_all(members).await,
        })
    }
}

async fn member(config: &EtcdConfig) -> Result<MemberState, String> {
    let connection = Connection::new(config).await.map_err(|e| e.to_string())?;
    let ask = async {
        connection
            .client()
            .maintenance_client()
            .status()
            .await
            .map_err(|error| error.to_string())
    };
    let status = tokio::time::timeout(MEMBER_TIMEOUT, ask)
        .await
        .unwrap_or_else(|_| Err(format!("no answer within {MEMBER_TIMEOUT:?}")))?;
    let member = status.header().map_or(0, |header| header.member_id());
    Ok(MemberState {
        version: status.version().to_owned(),
        bytes: u64::try_from(status.db_size()).unwrap_or(0),
        leader: member == status.leader(),
    })
}
