//! Notices a node that stands still: its CPUs halted for good, its kernel in a loop. QEMU
//! itself lives on then, and a command inside the node would never come to its end.

use std::thread;
use std::time::{Duration, Instant};

use super::{Node, STOP_GRACE, State};

/// Pause between two questions to the agent of a node in which a command runs.
const PERIOD: Duration = Duration::from_secs(5);
/// How long a node may leave every question without an answer. The busiest node that was
/// seen answered within 20 s.
const SILENCE_LIMIT: Duration = Duration::from_secs(150);

impl Node {
    /// Asks the node's agent again and again, on a thread of its own, until the process
    /// ends. A node that is silent for too long is ended, with a word on why.
    pub fn watch(&self, state: &State) {
        let (node, state) = (self.clone(), state.clone());
        thread::spawn(move || {
            until_silent(|| node.ping(&state).is_ok(), PERIOD, SILENCE_LIMIT);
            tracing::error!(
                node = node.name,
                "the node has not answered for {} s: ending it",
                SILENCE_LIMIT.as_secs()
            );
            state.process.end(STOP_GRACE);
        });
    }
}

/// Returns once `ping` has failed for `limit`.
fn until_silent(mut ping: impl FnMut() -> bool, period: Duration, limit: Duration) {
    let mut heard = Instant::now();
    while heard.elapsed() < limit {
        if ping() {
            heard = Instant::now();
        }
        thread::sleep(period);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_silence_without_a_break_ends_the_watch() {
        let answers = [true, false, true, false, false, true];
        let mut asked = 0;
        let limit = Duration::from_millis(200);
        let start = Instant::now();
        until_silent(
            || {
                asked += 1;
                answers.get(asked - 1).copied().unwrap_or(false)
            },
            Duration::from_millis(1),
            limit,
        );
        assert!(asked > answers.len(), "given up after {asked} questions");
        assert!(start.elapsed() >= limit);
    }
}
