//! Responses.

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode, header};
use hull_api::{ApiError, Kind, protobuf, table};
use serde_json::{Value, json};

use super::{Accept, Encoding};
use crate::{ApiBody, body};

/// Marks a response whose body is written while it is sent (`http::Extensions`).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Streamed;

fn with_type(
    status: StatusCode,
    media: &'static str,
    bytes: impl Into<Bytes>,
) -> Response<ApiBody> {
    let mut response = Response::new(body::full(bytes));
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static(media),
    );
    response.headers_mut().insert(
        header::CACHE_CONTROL,
        header::HeaderValue::from_static("no-cache, private"),
    );
    response
}

/// A plain text.
pub(crate) fn text_response(status: StatusCode, text: impl Into<String>) -> Response<ApiBody> {
    with_type(status, "text/plain; charset=utf-8", text.into())
}

/// A JSON document.
pub(crate) fn json_response(status: StatusCode, bytes: impl Into<Bytes>) -> Response<ApiBody> {
    with_type(status, "application/json", bytes)
}

/// A protobuf message.
pub(crate) fn protobuf_response(
    status: StatusCode,
    encoded: Result<Vec<u8>, protobuf::ProtobufError>,
) -> Response<ApiBody> {
    match encoded {
        Ok(bytes) => with_type(status, protobuf::MEDIA_TYPE, bytes),
        Err(error) => error_response(&ApiError::internal(error)),
    }
}

/// The `Status` of a failure.
pub(crate) fn error_response(error: &ApiError) -> Response<ApiBody> {
    error_response_as(error, Encoding::Json)
}

/// The `Status` of a failure as the client reads it best.
pub(crate) fn error_response_as(error: &ApiError, encoding: Encoding) -> Response<ApiBody> {
    let status = StatusCode::from_u16(error.code()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let value = error.to_value();
    let mut response = match encoding {
        Encoding::Protobuf => protobuf_response(status, protobuf::encode_object(&value)),
        _ => json_response(status, value.to_string()),
    };
    if error.details.retry_after_seconds > 0 {
        response.headers_mut().insert(
            header::RETRY_AFTER,
            header::HeaderValue::from(error.details.retry_after_seconds),
        );
    }
    response
}

/// One object to answer with.
pub(crate) struct Output<'a> {
    pub kind: &'static Kind,
    pub accept: Accept,
    pub status: StatusCode,
    pub object: &'a Value,
    pub warnings: &'a [String],
}

impl Output<'_> {
    /// The response, in the shape the client asked for.
    pub(crate) fn into_response(self) -> Response<ApiBody> {
        // Scale, Status and the like have no table of ours.
        let own = self.object.get("kind").and_then(Value::as_str) == Some(self.kind.kind);
        let mut response = match self.accept {
            Accept::Table(include) if own => {
                let row = table::row(self.kind, self.object, include, jiff::Timestamp::now());
                let metadata = json!({
                    "resourceVersion": self.object.pointer("/metadata/resourceVersion"),
                });
                let columns = Some(table::column_definitions(self.kind));
                json_response(
                    self.status,
                    table::table(columns, metadata, vec![row]).to_string(),
                )
            }
            Accept::Metadata(encoding) if own => {
                let metadata = table::partial_metadata(self.object);
                match encoding {
                    Encoding::Protobuf => {
                        protobuf_response(self.status, protobuf::encode_object(&metadata))
                    }
                    _ => json_response(self.status, metadata.to_string()),
                }
            }
            Accept::Object(Encoding::Protobuf) | Accept::Metadata(Encoding::Protobuf) => {
                protobuf_response(self.status, protobuf::encode_object(self.object))
            }
            Accept::Object(Encoding::Yaml) => match serde_saphyr::to_string(self.object) {
                Ok(text) => with_type(self.status, "application/yaml", text),
                Err(error) => error_response(&ApiError::internal(error)),
            },
            _ => json_response(self.status, self.object.to_string()),
        };
        for warning in self.warnings {
            add_warning(response.headers_mut(), warning);
        }
        response
    }
}

/// Adds a `Warning` header, which kubectl shows to the user.
pub(crate) fn add_warning(headers: &mut HeaderMap, warning: &str) {
    // A header has one line.
    let text = warning.replace(|c: char| c.is_control(), " ");
    let text = text.replace('\\', "\\\\").replace('"', "\\\"");
    if let Ok(value) = header::HeaderValue::from_str(&format!("299 - \"{text}\"")) {
        headers.append(header::WARNING, value);
    }
}
