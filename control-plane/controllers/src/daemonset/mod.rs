//! DaemonSets: one pod on every node that fits.
//!
//! ```text
//! reconcile: revisions ─► claim pods ─► per node: should it run here? is it there? how often?
//!            ─► create (affinity to the one node; the scheduler binds), delete
//!            ─► rolling update: old pods go within maxUnavailable, or new ones come first (maxSurge)
//! ```

mod nodes;
mod status;
#[cfg(test)]
mod tests;
mod update;

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use hull_client::events::{EventType, Recorder, reference};
use k8s_openapi::{
    api::{
        apps::v1::{ControllerRevision, DaemonSet, DaemonSetSpec},
        core::v1::{Node, Pod},
    },
    jiff::Timestamp,
};
use parking_lot::Mutex;

#[cfg(test)]
pub(crate) use nodes::intended as intended_node;

use crate::{
    adopt::{self, parse_selector},
    history::{self, History, REVISION_LABEL, Subject},
    owner,
    pod_control::{Failure, PodControl, pod_from_template},
    pods,
    runtime::{Action, Controller, Delta, Informer, Key, ReconcileError, WorkQueue, Writer},
};

/// Wait after a daemon pod failed on a node, before it is replaced; doubles with each further one.
const INITIAL_BACKOFF: Duration = Duration::from_secs(1);
/// Longest such wait.
const MAX_BACKOFF: Duration = Duration::from_secs(15 * 60);

/// See the module.
pub struct DaemonSetController {
    control: PodControl,
    sets: Arc<Informer<DaemonSet>>,
    pods: Arc<Informer<Pod>>,
    nodes: Arc<Informer<Node>>,
    revisions: Arc<Informer<ControllerRevision>>,
    queue: Arc<WorkQueue>,
    failures: Mutex<BTreeMap<(String, String), (u32, Instant)>>,
}

impl DaemonSetController {
    /// Connects the controller to its informers.
    pub fn new(
        writer: Arc<dyn Writer>,
        recorder: Recorder,
        sets: Arc<Informer<DaemonSet>>,
        pods: Arc<Informer<Pod>>,
        nodes: Arc<Informer<Node>>,
        revisions: Arc<Informer<ControllerRevision>>,
    ) -> Arc<Self> {
        let queue = Arc::new(WorkQueue::default());
        let control = PodControl::new(writer, recorder);
        owner::follow_owners(&sets, &queue, Some(&control.expectations));
        owner::follow(&sets, &pods, &queue, Some(&control.expectations));
        owner::follow(&sets, &revisions, &queue, None);
        nodes.on_change({
            let (sets, queue) = (sets.clone(), queue.clone());
            move |delta| {
                let wake = match delta {
                    Delta::Added(_) | Delta::Deleted(_) => true,
                    Delta::Updated { old, new } => nodes::differs(old, new),
                };
                if wake {
                    for set in sets.all() {
                        queue.add(Key::of(&*set));
                    }
                }
            }
        });
        Arc::new(DaemonSetController {
            control,
            sets,
            pods,
            nodes,
            revisions,
            queue,
            failures: Mutex::default(),
        })
    }

    async fn sync(
        &self,
        set: &DaemonSet,
        spec: &DaemonSetSpec,
        now: Timestamp,
    ) -> Result<Action, ReconcileError> {
        let key = Key::of(set);
        self.control.settle_doubts(&key).await?;
        // Before the pods are read: what is seen after this may be newer, never older.
        let waits = self.control.expectations.remaining(&key);
        let writer = &*self.control.writer;
        let selector = parse_selector(&spec.selector, &format!("daemonset {key}"))?;
        let claimed = adopt::claim(writer, set, &selector, &self.pods).await?;
        let subject = Subject {
            owner: set,
            selector: &spec.selector,
            template: &spec.template,
            collisions: set
                .status
                .as_ref()
                .and_then(|status| status.collision_count),
        };
        let history = subject.history(writer, &self.revisions).await?;
        let view = View::new(set, spec, &history, &claimed, self.nodes.all(), now);
        let mut managed = Ok(());
        let mut retry = None;
        if waits.is_none() && set.metadata.deletion_timestamp.is_none() {
            (managed, retry) = self.manage(&view).await;
            if managed.is_ok() && self.control.expectations.satisfied(&key) && view.is_rolling() {
                managed = self.roll(&view).await;
            }
        }
        let next = self.write_status(&view).await?;
        managed.map_err(|failure| failure.error)?;
        let in_use = |revision: &ControllerRevision| {
            claimed
                .iter()
                .any(|pod| hash_of(pod) == history::hash(revision))
        };
        history
            .truncate(writer, spec.revision_history_limit, in_use)
            .await?;
        let wait = [next, retry, waits].into_iter().flatten().min();
        Ok(wait.map_or(Action::Done, Action::After))
    }

