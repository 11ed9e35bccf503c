//! Which extensions answer: their condition `Available`, their discovery and OpenAPI.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::join_all;
use http::{Request, header};
use http_body_util::{BodyExt, Full, Limited};
use hull_api::{
    ApiError, ObjectExt,
    kinds::{
        API_SERVICE_AVAILABLE, API_SERVICES, CUSTOM_RESOURCE_DEFINITIONS, ENDPOINT_SLICES,
        SERVICES, definition_condition,
    },
};
use hull_store::prefix_range;
use serde_json::Value;

use super::{Extension, local, table::Known};
use crate::{
    handlers::Backend, limits, storage::Outcome, watch_cache::WatchCache,
    webhook_client::SERVICE_NAME,
};

/// Why an extension does not answer: the condition's reason and message.
type Absent = (&'static str, String);

/// Follows the APIServices until the cache is gone.
pub(crate) async fn run(backend: Arc<Backend>) {
    let subscribe = |storage| backend.cache.subscribe(storage);
    let (Some(mut services), Some(mut definitions), Some(mut slices), Some(mut targets)) = (
        subscribe(API_SERVICES.storage),
        subscribe(CUSTOM_RESOURCE_DEFINITIONS.storage),
        subscribe(ENDPOINT_SLICES.storage),
        subscribe(SERVICES.storage),
    ) else {
        return;
    };
    loop {
        for changed in [&mut services, &mut definitions, &mut slices, &mut targets] {
            changed.mark_unchanged();
        }
        if let Err(error) = local::reconcile(&backend).await {
            tracing::warn!(%error, "local APIServices: trying again");
        }
        backend.aggregation.refresh(&backend.cache);
        let extensions = backend.aggregation.current();
        let checks = extensions.iter().map(|one| check(&backend, one));
        let all_there = join_all(checks).await.into_iter().all(|there| there);
        let wait = if all_there {
            limits::AVAILABILITY_INTERVAL
        } else {
            limits::AVAILABILITY_RETRY
        };
        let concerned = !extensions.is_empty();
        let outcome = tokio::select! {
            () = tokio::time::sleep(wait) => Ok(()),
            changed = services.changed() => changed,
            changed = definitions.changed() => changed,
            changed = slices.changed(), if concerned => changed,
            changed = targets.changed(), if concerned => changed,
        };
        if outcome.is_err() {
            return;
        }
        // Whoever changes endpoints all the time has nobody asked all the time.
        tokio::time::sleep(limits::AVAILABILITY_RETRY).await;
    }
}

/// Asks one extension and notes what it says; true when it answers.
async fn check(backend: &Backend, extension: &Extension) -> bool {
    let before = extension.known();
    let outcome = match reachable(&backend.cache, extension) {
        Err(absent) => Err(absent),
        Ok(()) => ask(&backend.cache, extension).await,
    };
    let (available, reason, message) = match outcome {
        Ok(known) => {
            extension.learn(known);
            (true, "Passed", "all checks passed".to_string())
        }
        Err((reason, message)) => {
            extension.learn(Known {
                available: false,
                ..before
            });
            (false, reason, message)
        }
    };
    if let Err(error) = write(backend, extension, available, reason, &message).await {
        tracing::warn!(apiservice = extension.name, %error, "cannot write the condition");
    }
    available
}

async fn write(
    backend: &Backend,
    extension: &Extension,
    available: bool,
    reason: &str,
    message: &str,
) -> Result<(), ApiError> {
    let kind = &API_SERVICES;
    let Some(stored) = backend.storage.get(kind, "", &extension.name).await? else {
        return Ok(());
    };
    let mut object = stored.object.clone();
    definition_condition(
        &mut object,
        API_SERVICE_AVAILABLE,
        available,
        reason,
        message,
    );
    if object == stored.object {
        return Ok(());
    }
    let outcome = backend.storage.replace(kind, &mut object, stored.revision);
    if let Outcome::Done(revision) = outcome.await? {
        tracing::info!(
            apiservice = extension.name,
            available,
            reason,
            revision,
            "availability"
        );
    }
    Ok(())
}

/// What can be told without asking: the service, its port and its endpoints are there.
fn reachable(cache: &WatchCache, extension: &Extension) -> Result<(), Absent> {
    let at = |field: &str| extension.spec.str_at(&format!("/service/{field}"));
    let (namespace, name) = (at("namespace"), at("name"));
    let port = extension.spec.int_at("/service/port").unwrap_or(443);
    let Some(service) = cache.get(SERVICES.storage, &SERVICES.key(namespace, name)) else {
        let words = format!("service/{name} in {namespace:?} is not present");
        return Err(("ServiceNotFound", words));
    };
    if service.kept().str_at("/spec/type") != "ClusterIP" {
        return Ok(());
    }
    let ports = service.kept().list_at("/spec/ports");
    let Some(wanted) = ports.iter().find(|one| one.int_at("/port") == Some(port)) else {
        let words = format!("service/{name} in {namespace:?} is not listening on port {port}");
        return Err(("ServicePortError", words));
    };
    let range = prefix_range(&ENDPOINT_SLICES.prefix(namespace));
    let snapshot = cache.snapshot(ENDPOINT_SLICES.storage, range);
    let mut slices = snapshot
        .objects
        .iter()
        .filter(|slice| slice.label(SERVICE_NAME) == Some(name))
        .map(|slice| slice.kept())
        .peekable();
    if slices.peek().is_none() {
        let words = format!("cannot find endpointslices for service/{name} in {namespace:?}");
        return Err(("EndpointsNotFound", words));
    }
    let port_name = wanted.str_at("/name");
    let serves = |slice: &Value| {
        let named = |one: &Value| one.str_at("/name") == port_name;
        let ready = |one: &Value| one.pointer("/conditions/ready") != Some(&Value::Bool(false));
        slice.list_at("/ports").iter().any(named) && slice.list_at("/endpoints").iter().any(ready)
    };
    if slices.any(serves) {
        return Ok(());
    }
    let words = format!(
        "endpoints for service/{name} in {namespace:?} have no addresses with port name {port_name:?}"
    );
    Err(("MissingEndpoints", words))
}

/// Asks for the resources, which is also the proof of life, and for the OpenAPI document.
async fn ask(cache: &WatchCache, extension: &Extension) -> Result<Known, Absent> {
    let root = extension.root();
    let failed = |why: String| {
        let words = format!("failing or missing response from {root}: {why}");
        ("FailedDiscoveryCheck", words)
    };
    let limit = limits::AVAILABILITY_TIMEOUT;
    let asked = async {
        let bytes = get(cache, extension, &root).await?;
        let resources: Value = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
        // An extension need not describe itself.
        let open_api = get(cache, extension, &format!("/openapi/v3{root}")).await;
        Ok::<_, String>(Known {
            available: true,
            resources: Some(resources),
            open_api: open_api.ok(),
        })
    };
    match tokio::time::timeout(limit, asked).await {
        Ok(outcome) => outcome.map_err(failed),
        Err(_) => Err(failed(format!("no answer within {} s", limit.as_secs()))),
    }
}

async fn get(cache: &WatchCache, extension: &Extension, path: &str) -> Result<Bytes, String> {
    let client = extension.client.as_ref().map_err(Clone::clone)?;
    let request = Request::get(path)
        .header(header::ACCEPT, "application/json")
        .header("x-remote-user", "system:kube-aggregator")
        .header("x-remote-group", "system:masters")
        .body(Full::new(Bytes::new()))
        .map_err(|error| error.to_string())?;
    let response = client.exchange(cache, request).await;
    let response = response.map_err(|error| error.to_string())?;
    let status = response.status();
    if !status.is_success() {
        return Err(format!("bad status: {}", status.as_u16()));
    }
    let body = Limited::new(response.into_body(), limits::MAX_BODY_BYTES).collect();
    let body = body.await.map_err(|error| error.to_string())?;
    Ok(body.to_bytes())
}
