//! kill -9 at any moment.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Command, Stdio},
};

use super::*;

/// Set for the process that is going to be killed: the store's file.
const CHILD_FILE: &str = "HULL_STORE_TEST_CHILD_FILE";
const CHILD_TEST: &str = "embedded::tests::durability::child_writes_until_killed";
const WRITERS: usize = 8;

#[test]
#[ignore = "started by every_acknowledged_write_survives_kill_9"]
fn child_writes_until_killed() {
    let Some(file) = std::env::var_os(CHILD_FILE) else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let store = Arc::new(EmbeddedStore::open(PathBuf::from(file)).unwrap());
        let start = store.revision().await.unwrap();
        let writers = (0..WRITERS).map(|writer| {
            let store = store.clone();
            tokio::spawn(async move {
                for n in 0.. {
                    let key = format!("/k/{start:09}/{writer}/{n}");
                    let revision = put(&store, &key, vec![b'x'; 200]).await;
                    // One write call per line: a line is never half there.
                    println!("ack {key} {revision}");
                }
            })
        });
        futures::future::join_all(writers.collect::<Vec<_>>()).await;
    });
}

/// Starts the writer, kills it after `acks` acknowledgements; gives these.
fn run_and_kill(file: &std::path::Path, acks: usize) -> BTreeMap<String, Revision> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", CHILD_TEST, "--include-ignored", "--nocapture"])
        .env(CHILD_FILE, file)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut acknowledged = BTreeMap::new();
    let mut killed = false;
    // What is in the pipe when the process dies was acknowledged too.
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let Ok(line) = line else { break };
        let Some(ack) = line.split("ack ").nth(1) else {
            continue;
        };
        let Some((key, revision)) = ack.split_once(' ') else {
            continue;
        };
        acknowledged.insert(key.to_owned(), revision.parse().unwrap());
        if acknowledged.len() >= acks && !killed {
            child.kill().unwrap();
            killed = true;
        }
    }
    child.wait().unwrap();
    assert!(killed, "the writer ended by itself");
    acknowledged
}

#[tokio::test]
async fn every_acknowledged_write_survives_kill_9() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("hull.db");
    let mut acknowledged = BTreeMap::new();
    for round in 0..5 {
        let (file, acks) = (file.clone(), 40 + round * 83);
        let more = tokio::task::spawn_blocking(move || run_and_kill(&file, acks))
            .await
            .unwrap();
        acknowledged.extend(more);
        let store = EmbeddedStore::open(folder.path().join("hull.db")).unwrap();
        let page = store.list(prefix_range("/k/"), None, 0).await.unwrap();
        let stored: BTreeMap<_, _> = page
            .items
            .iter()
            .map(|item| (item.key.clone(), item.mod_revision))
            .collect();
        for (key, revision) in &acknowledged {
            assert_eq!(
                stored.get(key),
                Some(revision),
                "acknowledged and lost: {key}"
            );
        }
        // Each transaction made one key: the revisions are 1, 2, 3 ... without gap or double.
        let mut revisions: Vec<_> = stored.into_values().collect();
        revisions.sort_unstable();
        assert!(revisions.iter().copied().eq(1..=page.revision));
    }
}

#[tokio::test]
async fn a_reopened_store_continues_where_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("hull.db");
    let store = EmbeddedStore::open(&file).unwrap();
    let created = put(&store, "/a", "one").await;
    let changed = put(&store, "/a", "two").await;
    put(&store, "/b", "x").await;
    store
        .txn(Vec::new(), vec![Write::Delete("/b".into())])
        .await
        .unwrap();
    drop(store);
    let store = EmbeddedStore::open(&file).unwrap();
    let a = store.get("/a").await.unwrap().unwrap();
    assert_eq!(
        (a.create_revision, a.mod_revision, &a.value[..]),
        (created, changed, &b"two"[..])
    );
    assert_eq!(store.get("/b").await.unwrap(), None);
    assert_eq!(store.revision().await.unwrap(), 4);
    // What happened before is not known any more; what happens from here on is.
    let early = store.watch(prefix_range("/"), Some(3)).await.err();
    assert!(matches!(
        early,
        Some(StoreError::Compacted { oldest: 4, .. })
    ));
    let mut watch = store.watch(prefix_range("/"), Some(4)).await.unwrap();
    assert_eq!(put(&store, "/c", "x").await, 5);
    assert_eq!(watch.next().await.unwrap().unwrap().revision(), 5);
}

#[tokio::test]
async fn a_second_opener_is_told_that_the_file_is_in_use() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("hull.db");
    let store = EmbeddedStore::open(&file).unwrap();
    match EmbeddedStore::open(&file) {
        Err(error @ StoreError::Locked { .. }) => {
            let text = error.to_string();
            assert_eq!(
                text,
                format!("store file {} is in use by another process", file.display())
            );
        }
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("opened twice"),
    }
    drop(store);
    EmbeddedStore::open(&file).unwrap();
}

#[tokio::test]
async fn ends_of_keys_are_kept_over_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("hull.db");
    let store = EmbeddedStore::open(&file).unwrap();
    let expiring = |key: &str, ttl| Write::PutExpiring(key.to_owned(), Bytes::new(), ttl);
    let writes = vec![
        expiring("/short", Duration::from_millis(300)),
        expiring("/kept", Duration::from_millis(300)),
        expiring("/long", Duration::from_secs(3600)),
    ];
    store.txn(Vec::new(), writes).await.unwrap();
    put(&store, "/kept", "x").await;
    drop(store);
    let store = EmbeddedStore::open(&file).unwrap();
    let mut watch = store.watch(prefix_range("/"), None).await.unwrap();
    while store.get("/short").await.unwrap().is_some() {
        watch.next().await.unwrap().unwrap();
    }
    assert!(store.get("/long").await.unwrap().is_some());
    assert!(store.get("/kept").await.unwrap().is_some());
}

#[tokio::test]
async fn a_store_created_after_a_revision_goes_on_from_there() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("hull.db");
    let store = EmbeddedStore::create_after(&file, 1000).unwrap();
    assert_eq!(put(&store, "/a", "x").await, 1001);
    let early = store.watch(prefix_range("/"), Some(999)).await.err();
    assert!(matches!(
        early,
        Some(StoreError::Compacted { oldest: 1000, .. })
    ));
    drop(store);
    assert!(EmbeddedStore::create_after(&file, 5).is_err());
    let store = EmbeddedStore::open(&file).unwrap();
    assert_eq!(store.revision().await.unwrap(), 1001);
}
