//! Finding the processes of sandboxes in /proc.

use std::path::Path;

/// Environment variable of every VMM process: its sandbox's directory. It marks the
/// processes of one shim, since the directory is below that shim's run_dir.
pub const DIRECTORY_VARIABLE: &str = "HULL_SANDBOX_DIR";

/// Start time in clock ticks since boot, or `None` if there is no such process, or
/// only what is left of it (a zombie).
pub fn start_ticks(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold spaces and parentheses: fields begin after the last one.
    let (_, fields) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    if matches!(fields.first(), Some(&"Z" | &"X")) {
        return None;
    }
    // Field 22 of the line, of which two are before the parenthesis.
    fields.get(19)?.parse().ok()
}

/// Live processes below `sandboxes_dir`, with their sandbox's directory.
pub fn sandbox_processes(sandboxes_dir: &Path) -> Vec<(u32, std::path::PathBuf)> {
    let prefix = format!("{DIRECTORY_VARIABLE}={}/", sandboxes_dir.display());
    let mut found = Vec::new();
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return found;
    };
    for entry in entries.flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<u32>().ok())
        else {
            continue;
        };
        let Ok(environment) = std::fs::read(entry.path().join("environ")) else {
            continue;
        };
        let directory = environment
            .split(|byte| *byte == 0)
            .filter_map(|variable| std::str::from_utf8(variable).ok())
            .find(|variable| variable.starts_with(&prefix))
            .and_then(|variable| variable.split_once('='))
            .map(|(_, directory)| directory.into());
        if let Some(directory) = directory
            && start_ticks(pid).is_some()
        {
            found.push((pid, directory));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_processes_by_their_mark_and_not_those_of_other_directories() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .env(DIRECTORY_VARIABLE, "/run/test-a/sandboxes/x1")
            .spawn()
            .unwrap();
        let pid = child.id();
        let ours = |root: &str| {
            sandbox_processes(Path::new(root))
                .into_iter()
                .any(|(found, _)| found == pid)
        };
        // Between fork and exec the child still has its parent's environment.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while !ours("/run/test-a/sandboxes") && std::time::Instant::now() < deadline {
            std::thread::yield_now();
        }
        assert!(ours("/run/test-a/sandboxes"));
        assert!(!ours("/run/test-b/sandboxes"));
        assert!(start_ticks(pid).is_some());
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(start_ticks(pid), None);
    }
}
