//! One request: with a time-out, retried while that is safe, its failure named.

use std::{error::Error as _, time::Duration};

use etcd_client::{Client, ConnectOptions, Error as EtcdError};
use parking_lot::RwLock;
use tokio::time::Instant;

use super::{
    config::{ConfigError, EtcdConfig},
    connect::{Connector, NoMember},
};
use crate::{Revision, StoreError};

/// Pause before the first retry; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// Longest pause between two tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Largest answer taken from etcd.
pub(super) const MAX_MESSAGE_BYTES: usize = 1 << 30;

/// What a request may be tried again after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Retry {
    /// Anything that passes: it changes nothing.
    Read,
    /// Only what proves that it did not happen.
    Write,
}

/// etcd's answer, or the lack of one.
#[derive(Debug, thiserror::Error)]
#[error("etcd: {0}")]
pub(super) struct Cause(String);

/// A kind of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Compacted,
    Future,
    OutOfSpace,
    TooLarge,
    LeaseGone,
    /// The request did not reach etcd, or etcd says that it did nothing.
    NotDone,
    /// No answer: it may have happened.
    Unknown,
    /// etcd does not want it.
    Refused,
}

/// The connection to etcd, whichever member it is to at the moment.
pub(super) struct Connection {
    connector: Connector,
    client: RwLock<Client>,
    timeout: Duration,
    /// For messages.
    pub endpoints: String,
}

impl Connection {
    pub(super) async fn new(config: &EtcdConfig) -> Result<Self, ConnectionError> {
        let connector = Connector::new(config)?;
        let client = client(&connector).await?;
        let endpoints: Vec<_> = config.endpoints.iter().map(ToString::to_string).collect();
        Ok(Connection {
            connector,
            client: RwLock::new(client),
            timeout: config.request_timeout,
            endpoints: endpoints.join(","),
        })
    }

    pub(super) fn client(&self) -> Client {
        self.client.read().clone()
    }

    /// Leaves the member that serves now: what is in progress there goes on, what comes goes to
    /// the next one.
    pub(super) async fn leave_member(&self) {
        self.connector.rotate();
        if let Ok(fresh) = client(&self.connector).await {
            *self.client.write() = fresh;
        }
    }

    /// Sends a request until it is answered, cannot be retried, or time is up.
    pub(super) async fn call<T, F>(
        &self,
        doing: &'static str,
        retry: Retry,
        asked: Option<Revision>,
        request: impl Fn(Client) -> F,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, EtcdError>>,
    {
        let deadline = Instant::now() + self.timeout;
        let mut pause = FIRST_PAUSE;
        loop {
            let sent = tokio::time::timeout_at(deadline, request(self.client())).await;
            let Ok(answer) = sent else {
                self.leave_member().await;
                return Err(StoreError::TimedOut {
                    doing,
                    limit: self.timeout,
                    endpoints: self.endpoints.clone(),
                });
            };
            let error = match answer {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let kind = kind(&error);
            let again = match kind {
                Kind::NotDone => true,
                Kind::Unknown => retry == Retry::Read,
                _ => false,
            };
            if !again || Instant::now() + pause >= deadline {
                return Err(self.failure(doing, asked, kind, &error));
            }
            tracing::debug!(doing, error = %describe(&error), "etcd did not answer, trying again");
            self.leave_member().await;
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn failure(
        &self,
        doing: &'static str,
        asked: Option<Revision>,
        kind: Kind,
        error: &EtcdError,
    ) -> StoreError {
        let asked = asked.unwrap_or(0);
        let cause = Cause(describe(error));
        match kind {
            Kind::Compacted => StoreError::Compacted {
                asked,
                oldest: asked + 1,
            },
            Kind::Future => StoreError::Future { asked, current: 0 },
            Kind::NotDone | Kind::Unknown => StoreError::Unavailable {
                doing,
                endpoints: self.endpoints.clone(),
                source: Box::new(cause),
            },
            Kind::OutOfSpace => StoreError::Io {
                doing,
                source: Box::new(std::io::Error::new(std::io::ErrorKind::StorageFull, cause)),
            },
            Kind::TooLarge => StoreError::TooLarge {
                doing,
                source: Box::new(cause),
            },
            Kind::LeaseGone => StoreError::LeaseGone,
            Kind::Refused => StoreError::Io {
                doing,
                source: Box::new(cause),
            },
        }
    }
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    /// The settings are unusable.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The client could not be made.
    #[error("client for etcd: {0}")]
    Client(#[from] EtcdError),
    /// The first request failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

async fn client(connector: &Connector) -> Result<Client, EtcdError> {
    // A member that lost its leader says so instead of waiting for one.
    let options = ConnectOptions::new().with_require_leader(true);
    let channel = etcd_client::Channel::Tonic(connector.channel());
    Client::from_channel(channel, Some(options)).await
}

fn kind(error: &EtcdError) -> Kind {
    let EtcdError::GRpcStatus(status) = error else {
        return match error {
            EtcdError::TransportError(error) if never_sent(error) => Kind::NotDone,
            EtcdError::TransportError(_) | EtcdError::IoError(_) | EtcdError::WatchError(_) => {
                Kind::Unknown
            }
            _ => Kind::Refused,
        };
    };
    if never_sent(status) {
        return Kind::NotDone;
    }
    let message = status.message();
    let says = |text: &str| message.contains(text);
    if says("required revision has been compacted") {
        Kind::Compacted
    } else if says("required revision is a future revision") {
        Kind::Future
    } else if says("database space exceeded") {
        Kind::OutOfSpace
    } else if says("requested lease not found") {
        Kind::LeaseGone
    } else if says("request is too large") || says("too many operations in txn") {
        Kind::TooLarge
    } else if says("etcdserver: no leader") || says("etcdserver: too many requests") {
        Kind::NotDone
    } else {
        match status.code() {
            tonic::Code::Unavailable
            | tonic::Code::Unknown
            | tonic::Code::Cancelled
            | tonic::Code::DeadlineExceeded
            | tonic::Code::Internal => Kind::Unknown,
            _ => Kind::Refused,
        }
    }
}

/// Whether no connection could be made for it.
fn never_sent(error: &AnyError) -> bool {
    chain(Some(error)).any(|error| error.is::<NoMember>())
}

type AnyError = dyn std::error::Error + 'static;

/// An error and its causes.
fn chain(first: Option<&AnyError>) -> impl Iterator<Item = &AnyError> {
    std::iter::successors(first, |&error| error.source())
}

/// The message with its causes; a status alone hides them.
fn describe(error: &EtcdError) -> String {
    let EtcdError::GRpcStatus(status) = error else {
        return error.to_string();
    };
    let mut text = status.message().to_owned();
    for cause in chain(status.source()) {
        let cause = cause.to_string();
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}
