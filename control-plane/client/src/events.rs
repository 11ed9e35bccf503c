//! Events on objects (`v1/Event`), as `kubectl describe` shows them.
//!
//! ```text
//! Recorder::event ──try_send──► queue ──► run: Aggregator ──► POST (new) or PATCH count (repeated)
//! ```
//!
//! An event with the same object, reason, type and message as one written in the last
//! [`AGGREGATION_WINDOW`] raises that one's count. When the queue is full, events are dropped and
//! that is logged: they are information, not state.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{StreamExt, stream::FuturesUnordered};
use k8s_openapi::{
    api::core::v1::{Event, EventSource, ObjectReference},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, Time},
    jiff::Timestamp,
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{Patch, PatchParams, PostParams},
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Repetitions within this time are counted on the first event.
pub const AGGREGATION_WINDOW: Duration = Duration::from_secs(600);
/// Most recent events remembered for counting.
const AGGREGATED_EVENTS: usize = 4096;
/// Events waiting to be written; more are dropped.
const QUEUE_LENGTH: usize = 2048;
/// Requests to the API server at a time.
const CONCURRENT_WRITES: usize = 8;
/// Kubernetes' limit on an event's message, in bytes.
const MESSAGE_LIMIT: usize = 1024;

/// Kubernetes' two sorts of event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventType {
    /// Information.
    Normal,
    /// Something went wrong or may.
    Warning,
}

impl EventType {
    fn as_str(self) -> &'static str {
        match self {
            EventType::Normal => "Normal",
            EventType::Warning => "Warning",
        }
    }
}

/// One event to be written.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// What it is about.
    pub object: ObjectReference,
    /// Normal or Warning.
    pub event_type: EventType,
    /// CamelCase, for programs.
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

/// The end that components hold. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Recorder {
    queue: mpsc::Sender<Record>,
}

impl Recorder {
    /// A recorder and what comes out of it, for [`run`] or for a test.
    pub fn channel() -> (Self, mpsc::Receiver<Record>) {
        let (queue, records) = mpsc::channel(QUEUE_LENGTH);
        (Recorder { queue }, records)
    }

    /// Queues an event.
    pub fn event(
        &self,
        object: ObjectReference,
        event_type: EventType,
        reason: &'static str,
        message: impl Into<String>,
    ) {
        let record = Record {
            object,
            event_type,
            reason,
            message: message.into(),
        };
        if let Err(error) = self.queue.try_send(record) {
            let (mpsc::error::TrySendError::Full(record)
            | mpsc::error::TrySendError::Closed(record)) = error;
            tracing::warn!(reason, message = record.message, "event dropped");
        }
    }
}

/// The reference by which an event names `object`.
pub fn reference<K>(object: &K) -> ObjectReference
where
    K: Resource<DynamicType = ()>,
{
    ObjectReference {
        api_version: Some(K::api_version(&()).into_owned()),
        kind: Some(K::kind(&()).into_owned()),
        name: object.meta().name.clone(),
        namespace: object.meta().namespace.clone(),
        uid: object.meta().uid.clone(),
        resource_version: object.resource_version(),
        field_path: None,
    }
}

/// What makes two events the same.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Identity {
    uid: String,
    namespace: String,
    name: String,
    event_type: EventType,
    reason: &'static str,
    message: String,
}

#[derive(Debug)]
struct Counted {
    event_name: String,
    count: i32,
    last: Instant,
}

/// What to do about a record.
enum WriteEvent {
    Create(Box<Event>),
    Count {
        namespace: String,
        name: String,
        count: i32,
        record: Box<Record>,
    },
}

/// Remembers what was written.
struct Aggregator {
    component: Arc<str>,
    counted: HashMap<Identity, Counted>,
    order: VecDeque<Identity>,
    sequence: u64,
}

impl Aggregator {
    fn new(component: &str) -> Self {
        Aggregator {
            component: component.into(),
            counted: HashMap::new(),
            order: VecDeque::new(),
            sequence: 0,
        }
    }

    fn plan(&mut self, mut record: Record, now: Instant) -> WriteEvent {
        truncate(&mut record.message);
        let namespace = record
            .object
            .namespace
            .clone()
            .unwrap_or_else(|| "default".into());
        let identity = Identity {
            uid: record.object.uid.clone().unwrap_or_default(),
            namespace: namespace.clone(),
            name: record.object.name.clone().unwrap_or_default(),
            event_type: record.event_type,
            reason: record.reason,
            message: record.message.clone(),
        };
        if let Some(counted) = self.counted.get_mut(&identity)
            && now.saturating_duration_since(counted.last) < AGGREGATION_WINDOW
        {
            counted.count = counted.count.saturating_add(1);
            counted.last = now;
            let (name, count) = (counted.event_name.clone(), counted.count);
            return WriteEvent::Count {
                namespace,
                name,
                count,
                record: Box::new(record),
            };
        }
        let event = self.event(&record, &namespace);
        let name = event.metadata.name.clone().unwrap_or_default();
        let counted = Counted {
            event_name: name,
            count: 1,
            last: now,
        };
        if self.counted.insert(identity.clone(), counted).is_none() {
            self.order.push_back(identity);
        }
        if self.order.len() > AGGREGATED_EVENTS
            && let Some(oldest) = self.order.pop_front()
        {
            self.counted.remove(&oldest);
        }
        WriteEvent::Create(Box::new(event))
    }

