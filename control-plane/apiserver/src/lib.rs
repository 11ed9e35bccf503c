//! The Kubernetes API server: the only door to the store.
//!
//! ```text
//!  TLS (h1, h2) ──► tls: who is it ──┐
//!  in process (local_service) ───────┤
//!                                    ▼
//!  service: path → RequestInfo ► authorization: may they ► handlers, one per verb
//!                                                   │  rules of the kind: hull_api
//!                                                   ▼
//!        admission ► storage (get, create, update with retries, delete) ► hull_store
//!                                                   │
//!        lists, watches ◄── watch_cache ◄── one watch of the store
//!        logs, exec ──► node_proxy ──► the node agent
//!        …/proxy/PATH ──► proxy ──► a pod, a service's pod, a node agent
//! ```
//!
//! Groups of other servers (`aggregation`) are passed on once a request may be made.
//!
//! No handler knows a kind: all of them route on [`hull_api::Registry`], to which
//! `custom_resources` adds those that CustomResourceDefinitions bring.
//!
//! Both ways in, socket and [`ApiServer::local_service`], run the same service: same
//! authorisation, admission and codecs.

mod admission;
mod aggregation;
pub mod audit;
mod auth;
mod authorization;
mod body;
mod bootstrap;
mod config;
mod connect;
mod custom_resources;
mod dial;
mod discovery;
mod error;
mod flow_control;
mod handlers;
mod health;
mod http;
mod metrics;
mod names;
mod node_proxy;
mod open_api;
pub mod pki;
mod proxy;
mod resource_metrics;
mod server;
mod service;
mod service_network;
mod storage;
mod timeout;
mod tls;
mod watch_cache;
mod webhook_client;

pub use auth::{AuthenticationConfigError, JwtIssuers, UserInfo};
pub use body::ApiBody;
pub use config::{ApiServerConfig, limits};
pub use error::ServerError;
pub use server::ApiServer;
pub use service::LocalService;
pub use service_network::{Ipv4Range, RangeError, ServiceNetwork};
