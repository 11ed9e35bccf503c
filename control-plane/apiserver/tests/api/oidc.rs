//! Users of an OpenID Connect provider.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use http::Method;
use hull_apiserver::JwtIssuers;
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};
use serde_json::{Value, json};

use crate::{
    dynamic_admission::eventually,
    harness::{PODS, TestServer},
    tls_server::{TlsServer, json_answer},
};

/// A key of the provider.
struct Key {
    id: &'static str,
    pair: EcdsaKeyPair,
}

impl Key {
    fn new(id: &'static str) -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let kind = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let random = SystemRandom::new();
        Key {
            id,
            pair: EcdsaKeyPair::from_pkcs8(kind, &key.serialize_der(), &random).unwrap(),
        }
    }

    fn jwk(&self) -> Value {
        let point = self.pair.public_key().as_ref();
        let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        json!({"kty": "EC", "crv": "P-256", "kid": self.id, "use": "sig",
            "x": part(&point[1..33]), "y": part(&point[33..])})
    }

    fn token(&self, claims: &Value) -> String {
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let head = encode(&json!({"alg": "ES256", "kid": self.id}));
        let signed = format!("{head}.{}", encode(claims));
        let signature = self
            .pair
            .sign(&SystemRandom::new(), signed.as_bytes())
            .unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

/// The provider: what it publishes, by path, and how often it was asked for its keys.
struct Provider {
    server: TlsServer,
    documents: Arc<Mutex<BTreeMap<String, Value>>>,
    asked: Arc<AtomicUsize>,
}

impl Provider {
    async fn start() -> Self {
        let documents = Arc::<Mutex<BTreeMap<String, Value>>>::default();
        let asked = Arc::<AtomicUsize>::default();
        let (published, counted) = (documents.clone(), asked.clone());
        let server = TlsServer::start(&["127.0.0.1"], None, move |parts, _| {
            let path = parts.uri.path();
            if path == "/keys" {
                counted.fetch_add(1, Ordering::Relaxed);
            }
            let document = published.lock().unwrap().get(path).cloned();
            json_answer(&document.unwrap_or_default())
        })
        .await;
        let provider = Provider {
            server,
            documents,
            asked,
        };
        let url = provider.url();
        let discovery = json!({"issuer": url, "jwks_uri": format!("{url}/keys")});
        provider.publish("/.well-known/openid-configuration", discovery);
        provider
    }

    fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.server.port)
    }

    fn publish(&self, path: &str, document: Value) {
        let mut documents = self.documents.lock().unwrap();
        documents.insert(path.to_string(), document);
    }

    fn keys(&self, keys: &[&Key]) {
        let keys: Vec<Value> = keys.iter().map(|key| key.jwk()).collect();
        self.publish("/keys", json!({"keys": keys}));
    }

    /// The configuration that believes its tokens.
    fn configuration(&self) -> String {
        let authority = STANDARD.decode(&self.server.bundle).unwrap();
        let file = json!({
            "apiVersion": "apiserver.config.k8s.io/v1",
            "kind": "AuthenticationConfiguration",
            "jwt": [{
                "issuer": {"url": self.url(), "audiences": ["hull"],
                    "certificateAuthority": String::from_utf8(authority).unwrap()},
                "claimMappings": {"username": {"claim": "sub", "prefix": "oidc:"},
                    "groups": {"claim": "groups", "prefix": "oidc:"}},
            }],
        });
        file.to_string()
    }

    /// A server that believes its tokens.
    async fn believed(&self) -> TestServer {
        let issuers = JwtIssuers::parse(&self.configuration()).unwrap();
        TestServer::start_with(|config| config.issuers = issuers).await
    }

    fn claims(&self) -> Value {
        let now = jiff::Timestamp::now().as_second();
        json!({"iss": self.url(), "aud": "hull", "sub": "ada", "groups": ["dev"], "exp": now + 600})
    }
}

