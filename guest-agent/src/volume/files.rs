//! Files that are replaced as a whole. A reader sees all of the old or all of the new
//! content, since the swap is the rename of one symlink:
//!
//! ```text
//! VOLUME/..1732252800000000000/   this content
//! VOLUME/..data      -> ..1732252800000000000
//! VOLUME/config.yaml -> ..data/config.yaml
//! VOLUME/certs       -> ..data/certs
//! ```

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

use hull_agent_protocol::v1::VolumeFile;
use rustix::fs::{
    AtFlags, Mode, OFlags, fchmod, mkdirat, openat, readlinkat, renameat, symlinkat, unlinkat,
};

use super::VolumeError;
use crate::reaper::now_ns;
use crate::resolve;

/// The symlink to the current content.
const DATA: &str = "..data";
/// Its successor, before it takes its place.
const NEXT: &str = "..next";
/// Mode of a file that names none.
const FILE_MODE: u32 = 0o644;

/// Checks that every path is inside the volume and none is one of this module's own.
pub fn check(files: &[VolumeFile]) -> Result<(), VolumeError> {
    let bad = |path: &str| !resolve::is_inside(path) || path.starts_with("..");
    match files.iter().find(|file| bad(&file.path)) {
        Some(file) => Err(VolumeError::Path(file.path.clone())),
        None => Ok(()),
    }
}

/// Makes `files` the content of `volume`.
pub fn replace(volume: &Path, files: &[VolumeFile], mode: u32) -> io::Result<()> {
    let root = resolve::root(volume)?;
    let generation = format!("..{}", now_ns());
    mkdirat(&root, &generation, Mode::from_raw_mode(0o700))?;
    let written = write_files(&root, &generation, files, mode).and_then(|()| {
        relink(&root, &generation, DATA)?;
        link_names(&root, files)
    });
    if written.is_err() && link(&root, DATA)?.as_deref() != Some(generation.as_str()) {
        std::fs::remove_dir_all(volume.join(&generation))?;
    }
    written?;
    remove_stale(volume, &root, files)
}

fn write_files(
    root: &OwnedFd,
    generation: &str,
    files: &[VolumeFile],
    mode: u32,
) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = openat(root, generation, flags, Mode::empty())?;
    for file in files {
        let path = Path::new(&file.path);
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            continue;
        };
        let parent = resolve::make_directories(&directory, parent, mode)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let fd = openat(
            &parent,
            name,
            flags | OFlags::CLOEXEC,
            Mode::from_raw_mode(0o600),
        )?;
        let mut out = File::from(fd);
        out.write_all(&file.content)?;
        let mode = if file.mode == 0 {
            FILE_MODE
        } else {
            file.mode & 0o7777
        };
        // Changing the owner clears set-id bits: the mode comes after it.
        std::os::unix::fs::fchown(&out, Some(file.uid), Some(file.gid))?;
        fchmod(&out, Mode::from_raw_mode(mode))?;
    }
    fchmod(&directory, Mode::from_raw_mode(mode))?;
    Ok(())
}

/// The first component of each path, which is what a reader sees.
fn names(files: &[VolumeFile]) -> BTreeSet<&str> {
    let first = |file: &'_ VolumeFile| file.path.find('/').unwrap_or(file.path.len());
    files.iter().map(|file| &file.path[..first(file)]).collect()
}

fn link_names(root: &OwnedFd, files: &[VolumeFile]) -> io::Result<()> {
    for name in names(files) {
        let target = format!("{DATA}/{name}");
        if link(root, name)?.as_deref() != Some(target.as_str()) {
            relink(root, &target, name)?;
        }
    }
    Ok(())
}

/// Makes `name` a symlink to `target` in one step, whatever it was.
fn relink(root: &OwnedFd, target: &str, name: &str) -> io::Result<()> {
    match unlinkat(root, NEXT, AtFlags::empty()) {
        Err(error) if error != rustix::io::Errno::NOENT => return Err(error.into()),
        _ => {}
    }
    symlinkat(target, root, NEXT)?;
    Ok(renameat(root, NEXT, root, name)?)
}

