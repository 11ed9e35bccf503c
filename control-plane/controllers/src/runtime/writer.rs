//! Requests to the API server, behind a trait so that tests can record them.

use kube::{
    Api, Client, Resource,
    api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams},
    core::ApiResource,
    discovery::{Discovery, Scope},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

/// Objects per page of a list.
const LIST_PAGE: u32 = 500;

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The API server said no.
    #[error("{request}: {message}")]
    Refused {
        /// What was asked.
        request: String,
        /// HTTP status.
        code: u16,
        /// Kubernetes' reason, e.g. `AlreadyExists`.
        reason: String,
        /// Its words.
        message: String,
    },
    /// It could not be asked, or its answer not read.
    #[error("{request}: {source}")]
    Failed {
        /// What was asked.
        request: String,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl WriteError {
    fn has_reason(&self, wanted: &str) -> bool {
        matches!(self, WriteError::Refused { reason, .. } if reason == wanted)
    }

    /// The object is not there.
    pub fn is_not_found(&self) -> bool {
        matches!(self, WriteError::Refused { code: 404, .. })
    }

    /// The object is there already.
    pub fn is_already_exists(&self) -> bool {
        self.has_reason("AlreadyExists")
    }

    /// The object (or its uid) is not the one the request was made for.
    pub fn is_conflict(&self) -> bool {
        self.has_reason("Conflict")
    }

    /// The API server certainly did not do what was asked. Otherwise it may have.
    pub fn is_refusal(&self) -> bool {
        matches!(self, WriteError::Refused { code, .. } if (400..500).contains(code))
    }

    /// The namespace takes no new objects because it is being deleted.
    pub fn is_namespace_terminating(&self) -> bool {
        matches!(self, WriteError::Refused { code: 403, message, .. }
            if message.contains("because it is being terminated"))
    }

    /// The API server's own words, for events.
    pub fn message(&self) -> String {
        match self {
            WriteError::Refused { message, .. } => message.clone(),
            WriteError::Failed { source, .. } => source.to_string(),
        }
    }
}

/// One object (or, without a name, one collection).
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// Its kind.
    pub resource: &'a ApiResource,
    /// Empty: cluster-scoped.
    pub namespace: &'a str,
    /// Its name.
    pub name: &'a str,
}

impl std::fmt::Display for Target<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.resource.plural)?;
        if !self.namespace.is_empty() {
            write!(f, " {}/{}", self.namespace, self.name)
        } else {
            write!(f, " {}", self.name)
        }
    }
}

/// A kind that the API server serves.
#[derive(Debug, Clone)]
pub struct Served {
    /// Group, version, kind, plural.
    pub resource: ApiResource,
    /// Whether its objects are in namespaces.
    pub namespaced: bool,
    /// `list`, `delete` ...
    pub verbs: Vec<String>,
}

impl Served {
    /// Whether it has the verb.
    pub fn can(&self, verb: &str) -> bool {
        self.verbs.iter().any(|own| own == verb)
    }
}

