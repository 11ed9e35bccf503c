//! Members that die under load.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::Duration,
};

use futures::StreamExt;

use super::*;
use crate::WatchEvent;

const WRITERS: usize = 4;
/// Longest wait for writers to get on after a member died: an election on a busy machine.
const RECOVERY_TIMEOUT: Duration = Duration::from_secs(60);

/// Writers that create keys until they are stopped, and what was acknowledged to them.
struct Load {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicUsize>,
    writers: Vec<tokio::task::JoinHandle<BTreeMap<String, Revision>>>,
}

impl Load {
    fn start(store: &EtcdStore) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let acknowledged = Arc::new(AtomicUsize::new(0));
        let writers = (0..WRITERS)
            .map(|writer| {
                let (store, stop, count) = (store.clone(), stop.clone(), acknowledged.clone());
                tokio::spawn(async move {
                    let mut mine = BTreeMap::new();
                    for n in 0.. {
                        if stop.load(Ordering::Relaxed) {
                            break;
                        }
                        let key = format!("/load/{writer}/{n:06}");
                        // What fails may or may not be there.
                        if let Ok(revision) = put(&store, &key, "x").await {
                            mine.insert(key, revision);
                            count.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                    mine
                })
            })
            .collect();
        Load {
            stop,
            acknowledged,
            writers,
        }
    }

    async fn wait_for(&self, more: usize) {
        let goal = self.acknowledged.load(Ordering::Relaxed) + more;
        let reached = async {
            while self.acknowledged.load(Ordering::Relaxed) < goal {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(RECOVERY_TIMEOUT, reached)
            .await
            .unwrap();
    }

    async fn finish(self) -> BTreeMap<String, Revision> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = BTreeMap::new();
        for writer in self.writers {
            all.extend(writer.await.unwrap());
        }
        all
    }
}

/// Nothing acknowledged is lost, and the watch tells exactly what the store has, in order.
async fn check(
    store: &EtcdStore,
    mut watch: crate::WatchStream,
    acknowledged: BTreeMap<String, Revision>,
) {
    let page = store.list(prefix_range("/load/"), None, 0).await.unwrap();
    let stored: BTreeMap<_, _> = page
        .items
        .into_iter()
        .map(|item| (item.key, item.mod_revision))
        .collect();
    for (key, revision) in &acknowledged {
        assert_eq!(
            stored.get(key),
            Some(revision),
            "acknowledged and lost: {key}"
        );
    }
    let (mut seen, mut last) = (BTreeMap::new(), 0);
    while seen.len() < stored.len() {
        let event = tokio::time::timeout(RECOVERY_TIMEOUT, watch.next())
            .await
            .unwrap();
        if let WatchEvent::Put { current, previous } = event.unwrap().unwrap() {
            assert!(previous.is_none() && current.mod_revision > last);
            last = current.mod_revision;
            seen.insert(current.key, current.mod_revision);
        }
    }
    assert_eq!(seen, stored);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_writes_and_watches_survive_kill_9_of_etcd() {
    let mut etcd = EtcdProcess::single().await;
    let store = store_in(&etcd).await;
    let watch = store.watch(prefix_range("/load/"), None).await.unwrap();
    let load = Load::start(&store);
    for _ in 0..3 {
        load.wait_for(100).await;
        etcd.kill(0);
        etcd.restart(0).await;
    }
    load.wait_for(100).await;
    let acknowledged = load.finish().await;
    check(&store, watch, acknowledged).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_three_members_may_die_under_load() {
    let mut etcd = EtcdProcess::start(3, Options::default()).await;
    let store = store_in(&etcd).await;
    let watch = store.watch(prefix_range("/load/"), None).await.unwrap();
    let load = Load::start(&store);
    for member in 0..3 {
        load.wait_for(50).await;
        etcd.kill(member);
        load.wait_for(50).await;
        let status = store.status().await.unwrap();
        assert!(status.members[member].state.is_err(), "{status:?}");
        assert_eq!(status.members.iter().filter(|m| m.state.is_ok()).count(), 2);
        etcd.restart(member).await;
    }
    let acknowledged = load.finish().await;
    check(&store, watch, acknowledged).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_majority_writes_fail_and_resume_with_it() {
    let mut etcd = EtcdProcess::start(3, Options::default()).await;
    let mut config = EtcdConfig::from_address(&etcd.address(), None, None, None).unwrap();
    config.request_timeout = Duration::from_secs(3);
    let store = EtcdStore::connect(&config).await.unwrap();
    put(&store, "/a", "x").await.unwrap();
    etcd.kill(0);
    etcd.kill(1);
    let failed = put(&store, "/b", "x").await.unwrap_err();
    assert!(
        matches!(
            failed,
            StoreError::Unavailable { .. } | StoreError::TimedOut { .. }
        ),
        "{failed:?}"
    );
    assert!(failed.to_string().contains(&etcd.endpoint(2)), "{failed}");
    etcd.restart(0).await;
    let deadline = tokio::time::Instant::now() + RECOVERY_TIMEOUT;
    while let Err(error) = put(&store, "/c", "x").await {
        assert!(tokio::time::Instant::now() < deadline, "{error}");
    }
    assert!(store.get("/a").await.unwrap().is_some());
}