/// What the symlink `name` says; `None` if it is not there or no symlink.
fn link(root: &OwnedFd, name: &str) -> io::Result<Option<String>> {
    match readlinkat(root, name, Vec::new()) {
        Ok(target) => Ok(Some(target.to_string_lossy().into_owned())),
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::INVAL) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Removes former generations and the links to names that are no more.
fn remove_stale(volume: &Path, root: &OwnedFd, files: &[VolumeFile]) -> io::Result<()> {
    let names = names(files);
    let current = link(root, DATA)?;
    for entry in std::fs::read_dir(volume)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        if name == DATA || current.as_ref() == Some(&name) || names.contains(name.as_str()) {
            continue;
        }
        let ours = link(root, &name)?.is_some_and(|to| to == format!("{DATA}/{name}"));
        if ours {
            unlinkat(root, &name, AtFlags::empty())?;
        } else if name.starts_with("..") && entry.file_type()?.is_dir() {
            std::fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    fn file(path: &str, content: &str) -> VolumeFile {
        VolumeFile {
            path: path.into(),
            content: content.into(),
            mode: 0o640,
            gid: 1234,
            ..Default::default()
        }
    }

    fn entries(volume: &Path) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(volume)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| !name.starts_with(".."))
            .collect();
        names.sort();
        names
    }

    #[test]
    fn second_content_replaces_the_first_whole() {
        let volume = tempfile::tempdir().unwrap();
        let volume = volume.path();
        replace(volume, &[file("a", "1"), file("dir/b", "1")], 0o755).unwrap();
        let before = std::fs::read_link(volume.join(DATA)).unwrap();
        replace(volume, &[file("dir/c", "2"), file("d", "2")], 0o755).unwrap();
        assert_eq!(entries(volume), ["d", "dir"]);
        assert_eq!(std::fs::read_to_string(volume.join("dir/c")).unwrap(), "2");
        assert!(!volume.join("dir/b").exists() && !volume.join(before).exists());
        let metadata = std::fs::metadata(volume.join("d")).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o7777, 0o640);
        assert_eq!(metadata.gid(), 1234);
    }

    #[test]
    fn failed_replacement_leaves_the_former_content() {
        let volume = tempfile::tempdir().unwrap();
        let volume = volume.path();
        replace(volume, &[file("a", "1")], 0o755).unwrap();
        assert!(replace(volume, &[file("a", "2"), file("a/b", "2")], 0o755).is_err());
        assert_eq!(std::fs::read_to_string(volume.join("a")).unwrap(), "1");
        assert_eq!(std::fs::read_dir(volume).unwrap().count(), 3);
    }

    #[test]
    fn readers_see_one_generation_only() {
        let volume = tempfile::tempdir().unwrap();
        let path = volume.path().to_owned();
        let generation = |n: u32| [file("x", &n.to_string()), file("y", &n.to_string())];
        replace(&path, &generation(0), 0o755).unwrap();
        let writer = {
            let path = path.clone();
            std::thread::spawn(move || {
                (1..200).for_each(|n| replace(&path, &generation(n), 0o755).unwrap())
            })
        };
        while !writer.is_finished() {
            // A reader that holds the directory open reads one generation, as kubelet's do.
            let Ok(data) = std::fs::canonicalize(path.join(DATA)) else {
                continue;
            };
            let read = |name| std::fs::read_to_string(data.join(name));
            if let (Ok(x), Ok(y)) = (read("x"), read("y")) {
                assert_eq!(x, y);
            }
        }
        writer.join().unwrap();
    }

    #[test]
    fn directory_planted_in_place_of_a_link_is_not_written_to() {
        let volume = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(outside.path(), volume.path().join("dir")).unwrap();
        replace(volume.path(), &[file("dir/a", "1")], 0o755).unwrap();
        assert!(!outside.path().join("a").exists());
        assert_eq!(
            std::fs::read_to_string(volume.path().join("dir/a")).unwrap(),
            "1"
        );
    }
}
