//! What guest RAM is made of on the host, and how it comes back.

use std::fs;
use std::os::unix::fs::MetadataExt;

use hull_vmm_client::config::MemoryPages;
use hull_vmm_client::exit::ExitReason;

use crate::support::{Machine, Options, disk_file};
use crate::{options, until_metric};

const TRANSPARENT: &str = "/sys/kernel/mm/transparent_hugepage/shmem_enabled";
const POOL: &str = "/proc/sys/vm/nr_hugepages";
/// More than the guest's 256 MiB in pages of 2 MiB.
const POOL_PAGES: u64 = 160;

/// A setting of the machine that is put back in the end.
struct Setting {
    path: &'static str,
    before: String,
}

impl Setting {
    fn change(path: &'static str, value: &str) -> Self {
        let text = fs::read_to_string(path).unwrap();
        // Of a choice the brackets tell which.
        let before = match text.split_once('[') {
            Some((_, rest)) => rest.split(']').next().unwrap().to_owned(),
            None => text.trim().to_owned(),
        };
        fs::write(path, value).unwrap();
        Self { path, before }
    }
}

impl Drop for Setting {
    fn drop(&mut self) {
        fs::write(self.path, &self.before).unwrap();
    }
}

/// A field of the mapping of guest RAM, KiB (proc_pid_smaps(5)).
fn of_guest_memory(machine: &Machine, field: &str) -> u64 {
    let smaps = fs::read_to_string(format!("/proc/{}/smaps", machine.child.id())).unwrap();
    let mapping = smaps
        .split_once("memfd:hull-guest-memory")
        .unwrap_or_else(|| panic!("no guest memory in {smaps}"))
        .1;
    let line = mapping.lines().find_map(|line| line.strip_prefix(field));
    let value = line.unwrap().trim_start_matches(':').trim_end_matches("kB");
    value.trim().parse().unwrap()
}

fn started(memory_pages: MemoryPages) -> Machine {
    let mut machine = Machine::start(Options {
        memory_pages,
        ..options("wait")
    });
    machine.expect("MARK waiting");
    machine
}

#[tokio::test]
#[ignore = "needs KVM: run in the testnode (make test does)"]
async fn node_guest_memory_comes_in_the_pages_that_were_asked_for() {
    let _advise = Setting::change(TRANSPARENT, "advise");
    for (pages, huge) in [
        (MemoryPages::Normal, false),
        (MemoryPages::Transparent, true),
    ] {
        let mut machine = started(pages);
        let mapped = of_guest_memory(&machine, "ShmemPmdMapped");
        assert_eq!(mapped > 0, huge, "{pages:?}: {mapped} KiB");
        machine.control.stop().await.unwrap();
        machine.end();
    }
    let pool = Setting::change(POOL, &POOL_PAGES.to_string());
    let mut machine = started(MemoryPages::Hugetlb);
    assert_eq!(of_guest_memory(&machine, "KernelPageSize"), 2048);
    machine.control.stop().await.unwrap();
    machine.end();
    drop(pool);
    let mut machine = Machine::start(Options {
        memory_pages: MemoryPages::Hugetlb,
        ..options("wait")
    });
    let (record, _) = machine.end();
    assert_eq!(record.reason, ExitReason::VmmError, "{record:?}");
    assert!(record.message.contains("vm.nr_hugepages"), "{record:?}");
}

#[tokio::test]
#[ignore = "needs KVM: run in the testnode (make test does)"]
async fn node_memory_and_disk_space_that_the_guest_frees_go_back_to_the_host() {
    const MIB: u64 = 1 << 20;
    let scratch = disk_file(&std::env::temp_dir(), &vec![1; 4 << 20]);
    let file = scratch.try_clone().unwrap();
    scratch.sync_all().unwrap();
    assert!(file.metadata().unwrap().blocks() > 0);
    let mut machine = Machine::start(Options {
        disks: vec![("scratch", Some(scratch), false)],
        ..options("memory")
    });
    machine.expect("MARK discarded");
    assert_eq!(file.metadata().unwrap().blocks(), 0);
    let reported = "hull_vmm_balloon_reported_bytes_total";
    until_metric(&machine, reported, |bytes| bytes >= 64 * MIB).await;
    machine.control.resize_balloon(64).await.unwrap();
    until_metric(&machine, "hull_vmm_balloon_bytes", |bytes| {
        bytes == 64 * MIB
    })
    .await;
    machine.control.resize_balloon(0).await.unwrap();
    until_metric(&machine, "hull_vmm_balloon_bytes", |bytes| bytes == 0).await;
    machine.control.stop().await.unwrap();
    machine.end();
}
