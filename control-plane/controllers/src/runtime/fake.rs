//! An API server's worth of state for tests: requests change it and are recorded, and its
//! objects can be pumped into informers.

use std::{collections::BTreeMap, sync::Arc};

use kube::{
    Resource,
    api::{DeleteParams, DynamicObject, PropagationPolicy},
    core::ApiResource,
};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::{
    Informer, Key,
    writer::{Served, Target, WriteError, Writer, resource_of},
};

/// (plural, namespace, name)
type Path = (String, String, String);

#[derive(Default)]
struct State {
    objects: BTreeMap<Path, Value>,
    requests: Vec<String>,
    revision: u64,
    failures: Vec<(String, WriteError)>,
    allowed: Vec<String>,
    /// Everything that a watch would have said.
    log: Vec<Change>,
    /// Pods on nodes end only when the node says so, as in real life.
    graceful: bool,
}

#[derive(Clone)]
struct Change {
    plural: String,
    object: Value,
    removed: bool,
}

/// See the module.
#[derive(Default)]
pub(crate) struct FakeApi {
    state: Mutex<State>,
}

pub(crate) fn refused(code: u16, reason: &str, message: &str) -> WriteError {
    WriteError::Refused {
        request: "test".into(),
        code,
        reason: reason.into(),
        message: message.into(),
    }
}

/// Where a kind's objects are: pods and what is measured of them have the same plural.
fn plural_of(resource: &ApiResource) -> String {
    match resource.group.as_str() {
        "metrics.k8s.io" => format!("{}.{}", resource.plural, resource.group),
        _ => resource.plural.clone(),
    }
}

fn path(target: Target<'_>) -> Path {
    (
        plural_of(target.resource),
        target.namespace.into(),
        target.name.into(),
    )
}

