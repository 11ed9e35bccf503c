//! Reads an object from a request's body, with Kubernetes' checks and messages.

use hull_api::{
    ApiError, Kind, ObjectExt,
    custom::CustomResource,
    decode::Decoded,
    schema::{self, Report, TypeError},
};
use serde_json::{Map, Value};

use super::Context;
use crate::http::decode_body;

/// What happens to unknown and duplicate fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FieldValidation {
    Ignore,
    Warn,
    Strict,
}

impl FieldValidation {
    pub(super) fn of(context: &Context<'_>) -> Result<Self, ApiError> {
        match context.query.get("fieldValidation") {
            "" | "Warn" => Ok(FieldValidation::Warn),
            "Ignore" => Ok(FieldValidation::Ignore),
            "Strict" => Ok(FieldValidation::Strict),
            other => {
                let mut errors = hull_api::field::Errors::default();
                errors.not_supported(
                    &hull_api::field::Path::new("fieldValidation"),
                    other,
                    &["Ignore", "Strict", "Warn"],
                );
                Err(ApiError::invalid(
                    "meta.k8s.io",
                    "CreateOptions",
                    "",
                    errors.into_vec(),
                ))
            }
        }
    }
}

/// What a body has to be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expected<'a> {
    pub kind: &'a str,
    pub api_version: &'a str,
    /// Its type in the schema tables.
    pub type_name: &'static str,
    /// Its type when it is a custom resource.
    pub custom: Option<&'a CustomResource>,
}

impl<'a> Expected<'a> {
    /// A type of the schema tables.
    pub(super) const fn built_in(
        kind: &'a str,
        api_version: &'a str,
        type_name: &'static str,
    ) -> Self {
        Expected {
            kind,
            api_version,
            type_name,
            custom: None,
        }
    }

    /// The type of the request's kind, whose version is `api_version`.
    pub(super) fn own(context: &'a Context<'_>, api_version: &'a str) -> Self {
        Expected {
            kind: context.kind.kind,
            api_version,
            type_name: context.kind.schema,
            custom: context.custom.as_deref(),
        }
    }

    /// Checks types and drops unknown fields, in place.
    pub(super) fn conform(&self, object: &mut Value) -> Result<Report, TypeError> {
        match self.custom {
            Some(custom) => custom.prune(object),
            None => schema::conform_named(self.type_name, object),
        }
    }
}

/// An object from a body.
pub(super) struct Input {
    pub object: Value,
    pub warnings: Vec<String>,
}

/// Bytes of a body shown in an error.
const SUMMARY_BYTES: usize = 30;

fn summary(body: &[u8]) -> String {
    match body.first() {
        None => "<empty>".to_string(),
        Some(b'{') => {
            let end = body.len().min(SUMMARY_BYTES);
            let more = if body.len() > SUMMARY_BYTES {
                " ..."
            } else {
                ""
            };
            format!("{}{more}", String::from_utf8_lossy(&body[..end]))
        }
        Some(_) => {
            let end = body.len().min(SUMMARY_BYTES);
            let hex: String = body[..end].iter().map(|b| format!("{b:02x}")).collect();
            let more = if body.len() > SUMMARY_BYTES {
                " ..."
            } else {
                ""
            };
            format!("{hex}{more}")
        }
    }
}

/// Reads the body as an object of the request's kind.
pub(super) fn read_object(context: &Context<'_>) -> Result<Input, ApiError> {
    let api_version = context.kind.group_version();
    read_as(context, &Expected::own(context, &api_version))
}

/// Reads the body as some kind.
pub(super) fn read_as(context: &Context<'_>, expected: &Expected<'_>) -> Result<Input, ApiError> {
    let validation = FieldValidation::of(context)?;
    let kind = expected.kind;
    let unrecognized = |why: &str| {
        ApiError::bad_request(format!(
            "the object provided is unrecognized (must be of type {kind}): {why} ({})",
            summary(&context.body)
        ))
    };
    let decoded = decode_body(context.headers, &context.body, expected.type_name)?
        .map_err(|why| unrecognized(&why))?;
    if !decoded.value.is_object() {
        return Err(unrecognized(
            "couldn't get version/kind; json parse error: json: cannot unmarshal value into Go value of type struct",
        ));
    }
    check_type_meta(&decoded.value, kind, expected.api_version)?;
    conform(decoded, expected, validation)
}

