//! Gives each namespace its `default` ServiceAccount.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use serde_json::json;

use crate::{
    per_namespace::{PerNamespace, Standard},
    runtime::{Informer, WriteError, Writer, writer::object},
};

/// The account that pods get when they name none.
pub struct DefaultAccount;

/// See the module.
pub type ServiceAccountController = PerNamespace<DefaultAccount>;

impl ServiceAccountController {
    /// Connects the controller to its informers.
    pub fn new(
        writer: Arc<dyn Writer>,
        namespaces: Arc<Informer<Namespace>>,
        accounts: Arc<Informer<ServiceAccount>>,
    ) -> Arc<Self> {
        Self::connect(DefaultAccount, writer, namespaces, accounts)
    }
}

impl Standard for DefaultAccount {
    type Object = ServiceAccount;
    const CONTROLLER: &'static str = "serviceaccount";
    const NAME: &'static str = "default";

    fn missing(&self, namespace: &str) -> Result<ServiceAccount, WriteError> {
        object(json!({"metadata": {"name": Self::NAME, "namespace": namespace}}))
    }

    fn mended(&self, _: &ServiceAccount) -> Option<ServiceAccount> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::fake::FakeApi;
    use crate::runtime::{Controller, Key};

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
            api.pump(&controller.objects);
        };
        work().await;
        assert_eq!(api.take_requests(), ["create serviceaccounts shop/default"]);
        api.remove("serviceaccounts", &Key::new("shop", "default"));
        api.pump(&controller.objects);
        work().await;
        assert_eq!(api.take_requests(), ["create serviceaccounts shop/default"]);
        work().await;
        assert!(api.take_requests().is_empty());
    }
}
