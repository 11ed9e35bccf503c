//! What is left of pods on the node: compared before and after, it must be equal.

use std::{collections::BTreeSet, process::Command};

use anyhow::{Context, Result};

use crate::wait;

/// Names of everything that pods leave on a node while they run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Traces(BTreeSet<String>);

impl Traces {
    /// Looks now.
    pub fn now(state_dirs: &[&str]) -> Result<Traces> {
        let mut found = BTreeSet::new();
        for pid in std::fs::read_dir("/proc")
            .context("reading /proc")?
            .flatten()
        {
            let comm = std::fs::read_to_string(pid.path().join("comm")).unwrap_or_default();
            if comm.trim() == "hull-vmm" {
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
            for sub in ["sandboxes", "netns"] {
                let Ok(entries) = std::fs::read_dir(format!("{dir}/{sub}")) else {
                    continue;
                };
                for entry in entries.flatten() {
                    found.insert(format!("file {}", entry.path().display()));
                }
            }
        }
        Ok(Traces(found))
    }

    /// Waits until nothing is there that is not in `self`.
    pub fn wait_for_no_more(&self, state_dirs: &[&str]) -> Result<()> {
        wait::until("everything of the pod to be gone from the node", 15, || {
            let now = Traces::now(state_dirs)?;
            let extra: Vec<_> = now.0.difference(&self.0).cloned().collect();
            Ok(if extra.is_empty() {
                Ok(())
            } else {
                Err(extra.join(", "))
            })
        })
    }
}
