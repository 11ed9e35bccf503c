//! Everything that `lstat`, `readlink`, `read` and `listxattr` say about a directory tree, to
//! compare two trees.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// Longest list of attribute names and longest value that Linux returns.
const XATTR_BUFFER_BYTES: usize = 64 << 10;

/// One file as seen from outside.
#[derive(Debug, PartialEq, Eq)]
pub struct Facts {
    pub mode: u32,
    pub owner: (u32, u32),
    pub size: u64,
    pub mtime: (i64, i64),
    pub links: u64,
    pub device: u64,
    pub content: Vec<u8>,
    pub xattrs: BTreeMap<OsString, Vec<u8>>,
}

/// Facts of every file below `root` and of `root` itself, by path relative to it.
pub fn facts(root: &Path) -> BTreeMap<PathBuf, Facts> {
    let mut all = BTreeMap::new();
    let mut ahead = vec![root.to_owned()];
    while let Some(path) = ahead.pop() {
        let metadata = fs::symlink_metadata(&path).unwrap();
        let kind = metadata.file_type();
        let content = if kind.is_symlink() {
            fs::read_link(&path).unwrap().into_os_string().into_vec()
        } else if kind.is_file() {
            Sha256::digest(fs::read(&path).unwrap()).to_vec()
        } else {
            Vec::new()
        };
        let is_device = kind.is_block_device() || kind.is_char_device();
        if kind.is_dir() {
            ahead.extend(
                fs::read_dir(&path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
        }
        let facts = Facts {
            // Filesystems differ in the mode they show for links, which means nothing.
            mode: if kind.is_symlink() {
                0
            } else {
                metadata.mode()
            },
            owner: (metadata.uid(), metadata.gid()),
            size: if kind.is_dir() { 0 } else { metadata.size() },
            mtime: (metadata.mtime(), metadata.mtime_nsec()),
            // Some filesystems count one link for every directory.
            links: if kind.is_dir() { 0 } else { metadata.nlink() },
            device: if is_device { metadata.rdev() } else { 0 },
            content,
            xattrs: xattrs(&path),
        };
        all.insert(path.strip_prefix(root).unwrap().to_owned(), facts);
    }
    all
}

fn xattrs(path: &Path) -> BTreeMap<OsString, Vec<u8>> {
    let mut names = vec![0; XATTR_BUFFER_BYTES];
    let length = rustix::fs::llistxattr(path, &mut names).unwrap();
    names.truncate(length);
    names
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty() && !name.starts_with(b"security.selinux"))
        .map(|name| {
            let name = OsString::from_vec(name.to_vec());
            let mut value = vec![0; XATTR_BUFFER_BYTES];
            let length = rustix::fs::lgetxattr(path, &name, &mut value).unwrap();
            value.truncate(length);
            (name, value)
        })
        .collect()
}

/// Asserts that two trees are equal, naming the first path in which they differ.
pub fn assert_same_tree(actual: &Path, expected: &Path) {
    let (actual, expected) = (facts(actual), facts(expected));
    let paths = |facts: &BTreeMap<PathBuf, Facts>| facts.keys().cloned().collect::<Vec<_>>();
    assert_eq!(paths(&actual), paths(&expected));
    for (path, facts) in &expected {
        assert_eq!(&actual[path], facts, "{}", path.display());
    }
}

/// An EROFS image mounted read-only on a directory of its own.
pub struct Mounted(tempfile::TempDir);

impl Mounted {
    pub fn new(image: &Path) -> Self {
        let directory = tempfile::tempdir().unwrap();
        run(
            "mount",
            &[
                "-t".as_ref(),
                "erofs".as_ref(),
                "-o".as_ref(),
                "ro,loop".as_ref(),
                image.as_ref(),
                directory.path().as_ref(),
            ],
        );
        Self(directory)
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        run("umount", &[self.0.path().as_ref()]);
    }
}

/// Runs a program and panics with its words if it fails.
pub fn run(program: &str, arguments: &[&std::ffi::OsStr]) {
    let output = std::process::Command::new(program)
        .args(arguments)
        .output()
        .unwrap();
    let words = String::from_utf8_lossy(&output.stderr);
    let out = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {out}{words}"
    );
}
