//! What the node as a whole uses: processors, memory, filesystems, process ids.

use std::path::Path;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use parking_lot::Mutex;

/// Between two readings that a rate is made from; closer ones repeat the last rate.
const RATE_WINDOW: Duration = Duration::from_secs(5);

/// A filesystem's room.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Filesystem {
    /// All of it, bytes.
    pub capacity_bytes: u64,
    /// What a user without privileges may still write, bytes.
    pub available_bytes: u64,
    /// All inodes; 0 where the filesystem does not count them.
    pub inodes: u64,
    /// Free inodes.
    pub inodes_free: u64,
}

impl Filesystem {
    /// The filesystem at or above `path`.
    pub fn of(path: &Path) -> Option<Self> {
        let existing = path.ancestors().find(|path| path.exists())?;
        let stat = nix::sys::statvfs::statvfs(existing).ok()?;
        let block = stat.fragment_size();
        Some(Filesystem {
            capacity_bytes: stat.blocks() * block,
            available_bytes: stat.blocks_available() * block,
            inodes: stat.files(),
            inodes_free: stat.files_free(),
        })
    }
}

/// A line of /proc/meminfo, bytes.
pub fn meminfo(field: &str) -> Option<i64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    meminfo_field(&text, field)
}

fn meminfo_field(text: &str, field: &str) -> Option<i64> {
    let line = text
        .lines()
        .find(|line| line.split(':').next() == Some(field))?;
    let kibibytes: i64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kibibytes * 1024)
}

/// Memory of the node, bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Memory {
    /// All of it.
    pub total: u64,
    /// What can be given out without swapping.
    pub available: u64,
    /// All that is not free, caches among it.
    pub used: u64,
    /// What cannot be taken back.
    pub working_set: u64,
}

impl Memory {
    /// Reads /proc/meminfo.
    pub fn read() -> Option<Self> {
        let text = std::fs::read_to_string("/proc/meminfo").ok()?;
        let field = |name| u64::try_from(meminfo_field(&text, name)?).ok();
        let (total, available) = (field("MemTotal")?, field("MemAvailable")?);
        Some(Memory {
            total,
            available,
            used: total.saturating_sub(field("MemFree")?),
            working_set: total.saturating_sub(available),
        })
    }
}

/// Process ids: how many there can be, and how many there are.
pub fn process_ids() -> Option<(u64, u64)> {
    let max = std::fs::read_to_string("/proc/sys/kernel/pid_max").ok()?;
    let load = std::fs::read_to_string("/proc/loadavg").ok()?;
    // The fourth field is "running/all" scheduling entities.
    let all = load.split_whitespace().nth(3)?.split('/').nth(1)?;
    Some((max.trim().parse().ok()?, all.parse().ok()?))
}

/// When the machine booted.
pub fn boot_time() -> Option<Timestamp> {
    let stat = std::fs::read_to_string("/proc/stat").ok()?;
    let line = stat.lines().find_map(|line| line.strip_prefix("btime "))?;
    Timestamp::from_second(line.trim().parse().ok()?).ok()
}

/// Processor time used since boot, nanoseconds over all processors.
fn cpu_time_ns() -> Option<u64> {
    let stat = std::fs::read_to_string("/proc/stat").ok()?;
    let ticks = busy_ticks(&stat)?;
    let per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok()??;
    let per_second = u64::try_from(per_second).ok().filter(|ticks| *ticks > 0)?;
    Some(ticks.saturating_mul(1_000_000_000 / per_second))
}

/// user, nice, system, irq, softirq and steal; idle and iowait are not use. Guests are in user.
fn busy_ticks(stat: &str) -> Option<u64> {
    let line = stat.lines().find(|line| line.starts_with("cpu "))?;
    let fields: Vec<u64> = line
        .split_whitespace()
        .skip(1)
        .map_while(|field| field.parse().ok())
        .collect();
    let busy = [0, 1, 2, 5, 6, 7].iter();
    Some(busy.filter_map(|index| fields.get(*index)).sum())
}

/// Processor use with its rate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CpuUsage {
    /// Since boot.
    pub used_ns: u64,
    /// Nanoseconds per second, over the last seconds; `None` before there are two readings.
    pub nano_cores: Option<u64>,
}

#[derive(Debug, Clone, Copy)]
struct Reading {
    at: Instant,
    used_ns: u64,
    rate: Option<u64>,
}

/// Makes rates of readings.
#[derive(Debug, Default)]
pub struct CpuMeter {
    last: Mutex<Option<Reading>>,
}

impl CpuMeter {
    /// Reads the processors' use.
    pub fn read(&self) -> Option<CpuUsage> {
        let used_ns = cpu_time_ns()?;
        Some(self.count(used_ns, Instant::now()))
    }

    fn count(&self, used_ns: u64, at: Instant) -> CpuUsage {
        let mut last = self.last.lock();
        let rate = match *last {
            Some(before) if at.duration_since(before.at) < RATE_WINDOW => before.rate,
            before => {
                let rate = before.and_then(|before| {
                    let used = u128::from(used_ns.saturating_sub(before.used_ns));
                    let elapsed = at.duration_since(before.at).as_nanos().max(1);
                    u64::try_from(used * 1_000_000_000 / elapsed).ok()
                });
                *last = Some(Reading { at, used_ns, rate });
                rate
            }
        };
        CpuUsage {
            used_ns,
            nano_cores: rate,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_made_over_seconds() {
        let meter = CpuMeter::default();
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        assert_eq!(meter.count(0, at(0)).nano_cores, None);
        assert_eq!(
            meter.count(5_000_000_000, at(10)).nano_cores,
            Some(500_000_000)
        );
        // Too soon for a new rate.
        assert_eq!(
            meter.count(9_000_000_000, at(11)).nano_cores,
            Some(500_000_000)
        );
        assert_eq!(
            meter.count(15_000_000_000, at(20)).nano_cores,
            Some(1_000_000_000)
        );
    }

    #[test]
    fn files_of_proc_are_read() {
        assert_eq!(busy_ticks("cpu  1 2 3 100 50 4 5 6 7 8\ncpu0 1"), Some(21));
        let text = "MemTotal:       2 kB\nMemAvailable:   1 kB\n";
        assert_eq!(meminfo_field(text, "MemTotal"), Some(2048));
        assert_eq!(meminfo_field(text, "Mem"), None);
        assert!(Memory::read().unwrap().total > 0);
        assert!(process_ids().unwrap().1 > 0);
        assert!(boot_time().unwrap() < Timestamp::now());
        assert!(CpuMeter::default().read().unwrap().used_ns > 0);
        assert!(
            Filesystem::of(Path::new("/nowhere/at/all"))
                .unwrap()
                .capacity_bytes
                > 0
        );
    }
}
