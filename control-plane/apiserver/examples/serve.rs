//! Runs an API server alone: `cargo run -p hull-apiserver --example serve -- DIR [ADDRESS]`.
//! Certificates, store and kubeconfig are kept in DIR.

use std::{path::PathBuf, sync::Arc};

use hull_apiserver::{ApiServer, ApiServerConfig, pki::ClusterPki};
use hull_store::embedded::EmbeddedStore;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let mut arguments = std::env::args().skip(1);
    let dir = PathBuf::from(
        arguments
            .next()
            .unwrap_or_else(|| "hull-apiserver-data".to_string()),
    );
    let address = arguments
        .next()
        .unwrap_or_else(|| "127.0.0.1:6443".to_string());

    let pki = ClusterPki::load_or_create(dir.join("pki"), &[])?;
    let store = Arc::new(EmbeddedStore::open(dir.join("store.redb"))?);
    let listener = tokio::net::TcpListener::bind(&address).await?;
    let url = format!("https://{}", listener.local_addr()?);
    let kubeconfig = dir.join("kubeconfig");
    std::fs::write(&kubeconfig, pki.kubeconfig(&url, "admin", &pki.admin()?))?;

    let server = ApiServer::new(ApiServerConfig::new(pki), store).await?;
    println!("serving {url}");
    println!("KUBECONFIG={}", kubeconfig.display());
    server
        .serve(listener, async {
            // An error here means that Ctrl-C cannot be caught: stop as if it came.
            let _ = tokio::signal::ctrl_c().await;
        })
        .await?;
    Ok(())
}