/// The API server.
#[async_trait::async_trait]
pub trait Writer: Send + Sync + 'static {
    /// All kinds that are served, each at its preferred version.
    async fn resources(&self) -> Result<Vec<Served>, WriteError>;
    /// Reads one object past the informers.
    async fn get(&self, target: Target<'_>) -> Result<Value, WriteError>;
    /// Reads a subresource.
    async fn get_part(
        &self,
        target: Target<'_>,
        subresource: &'static str,
    ) -> Result<Value, WriteError>;
    /// Reads a collection past the informers.
    async fn list(&self, target: Target<'_>) -> Result<Vec<DynamicObject>, WriteError>;
    /// POST.
    async fn create(&self, target: Target<'_>, body: Value) -> Result<Value, WriteError>;
    /// PUT, of a subresource if one is named.
    async fn replace(
        &self,
        target: Target<'_>,
        subresource: Option<&'static str>,
        body: Value,
    ) -> Result<Value, WriteError>;
    /// PATCH (RFC 7396), of a subresource if one is named.
    async fn patch(
        &self,
        target: Target<'_>,
        subresource: Option<&'static str>,
        body: Value,
    ) -> Result<Value, WriteError>;
    /// DELETE.
    async fn delete(&self, target: Target<'_>, options: DeleteParams) -> Result<(), WriteError>;
}

/// The description of a built-in kind.
pub fn resource_of<K: Resource<DynamicType = ()>>() -> ApiResource {
    ApiResource::erase::<K>(&())
}

/// An object from its JSON.
pub fn object<K: DeserializeOwned>(json: Value) -> Result<K, WriteError> {
    serde_json::from_value(json).map_err(|source| WriteError::Failed {
        request: format!("make a {}", std::any::type_name::<K>()),
        source: Box::new(source),
    })
}

/// Typed requests.
impl dyn Writer {
    /// Creates; gives what was created.
    pub async fn create_object<K>(&self, object: &K) -> Result<K, WriteError>
    where
        K: Resource<DynamicType = ()> + Serialize + DeserializeOwned,
    {
        let resource = resource_of::<K>();
        let meta = object.meta();
        let target = Target {
            resource: &resource,
            namespace: meta.namespace.as_deref().unwrap_or_default(),
            name: meta.name.as_deref().unwrap_or_default(),
        };
        let failed = |source: serde_json::Error| WriteError::Failed {
            request: format!("create {target}"),
            source: Box::new(source),
        };
        let body = serde_json::to_value(object).map_err(failed)?;
        let created = self.create(target, body).await?;
        serde_json::from_value(created).map_err(failed)
    }

    /// Reads.
    pub async fn get_object<K>(&self, namespace: &str, name: &str) -> Result<K, WriteError>
    where
        K: Resource<DynamicType = ()> + DeserializeOwned,
    {
        let resource = resource_of::<K>();
        let target = Target {
            resource: &resource,
            namespace,
            name,
        };
        let value = self.get(target).await?;
        serde_json::from_value(value).map_err(|source| WriteError::Failed {
            request: format!("get {target}"),
            source: Box::new(source),
        })
    }

    /// Replaces an object that is known.
    pub async fn replace_object<K>(&self, object: &K) -> Result<K, WriteError>
    where
        K: Resource<DynamicType = ()> + Serialize + DeserializeOwned,
    {
        let resource = resource_of::<K>();
        let target = target_of(object, &resource);
        let failed = |source: serde_json::Error| WriteError::Failed {
            request: format!("replace {target}"),
            source: Box::new(source),
        };
        let body = serde_json::to_value(object).map_err(failed)?;
        let replaced = self.replace(target, None, body).await?;
        serde_json::from_value(replaced).map_err(failed)
    }

    /// Replaces the status of an object that is known, as it was in this version.
    pub async fn replace_status<K>(&self, object: &K) -> Result<Value, WriteError>
    where
        K: Resource<DynamicType = ()> + Serialize,
    {
        self.replace_part(object, "status").await
    }

    /// Replaces a subresource of an object that is known, as it was in this version.
    pub async fn replace_part<K>(
        &self,
        object: &K,
        subresource: &'static str,
    ) -> Result<Value, WriteError>
    where
        K: Resource<DynamicType = ()> + Serialize,
    {
        let resource = resource_of::<K>();
        let target = target_of(object, &resource);
        let body = serde_json::to_value(object).map_err(|source| WriteError::Failed {
            request: format!("replace {target}/{subresource}"),
            source: Box::new(source),
        })?;
        self.replace(target, Some(subresource), body).await
    }

    /// Patches (RFC 7396) an object that is known.
    pub async fn patch_object<K>(
        &self,
        object: &K,
        subresource: Option<&'static str>,
        body: Value,
    ) -> Result<Value, WriteError>
    where
        K: Resource<DynamicType = ()>,
    {
        let resource = resource_of::<K>();
        self.patch(target_of(object, &resource), subresource, body)
            .await
    }

    /// Deletes exactly this object (by uid).
    pub async fn delete_object<K>(
        &self,
        object: &K,
        options: DeleteParams,
    ) -> Result<(), WriteError>
    where
        K: Resource<DynamicType = ()>,
    {
        let resource = resource_of::<K>();
        let uid = object.meta().uid.clone();
        let preconditions = kube::api::Preconditions {
            uid,
            resource_version: None,
        };
        let options = DeleteParams {
            preconditions: Some(preconditions),
            ..options
        };
        self.delete(target_of(object, &resource), options).await
    }
}

fn target_of<'a, K: Resource>(object: &'a K, resource: &'a ApiResource) -> Target<'a> {
    Target {
        resource,
        namespace: object.meta().namespace.as_deref().unwrap_or_default(),
        name: object.meta().name.as_deref().unwrap_or_default(),
    }
}

/// The real one.
pub struct KubeWriter {
    client: Client,
}

impl KubeWriter {
    /// Through this client.
    pub fn new(client: Client) -> Self {
        KubeWriter { client }
    }

    fn api(&self, target: Target<'_>) -> Api<DynamicObject> {
        if target.namespace.is_empty() {
            Api::all_with(self.client.clone(), target.resource)
        } else {
            Api::namespaced_with(self.client.clone(), target.namespace, target.resource)
        }
    }
}

fn failed(verb: &str, target: Target<'_>, error: kube::Error) -> WriteError {
    let request = format!("{verb} {target}");
    match error {
        kube::Error::Api(status) => WriteError::Refused {
            request,
            code: status.code,
            reason: status.reason,
            message: status.message,
        },
        source => WriteError::Failed {
            request,
            source: Box::new(source),
        },
    }
}

fn value(verb: &str, target: Target<'_>, object: &DynamicObject) -> Result<Value, WriteError> {
    serde_json::to_value(object).map_err(|source| WriteError::Failed {
        request: format!("{verb} {target}"),
        source: Box::new(source),
    })
}

#[async_trait::async_trait]
impl Writer for KubeWriter {
    async fn resources(&self) -> Result<Vec<Served>, WriteError> {
        let discovery = Discovery::new(self.client.clone()).run().await;
        let discovery = discovery.map_err(|source| WriteError::Failed {
            request: "discover the served kinds".into(),
            source: Box::new(source),
        })?;
        let groups = discovery
            .groups()
            .flat_map(|group| group.recommended_resources());
        Ok(groups
            .map(|(resource, capabilities)| Served {
                resource,
                namespaced: capabilities.scope == Scope::Namespaced,
                verbs: capabilities.operations,
            })
            .collect())
    }

    async fn get(&self, target: Target<'_>) -> Result<Value, WriteError> {
        let object = self
            .api(target)
            .get(target.name)
            .await
            .map_err(|e| failed("get", target, e))?;
        value("get", target, &object)
    }

    async fn get_part(
        &self,
        target: Target<'_>,
        subresource: &'static str,
    ) -> Result<Value, WriteError> {
        let api = self.api(target);
        let part = api.get_subresource(subresource, target.name).await;
        value("get", target, &part.map_err(|e| failed("get", target, e))?)
    }

    async fn list(&self, target: Target<'_>) -> Result<Vec<DynamicObject>, WriteError> {
        let api = self.api(target);
        let mut params = ListParams::default().limit(LIST_PAGE);
        let mut items = Vec::new();
        loop {
            let page = api
                .list(&params)
                .await
                .map_err(|e| failed("list", target, e))?;
            items.extend(page.items);
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => return Ok(items),
            }
        }
    }

    async fn create(&self, target: Target<'_>, body: Value) -> Result<Value, WriteError> {
        let object: DynamicObject =
            serde_json::from_value(body).map_err(|source| WriteError::Failed {
                request: format!("create {target}"),
                source: Box::new(source),
            })?;
        let created = self
            .api(target)
            .create(&PostParams::default(), &object)
            .await
            .map_err(|e| failed("create", target, e))?;
        value("create", target, &created)
    }

    async fn replace(
        &self,
        target: Target<'_>,
        subresource: Option<&'static str>,
        body: Value,
    ) -> Result<Value, WriteError> {
        let api = self.api(target);
        let params = PostParams::default();
        let replaced = match subresource {
            Some(subresource) => {
                api.replace_subresource(subresource, target.name, &params, &body)
                    .await
            }
            None => match serde_json::from_value::<DynamicObject>(body) {
                Ok(object) => api.replace(target.name, &params, &object).await,
                Err(error) => Err(kube::Error::SerdeError(error)),
            },
        };
        value(
            "replace",
            target,
            &replaced.map_err(|e| failed("replace", target, e))?,
        )
    }

    async fn patch(
        &self,
        target: Target<'_>,
        subresource: Option<&'static str>,
        body: Value,
    ) -> Result<Value, WriteError> {
        let api = self.api(target);
        let params = PatchParams::default();
        let patch = Patch::Merge(body);
        let patched = match subresource {
            Some(subresource) => {
                api.patch_subresource(subresource, target.name, &params, &patch)
                    .await
            }
            None => api.patch(target.name, &params, &patch).await,
        };
        value(
            "patch",
            target,
            &patched.map_err(|e| failed("patch", target, e))?,
        )
    }

    async fn delete(&self, target: Target<'_>, options: DeleteParams) -> Result<(), WriteError> {
        match self.api(target).delete(target.name, &options).await {
            Ok(_) => Ok(()),
            Err(error) => Err(failed("delete", target, error)),
        }
    }
}
