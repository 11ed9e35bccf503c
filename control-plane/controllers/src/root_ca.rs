//! Publishes the cluster's CA to each namespace, as the ConfigMap `kube-root-ca.crt` that pods
//! mount beside their token.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use serde_json::json;

use crate::{
    per_namespace::{PerNamespace, Standard},
    runtime::{Informer, WriteError, Writer, writer::object},
};

/// The ConfigMap's name.
pub(crate) const NAME: &str = "kube-root-ca.crt";
const FILE: &str = "ca.crt";
const DESCRIPTION: &str = "Contains a CA bundle that can be used to verify the kube-apiserver \
     when using internal endpoints such as the internal service IP or kubernetes.default.svc. \
     No other usage is guaranteed across distributions of Kubernetes clusters.";

/// The cluster's CA.
pub struct RootCa {
    certificate: String,
}

/// See the module.
pub type RootCaController = PerNamespace<RootCa>;

impl RootCaController {
    /// Publishes `certificate` (PEM). `maps` need hold only those of this name.
    pub fn new(
        writer: Arc<dyn Writer>,
        certificate: String,
        namespaces: Arc<Informer<Namespace>>,
        maps: Arc<Informer<ConfigMap>>,
    ) -> Arc<Self> {
        Self::connect(RootCa { certificate }, writer, namespaces, maps)
    }
}

impl RootCa {
    fn data(&self) -> BTreeMap<String, String> {
        BTreeMap::from([(FILE.to_owned(), self.certificate.clone())])
    }
}

impl Standard for RootCa {
    type Object = ConfigMap;
    const CONTROLLER: &'static str = "root-ca-certificate-publisher";
    const NAME: &'static str = NAME;

    fn missing(&self, namespace: &str) -> Result<ConfigMap, WriteError> {
        object(json!({
            "metadata": {
                "name": NAME, "namespace": namespace,
                "annotations": {"kubernetes.io/description": DESCRIPTION}
            },
            "data": self.data(),
        }))
    }

    fn mended(&self, found: &ConfigMap) -> Option<ConfigMap> {
        if found.data.as_ref() == Some(&self.data()) && found.binary_data.is_none() {
            return None;
        }
        // Everything else that was put there goes: the name stands for the CA alone.
        Some(ConfigMap {
            data: Some(self.data()),
            binary_data: None,
            ..found.clone()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::fake::FakeApi;
    use crate::runtime::{Controller, Key};

    #[tokio::test]
    async fn publishes_the_certificate_and_mends_what_others_change() {
        let api = FakeApi::new();
        let controller =
            RootCaController::new(api.clone(), "PEM".into(), Arc::default(), Arc::default());
        api.seed::<Namespace>(json!({"metadata": {"name": "shop"}}));
        let work = async || {
            api.pump(&controller.namespaces);
            api.pump(&controller.objects);
            for key in controller.queue.take_all() {
                controller.reconcile(&key).await.unwrap();
            }
        };
        work().await;
        let certificate = || api.all::<ConfigMap>()[0].data.clone().unwrap()[FILE].clone();
        assert_eq!(certificate(), "PEM");
        api.change(
            "configmaps",
            &Key::new("shop", NAME),
            json!({"data": {FILE: "evil"}}),
        );
        work().await;
        assert_eq!(certificate(), "PEM");
        api.take_requests();
        work().await;
        assert!(api.take_requests().is_empty());
    }
}
