//! The OpenAPI documents, made at the first request and kept packed: they are large, repeat
//! themselves, and most clients take gzip.

use std::{
    collections::HashMap,
    io::{self, Read, Write},
    sync::LazyLock,
};

use bytes::Bytes;
use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use hull_api::{ApiError, Registry, openapi};

use crate::{
    ApiBody,
    custom_resources::Served,
    discovery,
    http::{accepts_gzip, error_response, json_response},
};

/// A document as gzip.
#[derive(Debug)]
pub(crate) struct Packed {
    gzip: Bytes,
    etag: String,
}

impl Packed {
    fn new(text: &[u8]) -> io::Result<Self> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(text)?;
        Ok(Packed {
            gzip: encoder.finish()?.into(),
            etag: discovery::hash(text),
        })
    }

    /// The document for a client, packed if it reads that.
    fn answer(&self, headers: &HeaderMap) -> Response<ApiBody> {
        let packed = accepts_gzip(headers);
        let mut response = if packed {
            json_response(StatusCode::OK, self.gzip.clone())
        } else {
            let mut text = Vec::new();
            if let Err(error) = GzDecoder::new(&self.gzip[..]).read_to_end(&mut text) {
                return error_response(&ApiError::internal(error));
            }
            json_response(StatusCode::OK, text)
        };
        if packed {
            let gzip = HeaderValue::from_static("gzip");
            response
                .headers_mut()
                .insert(header::CONTENT_ENCODING, gzip);
        }
        let mut response = discovery::with_etag(response, &self.etag, headers);
        let vary = HeaderValue::from_static("Accept-Encoding");
        response.headers_mut().append(header::VARY, vary);
        response
    }
}

/// By the group's path.
pub(crate) type Documents = HashMap<String, Packed>;

/// The documents of groups for which `wanted` holds.
fn documents(registry: &Registry, wanted: impl Fn(&str) -> bool) -> Documents {
    let mut documents = Documents::new();
    for (group, versions) in registry.groups() {
        if !wanted(group) {
            continue;
        }
        for version in versions {
            let Some(document) = openapi::document(registry, group, version) else {
                continue;
            };
            match Packed::new(document.to_string().as_bytes()) {
                Ok(packed) => {
                    documents.insert(openapi::group_path(group, version), packed);
                }
                Err(error) => tracing::error!(%error, group, version, "OpenAPI document"),
            }
        }
    }
    documents
}

/// The documents of the built-in kinds, made once.
static BUILT_IN: LazyLock<Documents> = LazyLock::new(|| documents(Registry::get(), |_| true));

fn document<'a>(served: &'a Served, group: &str, version: &str) -> Option<&'a Packed> {
    let registry = &served.registry;
    let custom = served.documents.get_or_init(|| {
        documents(registry, |group| {
            let mut kinds = registry.kinds().iter();
            kinds.any(|kind| kind.group == group && kind.strategy.custom().is_some())
        })
    });
    let path = openapi::group_path(group, version);
    custom.get(&path).or_else(|| BUILT_IN.get(&path))
}

/// Changes with the document.
pub(crate) fn hash(served: &Served, group: &str, version: &str) -> String {
    let document = document(served, group, version);
    document.map_or_else(String::new, |document| document.etag.clone())
}

/// The document of a group and version.
pub(crate) fn v3(
    served: &Served,
    group: &str,
    version: &str,
    headers: &HeaderMap,
) -> Option<Response<ApiBody>> {
    Some(document(served, group, version)?.answer(headers))
}

/// The OpenAPI v2 document in one of its two forms.
pub(crate) fn v2(served: &Served, headers: &HeaderMap) -> Response<ApiBody> {
    let made = served.document_v2.get_or_init(|| {
        let whole = openapi::v2::whole(&served.registry);
        let json = Packed::new(whole.to_string().as_bytes())?;
        Ok((json, Packed::new(&openapi::v2::protobuf(&whole))?))
    });
    let (json, protobuf) = match made {
        Ok(forms) => forms,
        Err(error) => return error_response(&ApiError::internal(error)),
    };
    if !wants_protobuf(headers) {
        return json.answer(headers);
    }
    let mut response = protobuf.answer(headers);
    let media_type = HeaderValue::from_static(openapi::v2::PROTOBUF);
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, media_type);
    response
}

fn wants_protobuf(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT);
    let first = accept
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.split([',', ';']).next());
    first.is_some_and(|first| {
        [openapi::v2::PROTOBUF, openapi::v2::PROTOBUF_ALIAS].contains(&first.trim())
    })
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    async fn body(response: Response<ApiBody>) -> Bytes {
        response.into_body().collect().await.unwrap().to_bytes()
    }

    #[tokio::test]
    async fn who_reads_gzip_gets_what_is_kept_and_others_the_text() {
        let text = "a document ".repeat(1000);
        let packed = Packed::new(text.as_bytes()).unwrap();
        assert!(packed.gzip.len() < text.len() / 10);
        let plain = packed.answer(&HeaderMap::new());
        assert!(!plain.headers().contains_key(header::CONTENT_ENCODING));
        assert_eq!(body(plain).await, text.as_bytes());

        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
        let response = packed.answer(&headers);
        assert_eq!(response.headers()[header::CONTENT_ENCODING], "gzip");
        let etag = response.headers()[header::ETAG].clone();
        assert_eq!(body(response).await, packed.gzip);
        headers.insert(header::IF_NONE_MATCH, etag);
        let unchanged = packed.answer(&headers);
        assert_eq!(unchanged.status(), StatusCode::NOT_MODIFIED);
        assert!(!unchanged.headers().contains_key(header::CONTENT_ENCODING));
    }
}
