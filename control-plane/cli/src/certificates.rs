//! The control plane's certificates are issued anew before they end, while it runs.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use hull_apiserver::ApiServer;
use hull_apiserver::pki::{CertPair, ClusterPki};
use hull_tls::RenewableCertificate;
use tokio_util::sync::CancellationToken;

use crate::agent;
use crate::files::write_atomically;
use crate::server::{ControlPlane, Tasks, kubeconfig_of};
use crate::settings::Resolved;

/// How often their ends are looked at. They are issued anew weeks before.
const CHECK_INTERVAL: Duration = Duration::from_secs(60 * 60);

/// What the certificates are replaced in.
pub struct Renewal {
    settings: Resolved,
    api: Arc<ApiServer>,
    pki: ClusterPki,
    /// The administrator's, which the kubeconfig holds.
    admin: Option<CertPair>,
    /// Of the node agent's server, where this process runs one.
    node: Option<RenewableCertificate>,
}

impl Renewal {
    /// Of a control plane, and of the node agent beside it.
    pub fn of(
        settings: &Resolved,
        control_plane: &ControlPlane,
        node: Option<RenewableCertificate>,
    ) -> Self {
        Renewal {
            settings: settings.clone(),
            api: control_plane.api.clone(),
            pki: control_plane.pki.clone(),
            admin: control_plane.pki.admin().ok(),
            node,
        }
    }

    /// Looks after them until `shutdown`.
    pub fn start(mut self, tasks: &mut Tasks, shutdown: &CancellationToken) {
        let stop = shutdown.clone();
        tasks.spawn(async move {
            while stop
                .run_until_cancelled(tokio::time::sleep(CHECK_INTERVAL))
                .await
                .is_some()
            {
                if let Err(error) = self.renew() {
                    tracing::error!("certificates cannot be renewed, tried again: {error:#}");
                }
            }
            Ok(())
        });
    }

    /// Replaces those whose end is near.
    fn renew(&mut self) -> anyhow::Result<()> {
        let pki = self.pki.renewed()?;
        self.api.use_certificates(&pki)?;
        if let Some(node) = &self.node {
            let pair = agent::own_certificate(&self.settings, &pki)?;
            node.replace(pair.cert_pem.as_bytes(), pair.key_pem.as_bytes())?;
        }
        let admin = pki.admin().context("administrator's certificate")?;
        if self.admin.as_ref() != Some(&admin) {
            let kubeconfig = kubeconfig_of(&self.settings, &pki)?;
            write_atomically(&self.settings.kubeconfig, &kubeconfig, 0o600)?;
            tracing::info!(kubeconfig = %self.settings.kubeconfig.display(), "written with a new certificate");
        }
        if pki.server() != self.pki.server() {
            tracing::info!("the API server has a new certificate");
        }
        (self.admin, self.pki) = (Some(admin), pki);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use hull_apiserver::ApiServerConfig;
    use hull_store::embedded::EmbeddedStore;
    use hull_tls::AnyCertificate;
    use rustls::pki_types::{CertificateDer, ServerName};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::server;
    use crate::settings::Settings;

    /// The certificate that is shown to a new connection.
    async fn shown(address: std::net::SocketAddr) -> CertificateDer<'static> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(AnyCertificate::new(provider))
            .with_no_client_auth();
        let stream = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let stream = connector.connect(name, stream).await.unwrap();
        let certificates = stream.get_ref().1.peer_certificates().unwrap();
        certificates[0].clone().into_owned()
    }

    #[tokio::test]
    async fn certificates_are_replaced_in_what_runs() {
        let directory = tempfile::tempdir().unwrap();
        let settings = Settings {
            data_dir: Some(directory.path().to_path_buf()),
            kubeconfig: Some(directory.path().join("kubeconfig")),
            node_name: Some("n1".into()),
            ..Settings::default()
        };
        let settings = settings.resolve(None).unwrap();
        let pki = server::pki(&settings).unwrap();
        let store = EmbeddedStore::open(directory.path().join("store")).unwrap();
        let api = ApiServer::new(ApiServerConfig::new(pki.clone()), Arc::new(store));
        let api = api.await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(api.clone().serve(listener, std::future::pending()));
        let node = agent::own_tls(&settings, &pki).unwrap().certificate;
        let control_plane = ControlPlane { api, pki };
        let mut renewal = Renewal::of(&settings, &control_plane, Some(node.clone()));
        let (server_before, node_before) = (shown(address).await, node.certificate());

        renewal.renew().unwrap();
        assert_eq!(shown(address).await, server_before, "its end is far");
        assert!(!settings.kubeconfig.exists(), "nor has the administrator's");

        // As good as at their ends.
        for name in ["apiserver", "kubelet-n1", "admin"] {
            std::fs::remove_file(directory.path().join(format!("pki/{name}.crt"))).unwrap();
        }
        renewal.renew().unwrap();
        assert_ne!(shown(address).await, server_before);
        assert_ne!(node.certificate(), node_before);
        let kubeconfig = std::fs::read_to_string(&settings.kubeconfig).unwrap();
        assert_eq!(kubeconfig, kubeconfig_of(&settings, &renewal.pki).unwrap());
        serving.abort();
    }
}