/// Who the server takes the bearer of the token for; "": nobody.
async fn who(server: &TestServer, token: &str) -> String {
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let bearer = format!("Bearer {token}");
    let headers = [
        ("content-type", "application/json"),
        ("authorization", bearer.as_str()),
    ];
    let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let nobody = server.client(None);
    let answer = nobody
        .send(Method::POST, path, &headers, review.to_string())
        .await;
    match answer.code {
        401 => String::new(),
        _ => answer.json()["status"]["userInfo"]["username"]
            .as_str()
            .unwrap()
            .to_string(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn users_of_a_provider_are_known_by_its_tokens() {
    let provider = Provider::start().await;
    let (first, unknown) = (Key::new("first"), Key::new("unknown"));
    provider.keys(&[&first]);
    let server = provider.believed().await;
    let claims = provider.claims();
    let token = first.token(&claims);
    assert_eq!(who(&server, &token).await, "oidc:ada");
    assert_eq!(who(&server, &token).await, "oidc:ada");
    assert_eq!(provider.asked.load(Ordering::Relaxed), 1, "keys are kept");

    // Rights by the group.
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": {"name": "dev"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
        "subjects": [{"kind": "Group", "name": "oidc:dev", "apiGroup": "rbac.authorization.k8s.io"}]});
    let bindings = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";
    server.admin.post(bindings, &binding).await.ok();
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str())];
    let nobody = server.client(None);
    // Roles reach the authorizer a moment later.
    eventually(async || nobody.send(Method::GET, PODS, &headers, "").await.code == 200).await;

    // Others ask who it is.
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
        "spec": {"token": token}});
    let reviews = "/apis/authentication.k8s.io/v1/tokenreviews";
    let reviewed = server.admin.post(reviews, &review).await.json();
    assert_eq!(reviewed["status"]["user"]["username"], "oidc:ada");

    let mut old = claims.clone();
    old["exp"] = json!(1);
    let mut elsewhere = claims.clone();
    elsewhere["aud"] = json!("another");
    let mut stranger = claims.clone();
    stranger["iss"] = json!("https://stranger.example");
    for (token, what) in [
        (first.token(&old), "expired"),
        (first.token(&elsewhere), "for another audience"),
        (first.token(&stranger), "of another issuer"),
        (unknown.token(&claims), "signed by nobody that is known"),
    ] {
        assert_eq!(who(&server, &token).await, "", "{what}");
    }
    let impostor = Key {
        id: "first",
        ..unknown
    };
    assert_eq!(
        who(&server, &impostor.token(&claims)).await,
        "",
        "the key's name only"
    );
    // The provider is not asked again and again for keys that somebody made up.
    assert_eq!(provider.asked.load(Ordering::Relaxed), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_does_not_answer_keeps_nobody_else_out() {
    let provider = Provider::start().await;
    let key = Key::new("first");
    provider.publish(
        "/.well-known/openid-configuration",
        json!({"issuer": "https://other"}),
    );
    let server = provider.believed().await;
    assert_eq!(who(&server, &key.token(&provider.claims())).await, "");
    assert_eq!(
        provider.asked.load(Ordering::Relaxed),
        0,
        "another issuer's document"
    );
    server.admin.get(PODS).await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_server_takes_other_issuers() {
    let provider = Provider::start().await;
    let key = Key::new("first");
    provider.keys(&[&key]);
    let token = key.token(&provider.claims());
    let issuers = JwtIssuers::default();
    let given = issuers.clone();
    let server = TestServer::start_with(|config| config.issuers = given).await;
    assert_eq!(who(&server, &token).await, "");

    issuers.replace(&provider.configuration()).unwrap();
    assert_eq!(who(&server, &token).await, "oidc:ada");
    assert!(issuers.replace("jwt: 1").is_err());
    assert_eq!(who(&server, &token).await, "oidc:ada", "a bad file");

    let nobody = json!({"apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "AuthenticationConfiguration", "jwt": []});
    issuers.replace(&nobody.to_string()).unwrap();
    assert_eq!(who(&server, &token).await, "", "an issuer that is gone");
}
