//! HTTP as the Kubernetes API uses it: paths, query parameters, media types, responses.

mod media;
mod query;
mod request;
mod respond;

pub(crate) use media::{Accept, Encoding, PatchType, decode_body, decode_patch_body};
pub(crate) use query::Query;
pub(crate) use request::{RequestInfo, Target};
pub(crate) use respond::{Output, error_response, json_response, text_response};
