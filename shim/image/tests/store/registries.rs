//! Registries: authentication, certificates, broken connections.

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};

use hull_image::{HostConfig, ImageStore, PullErrorKind, RegistryAuth, StoreConfig};

use crate::support::fake::{Answer, Fake, Request};
use crate::support::image::{Compression, Image, Layer, OCI_MANIFEST, small};
use crate::support::registry::{Options, PASSWORD, Registry, USER, digest};
use crate::support::{assert_empty, store};

fn password(password: &str) -> Option<RegistryAuth> {
    Some(RegistryAuth::Basic {
        username: USER.to_owned(),
        password: password.to_owned(),
    })
}

/// Serves one image as a plain registry would.
fn serve(image: &Image, request: &Request) -> Answer {
    let last = request
        .target
        .split('?')
        .next()
        .unwrap()
        .rsplit('/')
        .next()
        .unwrap();
    if request.target.contains("/manifests/") {
        return Answer::new(200, image.manifest.clone()).header("content-type", OCI_MANIFEST);
    }
    if last == image.id() {
        return Answer::new(200, image.config.clone());
    }
    match image.blobs.iter().find(|blob| digest(blob) == last) {
        Some(blob) => Answer::new(200, blob.clone()),
        None => Answer::new(404, "{}"),
    }
}

#[tokio::test]
async fn a_registry_with_passwords_wants_the_right_one() {
    let registry = Registry::start_with(Options {
        password: true,
        ..Options::default()
    });
    small().push(&registry, "library/private", "latest").await;
    let root = tempfile::tempdir().unwrap();
    let store = store(root.path(), &registry.url());

    for wrong in [
        None,
        password("wrong"),
        Some(RegistryAuth::RegistryToken("t".to_owned())),
    ] {
        let error = store.pull("private", wrong).await.unwrap_err();
        assert_eq!(error.kind(), PullErrorKind::Unauthorized, "{error}");
    }
    assert_empty(&store);
    store.pull("private", password(PASSWORD)).await.unwrap();
    // Having the image is no right to it: another pull still needs its own credentials.
    let error = store.pull("private", None).await.unwrap_err();
    assert_eq!(error.kind(), PullErrorKind::Unauthorized, "{error}");
}

