//! Questions about users and what they may do: created, answered, never stored.

use std::collections::BTreeMap;

use http::StatusCode;
use hull_api::{
    ApiError, ObjectExt,
    field::{Errors, Path},
};
use serde_json::{Value, json};

use super::{
    Context, HandlerResult,
    read_body::{check_namespace, read_object},
};
use crate::{
    UserInfo,
    auth::tokens::{ISSUER, TokenError},
    authorization::Attributes,
    http::Output,
};

pub(super) async fn review(verb: &str, context: &Context<'_>) -> HandlerResult {
    let kind = context.kind;
    if verb != "create" || !context.name.is_empty() || context.subresource.is_some() {
        return Err(ApiError::method_not_allowed(Some(kind.resource())));
    }
    let input = read_object(context)?;
    let mut object = input.object;
    check_namespace(kind, context.namespace, &mut object)?;
    let status = match kind.kind {
        "SelfSubjectReview" => json!({"userInfo": context.user.to_value()}),
        "SelfSubjectAccessReview" => access(context, context.user, &object)?,
        "SubjectAccessReview" | "LocalSubjectAccessReview" => {
            access(context, &subject(context, &object)?, &object)?
        }
        "TokenReview" => token(context, &object).await?,
        "SelfSubjectRulesReview" => rules(context, &object)?,
        other => return Err(ApiError::not_implemented(other)),
    };
    object["status"] = status;
    Ok(Output {
        kind,
        accept: context.accept,
        status: StatusCode::CREATED,
        object: &object,
        warnings: &input.warnings,
    }
    .into_response())
}

fn invalid(context: &Context<'_>, errors: Errors) -> ApiError {
    ApiError::invalid(context.kind.group, context.kind.kind, "", errors.into_vec())
}

fn texts(value: Option<&Value>) -> Vec<String> {
    value
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|item| item.as_str().map(str::to_string))
        .collect()
}

/// The user a review asks about: exactly as it says, nothing is added.
fn subject(context: &Context<'_>, review: &Value) -> Result<UserInfo, ApiError> {
    let user = UserInfo {
        name: review.str_at("/spec/user").to_string(),
        uid: review.str_at("/spec/uid").to_string(),
        groups: texts(review.pointer("/spec/groups")),
        extra: review
            .map_at("/spec/extra")
            .into_iter()
            .flatten()
            .map(|(key, values)| (key.to_lowercase(), texts(Some(values))))
            .collect::<BTreeMap<_, _>>(),
    };
    if user.name.is_empty() && user.groups.is_empty() {
        let mut errors = Errors::default();
        errors.invalid(
            &Path::new("spec.user"),
            "",
            "at least one of user or group must be specified",
        );
        return Err(invalid(context, errors));
    }
    Ok(user)
}

fn access(context: &Context<'_>, user: &UserInfo, review: &Value) -> Result<Value, ApiError> {
    let resource = review.pointer("/spec/resourceAttributes");
    let path = review.pointer("/spec/nonResourceAttributes");
    let mut errors = Errors::default();
    if resource.is_some() == path.is_some() {
        let words = if resource.is_some() {
            "cannot be specified in combination with resourceAttributes"
        } else {
            "exactly one of nonResourceAttributes or resourceAttributes must be specified"
        };
        let field = if resource.is_some() {
            "spec.nonResourceAttributes"
        } else {
            "spec.resourceAttributes"
        };
        errors.invalid(
            &Path::new(field),
            path.cloned().unwrap_or(Value::Null),
            words,
        );
    }
    let namespace = review.str_at("/spec/resourceAttributes/namespace");
    if context.kind.namespaced && resource.is_some() && namespace != context.namespace {
        errors.invalid(
            &Path::new("spec.resourceAttributes.namespace"),
            namespace,
            "must match metadata.namespace",
        );
    }
    if !errors.is_empty() {
        return Err(invalid(context, errors));
    }
    let empty = json!({});
    let text = |pointer: &'static str| resource.unwrap_or(&empty).str_at(pointer);
    let attributes = match path {
        Some(path) => Attributes {
            verb: path.str_at("/verb"),
            path: Some(path.str_at("/path")),
            ..Attributes::default()
        },
        None => Attributes {
            verb: text("/verb"),
            group: text("/group"),
            resource: text("/resource"),
            subresource: text("/subresource"),
            namespace,
            name: text("/name"),
            ..Attributes::default()
        },
    };
    let decision = context.backend.authorizer.authorize(user, &attributes);
    let mut status = json!({"allowed": decision.allowed});
    if !decision.reason.is_empty() {
        status["reason"] = json!(decision.reason);
    }
    Ok(status)
}

async fn token(context: &Context<'_>, review: &Value) -> Result<Value, ApiError> {
    let token = review.str_at("/spec/token");
    if token.is_empty() {
        let mut errors = Errors::default();
        errors.required(&Path::new("spec.token"), "");
        return Err(invalid(context, errors));
    }
    let mut audiences = texts(review.pointer("/spec/audiences"));
    if audiences.is_empty() {
        audiences.push(ISSUER.to_string());
    }
    match context.backend.credentials().check(token, &audiences).await {
        Ok(accepted) => Ok(json!({
            "authenticated": true,
            "user": accepted.user.to_value(),
            "audiences": accepted.audiences,
        })),
        Err(TokenError::Store(error)) => Err(error),
        Err(error) => Ok(json!({"user": {}, "error": error.to_string()})),
    }
}

fn rules(context: &Context<'_>, review: &Value) -> Result<Value, ApiError> {
    let namespace = review.str_at("/spec/namespace");
    if namespace.is_empty() {
        return Err(ApiError::bad_request("no namespace on request"));
    }
    let rules = context.backend.authorizer.rules_of(context.user, namespace);
    let (paths, resources): (Vec<_>, Vec<_>) =
        rules.iter().partition(|rule| !rule.paths.is_empty());
    let values = |rules: Vec<&crate::authorization::Rule>| -> Vec<Value> {
        let mut values: Vec<Value> = Vec::new();
        for rule in rules {
            let value = rule.to_value();
            if !values.contains(&value) {
                values.push(value);
            }
        }
        values
    };
    Ok(json!({
        "resourceRules": values(resources),
        "nonResourceRules": values(paths),
        "incomplete": false,
    }))
}
