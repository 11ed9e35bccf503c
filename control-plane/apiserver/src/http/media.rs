//! Media types: what a body is, and what the client wants back.

use hull_api::{ApiError, decode, status::Reason, table::IncludeObject};
use serde_json::Value;

use super::Query;

/// How the answer is written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// JSON.
    Json,
    /// YAML.
    Yaml,
}

/// What the answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Accept {
    /// The object itself.
    Object(Encoding),
    /// kubectl's table.
    Table(IncludeObject),
    /// Only the metadata.
    Metadata,
}

const ACCEPTED: &str = "application/json, application/yaml";

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
    /// The first of the accepted types that can be produced.
    pub(crate) fn parse(headers: &http::HeaderMap, query: &Query) -> Result<Self, ApiError> {
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
                _ => continue,
            };
            let known = range.parameter("g") == "meta.k8s.io" && range.parameter("v") == "v1";
            match range.parameter("as") {
                "" => return Ok(Accept::Object(encoding)),
                "Table" if known && encoding == Encoding::Json => {
                    let include = query.get("includeObject");
                    let include = IncludeObject::parse(include).ok_or_else(|| {
                        ApiError::bad_request(format!(
                            "unrecognized includeObject value: {include:?}"
                        ))
                    })?;
                    return Ok(Accept::Table(include));
                }
                "PartialObjectMetadata" | "PartialObjectMetadataList"
                    if known && encoding == Encoding::Json =>
                {
                    return Ok(Accept::Metadata);
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

/// Parses a body by its content type; JSON when there is none.
pub(crate) fn decode_body(
    headers: &http::HeaderMap,
    bytes: &[u8],
) -> Result<Result<decode::Decoded, String>, ApiError> {
    match content_type(headers) {
        "" | "application/json" | "*/*" => Ok(parse_json(bytes)),
        "application/yaml" | "application/x-yaml" | "text/yaml" => Ok(parse_yaml(bytes)),
        _ => Err(unsupported(ACCEPTED)),
    }
}

fn parse_json(bytes: &[u8]) -> Result<decode::Decoded, String> {
    decode::parse_json(bytes)
        .map_err(|error| format!("couldn't get version/kind; json parse error: {error}"))
}

/// JSON is YAML; plain JSON takes the stricter path.
fn parse_yaml(bytes: &[u8]) -> Result<decode::Decoded, String> {
    if let Ok(decoded) = decode::parse_json(bytes) {
        return Ok(decoded);
    }
    let text = std::str::from_utf8(bytes)
        .map_err(|error| format!("error converting YAML to JSON: yaml: {error}"))?;
    let value: Value = serde_saphyr::from_str(text)
        .map_err(|error| format!("error converting YAML to JSON: yaml: {error}"))?;
    Ok(decode::Decoded {
        value,
        duplicates: Vec::new(),
    })
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
    let decoded = decode::parse_json(bytes)
        .map_err(|error| ApiError::bad_request(format!("error decoding patch: {error}")))?;
    Ok((patch_type, decoded))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accept(text: &str) -> Result<Accept, ApiError> {
        let mut headers = http::HeaderMap::new();
        headers.insert("accept", text.parse().unwrap());
        Accept::parse(&headers, &Query::default())
    }

    #[test]
    fn the_first_possible_type_wins() {
        for (text, expected) in [
            ("", Accept::Object(Encoding::Json)),
            ("application/json", Accept::Object(Encoding::Json)),
            (
                "application/vnd.kubernetes.protobuf, application/json",
                Accept::Object(Encoding::Json),
            ),
            ("application/yaml", Accept::Object(Encoding::Yaml)),
            (
                "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json",
                Accept::Table(IncludeObject::Metadata),
            ),
            (
                "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io,application/json",
                Accept::Metadata,
            ),
            ("*/*", Accept::Object(Encoding::Json)),
        ] {
            assert_eq!(accept(text).unwrap(), expected, "{text}");
        }
        assert_eq!(
            accept("application/vnd.kubernetes.protobuf")
                .unwrap_err()
                .code(),
            406
        );
        assert_eq!(accept("text/html").unwrap_err().code(), 406);
    }

    #[test]
    fn yaml_bodies_are_read() {
        let mut headers = http::HeaderMap::new();
        headers.insert("content-type", "application/yaml".parse().unwrap());
        let decoded = decode_body(&headers, b"a: 1\nb: [x]\n").unwrap().unwrap();
        assert_eq!(decoded.value, serde_json::json!({"a": 1, "b": ["x"]}));
        assert!(decode_body(&headers, b"a: [").unwrap().is_err());
        headers.insert(
            "content-type",
            "application/vnd.kubernetes.protobuf".parse().unwrap(),
        );
        assert_eq!(decode_body(&headers, b"x").unwrap_err().code(), 415);
    }
}
