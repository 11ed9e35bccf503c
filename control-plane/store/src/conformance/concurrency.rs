//! Many at once.

use std::{collections::BTreeMap, sync::Arc};

use futures::future::join_all;

use super::{all, delete, key, next_change, put, value};
use crate::{Condition, KeyValue, Store, TxnOutcome, WatchEvent, Write};

/// Compare-and-swap loops from many tasks add up.
pub async fn racing_writers_never_lose_an_update(store: Arc<dyn Store>) {
    const TASKS: u64 = 8;
    const INCREMENTS: u64 = 25;
    let key = key("race", "counter");
    put(&store, &key, "0").await;
    let increment = async || {
        let mut done = 0;
        while done < INCREMENTS {
            let current = store.get(&key).await.unwrap().unwrap();
            let count: u64 = std::str::from_utf8(&current.value)
                .unwrap()
                .parse()
                .unwrap();
            let outcome = store
                .txn(
                    vec![Condition::ModRevision(key.clone(), current.mod_revision)],
                    vec![Write::Put(key.clone(), value(&(count + 1).to_string()))],
                )
                .await
                .unwrap();
            done += u64::from(matches!(outcome, TxnOutcome::Committed(_)));
        }
    };
    join_all((0..TASKS).map(|_| increment())).await;
    let total = store.get(&key).await.unwrap().unwrap();
    assert_eq!(total.value, value(&(TASKS * INCREMENTS).to_string()));
}

/// A list plus the changes after it is the state, for watches started at any time.
pub async fn watchers_agree_with_the_lists(store: Arc<dyn Store>) {
    const WRITES: u32 = 400;
    let writer = tokio::spawn({
        let store = store.clone();
        async move {
            for n in 0..WRITES {
                let key = key("agree", &(n % 37).to_string());
                if n % 5 == 4 {
                    delete(&store, &key).await;
                } else {
                    put(&store, &key, &n.to_string()).await;
                }
            }
            put(&store, &self::key("agree", "end"), "end").await
        }
    });
    let follow = async || {
        let page = store.list(all("agree"), None, 0).await.unwrap();
        let mut state: BTreeMap<_, _> = page
            .items
            .into_iter()
            .map(|item| (item.key, item.value))
            .collect();
        let mut watch = store
            .watch(all("agree"), Some(page.revision))
            .await
            .unwrap();
        let mut last = page.revision;
        while !state.contains_key(&key("agree", "end")) {
            let event = next_change(&mut watch).await;
            assert!(
                event.revision() > last,
                "revisions go up without duplicates"
            );
            last = event.revision();
            match event {
                WatchEvent::Put { current, previous } => {
                    let before = state.insert(current.key, current.value);
                    assert_eq!(before, previous.map(|item| item.value));
                }
                WatchEvent::Delete { previous, .. } => {
                    assert_eq!(state.remove(&previous.key), Some(previous.value));
                }
                WatchEvent::Progress(_) => {}
            }
        }
        state
    };
    let mut states = Vec::new();
    for _ in 0..4 {
        states.push(follow().await);
    }
    writer.await.unwrap();
    let page = store.list(all("agree"), None, 0).await.unwrap();
    let expected: BTreeMap<_, _> = page
        .items
        .into_iter()
        .map(|item| (item.key, item.value))
        .collect();
    assert!(states.into_iter().all(|state| state == expected));
}

/// Of many creators of one key one wins.
pub async fn one_of_many_creators_wins(store: Arc<dyn Store>) {
    let key = key("creators", "a");
    let attempts = (0..20).map(|n| {
        store.txn(
            vec![Condition::Absent(key.clone())],
            vec![Write::Put(key.clone(), value(&n.to_string()))],
        )
    });
    let won = join_all(attempts)
        .await
        .into_iter()
        .filter(|outcome| matches!(outcome, Ok(TxnOutcome::Committed(_))))
        .count();
    assert_eq!(won, 1);
}

/// Concurrent transactions each have their own revision.
pub async fn concurrent_transactions_have_distinct_revisions(store: Arc<dyn Store>) {
    let writes = (0..200).map(|n| {
        let store = store.clone();
        async move { put(&store, &key("distinct", &n.to_string()), "x").await }
    });
    let mut revisions = join_all(writes).await;
    revisions.sort_unstable();
    revisions.dedup();
    assert_eq!(revisions.len(), 200);
}

/// Amounts moved between keys never change their sum, at any revision.
pub async fn every_revision_is_consistent(store: Arc<dyn Store>) {
    const KEYS: usize = 4;
    const SUM: i64 = 400;
    for n in 0..KEYS {
        put(&store, &key("sum", &n.to_string()), "100").await;
    }
    let amount =
        |item: &KeyValue| -> i64 { std::str::from_utf8(&item.value).unwrap().parse().unwrap() };
    let mover = async |seed: usize| {
        for n in 0..40 {
            let (from, to) = (
                key("sum", &((seed + n) % KEYS).to_string()),
                key("sum", &((seed + n + 1) % KEYS).to_string()),
            );
            let (source, target) = (
                store.get(&from).await.unwrap().unwrap(),
                store.get(&to).await.unwrap().unwrap(),
            );
            // May be refused: then nothing moved.
            store
                .txn(
                    vec![
                        Condition::ModRevision(from.clone(), source.mod_revision),
                        Condition::ModRevision(to.clone(), target.mod_revision),
                    ],
                    vec![
                        Write::Put(from, value(&(amount(&source) - 1).to_string())),
                        Write::Put(to, value(&(amount(&target) + 1).to_string())),
                    ],
                )
                .await
                .unwrap();
        }
    };
    let reader = async || {
        for _ in 0..40 {
            let page = store.list(all("sum"), None, 0).await.unwrap();
            assert_eq!(page.items.iter().map(amount).sum::<i64>(), SUM);
            let old = store
                .list(all("sum"), Some(page.revision), 0)
                .await
                .unwrap();
            assert_eq!(old.items, page.items);
        }
    };
    futures::join!(mover(0), mover(1), mover(2), reader());
}
