//! One container in memory.

use super::state::{ContainerEvent, ContainerState};
use crate::error::Error;
use crate::journal::{ContainerRecord, Journal, JournalError};
use crate::logs::LogPump;
use parking_lot::Mutex;
use std::sync::Arc;
use tokio::sync::watch;

/// A container.
pub struct Container {
    /// Its id.
    pub id: String,
    /// Its sandbox.
    pub sandbox_id: String,
    /// Held by start and remove.
    pub operation: tokio::sync::Mutex<()>,
    record: Mutex<ContainerRecord>,
    state: watch::Sender<ContainerState>,
    pump: Mutex<Option<Arc<LogPump>>>,
    journal: Journal,
}

impl Container {
    /// A container with its record, which must be in the journal already.
    pub fn new(record: ContainerRecord, journal: Journal) -> Arc<Self> {
        Arc::new(Self {
            id: record.id.clone(),
            sandbox_id: record.sandbox_id.clone(),
            operation: tokio::sync::Mutex::new(()),
            state: watch::channel(record.state).0,
            record: Mutex::new(record),
            pump: Mutex::new(None),
            journal,
        })
    }

    /// A copy of the record.
    pub fn record(&self) -> ContainerRecord {
        self.record.lock().clone()
    }

    /// The state.
    pub fn state(&self) -> ContainerState {
        self.record.lock().state
    }

    /// Changes the record, on disk first.
    pub fn update(&self, change: impl FnOnce(&mut ContainerRecord)) -> Result<(), JournalError> {
        let mut current = self.record.lock();
        let mut next = current.clone();
        change(&mut next);
        self.journal.save_container(&next)?;
        *current = next;
        Ok(())
    }

    /// Takes an event together with what it changes, on disk first.
    pub fn apply(
        &self,
        event: ContainerEvent,
        change: impl FnOnce(&mut ContainerRecord),
    ) -> Result<(), Error> {
        let mut current = self.record.lock();
        let state = current.state.after(event).map_err(|error| {
            Error::FailedPrecondition(format!("container {}: {error}", self.id))
        })?;
        let mut next = current.clone();
        next.state = state;
        change(&mut next);
        self.journal.save_container(&next)?;
        *current = next;
        self.state.send_replace(state);
        Ok(())
    }

    /// Returns when the container is no longer running.
    pub async fn not_running(&self) {
        let mut state = self.state.subscribe();
        // The sender lives as long as self: waiting cannot fail.
        let _ = state
            .wait_for(|state| *state != ContainerState::Running)
            .await;
    }

    /// The task that writes its log and feeds attached clients.
    pub fn pump(&self) -> Option<Arc<LogPump>> {
        self.pump.lock().clone()
    }

    /// Sets it.
    pub fn set_pump(&self, pump: Option<Arc<LogPump>>) {
        *self.pump.lock() = pump;
    }
}
