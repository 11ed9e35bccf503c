//! Placing a VMM in its pod's cgroup, where cgroup v2 is mounted and writable: what
//! the pod may use on the host is then what its node agent allows. Elsewhere nothing
//! is placed.

use std::io;
use std::path::{Component, Path, PathBuf};

/// The mount points at which cgroup v2 is looked for.
const MOUNT_POINTS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];

/// The sandbox's own cgroup below the pod's, if the client named one that can be used.
pub fn path(cgroup_parent: &str, id: &str) -> Option<PathBuf> {
    if cgroup_parent.is_empty() {
        return None;
    }
    let relative = Path::new(cgroup_parent.trim_start_matches('/'));
    if !relative
        .components()
        .all(|part| matches!(part, Component::Normal(_)))
    {
        return None;
    }
    Some(root()?.join(relative).join(name(id)))
}

/// The cgroup that a process of a sandbox is in, if it is the sandbox's own.
pub fn of_process(pid: u32, id: &str) -> Option<PathBuf> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let is_own = Path::new(path)
        .file_name()
        .is_some_and(|last| last == name(id).as_str());
    is_own.then(|| root().map(|root| root.join(path))).flatten()
}

fn name(id: &str) -> String {
    format!("hull-{id}")
}

fn root() -> Option<&'static Path> {
    MOUNT_POINTS
        .iter()
        .map(Path::new)
        .find(|mount| mount.join("cgroup.controllers").exists())
}

/// Makes the cgroup and moves `pid` there.
pub fn place(directory: &Path, pid: u32) -> io::Result<()> {
    std::fs::create_dir_all(directory)?;
    std::fs::write(directory.join("cgroup.procs"), pid.to_string())
}

/// Removes the cgroup; its processes must be gone. One that is not there is no error.
/// The pod's own cgroup belongs to the node agent and stays.
pub fn remove(directory: &Path) -> io::Result<()> {
    match std::fs::remove_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cgroup_of_a_process_is_found_if_it_is_the_sandboxs_own() {
        let Some(root) = root() else {
            return;
        };
        let id = format!("test{}", std::process::id());
        let directory = root.join(name(&id));
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        assert_eq!(of_process(child.id(), &id), None);
        place(&directory, child.id()).unwrap();
        assert_eq!(of_process(child.id(), &id), Some(directory.clone()));
        assert_eq!(of_process(child.id(), "other"), None);
        child.kill().unwrap();
        child.wait().unwrap();
        remove(&directory).unwrap();
    }

    #[test]
    fn parents_that_climb_are_not_used() {
        assert_eq!(path("", "x"), None);
        assert_eq!(path("/../etc", "x"), None);
        assert_eq!(path("/a/./../b", "x"), None);
    }
}
