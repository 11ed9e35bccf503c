//! Which pods have a worker: follows the API server's pods of this node and the runtime's
//! sandboxes, and removes what belongs to no pod.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event};
use parking_lot::RwLock;
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::context::NodeContext;
use crate::cri::observed::{Fingerprint, PodSummary};
use crate::pod::identity::PodIdentity;
use crate::pod::terminate::remove_orphan;
use crate::pod::worker::{PodUpdate, Worker};
use crate::static_pods::source::StaticPods;
use crate::static_pods::{SOURCE, is_static, mirrored};
use crate::volumes;

/// The pods of this node, for the server.
pub(crate) type PodIndex = Arc<RwLock<HashMap<String, Arc<Pod>>>>;

type Channel<T> = (mpsc::UnboundedSender<T>, mpsc::UnboundedReceiver<T>);

struct Entry {
    updates: watch::Sender<PodUpdate>,
    poke: Arc<Notify>,
    fingerprint: Fingerprint,
    /// A static pod: the API server does not decide about it.
    is_static: bool,
    /// Counts workers of one UID, so that the end of an old one is not taken for the new one's.
    number: u64,
}

/// The manager's state.
pub(crate) struct Manager {
    node: Arc<NodeContext>,
    index: PodIndex,
    entries: HashMap<String, Entry>,
    ended: Channel<(String, u64)>,
    /// Orphans being removed.
    orphans: HashSet<String>,
    orphans_done: Channel<String>,
    statics: StaticPods,
    /// A mirror of a static pod was changed in the API.
    mirrors: Arc<Notify>,
    /// The API server's pods are known: what is neither among them nor static is an orphan.
    synced: bool,
    /// Directories that belong to no pod were removed.
    tidied: bool,
    seen: HashSet<String>,
    next_number: u64,
}

impl Manager {
    pub(crate) fn new(
        node: Arc<NodeContext>,
        index: PodIndex,
        statics: StaticPods,
        mirrors: Arc<Notify>,
    ) -> Self {
        Manager {
            node,
            index,
            entries: HashMap::new(),
            ended: mpsc::unbounded_channel(),
            orphans: HashSet::new(),
            orphans_done: mpsc::unbounded_channel(),
            statics,
            mirrors,
            synced: false,
            tidied: false,
            seen: HashSet::new(),
            next_number: 0,
        }
    }

