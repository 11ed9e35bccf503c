//! Gives each namespace its `default` ServiceAccount.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use serde_json::json;

use crate::{
    namespace::is_active,
    runtime::{Action, Controller, Delta, Informer, Key, ReconcileError, WorkQueue, Writer},
};

const DEFAULT_ACCOUNT: &str = "default";

/// See the module.
pub struct ServiceAccountController {
    writer: Arc<dyn Writer>,
    namespaces: Arc<Informer<Namespace>>,
    accounts: Arc<Informer<ServiceAccount>>,
    queue: Arc<WorkQueue>,
}

impl ServiceAccountController {
    /// Connects the controller to its informers.
    pub fn new(
        writer: Arc<dyn Writer>,
        namespaces: Arc<Informer<Namespace>>,
        accounts: Arc<Informer<ServiceAccount>>,
    ) -> Arc<Self> {
        let queue = Arc::new(WorkQueue::default());
        namespaces.on_change({
            let queue = queue.clone();
            move |delta| queue.add(Key::of(&**delta.newest()))
        });
        accounts.on_change({
            let queue = queue.clone();
            move |delta| {
                if let Delta::Deleted(account) = delta
                    && account.metadata.name.as_deref() == Some(DEFAULT_ACCOUNT)
                {
                    queue.add(Key::new(
                        "",
                        account.metadata.namespace.clone().unwrap_or_default(),
                    ));
                }
            }
        });
        Arc::new(ServiceAccountController {
            writer,
            namespaces,
            accounts,
            queue,
        })
    }
}

#[async_trait::async_trait]
impl Controller for ServiceAccountController {
    fn name(&self) -> &'static str {
        "serviceaccount"
    }

    fn queue(&self) -> &Arc<WorkQueue> {
        &self.queue
    }

    async fn reconcile(&self, key: &Key) -> Result<Action, ReconcileError> {
        let active = self
            .namespaces
            .get(key)
            .is_some_and(|namespace| is_active(&namespace));
        if !active
            || self
                .accounts
                .get(&Key::new(&*key.name, DEFAULT_ACCOUNT))
                .is_some()
        {
            return Ok(Action::Done);
        }
        let account: ServiceAccount = crate::runtime::writer::object(json!({
            "metadata": {"name": DEFAULT_ACCOUNT, "namespace": key.name}
        }))?;
        match self.writer.create_object(&account).await {
            Err(error) if !error.is_already_exists() && !error.is_namespace_terminating() => {
                Err(error.into())
            }
            _ => Ok(Action::Done),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::fake::FakeApi;

    #[tokio::test]
    async fn every_active_namespace_has_a_default_account() {
        let api = FakeApi::new();
        let controller = ServiceAccountController::new(api.clone(), Arc::default(), Arc::default());
        api.seed::<Namespace>(json!({"metadata": {"name": "shop"}}));
        api.seed::<Namespace>(json!({"metadata": {
            "name": "leaving", "deletionTimestamp": "2026-01-01T00:00:00Z"
        }}));
        api.pump(&controller.namespaces);
        let work = async || {
            for key in controller.queue.take_all() {
                controller.reconcile(&key).await.unwrap();
            }
            api.pump(&controller.accounts);
        };
        work().await;
        assert_eq!(api.take_requests(), ["create serviceaccounts shop/default"]);
        api.remove("serviceaccounts", &Key::new("shop", "default"));
        api.pump(&controller.accounts);
        work().await;
        assert_eq!(api.take_requests(), ["create serviceaccounts shop/default"]);
        work().await;
        assert!(api.take_requests().is_empty());
    }
}
