//! Reads an object from a request's body, with Kubernetes' checks and messages.

use hull_api::{
    ApiError, Kind, ObjectExt,
    custom::CustomResource,
    decode::Decoded,
    registry::Subresource,
    schema::{self, Report, TypeError, schema},
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
    /// As the query says; `options` is the kind of the options that it belongs to.
    pub(super) fn of(context: &Context<'_>, options: &str) -> Result<Self, ApiError> {
        match context.query.get("fieldValidation") {
            "" | "Warn" => Ok(FieldValidation::Warn),
            "Ignore" => Ok(FieldValidation::Ignore),
            "Strict" => Ok(FieldValidation::Strict),
            other => {
                let mut errors = hull_api::field::Errors::default();
                errors.not_supported(
                    &hull_api::field::Path::new("fieldValidation"),
                    other,
                    &["", "Ignore", "Strict", "Warn"],
                );
                Err(ApiError::invalid(
                    "meta.k8s.io",
                    options,
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

    /// Brings what an admission webhook changed into the form of its type.
    pub(super) fn conform_changed(&self, object: &mut Value) -> Result<(), ApiError> {
        let conformed = self.conform(object).map_err(|error| {
            ApiError::internal(format!(
                "an admission webhook made a wrong object: {}",
                error.0
            ))
        });
        conformed.map(drop)
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

/// What Go calls the fields that every object has.
const TYPE_META: &str = r#"struct { APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"" }"#;
/// Where Kubernetes made its table of types; its errors say so.
const SCHEME: &str = "pkg/api/legacyscheme/scheme.go:30";

/// The kind of the options of a request with an object in its body.
fn options_of(context: &Context<'_>) -> &'static str {
    match context.subresource {
        Some(Subresource::Binding | Subresource::Eviction | Subresource::Token) => "CreateOptions",
        _ if context.name.is_empty() => "CreateOptions",
        _ => "UpdateOptions",
    }
}

/// Reads the body as an object of the request's kind.
pub(super) fn read_object(context: &Context<'_>) -> Result<Input, ApiError> {
    let api_version = context.kind.group_version();
    read_as(context, &Expected::own(context, &api_version))
}

/// Reads the body as some kind.
pub(super) fn read_as(context: &Context<'_>, expected: &Expected<'_>) -> Result<Input, ApiError> {
    let validation = FieldValidation::of(context, options_of(context))?;
    let kind = expected.kind;
    let unrecognized = |why: &str| {
        ApiError::bad_request(format!(
            "the object provided is unrecognized (must be of type {kind}): {why} ({})",
            summary(&context.body)
        ))
    };
    let mut decoded = decode_body(context.headers, &context.body, expected.type_name)?
        .map_err(|why| unrecognized(&why))?;
    if decoded.value.is_null() {
        // Go decodes it into anything.
        decoded.value = Value::Object(Map::new());
    }
    if !decoded.value.is_object() {
        let found = schema::go_kind(&decoded.value);
        return Err(unrecognized(&format!(
            "couldn't get version/kind; json parse error: json: cannot unmarshal {found} into Go value of type {TYPE_META}"
        )));
    }
    check_type_meta(&decoded.value, expected)?;
    conform(decoded, expected, validation)
}

/// The body says what it is; where it says nothing it is what was expected.
fn check_type_meta(object: &Value, expected: &Expected<'_>) -> Result<(), ApiError> {
    let (kind, api_version) = (expected.kind, expected.api_version);
    let or = |given: &'_ str, expected: &'_ str| {
        if given.is_empty() { expected } else { given }.to_string()
    };
    let given_version = or(object.str_at("/apiVersion"), api_version);
    let given_kind = or(object.str_at("/kind"), kind);
    let (_, version) = split_version(&given_version);
    if given_kind != kind {
        let problem = if expected.custom.is_none()
            && schema().by_kind(&given_version, &given_kind).is_none()
        {
            not_registered(&given_version, &given_kind)
        } else {
            let internal = go_package(split_version(api_version).0);
            format!(
                "converting ({version}.{given_kind}) to ({internal}.{kind}): unknown conversion"
            )
        };
        return Err(ApiError::bad_request(format!(
            "{given_kind} in version {version:?} cannot be handled as a {kind}: {problem}"
        )));
    }
    if given_version == api_version {
        return Ok(());
    }
    if expected.custom.is_none() && schema().by_kind(&given_version, &given_kind).is_none() {
        let problem = not_registered(&given_version, &given_kind);
        return Err(ApiError::bad_request(format!(
            "{given_kind} in version {version:?} cannot be handled as a {kind}: {problem}"
        )));
    }
    Err(ApiError::bad_request(format!(
        "the API version in the data ({given_version}) does not match the expected API version ({api_version})"
    )))
}

fn not_registered(api_version: &str, kind: &str) -> String {
    format!("no kind {kind:?} is registered for version {api_version:?} in scheme {SCHEME:?}")
}

/// Group and version.
fn split_version(api_version: &str) -> (&str, &str) {
    api_version.split_once('/').unwrap_or(("", api_version))
}

/// Where Kubernetes keeps the types of a group that it converts all versions to.
fn go_package(group: &str) -> &str {
    match group.split('.').next() {
        None | Some("") => "core",
        Some(package) => package,
    }
}

/// Lists and maps of the metadata that are left out when nothing is in them.
const OPTIONAL_METADATA: [&str; 4] = ["annotations", "finalizers", "labels", "ownerReferences"];

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
    let mut complaints: Vec<String> = decoded.duplicates.clone();
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
    let is_empty = |value: &Value| match value {
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    };
    let metadata = object.map_mut(&["metadata"]);
    metadata
        .retain(|field, value| !(OPTIONAL_METADATA.contains(&field.as_str()) && is_empty(value)));
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
        // As in Kubernetes: what makes no sense is forgotten.
        object.remove_at(&["metadata", "namespace"]);
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
