//! Events in batches to a server elsewhere (`audit.k8s.io/v1` EventList).
//!
//! The place is given as Kubernetes does it, in a kubeconfig: server, authority, and a client
//! certificate or token of the current context. Requests never wait for it: events that find the
//! queue full, and batches that are not taken after all tries, are lost, counted and logged.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt, Full, Limited};
use hull_api::ObjectExt;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::{limits, pki::CertPair, webhook_client::Client};

/// Events that wait for their batch; Kubernetes' default.
const QUEUE_LENGTH: usize = 10_000;
/// Bytes of the events that wait.
const QUEUE_BYTES: usize = 64 << 20;
/// Events of a batch at most; Kubernetes' default.
const BATCH: usize = 400;
/// Longest wait of an event for others of its batch; Kubernetes' default.
pub const BATCH_WAIT: Duration = Duration::from_secs(30);
/// Tries of a batch.
const TRIES: u32 = 5;
/// Pause after the first failed try, doubled with each.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// Longest answer.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Why there is nowhere to send events to.
#[derive(Debug, thiserror::Error)]
pub enum WebhookConfigError {
    /// The text is no YAML.
    #[error("cannot read the kubeconfig: {0}")]
    Yaml(String),
    /// Something is not there.
    #[error("the kubeconfig has no {0}")]
    Missing(&'static str),
    /// A file that it names cannot be read.
    #[error("cannot read {path}: {source}")]
    File {
        /// Which.
        path: std::path::PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// Its parts cannot be used.
    #[error("{0}")]
    Unusable(String),
}

/// Where events go.
#[derive(Debug)]
pub struct AuditWebhook {
    queue: mpsc::Sender<Queued>,
    /// Of the events in the queue.
    bytes: Arc<AtomicUsize>,
    lost: Arc<AtomicU64>,
}

/// An event, as it will be sent.
struct Queued {
    event: Value,
    bytes: usize,
}

impl AuditWebhook {
    /// Reads a kubeconfig, whose files are found from `folder`, and starts to send. A batch is
    /// sent when it is full or its first event has waited for `batch_wait`. Must be called within
    /// a tokio runtime.
    ///
    /// # Errors
    /// When the kubeconfig does not lead to a server.
    pub fn start(
        kubeconfig: &str,
        folder: &Path,
        batch_wait: Duration,
    ) -> Result<Self, WebhookConfigError> {
        let target = Target::read(kubeconfig, folder)?;
        let (queue, events) = mpsc::channel(QUEUE_LENGTH);
        let lost = Arc::new(AtomicU64::new(0));
        let bytes = Arc::new(AtomicUsize::new(0));
        let source = Source {
            events,
            bytes: bytes.clone(),
        };
        tokio::spawn(run(target, source, lost.clone(), batch_wait));
        Ok(AuditWebhook { queue, bytes, lost })
    }

    /// Events that did not arrive.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    pub(super) fn send(&self, event: &Value) {
        let bytes = event.to_string().len();
        let queued = Queued {
            event: event.clone(),
            bytes,
        };
        let waiting = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if waiting + bytes <= QUEUE_BYTES && self.queue.try_send(queued).is_ok() {
            return;
        }
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        if self.lost.fetch_add(1, Ordering::Relaxed) == 0 {
            tracing::error!("the audit webhook is too slow: events are lost");
        }
    }
}

struct Target {
    client: Client,
    token: Option<String>,
}

/// An entry of a named list.
fn named<'v>(config: &'v Value, list: &str, name: &str) -> Option<&'v Value> {
    let mut entries = config.list_at(list).iter();
    entries.find(|entry| entry.str_at("/name") == name)
}

/// What is given as base64, or in a file; empty when it is not.
fn data_or_file(holder: &Value, field: &str, folder: &Path) -> Result<Vec<u8>, WebhookConfigError> {
    let data = holder.str_at(&format!("/{field}-data"));
    if !data.is_empty() {
        let decoded = STANDARD.decode(data);
        return decoded
            .map_err(|error| WebhookConfigError::Unusable(format!("{field}-data: {error}")));
    }
    match holder.str_at(&format!("/{field}")) {
        "" => Ok(Vec::new()),
        file => {
            let path = folder.join(file);
            std::fs::read(&path).map_err(|source| WebhookConfigError::File { path, source })
        }
    }
}

