//! Media types: what a body is, and what the client wants back.

use hull_api::{
    ApiError, Kind, ObjectExt, decode, protobuf,
    registry::Keeping,
    schema::{TypeId, schema},
    status::Reason,
    table::IncludeObject,
};
use serde_json::Value;
use serde_saphyr::options::DuplicateKeyPolicy;

use super::Query;

/// How the answer is written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// JSON.
    Json,
    /// YAML.
    Yaml,
    /// Kubernetes' protobuf.
    Protobuf,
}

/// What the answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Accept {
    /// The object itself.
    Object(Encoding),
    /// kubectl's table.
    Table(IncludeObject),
    /// Only the metadata; JSON or protobuf.
    Metadata(Encoding),
}

const ACCEPTED: &str = "application/json, application/yaml, application/vnd.kubernetes.protobuf";

struct MediaRange<'a> {
    media: &'a str,
    parameters: Vec<(&'a str, &'a str)>,
}

impl<'a> MediaRange<'a> {
    fn parse(text: &'a str) -> Self {
        let mut parts = text.split(';').map(str::trim);
        MediaRange {
            media: parts.next().unwrap_or(""),
            parameters: parts.filter_map(|part| part.split_once('=')).collect(),
        }
    }

    fn parameter(&self, name: &str) -> &str {
        self.parameters
            .iter()
            .find(|(key, _)| *key == name)
            .map_or("", |(_, value)| value)
    }
}

impl Accept {
    /// The first of the accepted types that can be produced for objects of the kind.
    pub(crate) fn parse(
        headers: &http::HeaderMap,
        query: &Query,
        kind: &Kind,
    ) -> Result<Self, ApiError> {
        let has_protobuf = schema().id(kind.schema).is_some();
        // What is answered, not kept, has neither columns nor metadata.
        let has_shapes = kind.keeping != Keeping::Answered;
        let text = headers
            .get(http::header::ACCEPT)
            .and_then(|value| value.to_str().ok())
            .unwrap_or("");
        if text.trim().is_empty() {
            return Ok(Accept::Object(Encoding::Json));
        }
        for range in text.split(',').map(|part| MediaRange::parse(part.trim())) {
            let encoding = match range.media {
                "application/json" | "application/*" | "*/*" => Encoding::Json,
                "application/yaml" => Encoding::Yaml,
                protobuf::MEDIA_TYPE if has_protobuf => Encoding::Protobuf,
                _ => continue,
            };
            let known = range.parameter("g") == "meta.k8s.io" && range.parameter("v") == "v1";
            match range.parameter("as") {
                "" => return Ok(Accept::Object(encoding)),
                "Table" if known && has_shapes && encoding == Encoding::Json => {
                    let include = query.get("includeObject");
                    let include = IncludeObject::parse(include).ok_or_else(|| {
                        ApiError::bad_request(format!(
                            "unrecognized includeObject value: {include:?}"
                        ))
                    })?;
                    return Ok(Accept::Table(include));
                }
                "PartialObjectMetadata" | "PartialObjectMetadataList"
                    if known && has_shapes && encoding != Encoding::Yaml =>
                {
                    return Ok(Accept::Metadata(encoding));
                }
                _ => {}
            }
        }
        Err(ApiError::new(
            Reason::NotAcceptable,
            format!("only the following media types are accepted: {ACCEPTED}"),
        ))
    }
}

