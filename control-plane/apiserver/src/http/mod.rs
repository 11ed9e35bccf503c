//! HTTP as the Kubernetes API uses it: paths, query parameters, media types, responses.

mod compress;
mod media;
mod query;
mod request;
mod respond;

pub(crate) use compress::{accepts_gzip, compress};
pub(crate) use media::{
    Accept, Encoding, PatchType, decode_body, decode_patch_body, prefers_protobuf, value_of,
};
pub(crate) use query::{Query, decode};
pub(crate) use request::{ExtensionTarget, RequestInfo, Target};
pub(crate) use respond::{
    Output, Streamed, add_warning, error_response, error_response_as, json_response, text_response,
};
