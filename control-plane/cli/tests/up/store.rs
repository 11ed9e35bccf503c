//! The store as a setting: etcd under one and two servers, and `hull store`.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures::StreamExt;
use hull_test_etcd::EtcdProcess;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{ListParams, PostParams, VersionMatch, WatchEvent, WatchParams};

use super::*;

impl Setup {
    pub(super) fn server(&self, store: &str) -> Running {
        Running(self.server_command(store).spawn().unwrap())
    }

    fn server_command(&self, store: &str) -> Command {
        let mut command = hull();
        command
            .arg("server")
            .arg("--data-dir")
            .arg(self.path("data"))
            .arg("--kubeconfig")
            .arg(self.path("home/kubeconfig"))
            .arg("--listen")
            .arg(format!("127.0.0.1:{}", self.port))
            .args([
                "--node-name",
                "n1",
                "--node-ip",
                "127.0.0.1",
                "--store",
                store,
            ])
            .stdin(Stdio::null())
            .stderr(std::fs::File::create(self.path("log")).unwrap());
        command
    }

    fn store(&self, arguments: &[&str]) -> Output {
        let mut command = hull();
        command
            .arg("store")
            .args(arguments)
            .arg("--data-dir")
            .arg(self.path("data"));
        command.output().unwrap()
    }

