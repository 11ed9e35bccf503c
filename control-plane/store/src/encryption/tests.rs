use super::*;
use crate::embedded::EmbeddedStore;

const KEY_A: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
const KEY_B: &str = "ZmVkY2JhOTg3NjU0MzIxMGZlZGNiYTk4NzY1NDMyMTA=";
const SECRET: &str = "/registry/secrets/default/a";

fn rules(providers: &str) -> Result<Rules, EncryptionError> {
    let text = format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- resources: [secrets]\n  providers: [{providers}]\n"
    );
    Rules::parse(&text, |resource| match resource {
        "secrets" => vec!["/registry/secrets/".into()],
        _ => Vec::new(),
    })
}

fn provider(kind: &str, name: &str, secret: &str) -> String {
    format!("{{{kind}: {{keys: [{{name: {name}, secret: {secret}}}]}}}}")
}

const IDENTITY: &str = "{identity: {}}";

struct Fixture {
    inner: Arc<dyn Store>,
    _folder: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Fixture {
            inner: Arc::new(EmbeddedStore::open(folder.path().join("db")).unwrap()),
            _folder: folder,
        }
    }

    fn with(&self, providers: &str) -> EncryptedStore {
        EncryptedStore::new(self.inner.clone(), rules(providers).unwrap())
    }

    async fn raw(&self, key: &str) -> Bytes {
        self.inner.get(key).await.unwrap().unwrap().value
    }
}

async fn put(store: &EncryptedStore, key: &str, value: &'static str) -> Revision {
    let writes = vec![Write::Put(
        key.to_owned(),
        Bytes::from_static(value.as_bytes()),
    )];
    match store.txn(Vec::new(), writes).await.unwrap() {
        TxnOutcome::Committed(revision) => revision,
        conflict @ TxnOutcome::Conflict { .. } => panic!("{conflict:?}"),
    }
}

async fn value(store: &EncryptedStore, key: &str) -> Result<Bytes, StoreError> {
    Ok(store.get(key).await?.unwrap().value)
}

