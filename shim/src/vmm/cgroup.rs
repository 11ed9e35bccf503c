//! Placing a VMM in its pod's cgroup, where cgroup v2 is mounted and writable: what
//! the pod may use on the host is then what its node agent allows. Elsewhere nothing
//! is placed. Cgroups above it that the node agent had not made are made and, with the
//! last sandbox in them, removed.

use std::io;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

use crate::timeouts::scaled;
use rustix::fs::{XattrFlags, getxattr, setxattr};

/// The mount points at which cgroup v2 is looked for.
const MOUNT_POINTS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];

/// The extended attribute of cgroups that were made here.
const MADE: &str = "trusted.hull.made";
/// How often a cgroup is made whose parent goes at the same time, with another sandbox.
const ATTEMPTS: u32 = 3;
/// How long the threads of killed processes may take to leave their cgroup.
const EMPTY_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest pause between two looks.
const MAX_PAUSE: Duration = Duration::from_millis(100);

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

/// Makes the cgroup, and those above it that are not there, and moves `pid` there.
pub fn place(directory: &Path, pid: u32) -> io::Result<()> {
    make(directory)?;
    std::fs::write(directory.join("cgroup.procs"), pid.to_string())
}

fn make(directory: &Path) -> io::Result<()> {
    let mut made = std::fs::create_dir(directory);
    for _ in 0..ATTEMPTS {
        match (&made, directory.parent()) {
            (Err(error), Some(parent)) if error.kind() == io::ErrorKind::NotFound => {
                make(parent)?;
                made = std::fs::create_dir(directory);
            }
            _ => break,
        }
    }
    match made {
        // What has no mark stays when the sandbox goes, and harms nobody.
        Ok(()) => setxattr(directory, MADE, b"", XattrFlags::CREATE).or(Ok(())),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

/// Removes the cgroup, whose processes must be gone, and those above it that were made for
/// it and are empty. One that is not there is no error.
pub fn remove(directory: &Path) -> io::Result<()> {
    match std::fs::remove_dir(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let above = directory.ancestors().skip(1);
    for parent in above.take_while(|parent| getxattr(*parent, MADE, &mut [0u8; 0]).is_ok()) {
        // Another sandbox is in it.
        if std::fs::remove_dir(parent).is_err() {
            break;
        }
    }
    Ok(())
}

/// [`remove`] of a cgroup whose processes were killed: the last of their threads may still be on
/// their way out.
pub async fn remove_once_empty(directory: &Path) -> io::Result<()> {
    let deadline = Instant::now() + scaled(EMPTY_TIMEOUT);
    let mut pause = Duration::from_millis(1);
    loop {
        match remove(directory) {
            Err(error)
                if error.kind() == io::ErrorKind::ResourceBusy && Instant::now() < deadline =>
            {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(MAX_PAUSE);
            }
            removed => return removed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_cgroup_whose_processes_are_still_ending_is_waited_for() {
        let Some(root) = root() else {
            return;
        };
        let directory = root.join(name(&format!("ending{}", std::process::id())));
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        place(&directory, child.id()).unwrap();
        let path = directory.clone();
        let removal = tokio::spawn(async move { remove_once_empty(&path).await });
        tokio::task::yield_now().await;
        assert!(!removal.is_finished() && directory.exists());
        child.kill().unwrap();
        child.wait().unwrap();
        removal.await.unwrap().unwrap();
        assert!(!directory.exists());
    }

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
    fn cgroups_that_were_made_for_sandboxes_go_with_the_last_one() {
        let Some(root) = root() else {
            return;
        };
        let own = |name: &str| root.join(format!("{name}{}", std::process::id()));
        let (ours, theirs) = (own("ours"), own("theirs"));
        std::fs::create_dir(&theirs).unwrap();
        let pods = [ours.join("pod"), theirs.join("pod")];
        let sandboxes = [pods[0].join("a"), pods[0].join("b"), pods[1].join("a")];
        for sandbox in &sandboxes {
            make(sandbox).unwrap();
        }
        remove(&sandboxes[0]).unwrap();
        assert!(sandboxes[1].exists() && !sandboxes[0].exists());
        remove(&sandboxes[1]).unwrap();
        assert!(!ours.exists());
        remove(&sandboxes[2]).unwrap();
        assert!(theirs.exists() && !pods[1].exists());
        remove(&sandboxes[2]).unwrap();
        std::fs::remove_dir(&theirs).unwrap();
    }

    #[test]
    fn parents_that_climb_are_not_used() {
        assert_eq!(path("", "x"), None);
        assert_eq!(path("/../etc", "x"), None);
        assert_eq!(path("/a/./../b", "x"), None);
    }
}
