//! One sandbox in memory.

use super::state::{SandboxEvent, SandboxState};
use crate::error::Error;
use crate::guest::Guest;
use crate::journal::{Journal, JournalError, SandboxRecord};
use crate::timeouts::scaled;
use crate::vmm::Vm;
use crate::vmm::paths::SandboxPaths;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How long after an agent was lost the end of its VM may take to be seen.
const VM_END_TIMEOUT: Duration = Duration::from_millis(500);

/// What there is while the VM runs.
#[derive(Clone)]
pub struct Live {
    /// The VM.
    pub vm: Arc<dyn Vm>,
    /// Its agent.
    pub guest: Guest,
    /// Ends the tasks that serve this sandbox.
    pub tasks: CancellationToken,
}

impl Live {
    /// After the agent gave no answer: whether that is because the VM is about to be gone.
    /// Its connections end before the end of its process is seen.
    pub async fn ended_soon(&self) -> bool {
        let ended = self.tasks.cancelled();
        tokio::time::timeout(scaled(VM_END_TIMEOUT), ended)
            .await
            .is_ok()
    }
}

/// A sandbox.
pub struct Sandbox {
    /// Its id.
    pub id: String,
    /// Its files.
    pub paths: SandboxPaths,
    /// Held by whatever changes the sandbox: run, stop, remove, create and remove container.
    pub operation: tokio::sync::Mutex<()>,
    record: Mutex<SandboxRecord>,
    live: Mutex<Option<Live>>,
    network_problem: Mutex<Option<String>>,
    journal: Journal,
}

impl Sandbox {
    /// A sandbox with its record, which must be in the journal already.
    pub fn new(record: SandboxRecord, paths: SandboxPaths, journal: Journal) -> Arc<Self> {
        Arc::new(Self {
            id: record.id.clone(),
            paths,
            operation: tokio::sync::Mutex::new(()),
            record: Mutex::new(record),
            live: Mutex::new(None),
            network_problem: Mutex::new(None),
            journal,
        })
    }

    /// A copy of the record.
    pub fn record(&self) -> SandboxRecord {
        self.record.lock().clone()
    }

    /// The state.
    pub fn state(&self) -> SandboxState {
        self.record.lock().state
    }

    /// Changes the record, on disk first.
    pub fn update<T>(
        &self,
        change: impl FnOnce(&mut SandboxRecord) -> T,
    ) -> Result<T, JournalError> {
        let mut current = self.record.lock();
        let mut next = current.clone();
        let value = change(&mut next);
        self.journal.save_sandbox(&next)?;
        *current = next;
        Ok(value)
    }

    /// Takes an event, on disk first.
    pub fn apply(&self, event: SandboxEvent) -> Result<SandboxState, Error> {
        let mut current = self.record.lock();
        let state = current
            .state
            .after(event)
            .map_err(|error| Error::FailedPrecondition(format!("sandbox {}: {error}", self.id)))?;
        let mut next = current.clone();
        next.state = state;
        self.journal.save_sandbox(&next)?;
        *current = next;
        Ok(state)
    }

    /// The VM, if it runs.
    pub fn live(&self) -> Option<Live> {
        self.live.lock().clone()
    }

    /// The VM, or an error that says why there is none.
    pub fn require_live(&self) -> Result<Live, Error> {
        match (self.state(), self.live()) {
            (SandboxState::Ready, Some(live)) => Ok(live),
            (state, _) => Err(Error::FailedPrecondition(format!(
                "sandbox {} is not running (state {state:?})",
                self.id
            ))),
        }
    }

    /// What the last CNI CHECK found wrong.
    pub fn network_problem(&self) -> Option<String> {
        self.network_problem.lock().clone()
    }

    /// Notes the outcome of a CNI CHECK.
    pub fn set_network_problem(&self, problem: Option<String>) {
        *self.network_problem.lock() = problem;
    }

    /// Sets or takes away the VM.
    pub fn set_live(&self, live: Option<Live>) {
        *self.live.lock() = live;
    }

    /// What a failure means: that the VM ended, with its last words, when that is why the
    /// agent could not be reached.
    pub async fn explain(&self, live: &Live, error: Error) -> Error {
        let unanswered = matches!(&error, Error::Guest(error) if error.unanswered());
        if unanswered {
            live.ended_soon().await;
        }
        match self.record().exit {
            Some(exit) if unanswered => Error::FailedPrecondition(exit.message),
            _ => error,
        }
    }

    /// Takes the VM away and ends the tasks that serve it.
    pub fn end_live(&self) -> Option<Live> {
        let live = self.live.lock().take();
        if let Some(live) = &live {
            live.tasks.cancel();
        }
        live
    }
}