#[tokio::test]
async fn what_a_rule_names_is_unreadable_on_disk_and_the_rest_is_plain() {
    for kind in ["aesgcm", "secretbox"] {
        let fixture = Fixture::new();
        let store = fixture.with(&provider(kind, "a", KEY_A));
        let written = put(&store, SECRET, "password").await;
        put(&store, "/registry/pods/default/a", "public").await;
        let raw = fixture.raw(SECRET).await;
        assert!(raw.starts_with(format!("k8s:enc:{kind}:v1:a:").as_bytes()));
        assert!(!raw.windows(8).any(|window| window == b"password"));
        assert_eq!(fixture.raw("/registry/pods/default/a").await, "public");

        assert_eq!(value(&store, SECRET).await.unwrap(), "password");
        let page = store
            .list(prefix_range("/registry/"), None, 0)
            .await
            .unwrap();
        assert_eq!(page.items[1].value, "password");
        let refused = store
            .txn(vec![Condition::Absent(SECRET.into())], Vec::new())
            .await
            .unwrap();
        assert!(
            matches!(refused, TxnOutcome::Conflict { current: Some(pair), .. } if pair.value == "password")
        );
        let mut watch = store
            .watch(prefix_range("/registry/"), Some(written - 1))
            .await
            .unwrap();
        match watch.next().await.unwrap().unwrap() {
            WatchEvent::Put { current, .. } => assert_eq!(current.value, "password"),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn the_same_value_never_looks_the_same() {
    let fixture = Fixture::new();
    let store = fixture.with(&provider("aesgcm", "a", KEY_A));
    put(&store, SECRET, "x").await;
    let first = fixture.raw(SECRET).await;
    put(&store, SECRET, "x").await;
    assert_ne!(fixture.raw(SECRET).await, first);
}

#[tokio::test]
async fn keys_rotate_without_an_unreadable_moment() {
    let fixture = Fixture::new();
    let (a, b) = (
        provider("aesgcm", "a", KEY_A),
        provider("secretbox", "b", KEY_B),
    );
    let store = fixture.with(IDENTITY);
    put(&store, SECRET, "one").await;
    put(&store, "/registry/secrets/default/b", "two").await;

    store.replace_rules(rules(&format!("{a}, {IDENTITY}")).unwrap());
    assert_eq!(value(&store, SECRET).await.unwrap(), "one");
    let done = store.reencrypt(&mut |_| {}).await.unwrap();
    assert_eq!(
        done,
        Reencrypted {
            keys: 2,
            rewritten: 2
        }
    );
    assert!(
        fixture
            .raw(SECRET)
            .await
            .starts_with(b"k8s:enc:aesgcm:v1:a:")
    );

    store.replace_rules(rules(&format!("{b}, {a}")).unwrap());
    assert_eq!(value(&store, SECRET).await.unwrap(), "one");
    let done = store.reencrypt(&mut |_| {}).await.unwrap();
    assert_eq!(
        done,
        Reencrypted {
            keys: 2,
            rewritten: 2
        }
    );

    store.replace_rules(rules(&b).unwrap());
    assert_eq!(value(&store, SECRET).await.unwrap(), "one");
    let done = store.reencrypt(&mut |_| {}).await.unwrap();
    assert_eq!(
        done,
        Reencrypted {
            keys: 2,
            rewritten: 0
        }
    );
}

#[tokio::test]
async fn what_cannot_be_read_is_named_and_never_passed_on() {
    let fixture = Fixture::new();
    let a = provider("aesgcm", "a", KEY_A);
    let store = fixture.with(&a);
    put(&store, SECRET, "password").await;
    let raw = fixture.raw(SECRET).await;
    let with = |providers: &str| fixture.with(providers);
    for (store, reason) in [
        (with(&provider("aesgcm", "a", KEY_B)), "another secret"),
        (
            with(&provider("aesgcm", "b", KEY_A)),
            "no key of the configuration",
        ),
        (with(IDENTITY), "no key of the configuration"),
    ] {
        let error = value(&store, SECRET).await.unwrap_err().to_string();
        assert!(error.contains(SECRET) && error.contains(reason), "{error}");
        assert!(store.list(prefix_range("/"), None, 0).await.is_err());
    }
    let tampered = |at: usize| {
        let mut value = raw.to_vec();
        value[at] ^= 1;
        Bytes::from(value)
    };
    for (key, stored, reason) in [
        (SECRET, tampered(raw.len() - 1), "changed"),
        (SECRET, tampered(b"k8s:enc:aesgcm:v1:a:".len()), "changed"),
        (SECRET, raw.slice(..25), "too short"),
        ("/registry/secrets/default/other", raw.clone(), "moved"),
        (SECRET, Bytes::from_static(b"plain"), "no identity"),
    ] {
        let writes = vec![Write::Put(key.to_owned(), stored)];
        fixture.inner.txn(Vec::new(), writes).await.unwrap();
        let error = value(&store, key).await.unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    }
}

#[test]
fn unusable_configurations_are_refused_with_the_reason() {
    for (providers, reason) in [
        (String::new(), "no provider"),
        (
            "{aescbc: {keys: []}}".into(),
            "unimplemented: the aescbc provider",
        ),
        ("{kms: {name: x}}".into(), "unimplemented: the kms provider"),
        ("{aesgcm: {keys: []}}".into(), "no keys"),
        ("{rot13: {}}".into(), "rot13"),
        (provider("aesgcm", "a", "c2hvcnQ="), "16 or 32 bytes"),
        (provider("secretbox", "a", "c2hvcnQ="), "32 bytes"),
        (provider("aesgcm", "a", "'*'"), "no base64"),
        (provider("aesgcm", "'a:b'", KEY_A), "colon"),
    ] {
        let error = rules(&providers).err().unwrap().to_string();
        assert!(error.contains(reason), "{providers}: {error}");
    }
    let other = "apiVersion: v1\nkind: Pod\nresources: []";
    assert!(matches!(
        Rules::parse(other, |_| Vec::new()),
        Err(EncryptionError::Kind(_))
    ));
    let unknown = "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources: [{resources: [nopes], providers: [{identity: {}}]}]";
    let error = Rules::parse(unknown, |_| Vec::new())
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains("no resource \"nopes\""), "{error}");
}

async fn encrypted() -> (Arc<dyn Store>, Fixture) {
    let fixture = Fixture::new();
    let text = format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources: [{{resources: [all], providers: [{}]}}]",
        provider("aesgcm", "a", KEY_A)
    );
    let rules = Rules::parse(&text, |_| vec!["/".into()]).unwrap();
    (
        Arc::new(EncryptedStore::new(fixture.inner.clone(), rules)),
        fixture,
    )
}

mod conformance {
    crate::store_conformance_tests!(super::encrypted);
}
