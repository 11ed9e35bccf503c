//! New limits for a container that exists: the files of its cgroup are written again.

use std::io;

use oci_spec::runtime::LinuxResources;

use super::cgroup::Cgroup;

/// What cgroup files say for "no limit".
const NONE: &str = "max";
/// Scheduling period of a quota that names none, microseconds.
const DEFAULT_PERIOD_US: u64 = 100_000;
/// Bounds of cgroup v1 shares, which OCI uses, and of cgroup v2 weights.
const SHARES: [u64; 2] = [2, 262_144];
const WEIGHTS: [u64; 2] = [1, 10_000];

/// A limit that could not be set.
#[derive(Debug, thiserror::Error)]
pub enum LimitError {
    /// The kernel refused.
    #[error("cannot set {file} of the container's cgroup to {value:?}: {source}")]
    Write {
        /// The cgroup's file.
        file: String,
        /// What was to be written.
        value: String,
        /// Why it failed.
        source: io::Error,
    },
    /// A name that is no cgroup file.
    #[error("{0:?} is not the name of a cgroup file")]
    Name(String),
}

/// Sets what `resources` names; the rest stays.
///
/// # Errors
/// [`LimitError`] names the first limit that could not be set; earlier ones are set.
pub fn apply(cgroup: &Cgroup, resources: &LinuxResources) -> Result<(), LimitError> {
    for (file, value) in files(cgroup, resources)? {
        std::fs::write(cgroup.file(&file), &value).map_err(|source| LimitError::Write {
            file,
            value,
            source,
        })?;
    }
    Ok(())
}

/// The files to write, in order.
fn files(cgroup: &Cgroup, resources: &LinuxResources) -> Result<Vec<(String, String)>, LimitError> {
    let mut all: Vec<(String, String)> = Vec::new();
    let mut set = |file: &str, value: String| all.push((file.to_owned(), value));
    if let Some(cpu) = resources.cpu() {
        if let Some(shares) = cpu.shares().filter(|shares| *shares > 0) {
            set("cpu.weight", weight(shares).to_string());
        }
        if cpu.quota().is_some() || cpu.period().is_some() {
            set("cpu.max", cpu_max(cgroup, cpu.quota(), cpu.period()));
        }
        if let Some(cpus) = cpu.cpus().as_ref().filter(|cpus| !cpus.is_empty()) {
            set("cpuset.cpus", cpus.clone());
        }
    }
    if let Some(memory) = resources.memory() {
        let limit = memory.limit().filter(|limit| *limit != 0);
        // OCI counts memory and swap together.
        if let (Some(swap), Some(limit)) = (memory.swap().filter(|swap| *swap != 0), limit) {
            let value = if swap < 0 {
                swap
            } else {
                (swap - limit).max(0)
            };
            set("memory.swap.max", bytes(value));
        }
        if let Some(limit) = limit {
            set("memory.max", bytes(limit));
        }
    }
    if let Some(pids) = resources.pids() {
        set("pids.max", bytes(pids.limit()));
    }
    for (file, value) in resources.unified().iter().flatten() {
        if file.contains('/') || file.starts_with("cgroup.") || !file.contains('.') {
            return Err(LimitError::Name(file.clone()));
        }
        set(file, value.clone());
    }
    Ok(all)
}

/// Maps shares onto weights as container runtimes do, linearly.
fn weight(shares: u64) -> u64 {
    let shares = shares.clamp(SHARES[0], SHARES[1]);
    WEIGHTS[0] + (shares - SHARES[0]) * (WEIGHTS[1] - WEIGHTS[0]) / (SHARES[1] - SHARES[0])
}

/// `cpu.max`: what is not given stays as it is.
fn cpu_max(cgroup: &Cgroup, quota: Option<i64>, period: Option<u64>) -> String {
    let current = cgroup.read("cpu.max");
    let mut parts = current.split_whitespace();
    let current_quota = parts.next().unwrap_or(NONE).to_owned();
    let current_period = parts.next().and_then(|period| period.parse().ok());
    let quota = match quota {
        None | Some(0) => current_quota,
        Some(quota) => bytes(quota),
    };
    let period = period
        .filter(|period| *period > 0)
        .or(current_period)
        .unwrap_or(DEFAULT_PERIOD_US);
    format!("{quota} {period}")
}

/// Negative numbers mean no limit in OCI.
fn bytes(value: i64) -> String {
    if value < 0 {
        NONE.to_owned()
    } else {
        value.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn written(resources: serde_json::Value) -> Result<Vec<(String, String)>, LimitError> {
        let resources: LinuxResources = serde_json::from_value(resources).unwrap();
        files(&Cgroup::new("/hull-test-absent/none"), &resources)
    }

    #[test]
    fn limits_become_files_of_cgroup_v2() {
        let files = written(json!({
            "cpu": {"shares": 1024, "quota": 50000, "period": 100000, "cpus": "0"},
            "memory": {"limit": 1048576, "swap": 2097152},
            "pids": {"limit": 64},
            "unified": {"memory.low": "4096"},
        }))
        .unwrap();
        let expected = [
            ("cpu.weight", "39"),
            ("cpu.max", "50000 100000"),
            ("cpuset.cpus", "0"),
            ("memory.swap.max", "1048576"),
            ("memory.max", "1048576"),
            ("pids.max", "64"),
            ("memory.low", "4096"),
        ];
        assert_eq!(
            files,
            expected.map(|(file, value)| (file.to_owned(), value.to_owned()))
        );
    }

    #[test]
    fn what_is_left_out_stays_and_minus_one_means_none() {
        assert_eq!(written(json!({})).unwrap(), []);
        let none = written(json!({"cpu": {"quota": -1}, "memory": {"limit": -1}})).unwrap();
        assert_eq!(none[0].1, "max 100000");
        assert_eq!(none[1].1, "max");
        assert_eq!((weight(2), weight(262_144)), (1, 10_000));
    }

    #[test]
    fn unified_names_stay_in_the_cgroup() {
        for name in ["../memory.max", "cgroup.procs", "a/b.c", "memory"] {
            assert!(written(json!({"unified": {name: "1"}})).is_err(), "{name}");
        }
    }
}