impl Target {
    fn read(text: &str, folder: &Path) -> Result<Self, WebhookConfigError> {
        use WebhookConfigError::{Missing, Unusable};
        let config: Value = serde_saphyr::from_str(text)
            .map_err(|error| WebhookConfigError::Yaml(error.to_string()))?;
        let context = named(&config, "/contexts", config.str_at("/current-context"))
            .ok_or(Missing("current context"))?;
        let cluster = named(&config, "/clusters", context.str_at("/context/cluster"))
            .and_then(|entry| entry.get("cluster"))
            .ok_or(Missing("cluster of the current context"))?;
        let nobody = json!({});
        let user = named(&config, "/users", context.str_at("/context/user"))
            .and_then(|entry| entry.get("user"))
            .unwrap_or(&nobody);
        let server = cluster.str_at("/server");
        if !server.starts_with("https://") {
            return Err(Unusable(format!("server: {server:?} is no https URL")));
        }
        let authority = data_or_file(cluster, "certificate-authority", folder)?;
        let text_of = |field: &str| {
            String::from_utf8(data_or_file(user, field, folder)?)
                .map_err(|error| Unusable(format!("{field}: {error}")))
        };
        let pair = CertPair {
            cert_pem: text_of("client-certificate")?,
            key_pem: text_of("client-key")?,
        };
        let identity = match pair.cert_pem.as_str() {
            "" => None,
            _ => Some(
                pair.renewable()
                    .map_err(|error| Unusable(error.to_string()))?,
            ),
        };
        let client = json!({
            "url": server,
            "caBundle": STANDARD.encode(authority),
            "insecureSkipTLSVerify": cluster.bool_at("/insecure-skip-tls-verify"),
        });
        let token = match (user.str_at("/token"), user.str_at("/tokenFile")) {
            ("", "") => None,
            ("", file) => {
                let path = folder.join(file);
                let read = std::fs::read_to_string(&path);
                let read = read.map_err(|source| WebhookConfigError::File { path, source })?;
                Some(read.trim().to_string())
            }
            (token, _) => Some(token.to_string()),
        };
        Ok(Target {
            client: Client::read_as(&client, identity.as_ref())
                .map_err(|error| Unusable(error.to_string()))?,
            token,
        })
    }

    async fn post(&self, body: &Bytes) -> Result<(), String> {
        let mut request = Request::post(self.client.path())
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "application/json");
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request.body(Full::new(body.clone()));
        let request = request.map_err(|error| error.to_string())?;
        let response = self.client.exchange_at_url(request).await;
        let response = response.map_err(|error| error.to_string())?;
        let status = response.status();
        let rest = Limited::new(response.into_body(), limits::MAX_BODY_BYTES).collect();
        rest.await.map_err(|error| error.to_string())?;
        if status.is_success() {
            return Ok(());
        }
        Err(format!("the server answered with status {status}"))
    }

    /// Tries until the batch is taken; why not, at last.
    async fn deliver(&self, batch: &[Value]) -> Result<(), String> {
        let list = json!({"kind": "EventList", "apiVersion": "audit.k8s.io/v1",
            "metadata": {}, "items": batch});
        let body = Bytes::from(list.to_string());
        let mut pause = FIRST_PAUSE;
        let mut tries = 1;
        loop {
            let outcome = match tokio::time::timeout(TIMEOUT, self.post(&body)).await {
                Ok(outcome) => outcome,
                Err(_) => Err(format!("no answer within {} s", TIMEOUT.as_secs())),
            };
            match outcome {
                Ok(()) => return Ok(()),
                Err(why) if tries == TRIES => return Err(why),
                Err(why) => {
                    tracing::warn!(why, tries, "the audit webhook did not take a batch");
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                    tries += 1;
                }
            }
        }
    }
}

/// The queue's other end.
struct Source {
    events: mpsc::Receiver<Queued>,
    bytes: Arc<AtomicUsize>,
}

impl Source {
    async fn next(&mut self) -> Option<Value> {
        let queued = self.events.recv().await?;
        self.bytes.fetch_sub(queued.bytes, Ordering::Relaxed);
        Some(queued.event)
    }
}

/// Sends until the last event is sent.
async fn run(target: Target, mut events: Source, lost: Arc<AtomicU64>, batch_wait: Duration) {
    while let Some(first) = events.next().await {
        let mut batch = vec![first];
        let until = tokio::time::Instant::now() + batch_wait;
        while batch.len() < BATCH {
            match tokio::time::timeout_at(until, events.next()).await {
                Ok(Some(event)) => batch.push(event),
                // Time is up, or nothing more comes.
                Ok(None) | Err(_) => break,
            }
        }
        if let Err(why) = target.deliver(&batch).await {
            let count = batch.len();
            lost.fetch_add(u64::try_from(count).unwrap_or(u64::MAX), Ordering::Relaxed);
            tracing::error!(
                why,
                count,
                "audit events are lost: the webhook does not take them"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kubeconfig_that_leads_nowhere_is_refused() {
        let read = |text: &str| {
            Target::read(text, Path::new("/nowhere"))
                .err()
                .unwrap()
                .to_string()
        };
        assert!(read("{").starts_with("cannot read the kubeconfig: "));
        assert_eq!(read("{}"), "the kubeconfig has no current context");
        let config = |cluster: &str| {
            format!(
                "{{current-context: a, contexts: [{{name: a, context: {{cluster: c}}}}], clusters: [{{name: c, cluster: {cluster}}}]}}"
            )
        };
        assert_eq!(
            read(&config("{server: 'http://x'}")),
            "server: \"http://x\" is no https URL"
        );
        let message = read(&config(
            "{server: 'https://x', certificate-authority: ca.pem}",
        ));
        assert!(
            message.starts_with("cannot read /nowhere/ca.pem: "),
            "{message}"
        );
    }
}
