//! Many requests at once, each timed; and the namespaces they are made in.

use std::time::{Duration, Instant};

use anyhow::Context;
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, DeleteParams, PostParams};
use kube::{Client, ResourceExt};
use serde_json::json;

use crate::stats::{Samples, rate};
use crate::table::{Table, milliseconds};

/// Columns of [`Runs::table`].
const COLUMNS: [&str; 6] = [
    "what",
    "requests",
    "per second",
    "p50 ms",
    "p99 ms",
    "max ms",
];

/// What a number of requests came to.
pub struct Load {
    pub samples: Samples,
    pub elapsed: Duration,
}

/// The same measurements, taken several times.
#[derive(Default)]
pub struct Runs {
    rows: Vec<(String, Vec<Load>)>,
}

impl Runs {
    /// Adds one run's measurement to the row of this name.
    pub fn add(&mut self, name: &str, load: Load) {
        match self.rows.iter_mut().find(|(row, _)| row == name) {
            Some((_, loads)) => loads.push(load),
            None => self.rows.push((name.to_owned(), vec![load])),
        }
    }

    /// A table of [`COLUMNS`]: each figure is the median of the runs' figures.
    pub fn table(&self) -> Table {
        let mut table = Table::new(&COLUMNS);
        for (name, loads) in &self.rows {
            let over_runs = |figure: fn(&Load) -> Duration| {
                let mut figures = Samples::default();
                loads.iter().for_each(|load| figures.push(figure(load)));
                milliseconds(figures.median())
            };
            let requests = loads.first().map_or(0, |load| load.samples.len());
            let mut elapsed = Samples::default();
            loads.iter().for_each(|load| elapsed.push(load.elapsed));
            table.row([
                name.clone(),
                requests.to_string(),
                format!("{:.0}", rate(requests, elapsed.median())),
                over_runs(|load| load.samples.median()),
                over_runs(|load| load.samples.percentile(99)),
                over_runs(|load| load.samples.max()),
            ]);
        }
        table
    }
}

/// Makes `count` requests, `concurrency` at once. The first that fails ends it.
pub async fn drive<F, R>(count: usize, concurrency: usize, request: F) -> anyhow::Result<Load>
where
    F: Fn(usize) -> R,
    R: Future<Output = anyhow::Result<()>>,
{
    let begun = Instant::now();
    let timed = |number| {
        let request = request(number);
        async move {
            let begun = Instant::now();
            request.await?;
            anyhow::Ok(begun.elapsed())
        }
    };
    let samples = futures::stream::iter(0..count)
        .map(timed)
        .buffer_unordered(concurrency)
        .try_fold(Samples::default(), |mut samples, took| async move {
            samples.push(took);
            Ok(samples)
        })
        .await?;
    Ok(Load {
        samples,
        elapsed: begun.elapsed(),
    })
}

/// A client of the cluster that `KUBECONFIG` names.
pub async fn client() -> anyhow::Result<Client> {
    Client::try_default()
        .await
        .context("connecting to the cluster of KUBECONFIG")
}

/// Makes a namespace of a name that is not taken. One that was made before may still be on its
/// way out.
pub async fn make_namespace(client: &Client, purpose: &str) -> anyhow::Result<String> {
    let namespace: Namespace = serde_json::from_value(json!({
        "metadata": {"generateName": format!("hull-bench-{purpose}-")},
    }))?;
    let made = Api::all(client.clone())
        .create(&PostParams::default(), &namespace)
        .await;
    Ok(made.context("making a namespace")?.name_any())
}

/// Asks for the namespace's removal and does not wait for it.
pub async fn remove_namespace(client: &Client, name: &str) {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    if let Err(error) = namespaces.delete(name, &DeleteParams::default()).await {
        eprintln!("namespace {name} stays behind: {error}");
    }
}
