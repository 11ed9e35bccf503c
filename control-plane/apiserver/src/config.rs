//! What an API server is started with, and its limits.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use prometheus_client::registry::Registry;

use crate::{JwtIssuers, audit::Audit, pki::ClusterPki, service_network::ServiceNetwork};

/// Settings of an [`crate::ApiServer`].
#[derive(Debug)]
pub struct ApiServerConfig {
    /// The cluster's CA and the server's own certificates.
    pub pki: ClusterPki,
    /// How long an Event is kept after it was last written.
    pub event_ttl: Duration,
    /// Time between bookmarks on a watch that asked for them.
    pub bookmark_interval: Duration,
    /// Longest answer of a server that extends the API; of a watch or stream its beginning.
    pub extension_timeout: Duration,
    /// Longest time to answer a request that does not last; clients may ask for less.
    pub request_timeout: Duration,
    /// Pods need their service account and get its token mounted. Off as long as node agents do
    /// not mount projected tokens: pods with such a volume would not start.
    pub service_account_admission: bool,
    /// What services are given.
    pub service_network: ServiceNetwork,
    /// Where pods reach this server; by default where it listens, or on this machine's address
    /// towards the default route when it listens on all.
    pub advertise: Option<SocketAddr>,
    /// Whose tokens are believed besides the cluster's own.
    pub issuers: JwtIssuers,
    /// What is audited; `None`: nothing.
    pub audit: Option<Arc<Audit>>,
    /// Figures of others in this process that `/metrics` shows besides the server's own.
    pub registry: Registry,
}

impl ApiServerConfig {
    /// The defaults.
    pub fn new(pki: ClusterPki) -> Self {
        ApiServerConfig {
            pki,
            event_ttl: limits::EVENT_TTL,
            bookmark_interval: limits::BOOKMARK_INTERVAL,
            extension_timeout: limits::EXTENSION_TIMEOUT,
            request_timeout: limits::REQUEST_TIMEOUT,
            service_account_admission: false,
            service_network: ServiceNetwork::default(),
            advertise: None,
            issuers: JwtIssuers::default(),
            audit: None,
            registry: Registry::default(),
        }
    }
}

/// Every limit and time-out of the server.
pub mod limits {
    use std::time::Duration;

