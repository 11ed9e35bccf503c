//! DefaultBinder: POST to the pod's `binding` subresource.

use k8s_openapi::api::core::v1::{Binding, ObjectReference, Pod};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};

use crate::{
    framework::{Bind, BindError, Plugin},
    pod::PodInfo,
};

/// See the module.
pub struct DefaultBinder {
    client: Client,
}

impl DefaultBinder {
    /// Binds through this client.
    pub fn new(client: Client) -> Self {
        DefaultBinder { client }
    }
}

impl Plugin for DefaultBinder {
    fn name(&self) -> &'static str {
        "DefaultBinder"
    }
}

#[async_trait::async_trait]
impl Bind for DefaultBinder {
    async fn bind(&self, pod: &PodInfo, node: &str) -> Result<(), BindError> {
        let binding = Binding {
            metadata: ObjectMeta {
                name: Some(pod.name().to_owned()),
                namespace: Some(pod.namespace().to_owned()),
                uid: Some(pod.uid.to_string()),
                ..ObjectMeta::default()
            },
            target: ObjectReference {
                api_version: Some("v1".into()),
                kind: Some("Node".into()),
                name: Some(node.to_owned()),
                ..ObjectReference::default()
            },
        };
        let pods = Api::<Pod>::namespaced(self.client.clone(), pod.namespace());
        let answer: Result<serde_json::Value, _> = pods
            .create_subresource("binding", pod.name(), &PostParams::default(), &binding)
            .await;
        match answer {
            Ok(_) => Ok(()),
            Err(error @ kube::Error::Api(_)) if is_not_found(&error) => Err(BindError::Gone(error)),
            Err(error) => Err(BindError::Failed(error)),
        }
    }
}

fn is_not_found(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}
