//! Endpoints, certificates, and an etcd that is not there.

use std::{path::PathBuf, time::Duration};

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};

use hull_test_etcd::ServerTls;

use super::*;

/// Nothing listens there: the port is reserved and privileged.
const NOBODY: &str = "127.0.0.1:1";

fn config(address: &str) -> EtcdConfig {
    let mut config = EtcdConfig::from_address(address, None, None, None).unwrap();
    config.request_timeout = Duration::from_secs(2);
    config
}

#[tokio::test]
async fn an_etcd_that_is_not_there_is_named_with_the_reason() {
    let error = EtcdStore::connect(&config(&format!("etcd://{NOBODY}")))
        .await
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains("store unavailable"), "{error}");
    assert!(error.contains(NOBODY), "{error}");
    assert!(error.contains("Connection refused"), "{error}");
}

#[tokio::test]
async fn an_etcd_that_died_is_named_and_nothing_is_written() {
    let mut etcd = EtcdProcess::single().await;
    let store = EtcdStore::connect(&config(&etcd.address())).await.unwrap();
    etcd.kill(0);
    for error in [
        put(&store, "/a", "x").await.unwrap_err(),
        store.get("/a").await.unwrap_err(),
        store.list(prefix_range("/"), None, 0).await.unwrap_err(),
        store.compact(1).await.unwrap_err(),
    ] {
        assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
        assert!(error.to_string().contains(&etcd.endpoint(0)), "{error}");
    }
    etcd.restart(0).await;
    assert_eq!(store.get("/a").await.unwrap(), None);
}

#[tokio::test]
async fn an_etcd_that_hangs_is_given_up_after_the_time_out() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let error = EtcdStore::connect(&config(&format!("etcd://{address}")))
        .await
        .err()
        .unwrap();
    assert!(
        matches!(error, ConnectionError::Store(StoreError::TimedOut { .. })),
        "{error:?}"
    );
    assert!(error.to_string().contains("no answer within 2s"), "{error}");
}

#[tokio::test]
async fn members_that_do_not_answer_are_passed_over() {
    let etcd = EtcdProcess::single().await;
    let address = format!("etcd://{NOBODY},{}", etcd.endpoint(0));
    let store = EtcdStore::connect(&config(&address)).await.unwrap();
    put(&store, "/a", "x").await.unwrap();
    let status = store.status().await.unwrap();
    assert!(status.members[0].state.is_err());
    assert!(status.members[1].state.as_ref().unwrap().leader);
}

struct Certificates {
    folder: tempfile::TempDir,
}

impl Certificates {
    /// `ca`, and signed by it `server` and `client`.
    fn new() -> Self {
        let made = Certificates {
            folder: tempfile::tempdir().unwrap(),
        };
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        made.write("ca.crt", &params.self_signed(&key).unwrap().pem());
        let issuer = Issuer::new(params, key);
        for name in ["server", "client"] {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
            params.extended_key_usages = vec![
                ExtendedKeyUsagePurpose::ServerAuth,
                ExtendedKeyUsagePurpose::ClientAuth,
            ];
            let certificate = params.signed_by(&key, &issuer).unwrap();
            made.write(&format!("{name}.crt"), &certificate.pem());
            made.write(&format!("{name}.key"), &key.serialize_pem());
        }
        made
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    async fn etcd(&self) -> EtcdProcess {
        let tls = ServerTls {
            ca: self.path("ca.crt"),
            cert: self.path("server.crt"),
            key: self.path("server.key"),
        };
        let options = Options {
            tls: Some(tls),
            ..Options::default()
        };
        EtcdProcess::start(1, options).await
    }

    async fn connect(
        &self,
        etcd: &EtcdProcess,
        ca: PathBuf,
        client: bool,
    ) -> Result<EtcdStore, ConnectionError> {
        let file = |name| client.then(|| self.path(name));
        let mut config = EtcdConfig::from_address(
            &etcd.address(),
            Some(ca),
            file("client.crt"),
            file("client.key"),
        )?;
        config.request_timeout = Duration::from_secs(3);
        EtcdStore::connect(&config).await
    }
}

#[tokio::test]
async fn tls_with_a_client_certificate_works() {
    let certificates = Certificates::new();
    let etcd = certificates.etcd().await;
    let store = certificates
        .connect(&etcd, certificates.path("ca.crt"), true)
        .await
        .unwrap();
    let revision = put(&store, "/a", "x").await.unwrap();
    assert_eq!(
        store.get("/a").await.unwrap().unwrap().mod_revision,
        revision
    );
    let status = store.status().await.unwrap();
    assert!(status.members[0].state.is_ok(), "{status:?}");
}

#[tokio::test]
async fn without_a_client_certificate_etcd_refuses() {
    let certificates = Certificates::new();
    let etcd = certificates.etcd().await;
    let refused = certificates
        .connect(&etcd, certificates.path("ca.crt"), false)
        .await;
    let error = refused.err().unwrap().to_string();
    assert!(error.contains(&etcd.endpoint(0)), "{error}");
}

#[tokio::test]
async fn a_server_of_another_ca_is_not_trusted() {
    let certificates = Certificates::new();
    let etcd = certificates.etcd().await;
    let other = Certificates::new();
    let refused = certificates
        .connect(&etcd, other.path("ca.crt"), true)
        .await;
    let error = refused.err().unwrap().to_string();
    assert!(error.contains("certificate"), "{error}");
}

#[tokio::test]
async fn unusable_certificate_files_are_named() {
    let certificates = Certificates::new();
    certificates.write("empty.crt", "");
    for (ca, reason) in [
        ("missing.crt", "missing.crt"),
        ("empty.crt", "no certificate"),
    ] {
        let file = Some(certificates.path(ca));
        let config = EtcdConfig::from_address("etcds://127.0.0.1:1", file, None, None).unwrap();
        let error = EtcdStore::connect(&config).await.err().unwrap().to_string();
        assert!(
            error.contains("CA file of etcd") && error.contains(reason),
            "{error}"
        );
    }
}
