//! Images are checked with fsck.erofs, mounted, and compared with the directory that their
//! archive was made from. Needs root.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;

use proptest::prelude::*;

use super::write_image;
use crate::layer::{Tree, TreeLimits, apply_layer};

#[path = "../../tests/support/facts.rs"]
mod facts;

use facts::{Mounted, assert_same_tree, run};

const LIMITS: TreeLimits = TreeLimits {
    max_entries: 100_000,
    max_metadata_bytes: 64 << 20,
};

/// Archives `source` with GNU tar, converts the archive, and returns the image.
fn convert(source: &Path) -> tempfile::NamedTempFile {
    let archive = tempfile::NamedTempFile::new().unwrap();
    run(
        "tar",
        &[
            "--format=pax".as_ref(),
            "--xattrs".as_ref(),
            "--xattrs-include=*".as_ref(),
            "--numeric-owner".as_ref(),
            "-C".as_ref(),
            source.as_ref(),
            "-cf".as_ref(),
            archive.path().as_ref(),
            ".".as_ref(),
        ],
    );
    write(&[archive.reopen().unwrap()])
}

fn write(spools: &[File]) -> tempfile::NamedTempFile {
    let mut tree = Tree::new(LIMITS);
    for (layer, spool) in spools.iter().enumerate() {
        apply_layer(&mut tree, spool, layer).unwrap();
    }
    let image = tempfile::NamedTempFile::new().unwrap();
    let bytes = write_image(&tree, spools, [7; 16], "test", image.as_file()).unwrap();
    assert_eq!(bytes, image.as_file().metadata().unwrap().len());
    image
}

fn check(source: &Path) {
    let image = convert(source);
    run("fsck.erofs", &[image.path().as_ref()]);
    let mounted = Mounted::new(image.path());
    assert_same_tree(mounted.path(), source);
}

#[test]
fn an_image_has_everything_its_directory_had() {
    let source = tempfile::tempdir().unwrap();
    let root = source.path();
    fs::set_permissions(root, fs::Permissions::from_mode(0o1777)).unwrap();
    for size in [
        0, 1, 31, 2047, 2048, 2049, 4031, 4032, 4095, 4096, 4097, 8192, 100_001,
    ] {
        let content: Vec<u8> = (0..size).map(|at: u32| (at % 251) as u8).collect();
        fs::write(root.join(format!("file-{size}")), content).unwrap();
    }
    for length in [1, 100, 2047, 2048, 2049, 4000] {
        let target = "t/".repeat(length / 2 + 1)[..length].to_owned();
        symlink(target, root.join(format!("link-{length}"))).unwrap();
    }
    let suid = root.join("usr/bin/su");
    fs::create_dir_all(suid.parent().unwrap()).unwrap();
    fs::write(&suid, "su").unwrap();
    chown(&suid, Some(123_456), Some(65_536)).unwrap();
    fs::set_permissions(&suid, fs::Permissions::from_mode(0o6755)).unwrap();
    fs::hard_link(&suid, root.join("second-name")).unwrap();
    fs::hard_link(&suid, root.join("usr/third-name")).unwrap();
    fs::create_dir_all(root.join("empty/sub")).unwrap();
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let flags = rustix::fs::XattrFlags::empty();
    let ping = root.join("usr/bin/ping");
    fs::write(&ping, vec![b'p'; 3000]).unwrap();
    rustix::fs::setxattr(&ping, "security.capability", &capability, flags).unwrap();
    rustix::fs::setxattr(&ping, "user.large", &[b'v'; 3000], flags).unwrap();
    rustix::fs::setxattr(root.join("empty"), "user.d", b"", flags).unwrap();
    run(
        "mknod",
        &[
            root.join("null").as_ref(),
            "c".as_ref(),
            "1".as_ref(),
            "3".as_ref(),
        ],
    );
    run(
        "mknod",
        &[
            root.join("disk").as_ref(),
            "b".as_ref(),
            "259".as_ref(),
            "70000".as_ref(),
        ],
    );
    run("mkfifo", &[root.join("fifo").as_ref()]);
    run(
        "touch",
        &[
            "-d".as_ref(),
            "1969-12-31 23:59:58.5 UTC".as_ref(),
            suid.as_ref(),
        ],
    );
    assert_eq!(
        facts::facts(root)[Path::new("usr/bin/ping")].xattrs.len(),
        2
    );
    check(root);
}

