//! The API server over real TLS, with a real store in a temporary directory.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod admission;
mod aggregation;
mod audit;
mod bad_requests;
mod certificates;
mod conversion;
mod custom_definitions;
mod custom_resources;
mod deletion;
mod discovery;
mod dynamic_admission;
mod evictions;
mod flow_control;
mod harness;
mod hostile;
mod kubectl;
mod lists;
mod local_service;
mod node_proxy;
mod objects;
mod own_namespaces;
mod patches;
mod pod_security;
mod protobuf;
mod rbac;
mod security;
mod server_side_apply;
mod services;
mod tables;
mod tls_server;
mod tokens;
mod watches;
mod webhook_operations;
mod webhooks;
mod workloads;
