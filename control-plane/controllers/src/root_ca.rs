//! Publishes the cluster's CA to each namespace, as the ConfigMap `kube-root-ca.crt` that pods
//! mount beside their token.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use serde_json::json;

use crate::{
    namespace::is_active,
    runtime::{Action, Controller, Informer, Key, ReconcileError, WorkQueue, Writer},
};

/// The ConfigMap's name.
pub(crate) const NAME: &str = "kube-root-ca.crt";
const FILE: &str = "ca.crt";
const DESCRIPTION: &str = "Contains a CA bundle that can be used to verify the kube-apiserver \
     when using internal endpoints such as the internal service IP or kubernetes.default.svc. \
     No other usage is guaranteed across distributions of Kubernetes clusters.";

/// See the module.
pub struct RootCaController {
    writer: Arc<dyn Writer>,
    certificate: String,
    namespaces: Arc<Informer<Namespace>>,
    maps: Arc<Informer<ConfigMap>>,
    queue: Arc<WorkQueue>,
}

impl RootCaController {
    /// Publishes `certificate` (PEM). `maps` need hold only those of this name.
    pub fn new(
        writer: Arc<dyn Writer>,
        certificate: String,
        namespaces: Arc<Informer<Namespace>>,
        maps: Arc<Informer<ConfigMap>>,
    ) -> Arc<Self> {
        let queue = Arc::new(WorkQueue::default());
        namespaces.on_change({
            let queue = queue.clone();
            move |delta| queue.add(Key::of(&**delta.newest()))
        });
        maps.on_change({
            let queue = queue.clone();
            move |delta| {
                let map = delta.newest();
                if map.metadata.name.as_deref() == Some(NAME) {
                    queue.add(Key::new(
                        "",
                        map.metadata.namespace.clone().unwrap_or_default(),
                    ));
                }
            }
        });
        Arc::new(RootCaController {
            writer,
            certificate,
            namespaces,
            maps,
            queue,
        })
    }
}

#[async_trait::async_trait]
impl Controller for RootCaController {
    fn name(&self) -> &'static str {
        "root-ca-certificate-publisher"
    }

    fn queue(&self) -> &Arc<WorkQueue> {
        &self.queue
    }

    async fn reconcile(&self, key: &Key) -> Result<Action, ReconcileError> {
        if !self
            .namespaces
            .get(key)
            .is_some_and(|namespace| is_active(&namespace))
        {
            return Ok(Action::Done);
        }
        let data = BTreeMap::from([(FILE.to_owned(), self.certificate.clone())]);
        let outcome = match self.maps.get(&Key::new(&*key.name, NAME)) {
            Some(map) if map.data.as_ref() == Some(&data) => return Ok(Action::Done),
            Some(map) => {
                // Everything else that was put there goes: the name stands for the CA alone.
                let mut wanted = ConfigMap {
                    data: Some(data),
                    ..(*map).clone()
                };
                wanted.binary_data = None;
                self.writer.replace_object(&wanted).await
            }
            None => {
                let map: ConfigMap = crate::runtime::writer::object(json!({
                    "metadata": {
                        "name": NAME, "namespace": key.name,
                        "annotations": {"kubernetes.io/description": DESCRIPTION}
                    },
                    "data": data,
                }))?;
                self.writer.create_object(&map).await
            }
        };
        match outcome {
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
    async fn publishes_the_certificate_and_mends_what_others_change() {
        let api = FakeApi::new();
        let controller =
            RootCaController::new(api.clone(), "PEM".into(), Arc::default(), Arc::default());
        api.seed::<Namespace>(json!({"metadata": {"name": "shop"}}));
        let work = async || {
            api.pump(&controller.namespaces);
            api.pump(&controller.maps);
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
