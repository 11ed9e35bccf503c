//! API errors: Kubernetes' `Status` object with its reasons, HTTP codes and messages
//! (Kubernetes API conventions, "Response Status Kind").

use serde_json::{Map, Value, json};

use crate::field::FieldError;

/// The machine-readable reason of a failure (`metav1.StatusReason`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// 400: the request is wrong in itself.
    BadRequest,
    /// 401: nobody we know.
    Unauthorized,
    /// 403: known, but not allowed.
    Forbidden,
    /// 404.
    NotFound,
    /// 405.
    MethodNotAllowed,
    /// 406: none of the accepted media types can be produced.
    NotAcceptable,
    /// 409: a name is taken.
    AlreadyExists,
    /// 409: the object changed in between.
    Conflict,
    /// 410: the asked resource version is gone.
    Expired,
    /// 413: the body is larger than the limit.
    RequestEntityTooLarge,
    /// 415: the body's media type is unknown.
    UnsupportedMediaType,
    /// 422: the object is not valid.
    Invalid,
    /// 429: try again later.
    TooManyRequests,
    /// 500: our own failure.
    InternalError,
    /// 501: a part of the API that is not there yet. Kubernetes has no reason for it.
    NotImplemented,
    /// 503: not ready, or a backend is not.
    ServiceUnavailable,
    /// 504: something did not happen in time.
    Timeout,
}

impl Reason {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::BadRequest => "BadRequest",
            Reason::Unauthorized => "Unauthorized",
            Reason::Forbidden => "Forbidden",
            Reason::NotFound => "NotFound",
            Reason::MethodNotAllowed => "MethodNotAllowed",
            Reason::NotAcceptable => "NotAcceptable",
            Reason::AlreadyExists => "AlreadyExists",
            Reason::Conflict => "Conflict",
            Reason::Expired => "Expired",
            Reason::RequestEntityTooLarge => "RequestEntityTooLarge",
            Reason::UnsupportedMediaType => "UnsupportedMediaType",
            Reason::Invalid => "Invalid",
            Reason::TooManyRequests => "TooManyRequests",
            Reason::InternalError => "InternalError",
            Reason::NotImplemented => "NotImplemented",
            Reason::ServiceUnavailable => "ServiceUnavailable",
            Reason::Timeout => "Timeout",
        }
    }

    /// The HTTP status code.
    pub fn code(self) -> u16 {
        match self {
            Reason::BadRequest => 400,
            Reason::Unauthorized => 401,
            Reason::Forbidden => 403,
            Reason::NotFound => 404,
            Reason::MethodNotAllowed => 405,
            Reason::NotAcceptable => 406,
            Reason::AlreadyExists | Reason::Conflict => 409,
            Reason::Expired => 410,
            Reason::RequestEntityTooLarge => 413,
            Reason::UnsupportedMediaType => 415,
            Reason::Invalid => 422,
            Reason::TooManyRequests => 429,
            Reason::InternalError => 500,
            Reason::NotImplemented => 501,
            Reason::ServiceUnavailable => 503,
            Reason::Timeout => 504,
        }
    }
}

/// One cause in `details.causes`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// Machine-readable, e.g. `FieldValueInvalid`.
    pub reason: String,
    /// For people.
    pub message: String,
    /// The field's path, or empty.
    pub field: String,
}

/// `Status.details`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Details {
    /// Name of the object.
    pub name: String,
    /// Its API group.
    pub group: String,
    /// The resource (most errors) or the kind (`Invalid`).
    pub kind: String,
    /// The single causes.
    pub causes: Vec<Cause>,
    /// When to try again; 0 says nothing.
    pub retry_after_seconds: u32,
    /// Where a list may go on: the Status's `metadata.continue`; or empty.
    pub continue_token: String,
    /// The `Status` that somebody else made of it, answered in place of one of ours.
    pub given: Option<Value>,
}

/// A failed request.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// Machine-readable reason.
    pub reason: Reason,
    /// For people.
    pub message: String,
    /// What it is about. Boxed: errors travel in every `Result`.
    pub details: Box<Details>,
}

