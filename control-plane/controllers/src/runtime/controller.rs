//! What a controller is, and the loop that runs it.

use std::{any::Any, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures::FutureExt;
use tokio_util::sync::CancellationToken;

use super::{
    Key, WorkQueue, WriteError,
    metrics::{ControllerLabels, ControllersMetrics, ReconcileLabels},
};

/// What to do with a key that was reconciled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Nothing until something changes.
    Done,
    /// Look again after this time even if nothing changes.
    After(Duration),
}

/// Why a key could not be reconciled. It is tried again after its back-off.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// A request failed.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// An object cannot be understood.
    #[error("{object}: {problem}")]
    Invalid {
        /// Which.
        object: String,
        /// Why.
        problem: String,
    },
    /// The controller itself failed; its worker goes on.
    #[error("the controller panicked: {0}")]
    Panicked(String),
    /// Other objects must change first.
    #[error("{0}")]
    Waiting(String),
}

/// Brings what is nearer to what is wanted, one key at a time.
#[async_trait::async_trait]
pub trait Controller: Send + Sync + 'static {
    /// For logs and metrics.
    fn name(&self) -> &'static str;
    /// Where its keys are.
    fn queue(&self) -> &Arc<WorkQueue>;
    /// Works on one key. Never called for the same key at the same time.
    async fn reconcile(&self, key: &Key) -> Result<Action, ReconcileError>;
}

/// Runs `workers` loops of the controller until the shutdown.
pub async fn run(
    controller: Arc<dyn Controller>,
    workers: usize,
    metrics: ControllersMetrics,
    shutdown: CancellationToken,
) {
    let loops = (0..workers.max(1)).map(|_| {
        let (controller, metrics) = (controller.clone(), metrics.clone());
        let shutdown = shutdown.clone();
        tokio::spawn(async move {
            loop {
                let key = tokio::select! {
                    () = shutdown.cancelled() => return,
                    key = controller.queue().next() => key,
                };
                work(&*controller, &key, &metrics).await;
                controller.queue().done(&key);
            }
        })
    });
    for ended in futures::future::join_all(loops).await {
        if let Err(error) = ended {
            tracing::error!(controller = controller.name(), %error, "worker failed");
        }
    }
}

/// What a panic said.
fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".into())
}

async fn work(controller: &dyn Controller, key: &Key, metrics: &ControllersMetrics) {
    let name = controller.name();
    let labels = ControllerLabels { controller: name };
    let queue = controller.queue();
    let started = std::time::Instant::now();
    // One object that a controller cannot cope with must not end its care for all others.
    let reconcile = AssertUnwindSafe(controller.reconcile(key)).catch_unwind();
    let outcome = reconcile
        .await
        .unwrap_or_else(|panic| Err(ReconcileError::Panicked(text_of(&*panic))));
    metrics
        .seconds
        .get_or_create(&labels)
        .observe(started.elapsed().as_secs_f64());
    let result = match outcome {
        Ok(Action::Done) => {
            queue.forget(key);
            "done"
        }
        Ok(Action::After(delay)) => {
            queue.forget(key);
            queue.add_after(key.clone(), delay);
            "again"
        }
        Err(error) => {
            let delay = queue.add_failed(key.clone());
            metrics.retries.get_or_create(&labels).inc();
            match &error {
                // Somebody was faster: everyday, and the newer state is on its way.
                ReconcileError::Write(write) if write.is_conflict() => {
                    tracing::debug!(controller = name, %key, %error, "reconcile again");
                }
                ReconcileError::Waiting(_) => {
                    tracing::debug!(controller = name, %key, %error, "reconcile again");
                }
                _ => tracing::warn!(controller = name, %key, %error, ?delay, "reconcile failed"),
            }
            "error"
        }
    };
    metrics
        .reconciles
        .get_or_create(&ReconcileLabels {
            controller: name,
            result,
        })
        .inc();
    metrics
        .depth
        .get_or_create(&labels)
        .set(i64::try_from(queue.len()).unwrap_or(i64::MAX));
}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::Mutex;

    /// Panics at the first look at `bad`.
    struct Fragile {
        queue: Arc<WorkQueue>,
        seen: Mutex<Vec<String>>,
        ended: CancellationToken,
    }

    #[async_trait::async_trait]
    impl Controller for Fragile {
        fn name(&self) -> &'static str {
            "fragile"
        }

        fn queue(&self) -> &Arc<WorkQueue> {
            &self.queue
        }

        async fn reconcile(&self, key: &Key) -> Result<Action, ReconcileError> {
            let mut seen = self.seen.lock();
            let again = seen.contains(&key.name);
            seen.push(key.name.clone());
            drop(seen);
            assert!(again || key.name != "bad", "cannot cope with it");
            if again {
                self.ended.cancel();
            }
            Ok(Action::Done)
        }
    }

    #[tokio::test]
    async fn a_panic_ends_neither_the_worker_nor_the_care_for_its_key() {
        let fragile = Arc::new(Fragile {
            queue: Arc::default(),
            seen: Mutex::default(),
            ended: CancellationToken::new(),
        });
        for name in ["bad", "good"] {
            fragile.queue.add(Key::new("default", name));
        }
        let metrics = ControllersMetrics::default();
        let running = run(fragile.clone(), 1, metrics, fragile.ended.clone());
        let ended = tokio::time::timeout(Duration::from_secs(60), running).await;
        ended.expect("the key comes back");
        assert_eq!(*fragile.seen.lock(), ["bad", "good", "bad"]);
    }
}
