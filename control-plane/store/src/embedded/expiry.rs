//! Keys with an end: a thread that sleeps until the first is due, then deletes it as any client
//! would, on the condition that it was not written again.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use parking_lot::{Condvar, Mutex};
use tokio::sync::{mpsc, oneshot};

use super::{Shared, writer::Request};
use crate::{Condition, Write};

/// Longest sleep: the clock may be set meanwhile.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);
/// Pause after a deletion that failed.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// Keys deleted before looking again.
const BATCH: usize = 256;

/// Milliseconds since 1970, when a key ends.
pub(super) type UnixMillis = u64;

pub(super) fn now() -> UnixMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}

/// When a key ends that is written now.
pub(super) fn end_after(ttl: Duration) -> UnixMillis {
    now().saturating_add(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX))
}

/// Wakes the thread.
#[derive(Default)]
pub(super) struct Alarm {
    state: Mutex<AlarmState>,
    changed: Condvar,
}

#[derive(Default)]
struct AlarmState {
    /// The first end may have become earlier.
    ring: bool,
    stop: bool,
}

impl Alarm {
    pub(super) fn ring(&self) {
        self.state.lock().ring = true;
        self.changed.notify_one();
    }

    pub(super) fn stop(&self) {
        self.state.lock().stop = true;
        self.changed.notify_one();
    }

    /// False when the thread shall end.
    fn sleep(&self, most: Option<Duration>) -> bool {
        let mut state = self.state.lock();
        if !state.ring && !state.stop {
            match most {
                Some(most) => {
                    self.changed.wait_for(&mut state, most);
                }
                None => self.changed.wait(&mut state),
            }
        }
        state.ring = false;
        !state.stop
    }
}

/// Runs until the alarm stops it.
pub(super) fn run(shared: &Arc<Shared>, queue: &mpsc::Sender<Request>) {
    loop {
        let (due, next) = shared.state.read().index.due(now(), BATCH);
        let pause = if due.is_empty() {
            next.map(|end| Duration::from_millis(end.saturating_sub(now())).min(LONGEST_SLEEP))
        } else if delete(queue, due) {
            Some(Duration::ZERO)
        } else {
            Some(RETRY_PAUSE)
        };
        if !shared.alarm.sleep(pause) {
            return;
        }
    }
}

/// False when something could not be deleted.
fn delete(queue: &mpsc::Sender<Request>, due: Vec<(String, crate::Revision)>) -> bool {
    let mut outcomes = Vec::new();
    for (key, revision) in due {
        let (reply, outcome) = oneshot::channel();
        let request = Request {
            conditions: vec![Condition::ModRevision(key.clone(), revision)],
            writes: vec![Write::Delete(key)],
            reply,
        };
        if queue.blocking_send(request).is_err() {
            return false;
        }
        outcomes.push(outcome);
    }
    let count = outcomes.len();
    let done = outcomes
        .into_iter()
        .all(|outcome| matches!(outcome.blocking_recv(), Ok(Ok(_))));
    tracing::debug!(count, done, "keys reached their end");
    done
}
