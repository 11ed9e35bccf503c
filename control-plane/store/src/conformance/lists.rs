//! Gets, lists, pages, counts.

use std::sync::Arc;

use super::{all, committed, delete, key, put, value};
use crate::{Store, StoreError, Write};

/// Keys sort as bytes; the end of a range is not in it.
pub async fn lists_in_key_order_within_the_range(store: Arc<dyn Store>) {
    for name in ["b", "a", "c/d", "ä", "c"] {
        put(&store, &key("order", name), name).await;
    }
    put(&store, "/conformance/order", "outside").await;
    put(&store, "/conformance/order0", "outside").await;
    let page = store.list(all("order"), None, 0).await.unwrap();
    let names: Vec<_> = page
        .items
        .iter()
        .map(|item| item.key.rsplit_once("order/").unwrap().1)
        .collect();
    assert_eq!(names, ["a", "b", "c", "c/d", "ä"]);
    assert_eq!(page.remaining, 0);
    assert_eq!(store.count(all("order")).await.unwrap(), 5);
    let part = store
        .list(key("order", "b")..key("order", "c/d"), None, 0)
        .await
        .unwrap();
    assert_eq!(part.items.len(), 2);
    let inverted = store
        .list(key("order", "c")..key("order", "a"), None, 0)
        .await
        .unwrap();
    assert!(inverted.items.is_empty());
}

/// Pages taken at one revision together are the list at that revision.
pub async fn pages_are_consistent_while_keys_change(store: Arc<dyn Store>) {
    for n in 0..25 {
        put(&store, &key("pages", &format!("{n:02}")), "old").await;
    }
    let mut page = store.list(all("pages"), None, 10).await.unwrap();
    assert_eq!((page.items.len(), page.remaining), (10, 15));
    let revision = page.revision;
    for n in 0..25 {
        let key = key("pages", &format!("{n:02}"));
        if n % 2 == 0 {
            delete(&store, &key).await
        } else {
            put(&store, &key, "new").await
        };
        put(&store, &self::key("pages", &format!("{n:02}x")), "new").await;
    }
    let mut items = page.items;
    loop {
        let next = format!("{}\0", items.last().unwrap().key);
        page = store
            .list(next..all("pages").end, Some(revision), 10)
            .await
            .unwrap();
        assert_eq!(page.revision, revision);
        items.extend(page.items);
        if page.remaining == 0 {
            break;
        }
    }
    assert_eq!(items.len(), 25);
    assert!(items.iter().all(|item| item.value == value("old")));
}

/// Replaced, deleted and recreated keys show their state of then.
pub async fn an_old_revision_lists_as_it_was(store: Arc<dyn Store>) {
    let key = key("old", "a");
    let first = put(&store, &key, "one").await;
    let second = put(&store, &key, "two").await;
    let deleted = delete(&store, &key).await;
    let again = put(&store, &key, "three").await;
    for (at, expected) in [
        (first, Some("one")),
        (second, Some("two")),
        (deleted, None),
        (again, Some("three")),
    ] {
        let page = store.list(all("old"), Some(at), 0).await.unwrap();
        assert_eq!(
            page.items.first().map(|item| item.value.clone()),
            expected.map(value)
        );
        assert_eq!(page.revision, at);
    }
}

/// Lists and watches of what has not happened fail at once.
pub async fn a_future_revision_is_refused(store: Arc<dyn Store>) {
    let ahead = store.revision().await.unwrap() + 1_000_000;
    let list = store.list(all("future"), Some(ahead), 0).await;
    assert!(matches!(list, Err(StoreError::Future { asked, .. }) if asked == ahead));
}

/// Absence is no error.
pub async fn an_absent_key_is_none(store: Arc<dyn Store>) {
    assert_eq!(store.get(&key("absent", "a")).await.unwrap(), None);
    put(&store, &key("absent", "ab"), "x").await;
    assert_eq!(store.get(&key("absent", "a")).await.unwrap(), None);
}

/// What was written is there for the next reader.
pub async fn a_read_sees_every_write_before_it(store: Arc<dyn Store>) {
    let key = key("fresh", "a");
    for n in 0..20 {
        let revision = put(&store, &key, &n.to_string()).await;
        let found = store.get(&key).await.unwrap().unwrap();
        assert_eq!(
            (found.mod_revision, found.value),
            (revision, value(&n.to_string()))
        );
        assert!(store.revision().await.unwrap() >= revision);
    }
}

/// An empty range has no keys and a revision.
pub async fn an_empty_range_lists_nothing(store: Arc<dyn Store>) {
    let revision = put(&store, &key("empty-range-elsewhere", "a"), "x").await;
    let page = store.list(all("empty-range"), None, 0).await.unwrap();
    assert_eq!((page.items.len(), page.remaining), (0, 0));
    assert!(page.revision >= revision);
    assert_eq!(store.count(all("empty-range")).await.unwrap(), 0);
}

/// A list carries what a get gives.
pub async fn a_list_gives_values_and_revisions(store: Arc<dyn Store>) {
    let key = key("whole", "a");
    put(&store, &key, "one").await;
    put(&store, &key, "two").await;
    let page = store.list(all("whole"), None, 0).await.unwrap();
    assert_eq!(page.items.first().cloned(), store.get(&key).await.unwrap());
}