    /// Largest request body, in bytes; Kubernetes' limit.
    pub const MAX_BODY_BYTES: usize = 3 * 1024 * 1024;
    /// Answers of more bytes are compressed for clients that ask; Kubernetes' limit.
    pub const COMPRESS_ABOVE_BYTES: u64 = 128 * 1024;
    /// Longest time for a request body to arrive.
    pub const BODY_TIMEOUT: Duration = Duration::from_secs(60);
    /// Longest TLS handshake.
    pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
    /// Longest time for a request's head to arrive (HTTP/1).
    pub const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
    /// Connections served at once; more wait in the listener's queue.
    pub const MAX_CONNECTIONS: usize = 4096;
    /// Requests in progress at once, watches and streams not counted: the seats that the levels
    /// of priority share (`flow_control`).
    pub const MAX_IN_FLIGHT: usize = 600;
    /// How long connections may finish their requests at shutdown.
    pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
    /// Default of [`crate::ApiServerConfig::event_ttl`]; Kubernetes' default.
    pub const EVENT_TTL: Duration = Duration::from_secs(3600);
    /// Time between two sweeps for expired events.
    pub const EVENT_SWEEP_INTERVAL: Duration = Duration::from_secs(60);
    /// How long a read waits for the cache to reach the asked revision.
    pub const CACHE_WAIT: Duration = Duration::from_secs(3);
    /// Changes kept per resource for watches that start in the past; older ones are read from
    /// the store's history.
    pub const WATCH_RING: usize = 4096;
    /// Changes per resource that keep the frames they were sent as, for watches that come to
    /// them later.
    pub const CHANGES_WITH_FRAMES: usize = 64;
    /// Default of [`crate::ApiServerConfig::bookmark_interval`]; Kubernetes' interval.
    pub const BOOKMARK_INTERVAL: Duration = Duration::from_secs(60);
    /// How long a watch lives when the client gives no time-out: a random time between this
    /// and twice this.
    pub const MIN_WATCH: Duration = Duration::from_secs(1800);
    /// A watch whose client reads nothing for so long is ended.
    pub const SLOW_WATCHER: Duration = Duration::from_secs(60);
    /// Time between two pings on an HTTP/2 connection, which find dead peers.
    pub const PING_INTERVAL: Duration = Duration::from_secs(30);
    /// Tries of an update that gives no resourceVersion, when others keep writing.
    pub const UPDATE_RETRIES: usize = 16;
    /// Tries of a create, when others are faster with a generated name, an address, a port or
    /// the quota.
    pub const CREATE_RETRIES: usize = 32;
    /// Tries to find the service account `default` of a new namespace.
    pub const ACCOUNT_TRIES: usize = 10;
    /// Pause between them.
    pub const ACCOUNT_RETRY: Duration = Duration::from_millis(100);
    /// Pause between two tries to connect the cache to the store again.
    pub const CACHE_RETRY: Duration = Duration::from_millis(200);
    /// Pause between two looks at a definition whose objects are being deleted.
    pub const DEFINITION_RETRY: Duration = Duration::from_millis(200);
    /// Longest answer of a webhook that converts custom resources; Kubernetes' limit.
    pub const CONVERSION_TIMEOUT: Duration = Duration::from_secs(30);
    /// JSON of the objects that one call of such a webhook converts, in bytes; a larger object
    /// gets a call of its own.
    pub const CONVERSION_BATCH_BYTES: usize = 1024 * 1024;
    /// Objects that one call converts.
    pub const CONVERSION_BATCH_OBJECTS: usize = 100;
    /// Largest answer of such a webhook, in bytes: objects may grow when they are converted.
    pub const CONVERSION_ANSWER_BYTES: usize = 4 * MAX_BODY_BYTES;
    /// Converted objects that are kept for the next list or watch.
    pub const KEPT_CONVERSIONS: usize = 4096;
    /// Memory that they take together, in bytes.
    pub const KEPT_CONVERSION_BYTES: usize = 64 * 1024 * 1024;
    /// Default of [`crate::ApiServerConfig::request_timeout`]; Kubernetes' default.
    pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
    /// Longest wait for a seat, then 429; Kubernetes' limit.
    pub const QUEUE_WAIT: Duration = Duration::from_secs(15);
    /// Time between two looks at servers that extend the API and answer; Kubernetes' interval.
    pub const AVAILABILITY_INTERVAL: Duration = Duration::from_secs(30);
    /// The same, as long as one of them does not.
    pub const AVAILABILITY_RETRY: Duration = Duration::from_secs(1);
    /// Longest answer to that look; Kubernetes' limit.
    pub const AVAILABILITY_TIMEOUT: Duration = Duration::from_secs(5);
    /// Longest connect, with the TLS handshake, to a node agent, a webhook or an extension; before
    /// scaling ([`hull_api::timeouts`]).
    pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
    /// Default of [`crate::ApiServerConfig::extension_timeout`].
    pub const EXTENSION_TIMEOUT: Duration = REQUEST_TIMEOUT;
    /// Silence on a connection to such a server before the kernel asks whether it is there.
    pub const PEER_IDLE: Duration = Duration::from_secs(30);
    /// Between two such questions.
    pub const PEER_PROBE_INTERVAL: Duration = Duration::from_secs(5);
    /// Questions without an answer, after which the connection breaks.
    pub const PEER_PROBES: u32 = 3;
    /// After so long a peer that vanished has been noticed, whether it was asked or sent to.
    pub const PEER_TIMEOUT: Duration = Duration::from_secs(
        PEER_IDLE.as_secs() + PEER_PROBE_INTERVAL.as_secs() * PEER_PROBES as u64,
    );
}