/// The resource an error is about, as `pods` or `deployments.apps`.
#[derive(Debug, Clone, Copy)]
pub struct ResourceName<'a> {
    /// API group, "" for core.
    pub group: &'a str,
    /// Plural name.
    pub resource: &'a str,
}

impl std::fmt::Display for ResourceName<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.group {
            "" => f.write_str(self.resource),
            group => write!(f, "{}.{group}", self.resource),
        }
    }
}

impl ApiError {
    /// An error about nothing in particular.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        ApiError {
            reason,
            message: message.into(),
            details: Box::default(),
        }
    }

    fn about(mut self, resource: ResourceName<'_>, name: &str) -> Self {
        self.details.name = name.to_string();
        self.details.group = resource.group.to_string();
        self.details.kind = resource.resource.to_string();
        self
    }

    /// 400.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(Reason::BadRequest, message)
    }

    /// 500.
    pub fn internal(message: impl std::fmt::Display) -> Self {
        Self::new(
            Reason::InternalError,
            format!("Internal error occurred: {message}"),
        )
    }

    /// 501, naming what is not there.
    pub fn not_implemented(what: impl std::fmt::Display) -> Self {
        Self::new(
            Reason::NotImplemented,
            format!("{what} is not implemented by this server"),
        )
    }

    /// 404 of an object.
    pub fn not_found(resource: ResourceName<'_>, name: &str) -> Self {
        Self::new(Reason::NotFound, format!("{resource} {name:?} not found")).about(resource, name)
    }

    /// 404 of a resource or path.
    pub fn no_such_resource() -> Self {
        Self::new(
            Reason::NotFound,
            "the server could not find the requested resource",
        )
    }

    /// 409: the name is taken.
    pub fn already_exists(resource: ResourceName<'_>, name: &str) -> Self {
        Self::new(
            Reason::AlreadyExists,
            format!("{resource} {name:?} already exists"),
        )
        .about(resource, name)
    }

    /// 409 with its cause.
    pub fn conflict(resource: ResourceName<'_>, name: &str, cause: &str) -> Self {
        Self::new(
            Reason::Conflict,
            format!("Operation cannot be fulfilled on {resource} {name:?}: {cause}"),
        )
        .about(resource, name)
    }

    /// 409: somebody else wrote in between.
    pub fn modified(resource: ResourceName<'_>, name: &str) -> Self {
        Self::conflict(
            resource,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    /// 403 of one object, or of the resource when `name` is empty.
    pub fn forbidden(resource: ResourceName<'_>, name: &str, why: &str) -> Self {
        let message = if name.is_empty() {
            format!("{resource} is forbidden: {why}")
        } else {
            format!("{resource} {name:?} is forbidden: {why}")
        };
        Self::new(Reason::Forbidden, message).about(resource, name)
    }

    /// 405.
    pub fn method_not_allowed(resource: Option<ResourceName<'_>>) -> Self {
        let error = Self::new(
            Reason::MethodNotAllowed,
            "the server does not allow this method on the requested resource",
        );
        match resource {
            Some(resource) => error.about(resource, ""),
            None => error,
        }
    }

    /// 410: list again.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(Reason::Expired, message)
    }

    /// 422 with a cause per field.
    pub fn invalid(group: &str, kind: &str, name: &str, errors: Vec<FieldError>) -> Self {
        let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
        let body = match lines.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        let qualified = ResourceName {
            group,
            resource: kind,
        };
        ApiError {
            reason: Reason::Invalid,
            message: format!("{qualified} {name:?} is invalid: {body}"),
            details: Box::new(Details {
                name: name.to_string(),
                group: group.to_string(),
                kind: kind.to_string(),
                causes: errors
                    .iter()
                    .map(|error| Cause {
                        reason: error.kind.cause().to_string(),
                        message: error.body(),
                        field: error.field.clone(),
                    })
                    .collect(),
                ..Details::default()
            }),
        }
    }

    /// A failure that another program found, with its whole `Status`: code, reason and details
    /// are those it says, also ones that no error of ours has.
    pub fn given(status: Value) -> Self {
        let text = |pointer: &str| {
            let found = status.pointer(pointer).and_then(Value::as_str);
            found.unwrap_or_default().to_string()
        };
        let retry = status.pointer("/details/retryAfterSeconds");
        let retry = retry.and_then(Value::as_u64);
        let mut error = Self::new(Reason::Forbidden, text("/message"));
        error.details.retry_after_seconds = retry
            .and_then(|seconds| u32::try_from(seconds).ok())
            .unwrap_or(0);
        error.details.given = Some(status);
        error
    }

    /// 504: the asked version has not been seen in time.
    pub fn too_large_resource_version(asked: u64, current: u64) -> Self {
        let mut error = Self::new(
            Reason::Timeout,
            format!("Too large resource version: {asked}, current: {current}"),
        );
        error.details.retry_after_seconds = 1;
        error.details.causes.push(Cause {
            reason: "ResourceVersionTooLarge".to_string(),
            message: "Too large resource version".to_string(),
            field: String::new(),
        });
        error
    }

    /// The HTTP status code.
    pub fn code(&self) -> u16 {
        let given = self.details.given.as_ref();
        given
            .and_then(|status| status.get("code")?.as_u64())
            .and_then(|code| u16::try_from(code).ok())
            .unwrap_or_else(|| self.reason.code())
    }

    /// The `Status` object.
    pub fn to_value(&self) -> Value {
        if let Some(status) = &self.details.given {
            return status.clone();
        }
        let mut status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason.as_str(),
            "code": self.code(),
        });
        let details = self.details.to_value();
        if details.as_object().is_some_and(|map| !map.is_empty()) {
            status["details"] = details;
        }
        if !self.details.continue_token.is_empty() {
            status["metadata"]["continue"] = json!(self.details.continue_token);
        }
        status
    }
}