/// A page that ends with the range leaves nothing.
pub async fn a_page_of_exactly_all_keys_has_none_remaining(store: Arc<dyn Store>) {
    for n in 0..5 {
        put(&store, &key("exact", &n.to_string()), "x").await;
    }
    for (limit, items, remaining) in [(5, 5, 0), (6, 5, 0), (4, 4, 1), (1, 1, 4)] {
        let page = store.list(all("exact"), None, limit).await.unwrap();
        assert_eq!(
            (page.items.len(), page.remaining),
            (items, remaining),
            "limit {limit}"
        );
    }
}

/// Deleted keys are not counted, neither in counts nor in what remains.
pub async fn deleted_keys_do_not_count(store: Arc<dyn Store>) {
    for n in 0..6 {
        put(&store, &key("counted", &n.to_string()), "x").await;
    }
    for n in [1, 3, 5] {
        delete(&store, &key("counted", &n.to_string())).await;
    }
    assert_eq!(store.count(all("counted")).await.unwrap(), 3);
    let page = store.list(all("counted"), None, 2).await.unwrap();
    assert_eq!((page.items.len(), page.remaining), (2, 1));
}

/// What remains is counted at the page's revision, not now.
pub async fn remaining_is_of_the_listed_revision(store: Arc<dyn Store>) {
    for n in 0..4 {
        put(&store, &key("then", &n.to_string()), "x").await;
    }
    let revision = store.revision().await.unwrap();
    delete(&store, &key("then", "3")).await;
    put(&store, &key("then", "8"), "x").await;
    put(&store, &key("then", "9"), "x").await;
    let page = store.list(all("then"), Some(revision), 1).await.unwrap();
    assert_eq!((page.items.len(), page.remaining), (1, 3));
}

/// Before a key's creation it is not there.
pub async fn a_key_is_absent_before_its_creation(store: Arc<dyn Store>) {
    let before = put(&store, &key("before-elsewhere", "a"), "x").await;
    put(&store, &key("before", "a"), "x").await;
    let page = store.list(all("before"), Some(before), 0).await.unwrap();
    assert_eq!((page.items.len(), page.revision), (0, before));
}

/// A range of one key.
pub async fn a_range_can_hold_one_key(store: Arc<dyn Store>) {
    let one = key("single", "a");
    put(&store, &one, "x").await;
    put(&store, &key("single", "a/b"), "x").await;
    let page = store
        .list(one.clone()..format!("{one}\0"), None, 0)
        .await
        .unwrap();
    assert_eq!(page.items.len(), 1);
    assert_eq!(page.items[0].key, one);
}

/// The whole store is a range too.
pub async fn everything_is_a_range(store: Arc<dyn Store>) {
    put(&store, &key("everything", "a"), "x").await;
    let range = String::new()..String::from("\u{10FFFF}");
    let page = store.list(range.clone(), None, 0).await.unwrap();
    assert!(
        page.items
            .iter()
            .any(|item| item.key == key("everything", "a"))
    );
    assert_eq!(store.count(range).await.unwrap(), page.items.len() as u64);
}

/// More keys than any one answer holds.
pub async fn thousands_of_keys_list_completely(store: Arc<dyn Store>) {
    const KEYS: usize = 2_500;
    for chunk in (0..KEYS).collect::<Vec<_>>().chunks(100) {
        let writes = chunk
            .iter()
            .map(|n| Write::Put(key("many", &format!("{n:05}")), value(&n.to_string())))
            .collect();
        committed(store.txn(Vec::new(), writes).await.unwrap());
    }
    let page = store.list(all("many"), None, 0).await.unwrap();
    assert_eq!((page.items.len(), page.remaining), (KEYS, 0));
    for (n, item) in page.items.iter().enumerate() {
        assert_eq!(item.value, value(&n.to_string()));
    }
    let part = store.list(all("many"), None, 1_200).await.unwrap();
    assert_eq!(
        (part.items.len(), part.remaining),
        (1_200, KEYS as u64 - 1_200)
    );
}

/// An empty range tells about its revision like any other.
pub async fn an_inverted_range_checks_its_revision(store: Arc<dyn Store>) {
    let ahead = store.revision().await.unwrap() + 1_000_000;
    let range = key("inverted", "b")..key("inverted", "a");
    let list = store.list(range.clone(), Some(ahead), 0).await;
    assert!(matches!(list, Err(StoreError::Future { .. })));
    assert_eq!(store.count(range).await.unwrap(), 0);
}

/// The error tells how far the store is.
pub async fn a_future_list_tells_the_current_revision(store: Arc<dyn Store>) {
    let now = put(&store, &key("ahead", "a"), "x").await;
    match store.list(all("ahead"), Some(now + 50), 0).await {
        Err(StoreError::Future { asked, current }) => {
            assert_eq!(asked, now + 50);
            assert_eq!(current, now);
        }
        other => panic!("{other:?}"),
    }
}
