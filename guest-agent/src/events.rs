//! The log of exits. A subscriber gets every exit of what is not removed yet, then
//! each new one: a host that comes back misses none.

use hull_agent_protocol::v1::Event;
use parking_lot::Mutex;
use tokio::sync::watch;

/// Exits in the order in which they happened.
#[derive(Debug, Default)]
pub struct Events {
    log: Mutex<Log>,
    changed: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct Log {
    next: u64,
    events: Vec<(u64, Event)>,
    closed: bool,
}

/// Position of a subscriber in [`Events`].
#[derive(Debug, Default)]
pub struct Cursor(u64);

impl Events {
    /// Adds an exit.
    pub fn push(&self, event: Event) {
        let mut log = self.log.lock();
        let number = log.next;
        log.next += 1;
        log.events.push((number, event));
        drop(log);
        self.changed.send_replace(());
    }

    /// Forgets the exits of a container and its execs, or of one exec.
    pub fn forget(&self, container: &str, exec: Option<&str>) {
        self.log.lock().events.retain(|(_, event)| {
            event.container_id != container || exec.is_some_and(|exec| event.exec_id != exec)
        });
    }

    /// Ends all subscriptions.
    pub fn close(&self) {
        self.log.lock().closed = true;
        self.changed.send_replace(());
    }

    /// Waits for the exits after `cursor`; `None` when the log is closed.
    pub async fn next(&self, cursor: &mut Cursor) -> Option<Vec<Event>> {
        let mut changed = self.changed.subscribe();
        loop {
            changed.borrow_and_update();
            {
                let log = self.log.lock();
                let new = log.events.iter().filter(|(number, _)| *number >= cursor.0);
                let new: Vec<Event> = new.map(|(_, event)| event.clone()).collect();
                cursor.0 = log.next;
                if !new.is_empty() {
                    return Some(new);
                }
                if log.closed {
                    return None;
                }
            }
            if changed.changed().await.is_err() {
                return None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(container: &str, exec: &str) -> Event {
        Event {
            container_id: container.into(),
            exec_id: exec.into(),
            exit: None,
        }
    }

    #[tokio::test]
    async fn past_exits_come_first_then_new_ones_once() {
        let events = Events::default();
        events.push(event("a", ""));
        let mut cursor = Cursor::default();
        assert_eq!(events.next(&mut cursor).await, Some(vec![event("a", "")]));
        events.push(event("b", ""));
        assert_eq!(events.next(&mut cursor).await, Some(vec![event("b", "")]));
    }

    #[tokio::test]
    async fn exits_of_what_was_removed_are_not_replayed() {
        let events = Events::default();
        for (container, exec) in [("a", ""), ("a", "e"), ("b", "e"), ("b", "f")] {
            events.push(event(container, exec));
        }
        events.forget("a", None);
        events.forget("b", Some("f"));
        let next = events.next(&mut Cursor::default()).await;
        assert_eq!(next, Some(vec![event("b", "e")]));
    }

    #[tokio::test]
    async fn closing_ends_subscriptions_after_what_is_left() {
        let events = Events::default();
        events.push(event("a", ""));
        events.close();
        let mut cursor = Cursor::default();
        assert!(events.next(&mut cursor).await.is_some());
        assert_eq!(events.next(&mut cursor).await, None);
    }
}