#[tokio::test]
async fn tokens_are_fetched_where_the_registry_says() {
    let image = small();
    let realm = std::sync::OnceLock::<String>::new();
    let realm = std::sync::Arc::new(realm);
    let known = std::sync::Arc::clone(&realm);
    let fake = Fake::start(move |request| {
        if request.target.starts_with("/token") {
            let right = request
                .headers
                .get("authorization")
                .is_some_and(|h| h.starts_with("Basic "));
            let scoped = request
                .target
                .contains("scope=repository%3Alibrary%2Ft%3Apull");
            return match right && scoped {
                true => Answer::new(200, r#"{"access_token":"secret"}"#),
                false => Answer::new(401, "{}"),
            };
        }
        if request.headers.get("authorization").map(String::as_str) != Some("Bearer secret") {
            let url = known.get().unwrap();
            let challenge = format!(r#"Bearer realm="{url}/token",service="s""#);
            return Answer::new(401, "{}").header("www-authenticate", challenge);
        }
        serve(&image, request)
    })
    .await;
    realm.set(fake.url.clone()).unwrap();
    let root = tempfile::tempdir().unwrap();
    let store = store(root.path(), &fake.url);

    let error = store.pull("t", None).await.unwrap_err();
    assert_eq!(error.kind(), PullErrorKind::Unauthorized, "{error}");
    store.pull("t", password(PASSWORD)).await.unwrap();
    assert_eq!(fake.count("GET /token"), 2);
}

#[tokio::test]
async fn an_identity_token_is_changed_for_a_bearer_token() {
    let image = small();
    let realm = std::sync::Arc::new(std::sync::OnceLock::<String>::new());
    let known = std::sync::Arc::clone(&realm);
    let fake = Fake::start(move |request| {
        if request.target.starts_with("/token") {
            let fields = [
                "grant_type=refresh_token",
                "refresh_token=id%26tok",
                "service=s",
            ];
            return match fields.iter().all(|field| request.body.contains(field)) {
                true => Answer::new(200, r#"{"token":"secret"}"#),
                false => Answer::new(400, "{}"),
            };
        }
        if request.headers.get("authorization").map(String::as_str) != Some("Bearer secret") {
            let url = known.get().unwrap();
            let challenge = format!(r#"Bearer realm="{url}/token",service="s""#);
            return Answer::new(401, "{}").header("www-authenticate", challenge);
        }
        serve(&image, request)
    })
    .await;
    realm.set(fake.url.clone()).unwrap();
    let root = tempfile::tempdir().unwrap();
    let store = store(root.path(), &fake.url);
    let auth = Some(RegistryAuth::IdentityToken("id&tok".to_owned()));
    store.pull("t", auth).await.unwrap();
    assert_eq!(fake.count("POST /token"), 1);
}

#[tokio::test]
async fn credentials_do_not_reach_a_mirror_unless_configured() {
    let image = small();
    let fake = Fake::start(
        move |request| match request.headers.contains_key("authorization") {
            true => Answer::new(500, "got credentials"),
            false => serve(&image, request),
        },
    )
    .await;
    let root = tempfile::tempdir().unwrap();
    let mut config = crate::support::config(root.path(), &fake.url);
    if let Some(host) = config.registries.hosts.get_mut("docker.io") {
        host.forward_credentials = false;
    }
    let store = ImageStore::open(config).unwrap();
    let auth = Some(RegistryAuth::RegistryToken("secret".to_owned()));
    store.pull("t", auth).await.unwrap();
}

#[tokio::test]
async fn https_needs_a_trusted_certificate() {
    let authority = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let (certificate, key) = (authority.cert.pem(), authority.signing_key.serialize_pem());
    let tls = Some((certificate.clone(), key));
    let registry = Registry::start_with(Options {
        tls,
        ..Options::default()
    });
    small().push(&registry, "library/small", "latest").await;
    let root = tempfile::tempdir().unwrap();
    let reference = format!("127.0.0.1:{}/library/small", registry.port());
    let open = |host: HostConfig| {
        let mut config = StoreConfig::new(root.path());
        let name = format!("127.0.0.1:{}", registry.port());
        config.registries.hosts.insert(name, host);
        ImageStore::open(config).unwrap()
    };

    let mut host = HostConfig {
        endpoints: vec![registry.url()],
        fall_back: false,
        ..HostConfig::default()
    };
    let error = open(host.clone()).pull(&reference, None).await.unwrap_err();
    assert_eq!(error.kind(), PullErrorKind::Unavailable);
    assert!(error.to_string().contains("certificate"), "{error}");

    let ca_file = root.path().join("ca.pem");
    fs::write(&ca_file, certificate).unwrap();
    host.ca_file = Some(ca_file);
    open(host.clone()).pull(&reference, None).await.unwrap();

    host.ca_file = None;
    host.insecure = true;
    open(host).pull(&reference, None).await.unwrap();
}

#[tokio::test]
async fn a_broken_download_goes_on_where_it_broke() {
    let layer = Layer::new().file("data", &[7; 300_000]);
    let image = Image::new(vec![(layer, Compression::None)]);
    let blob_path = format!("/blobs/{}", digest(&image.blobs[0]));
    let requests = AtomicUsize::new(0);
    let fake = Fake::start(move |request| {
        let mut answer = serve(&image, request);
        if !request.target.contains(&blob_path) {
            return answer;
        }
        let total = answer.body.len();
        match requests.fetch_add(1, Ordering::Relaxed) {
            // Without ranges, then with them.
            0 => answer.cut = Some(100_000),
            1 => answer.cut = Some(200_000),
            _ => {
                let range = request.headers["range"].strip_prefix("bytes=").unwrap();
                let start: usize = range.trim_end_matches('-').parse().unwrap();
                answer.status = 206;
                answer.body.drain(..start);
                let range = format!("bytes {start}-{}/{total}", total - 1);
                answer = answer.header("content-range", range);
            }
        }
        answer
    })
    .await;
    let root = tempfile::tempdir().unwrap();
    let store = store(root.path(), &fake.url);

    store.pull("big", None).await.unwrap();

    assert_eq!(fake.count("/blobs/"), 4);
}

#[tokio::test]
async fn concurrent_pulls_download_once() {
    let image = small();
    let fake = Fake::start(move |request| serve(&image, request)).await;
    let root = tempfile::tempdir().unwrap();
    let store = store(root.path(), &fake.url);

    let pulls = (0..8).map(|number| {
        let store = store.clone();
        async move { store.pull(&format!("app:v{number}"), None).await }
    });
    for pulled in futures::future::join_all(pulls).await {
        pulled.unwrap();
    }

    assert_eq!(fake.count("/manifests/"), 8);
    assert_eq!(fake.count("/blobs/"), 2);
    assert_eq!(store.list()[0].repo_tags.len(), 8);
}

#[tokio::test]
async fn a_registry_that_lies_about_a_manifest_is_caught() {
    let image = small();
    let fake = Fake::start(move |request| {
        let wrong = format!("sha256:{}", "0".repeat(64));
        serve(&image, request).header("docker-content-digest", wrong)
    })
    .await;
    let root = tempfile::tempdir().unwrap();
    let store = store(root.path(), &fake.url);

    let by_digest = format!("app@sha256:{}", "1".repeat(64));
    for reference in ["app", &by_digest] {
        let error = store.pull(reference, None).await.unwrap_err();
        assert_eq!(error.kind(), PullErrorKind::DigestMismatch, "{error}");
    }
    assert_empty(&store);
}

#[tokio::test]
async fn an_endless_manifest_is_cut_off() {
    let fake = Fake::start(|_| Answer::new(200, vec![b' '; 5 << 20])).await;
    let root = tempfile::tempdir().unwrap();
    let store = store(root.path(), &fake.url);
    let error = store.pull("app", None).await.unwrap_err();
    assert_eq!(error.kind(), PullErrorKind::ResourceExhausted, "{error}");
}