fn merge(into: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *into = patch.clone();
        return;
    };
    if !into.is_object() {
        *into = Value::Object(Map::new());
    }
    let Value::Object(into) = into else { return };
    for (key, value) in patch {
        if value.is_null() {
            into.remove(key);
        } else {
            merge(into.entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}

impl FakeApi {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Puts an object there as is, with uid, creation time and resourceVersion if it lacks them.
    pub(crate) fn seed<K>(&self, object: Value) -> K
    where
        K: Resource<DynamicType = ()> + DeserializeOwned,
    {
        let resource = resource_of::<K>();
        let mut state = self.state.lock();
        let stored = state.store(&resource.plural, object);
        serde_json::from_value(stored).unwrap()
    }

    /// Puts an object of any kind there as is.
    pub(crate) fn seed_dynamic(&self, plural: &str, object: Value) {
        self.state.lock().store(plural, object);
    }

    /// Access reviews of this user and `resource/subresource` are answered with yes.
    pub(crate) fn allow(&self, user: &str, resource: &str) {
        self.state.lock().allowed.push(format!("{user} {resource}"));
    }

    /// The next request that begins with `request` (e.g. `create pods`) fails.
    pub(crate) fn fail(&self, request: &str, error: WriteError) {
        self.state.lock().failures.push((request.into(), error));
    }

    /// Requests so far, e.g. `create pods shop/web-x`.
    pub(crate) fn take_requests(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().requests)
    }

    /// All objects of a kind.
    pub(crate) fn all<K>(&self) -> Vec<K>
    where
        K: Resource<DynamicType = ()> + DeserializeOwned,
    {
        let plural = resource_of::<K>().plural;
        let state = self.state.lock();
        let objects = state
            .objects
            .iter()
            .filter(|((kind, _, _), _)| *kind == plural);
        objects
            .map(|(_, object)| serde_json::from_value(object.clone()).unwrap())
            .collect()
    }

    /// Changes an object behind everybody's back.
    pub(crate) fn change(&self, plural: &str, key: &Key, patch: Value) {
        let mut state = self.state.lock();
        let path = (plural.to_owned(), key.namespace.clone(), key.name.clone());
        state.revision += 1;
        let revision = state.revision;
        let object = state.objects.get_mut(&path).unwrap();
        merge(object, &patch);
        object["metadata"]["resourceVersion"] = revision.to_string().into();
        let object = object.clone();
        state.log.push(Change {
            plural: plural.to_owned(),
            object,
            removed: false,
        });
    }

    /// Removes an object behind everybody's back.
    pub(crate) fn remove(&self, plural: &str, key: &Key) {
        let path = (plural.to_owned(), key.namespace.clone(), key.name.clone());
        self.state.lock().remove(&path);
    }

    /// From now on a pod on a node that is deleted stays until [`FakeApi::kill`].
    pub(crate) fn delete_gracefully(&self) {
        self.state.lock().graceful = true;
    }

    /// Somebody deletes an object.
    pub(crate) fn delete_as_user(&self, plural: &str, key: &Key) {
        let path = (plural.to_owned(), key.namespace.clone(), key.name.clone());
        self.state.lock().delete(&path, None);
    }

    /// The node has ended a deleted pod.
    pub(crate) fn kill(&self, key: &Key) {
        self.change(
            "pods",
            key,
            json!({"metadata": {"deletionGracePeriodSeconds": 0}}),
        );
        let path = ("pods".to_owned(), key.namespace.clone(), key.name.clone());
        let mut state = self.state.lock();
        let held = state.objects.get(&path).is_some_and(State::is_held);
        if !held {
            state.remove(&path);
        }
    }

    /// Brings an informer up to date.
    pub(crate) fn pump<K>(&self, informer: &Informer<K>)
    where
        K: Resource<DynamicType = ()> + DeserializeOwned + std::fmt::Debug + Send + Sync + 'static,
    {
        use kube::runtime::watcher::Event;
        informer.observe(Event::Init);
        for object in self.all::<K>() {
            informer.observe(Event::InitApply(object));
        }
        informer.observe(Event::InitDone);
    }

    /// The place in the log that a list of now has.
    pub(crate) fn now(&self) -> usize {
        self.state.lock().log.len()
    }

    /// Gives an informer the changes of its kind from `place` on, `most` at most, one by one as a
    /// watch does. Gives the place after them.
    pub(crate) fn follow<K>(&self, informer: &Informer<K>, place: usize, most: usize) -> usize
    where
        K: Resource<DynamicType = ()> + DeserializeOwned + std::fmt::Debug + Send + Sync + 'static,
    {
        use kube::runtime::watcher::Event;
        let plural = resource_of::<K>().plural;
        let (end, changes) = {
            let log = &self.state.lock().log;
            let of_kind = |(_, change): &(usize, &Change)| change.plural == plural;
            let later = log.iter().enumerate().skip(place).filter(of_kind);
            let changes: Vec<(usize, Change)> =
                later.take(most).map(|(at, c)| (at, c.clone())).collect();
            (log.len(), changes)
        };
        let next = match changes.last() {
            Some((at, _)) if changes.len() == most => at + 1,
            _ => end,
        };
        for (_, change) in changes {
            let object = serde_json::from_value(change.object).unwrap();
            informer.observe(match change.removed {
                true => Event::Delete(object),
                false => Event::Apply(object),
            });
        }
        next
    }
}

impl State {
    fn store(&mut self, plural: &str, mut object: Value) -> Value {
        self.revision += 1;
        let revision = self.revision;
        let meta = &mut object["metadata"];
        if meta.get("name").is_none() {
            let prefix = meta["generateName"].as_str().unwrap().to_owned();
            meta["name"] = format!("{prefix}{revision:05}").into();
        }
        for (field, value) in [
            ("uid", json!(format!("uid-{revision}"))),
            // Later objects are younger.
            (
                "creationTimestamp",
                json!(format!(
                    "2026-01-01T{:02}:{:02}:{:02}Z",
                    revision / 3600,
                    revision / 60 % 60,
                    revision % 60
                )),
            ),
        ] {
            if meta.get(field).is_none() {
                meta[field] = value;
            }
        }
        meta["resourceVersion"] = revision.to_string().into();
        let path = (
            plural.to_owned(),
            meta["namespace"].as_str().unwrap_or_default().to_owned(),
            meta["name"].as_str().unwrap().to_owned(),
        );
        self.objects.insert(path, object.clone());
        self.log.push(Change {
            plural: plural.to_owned(),
            object: object.clone(),
            removed: false,
        });
        object
    }

    fn remove(&mut self, path: &Path) {
        if let Some(object) = self.objects.remove(path) {
            self.log.push(Change {
                plural: path.0.clone(),
                object,
                removed: true,
            });
        }
    }

    fn delete(&mut self, path: &Path, policy: Option<PropagationPolicy>) {
        let Some(mut object) = self.objects.get(path).cloned() else {
            return;
        };
        if policy == Some(PropagationPolicy::Foreground) {
            object["metadata"]["finalizers"] = json!(["foregroundDeletion"]);
        }
        let phase = object["status"]["phase"].as_str();
        let ended = matches!(phase, Some("Succeeded" | "Failed"));
        let on_node = path.0 == "pods" && object["spec"]["nodeName"].is_string();
        if self.graceful && on_node && !ended {
            object["metadata"]["deletionGracePeriodSeconds"] = 30.into();
        }
        let finalizers = object["metadata"]["finalizers"].as_array();
        if finalizers.is_some_and(|list| !list.is_empty()) || State::is_held(&object) {
            object["metadata"]["deletionTimestamp"] = "2026-02-01T00:00:00Z".into();
            self.store(&path.0, object);
        } else {
            self.remove(path);
        }
    }

    /// Something still keeps the object although it is deleted.
    fn is_held(object: &Value) -> bool {
        let meta = &object["metadata"];
        // A namespace is held by the finalizers of its spec too.
        let finalizers = [&meta["finalizers"], &object["spec"]["finalizers"]];
        let finalizers = finalizers
            .iter()
            .any(|list| list.as_array().is_some_and(|list| !list.is_empty()));
        finalizers || meta["deletionGracePeriodSeconds"].as_i64().unwrap_or(0) > 0
    }

    fn request(
        &mut self,
        verb: &str,
        target: Target<'_>,
        sub: Option<&str>,
    ) -> Result<(), WriteError> {
        let sub = sub.map(|sub| format!("/{sub}")).unwrap_or_default();
        let request = format!("{verb} {target}{sub}");
        let failure = self
            .failures
            .iter()
            .position(|(start, _)| request.starts_with(start));
        if verb != "get" && verb != "list" {
            self.requests.push(request);
        }
        match failure {
            Some(index) => Err(self.failures.remove(index).1),
            None => Ok(()),
        }
    }

    fn reviewed(&self, mut review: Value) -> Value {
        let spec = &review["spec"];
        let what = &spec["resourceAttributes"];
        let asked = [&spec["user"], &what["resource"], &what["subresource"]]
            .map(|part| part.as_str().unwrap_or_default());
        let asked = format!("{} {}/{}", asked[0], asked[1], asked[2]);
        review["status"] = json!({"allowed": self.allowed.contains(&asked)});
        review
    }

    fn existing(&mut self, target: Target<'_>) -> Result<&mut Value, WriteError> {
        self.objects
            .get_mut(&path(target))
            .ok_or_else(|| refused(404, "NotFound", &format!("{target} not found")))
    }

    /// Checks the preconditions in a body.
    fn checked(&mut self, target: Target<'_>, body: &Value) -> Result<&mut Value, WriteError> {
        let object = self.existing(target)?;
        for field in ["uid", "resourceVersion"] {
            let wanted = &body["metadata"][field];
            if !wanted.is_null() && *wanted != object["metadata"][field] {
                return Err(refused(
                    409,
                    "Conflict",
                    &format!("{target}: {field} differs"),
                ));
            }
        }
        Ok(object)
    }
}

#[async_trait::async_trait]
impl Writer for FakeApi {
    async fn resources(&self) -> Result<Vec<Served>, WriteError> {
        use k8s_openapi::api::{apps::v1 as apps, core::v1 as core};
        let served = |resource: ApiResource, namespaced: bool| Served {
            resource,
            namespaced,
            verbs: ["list", "watch", "delete"].map(String::from).to_vec(),
        };
        Ok(vec![
            served(resource_of::<core::Node>(), false),
            served(resource_of::<core::ConfigMap>(), true),
            served(resource_of::<core::Pod>(), true),
            served(resource_of::<apps::ReplicaSet>(), true),
            served(resource_of::<apps::Deployment>(), true),
        ])
    }

    async fn get(&self, target: Target<'_>) -> Result<Value, WriteError> {
        let mut state = self.state.lock();
        state.request("get", target, None)?;
        state.existing(target).cloned()
    }

    /// A scale as that of a Deployment; custom kinds name their selector in the status.
    async fn get_part(
        &self,
        target: Target<'_>,
        subresource: &'static str,
    ) -> Result<Value, WriteError> {
        let mut state = self.state.lock();
        state.request("get", target, Some(subresource))?;
        let object = state.existing(target)?.clone();
        let labels = object["spec"]["selector"]["matchLabels"].as_object();
        let labels: Vec<String> = labels
            .into_iter()
            .flatten()
            .map(|(name, value)| format!("{name}={}", value.as_str().unwrap()))
            .collect();
        Ok(json!({
            "metadata": object["metadata"],
            "spec": {"replicas": object["spec"]["replicas"]},
            "status": {"replicas": object["status"]["replicas"], "selector": labels.join(",")}
        }))
    }

    async fn list(&self, target: Target<'_>) -> Result<Vec<DynamicObject>, WriteError> {
        let mut state = self.state.lock();
        state.request("list", target, None)?;
        let objects = state.objects.iter().filter(|((plural, namespace, _), _)| {
            *plural == plural_of(target.resource)
                && (target.namespace.is_empty() || namespace == target.namespace)
        });
        Ok(objects
            .map(|(_, object)| serde_json::from_value(object.clone()).unwrap())
            .collect())
    }

    async fn create(&self, target: Target<'_>, body: Value) -> Result<Value, WriteError> {
        let mut state = self.state.lock();
        state.request("create", target, None)?;
        if target.resource.kind == "SubjectAccessReview" {
            return Ok(state.reviewed(body));
        }
        if !target.name.is_empty() && state.objects.contains_key(&path(target)) {
            return Err(refused(
                409,
                "AlreadyExists",
                &format!("{target} already exists"),
            ));
        }
        Ok(state.store(&target.resource.plural, body))
    }

    async fn replace(
        &self,
        target: Target<'_>,
        subresource: Option<&'static str>,
        body: Value,
    ) -> Result<Value, WriteError> {
        let mut state = self.state.lock();
        state.request("replace", target, subresource)?;
        state.checked(target, &body)?;
        Ok(state.store(&target.resource.plural, body))
    }

    async fn patch(
        &self,
        target: Target<'_>,
        subresource: Option<&'static str>,
        body: Value,
    ) -> Result<Value, WriteError> {
        let mut state = self.state.lock();
        state.request("patch", target, subresource)?;
        let mut object = state.checked(target, &body)?.clone();
        let spec = object.get("spec").cloned();
        merge(&mut object, &body);
        if object.get("spec").cloned() != spec {
            let generation = object["metadata"]["generation"].as_i64().unwrap_or(1);
            object["metadata"]["generation"] = (generation + 1).into();
        }
        let finished =
            object["metadata"].get("deletionTimestamp").is_some() && !State::is_held(&object);
        let stored = state.store(&target.resource.plural, object);
        if finished {
            state.remove(&path(target));
        }
        Ok(stored)
    }

    async fn delete(&self, target: Target<'_>, options: DeleteParams) -> Result<(), WriteError> {
        let mut state = self.state.lock();
        state.request("delete", target, None)?;
        let uid = options.preconditions.and_then(|conditions| conditions.uid);
        state.checked(target, &json!({"metadata": {"uid": uid}}))?;
        state.delete(&path(target), options.propagation_policy);
        Ok(())
    }
}

/// Rounds after which a controller counts as one that never comes to rest.
const MAX_ROUNDS: usize = 100;

/// Works on what is queued until nothing is, with informers that are up to date. Errors are tried
/// again, so a controller that cannot get on fails the test.
pub(crate) async fn settle(controller: &dyn super::Controller, pump: impl Fn()) {
    for _ in 0..MAX_ROUNDS {
        pump();
        let keys = controller.queue().take_all();
        if keys.is_empty() {
            return;
        }
        for key in keys {
            if let Err(error) = controller.reconcile(&key).await {
                tracing::debug!(%key, %error, "again");
                controller.queue().add(key);
            }
        }
    }
    panic!("{} never comes to rest", controller.name());
}
