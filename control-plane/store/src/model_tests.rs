//! Random operations, crashes among them, on each implementation beside the model.

use std::{future::Future, sync::Arc};

use hull_test_etcd::EtcdProcess;
use proptest::{
    collection::vec,
    prelude::*,
    test_runner::{Config, TestCaseError, TestRunner},
};

use crate::{
    Store, Write,
    conformance::model::{Expect, KEYS, Model, Operation},
    embedded::EmbeddedStore,
    etcd::{EtcdStore, tests::store_in},
    prefix_range,
};

/// Operations in one run.
const OPERATIONS: usize = 60;

/// Tries to make a failing run simpler.
const MAX_SHRINK: u32 = 40;

fn operation(crashes: u32) -> impl Strategy<Value = Operation> {
    let key = 0..KEYS;
    let expect = prop_oneof![
        2 => Just(Expect::Absent),
        4 => Just(Expect::Current),
        1 => Just(Expect::Stale),
    ];
    let conditions = vec((key.clone(), expect), 0..3);
    let writes = vec(
        (key.clone(), proptest::option::weighted(0.7, any::<u8>())),
        0..4,
    );
    prop_oneof![
        60 => (conditions, writes).prop_map(|(c, w)| Operation::Txn(c, w)),
        20 => (key.clone(), 0..=KEYS, 0..12u64, 0..5usize)
            .prop_map(|(from, to, ago, limit)| Operation::List { from, to, ago, limit }),
        10 => (key, 0..=KEYS, 0..12u64)
            .prop_map(|(from, to, ago)| Operation::Watch { from, to, ago }),
        4 => (0..12u64).prop_map(Operation::Compact),
        crashes => Just(Operation::Crash),
    ]
}

fn run<F>(cases: u32, crashes: u32, case: impl Fn(Vec<Operation>) -> F)
where
    F: Future<Output = ()>,
{
    let config = Config {
        cases,
        failure_persistence: None,
        max_shrink_iters: MAX_SHRINK,
        ..Config::default()
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    TestRunner::new(config)
        .run(&vec(operation(crashes), OPERATIONS), |operations| {
            let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                runtime.block_on(case(operations));
            }));
            checked.map_err(|_| TestCaseError::fail("store and model differ"))
        })
        .unwrap();
}

#[test]
fn the_embedded_store_does_what_the_model_does() {
    run(60, 4, |operations| async move {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("db");
        let open = || -> Arc<dyn Store> { Arc::new(EmbeddedStore::open(&path).unwrap()) };
        let mut store = open();
        let mut model = Model::new(0);
        for operation in operations {
            if matches!(operation, Operation::Crash) {
                drop(store);
                store = open();
                model.forget_history();
            }
            model.check(&store, operation).await;
        }
    });
}

/// A store in etcd as if it were new: without keys of the model and without history.
async fn emptied(store: &EtcdStore) -> Model {
    let page = store.list(prefix_range("/model/"), None, 0).await.unwrap();
    let deletions = page.items.into_iter().map(|item| Write::Delete(item.key));
    store.txn(Vec::new(), deletions.collect()).await.unwrap();
    let revision = store.revision().await.unwrap();
    store.compact(revision).await.unwrap();
    Model::new(revision)
}

#[test]
fn the_store_in_etcd_does_what_the_model_does() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let etcd = tokio::sync::Mutex::new(runtime.block_on(EtcdProcess::single()));
    run(15, 1, |operations| {
        let etcd = &etcd;
        async move {
            let mut etcd = etcd.lock().await;
            let store = store_in(&etcd).await;
            let mut model = emptied(&store).await;
            let shared: Arc<dyn Store> = Arc::new(store);
            for operation in operations {
                if matches!(operation, Operation::Crash) {
                    etcd.kill(0);
                    etcd.restart(0).await;
                }
                model.check(&shared, operation).await;
            }
        }
    });
}
