//! One level of priority: its seats, and the queues of those who wait for one.

use std::{
    collections::VecDeque,
    sync::{Arc, Weak},
};

use hull_api::ObjectExt;
use parking_lot::Mutex;
use prometheus_client::metrics::{family::Family, gauge::Gauge};
use serde_json::Value;
use tokio::sync::oneshot;

use super::metrics::{FlowLabels, LevelLabels, Metrics, RejectionLabels};
use crate::limits::QUEUE_WAIT;

/// Queues of a level at most, whatever its configuration says: each costs memory.
const MAX_QUEUES: usize = 4096;

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rejection {
    ConcurrencyLimit,
    QueueFull,
    TimeOut,
}

impl Rejection {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Rejection::ConcurrencyLimit => "concurrency-limit",
            Rejection::QueueFull => "queue-full",
            Rejection::TimeOut => "time-out",
        }
    }
}

/// How requests wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Queuing {
    queues: usize,
    hand: usize,
    length: usize,
}

/// What a PriorityLevelConfiguration says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Its part of the server.
    pub shares: u64,
    exempt: bool,
    queuing: Option<Queuing>,
}

impl Limits {
    pub(super) fn read(object: &Value) -> Self {
        let exempt = object.str_at("/spec/type") == "Exempt";
        let number = |value: Option<i64>, least: usize| {
            value
                .and_then(|value| usize::try_from(value).ok())
                .unwrap_or(least)
                .max(least)
        };
        let shares = object.int_at("/spec/limited/nominalConcurrencyShares");
        let queuing = object
            .pointer("/spec/limited/limitResponse/queuing")
            .map(|queuing| {
                let queues = number(queuing.int_at("/queues"), 1).min(MAX_QUEUES);
                Queuing {
                    queues,
                    hand: number(queuing.int_at("/handSize"), 1).min(queues),
                    length: number(queuing.int_at("/queueLengthLimit"), 1),
                }
            });
        Limits {
            shares: if exempt {
                0
            } else {
                u64::try_from(shares.unwrap_or(30)).unwrap_or(0)
            },
            exempt,
            queuing,
        }
    }
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<oneshot::Sender<Seat>>,
    executing: usize,
    /// The level's clock when it was given a seat last.
    served: u64,
}

#[derive(Default)]
struct State {
    exempt: bool,
    seats: usize,
    queuing: Option<Queuing>,
    executing: usize,
    queues: Vec<Queue>,
    /// Counts the seats that were given.
    clock: u64,
}

/// One level.
pub(super) struct Level {
    name: String,
    metrics: Metrics,
    state: Mutex<State>,
}

/// The right to be answered; dropped when the answer is made.
pub(super) struct Seat {
    level: Weak<Level>,
    queue: Option<usize>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(level) = self.level.upgrade() {
            level.release(self.queue);
        }
    }
}

/// Counts a request that waits.
struct Waiting(Gauge);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// The queues of a flow: `hand` different ones of `queues` (shuffle sharding: two flows rarely
/// have all of them in common).
fn deal(mut flow: u64, queues: usize, hand: usize) -> Vec<usize> {
    let mut taken: Vec<usize> = Vec::with_capacity(hand);
    let mut dealt = Vec::with_capacity(hand);
    for left in (queues - hand + 1..=queues).rev() {
        let cards = u64::try_from(left).unwrap_or(u64::MAX);
        let mut card = usize::try_from(flow % cards).unwrap_or(0);
        flow /= cards;
        // Its place among those that are left.
        for other in &taken {
            card += usize::from(card >= *other);
        }
        taken.insert(taken.partition_point(|other| *other < card), card);
        dealt.push(card);
    }
    dealt
}

impl State {
    /// The queue whose turn it is: the one with the fewest requests in progress, of those the one
    /// that waits longest for a seat. Who gave up waiting is gone from it.
    fn next_queue(&mut self) -> Option<usize> {
        for queue in &mut self.queues {
            while queue
                .waiting
                .front()
                .is_some_and(oneshot::Sender::is_closed)
            {
                queue.waiting.pop_front();
            }
        }
        let queues = self.queues.iter().enumerate();
        let (index, _) = queues
            .filter(|(_, queue)| !queue.waiting.is_empty())
            .min_by_key(|(_, queue)| (queue.executing, queue.served))?;
        Some(index)
    }
}

impl Level {
    pub(super) fn new(name: &str, metrics: Metrics) -> Self {
        Level {
            name: name.to_string(),
            metrics,
            state: Mutex::default(),
        }
    }

    fn gauge(&self, family: &Family<LevelLabels, Gauge>) -> Gauge {
        let priority_level = self.name.clone();
        family
            .get_or_create(&LevelLabels { priority_level })
            .clone()
    }

