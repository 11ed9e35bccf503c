//! What every [`Store`] must do, whatever it is made of: a file per topic, a function per rule.
//!
//! Each check works under its own prefix and wants nobody else to write meanwhile.
//! [`store_conformance_tests!`](crate::store_conformance_tests) makes one test of each.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failed check is a failed test"
)]

pub mod compaction;
pub mod concurrency;
pub mod expiry;
pub mod lists;
pub mod model;
pub mod transactions;
pub mod values;
pub mod watches;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::StreamExt;

use crate::{Revision, Store, TxnOutcome, WatchEvent, WatchStream, Write, prefix_range};

/// Longest wait for an event that must come.
const EVENT_TIMEOUT: Duration = Duration::from_secs(30);

/// Makes a `#[tokio::test]` of every check. The argument is an async function that returns an
/// `Arc<dyn Store>` of its own and something to keep alive with it.
#[macro_export]
macro_rules! store_conformance_tests {
    ($make:path) => {
        $crate::store_conformance_tests!(@topics $make,
            transactions: { creates_only_when_absent, replaces_only_at_the_expected_revision, deletes_only_at_the_expected_revision, gives_the_first_failed_condition, transactions_are_all_or_nothing, changing_nothing_takes_no_revision, the_last_write_to_a_key_counts, conditions_about_several_keys_hold_together, no_key_is_at_revision_zero, conditions_alone_are_a_question, conditions_guard_writes_to_other_keys, deleting_an_absent_key_beside_a_put_commits_the_put, a_put_and_a_deletion_of_one_key_delete_it, a_deletion_and_a_put_of_one_key_replace_it, an_unchanged_value_takes_a_revision, revisions_have_no_gaps, a_hundred_writes_are_one_revision, a_recreated_key_has_a_new_create_revision },
            lists: { lists_in_key_order_within_the_range, pages_are_consistent_while_keys_change, an_old_revision_lists_as_it_was, a_future_revision_is_refused, an_absent_key_is_none, a_read_sees_every_write_before_it, an_empty_range_lists_nothing, a_list_gives_values_and_revisions, a_page_of_exactly_all_keys_has_none_remaining, deleted_keys_do_not_count, remaining_is_of_the_listed_revision, a_key_is_absent_before_its_creation, a_range_can_hold_one_key, everything_is_a_range, thousands_of_keys_list_completely, an_inverted_range_checks_its_revision, a_future_list_tells_the_current_revision },
            compaction: { compaction_forgets_older_revisions, compaction_keeps_the_current_state, compaction_to_now_leaves_now, compacting_less_than_before_does_nothing, compacting_the_future_is_refused, a_current_watch_survives_compaction, a_later_page_of_a_compacted_list_fails, a_compacted_error_names_a_later_revision },
            watches: { watch_replays_then_follows, watch_from_now_sees_only_what_comes, watch_sees_only_its_range, watch_reports_progress_in_silence, watch_gives_a_transactions_changes_together, watching_from_the_future_is_refused, watch_from_the_newest_revision_misses_nothing, a_deletion_shows_the_last_state, a_recreation_has_no_previous_state, conflicts_are_not_watched, overlapping_watches_each_see_the_change, one_key_can_be_watched, a_transaction_shows_each_watch_its_part, a_long_history_replays_in_order, progress_never_overtakes_changes, an_unread_watch_does_not_slow_writers },
            concurrency: { racing_writers_never_lose_an_update, watchers_agree_with_the_lists, one_of_many_creators_wins, concurrent_transactions_have_distinct_revisions, every_revision_is_consistent },
            values: { empty_and_large_values_survive, values_are_any_bytes, keys_are_any_text, watches_carry_large_values, large_values_list_together, status_tells_engine_revision_and_size },
            expiry: { an_expiring_key_ends, a_plain_write_takes_the_end_away, a_later_end_replaces_an_earlier_one, a_recreated_key_has_no_end, expiring_writes_obey_conditions, many_expiring_keys_all_end },
        );
    };
    (@topics $make:path, $($topic:ident: $checks:tt,)+) => {
        $($crate::store_conformance_tests!(@topic $make, $topic, $checks);)+
    };
    (@topic $make:path, $topic:ident, { $($check:ident),+ }) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $check() {
            let (store, _keep) = $make().await;
            $crate::conformance::$topic::$check(store).await;
        })+
    };
}

fn key(prefix: &str, name: &str) -> String {
    format!("/conformance/{prefix}/{name}")
}

fn all(prefix: &str) -> std::ops::Range<String> {
    prefix_range(&format!("/conformance/{prefix}/"))
}

fn value(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn committed(outcome: TxnOutcome) -> Revision {
    match outcome {
        TxnOutcome::Committed(revision) => revision,
        conflict @ TxnOutcome::Conflict { .. } => panic!("expected a commit, got {conflict:?}"),
    }
}

async fn put(store: &Arc<dyn Store>, key: &str, text: &str) -> Revision {
    let writes = vec![Write::Put(key.to_owned(), value(text))];
    committed(store.txn(Vec::new(), writes).await.unwrap())
}

async fn delete(store: &Arc<dyn Store>, key: &str) -> Revision {
    committed(
        store
            .txn(Vec::new(), vec![Write::Delete(key.to_owned())])
            .await
            .unwrap(),
    )
}

/// The next change, skipping progress.
async fn next_change(watch: &mut WatchStream) -> WatchEvent {
    loop {
        let event = tokio::time::timeout(EVENT_TIMEOUT, watch.next())
            .await
            .unwrap_or_else(|_| panic!("no event within {EVENT_TIMEOUT:?}"))
            .unwrap_or_else(|| panic!("the watch ended"));
        match event.unwrap() {
            WatchEvent::Progress(_) => {}
            change => return change,
        }
    }
}
