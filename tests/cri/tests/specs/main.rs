//! The specs, one trial each, on one shim and as few VMs as they allow.

// Specs are tests: they panic when something is wrong.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../../../../shim/tests/support/mod.rs"]
mod support;

mod basics;
mod host_volumes;
mod images;
mod pod;
mod resources;
mod security;
mod streaming;
mod suite;

use libtest_mimic::{Arguments, Trial};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use suite::Suite;

/// What a spec does.
pub type Steps<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;
/// A spec: its name and what it does.
pub type Spec = (&'static str, for<'a> fn(&'a mut Suite) -> Steps<'a>);

/// Names a spec that is an async function.
#[macro_export]
macro_rules! specs {
    ($($name:literal => $steps:path,)*) => {
        pub const ALL: &[$crate::Spec] = &[$(($name, |suite| Box::pin($steps(suite)))),*];
    };
}

type Shared = Arc<Mutex<Option<Suite>>>;

fn trial(runtime: Arc<tokio::runtime::Runtime>, spec: Spec, shared: Shared) -> Trial {
    let (name, steps) = spec;
    // Only trials with this in their names are run where KVM is.
    Trial::test(format!("node_ {name}"), move || {
        let mut guard = shared
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        runtime.block_on(async {
            if guard.is_none() {
                *guard = Some(Suite::start().await);
            }
            if let Some(suite) = guard.as_mut() {
                steps(suite).await;
            }
        });
        Ok(())
    })
    .with_ignored_flag(true)
}

fn main() {
    let mut arguments = Arguments::from_args();
    // They share their pods.
    arguments.test_threads = Some(1);
    let runtime = Arc::new(tokio::runtime::Runtime::new().unwrap());
    let shared: Shared = Arc::default();
    let specs = [
        basics::ALL,
        pod::ALL,
        security::ALL,
        resources::ALL,
        host_volumes::ALL,
        images::ALL,
        streaming::ALL,
    ]
    .concat();
    let trials = specs
        .into_iter()
        .map(|spec| trial(runtime.clone(), spec, shared.clone()))
        .collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    let suite = shared
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
        .take();
    if let Some(suite) = suite {
        runtime.block_on(suite.finish());
    }
    conclusion.exit();
}
