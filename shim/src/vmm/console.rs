//! The guest's last words.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// How many lines an error shows.
const TAIL_LINES: usize = 15;
/// How much of the file is looked at, bytes.
const TAIL_BYTES: u64 = 16 << 10;
/// What a kernel's report of its own failure starts with, after the time.
const REPORTS: [&str; 8] = [
    "BUG: ",
    "Oops: ",
    "PANIC: ",
    "general protection fault",
    "invalid opcode: ",
    "divide error: ",
    "traps: PANIC",
    "Kernel panic - not syncing: ",
];
/// Longest part of a line that is shown, characters.
const LINE_CHARS: usize = 200;
/// How the agent names its phases on the console.
const PHASE_MARK: &str = "hull-agent: phase=";

/// The last lines of a console file without control characters; empty if there are none. Where
/// they hold a kernel's report of its own failure, the lines from its start: what follows it
/// is registers and stacks.
pub fn tail(path: &Path) -> Vec<String> {
    let text = last_bytes(path, TAIL_BYTES);
    let lines: Vec<String> = text
        .lines()
        .map(|line| {
            line.chars()
                .filter(|c| !c.is_control())
                .take(LINE_CHARS)
                .collect::<String>()
        })
        .filter(|line| !line.trim().is_empty())
        .collect();
    let last = lines.len().saturating_sub(TAIL_LINES);
    let first = lines.iter().position(|line| starts_a_report(line));
    let first = first.map_or(last, |report| report.min(last));
    lines.into_iter().skip(first).take(TAIL_LINES).collect()
}

/// "[    3.486675] BUG: …", with or without the time.
fn starts_a_report(line: &str) -> bool {
    let said = match line.trim_start().strip_prefix('[') {
        Some(timed) => timed.split_once("] ").map_or(timed, |(_, said)| said),
        None => line,
    };
    REPORTS.iter().any(|report| said.starts_with(report))
}

/// [`tail`] as the end of an error message, of at most `budget` bytes: the last lines count
/// most, of a kernel's report the first. A budget that holds no line gives nothing.
pub fn suffix(path: &Path, budget: usize) -> String {
    const LABEL: &str = "; last console lines:";
    const NOTHING: &str = "; the guest wrote nothing to its console";
    let lines = tail(path);
    if lines.is_empty() {
        return NOTHING.chars().take(budget).collect();
    }
    let mut room = budget.saturating_sub(LABEL.len());
    let mut fits = |line: &&String| {
        let fits = line.len() < room;
        room = room.saturating_sub(line.len() + 1);
        fits
    };
    let fitting: Vec<&str> = if starts_a_report(&lines[0]) {
        lines.iter().take_while(fits).map(String::as_str).collect()
    } else {
        let count = lines.iter().rev().take_while(|line| fits(line)).count();
        lines[lines.len() - count..]
            .iter()
            .map(String::as_str)
            .collect()
    };
    if fitting.is_empty() {
        return String::new();
    }
    format!("{LABEL}\n{}", fitting.join("\n"))
}

/// The last boot phase that the agent named on the console.
pub fn last_phase(path: &Path) -> Option<String> {
    let text = last_bytes(path, u64::from(u16::MAX));
    let line = text.lines().rev().find(|line| line.contains(PHASE_MARK))?;
    let (_, rest) = line.split_once(PHASE_MARK)?;
    Some(rest.split_whitespace().next()?.to_string())
}

fn last_bytes(path: &Path, count: u64) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let size = file.metadata()?.len();
        file.seek(SeekFrom::Start(size.saturating_sub(count)))?;
        let mut bytes = Vec::new();
        file.take(count).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    String::from_utf8_lossy(&read().unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_the_last_lines_without_control_characters() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut text: String = (0..100).map(|n| format!("line {n}\r\n")).collect();
        text.push_str("\x1b[31mKernel panic\x07\n\n");
        std::fs::write(file.path(), text).unwrap();
        let lines = tail(file.path());
        assert_eq!(lines.len(), TAIL_LINES);
        assert_eq!(lines.last().unwrap(), "[31mKernel panic");
    }

    #[test]
    fn shows_the_start_of_a_report_of_the_kernel() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let report = "[    3.486675] BUG: unable to handle page fault\n";
        let registers: String = (0..100).map(|n| format!("[    3.5] R{n}: 0\n")).collect();
        std::fs::write(file.path(), format!("boot\n{report}{registers}")).unwrap();
        let lines = tail(file.path());
        assert_eq!(lines.len(), TAIL_LINES);
        assert_eq!(lines[0], report.trim_end());
        let two = format!("; last console lines:\n{}\n[    3.5] R0: 0", lines[0]);
        assert_eq!(suffix(file.path(), two.len() + 1), two);
        // A short one comes with what was before it.
        std::fs::write(file.path(), format!("boot\n{report}last\n")).unwrap();
        assert_eq!(tail(file.path()), ["boot", report.trim_end(), "last"]);
    }

    #[test]
    fn as_many_of_the_last_lines_as_fit_are_shown() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "first\nsecond\nKernel panic\n").unwrap();
        let all = suffix(file.path(), 1000);
        assert!(all.ends_with("first\nsecond\nKernel panic"), "{all}");
        let two = suffix(file.path(), all.len() - 1);
        assert!(two.ends_with(":\nsecond\nKernel panic"), "{two}");
        assert_eq!(suffix(file.path(), 10), "");
        assert!(suffix(Path::new("/nonexistent"), 1000).contains("nothing"));
    }

    #[test]
    fn finds_the_last_phase() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(
            file.path(),
            "x\nhull-agent: phase=init\nhull-agent: phase=mounts\r\ny\n",
        )
        .unwrap();
        assert_eq!(last_phase(file.path()).as_deref(), Some("mounts"));
        assert_eq!(last_phase(Path::new("/nonexistent")), None);
    }
}
