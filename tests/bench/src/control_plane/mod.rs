//! A control plane alone: `hull server` with each store, started for the purpose.
//!
//! ```text
//! fresh ─► memory, idle CPU ─► requests (apiserver.rs) ─► 10,000 watches ─► bindings (scheduler.rs)
//! fresh ─► 1,000 nodes, 10,000 pods ─► memory ─► 100,000 pods ─► restart ─► list of all
//! etcd  ─► its own puts ─► requests
//! ```

mod etcd;
mod population;
mod process;
mod watchers;

use std::time::Duration;

use anyhow::Context;

use crate::Options;
use crate::load::{Runs, make_namespace};
use crate::table::{Report, Table, milliseconds};
use crate::{apiserver, scheduler};
use process::{Place, Server};

/// Pods beside [`Options::fake_nodes`] nodes when the memory is looked at.
const PODS_FOR_MEMORY: usize = 10_000;

/// Measures everything and prints each table when it is there.
pub async fn measure(options: &Options) -> anyhow::Result<Vec<Report>> {
    let mut size = Table::new(&["what", "value"]);
    let mut reports = small(options, &mut size).await.context("a fresh server")?;
    large(options, &mut size).await.context("a full server")?;
    let mut report =
        Report::new("Size of the control plane (API server, store, scheduler, controllers)");
    report.table(size);
    reports.push(report);
    reports.push(on_etcd(options).await.context("a server on etcd")?);
    Ok(reports)
}

fn requests(store: &str, runs: &Runs, options: &Options) -> Report {
    let mut report = Report::new(&format!("{}, {store} store", apiserver::heading(options)));
    report.table(runs.table());
    report.remark(apiserver::remark(options));
    report
}

/// Idle, under load, and with many watches.
async fn small(options: &Options, size: &mut Table) -> anyhow::Result<Vec<Report>> {
    let place = Place::new(None)?;
    let server = place.start().await?;
    let mut add = |name: &str, value: String| size.row([name.to_owned(), value]);
    add("start to ready, empty store, ms", milliseconds(server.took));
    add("RSS when ready, MiB", mib(server.resident_kib()?));
    let before = server.cpu_time()?;
    let idle = Duration::from_secs(options.idle_seconds);
    tokio::time::sleep(idle).await;
    let used = server.cpu_time()?.saturating_sub(before).as_secs_f64();
    let percent = 100.0 * used / idle.as_secs_f64();
    add("idle CPU, % of one core", format!("{percent:.2}"));
    add("RSS when idle, MiB", mib(server.resident_kib()?));
    let runs = apiserver::runs(&server.client, options).await?;
    add(
        "RSS after the requests below, MiB",
        mib(server.resident_kib()?),
    );
    let events = watchers::measure(&server, options)
        .await
        .context("watches")?;
    let watchers = options.watchers;
    for (name, value) in [("p50", events.median()), ("p99", events.percentile(99))] {
        let name = format!("one change to {watchers} watches, {name}, ms");
        add(&name, milliseconds(value));
    }
    add(
        &format!("RSS with {watchers} watches, MiB"),
        mib(server.resident_kib()?),
    );
    let bindings = scheduler::measure_at(&server.client, options).await?;
    server.stop().await?;
    Ok(vec![requests("embedded", &runs, options), bindings])
}

/// Memory and start with many objects, and the list of all of them.
async fn large(options: &Options, size: &mut Table) -> anyhow::Result<()> {
    let place = Place::new(None)?;
    let server = place.start().await?;
    scheduler::make_nodes(&server.client, options)
        .await
        .context("making nodes")?;
    let namespace = make_namespace(&server.client, "pods").await?;
    let few = PODS_FOR_MEMORY.min(options.listed_pods);
    let nodes = options.fake_nodes;
    let mut add = |name: &str, value: String| size.row([name.to_owned(), value]);
    population::make_pods(&server.client, &namespace, (0, few), options).await?;
    let name = format!("RSS with {few} pods and {nodes} nodes, after creating them, MiB");
    add(&name, mib(server.resident_kib()?));
    let server = restart(&place, server).await?;
    server.settle().await?;
    let name = format!("RSS with {few} pods and {nodes} nodes, started with them, MiB");
    add(&name, mib(server.resident_kib()?));
    let all = options.listed_pods;
    population::make_pods(&server.client, &namespace, (few, all), options).await?;
    let server = restart(&place, server).await?;
    add(
        &format!("start to ready, {all} pods stored, ms"),
        milliseconds(server.took),
    );
    server.settle().await?;
    add(
        &format!("RSS with {all} pods, MiB"),
        mib(server.resident_kib()?),
    );
    let list = population::list_all(&server).await?;
    add(
        &format!("list of {all} pods, MB"),
        (list.bytes / 1_000_000).to_string(),
    );
    add("its first byte after, ms", milliseconds(list.first_byte));
    add("all of it after, ms", milliseconds(list.whole));
    add("its peak extra memory, MiB", mib(list.extra_kib));
    server.stop().await
}

async fn restart(place: &Place, server: Server) -> anyhow::Result<Server> {
    server.stop().await?;
    place.start().await
}

async fn on_etcd(options: &Options) -> anyhow::Result<Report> {
    let etcd = hull_test_etcd::EtcdProcess::single().await;
    let mut puts = Runs::default();
    for run in 0..options.runs {
        puts.add(
            "etcd's own put",
            etcd::puts(&etcd.endpoint(0), run, options).await?,
        );
    }
    let place = Place::new(Some(etcd.address()))?;
    let server = place.start().await?;
    let runs = apiserver::runs(&server.client, options).await?;
    server.stop().await?;
    let mut report = requests("etcd", &runs, options);
    report.table(puts.table());
    Ok(report)
}

fn mib(kib: u64) -> String {
    format!("{:.1}", kib as f64 / 1024.0)
}
