//! What a cgroup uses, from the kernel's files (admin-guide/cgroup-v2). A counter whose
//! controller is absent is 0.

use hull_agent_protocol::v1::{CgroupDetail, Pressure, PressureLine};

use super::cgroup::{Cgroup, keyed};

/// Current counters of a cgroup with what is below it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Usage {
    /// CPU time.
    pub cpu_ns: u64,
    /// Memory with page cache.
    pub memory_bytes: u64,
    /// Memory without page cache that can be dropped at once.
    pub working_set_bytes: u64,
    /// Processes and threads.
    pub pids: u64,
    /// The rest.
    pub detail: CgroupDetail,
}

/// Reads the counters of `cgroup`.
pub fn of(cgroup: &Cgroup) -> Usage {
    let number = |name: &str| cgroup.read(name).trim().parse().unwrap_or(0);
    let memory = cgroup.read("memory.stat");
    let cpu = cgroup.read("cpu.stat");
    let microseconds = |key| keyed(&cpu, key).saturating_mul(1000);
    let memory_bytes: u64 = number("memory.current");
    let io = io_counters(&cgroup.read("io.stat"));
    let detail = CgroupDetail {
        cpu_user_ns: microseconds("user_usec"),
        cpu_system_ns: microseconds("system_usec"),
        cpu_periods: keyed(&cpu, "nr_periods"),
        cpu_throttled_periods: keyed(&cpu, "nr_throttled"),
        cpu_throttled_ns: microseconds("throttled_usec"),
        memory_rss_bytes: keyed(&memory, "anon"),
        memory_cache_bytes: keyed(&memory, "file"),
        memory_mapped_file_bytes: keyed(&memory, "file_mapped"),
        memory_kernel_bytes: keyed(&memory, "kernel"),
        memory_peak_bytes: number("memory.peak"),
        memory_limit_bytes: number("memory.max"),
        page_faults: keyed(&memory, "pgfault"),
        major_page_faults: keyed(&memory, "pgmajfault"),
        swap_bytes: number("memory.swap.current"),
        swap_limit_bytes: number("memory.swap.max"),
        oom_kills: cgroup.oom_kills(),
        io_read_bytes: io[0],
        io_written_bytes: io[1],
        io_reads: io[2],
        io_writes: io[3],
        processes: processes(cgroup),
        pids_limit: number("pids.max"),
        cpu_pressure: pressure(&cgroup.read("cpu.pressure")),
        memory_pressure: pressure(&cgroup.read("memory.pressure")),
        io_pressure: pressure(&cgroup.read("io.pressure")),
    };
    Usage {
        cpu_ns: microseconds("usage_usec"),
        memory_bytes,
        working_set_bytes: memory_bytes.saturating_sub(keyed(&memory, "inactive_file")),
        pids: number("pids.current"),
        detail,
    }
}

fn processes(cgroup: &Cgroup) -> u64 {
    cgroup.read("cgroup.procs").lines().count() as u64
}

/// Bytes read, bytes written, reads, writes, of all devices.
fn io_counters(text: &str) -> [u64; 4] {
    let mut sums = [0u64; 4];
    for pair in text.split_whitespace() {
        let Some((key, value)) = pair.split_once('=') else {
            continue;
        };
        let at = ["rbytes", "wbytes", "rios", "wios"]
            .iter()
            .position(|name| *name == key);
        if let (Some(at), Ok(value)) = (at, value.parse::<u64>()) {
            sums[at] = sums[at].saturating_add(value);
        }
    }
    sums
}

/// Reads a pressure file: a line `some avg10=… avg60=… avg300=… total=…` and one for `full`.
fn pressure(text: &str) -> Option<Pressure> {
    let line = |kind: &str| {
        let rest = text.lines().find_map(|line| line.strip_prefix(kind))?;
        let value = |key: &str| {
            let mut pairs = rest
                .split_whitespace()
                .filter_map(|pair| pair.split_once('='));
            pairs.find(|(name, _)| *name == key).map(|(_, value)| value)
        };
        let average = |key: &str| value(key).and_then(|text| text.parse().ok()).unwrap_or(0.0);
        Some(PressureLine {
            total_us: value("total").and_then(|text| text.parse().ok())?,
            avg10: average("avg10"),
            avg60: average("avg60"),
            avg300: average("avg300"),
        })
    };
    let some = line("some ");
    some.is_some().then(|| Pressure {
        full: line("full "),
        some,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_cgroup_uses_nothing() {
        assert_eq!(of(&Cgroup::new("/hull-test-absent/none")), Usage::default());
    }

    #[test]
    fn io_of_all_devices_is_summed() {
        let text = "254:0 rbytes=10 wbytes=1 rios=2 wios=3 dbytes=9 dios=9\n254:16 rbytes=5\n";
        assert_eq!(io_counters(text), [15, 1, 2, 3]);
    }

    #[test]
    fn pressure_is_read_with_and_without_the_full_line() {
        let text = "some avg10=1.50 avg60=0.25 avg300=0.00 total=77\n";
        let some = pressure(text).unwrap();
        assert_eq!(some.full, None);
        assert_eq!(some.some.unwrap().avg10, 1.5);
        let both = pressure(&format!("{text}full avg10=0.00 total=3\n")).unwrap();
        assert_eq!(
            (both.full.unwrap().total_us, both.some.unwrap().total_us),
            (3, 77)
        );
        assert_eq!(pressure(""), None);
    }
}
