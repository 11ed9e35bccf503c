//! Prints what many services cost: the first write of the table, one change, memory. Works in a
//! network namespace of its own; needs root and `ip`.
//!
//! `cargo run --example services_at_scale -- [SERVICES] [ENDPOINTS PER SERVICE]`

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hull_netd::metrics::Metrics;
use hull_netd::nft::Nft;
use hull_netd::services::endpoints::Place;
use hull_netd::services::index::ServiceIndex;
use hull_netd::services::model::SERVICE_NAME_LABEL;
use hull_netd::services::ruleset;
use hull_netd::sync::Synced;
use serde_json::json;

type Failure = Box<dyn std::error::Error>;

const SERVICES: u32 = 10_000;
const ENDPOINTS: u32 = 5;
/// Changes that are timed.
const CHANGES: u32 = 20;

struct Namespace(String);

impl Namespace {
    fn make() -> Result<Self, Failure> {
        let name = format!("hull-bench-{}", std::process::id());
        let made = Command::new("ip").args(["netns", "add", &name]).status()?;
        if !made.success() {
            return Err("ip netns add failed".into());
        }
        Ok(Namespace(name))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

fn add_service(index: &mut ServiceIndex, number: u32) -> Result<(), Failure> {
    let ip = std::net::Ipv4Addr::from(0x0a2b_0000 + number + 20);
    index.apply_service(Arc::new(serde_json::from_value(json!({
        "metadata": {"namespace": "bench", "name": format!("s{number}")},
        "spec": {"clusterIP": ip, "clusterIPs": [ip], "ports": [{"port": 80, "protocol": "TCP"}]},
    }))?));
    Ok(())
}

fn set_endpoints(
    index: &mut ServiceIndex,
    number: u32,
    addresses: impl Iterator<Item = u32>,
) -> Result<(), Failure> {
    let endpoints: Vec<_> = addresses
        .map(
            |n| json!({"addresses": [std::net::Ipv4Addr::from(0x0a80_0000 + n)], "nodeName": "n2"}),
        )
        .collect();
    index.apply_slice(Arc::new(serde_json::from_value(json!({
        "metadata": {"namespace": "bench", "name": format!("s{number}-1"),
            "labels": {SERVICE_NAME_LABEL: format!("s{number}")}},
        "addressType": "IPv4", "ports": [{"port": 8080, "protocol": "TCP"}],
        "endpoints": endpoints,
    }))?));
    Ok(())
}

fn memory_kib(field: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with(field))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1).map(|text| text.parse::<u32>());
    let services = arguments.next().transpose()?.unwrap_or(SERVICES);
    let per_service = arguments.next().transpose()?.unwrap_or(ENDPOINTS);
    let namespace = Namespace::make()?;
    let nft = Nft::in_namespace(&namespace.0);
    let metrics = Metrics::default();
    let place = Place {
        node: "n1".into(),
        zone: None,
    };
    let mut index = ServiceIndex::new(place, Vec::new());
    let mut table = Synced::new(ruleset::table(), "inet", "services");
    for number in 0..services {
        add_service(&mut index, number)?;
        let first = number * per_service;
        set_endpoints(&mut index, number, first..first + per_service)?;
    }
    let started = Instant::now();
    index.update(&mut table.table);
    let computed = started.elapsed();
    table.sync(&nft, &metrics).await?;
    let written = started.elapsed();
    let mut times: Vec<Duration> = Vec::new();
    for change in 0..CHANGES {
        let number = change * (services / CHANGES).max(1);
        let first = number * per_service;
        // One endpoint is replaced, as when a pod of a rolling update is.
        let moved = first + per_service + 7_000_000;
        set_endpoints(
            &mut index,
            number,
            (first + 1..first + per_service).chain([moved]),
        )?;
        let started = Instant::now();
        index.update(&mut table.table);
        table.sync(&nft, &metrics).await?;
        times.push(started.elapsed());
    }
    times.sort();
    let milliseconds = |time: Duration| time.as_secs_f64() * 1000.0;
    println!(
        "| {services} services, {} endpoints | |",
        services * per_service
    );
    println!("|---|---:|");
    println!("| table computed, ms | {:.0} |", milliseconds(computed));
    println!(
        "| computed and written the first time, ms | {:.0} |",
        milliseconds(written)
    );
    println!(
        "| one endpoint replaced, median ms | {:.1} |",
        milliseconds(times[times.len() / 2])
    );
    println!(
        "| one endpoint replaced, slowest of {CHANGES}, ms | {:.1} |",
        milliseconds(times[times.len() - 1])
    );
    println!(
        "| elements in the kernel | {} |",
        table.table.element_count()
    );
    println!(
        "| resident memory, MiB | {} |",
        memory_kib("VmRSS:").unwrap_or(0) / 1024
    );
    println!(
        "| resident memory at its highest, MiB | {} |",
        memory_kib("VmHWM:").unwrap_or(0) / 1024
    );
    Ok(())
}