fn check_type_meta(object: &Value, kind: &str, api_version: &str) -> Result<(), ApiError> {
    let given_version = object.str_at("/apiVersion");
    let given_kind = object.str_at("/kind");
    if !given_version.is_empty() && given_version != api_version {
        return Err(ApiError::bad_request(format!(
            "the API version in the data ({given_version}) does not match the expected API version ({api_version})"
        )));
    }
    if !given_kind.is_empty() && given_kind != kind {
        let version = api_version.rsplit('/').next().unwrap_or(api_version);
        return Err(ApiError::bad_request(format!(
            "{given_kind} in version {version:?} cannot be handled as a {kind}: converting ({version}.{given_kind}) to ({version}.{kind}): unknown conversion"
        )));
    }
    Ok(())
}

/// Checks types and unknown fields; sets kind and apiVersion.
pub(super) fn conform(
    decoded: Decoded,
    expected: &Expected<'_>,
    validation: FieldValidation,
) -> Result<Input, ApiError> {
    let (kind, api_version) = (expected.kind, expected.api_version);
    let version = api_version.rsplit('/').next().unwrap_or(api_version);
    let cannot = |why: String| {
        ApiError::bad_request(format!(
            "{kind} in version {version:?} cannot be handled as a {kind}: {why}"
        ))
    };
    let mut object = decoded.value;
    let report = expected
        .conform(&mut object)
        .map_err(|error| cannot(error.0))?;
    let mut complaints: Vec<String> = decoded
        .duplicates
        .iter()
        .map(|path| format!("duplicate field {path:?}"))
        .collect();
    complaints.extend(
        report
            .unknown
            .iter()
            .map(|path| format!("unknown field {path:?}")),
    );
    if validation == FieldValidation::Strict && !complaints.is_empty() {
        return Err(cannot(format!(
            "strict decoding error: {}",
            complaints.join(", ")
        )));
    }
    object.set_at(&["apiVersion"], Value::from(api_version));
    object.set_at(&["kind"], Value::from(kind));
    object.map_mut(&["metadata"]);
    Ok(Input {
        object,
        warnings: match validation {
            FieldValidation::Warn => complaints,
            _ => Vec::new(),
        },
    })
}

/// The object's namespace must be that of the path, and is filled in from it.
pub(super) fn check_namespace(
    kind: &Kind,
    namespace: &str,
    object: &mut Value,
) -> Result<(), ApiError> {
    if !kind.namespaced {
        return Ok(());
    }
    match object.namespace() {
        "" => {
            object.set_at(&["metadata", "namespace"], Value::from(namespace));
            Ok(())
        }
        given if given == namespace => Ok(()),
        _ => Err(ApiError::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        )),
    }
}

/// Options in a DELETE's body, or none.
pub(super) fn read_delete_options(context: &Context<'_>) -> Result<Map<String, Value>, ApiError> {
    if context.body.is_empty() {
        return Ok(Map::new());
    }
    let cannot_read = |why: &str| {
        ApiError::bad_request(format!(
            "the object provided is unrecognized (must be of type DeleteOptions): {why} ({})",
            summary(&context.body)
        ))
    };
    let decoded = decode_body(context.headers, &context.body, "meta.DeleteOptions")?
        .map_err(|why| cannot_read(&why))?;
    let mut value = decoded.value;
    if !value.is_object() {
        return Err(cannot_read("it is not a JSON object"));
    }
    schema::conform_named("meta.DeleteOptions", &mut value).map_err(|error| {
        ApiError::bad_request(format!(
            "DeleteOptions in version \"v1\" cannot be handled as a DeleteOptions: {}",
            error.0
        ))
    })?;
    match value {
        Value::Object(map) => Ok(map),
        _ => Ok(Map::new()),
    }
}
