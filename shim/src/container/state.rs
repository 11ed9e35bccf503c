//! The life of a container.
//!
//! ```text
//! Creating ──Created──► Created ──Started──► Running ──Exited──► Exited
//!    │                     │ ▲                 │                   │
//!    │                     │ └───NotStarted────┘                   │
//!    │                     └────────Exited (never started)─────────┤
//!    └──Remove──► Removing ◄──────────────Remove───────────────────┘  (from Created, too)
//! ```

use serde::{Deserialize, Serialize};

/// Where in its life a container is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ContainerState {
    /// CreateContainer is under way. A restarted shim rolls it back.
    Creating,
    /// Ready to be started.
    Created,
    /// Its process runs.
    Running,
    /// Its process ended, or could not be started.
    Exited,
    /// Being removed. A restarted shim finishes it.
    Removing,
}

/// What happens to a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContainerEvent {
    /// CreateContainer is done.
    Created,
    /// The process runs.
    Started,
    /// It was noted as running, and is not: the shim ended before it told the agent.
    NotStarted,
    /// The process ended, or could not be started.
    Exited,
    /// Removal began.
    Remove,
}

/// An event that the state does not allow.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a container in state {state:?} cannot take {event:?}")]
pub struct IllegalTransition {
    /// The state.
    pub state: ContainerState,
    /// The event.
    pub event: ContainerEvent,
}

impl ContainerState {
    /// The state after `event`.
    pub fn after(self, event: ContainerEvent) -> Result<ContainerState, IllegalTransition> {
        use ContainerEvent as E;
        use ContainerState as S;
        match (self, event) {
            (S::Creating, E::Created) => Ok(S::Created),
            (S::Created, E::Started) => Ok(S::Running),
            (S::Running, E::NotStarted) => Ok(S::Created),
            (S::Created | S::Running, E::Exited) => Ok(S::Exited),
            (S::Creating | S::Created | S::Exited | S::Removing, E::Remove) => Ok(S::Removing),
            (state, event) => Err(IllegalTransition { state, event }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_is_final() {
        let exited = ContainerState::Running
            .after(ContainerEvent::Exited)
            .unwrap();
        assert!(exited.after(ContainerEvent::Started).is_err());
        assert!(exited.after(ContainerEvent::Exited).is_err());
        assert_eq!(
            exited.after(ContainerEvent::Remove),
            Ok(ContainerState::Removing)
        );
    }

    #[test]
    fn a_running_container_must_be_stopped_before_removal() {
        assert!(
            ContainerState::Running
                .after(ContainerEvent::Remove)
                .is_err()
        );
    }
}
