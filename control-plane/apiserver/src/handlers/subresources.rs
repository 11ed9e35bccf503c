//! What is created through subresources, and the first of them: `pods/binding`.

use http::StatusCode;
use hull_api::{
    ApiError, ObjectExt,
    field::{Errors, Path},
    kinds::{PODS, pod},
    registry::Subresource,
    status::ResourceName,
    time,
};
use serde_json::{Value, json};

use super::{
    Context, HandlerResult,
    read_body::{Expected, check_namespace, read_as},
    update::failed_precondition,
};
use crate::{
    admission::dynamic::{self, Operation},
    http::Output,
    limits,
    storage::Outcome,
};

const BINDINGS: ResourceName<'static> = ResourceName {
    group: "",
    resource: "pods/binding",
};

pub(super) const BINDING: Expected<'static> = Expected::built_in("Binding", "v1", "core.Binding");
pub(super) const EVICTION: Expected<'static> =
    Expected::built_in("Eviction", "policy/v1", "policy.Eviction");
pub(super) const TOKEN_REQUEST: Expected<'static> = Expected::built_in(
    "TokenRequest",
    "authentication.k8s.io/v1",
    "authentication.TokenRequest",
);

/// Lets policies and webhooks change and judge an object that is created through a subresource.
pub(super) async fn admit_part(
    context: &Context<'_>,
    expected: &Expected<'_>,
    object: &mut Value,
    dry_run: bool,
) -> Result<(), ApiError> {
    let create = Operation::Create;
    if dynamic::mutate(context, create, object, None, dry_run).await? {
        expected.conform_changed(object)?;
    }
    dynamic::validate(context, create, Some(object), None, dry_run).await
}

fn success() -> Value {
    json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "code": 201,
    })
}

/// The answer to something done.
pub(super) fn created(context: &Context<'_>) -> http::Response<crate::ApiBody> {
    Output {
        kind: context.kind,
        accept: context.accept,
        status: StatusCode::CREATED,
        object: &success(),
        warnings: &[],
    }
    .into_response()
}

/// A Binding that is created by itself: the pod is the one that it is named after.
pub(super) async fn bind_named(verb: &str, context: &Context<'_>) -> HandlerResult {
    if verb != "create" || !context.name.is_empty() {
        return Err(ApiError::method_not_allowed(Some(context.kind.resource())));
    }
    let binding = read_as(context, &BINDING)?.object;
    if binding.name().is_empty() {
        let mut errors = Errors::default();
        errors.required(&Path::new("metadata.name"), "name is required");
        return Err(ApiError::invalid("", "Binding", "", errors.into_vec()));
    }
    let of_pod = Context {
        kind: &PODS,
        name: binding.name(),
        subresource: Some(Subresource::Binding),
        through: Subresource::Binding.info().name,
        body: context.body.clone(),
        custom: None,
        ..*context
    };
    bind(&of_pod).await
}

/// The scheduler's decision: sets `spec.nodeName`, once.
pub(super) async fn bind(context: &Context<'_>) -> HandlerResult {
    let mut binding = read_as(context, &BINDING)?.object;
    check_namespace(context.kind, context.namespace, &mut binding)?;
    if binding.name() != context.name {
        return Err(ApiError::bad_request(
            "name in URL does not match name in Binding object",
        ));
    }
    let dry_run = context.query.dry_run("CreateOptions", context.name)?;
    admit_part(context, &BINDING, &mut binding, dry_run).await?;
    let node = binding.str_at("/target/name");
    let mut errors = Errors::default();
    if !matches!(binding.str_at("/target/kind"), "" | "Node") {
        errors.not_supported(
            &Path::new("target.kind"),
            binding.str_at("/target/kind"),
            &["Node"],
        );
    }
    if node.is_empty() {
        errors.required(&Path::new("target.name"), "");
    }
    if !errors.is_empty() {
        return Err(ApiError::invalid(
            "",
            "Binding",
            binding.name(),
            errors.into_vec(),
        ));
    }
    let storage = &context.backend.storage;
    for _ in 0..limits::UPDATE_RETRIES {
        let mut stored = storage
            .must_get(context.kind, context.namespace, context.name)
            .await?;
        let pod = &mut stored.object;
        check_bindable(pod, &binding)?;
        assign(pod, &binding, node);
        if dry_run {
            return Ok(created(context));
        }
        if let Outcome::Done(_) = storage.replace(context.kind, pod, stored.revision).await? {
            return Ok(created(context));
        }
    }
    Err(ApiError::modified(BINDINGS, context.name))
}

fn check_bindable(pod: &Value, binding: &Value) -> Result<(), ApiError> {
    let name = pod.name();
    let refuse = |why: String| Err(ApiError::conflict(BINDINGS, name, &why));
    if !binding.uid().is_empty() && binding.uid() != pod.uid() {
        let key = PODS.key(pod.namespace(), name);
        return refuse(failed_precondition(&key, binding.uid(), pod.uid()));
    }
    if pod.is_deleting() {
        return refuse(format!(
            "pod {name} is being deleted, cannot be assigned to a host"
        ));
    }
    if pod::is_gated(pod) {
        return refuse(format!("pod {name} has non-empty .spec.schedulingGates"));
    }
    let current = pod.str_at("/spec/nodeName");
    if !current.is_empty() {
        return refuse(format!(
            "pod {name} is already assigned to node {current:?}"
        ));
    }
    Ok(())
}

fn assign(pod: &mut Value, binding: &Value, node: &str) {
    pod.set_at(&["spec", "nodeName"], Value::from(node));
    for (key, value) in binding
        .map_at("/metadata/annotations")
        .into_iter()
        .flatten()
    {
        pod.set_at(&["metadata", "annotations", key], value.clone());
    }
    let mut conditions: Vec<Value> = pod
        .list_at("/status/conditions")
        .iter()
        .filter(|condition| condition.str_at("/type") != "PodScheduled")
        .cloned()
        .collect();
    conditions.push(json!({
        "type": "PodScheduled",
        "status": "True",
        "lastProbeTime": null,
        "lastTransitionTime": time::to_seconds(jiff::Timestamp::now()),
    }));
    pod.set_at(&["status", "conditions"], Value::Array(conditions));
}
