//! Admission webhooks.

use std::{ops::RangeInclusive, sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use futures::future::join_all;
use hull_api::{
    ApiError, Kind, ObjectExt,
    kinds::{MUTATING_WEBHOOK_CONFIGURATIONS, VALIDATING_WEBHOOK_CONFIGURATIONS},
    names, patch, schema,
};
use serde_json::{Value, json};

use super::{
    Attributes, Operation,
    conditions::{self, Budget, Condition, Seen},
    current, is_same,
    matching::Matcher,
    objects,
};
use crate::{
    handlers::{Backend, Context},
    watch_cache::WatchCache,
    webhook_client::{CallError, Client},
};

/// When a webhook says nothing about its time.
const TIMEOUT_SECONDS: u64 = 10;
const REVIEW: &str = "admission.k8s.io/v1";
/// Codes that a denial may have; any other becomes the first.
const ERROR_CODES: RangeInclusive<i64> = 400..=999;

/// One webhook, ready to be called.
pub(super) struct Webhook {
    name: String,
    matcher: Matcher,
    /// Where it is and when it is asked; an error refuses or lets pass, as its policy says.
    ready: Result<(Client, Vec<Condition>), String>,
    fails_closed: bool,
    reinvoked: bool,
    timeout: Duration,
}

fn read_all(cache: &WatchCache, kind: &Kind) -> Vec<Webhook> {
    let configurations = objects(cache, kind);
    let webhooks = configurations
        .iter()
        .flat_map(|one| one.list_at("/webhooks"));
    webhooks.map(read).collect()
}

fn read(webhook: &Value) -> Webhook {
    let empty = Value::Null;
    let client = webhook.get("clientConfig").unwrap_or(&empty);
    let seconds = webhook.int_at("/timeoutSeconds");
    let seconds = seconds.and_then(|seconds| u64::try_from(seconds).ok());
    Webhook {
        name: webhook.str_at("/name").to_string(),
        matcher: Matcher::read(webhook, "rules"),
        ready: Client::read(client)
            .map_err(|error| error.to_string())
            .and_then(|client| {
                Ok((
                    client,
                    conditions::read(webhook, "/matchConditions", false)?,
                ))
            }),
        fails_closed: webhook.str_at("/failurePolicy") != "Ignore",
        reinvoked: webhook.str_at("/reinvocationPolicy") == "IfNeeded",
        timeout: Duration::from_secs(seconds.unwrap_or(TIMEOUT_SECONDS)),
    }
}

/// What a webhook said.
#[derive(Default)]
struct Verdict {
    patch: Option<Value>,
}

impl Webhook {
    /// Asks the webhook, if the write concerns it.
    async fn ask(&self, attributes: &Attributes<'_>) -> Result<Verdict, ApiError> {
        match self.try_ask(attributes).await {
            Ok(Ok(verdict)) => Ok(verdict),
            Ok(Err(denial)) => Err(denial),
            Err(why) if self.fails_closed => Err(ApiError::internal(format!(
                "failed calling webhook {:?}: {why}",
                self.name
            ))),
            Err(why) => {
                tracing::warn!(
                    webhook = self.name,
                    why,
                    "webhook failed, which its policy ignores"
                );
                Ok(Verdict::default())
            }
        }
    }

    /// The outer error: it could not be asked. The inner: it denies.
    async fn try_ask(
        &self,
        attributes: &Attributes<'_>,
    ) -> Result<Result<Verdict, ApiError>, String> {
        if !self.matcher.has_rules() || !self.matcher.matches(attributes) {
            return Ok(Ok(Verdict::default()));
        }
        let (client, conditions) = self.ready.as_ref().map_err(Clone::clone)?;
        if !conditions.is_empty() && !condition_holds(conditions, attributes)? {
            return Ok(Ok(Verdict::default()));
        }
        let uid = uuid::Uuid::new_v4().to_string();
        let mut request = attributes.request(&uid);
        request["object"] = attributes.object.cloned().unwrap_or_default();
        request["oldObject"] = attributes.old.cloned().unwrap_or_default();
        let review = json!({"apiVersion": REVIEW, "kind": "AdmissionReview", "request": request});
        let cache = &attributes.context.backend.cache;
        let answer = client
            .post(cache, &review, self.timeout)
            .await
            .map_err(|error: CallError| format!("failed to call webhook: {error}"))?;
        self.read_answer(attributes, &uid, &answer)
    }

    fn read_answer(
        &self,
        attributes: &Attributes<'_>,
        uid: &str,
        answer: &Value,
    ) -> Result<Result<Verdict, ApiError>, String> {
        let invalid = |why: &str| format!("invalid response: {why}");
        if answer.str_at("/apiVersion") != REVIEW {
            return Err(invalid(&format!(
                "expected webhook response of {REVIEW}, got {:?}",
                answer.str_at("/apiVersion")
            )));
        }
        let response = answer.get("response").filter(|one| one.is_object());
        let response = response.ok_or_else(|| invalid("webhook response was absent"))?;
        if response.str_at("/uid") != uid {
            return Err(invalid(&format!(
                "expected response.uid={uid:?}, got {:?}",
                response.str_at("/uid")
            )));
        }
        for warning in response
            .list_at("/warnings")
            .iter()
            .filter_map(Value::as_str)
        {
            attributes.context.warn(warning.to_string());
        }
        self.annotate(attributes.context, response);
        if !response.bool_at("/allowed") {
            return self.denial(attributes, response).map(Err);
        }
        let patch = match response.str_at("/patch") {
            "" => None,
            _ if response.str_at("/patchType") != "JSONPatch" => {
                return Err(invalid(
                    "webhook returned response.patch but not response.patchType=\"JSONPatch\"",
                ));
            }
            text => {
                let bytes = STANDARD
                    .decode(text)
                    .map_err(|error| invalid(&format!("patch: {error}")))?;
                let patch = serde_json::from_slice(&bytes)
                    .map_err(|error| invalid(&format!("patch: {error}")))?;
                Some(patch)
            }
        };
        Ok(Ok(Verdict { patch }))
    }

    /// Writes what the webhook wants to have in the audit event: keys are names below its own.
    fn annotate(&self, context: &Context<'_>, response: &Value) {
        for (key, value) in response.map_at("/auditAnnotations").into_iter().flatten() {
            let full = format!("{}/{key}", self.name);
            match value.as_str() {
                Some(value) if names::qualified_name(&full).is_empty() => {
                    context.annotate(&full, value.to_string());
                }
                _ => tracing::warn!(webhook = self.name, key, "no audit annotation can be so"),
            }
        }
    }

    /// The webhook's own `Status`, completed as Kubernetes completes it.
    fn denial(&self, attributes: &Attributes<'_>, response: &Value) -> Result<ApiError, String> {
        let given = response.get("status").filter(|status| status.is_object());
        let mut status = given.cloned().unwrap_or_else(|| json!({}));
        schema::conform_named("meta.Status", &mut status)
            .map_err(|error| format!("invalid response: status: {error}"))?;
        let says = match (status.str_at("/message"), status.str_at("/reason")) {
            ("", "") => " without explanation".to_string(),
            ("", reason) => format!(": {reason}"),
            (message, _) => format!(": {message}"),
        };
        let message = format!("admission webhook {:?} denied the request{says}", self.name);
        let code = status
            .int_at("/code")
            .filter(|code| ERROR_CODES.contains(code));
        status["kind"] = json!("Status");
        status["apiVersion"] = json!("v1");
        status["code"] = json!(code.unwrap_or(*ERROR_CODES.start()));
        status["message"] = json!(message);
        status.map_mut(&["metadata"]);
        if matches!(status.str_at("/status"), "" | "Success") {
            status["status"] = json!("Failure");
        }
        tracing::info!(
            webhook = self.name,
            object = attributes.name(),
            "a webhook denied a request"
        );
        Ok(ApiError::given(status))
    }
}

fn condition_holds(conditions: &[Condition], attributes: &Attributes<'_>) -> Result<bool, String> {
    let seen = Seen::of(attributes);
    conditions::hold(
        conditions,
        &seen.names(attributes),
        &mut Budget::of_conditions(),
    )
}

/// The validating webhooks.
fn validating(backend: &Backend) -> Arc<Vec<Webhook>> {
    let kind = &VALIDATING_WEBHOOK_CONFIGURATIONS;
    let kept = &backend.dynamic.validating;
    current(kept, &backend.cache, &[kind], || {
        read_all(&backend.cache, kind)
    })
}

/// The mutating webhooks.
fn mutating(backend: &Backend) -> Arc<Vec<Webhook>> {
    let kind = &MUTATING_WEBHOOK_CONFIGURATIONS;
    let kept = &backend.dynamic.mutating;
    current(kept, &backend.cache, &[kind], || {
        read_all(&backend.cache, kind)
    })
}

/// There are some.
pub(super) fn are_configured(backend: &Backend) -> bool {
    !validating(backend).is_empty() || !mutating(backend).is_empty()
}

/// Asks the mutating webhooks about a delete, which they may deny but not change.
pub(super) async fn check_delete(attributes: &Attributes<'_>) -> Result<(), ApiError> {
    for webhook in mutating(attributes.context.backend).iter() {
        let change = webhook.ask(attributes).await?.patch;
        if change.is_some_and(|change| change != json!([])) {
            return Err(ApiError::internal(format!(
                "admission webhook {:?} attempted to modify the object, which is not supported for this operation",
                webhook.name
            )));
        }
    }
    Ok(())
}

/// Asks the validating webhooks, all at once.
pub(super) async fn validate(attributes: &Attributes<'_>) -> Result<(), ApiError> {
    let webhooks = validating(attributes.context.backend);
    if webhooks.is_empty() {
        return Ok(());
    }
    let answers = join_all(webhooks.iter().map(|webhook| webhook.ask(attributes))).await;
    answers.into_iter().try_for_each(|answer| answer.map(drop))
}

/// Lets the mutating webhooks change the object, one after the other; those that want it see
/// once more what others changed after them. True: something changed.
pub(super) async fn mutate(
    context: &Context<'_>,
    operation: Operation,
    object: &mut Value,
    old: Option<&Value>,
    dry_run: bool,
) -> Result<bool, ApiError> {
    let webhooks = mutating(context.backend);
    // The webhook that changed the object last.
    let mut changed_by: Option<usize> = None;
    for round in 0..2 {
        let last_before = changed_by;
        for (index, webhook) in webhooks.iter().enumerate() {
            let again = webhook.reinvoked && last_before.is_some_and(|last| last > index);
            if round > 0 && !again {
                continue;
            }
            let attributes = Attributes {
                context,
                operation,
                object: Some(object),
                old,
                dry_run,
            };
            let Some(change) = webhook.ask(&attributes).await?.patch else {
                continue;
            };
            let mut patched = object.clone();
            patch::json_patch(&mut patched, &change).map_err(|error| {
                ApiError::internal(format!("the patch of webhook {:?}: {error}", webhook.name))
            })?;
            if !is_same(&patched, object) {
                return Err(ApiError::internal(format!(
                    "the patch of webhook {:?} changes what the object is",
                    webhook.name
                )));
            }
            if patched != *object {
                *object = patched;
                changed_by = Some(index);
            }
        }
    }
    Ok(changed_by.is_some())
}