    /// Creates what is missing and deletes what is too much or has failed.
    async fn manage(&self, view: &View<'_>) -> (Result<(), Failure>, Option<Duration>) {
        let (mut missing, mut doomed) = (Vec::new(), Vec::new());
        let mut retry: Option<Duration> = None;
        for node in view.nodes.values() {
            let fit = nodes::fit(view, node);
            let pods = view.on(node);
            if fit.should_run && pods.is_empty() {
                missing.push(view.name(node).to_owned());
            } else if !pods.is_empty() && !fit.should_continue {
                doomed.extend(pods.iter().filter(|pod| !leaves(pod)).cloned());
            } else if fit.should_continue {
                let wait = self.look_at(view, node, pods, &mut doomed);
                retry = [retry, wait].into_iter().flatten().min();
            }
        }
        // Pods that wait for a node that is gone never run.
        for (node, pods) in &view.by_node {
            if !node.is_empty() && !view.nodes.contains_key(node) {
                let waiting = |pod: &&Arc<Pod>| !leaves(pod) && pod_node(pod).is_none();
                doomed.extend(pods.iter().filter(waiting).cloned());
            }
        }
        let new = missing.iter().map(|node| view.new_pod(node)).collect();
        let changed = self.control.change(view.set, new, &doomed).await;
        (changed, retry)
    }

    /// One node that should have a pod and has at least one.
    fn look_at(
        &self,
        view: &View<'_>,
        node: &Node,
        pods: &[Arc<Pod>],
        doomed: &mut Vec<Arc<Pod>>,
    ) -> Option<Duration> {
        let mut retry = None;
        let mut running: Vec<&Arc<Pod>> = Vec::new();
        for pod in pods.iter().filter(|pod| !leaves(pod)) {
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            match pods::phase(pod) {
                "Failed" => match self.backoff(view, node) {
                    Some(wait) => retry = Some(wait),
                    None => {
                        let message = format!(
                            "Found failed daemon pod {} on node {}, will try to kill it",
                            Key::of(&**pod),
                            view.name(node)
                        );
                        self.say(view.set, EventType::Warning, "FailedDaemonPod", message);
                        doomed.push(pod.clone());
                    }
                },
                "Succeeded" => {
                    let message = format!(
                        "Found succeeded daemon pod {} on node {}, will try to delete it",
                        Key::of(&**pod),
                        view.name(node)
                    );
                    self.say(view.set, EventType::Normal, "SucceededDaemonPod", message);
                    doomed.push(pod.clone());
                }
                _ => running.push(pod),
            }
            tracing::trace!(pod = name, "daemon pod looked at");
        }
        // One of each revision while a surge goes on, otherwise the oldest stays.
        running.sort_by_key(|pod| {
            let created = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
            (pod_node(pod).is_none(), created, pod.metadata.name.clone())
        });
        let surging = view.max_surge() > 0;
        let mut kept_old = false;
        let mut kept_new = false;
        for pod in running {
            let kept = if surging && !view.is_current(pod) {
                &mut kept_old
            } else {
                &mut kept_new
            };
            if std::mem::replace(kept, true) {
                doomed.push(pod.clone());
            }
        }
        retry
    }

    fn say(&self, set: &DaemonSet, kind: EventType, reason: &'static str, message: String) {
        self.control
            .recorder
            .event(reference(set), kind, reason, message);
    }

    /// What is left of the wait after failures on this node; `None`: over, and a new one begins.
    fn backoff(&self, view: &View<'_>, node: &Node) -> Option<Duration> {
        let uid = view.set.metadata.uid.clone().unwrap_or_default();
        let mut failures = self.failures.lock();
        failures.retain(|_, (_, since)| since.elapsed() < MAX_BACKOFF * 2);
        let entry = failures.entry((uid, view.name(node).to_owned()));
        let (count, since) = entry.or_insert((0, Instant::now()));
        let wait = match *count {
            0 => Duration::ZERO,
            count => INITIAL_BACKOFF
                .saturating_mul(1 << (count - 1).min(16))
                .min(MAX_BACKOFF),
        };
        let left = wait.saturating_sub(since.elapsed());
        if !left.is_zero() {
            return Some(left);
        }
        *count = count.saturating_add(1);
        *since = Instant::now();
        None
    }
}