    /// Takes new limits; `all` are the shares of all levels, which have `seats` together.
    pub(super) fn limit(self: &Arc<Self>, limits: &Limits, all: u64, seats: usize) {
        let total = u64::try_from(seats).unwrap_or(u64::MAX);
        let seats = total.saturating_mul(limits.shares).div_ceil(all.max(1));
        let seats = usize::try_from(seats).unwrap_or(usize::MAX);
        {
            let mut state = self.state.lock();
            state.exempt = limits.exempt;
            state.seats = seats;
            state.queuing = limits.queuing;
            // Those that wait in a queue that is not dealt any more still get their turn.
            let queues = limits.queuing.map_or(0, |queuing| queuing.queues);
            if state.queues.len() < queues {
                state.queues.resize_with(queues, Queue::default);
            }
        }
        let shown = i64::try_from(seats).unwrap_or(i64::MAX);
        self.gauge(&self.metrics.seats).set(shown);
        self.dispatch();
    }

    /// A seat for a request of a flow; `None`: the level needs none.
    pub(super) async fn acquire(
        self: &Arc<Self>,
        schema: &str,
        flow: u64,
    ) -> Result<Option<Seat>, Rejection> {
        let labels = FlowLabels {
            priority_level: self.name.clone(),
            flow_schema: schema.to_string(),
        };
        let outcome = match self.enter(flow) {
            Ok(Entered::Exempt) => Ok(None),
            Ok(Entered::Seated(seat)) => Ok(Some(seat)),
            Ok(Entered::Waits(seat)) => {
                let gauge = self.gauge(&self.metrics.waiting);
                gauge.inc();
                let _waiting = Waiting(gauge);
                match tokio::time::timeout(QUEUE_WAIT, seat).await {
                    Ok(Ok(seat)) => Ok(Some(seat)),
                    _ => Err(Rejection::TimeOut),
                }
            }
            Err(rejection) => Err(rejection),
        };
        match &outcome {
            Ok(_) => self.metrics.dispatched.get_or_create(&labels).inc(),
            Err(rejection) => {
                let labels = RejectionLabels {
                    priority_level: labels.priority_level,
                    flow_schema: labels.flow_schema,
                    reason: rejection.as_str(),
                };
                self.metrics.rejected.get_or_create(&labels).inc()
            }
        };
        outcome
    }

    fn enter(self: &Arc<Self>, flow: u64) -> Result<Entered, Rejection> {
        let mut state = self.state.lock();
        if state.exempt {
            return Ok(Entered::Exempt);
        }
        let is_free = state.executing < state.seats;
        let Some(queuing) = state.queuing else {
            if !is_free {
                return Err(Rejection::ConcurrencyLimit);
            }
            return Ok(Entered::Seated(self.seat(&mut state, None)));
        };
        let hand = deal(flow, queuing.queues, queuing.hand);
        let shortest = hand.into_iter().min_by_key(|index| {
            let queue = &state.queues[*index];
            (queue.waiting.len(), queue.executing)
        });
        let index = shortest.unwrap_or(0);
        // A free seat means that nobody waits.
        if is_free {
            return Ok(Entered::Seated(self.seat(&mut state, Some(index))));
        }
        let waiting = &mut state.queues[index].waiting;
        if waiting.len() >= queuing.length {
            waiting.retain(|one| !one.is_closed());
        }
        if waiting.len() >= queuing.length {
            return Err(Rejection::QueueFull);
        }
        let (sender, receiver) = oneshot::channel();
        waiting.push_back(sender);
        Ok(Entered::Waits(receiver))
    }

    fn seat(self: &Arc<Self>, state: &mut State, queue: Option<usize>) -> Seat {
        state.executing += 1;
        if let Some(index) = queue {
            state.clock += 1;
            let clock = state.clock;
            let queue = &mut state.queues[index];
            queue.executing += 1;
            queue.served = clock;
        }
        self.gauge(&self.metrics.executing).inc();
        Seat {
            level: Arc::downgrade(self),
            queue,
        }
    }

    fn release(self: &Arc<Self>, queue: Option<usize>) {
        {
            let mut state = self.state.lock();
            state.executing -= 1;
            if let Some(index) = queue {
                state.queues[index].executing -= 1;
            }
        }
        self.gauge(&self.metrics.executing).dec();
        self.dispatch();
    }

    /// Gives the free seats to those who wait.
    fn dispatch(self: &Arc<Self>) {
        loop {
            let given = {
                let mut state = self.state.lock();
                if state.executing >= state.seats && !state.exempt {
                    return;
                }
                let Some(index) = state.next_queue() else {
                    return;
                };
                let sender = state.queues[index].waiting.pop_front();
                sender.map(|sender| (sender, self.seat(&mut state, Some(index))))
            };
            // Outside of the lock: a seat that nobody takes is released at once.
            if let Some((sender, seat)) = given {
                drop(sender.send(seat));
            }
        }
    }
}

