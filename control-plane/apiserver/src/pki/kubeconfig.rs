//! A kubeconfig with everything in it.

use base64::{Engine, engine::general_purpose::STANDARD};

use super::CertPair;

/// Renders a kubeconfig with one cluster, one user and one context, all named `hull`.
pub fn kubeconfig(server: &str, ca_pem: &str, user: &str, pair: &CertPair) -> String {
    let encode = |pem: &str| STANDARD.encode(pem);
    format!(
        "apiVersion: v1
kind: Config
clusters:
- name: hull
  cluster:
    server: {server}
    certificate-authority-data: {ca}
users:
- name: {user}
  user:
    client-certificate-data: {cert}
    client-key-data: {key}
contexts:
- name: hull
  context:
    cluster: hull
    user: {user}
current-context: hull
",
        ca = encode(ca_pem),
        cert = encode(&pair.cert_pem),
        key = encode(&pair.key_pem),
    )
}
