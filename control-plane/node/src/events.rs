//! Events about pods and the node, in kubelet's words.

use hull_client::events;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Client;
use tokio_util::sync::CancellationToken;

pub use hull_client::events::EventType;

/// What `kubectl describe` shows under From.
const COMPONENT: &str = "kubelet";

/// Where events are handed in; never waits. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Recorder {
    events: events::Recorder,
}

impl Recorder {
    /// A recorder whose events a task of its own writes until `shutdown`.
    pub fn start(client: Client, shutdown: CancellationToken) -> Self {
        let (events, records) = events::Recorder::channel();
        tokio::spawn(async move { events::run(client, COMPONENT, records, shutdown).await });
        Recorder { events }
    }

    /// Hands in one event.
    pub fn record(
        &self,
        about: ObjectReference,
        event_type: EventType,
        reason: &'static str,
        message: impl Into<String>,
    ) {
        let message = message.into();
        let object = about.name.as_deref().unwrap_or_default();
        tracing::info!(object, reason, text = message, "event");
        self.events.event(about, event_type, reason, message);
    }
}

/// A timestamp in the whole seconds that API times have.
pub fn seconds(at: Timestamp) -> Time {
    Time(Timestamp::from_second(at.as_second()).unwrap_or(at))
}