impl Details {
    fn to_value(&self) -> Value {
        let mut map = Map::new();
        for (key, text) in [
            ("name", &self.name),
            ("group", &self.group),
            ("kind", &self.kind),
        ] {
            if !text.is_empty() {
                map.insert(key.to_string(), Value::from(text.as_str()));
            }
        }
        if !self.causes.is_empty() {
            let causes = self.causes.iter().map(|cause| {
                let mut one = json!({"reason": cause.reason, "message": cause.message});
                if !cause.field.is_empty() {
                    one["field"] = Value::from(cause.field.as_str());
                }
                one
            });
            map.insert("causes".to_string(), causes.collect());
        }
        if self.retry_after_seconds > 0 {
            map.insert(
                "retryAfterSeconds".to_string(),
                Value::from(self.retry_after_seconds),
            );
        }
        Value::Object(map)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_kubernetes_words() {
        let pods = ResourceName {
            group: "",
            resource: "pods",
        };
        let deployments = ResourceName {
            group: "apps",
            resource: "deployments",
        };
        assert_eq!(
            ApiError::not_found(pods, "x").message,
            "pods \"x\" not found"
        );
        assert_eq!(
            ApiError::already_exists(deployments, "x").message,
            "deployments.apps \"x\" already exists"
        );
        let conflict = ApiError::modified(pods, "x");
        assert_eq!(conflict.code(), 409);
        assert_eq!(
            conflict.message,
            "Operation cannot be fulfilled on pods \"x\": the object has been modified; please apply your changes to the latest version and try again"
        );
    }

    #[test]
    fn a_status_carries_details_only_when_there_are_some() {
        assert!(
            ApiError::bad_request("no")
                .to_value()
                .get("details")
                .is_none()
        );
        let pods = ResourceName {
            group: "",
            resource: "pods",
        };
        assert_eq!(
            ApiError::not_found(pods, "x").to_value()["details"],
            json!({"name": "x", "kind": "pods"})
        );
    }
}