    /// Runs until cancelled. Workers end with it; pods keep running.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        let api: Api<Pod> = Api::all(self.node.client.clone());
        let fields = format!("spec.nodeName={}", self.node.config.node_name);
        let stream =
            watcher::watcher(api, watcher::Config::default().fields(&fields)).default_backoff();
        let mut stream = std::pin::pin!(stream);
        let (relists, mut listed) = mpsc::channel(1);
        let relister = tokio::spawn(relist(self.node.clone(), relists));
        self.statics.mark_changed();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                event = stream.next() => match event {
                    Some(Ok(event)) => self.on_event(event),
                    Some(Err(error)) => tracing::warn!(%error, "pod watch interrupted, trying again"),
                    None => break,
                },
                Ok(()) = self.statics.changed() => self.on_statics(),
                Some(pods) = listed.recv() => self.on_relist(pods),
                Some((uid, number)) = self.ended.1.recv() => self.on_ended(&uid, number),
                Some(uid) = self.orphans_done.1.recv() => { self.orphans.remove(&uid); }
            }
        }
        relister.abort();
    }

    fn on_event(&mut self, event: Event<Pod>) {
        match event {
            Event::Init => self.seen.clear(),
            Event::InitApply(pod) => {
                self.seen.extend(pod.metadata.uid.clone());
                self.apply(pod);
            }
            Event::InitDone => {
                let gone: Vec<String> = self
                    .entries
                    .iter()
                    .filter(|(uid, entry)| !entry.is_static && !self.seen.contains(*uid))
                    .map(|(uid, _)| uid.clone())
                    .collect();
                for uid in gone {
                    self.remove(&uid, None);
                }
                self.seen.clear();
                self.synced = true;
                self.tidy();
            }
            Event::Apply(pod) => self.apply(pod),
            Event::Delete(pod) => {
                if mirrored(&pod).is_some() {
                    self.mirrors.notify_one();
                } else if let Some(uid) = pod.metadata.uid.clone() {
                    self.remove(&uid, Some(pod));
                }
            }
        }
        self.node.metrics.set_pods(self.entries.len());
    }

    fn knows_all(&self) -> bool {
        self.synced && self.statics.borrow().is_some()
    }

    /// Takes over the present static pods.
    fn on_statics(&mut self) {
        let Some(pods) = self.statics.borrow_and_update().clone() else {
            return;
        };
        let present: HashSet<&str> = pods
            .iter()
            .filter_map(|pod| pod.metadata.uid.as_deref())
            .collect();
        let gone: Vec<String> = self
            .entries
            .iter()
            .filter(|(uid, entry)| entry.is_static && !present.contains(uid.as_str()))
            .map(|(uid, _)| uid.clone())
            .collect();
        for uid in gone {
            self.remove(&uid, None);
        }
        for pod in &pods {
            let uid = pod.metadata.uid.as_deref().unwrap_or_default();
            if !self.entries.contains_key(uid) {
                self.put(Pod::clone(pod));
            }
        }
        self.tidy();
    }

    /// Gives a static pod the status that its mirror shows: the newest that the API has.
    fn on_mirror(&mut self, mirror: Pod) {
        self.mirrors.notify_one();
        let uid = mirrored(&mirror).unwrap_or_default();
        let known = self.index.read().get(uid).cloned();
        let Some(known) = known.filter(|pod| is_static(pod)) else {
            return;
        };
        let mut pod = Pod::clone(&known);
        pod.status = mirror.status;
        self.put(pod);
    }

    fn tidy(&mut self) {
        if self.knows_all() && !std::mem::replace(&mut self.tidied, true) {
            self.remove_stale_directories();
        }
    }

    /// Takes over a pod of the API.
    fn apply(&mut self, pod: Pod) {
        if mirrored(&pod).is_some() {
            self.on_mirror(pod);
            return;
        }
        let mut pod = pod;
        if let Some(annotations) = &mut pod.metadata.annotations {
            // Only the node itself says what is static.
            annotations.remove(SOURCE);
        }
        self.put(pod);
    }

    fn put(&mut self, pod: Pod) {
        let Some(identity) = PodIdentity::of(&pod) else {
            tracing::warn!(name = ?pod.metadata.name, "pod without a usable name or UID: ignored");
            return;
        };
        let uid = identity.uid.clone();
        let is_static = is_static(&pod);
        let pod = Arc::new(pod);
        self.index.write().insert(uid.clone(), pod.clone());
        let update = PodUpdate {
            pod,
            removed: false,
        };
        if let Some(entry) = self.entries.get(&uid) {
            entry.updates.send_replace(update);
            return;
        }
        let (updates, receiver) = watch::channel(update);
        let poke = Arc::new(Notify::new());
        self.next_number += 1;
        let number = self.next_number;
        let worker = Worker::new(self.node.clone(), identity, receiver, poke.clone());
        let ended = self.ended.0.clone();
        let ended_uid = uid.clone();
        tokio::spawn(async move {
            worker.run().await;
            let _ = ended.send((ended_uid, number));
        });
        let entry = Entry {
            is_static,
            updates,
            poke,
            fingerprint: Fingerprint::default(),
            number,
        };
        self.entries.insert(uid, entry);
    }

    fn remove(&mut self, uid: &str, last: Option<Pod>) {
        self.index.write().remove(uid);
        if let Some(entry) = self.entries.get(uid) {
            entry.updates.send_modify(|update| {
                update.removed = true;
                if let Some(pod) = last {
                    update.pod = Arc::new(pod);
                }
            });
        }
    }

    fn on_ended(&mut self, uid: &str, number: u64) {
        if self
            .entries
            .get(uid)
            .is_some_and(|entry| entry.number == number)
        {
            self.entries.remove(uid);
            self.index.write().remove(uid);
        }
    }

    /// Wakes the workers of pods that changed; removes what belongs to no pod.
    fn on_relist(&mut self, pods: HashMap<String, PodSummary>) {
        for (uid, entry) in &mut self.entries {
            let fingerprint = pods
                .get(uid)
                .map(|summary| summary.fingerprint.clone())
                .unwrap_or_default();
            if entry.fingerprint != fingerprint {
                entry.fingerprint = fingerprint;
                entry.poke.notify_one();
            }
        }
        if !self.knows_all() {
            return;
        }
        for (uid, summary) in pods {
            if self.entries.contains_key(&uid) || !self.orphans.insert(uid.clone()) {
                continue;
            }
            tracing::info!(
                uid,
                namespace = summary.namespace,
                name = summary.name,
                "removing pod that the API server does not have"
            );
            let node = self.node.clone();
            let done = self.orphans_done.0.clone();
            tokio::spawn(async move {
                match remove_orphan(node.clone(), &uid).await {
                    Ok(()) => {
                        let logs = node
                            .config
                            .pod_log_dir(&summary.namespace, &summary.name, &uid);
                        let _ = volumes::tear_down(&logs);
                        let _ = volumes::tear_down(&node.config.pod_dir(&uid));
                    }
                    Err(error) => tracing::warn!(uid, %error, "orphan not removed, trying again"),
                }
                let _ = done.send(uid);
            });
        }
    }

    /// Directories of pods that neither the API server nor a worker knows.
    fn remove_stale_directories(&self) {
        let known = |uid: &str| self.entries.contains_key(uid);
        let pods = self.node.config.root_dir.join("pods");
        for directory in subdirectories(&pods) {
            let name = directory
                .file_name()
                .map(|name| name.to_string_lossy().into_owned());
            if name.is_some_and(|uid| !known(&uid)) {
                let _ = volumes::tear_down(&directory);
            }
        }
        for directory in subdirectories(&self.node.config.pod_log_dir) {
            let name = directory
                .file_name()
                .map(|name| name.to_string_lossy().into_owned());
            let parts: Vec<&str> = name.iter().flat_map(|name| name.split('_')).collect();
            if let [_, _, uid] = parts.as_slice()
                && !known(uid)
            {
                let _ = volumes::tear_down(&directory);
            }
        }
    }
}

