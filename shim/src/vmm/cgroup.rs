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
    let root = MOUNT_POINTS
        .iter()
        .map(Path::new)
        .find(|mount| mount.join("cgroup.controllers").exists())?;
    Some(root.join(relative).join(format!("hull-{id}")))
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
    fn parents_that_climb_are_not_used() {
        assert_eq!(path("", "x"), None);
        assert_eq!(path("/../etc", "x"), None);
        assert_eq!(path("/a/./../b", "x"), None);
    }
}
