//! Priority and fairness: which request is answered now, which waits, and which is refused
//! (`flowcontrol.apiserver.k8s.io/v1`).
//!
//! ```text
//!  request ─► schema: the first FlowSchema that matches ─► a level, and a flow within it
//!                (user or namespace tells flows apart)          │
//!                                                               ▼
//!             level: seats ─ free? ─► answered
//!                      └─ else one of the flow's hand of queues, the shortest
//!                            └─ queue full, or waited too long ─► 429, Retry-After: 1
//!  a seat becomes free ─► the queue with the fewest requests in progress, of those the one that was
//!                             served longest ago
//! ```
//!
//! The seats of the server are divided among the levels by their shares; levels do not lend
//! seats to each other. A request takes one seat until its answer is made; watches and streams
//! take none. Flows that share no queue do not wait for each other, and a flow cannot fill more
//! queues than its hand holds.

mod bootstrap;
mod level;
mod metrics;
mod schema;

use std::{collections::HashMap, sync::Arc};

use http::{HeaderMap, HeaderValue};
use hull_api::{
    ApiError, ObjectExt,
    kinds::{FLOW_SCHEMAS, PRIORITY_LEVEL_CONFIGURATIONS},
    status::Reason,
};
use hull_store::{Revision, prefix_range};
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};

pub(crate) use bootstrap::create_configuration;
use level::{Level, Limits, Seat};
use metrics::Metrics;
use schema::Schema;

use crate::{UserInfo, authorization::Attributes, limits, watch_cache::WatchCache};

/// What requests are compared with.
struct Configuration {
    /// In the order of precedence.
    schemas: Vec<Schema>,
    levels: HashMap<String, (Arc<Level>, String)>,
}

/// The levels, and what they were made of.
pub(crate) struct FlowControl {
    metrics: Metrics,
    current: Mutex<Option<([Revision; 2], Arc<Configuration>)>>,
}

/// A request that may be answered now; its seat is free again when this is dropped.
pub(crate) struct Admitted {
    /// `None`: the level is exempt.
    _seat: Option<Seat>,
    schema_uid: String,
    level_uid: String,
}

impl Admitted {
    /// Tells the client what it was counted as.
    pub(crate) fn tell(&self, headers: &mut HeaderMap) {
        for (name, uid) in [
            ("x-kubernetes-pf-flowschema-uid", &self.schema_uid),
            ("x-kubernetes-pf-prioritylevel-uid", &self.level_uid),
        ] {
            if let Ok(value) = HeaderValue::from_str(uid) {
                headers.insert(name, value);
            }
        }
    }
}

/// The level that is always there.
fn catch_all() -> (Value, Value) {
    let schema = json!({"metadata": {"name": "catch-all"}, "spec": {
        "matchingPrecedence": 10_000, "distinguisherMethod": {"type": "ByUser"},
        "priorityLevelConfiguration": {"name": "catch-all"},
        "rules": [{"subjects": [{"kind": "Group", "group": {"name": "*"}}],
            "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"],
                "clusterScope": true, "namespaces": ["*"]}],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}]}]}});
    let level = json!({"metadata": {"name": "catch-all"}, "spec": {"type": "Limited",
        "limited": {"nominalConcurrencyShares": 5, "limitResponse": {"type": "Reject"}}}});
    (schema, level)
}

impl FlowControl {
    /// Registers its figures.
    pub(crate) fn new(registry: &mut Registry) -> Self {
        FlowControl {
            metrics: Metrics::new(registry),
            current: Mutex::default(),
        }
    }

    fn configuration(&self, cache: &WatchCache) -> Arc<Configuration> {
        let kinds = [&FLOW_SCHEMAS, &PRIORITY_LEVEL_CONFIGURATIONS];
        let revisions = kinds.map(|kind| cache.newest(kind.storage));
        let mut current = self.current.lock();
        if let Some((at, found)) = &*current
            && *at == revisions
        {
            return found.clone();
        }
        let [mut schemas, mut levels] = kinds.map(|kind| -> Vec<Value> {
            let snapshot = cache.snapshot(kind.storage, prefix_range(&kind.prefix("")));
            let objects = snapshot.objects.iter();
            objects.map(|object| object.parsed()).collect()
        });
        let (schema, level) = catch_all();
        for (objects, always) in [(&mut schemas, schema), (&mut levels, level)] {
            if !objects.iter().any(|one| one.name() == always.name()) {
                objects.push(always);
            }
        }
        let before = current.take().map(|(_, configuration)| configuration);
        let made = Arc::new(self.read(&schemas, &levels, before.as_deref()));
        *current = Some((revisions, made.clone()));
        made
    }

    /// Requests in progress and in queues stay with their level.
    fn read(
        &self,
        schemas: &[Value],
        levels: &[Value],
        before: Option<&Configuration>,
    ) -> Configuration {
        let read: Vec<Limits> = levels.iter().map(Limits::read).collect();
        let shares: u64 = read.iter().map(|one| one.shares).sum();
        let named = levels.iter().zip(read).map(|(object, limits)| {
            let name = object.name().to_string();
            let old = before.and_then(|before| before.levels.get(&name));
            let level = match old {
                Some((level, _)) => level.clone(),
                None => Arc::new(Level::new(&name, self.metrics.clone())),
            };
            level.limit(&limits, shares, limits::MAX_IN_FLIGHT);
            (name, (level, object.uid().to_string()))
        });
        let levels = named.collect::<HashMap<_, _>>();
        let mut schemas: Vec<Schema> = schemas
            .iter()
            .map(Schema::read)
            // One that leads nowhere does not count.
            .filter(|schema| levels.contains_key(&schema.level))
            .collect();
        schemas.sort_by(|a, b| (a.precedence, &a.name).cmp(&(b.precedence, &b.name)));
        Configuration { schemas, levels }
    }

    /// Waits for the request's turn.
    ///
    /// # Errors
    /// 429 when its queues are full or its turn does not come in time.
    pub(crate) async fn admit(
        &self,
        cache: &WatchCache,
        user: &UserInfo,
        attributes: &Attributes<'_>,
    ) -> Result<Admitted, ApiError> {
        let configuration = self.configuration(cache);
        let schemas = &configuration.schemas;
        let found = schemas.iter().find(|one| one.matches(user, attributes));
        let found = found.and_then(|schema| {
            let (level, uid) = configuration.levels.get(&schema.level)?;
            Some((schema, level, uid))
        });
        // `catch-all` matches everything.
        let (schema, level, level_uid) = found.ok_or_else(too_many)?;
        let flow = schema.flow(user, attributes);
        let seat = level.acquire(&schema.name, flow).await.map_err(|why| {
            tracing::debug!(
                user = user.name,
                level = schema.level,
                schema = schema.name,
                reason = why.as_str(),
                "request refused"
            );
            too_many()
        })?;
        Ok(Admitted {
            _seat: seat,
            schema_uid: schema.uid.clone(),
            level_uid: level_uid.clone(),
        })
    }
}

fn too_many() -> ApiError {
    let words = "Too many requests, please try again later.";
    let mut error = ApiError::new(Reason::TooManyRequests, words);
    error.details.retry_after_seconds = 1;
    error
}