    fn event(&mut self, record: &Record, namespace: &str) -> Event {
        let now = Timestamp::now();
        // Unique also across restarts and components: time in nanoseconds plus a counter.
        self.sequence += 1;
        let suffix = now.as_nanosecond() as u64 ^ (self.sequence << 48);
        let object_name = record.object.name.as_deref().unwrap_or("unknown");
        let component = self.component.to_string();
        Event {
            metadata: ObjectMeta {
                name: Some(format!("{object_name}.{suffix:x}")),
                namespace: Some(namespace.to_owned()),
                ..ObjectMeta::default()
            },
            involved_object: record.object.clone(),
            type_: Some(record.event_type.as_str().into()),
            reason: Some(record.reason.into()),
            message: Some(record.message.clone()),
            count: Some(1),
            first_timestamp: Some(Time(now)),
            last_timestamp: Some(Time(now)),
            event_time: None::<MicroTime>,
            source: Some(EventSource {
                component: Some(component.clone()),
                host: None,
            }),
            reporting_component: Some(component),
            reporting_instance: Some(String::new()),
            ..Event::default()
        }
    }
}

fn truncate(message: &mut String) {
    if message.len() > MESSAGE_LIMIT {
        let mut end = MESSAGE_LIMIT;
        while !message.is_char_boundary(end) {
            end -= 1;
        }
        message.truncate(end);
    }
}

/// Writes records until the shutdown. `component` is what `kubectl describe` shows under From.
pub async fn run(
    client: Client,
    component: &str,
    mut records: mpsc::Receiver<Record>,
    shutdown: CancellationToken,
) {
    let mut aggregator = Aggregator::new(component);
    let mut writes = FuturesUnordered::new();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            Some(()) = writes.next(), if !writes.is_empty() => {}
            record = records.recv(), if writes.len() < CONCURRENT_WRITES => {
                let Some(record) = record else { break };
                let planned = aggregator.plan(record, Instant::now());
                writes.push(write(client.clone(), planned, aggregator.component.clone()));
            }
        }
    }
    while writes.next().await.is_some() {}
}

async fn write(client: Client, planned: WriteEvent, component: Arc<str>) {
    let outcome = match planned {
        WriteEvent::Create(event) => create(client, &event).await,
        WriteEvent::Count {
            namespace,
            name,
            count,
            record,
        } => {
            let patch =
                serde_json::json!({ "count": count, "lastTimestamp": Time(Timestamp::now()) });
            let api = Api::<Event>::namespaced(client.clone(), &namespace);
            match api
                .patch(&name, &PatchParams::default(), &Patch::Merge(patch))
                .await
            {
                Ok(_) => Ok(()),
                // The first one expired or was deleted.
                Err(kube::Error::Api(status)) if status.code == 404 => {
                    let event = Aggregator::new(&component).event(&record, &namespace);
                    create(client, &event).await
                }
                Err(error) => Err(error),
            }
        }
    };
    if let Err(error) = outcome {
        tracing::warn!(%error, "event not written");
    }
}

async fn create(client: Client, event: &Event) -> Result<(), kube::Error> {
    let namespace = event.metadata.namespace.as_deref().unwrap_or("default");
    Api::<Event>::namespaced(client, namespace)
        .create(&PostParams::default(), event)
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(message: &str) -> Record {
        Record {
            object: ObjectReference {
                name: Some("web".into()),
                namespace: Some("shop".into()),
                uid: Some("u1".into()),
                ..ObjectReference::default()
            },
            event_type: EventType::Normal,
            reason: "Scheduled",
            message: message.into(),
        }
    }

    fn created(planned: WriteEvent) -> Event {
        match planned {
            WriteEvent::Create(event) => *event,
            WriteEvent::Count { .. } => panic!("expected a new event"),
        }
    }

    #[test]
    fn repetition_raises_the_count_of_the_first_event() {
        let mut aggregator = Aggregator::new("test");
        let now = Instant::now();
        let first = created(aggregator.plan(record("a"), now));
        match aggregator.plan(record("a"), now) {
            WriteEvent::Count {
                name,
                count,
                namespace,
                ..
            } => {
                assert_eq!(Some(name), first.metadata.name);
                assert_eq!((count, namespace.as_str()), (2, "shop"));
            }
            WriteEvent::Create(_) => panic!("expected a count"),
        }
        let other = created(aggregator.plan(record("b"), now));
        assert_ne!(other.metadata.name, first.metadata.name);
        created(aggregator.plan(record("a"), now + AGGREGATION_WINDOW));
    }

    #[test]
    fn remembers_a_bounded_number_of_events() {
        let mut aggregator = Aggregator::new("test");
        for n in 0..2 * AGGREGATED_EVENTS {
            aggregator.plan(record(&n.to_string()), Instant::now());
        }
        assert!(aggregator.counted.len() <= AGGREGATED_EVENTS);
        assert!(aggregator.order.len() <= AGGREGATED_EVENTS);
    }

    #[test]
    fn cluster_scoped_objects_have_their_events_in_default() {
        let mut node = record("x");
        node.object.namespace = None;
        let event = created(Aggregator::new("test").plan(node, Instant::now()));
        assert_eq!(event.metadata.namespace.as_deref(), Some("default"));
    }

    #[test]
    fn long_messages_are_cut_at_a_character() {
        let event = created(Aggregator::new("test").plan(record(&"ä".repeat(600)), Instant::now()));
        assert_eq!(event.message.unwrap(), "ä".repeat(512));
    }
}
