//! Notices a node that stands still: its CPUs halted for good, its kernel in a loop. QEMU
//! itself lives on then, and a command inside the node would never come to its end.

use std::thread;
use std::time::{Duration, Instant};

use super::{Node, STOP_GRACE, State};

/// Pause between two questions to the agent of a node in which a command runs.
const PERIOD: Duration = Duration::from_secs(5);
/// How long one answer may take. The busiest node that was seen answered within 20 s.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a node may leave every question without an answer.
const SILENCE_LIMIT: Duration = Duration::from_secs(150);

impl Node {
    /// Asks the node's agent again and again, on a thread of its own, until the process
    /// ends. A node that is silent for too long is ended, with a word on why.
    pub fn watch(&self, state: &State) {
        let (node, state) = (self.clone(), state.clone());
        thread::spawn(move || {
            let ping = || node.ping(&state, ANSWER_TIMEOUT).is_ok();
            until_silent(ping, PERIOD, SILENCE_LIMIT);
            tracing::error!(
                node = node.name,
                "the node has not answered for {} s: ending it",
                SILENCE_LIMIT.as_secs()
            );
            state.process.end(STOP_GRACE);
        });
    }
}

/// Returns once `ping` has failed for `limit`, and fails still.
fn until_silent(mut ping: impl FnMut() -> bool, period: Duration, limit: Duration) {
    let mut heard = Instant::now();
    loop {
        if ping() {
            heard = Instant::now();
        } else if heard.elapsed() >= limit {
            return;
        }
        thread::sleep(period);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_silence_without_a_break_ends_the_watch() {
        let limit = Duration::from_millis(100);
        let start = Instant::now();
        let mut last_answer = start;
        let ping = || {
            // Every other question is answered, for longer than silence may last.
            let answers = start.elapsed() < 2 * limit && last_answer.elapsed() > limit / 4;
            if answers {
                last_answer = Instant::now();
            }
            answers
        };
        until_silent(ping, Duration::from_millis(1), limit);
        assert!(
            start.elapsed() >= 2 * limit + limit / 2,
            "{:?}",
            start.elapsed()
        );
    }
}