pub(crate) fn leaves(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

fn pod_node(pod: &Pod) -> Option<&str> {
    let spec = pod.spec.as_ref()?;
    spec.node_name.as_deref().filter(|name| !name.is_empty())
}

fn hash_of(pod: &Pod) -> &str {
    let labels = pod.metadata.labels.as_ref();
    labels
        .and_then(|labels| labels.get(REVISION_LABEL))
        .map_or("", String::as_str)
}

/// One look at a set.
pub(crate) struct View<'a> {
    pub set: &'a DaemonSet,
    pub spec: &'a DaemonSetSpec,
    pub history: &'a History,
    pub nodes: BTreeMap<String, Arc<Node>>,
    /// Also pods that only mean to go to the node.
    pub by_node: BTreeMap<String, Vec<Arc<Pod>>>,
    pub now: Timestamp,
}

impl<'a> View<'a> {
    fn new(
        set: &'a DaemonSet,
        spec: &'a DaemonSetSpec,
        history: &'a History,
        pods: &[Arc<Pod>],
        nodes: Vec<Arc<Node>>,
        now: Timestamp,
    ) -> Self {
        let mut by_node: BTreeMap<String, Vec<Arc<Pod>>> = BTreeMap::new();
        for pod in pods {
            let node = pod_node(pod).or_else(|| nodes::intended(pod));
            by_node
                .entry(node.unwrap_or_default().to_owned())
                .or_default()
                .push(pod.clone());
        }
        let named = |node: Arc<Node>| (node.metadata.name.clone().unwrap_or_default(), node);
        View {
            set,
            spec,
            history,
            nodes: nodes.into_iter().map(named).collect(),
            by_node,
            now,
        }
    }

    pub fn name<'n>(&self, node: &'n Node) -> &'n str {
        node.metadata.name.as_deref().unwrap_or_default()
    }

    /// The set's pods on the node.
    pub fn on(&self, node: &Node) -> &[Arc<Pod>] {
        self.by_node.get(self.name(node)).map_or(&[], Vec::as_slice)
    }

    pub fn is_rolling(&self) -> bool {
        let strategy = self.spec.update_strategy.as_ref();
        strategy.and_then(|strategy| strategy.type_.as_deref()) != Some("OnDelete")
    }

    /// The pod is of the newest revision.
    pub fn is_current(&self, pod: &Pod) -> bool {
        hash_of(pod) == history::hash(&self.history.update)
    }

    pub fn is_available(&self, pod: &Pod) -> bool {
        let min_ready = self.spec.min_ready_seconds.unwrap_or(0);
        let wait = pods::available_in(pod, min_ready, self.now);
        wait.is_some_and(|wait| wait.is_zero())
    }

    /// A pod of the newest revision for this node.
    pub fn new_pod(&self, node: &str) -> Pod {
        let mut pod = pod_from_template(self.set, Some(&self.spec.template));
        let labels = pod.metadata.labels.get_or_insert_default();
        let hash = history::hash(&self.history.update);
        labels.insert(REVISION_LABEL.into(), hash.to_owned());
        if let Some(generation) = self.set.metadata.generation {
            labels.insert("pod-template-generation".into(), generation.to_string());
        }
        nodes::pin(pod.spec.get_or_insert_default(), node);
        pod
    }
}

#[async_trait::async_trait]
impl Controller for DaemonSetController {
    fn name(&self) -> &'static str {
        "daemonset"
    }

    fn queue(&self) -> &Arc<WorkQueue> {
        &self.queue
    }

    async fn reconcile(&self, key: &Key) -> Result<Action, ReconcileError> {
        let Some(set) = self.sets.get(key) else {
            self.control.expectations.forget(key);
            return Ok(Action::Done);
        };
        let Some(spec) = &set.spec else {
            return Ok(Action::Done);
        };
        if spec.selector == Default::default() {
            let message =
                "This daemon set is selecting all pods. A non-empty selector is required.";
            self.say(&set, EventType::Warning, "SelectingAll", message.into());
            return Ok(Action::Done);
        }
        self.sync(&set, spec, Timestamp::now()).await
    }
}