    fn store_done(&self, arguments: &[&str]) -> String {
        let output = self.store(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", text(&output));
        text(&output)
    }

    /// Another machine's directory, with the cluster's certificates.
    fn sibling(&self) -> Setup {
        let sibling = Setup::new();
        std::fs::create_dir_all(sibling.path("data/pki")).unwrap();
        for file in std::fs::read_dir(self.path("data/pki")).unwrap() {
            let file = file.unwrap();
            let name = file.file_name().into_string().unwrap();
            std::fs::copy(file.path(), sibling.path("data/pki").join(name)).unwrap();
        }
        sibling
    }
}

fn config_maps(client: &kube::Client) -> kube::Api<ConfigMap> {
    kube::Api::namespaced(client.clone(), "default")
}

fn named(name: &str) -> ConfigMap {
    let mut map = ConfigMap::default();
    map.metadata.name = Some(name.to_owned());
    map
}

async fn create(client: &kube::Client, name: &str) -> bool {
    let (maps, params) = (config_maps(client), PostParams::default());
    maps.create(&params, &named(name)).await.is_ok()
}

/// Creates config maps through two servers in turn until stopped; what was acknowledged.
async fn load(
    clients: [kube::Client; 2],
    writer: usize,
    stop: Arc<AtomicBool>,
    count: Arc<AtomicUsize>,
) -> BTreeSet<String> {
    let mut acknowledged = BTreeSet::new();
    for n in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let name = format!("load-{writer}-{n}");
        if create(&clients[n % 2], &name).await {
            acknowledged.insert(name);
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
    acknowledged
}

async fn reach(count: &AtomicUsize, goal: usize) {
    let begun = Instant::now();
    while count.load(Ordering::Relaxed) < goal {
        assert!(begun.elapsed() < DEADLINE, "the load does not get on");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_two_servers_on_one_etcd_may_die_under_load() {
    let etcd = EtcdProcess::single().await;
    let first = Setup::new();
    let dying = first.server(&etcd.address());
    let client_of_dying = first.client().await;
    let second = first.sibling();
    let _staying = second.server(&etcd.address());
    let staying = second.client().await;

    let watched = config_maps(&staying);
    let start = watched.list(&ListParams::default()).await.unwrap();
    let start = start.metadata.resource_version.unwrap();
    let params = WatchParams::default();
    let mut watch = watched.watch(&params, &start).await.unwrap().boxed();

    let stop = Arc::new(AtomicBool::new(false));
    let count = Arc::new(AtomicUsize::new(0));
    let writers: Vec<_> = (0..3)
        .map(|writer| {
            let clients = [client_of_dying.clone(), staying.clone()];
            tokio::spawn(load(clients, writer, stop.clone(), count.clone()))
        })
        .collect();
    reach(&count, 100).await;
    dying.signal(Signal::SIGKILL);
    dying.wait();
    let at_death = count.load(Ordering::Relaxed);
    reach(&count, at_death + 100).await;
    stop.store(true, Ordering::Relaxed);
    let mut acknowledged = BTreeSet::new();
    for writer in writers {
        acknowledged.extend(writer.await.unwrap());
    }

    let listed = watched.list(&ListParams::default()).await.unwrap();
    let stored: BTreeSet<String> = listed
        .items
        .into_iter()
        .filter_map(|map| map.metadata.name)
        .filter(|name| name.starts_with("load-"))
        .collect();
    let lost: Vec<_> = acknowledged.difference(&stored).collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    let mut seen = BTreeSet::new();
    while seen.len() < stored.len() {
        let event = tokio::time::timeout(DEADLINE, watch.next()).await.unwrap();
        if let WatchEvent::Added(map) = event.unwrap().unwrap() {
            let name = map.metadata.name.unwrap();
            if name.starts_with("load-") {
                assert!(seen.insert(name), "told twice");
            }
        }
    }
    assert_eq!(seen, stored);
}

/// Names and uids of the load's config maps, now or at a revision.
async fn loaded(client: &kube::Client, revision: Option<&str>) -> Vec<(String, Option<String>)> {
    let params = ListParams::default();
    let params = match revision {
        Some(revision) => params.at(revision).matching(VersionMatch::Exact),
        None => params,
    };
    let listed = config_maps(client).list(&params).await.unwrap();
    let maps = listed.items.into_iter().map(|map| map.metadata);
    maps.filter_map(|metadata| Some((metadata.name?, metadata.uid)))
        .filter(|(name, _)| name.starts_with("load-"))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_server_is_backed_up_under_load() {
    let setup = Setup::new();
    let running = setup.server("embedded");
    let client = setup.client().await;
    let stop = Arc::new(AtomicBool::new(false));
    let count = Arc::new(AtomicUsize::new(0));
    let writers: Vec<_> = (0..3)
        .map(|writer| {
            let clients = [client.clone(), client.clone()];
            tokio::spawn(load(clients, writer, stop.clone(), count.clone()))
        })
        .collect();
    reach(&count, 100).await;
    let file = setup.path("backup");
    let backup = file.to_str().unwrap();
    let told = setup.store_done(&["backup", backup]);
    let after = count.load(Ordering::Relaxed);
    reach(&count, after + 20).await;
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.unwrap();
    }
    let revision = told.split("of revision ").nth(1).unwrap();
    let revision = revision.split_whitespace().next().unwrap();
    let then = loaded(&client, Some(revision)).await;
    assert!(then.len() >= 100, "{told}");
    assert!(
        then.len() < loaded(&client, None).await.len(),
        "writes went on"
    );
    assert_eq!(mode(&file), 0o600);
    let taken = setup.store(&["backup", backup]);
    assert!(!taken.status.success(), "a backup is never overwritten");

    let sibling = setup.sibling();
    let store = format!("embedded:{}", sibling.path("restored.redb").display());
    sibling.store_done(&["restore", backup, "--store", &store]);
    let _restored = sibling.server(&store);
    assert_eq!(loaded(&sibling.client().await, None).await, then);

    // What a killed server leaves in the directory is in nobody's way.
    running.signal(Signal::SIGKILL);
    running.wait();
    setup.store_done(&["backup", setup.path("stopped").to_str().unwrap()]);
    let _running = setup.server("embedded");
    setup.client().await;
    setup.store_done(&["backup", setup.path("again").to_str().unwrap()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_moves_to_etcd_and_back() {
    let etcd = EtcdProcess::single().await;
    let setup = Setup::new();
    let running = setup.server("embedded");
    assert!(create(&setup.client().await, "kept").await);
    let busy = setup.store_done(&["status"]);
    assert!(
        busy.contains("embedded") && busy.contains("revision"),
        "{busy}"
    );
    let moved = setup.store(&["migrate", "--to", &etcd.address()]);
    assert!(!moved.status.success());
    assert!(
        text(&moved).contains("in use by another process"),
        "{}",
        text(&moved)
    );
    running.signal(Signal::SIGTERM);
    assert!(running.wait().success());

    let backup = setup.path("backup");
    let backup = backup.to_str().unwrap();
    setup.store_done(&["backup", backup]);
    let moved = setup.store_done(&["migrate", "--to", &etcd.address()]);
    assert!(moved.contains("every one compared"), "{moved}");
    let again = setup.store(&["migrate", "--to", &etcd.address()]);
    assert!(
        text(&again).contains("the target is not empty"),
        "{}",
        text(&again)
    );
    setup.store_done(&["migrate", "--clear-target", "--to", &etcd.address()]);

    let running = setup.server(&etcd.address());
    let client = setup.client().await;
    assert!(config_maps(&client).get("kept").await.is_ok());
    assert!(create(&client, "new").await);
    let status = setup.store_done(&["status", "--store", &etcd.address()]);
    assert!(
        status.contains("etcd 3.") && status.contains("leader"),
        "{status}"
    );
    setup.store_done(&["compact", "--store", &etcd.address()]);
    running.signal(Signal::SIGTERM);
    assert!(running.wait().success());

    let file = format!("embedded:{}", setup.path("back.redb").display());
    setup.store_done(&["migrate", "--store", &etcd.address(), "--to", &file]);
    let _running = setup.server(&file);
    let client = setup.client().await;
    for name in ["kept", "new"] {
        assert!(config_maps(&client).get(name).await.is_ok(), "{name}");
    }
    let restored = format!("embedded:{}", setup.path("restored.redb").display());
    setup.store_done(&["restore", backup, "--store", &restored]);
    setup.store_done(&["compact", "--store", &restored]);
    let status = setup.store_done(&["status", "--store", &restored]);
    assert!(status.contains("embedded"), "{status}");
}

#[test]
fn an_etcd_that_is_not_there_is_named() {
    let setup = Setup::new();
    let output = setup.store(&["status", "--store", "etcd://127.0.0.1:1"]);
    assert!(!output.status.success());
    let text = text(&output);
    assert!(
        text.contains("127.0.0.1:1") && text.contains("Connection refused"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_encrypted_at_rest_and_keys_rotate() {
    const SECRET: &str = "/api/v1/namespaces/default/secrets";
    let setup = Setup::new();
    let file = setup.path("encryption.yaml");
    let configure = |providers: &str| {
        let text = format!(
            "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- resources: [secrets]\n  providers: [{providers}]\n"
        );
        std::fs::write(&file, text).unwrap();
    };
    let key = |kind: &str, name: &str| {
        let secret = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
        format!("{{{kind}: {{keys: [{{name: {name}, secret: {secret}}}]}}}}")
    };
    let setting = file.to_str().unwrap();
    let store = setup.path("data/store.redb");
    let holds = |file: &Path, text: &str| {
        let bytes = std::fs::read(file).unwrap();
        bytes
            .windows(text.len())
            .any(|window| window == text.as_bytes())
    };
    let server = || {
        let mut command = setup.server_command("embedded");
        command.args(["--encryption-config", setting]);
        Running(command.spawn().unwrap())
    };

    configure(&key("aesgcm", "one"));
    let running = server();
    let client = setup.client().await;
    let body = serde_json::json!({"apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": "s"}, "stringData": {"password": "correct horse"}});
    let request = http::Request::post(SECRET)
        .header("content-type", "application/json")
        .body(serde_json::to_vec(&body).unwrap())
        .unwrap();
    client.request_text(request).await.unwrap();
    let backup = setup.path("backup");
    setup.store_done(&["backup", backup.to_str().unwrap()]);
    running.signal(Signal::SIGTERM);
    assert!(running.wait().success());
    for file in [&store, &backup] {
        assert!(holds(file, "k8s:enc:aesgcm:v1:one:"), "{file:?}");
        assert!(!holds(file, "Y29ycmVjdCBob3JzZQ"), "the password in base64");
    }

    configure(&format!(
        "{}, {}",
        key("secretbox", "two"),
        key("aesgcm", "one")
    ));
    let done = setup.store_done(&["reencrypt", "--encryption-config", setting]);
    assert!(
        done.contains("values written anew") && !done.starts_with("0 of"),
        "{done}"
    );
    configure(&key("secretbox", "two"));
    let done = setup.store_done(&["reencrypt", "--encryption-config", setting]);
    assert!(done.starts_with("0 of"), "{done}");
    let _running = server();
    let client = setup.client().await;
    let path = format!("{SECRET}/s");
    let secret = client.request_text(http_get(&path)).await.unwrap();
    assert!(secret.contains("Y29ycmVjdCBob3JzZQ"), "{secret}");
}
