//! One-time tokens for streams that were asked for.

use crate::ids;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// How long a token is good.
const LIFETIME: Duration = Duration::from_secs(60);
/// Most tokens at a time.
const MAX_TOKENS: usize = 1000;

/// What a token stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamRequest {
    /// A second process in a container.
    Exec {
        /// Container id.
        container_id: String,
        /// Program and arguments.
        command: Vec<String>,
        /// With a terminal.
        tty: bool,
        /// Which streams the client wants: standard input, output, error.
        streams: [bool; 3],
    },
    /// A container's first process.
    Attach {
        /// Container id.
        container_id: String,
        /// It has a terminal.
        tty: bool,
        /// Which streams the client wants: standard input, output, error.
        streams: [bool; 3],
    },
    /// TCP connections into a sandbox.
    PortForward {
        /// Sandbox id.
        sandbox_id: String,
        /// Ports that the caller of CRI named; empty: the stream's client names them.
        ports: Vec<u16>,
    },
}

/// Tokens that were given out.
#[derive(Default)]
pub struct Tokens {
    waiting: Mutex<HashMap<String, (StreamRequest, Instant)>>,
}

impl Tokens {
    /// A token for `request`, unless too many wait.
    pub fn issue(&self, request: StreamRequest) -> Option<String> {
        self.issue_at(request, Instant::now())
    }

    fn issue_at(&self, request: StreamRequest, now: Instant) -> Option<String> {
        let mut waiting = self.waiting.lock();
        waiting.retain(|_, (_, issued)| now.saturating_duration_since(*issued) < LIFETIME);
        if waiting.len() >= MAX_TOKENS {
            return None;
        }
        let token = ids::generate();
        waiting.insert(token.clone(), (request, now));
        Some(token)
    }

    /// What the token stands for. It is good for nothing afterwards.
    pub fn redeem(&self, token: &str) -> Option<StreamRequest> {
        self.redeem_at(token, Instant::now())
    }

    fn redeem_at(&self, token: &str, now: Instant) -> Option<StreamRequest> {
        let (request, issued) = self.waiting.lock().remove(token)?;
        (now.saturating_duration_since(issued) < LIFETIME).then_some(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_once_and_not_for_long() {
        let tokens = Tokens::default();
        let request = StreamRequest::PortForward {
            sandbox_id: "s".into(),
            ports: vec![],
        };
        let now = Instant::now();
        let token = tokens.issue_at(request.clone(), now).unwrap();
        assert_eq!(tokens.redeem_at(&token, now), Some(request.clone()));
        assert_eq!(tokens.redeem_at(&token, now), None);
        let token = tokens.issue_at(request.clone(), now).unwrap();
        assert_eq!(tokens.redeem_at(&token, now + LIFETIME), None);
        for _ in 0..MAX_TOKENS {
            tokens.issue_at(request.clone(), now).unwrap();
        }
        assert_eq!(tokens.issue_at(request.clone(), now), None);
        assert!(tokens.issue_at(request, now + LIFETIME).is_some());
    }
}
