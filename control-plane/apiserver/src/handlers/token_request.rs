//! `serviceaccounts/token`: a new token of a service account.

use http::StatusCode;
use hull_api::{
    ApiError, Kind, ObjectExt,
    field::{Errors, Path},
    kinds,
};
use serde_json::{Value, json};

use super::{
    Context, HandlerResult,
    read_body::{check_namespace, read_as},
    subresources::{TOKEN_REQUEST, admit_part},
};
use crate::{
    auth::tokens::{Binding, Claims, ISSUER, Issue},
    authorization::node_name,
    http::Output,
};

/// Lifetime of a token whose request names none.
const DEFAULT_LIFETIME_SECONDS: i64 = 3600;
const MIN_LIFETIME_SECONDS: i64 = 600;
const MAX_LIFETIME_SECONDS: i64 = 1 << 32;

pub(super) async fn create_token(context: &Context<'_>) -> HandlerResult {
    let input = read_as(context, &TOKEN_REQUEST)?;
    let mut request = input.object;
    check_namespace(context.kind, context.namespace, &mut request)?;
    let name = request.name();
    if !name.is_empty() && name != context.name {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            context.name
        )));
    }
    let storage = &context.backend.storage;
    let account = storage
        .must_get(context.kind, context.namespace, context.name)
        .await?
        .object;
    request.set_at(&["metadata", "name"], Value::from(context.name));
    let dry_run = context.query.dry_run("CreateOptions", context.name)?;
    admit_part(context, &TOKEN_REQUEST, &mut request, dry_run).await?;
    let lifetime = request
        .int_at("/spec/expirationSeconds")
        .unwrap_or(DEFAULT_LIFETIME_SECONDS);
    check_lifetime(context, lifetime)?;
    let mut audiences: Vec<String> = request
        .list_at("/spec/audiences")
        .iter()
        .filter_map(|audience| audience.as_str().map(str::to_string))
        .collect();
    if audiences.is_empty() {
        audiences.push(ISSUER.to_string());
    }
    let mut issue = Issue {
        namespace: context.namespace.to_string(),
        account: Binding::of(&account),
        audiences: audiences.clone(),
        lifetime,
        pod: None,
        secret: None,
        node: None,
    };
    bind(context, &request, &mut issue).await?;
    restrict_node(context, &request, &issue).await?;
    let claims = Claims::new(issue, jiff::Timestamp::now());
    let token = if dry_run {
        String::new()
    } else {
        let tokens = &context.backend.tokens;
        tokens.issue(&claims).map_err(ApiError::internal)?
    };
    let expires = jiff::Timestamp::from_second(claims.expires).map_err(ApiError::internal)?;
    request["spec"]["audiences"] = json!(audiences);
    request["spec"]["expirationSeconds"] = json!(lifetime);
    request["metadata"] = json!({
        "name": context.name,
        "namespace": context.namespace,
        "creationTimestamp": hull_api::time::to_seconds(jiff::Timestamp::now()),
    });
    request["status"] = json!({
        "token": token,
        "expirationTimestamp": hull_api::time::to_seconds(expires),
    });
    Ok(Output {
        kind: context.kind,
        accept: context.accept,
        status: StatusCode::CREATED,
        object: &request,
        warnings: &input.warnings,
    }
    .into_response())
}

fn check_lifetime(context: &Context<'_>, seconds: i64) -> Result<(), ApiError> {
    let path = Path::new("spec.expirationSeconds");
    let mut errors = Errors::default();
    if seconds < MIN_LIFETIME_SECONDS {
        errors.invalid(
            &path,
            seconds,
            "may not specify a duration less than 10 minutes",
        );
    }
    if seconds > MAX_LIFETIME_SECONDS {
        errors.invalid(
            &path,
            seconds,
            "may not specify a duration larger than 2^32 seconds",
        );
    }
    if errors.is_empty() {
        return Ok(());
    }
    Err(ApiError::invalid(
        "authentication.k8s.io",
        TOKEN_REQUEST.kind,
        context.name,
        errors.into_vec(),
    ))
}

/// Finds what the token is to be bound to.
async fn bind(context: &Context<'_>, request: &Value, issue: &mut Issue) -> Result<(), ApiError> {
    let Some(reference) = request.pointer("/spec/boundObjectRef") else {
        return Ok(());
    };
    let (kind, api_version) = (reference.str_at("/kind"), reference.str_at("/apiVersion"));
    let (name, uid) = (reference.str_at("/name"), reference.str_at("/uid"));
    match (kind, api_version) {
        ("Pod", "v1") => {
            let pod = bound_object(context, &kinds::PODS, context.namespace, name, uid).await?;
            if pod.str_at("/spec/serviceAccountName") != context.name {
                return Err(ApiError::bad_request(format!(
                    "cannot bind token for serviceaccount {:?} to pod running with different serviceaccount name.",
                    context.name
                )));
            }
            issue.pod = Some(Binding::of(&pod));
            let node = pod.str_at("/spec/nodeName");
            if !node.is_empty()
                && let Some(node) = context.backend.storage.get(&kinds::NODES, "", node).await?
            {
                issue.node = Some(Binding::of(&node.object));
            }
        }
        ("Secret", "v1") => {
            let secret =
                bound_object(context, &kinds::SECRETS, context.namespace, name, uid).await?;
            issue.secret = Some(Binding::of(&secret));
        }
        ("Node", "v1") => {
            let node = bound_object(context, &kinds::NODES, "", name, uid).await?;
            issue.node = Some(Binding::of(&node));
        }
        _ => {
            return Err(ApiError::bad_request(format!(
                "cannot bind token to object of type {api_version}, Kind={kind}"
            )));
        }
    }
    Ok(())
}

async fn bound_object(
    context: &Context<'_>,
    kind: &'static Kind,
    namespace: &str,
    name: &str,
    uid: &str,
) -> Result<Value, ApiError> {
    let object = context
        .backend
        .storage
        .must_get(kind, namespace, name)
        .await?
        .object;
    if !uid.is_empty() && uid != object.uid() {
        return Err(ApiError::conflict(
            kind.resource(),
            name,
            &format!(
                "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated"
            ),
        ));
    }
    Ok(object)
}

/// A node asks only for tokens of pods that run on it.
async fn restrict_node(
    context: &Context<'_>,
    request: &Value,
    issue: &Issue,
) -> Result<(), ApiError> {
    let Some(node) = node_name(context.user) else {
        return Ok(());
    };
    let refuse = |why: String| ApiError::forbidden(context.kind.resource(), context.name, &why);
    let Some(pod) = &issue.pod else {
        return Err(refuse(format!(
            "node requested token not bound to a pod: {node}"
        )));
    };
    if request.str_at("/spec/boundObjectRef/uid").is_empty() {
        return Err(refuse(
            "node requested token with a pod binding without a uid".to_string(),
        ));
    }
    let found = context
        .backend
        .storage
        .must_get(&kinds::PODS, context.namespace, &pod.name)
        .await?
        .object;
    if found.str_at("/spec/nodeName") != node {
        return Err(refuse(
            "node requested token bound to a pod scheduled on a different node".to_string(),
        ));
    }
    Ok(())
}