fn content_type(headers: &http::HeaderMap) -> &str {
    let text = headers
        .get(http::header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or("");
    text.split(';').next().unwrap_or("").trim()
}

fn unsupported(accepted: &str) -> ApiError {
    ApiError::new(
        Reason::UnsupportedMediaType,
        format!(
            "the body of the request was in an unknown format - accepted media types include: {accepted}"
        ),
    )
}

/// Parses a body by its content type; JSON when there is none. Protobuf does not say what its
/// fields are: it is read as an object of the expected type.
pub(crate) fn decode_body(
    headers: &http::HeaderMap,
    bytes: &[u8],
    type_name: &str,
) -> Result<Result<decode::Decoded, String>, ApiError> {
    match content_type(headers) {
        "" | "application/json" | "*/*" => Ok(parse_json(bytes)),
        "application/yaml" | "application/x-yaml" | "text/yaml" => Ok(parse_yaml(bytes)),
        protobuf::MEDIA_TYPE => match schema().id(type_name) {
            Some(expected) => Ok(parse_protobuf(bytes, Some(expected))),
            None => Err(unsupported("application/json, application/yaml")),
        },
        _ => Err(unsupported(ACCEPTED)),
    }
}

/// What a body says, whatever it is written in: an object, a patch or an answer. `None`: it
/// cannot be told (a list in protobuf, say).
pub(crate) fn value_of(headers: &http::HeaderMap, bytes: &[u8]) -> Option<Value> {
    let decoded = match content_type(headers) {
        protobuf::MEDIA_TYPE => parse_protobuf(bytes, None),
        media if media.contains("yaml") => parse_yaml(bytes),
        media if media.contains("json") || matches!(media, "" | "*/*") => parse_json(bytes),
        _ => return None,
    };
    decoded.ok().map(|decoded| decoded.value)
}

fn parse_protobuf(bytes: &[u8], expected: Option<TypeId>) -> Result<decode::Decoded, String> {
    let envelope = protobuf::open(bytes).map_err(|error| error.to_string())?;
    // Options say the group of the client that sent them, and are the same in every group.
    let expected = expected
        .filter(|id| envelope.kind.is_empty() || envelope.kind == schema().object(*id).name);
    let id = match expected {
        Some(expected) => expected,
        None => schema()
            .by_kind(envelope.api_version, envelope.kind)
            .ok_or_else(|| {
                format!(
                    "no kind {:?} is registered for version {:?}",
                    envelope.kind, envelope.api_version
                )
            })?,
    };
    let mut value = protobuf::decode(id, envelope.raw).map_err(|error| error.to_string())?;
    for (field, text) in [
        ("apiVersion", envelope.api_version),
        ("kind", envelope.kind),
    ] {
        if !text.is_empty() {
            value.set_at(&[field], Value::from(text));
        }
    }
    Ok(decode::Decoded {
        value,
        duplicates: Vec::new(),
    })
}

fn parse_json(bytes: &[u8]) -> Result<decode::Decoded, String> {
    decode::parse_json(bytes).map_err(|error| {
        format!(
            "couldn't get version/kind; json parse error: {}",
            in_go_words(&error)
        )
    })
}

/// What is wrong with a text that is no JSON; where Go's decoder says it in a few words, as it does.
fn in_go_words(error: &serde_json::Error) -> String {
    if error.is_eof() {
        return "unexpected end of JSON input".to_string();
    }
    error.to_string()
}

/// JSON is YAML; plain JSON takes the stricter path.
fn parse_yaml(bytes: &[u8]) -> Result<decode::Decoded, String> {
    if let Ok(decoded) = decode::parse_json(bytes) {
        return Ok(decoded);
    }
    let no_yaml =
        |why: &dyn std::fmt::Display| format!("error converting YAML to JSON: yaml: {why}");
    let text = std::str::from_utf8(bytes).map_err(|error| no_yaml(&error))?;
    let strict = serde_saphyr::options! { with_snippet: false };
    match serde_saphyr::from_str_with_options(text, strict) {
        Ok(value) => Ok(decode::Decoded {
            value,
            duplicates: Vec::new(),
        }),
        Err(serde_saphyr::Error::DuplicateMappingKey { key, location }) => {
            let key = key.unwrap_or_default();
            let line = location.line();
            let first = format!("unmarshal errors:\n  line {line}: key {key:?} already set in map");
            let lenient = serde_saphyr::options! {
                with_snippet: false,
                duplicate_keys: DuplicateKeyPolicy::LastWins,
            };
            let value = serde_saphyr::from_str_with_options(text, lenient);
            Ok(decode::Decoded {
                value: value.map_err(|error| no_yaml(&error))?,
                duplicates: vec![no_yaml(&first)],
            })
        }
        Err(error) => Err(no_yaml(&error)),
    }
}

/// The client wants protobuf more than anything else that can be produced: errors too.
pub(crate) fn prefers_protobuf(headers: &http::HeaderMap) -> bool {
    headers
        .get(http::header::ACCEPT)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.split(',').next())
        .is_some_and(|range| MediaRange::parse(range.trim()).media == protobuf::MEDIA_TYPE)
}

