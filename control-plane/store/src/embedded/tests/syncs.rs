//! What is on disk when an answer is given, and how often the disk is waited for.

use std::{fs::File, io, path::Path, pin::Pin};

use parking_lot::{Condvar, Mutex};

use super::*;

/// Far beyond what a sync takes.
const DEADLINE: Duration = Duration::from_secs(30);

/// A disk whose syncs are counted, held up and made to fail.
#[derive(Default)]
struct Syncs {
    state: Mutex<Counted>,
    changed: Condvar,
}

#[derive(Default)]
struct Counted {
    begun: usize,
    held: bool,
    /// The sync, counted from 1, that fails.
    failing: Option<usize>,
}

impl Syncs {
    fn open(self: &Arc<Self>, path: &Path) -> EmbeddedStore {
        let syncs = self.clone();
        let sync_data = Arc::new(move |file: &File| syncs.sync(file));
        let (disk, loaded) = disk::Disk::open_with(path, 0, sync_data).unwrap();
        EmbeddedStore::run(path, disk, loaded, Retention::default()).unwrap()
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        let mut state = self.state.lock();
        state.begun += 1;
        let number = state.begun;
        self.changed.notify_all();
        self.changed.wait_while(&mut state, |state| state.held);
        if state.failing == Some(number) {
            return Err(io::Error::other("this sync fails"));
        }
        drop(state);
        file.sync_data()
    }

    fn begun(&self) -> usize {
        self.state.lock().begun
    }

    fn hold(&self) {
        self.state.lock().held = true;
    }

    fn release(&self) {
        self.state.lock().held = false;
        self.changed.notify_all();
    }

    fn fail(&self, number: usize) {
        self.state.lock().failing = Some(number);
    }

    /// Waits until this many syncs have begun.
    fn wait(&self, number: usize) {
        tokio::task::block_in_place(|| {
            let mut state = self.state.lock();
            let late =
                self.changed
                    .wait_while_for(&mut state, |state| state.begun < number, DEADLINE);
            assert!(!late.timed_out(), "no sync begins");
        });
    }
}

type Pending<'a> = Pin<Box<dyn Future<Output = Result<TxnOutcome, StoreError>> + Send + 'a>>;

/// A transaction that the writer has been given and that has no answer yet.
async fn begin<'a>(store: &'a EmbeddedStore, key: &str) -> Pending<'a> {
    let writes = vec![Write::Put(key.to_owned(), Bytes::from_static(b"x"))];
    let transaction = store.txn(vec![Condition::Absent(key.to_owned())], writes);
    let mut transaction: Pending<'a> = Box::pin(tokio::task::unconstrained(transaction));
    assert!(futures::poll!(transaction.as_mut()).is_pending(), "{key}");
    transaction
}

/// A store that is in the middle of the sync of one transaction.
struct Held {
    store: EmbeddedStore,
    syncs: Arc<Syncs>,
    folder: tempfile::TempDir,
}

impl Held {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let syncs = Arc::new(Syncs::default());
        let store = syncs.open(&folder.path().join("db"));
        for n in 0..10 {
            put(&store, &format!("/before/{n}"), "x").await;
        }
        syncs.hold();
        Held {
            store,
            syncs,
            folder,
        }
    }

    async fn begin_first(&self) -> Pending<'_> {
        let begun = self.syncs.begun();
        let first = begin(&self.store, "/first").await;
        self.syncs.wait(begun + 1);
        first
    }

    async fn begin_group(&self, size: usize) -> Vec<Pending<'_>> {
        let mut group = Vec::new();
        for n in 0..size {
            group.push(begin(&self.store, &format!("/group/{n:04}")).await);
        }
        group
    }
}

async fn count(store: &EmbeddedStore, prefix: &str) -> u64 {
    store.count(prefix_range(prefix)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_and_readers_wait_for_the_sync() {
    let held = Held::new().await;
    let store = &held.store;
    let mut watch = store.watch(prefix_range("/"), None).await.unwrap();
    let before = store.revision().await.unwrap();
    let mut first = held.begin_first().await;

    assert!(futures::poll!(first.as_mut()).is_pending());
    assert!(store.get("/first").await.unwrap().is_none());
    assert_eq!(store.revision().await.unwrap(), before);
    assert!(futures::poll!(watch.next()).is_pending());

    held.syncs.release();
    let outcome = first.await.unwrap();
    assert_eq!(outcome, TxnOutcome::Committed(before + 1));
    assert!(store.get("/first").await.unwrap().is_some());
    let event = watch.next().await.unwrap().unwrap();
    assert_eq!(event.key(), Some("/first"));
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_that_wait_together_share_a_sync() {
    const GROUP: usize = 600;
    let held = Held::new().await;
    let first = held.begin_first().await;
    let group = held.begin_group(GROUP).await;
    let begun = held.syncs.begun();
    held.syncs.release();
    first.await.unwrap();
    let mut revisions = Vec::new();
    for transaction in group {
        match transaction.await.unwrap() {
            TxnOutcome::Committed(revision) => revisions.push(revision),
            conflict @ TxnOutcome::Conflict { .. } => panic!("{conflict:?}"),
        }
    }
    let syncs = held.syncs.begun() - begun;
    assert!((1..=4).contains(&syncs), "{syncs} syncs for {GROUP} writes");
    assert!(revisions.is_sorted_by(|a, b| a < b), "one revision each");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_that_fails_fails_its_whole_group_and_nothing_before_it() {
    const GROUP: usize = 50;
    let held = Held::new().await;
    let first = held.begin_first().await;
    let group = held.begin_group(GROUP).await;
    held.syncs.fail(held.syncs.begun() + 1);
    held.syncs.release();
    first.await.unwrap();
    for transaction in group {
        let error = transaction.await.unwrap_err();
        assert!(matches!(error, StoreError::Io { .. }), "{error}");
        assert!(error.to_string().contains("this sync fails"), "{error}");
    }
    let Held { store, folder, .. } = held;
    assert_eq!(count(&store, "/before/").await, 10, "reads go on");

    put(&store, "/after", "x").await;
    // As after a time-out: the group happened as a whole, or not at all.
    let happened = count(&store, "/group/").await;
    assert!(happened == 0 || happened == GROUP as u64, "{happened}");
    drop(store);
    let store = EmbeddedStore::open(folder.path().join("db")).unwrap();
    assert_eq!(count(&store, "/before/").await, 10);
    assert_eq!(count(&store, "/group/").await, happened);
    for key in ["/first", "/after"] {
        assert!(store.get(key).await.unwrap().is_some(), "{key} is lost");
    }
}
