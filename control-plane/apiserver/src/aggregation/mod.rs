//! Servers that extend the API: APIServices that name a service.
//!
//! ```text
//!  APIServices in the watch cache ──► table: group and version → Extension
//!        ▲ condition Available              │           ▲ resources, OpenAPI
//!        │                                  │           │
//!   availability ──── asks each server at changes and every 30 s
//!                                           │
//!  request /apis/GROUP/VERSION/… ──► proxy ─┴─► the service, as `front-proxy-client`,
//!                                               with X-Remote-User, -Group, -Uid, -Extra-*
//! ```
//!
//! A request is authenticated, authorised and audited here; who makes it is told to the
//! extension in headers that count because of the certificate they come with. Servers find that
//! certificate's authority in the ConfigMap `extension-apiserver-authentication`.
//!
//! For every version that this server answers itself, `local` keeps an APIService that says so.

mod availability;
mod local;
mod proxy;
mod table;

pub(crate) use availability::run;
pub(crate) use local::publish_authentication;
pub(crate) use proxy::{Forwarded, anonymous_headers, forward, remove_connection_headers};
pub(crate) use table::{Aggregation, Extension};