/// The kinds of patches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PatchType {
    Json,
    Merge,
    Strategic,
    /// Server-side apply: a configuration, not a change.
    Apply,
}

/// Parses a patch by its content type.
pub(crate) fn decode_patch_body(
    headers: &http::HeaderMap,
    bytes: &[u8],
) -> Result<(PatchType, decode::Decoded), ApiError> {
    let patch_type = match content_type(headers) {
        "application/json-patch+json" => PatchType::Json,
        "application/merge-patch+json" => PatchType::Merge,
        "application/strategic-merge-patch+json" => PatchType::Strategic,
        "application/apply-patch+yaml" => {
            let decoded = parse_yaml(bytes).map_err(ApiError::bad_request)?;
            return Ok((PatchType::Apply, decoded));
        }
        _ => {
            return Err(unsupported(
                "application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json, application/apply-patch+yaml",
            ));
        }
    };
    let decoded = decode::parse_json(bytes).map_err(|error| {
        ApiError::bad_request(format!("error decoding patch: {}", in_go_words(&error)))
    })?;
    Ok((patch_type, decoded))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accept(text: &str) -> Result<Accept, ApiError> {
        let mut headers = http::HeaderMap::new();
        headers.insert("accept", text.parse().unwrap());
        let pods = hull_api::Registry::get()
            .by_resource("", "v1", "pods")
            .unwrap();
        Accept::parse(&headers, &Query::default(), pods)
    }

    #[test]
    fn the_first_possible_type_wins() {
        for (text, expected) in [
            ("", Accept::Object(Encoding::Json)),
            ("application/json", Accept::Object(Encoding::Json)),
            (
                "application/vnd.kubernetes.protobuf, application/json",
                Accept::Object(Encoding::Protobuf),
            ),
            (
                "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
                Accept::Metadata(Encoding::Protobuf),
            ),
            (
                "application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io, application/json",
                Accept::Object(Encoding::Json),
            ),
            ("application/yaml", Accept::Object(Encoding::Yaml)),
            (
                "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json",
                Accept::Table(IncludeObject::Metadata),
            ),
            (
                "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io,application/json",
                Accept::Metadata(Encoding::Json),
            ),
            ("*/*", Accept::Object(Encoding::Json)),
        ] {
            assert_eq!(accept(text).unwrap(), expected, "{text}");
        }
        assert_eq!(accept("text/html").unwrap_err().code(), 406);
    }

    #[test]
    fn yaml_bodies_are_read() {
        let mut headers = http::HeaderMap::new();
        headers.insert("content-type", "application/yaml".parse().unwrap());
        let decoded = decode_body(&headers, b"a: 1\nb: [x]\n", "core.Pod")
            .unwrap()
            .unwrap();
        assert_eq!(decoded.value, serde_json::json!({"a": 1, "b": ["x"]}));
        assert!(decode_body(&headers, b"a: [", "core.Pod").unwrap().is_err());
        headers.insert("content-type", "text/html".parse().unwrap());
        let error = decode_body(&headers, b"x", "core.Pod").unwrap_err();
        assert_eq!(error.code(), 415);
    }

    #[test]
    fn protobuf_bodies_are_read_as_the_expected_type() {
        let mut headers = http::HeaderMap::new();
        headers.insert("content-type", protobuf::MEDIA_TYPE.parse().unwrap());
        let options = serde_json::json!({"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0});
        let body = protobuf::encode_object(&options).unwrap();
        let read = |body: &[u8], name| decode_body(&headers, body, name).unwrap();
        assert_eq!(read(&body, "meta.DeleteOptions").unwrap().value, options);
        assert_eq!(
            read(&body, "core.Pod").unwrap().value["kind"],
            "DeleteOptions"
        );
        for bad in [&b""[..], b"{}", b"k8s\0\xff", &body[..body.len() - 5]] {
            assert!(read(bad, "meta.DeleteOptions").is_err(), "{bad:?}");
        }
        let error = decode_body(&headers, &body, "example.com.Custom").unwrap_err();
        assert_eq!(error.code(), 415);
    }
}