#[test]
fn large_directories_are_found_by_every_name() {
    let source = tempfile::tempdir().unwrap();
    let names: Vec<String> = (0..3000)
        .map(|number| format!("{:x}-{number}", number * 7919))
        .collect();
    for name in names
        .iter()
        .chain(&["-dash".to_owned(), "!bang".to_owned(), "n".repeat(255)])
    {
        fs::write(source.path().join(name), name).unwrap();
    }
    let image = convert(source.path());
    run("fsck.erofs", &[image.path().as_ref()]);
    let mounted = Mounted::new(image.path());
    for name in &names {
        assert_eq!(
            &fs::read_to_string(mounted.path().join(name)).unwrap(),
            name
        );
        assert!(!mounted.path().join(format!("{name}x")).exists());
    }
    assert_same_tree(mounted.path(), source.path());
}

#[test]
fn an_empty_image_mounts() {
    let image = write(&[]);
    run("fsck.erofs", &[image.path().as_ref()]);
    let mounted = Mounted::new(image.path());
    assert_eq!(fs::read_dir(mounted.path()).unwrap().count(), 0);
}

#[test]
fn the_same_tree_gives_the_same_bytes() {
    let source = tempfile::tempdir().unwrap();
    fs::create_dir_all(source.path().join("a/b/c")).unwrap();
    fs::write(source.path().join("a/b/file"), "x").unwrap();
    let (one, two) = (convert(source.path()), convert(source.path()));
    assert_eq!(fs::read(one.path()).unwrap(), fs::read(two.path()).unwrap());
}

/// One change to a directory tree.
#[derive(Clone, Debug)]
enum Step {
    Directory(String),
    File(String, usize, u32),
    Symlink(String, String),
    HardLink(String, String),
    Attribute(String, u8, usize),
}

fn path() -> impl Strategy<Value = String> {
    prop::collection::vec("[a-c]{1,3}", 1..5).prop_map(|names| names.join("/"))
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        path().prop_map(Step::Directory),
        (path(), 0usize..10_000, 0u32..0o10000).prop_map(|(p, s, m)| Step::File(p, s, m)),
        (path(), "[a-c./]{1,60}").prop_map(|(p, t)| Step::Symlink(p, t)),
        (path(), path()).prop_map(|(p, t)| Step::HardLink(p, t)),
        (path(), any::<u8>(), 0usize..900).prop_map(|(p, n, s)| Step::Attribute(p, n, s)),
    ]
}

/// Does the step; one that makes no sense where it stands is left out.
fn perform(root: &Path, step: &Step) {
    let prepared = |path: &str| {
        let path = root.join(path);
        let inside = path.parent().is_some_and(|parent| {
            let _ = fs::create_dir_all(parent);
            parent
                .canonicalize()
                .is_ok_and(|parent| parent.starts_with(root))
        });
        inside.then_some(path)
    };
    let _ = match step {
        Step::Directory(path) => prepared(path).map(fs::create_dir),
        Step::File(path, size, mode) => prepared(path).filter(|p| !p.exists()).map(|path| {
            fs::write(&path, vec![b'x'; *size])?;
            fs::set_permissions(&path, fs::Permissions::from_mode(*mode))
        }),
        Step::Symlink(path, target) => prepared(path).map(|path| symlink(target, path)),
        Step::HardLink(path, target) => prepared(path)
            .filter(|_| {
                root.join(target)
                    .canonicalize()
                    .is_ok_and(|t| t.starts_with(root))
            })
            .map(|path| fs::hard_link(root.join(target), path)),
        Step::Attribute(path, name, size) => prepared(path)
            .filter(|path| path.canonicalize().is_ok_and(|path| path.starts_with(root)))
            .map(|path| {
                let flags = rustix::fs::XattrFlags::empty();
                let name = format!("user.{name}");
                rustix::fs::setxattr(&path, name, &vec![b'v'; *size], flags)?;
                Ok(())
            }),
    };
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 24,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_tree_survives(steps in prop::collection::vec(step(), 0..60)) {
        let source = tempfile::tempdir().unwrap();
        for step in &steps {
            perform(source.path(), step);
        }
        check(source.path());
    }
}