/// What became of a request at the door.
enum Entered {
    Exempt,
    Seated(Seat),
    Waits(oneshot::Receiver<Seat>),
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn level(seats: u64, queues: i64, hand: i64, length: i64) -> Arc<Level> {
        let level = Arc::new(Level::new("l", Metrics::default()));
        let limits = Limits::read(&json!({"spec": {"type": "Limited", "limited": {
            "nominalConcurrencyShares": seats, "limitResponse": {"type": "Queue", "queuing":
                {"queues": queues, "handSize": hand, "queueLengthLimit": length}}}}}));
        level.limit(&limits, seats, usize::try_from(seats).unwrap());
        level
    }

    #[test]
    fn a_hand_has_different_queues_and_flows_differ() {
        let hands: Vec<Vec<usize>> = (0..200u64)
            .map(|flow| deal(flow.wrapping_mul(0x9E37_79B9_7F4A_7C15), 64, 8))
            .collect();
        for hand in &hands {
            let mut sorted = hand.clone();
            sorted.sort_unstable();
            sorted.dedup();
            assert_eq!(sorted.len(), 8, "{hand:?}");
            assert!(sorted.iter().all(|card| *card < 64));
        }
        let same = |a: &Vec<usize>, b: &Vec<usize>| a.iter().all(|card| b.contains(card));
        let others = hands[1..].iter().filter(|hand| same(hand, &hands[0]));
        assert_eq!(others.count(), 0, "no flow has all queues of another");
        assert_eq!(deal(7, 3, 3).len(), 3);
    }

    #[tokio::test]
    async fn a_flood_delays_others_by_one_request_not_by_all_of_its_own() {
        let level = level(2, 64, 4, 50);
        let (flood, other) = (11, 0x9E37_79B9_7F4A_7C15);
        let first = level.acquire("s", flood).await.unwrap();
        let second = level.acquire("s", flood).await.unwrap();
        let done = Arc::<Mutex<Vec<&str>>>::default();
        let mut tasks = Vec::new();
        let mut start = |name: &'static str, flow: u64, waiting: i64| {
            let (level, done) = (level.clone(), done.clone());
            let gauge = level.gauge(&level.metrics.waiting);
            tasks.push(tokio::spawn(async move {
                let _seat = level.acquire("s", flow).await.unwrap();
                done.lock().push(name);
                tokio::task::yield_now().await;
            }));
            async move {
                while gauge.get() < waiting {
                    tokio::task::yield_now().await;
                }
            }
        };
        for waiting in 1..=100 {
            start("flood", flood, waiting).await;
        }
        start("other", other, 101).await;
        drop((first, second));
        for task in tasks {
            task.await.unwrap();
        }
        let done = done.lock();
        let place = done.iter().position(|name| *name == "other").unwrap();
        assert_eq!(done.len(), 101);
        assert!(place < 3, "the other came after {place} of the flood");
        assert_eq!(level.gauge(&level.metrics.executing).get(), 0);
    }

    #[tokio::test]
    async fn a_flow_fills_its_own_queues_only() {
        let level = level(1, 64, 2, 3);
        let seat = level.acquire("s", 5).await.unwrap();
        let mut receivers = Vec::new();
        for _ in 0..6 {
            match level.enter(5).unwrap() {
                Entered::Waits(receiver) => receivers.push(receiver),
                _ => panic!("there is no seat"),
            }
        }
        assert_eq!(level.enter(5).err(), Some(Rejection::QueueFull));
        assert!(matches!(
            level.enter(0x9E37_79B9_7F4A_7C15),
            Ok(Entered::Waits(_))
        ));
        // Who leaves makes room, and its turn goes to the next.
        drop(receivers.remove(0));
        assert!(level.enter(5).is_ok());
        drop(seat);
        let given = receivers
            .iter_mut()
            .filter_map(|one| one.try_recv().ok())
            .count();
        assert!(given <= 1);
    }

    #[tokio::test]
    async fn a_level_without_queues_refuses_and_an_exempt_one_never_does() {
        let level = Arc::new(Level::new("l", Metrics::default()));
        let reject = json!({"spec": {"type": "Limited", "limited": {
            "nominalConcurrencyShares": 1, "limitResponse": {"type": "Reject"}}}});
        level.limit(&Limits::read(&reject), 1, 1);
        let seat = level.acquire("s", 1).await.unwrap();
        let refused = level.acquire("s", 1).await.err();
        assert_eq!(refused, Some(Rejection::ConcurrencyLimit));
        drop(seat);
        assert!(level.acquire("s", 1).await.unwrap().is_some());
        level.limit(&Limits::read(&json!({"spec": {"type": "Exempt"}})), 1, 1);
        for _ in 0..10 {
            assert!(level.acquire("s", 1).await.unwrap().is_none());
        }
    }
}