fn subdirectories(path: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .collect()
}

/// Lists the runtime at an interval, and at once when it streams a change.
async fn relist(node: Arc<NodeContext>, listed: mpsc::Sender<HashMap<String, PodSummary>>) {
    let changed = Arc::new(Notify::new());
    let follower = tokio::spawn(follow_events(node.clone(), changed.clone()));
    let mut failing = false;
    loop {
        let begun = Instant::now();
        match node.cri.list_pods().await {
            Ok(pods) => {
                node.metrics.observe_relist(begun.elapsed());
                if std::mem::replace(&mut failing, false) {
                    tracing::info!("container runtime answers again");
                }
                if listed.send(pods).await.is_err() {
                    break;
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(%error, "container runtime cannot be listed");
                }
            }
        }
        let _ = tokio::time::timeout(node.config.timings.relist_interval, changed.notified()).await;
    }
    follower.abort();
}

/// Turns the runtime's event stream into notifications, where it has one.
async fn follow_events(node: Arc<NodeContext>, changed: Arc<Notify>) {
    loop {
        match node.cri.events().await {
            Ok(mut stream) => {
                while let Ok(Some(_)) = stream.message().await {
                    changed.notify_one();
                }
            }
            Err(error) if error.is_unimplemented() => return,
            Err(_) => {}
        }
        tokio::time::sleep(node.config.timings.relist_interval).await;
    }
}
