//! The life of a sandbox.
//!
//! ```text
//! Creating ──Booted──► Ready ──VmmExited──► Dead
//!    │                   │                   │
//!    │                   └──────Stop─────────┴──► Stopping ──Stopped──► Stopped
//!    └──Failed──► Removing ◄──────────────Remove───────────────────────────┘
//! ```

use serde::{Deserialize, Serialize};

/// Where in its life a sandbox is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SandboxState {
    /// RunPodSandbox is under way. A restarted shim rolls it back.
    Creating,
    /// The VM runs and takes containers.
    Ready,
    /// The VM ended by itself; its network is still there.
    Dead,
    /// StopPodSandbox is under way. A restarted shim finishes it.
    Stopping,
    /// No VM, no network.
    Stopped,
    /// Being removed. A restarted shim finishes it.
    Removing,
}

/// What happens to a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SandboxEvent {
    /// The agent is set up.
    Booted,
    /// It did not come up.
    Failed,
    /// The VMM process ended.
    VmmExited,
    /// StopPodSandbox began.
    Stop,
    /// StopPodSandbox is done.
    Stopped,
    /// RemovePodSandbox began.
    Remove,
}

/// An event that the state does not allow.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a sandbox in state {state:?} cannot take {event:?}")]
pub struct IllegalTransition {
    /// The state.
    pub state: SandboxState,
    /// The event.
    pub event: SandboxEvent,
}

impl SandboxState {
    /// The state after `event`. Events that repeat what already happened change nothing.
    pub fn after(self, event: SandboxEvent) -> Result<SandboxState, IllegalTransition> {
        use SandboxEvent as E;
        use SandboxState as S;
        match (self, event) {
            (S::Creating, E::Booted) => Ok(S::Ready),
            (S::Creating, E::Failed) => Ok(S::Removing),
            (S::Ready | S::Dead, E::VmmExited) => Ok(S::Dead),
            // The VMM ends as a part of these.
            (S::Stopping | S::Stopped | S::Removing, E::VmmExited) => Ok(self),
            (S::Ready | S::Dead | S::Stopping, E::Stop) => Ok(S::Stopping),
            (S::Stopping | S::Stopped, E::Stopped) => Ok(S::Stopped),
            (S::Stopped | S::Removing, E::Remove) => Ok(S::Removing),
            (state, event) => Err(IllegalTransition { state, event }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_life() {
        let mut state = SandboxState::Creating;
        for event in [
            SandboxEvent::Booted,
            SandboxEvent::VmmExited,
            SandboxEvent::Stop,
            SandboxEvent::VmmExited,
            SandboxEvent::Stopped,
            SandboxEvent::Remove,
        ] {
            state = state.after(event).unwrap();
        }
        assert_eq!(state, SandboxState::Removing);
    }

    #[test]
    fn a_running_sandbox_cannot_be_removed_and_a_stopped_one_not_revived() {
        assert!(SandboxState::Ready.after(SandboxEvent::Remove).is_err());
        assert!(SandboxState::Stopped.after(SandboxEvent::Booted).is_err());
        assert!(
            SandboxState::Creating
                .after(SandboxEvent::VmmExited)
                .is_err()
        );
    }
}
