//! An HTTPS server of the test: a webhook, or an extension of the API.

use std::{convert::Infallible, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use futures::{StreamExt, stream};
use http::{Response, request::Parts};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::{body::Frame, service::service_fn};
use hyper_util::rt::TokioIo;
use rustls::{RootCertStore, server::WebPkiClientVerifier};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use serde_json::Value;
use tokio::sync::watch;

/// Listens at 127.0.0.1 until the test ends.
pub struct TlsServer {
    pub port: u16,
    /// Its certificate, which is its own authority: PEM in base64, as `caBundle` wants it.
    pub bundle: String,
    silence: watch::Sender<Silence>,
}

/// How a server answers that is no more than half there. Those that speak at all still say that
/// they live: only requests for objects meet the silence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Silence {
    /// It answers.
    None,
    /// It takes connections and never says a word.
    Connection,
    /// It reads requests.
    Answer,
    /// It begins to answer.
    Body,
}

/// A JSON document with status 200.
pub fn json_answer(value: &Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(value.to_string())));
    let json = http::HeaderValue::from_static("application/json");
    response.headers_mut().insert("content-type", json);
    response
}

fn settings(
    certificate: &rcgen::Certificate,
    key: &rcgen::KeyPair,
    client_ca: Option<&str>,
) -> rustls::ServerConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap();
    let builder = match client_ca {
        None => builder.with_no_client_auth(),
        Some(pem) => {
            let mut roots = RootCertStore::empty();
            let ca = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
            roots.add(ca).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        }
    };
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    builder
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap()
}

/// The answer, or only a part of it.
fn body(bytes: Bytes, silence: Silence) -> BoxBody<Bytes, Infallible> {
    if silence != Silence::Body {
        return BodyExt::boxed(Full::new(bytes));
    }
    let begin = stream::iter([Ok(Frame::data(Bytes::from_static(b"{")))]);
    BodyExt::boxed(StreamBody::new(begin.chain(stream::pending())))
}

impl TlsServer {
    /// From now on.
    pub fn fall(&self, silence: Silence) {
        self.silence.send_replace(silence);
    }

    /// Serves `answer` under `names`; with `client_ca` only to clients that it signed.
    pub async fn start(
        names: &[&str],
        client_ca: Option<&str>,
        answer: impl Fn(&Parts, &Bytes) -> Response<Full<Bytes>> + Send + Sync + 'static,
    ) -> Self {
        let names: Vec<String> = names.iter().map(|name| (*name).to_string()).collect();
        let key = rcgen::KeyPair::generate().unwrap();
        let parameters = rcgen::CertificateParams::new(names).unwrap();
        let certificate = parameters.self_signed(&key).unwrap();
        let config = Arc::new(settings(&certificate, &key, client_ca));
        let acceptor = tokio_rustls::TlsAcceptor::from(config);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let answer = Arc::new(answer);
        let (sender, silence) = watch::channel(Silence::None);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, answer) = (acceptor.clone(), answer.clone());
                let silence = silence.clone();
                tokio::spawn(async move {
                    if *silence.borrow() == Silence::Connection {
                        std::future::pending::<()>().await;
                    }
                    let Ok(stream) = acceptor.accept(stream).await else {
                        return;
                    };
                    let service = service_fn(|request: http::Request<hyper::body::Incoming>| {
                        let answer = answer.clone();
                        let is_object = request.uri().path().contains("/namespaces/");
                        let silence = match *silence.borrow() {
                            silence if is_object => silence,
                            _ => Silence::None,
                        };
                        async move {
                            let (parts, sent) = request.into_parts();
                            let sent = sent.collect().await.unwrap().to_bytes();
                            if silence == Silence::Answer {
                                std::future::pending::<()>().await;
                            }
                            let (head, full) = answer(&parts, &sent).into_parts();
                            let full = full.collect().await.unwrap().to_bytes();
                            Ok::<_, Infallible>(Response::from_parts(head, body(full, silence)))
                        }
                    });
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        TlsServer {
            port,
            bundle: STANDARD.encode(certificate.pem()),
            silence: sender,
        }
    }
}
