//! Proportional set sizes: what a pod costs the host beside its guest's RAM.

use std::fs;
use std::path::Path;

use anyhow::Context;
use k8s_openapi::api::core::v1::Pod;
use kube::api::Api;
use serde_json::json;

use crate::Options;
use crate::cri::Runtime;
use crate::load::{client, make_namespace, remove_namespace};
use crate::peer;
use crate::pods;
use crate::table::{Report, Table};

/// Programs of the node that are not a pod's.
const DAEMONS: [&str; 4] = ["hull", "hull-shim", "hull-netd", "hull-node"];
/// Programs of one pod.
const POD_PROGRAMS: [&str; 2] = ["hull-vmm", "hull-fsd"];
/// Guest RAM is a mapping of a memfd, which is named so.
const GUEST_RAM_MAPPING: &str = "/memfd:";

/// One process.
pub struct Process {
    pub pid: u32,
    pub program: String,
}

/// Memory of a process, KiB.
#[derive(Clone, Copy, Default)]
pub struct Memory {
    pub own_kib: u64,
    pub guest_ram_kib: u64,
}

pub async fn measure(options: &Options) -> anyhow::Result<Report> {
    let mut runtime = Runtime::connect(&options.cri_socket).await?;
    let before: Vec<u32> = processes(&POD_PROGRAMS)
        .iter()
        .map(|process| process.pid)
        .collect();
    let id = runtime.run_sandbox("bench-memory").await?;
    let mut report = Report::new("Memory of a pod and of the daemons (PSS)");
    let mut table = Table::new(&[
        "process",
        "PSS without guest RAM, KiB",
        "guest RAM touched, KiB",
    ]);
    add_pod(&mut table, &before, "an idle pod");
    for process in processes(&DAEMONS) {
        if let Ok(memory) = memory_of(process.pid) {
            add(&mut table, &format!("{} (daemon)", process.program), memory);
        }
    }
    peer::add_memory(options, &mut table).await;
    let removed = runtime.remove_sandbox(&id).await;
    with_host_directory(options, &before, &mut table).await?;
    report.table(table);
    report.remark(
        "The idle pod is a sandbox without a container. Pages shared between processes count in parts (PSS), so \
         with more pods each costs less.",
    );
    removed.map(|()| report)
}

/// A pod that has a directory of the host, for which hull-fsd runs.
async fn with_host_directory(
    options: &Options,
    before: &[u32],
    table: &mut Table,
) -> anyhow::Result<()> {
    let client = client().await?;
    let namespace = make_namespace(&client, "memory").await?;
    let api: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    let name = "host-directory";
    let measured = pods::within(&api, name, options, async {
        let mut pod = pods::busybox(name, options)?;
        let spec = pod.spec.get_or_insert_default();
        let volume = json!([{"name": "host", "hostPath": {"path": "/usr"}}]);
        spec.volumes = Some(serde_json::from_value(volume)?);
        let mount = json!([{"name": "host", "mountPath": "/host", "readOnly": true}]);
        spec.containers[0].volume_mounts = Some(serde_json::from_value(mount)?);
        let mut started = pods::start(&api, &pod).await?;
        add_pod(table, before, "a pod with busybox and a host directory");
        started.end(&api).await
    })
    .await;
    remove_namespace(&client, &namespace).await;
    measured.map(|_| ())
}

/// The processes that were not there before, and their sum.
fn add_pod(table: &mut Table, before: &[u32], pod: &str) {
    let mut sum = Memory::default();
    for process in processes(&POD_PROGRAMS) {
        if before.contains(&process.pid) {
            continue;
        }
        if let Ok(memory) = memory_of(process.pid) {
            sum.own_kib += memory.own_kib;
            sum.guest_ram_kib += memory.guest_ram_kib;
            add(table, &format!("{} ({pod})", process.program), memory);
        }
    }
    add(table, &format!("**{pod}, all processes**"), sum);
}

fn add(table: &mut Table, name: &str, memory: Memory) {
    table.row([
        name.to_owned(),
        memory.own_kib.to_string(),
        memory.guest_ram_kib.to_string(),
    ]);
}

/// Running processes whose program has one of these names.
pub fn processes(programs: &[&str]) -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let mut found: Vec<Process> = entries
        .filter_map(|entry| {
            let pid: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let program = program_of(pid)?;
            programs
                .contains(&program.as_str())
                .then_some(Process { pid, program })
        })
        .collect();
    found.sort_by(|a, b| (&a.program, a.pid).cmp(&(&b.program, b.pid)));
    found
}

/// The program's file name; the thread name where the jail hides the file.
fn program_of(pid: u32) -> Option<String> {
    let from_link = fs::read_link(format!("/proc/{pid}/exe"))
        .ok()
        .and_then(|path| {
            let name = path.file_name()?.to_str()?;
            Some(name.trim_end_matches(" (deleted)").to_owned())
        });
    from_link.or_else(|| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        Some(name.trim().to_owned())
    })
}

pub fn memory_of(pid: u32) -> anyhow::Result<Memory> {
    let path = format!("/proc/{pid}/smaps");
    let text = fs::read_to_string(Path::new(&path)).with_context(|| format!("reading {path}"))?;
    Ok(sum_pss(&text))
}

/// Adds up the `Pss:` lines, each to what its mapping's head line names.
fn sum_pss(smaps: &str) -> Memory {
    let mut memory = Memory::default();
    let mut in_guest_ram = false;
    for line in smaps.lines() {
        let mut words = line.split_ascii_whitespace();
        match words.next() {
            Some("Pss:") => {
                let kib = words.next().and_then(|text| text.parse().ok()).unwrap_or(0);
                if in_guest_ram {
                    memory.guest_ram_kib += kib;
                } else {
                    memory.own_kib += kib;
                }
            }
            // Head lines begin with an address range, others with a name and a colon.
            Some(first) if !first.ends_with(':') => in_guest_ram = line.contains(GUEST_RAM_MAPPING),
            _ => {}
        }
    }
    memory
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guest_ram_is_counted_apart() {
        let smaps = "\
7f0000000000-7f0010000000 rw-s 00000000 00:01 5 /memfd:hull-guest-memory (deleted)
Rss:              120000 kB
Pss:              100000 kB
Pss_Dirty:         90000 kB
VmFlags: rd wr sh
55d000000000-55d000100000 r-xp 00000000 fe:00 9 /usr/bin/hull-vmm
Pss:                 800 kB
7ffc00000000-7ffc00021000 rw-p 00000000 00:00 0 [stack]
Pss:                  24 kB
";
        let memory = sum_pss(smaps);
        assert_eq!((memory.own_kib, memory.guest_ram_kib), (824, 100_000));
    }
}
