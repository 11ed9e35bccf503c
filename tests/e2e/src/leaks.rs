//! What is left of pods on the node: compared before and after, it must be equal.

use std::{collections::BTreeSet, net::Ipv4Addr, path::Path, process::Command};

use anyhow::{Context, Result};

use crate::wait;

/// Below a data or run directory: what belongs to sandboxes.
const STATE: [&str; 6] = [
    "sandboxes",
    "netns",
    "shim/sandboxes",
    "shim/scratch",
    "shim/cni",
    "shim/images/spool",
];
/// Where there is a directory for each pod, sandbox or not: its name counts, its content may
/// change.
const PER_POD: [&str; 3] = [
    "/var/log/pods",
    "/var/lib/hull-e2e/data/node/pods",
    "/var/lib/hull-e2e-second/data/node/pods",
];
/// Where there is a file for each address.
const PER_ADDRESS: &str = "/var/lib/hull-e2e/ipam/e2e";
/// What host-local keeps beside the addresses.
const NO_ADDRESS: [&str; 2] = ["lock", "last_reserved_ip"];
/// How the addresses of all nodes' pods begin.
const POD_ADDRESSES: &str = "10.42.";
/// Where pods' cgroups are.
const POD_CGROUPS: [&str; 2] = ["/sys/fs/cgroup/hull", "/sys/fs/cgroup/unified/hull"];

/// Names of everything that pods leave on a node while they run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Traces(BTreeSet<String>);

/// What scratch disks are copied from: made for the first pod, kept for the next.
const TEMPLATE: &str = "template-";

/// Everything below the directory that is not itself a directory.
fn add_files(dir: &Path, found: &mut BTreeSet<String>) {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    for path in entries.map(|entry| entry.path()) {
        if path.is_dir() && !path.is_symlink() {
            add_files(&path, found);
        } else if !entry_name(&path).starts_with(TEMPLATE) {
            found.insert(format!("file {}", path.display()));
        }
    }
}

fn entry_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// What a pod has before its sandbox, and between two.
fn is_of_pod(trace: &str) -> bool {
    let entry = trace.strip_prefix("entry ");
    entry.is_some_and(|path| PER_POD.iter().any(|dir| path.starts_with(dir)))
}

/// The names of what is in directories with an entry for each pod or address.
fn add_entries(found: &mut BTreeSet<String>) {
    for dir in PER_POD.into_iter().chain([PER_ADDRESS]) {
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        for entry in entries {
            let name = entry_name(&entry.path());
            if !NO_ADDRESS.iter().any(|other| name.starts_with(other)) {
                found.insert(format!("entry {dir}/{name}"));
            }
        }
    }
}

/// Addresses of pods that the packet filter names.
fn add_filtered(found: &mut BTreeSet<String>) -> Result<()> {
    let ruleset = Command::new("nft")
        .args(["--numeric", "list", "ruleset"])
        .output()
        .context("running nft")?;
    let text = String::from_utf8_lossy(&ruleset.stdout).into_owned();
    let words = text.split(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '/')));
    for word in words.filter(|word| word.starts_with(POD_ADDRESSES)) {
        // The bridge's own address is the node's; a network has a length.
        if word.parse::<Ipv4Addr>().is_ok() && !word.ends_with(".0.1") {
            found.insert(format!("packet filter {word}"));
        }
    }
    Ok(())
}

impl Traces {
    /// Looks now.
    pub fn now(state_dirs: &[&str]) -> Result<Traces> {
        let mut found = BTreeSet::new();
        for pid in std::fs::read_dir("/proc")
            .context("reading /proc")?
            .flatten()
        {
            let comm = std::fs::read_to_string(pid.path().join("comm")).unwrap_or_default();
            if ["hull-vmm", "hull-fsd"].contains(&comm.trim()) {
                found.insert(format!("process {}", pid.file_name().to_string_lossy()));
            }
        }
        let links = Command::new("ip")
            .args(["-o", "link"])
            .output()
            .context("running ip")?;
        for line in String::from_utf8_lossy(&links.stdout).lines() {
            let name = line.split(": ").nth(1).unwrap_or("");
            if name.starts_with("veth") || name.starts_with("tap") {
                found.insert(format!("link {}", name.split('@').next().unwrap_or(name)));
            }
        }
        let mounts =
            std::fs::read_to_string("/proc/self/mountinfo").context("reading mountinfo")?;
        for line in mounts.lines() {
            let target = line.split(' ').nth(4).unwrap_or("");
            if state_dirs
                .iter()
                .any(|dir| target.starts_with(&format!("{dir}/")))
            {
                found.insert(format!("mount {target}"));
            }
        }
        for dir in state_dirs {
            for sub in STATE {
                add_files(&Path::new(dir).join(sub), &mut found);
            }
        }
        add_entries(&mut found);
        add_filtered(&mut found)?;
        for pods in POD_CGROUPS {
            let entries = std::fs::read_dir(pods).into_iter().flatten().flatten();
            let cgroups = entries.filter(|entry| entry.path().is_dir());
            found.extend(cgroups.map(|entry| format!("cgroup {}", entry.path().display())));
        }
        Ok(Traces(found))
    }

    /// Waits until nothing is there that is not in `self`.
    pub fn wait_for_no_more(&self, state_dirs: &[&str]) -> Result<()> {
        self.wait(state_dirs, |_| true)
    }

    /// The same for sandboxes alone: their pod is still there.
    pub fn wait_for_no_more_sandboxes(&self, state_dirs: &[&str]) -> Result<()> {
        self.wait(state_dirs, |trace| !is_of_pod(trace))
    }

    fn wait(&self, state_dirs: &[&str], counts: fn(&str) -> bool) -> Result<()> {
        wait::until("everything of the pod to be gone from the node", 15, || {
            let now = Traces::now(state_dirs)?;
            let extra = now.0.difference(&self.0).filter(|trace| counts(trace));
            let extra: Vec<_> = extra.cloned().collect();
            Ok(if extra.is_empty() {
                Ok(())
            } else {
                Err(extra.join(", "))
            })
        })
    }
}
