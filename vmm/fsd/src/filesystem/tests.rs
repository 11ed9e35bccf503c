//! Requests as a guest's kernel makes them, and as it never would. The tests run as root.

use std::ffi::{CStr, CString};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::*;
use crate::node::ROOT;

const SHARE: &CStr = c"data";
const CONTEXT: Context = Context {
    uid: 0,
    gid: 0,
    pid: 1,
};

struct Guest {
    fs: ShareFs,
    host: TempDir,
}

impl Guest {
    fn new(read_only: bool) -> Self {
        let host = tempfile::tempdir().unwrap();
        let fs = ShareFs::new(crate::jail::plain().unwrap());
        // SAFETY: plain system call; as the process itself does before it serves.
        unsafe { libc::umask(0) };
        let root = std::fs::File::open(host.path()).unwrap();
        let name = SHARE.to_str().unwrap();
        fs.shares.add(name, root.into(), read_only).unwrap();
        Self { fs, host }
    }

    fn share(&self) -> u64 {
        self.fs.lookup(&CONTEXT, ROOT, SHARE).unwrap().inode
    }

    fn path(&self, name: &str) -> PathBuf {
        self.host.path().join(name)
    }

    fn find(&self, parent: u64, name: &CStr) -> Result<Entry, i32> {
        number(self.fs.lookup(&CONTEXT, parent, name))
    }

    fn create(&self, name: &CStr, context: &Context, flags: i32) -> Result<(Entry, u64), i32> {
        let args = CreateIn {
            flags: flags as u32,
            mode: libc::S_IFREG | 0o644,
            ..Default::default()
        };
        number(self.fs.create(context, self.share(), name, args))
            .map(|(entry, handle, ..)| (entry, handle.unwrap()))
    }

    fn names(&self, inode: u64) -> Vec<String> {
        let (handle, _) = self.fs.opendir(&CONTEXT, inode, 0).unwrap();
        let handle = handle.unwrap();
        let (mut names, mut offset) = (Vec::new(), 0);
        loop {
            let before = names.len();
            // Two at a time: the rest must not be lost.
            let mut left = 2;
            self.fs
                .readdir(&CONTEXT, inode, handle, 4096, offset, &mut |entry| {
                    if left == 0 {
                        return Ok(0);
                    }
                    left -= 1;
                    offset = entry.offset;
                    names.push(String::from_utf8_lossy(entry.name).into_owned());
                    Ok(1)
                })
                .unwrap();
            if names.len() == before {
                break;
            }
        }
        self.fs.releasedir(&CONTEXT, inode, 0, handle).unwrap();
        names.retain(|name| name != "." && name != "..");
        names.sort();
        names
    }
}

/// Results with the number that the guest is told.
fn number<T>(outcome: io::Result<T>) -> Result<T, i32> {
    outcome.map_err(|error| error.raw_os_error().unwrap_or(-1))
}

fn mode(path: impl AsRef<Path>) -> u32 {
    std::fs::symlink_metadata(path)
        .unwrap()
        .permissions()
        .mode()
        & 0o7777
}

#[test]
fn the_root_shows_the_shares_and_takes_nothing() {
    let guest = Guest::new(false);
    assert_eq!(guest.names(ROOT), ["data"]);
    assert_eq!(guest.find(ROOT, c"etc").unwrap_err(), libc::ENOENT);
    let made = guest.fs.mkdir(&CONTEXT, ROOT, c"x", 0o755, 0);
    assert_eq!(number(made).unwrap_err(), libc::EROFS);
    let moved = guest.fs.rename(&CONTEXT, ROOT, SHARE, ROOT, c"other", 0);
    assert_eq!(number(moved).unwrap_err(), libc::EROFS);
    assert_eq!(
        number(guest.fs.rmdir(&CONTEXT, ROOT, SHARE)).unwrap_err(),
        libc::EROFS
    );
}

#[test]
fn names_that_are_paths_are_refused_everywhere() {
    let guest = Guest::new(false);
    let share = guest.share();
    std::fs::write(guest.path("file"), "x").unwrap();
    let file = guest.find(share, c"file").unwrap().inode;
    for name in [c"..", c".", c"", c"../etc", c"a/b", c"/etc/passwd"] {
        let (fs, context) = (&guest.fs, &CONTEXT);
        let outcomes = [
            number(fs.lookup(context, share, name).map(drop)),
            number(fs.lookup(context, ROOT, name).map(drop)),
            number(fs.mkdir(context, share, name, 0o755, 0).map(drop)),
            number(
                fs.mknod(context, share, name, libc::S_IFREG, 0, 0)
                    .map(drop),
            ),
            number(fs.symlink(context, c"x", share, name).map(drop)),
            number(fs.link(context, file, share, name).map(drop)),
            number(fs.unlink(context, share, name)),
            number(fs.rmdir(context, share, name)),
            number(fs.rename(context, share, c"file", share, name, 0)),
            number(fs.rename(context, share, name, share, c"new", 0)),
            guest.create(name, context, libc::O_RDWR).map(drop),
        ];
        for (index, outcome) in outcomes.into_iter().enumerate() {
            assert_eq!(outcome, Err(libc::EINVAL), "{name:?}, call {index}");
        }
    }
}

#[test]
fn symbolic_links_are_shown_and_never_followed() {
    let guest = Guest::new(false);
    let share = guest.share();
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("secret"), "x").unwrap();
    symlink(outside.path(), guest.path("directory")).unwrap();
    symlink(outside.path().join("secret"), guest.path("file")).unwrap();
    let directory = guest.find(share, c"directory").unwrap();
    assert_eq!(directory.attr.st_mode & libc::S_IFMT, libc::S_IFLNK);
    let target = guest.fs.readlink(&CONTEXT, directory.inode).unwrap();
    assert_eq!(target, outside.path().to_str().unwrap().as_bytes());
    assert_eq!(
        guest.find(directory.inode, c"secret").unwrap_err(),
        libc::ENOTDIR
    );
    let file = guest.find(share, c"file").unwrap().inode;
    for outcome in [
        number(
            guest
                .fs
                .open(&CONTEXT, file, libc::O_RDWR as u32, 0)
                .map(drop),
        ),
        number(guest.fs.opendir(&CONTEXT, file, 0).map(drop)),
        guest.create(c"file", &CONTEXT, libc::O_RDWR).map(drop),
    ] {
        assert!(matches!(outcome, Err(libc::ELOOP | libc::ENOTDIR)));
    }
    // Attributes are the link's own.
    let mut wanted = directory.attr;
    wanted.st_uid = 4711;
    guest
        .fs
        .setattr(&CONTEXT, file, wanted, None, SetattrValid::UID)
        .unwrap();
    assert_eq!(outside.path().join("secret").metadata().unwrap().uid(), 0);
    let link = std::fs::symlink_metadata(guest.path("file")).unwrap();
    assert_eq!(link.uid(), 4711);
}

#[test]
fn a_directory_that_becomes_a_link_meanwhile_leads_nowhere() {
    let guest = Guest::new(false);
    let share = guest.share();
    std::fs::create_dir(guest.path("d")).unwrap();
    let directory = guest.find(share, c"d").unwrap().inode;
    std::fs::rename(guest.path("d"), guest.path("moved")).unwrap();
    symlink("/etc", guest.path("d")).unwrap();
    // The number still means the old directory, wherever it is.
    assert_eq!(guest.find(directory, c"passwd").unwrap_err(), libc::ENOENT);
    let made = guest.fs.mkdir(&CONTEXT, directory, c"new", 0o755, 0);
    assert!(made.is_ok() && guest.path("moved/new").is_dir());
}

#[test]
fn renames_racing_with_lookups_never_show_the_outside() {
    let guest = Guest::new(false);
    let share = guest.share();
    std::fs::create_dir(guest.path("a")).unwrap();
    symlink("/etc", guest.path("b")).unwrap();
    let (a, b) = (guest.path("a"), guest.path("b"));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let _ = rustix::fs::renameat_with(
                    rustix::fs::CWD,
                    &a,
                    rustix::fs::CWD,
                    &b,
                    rustix::fs::RenameFlags::EXCHANGE,
                );
            }
        });
        for _ in 0..2000 {
            let found = guest.find(share, c"a").unwrap();
            let passwd = guest.find(found.inode, c"passwd").map(drop);
            assert!(matches!(passwd, Err(libc::ENOENT | libc::ENOTDIR)));
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_read_only_share_refuses_every_change() {
    let guest = Guest::new(true);
    std::fs::write(guest.path("file"), "x").unwrap();
    let share = guest.share();
    let entry = guest.find(share, c"file").unwrap();
    let (fs, context, file) = (&guest.fs, &CONTEXT, entry.inode);
    let args = CreateIn {
        flags: libc::O_RDWR as u32,
        ..Default::default()
    };
    let outcomes = [
        number(fs.mkdir(context, share, c"n", 0o755, 0).map(drop)),
        number(
            fs.mknod(context, share, c"n", libc::S_IFREG, 0, 0)
                .map(drop),
        ),
        number(fs.symlink(context, c"x", share, c"n").map(drop)),
        number(fs.link(context, file, share, c"n").map(drop)),
        number(fs.unlink(context, share, c"file")),
        number(fs.rename(context, share, c"file", share, c"n", 0)),
        guest.create(c"n", context, libc::O_RDWR).map(drop),
        number(fs.make_temporary(context, share, &args).map(drop)),
        number(fs.open(context, file, libc::O_WRONLY as u32, 0).map(drop)),
        number(fs.open(context, file, libc::O_TRUNC as u32, 0).map(drop)),
        number(
            fs.setattr(context, file, entry.attr, None, SetattrValid::MODE)
                .map(drop),
        ),
        number(
            fs.setattr(context, file, entry.attr, None, SetattrValid::SIZE)
                .map(drop),
        ),
        number(fs.setxattr(context, file, c"user.a", b"1", 0)),
        number(fs.removexattr(context, file, c"user.a")),
    ];
    for (index, outcome) in outcomes.into_iter().enumerate() {
        assert_eq!(outcome, Err(libc::EROFS), "call {index}");
    }
    assert!(fs.open(context, file, libc::O_RDONLY as u32, 0).is_ok());
    assert_eq!(std::fs::read(guest.path("file")).unwrap(), b"x");
}

#[test]
fn what_is_made_belongs_to_its_maker() {
    let guest = Guest::new(false);
    let share = guest.share();
    // Only root may write here on the host: who may is the guest's kernel's business.
    std::fs::set_permissions(guest.host.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let user = Context {
        uid: 1234,
        gid: 5678,
        pid: 1,
    };
    guest.create(c"file", &user, libc::O_RDWR).unwrap();
    guest.fs.mkdir(&user, share, c"dir", 0o1775, 0).unwrap();
    guest.fs.symlink(&user, c"x", share, c"link").unwrap();
    let fifo = libc::S_IFIFO | 0o600;
    guest.fs.mknod(&user, share, c"fifo", fifo, 0, 0).unwrap();
    for name in ["file", "dir", "link", "fifo"] {
        let made = std::fs::symlink_metadata(guest.path(name)).unwrap();
        assert_eq!((made.uid(), made.gid()), (1234, 5678), "{name}");
    }
    assert_eq!(mode(guest.path("dir")), 0o1775);
    assert_eq!(rustix::process::geteuid().as_raw(), 0);
    let nobody = Context {
        uid: u32::MAX,
        gid: 0,
        pid: 1,
    };
    let made = guest.fs.mkdir(&nobody, share, c"n", 0o755, 0);
    assert_eq!(number(made).unwrap_err(), libc::EINVAL);
}

#[test]
fn device_nodes_cannot_be_made_or_opened() {
    let guest = Guest::new(false);
    let share = guest.share();
    for kind in [libc::S_IFCHR, libc::S_IFBLK] {
        let rdev = 0x0103;
        let made = guest.fs.mknod(&CONTEXT, share, c"n", kind | 0o666, rdev, 0);
        assert_eq!(number(made).unwrap_err(), libc::EPERM);
    }
    let path = CString::new(guest.path("null").to_str().unwrap()).unwrap();
    // SAFETY: plain system call.
    unsafe { libc::mknod(path.as_ptr(), libc::S_IFCHR | 0o666, libc::makedev(1, 3)) };
    let node = guest.find(share, c"null").unwrap();
    assert_eq!(node.attr.st_rdev, 0x103);
    let opened = guest.fs.open(&CONTEXT, node.inode, libc::O_RDWR as u32, 0);
    assert_eq!(number(opened.map(drop)).unwrap_err(), libc::EACCES);
    let created = guest.create(c"null", &CONTEXT, libc::O_RDWR);
    assert_eq!(created.map(drop).unwrap_err(), libc::EACCES);
}

#[test]
fn a_pipe_does_not_block_the_queue() {
    let guest = Guest::new(false);
    let fifo = libc::S_IFIFO | 0o600;
    guest
        .fs
        .mknod(&CONTEXT, guest.share(), c"fifo", fifo, 0, 0)
        .unwrap();
    let opened = guest.create(c"fifo", &CONTEXT, libc::O_RDONLY);
    assert_eq!(opened.map(drop).unwrap_err(), libc::EACCES);
}

#[test]
fn renames_exchange_replace_and_refuse() {
    let guest = Guest::new(false);
    let share = guest.share();
    std::fs::write(guest.path("a"), "a").unwrap();
    std::fs::write(guest.path("b"), "b").unwrap();
    let rename = |from: &CStr, to: &CStr, flags| {
        number(guest.fs.rename(&CONTEXT, share, from, share, to, flags))
    };
    assert_eq!(
        rename(c"a", c"b", libc::RENAME_NOREPLACE),
        Err(libc::EEXIST)
    );
    rename(c"a", c"b", libc::RENAME_EXCHANGE).unwrap();
    assert_eq!(std::fs::read(guest.path("a")).unwrap(), b"b");
    rename(c"a", c"b", 0).unwrap();
    assert_eq!(std::fs::read(guest.path("b")).unwrap(), b"b");
    assert_eq!(rename(c"b", c"c", 1 << 20), Err(libc::EINVAL));
}

#[test]
fn files_of_two_shares_are_apart() {
    let guest = Guest::new(false);
    let other = tempfile::tempdir().unwrap();
    let root = std::fs::File::open(other.path()).unwrap();
    guest.fs.shares.add("other", root.into(), false).unwrap();
    std::fs::write(guest.path("file"), "x").unwrap();
    let share = guest.share();
    let target = guest.find(ROOT, c"other").unwrap().inode;
    let moved = guest
        .fs
        .rename(&CONTEXT, share, c"file", target, c"file", 0);
    assert_eq!(number(moved), Err(libc::EXDEV));
}

#[test]
fn a_hard_link_is_the_same_file() {
    let guest = Guest::new(false);
    let share = guest.share();
    std::fs::write(guest.path("one"), "x").unwrap();
    let one = guest.find(share, c"one").unwrap();
    let two = guest.fs.link(&CONTEXT, one.inode, share, c"two").unwrap();
    assert_eq!((two.inode, two.attr.st_nlink), (one.inode, 2));
    assert_eq!(guest.find(share, c"two").unwrap().inode, one.inode);
}

#[test]
fn a_temporary_file_has_no_name_until_it_is_linked() {
    let guest = Guest::new(false);
    let share = guest.share();
    let args = CreateIn {
        flags: libc::O_RDWR as u32,
        mode: 0o640,
        ..Default::default()
    };
    let user = Context {
        uid: 7,
        gid: 8,
        pid: 1,
    };
    let (entry, _) = guest.fs.make_temporary(&user, share, &args).unwrap();
    assert!(guest.names(share).is_empty());
    guest
        .fs
        .link(&CONTEXT, entry.inode, share, c"named")
        .unwrap();
    let made = guest.path("named").metadata().unwrap();
    assert_eq!((made.uid(), made.gid()), (7, 8));
    assert_eq!(mode(guest.path("named")), 0o640);
    let never = CreateIn {
        flags: (libc::O_RDWR | libc::O_EXCL) as u32,
        ..args
    };
    let (entry, _) = guest.fs.make_temporary(&user, share, &never).unwrap();
    let linked = guest.fs.link(&CONTEXT, entry.inode, share, c"other");
    assert_eq!(number(linked.map(drop)), Err(libc::ENOENT));
}

#[test]
fn attributes_are_changed_one_by_one() {
    let guest = Guest::new(false);
    std::fs::write(guest.path("file"), "hello").unwrap();
    let entry = guest.find(guest.share(), c"file").unwrap();
    let set = |valid, change: &dyn Fn(&mut stat64)| {
        let mut wanted = entry.attr;
        change(&mut wanted);
        let changed = guest.fs.setattr(&CONTEXT, entry.inode, wanted, None, valid);
        changed.unwrap().0
    };
    assert_eq!(
        set(SetattrValid::MODE, &|stat| stat.st_mode = 0o4751).st_mode & 0o7777,
        0o4751
    );
    let owned = set(SetattrValid::GID, &|stat| stat.st_gid = 99);
    assert_eq!((owned.st_uid, owned.st_gid), (0, 99));
    // As on the host, a change of owner takes set-user-id away.
    assert_eq!(owned.st_mode & 0o7777, 0o751);
    assert_eq!(set(SetattrValid::SIZE, &|stat| stat.st_size = 2).st_size, 2);
    let times = set(SetattrValid::MTIME, &|stat| {
        (stat.st_mtime, stat.st_mtime_nsec) = (1000, 5);
    });
    assert_eq!((times.st_mtime, times.st_mtime_nsec), (1000, 5));
    assert_eq!(times.st_atime, entry.attr.st_atime);
}

#[test]
fn truncation_by_the_unprivileged_takes_set_user_id_away() {
    let guest = Guest::new(false);
    std::fs::write(guest.path("file"), "hello").unwrap();
    std::fs::set_permissions(guest.path("file"), std::fs::Permissions::from_mode(0o4755)).unwrap();
    let entry = guest.find(guest.share(), c"file").unwrap();
    let truncate = |valid| {
        let mut wanted = entry.attr;
        wanted.st_size = 1;
        guest
            .fs
            .setattr(&CONTEXT, entry.inode, wanted, None, valid)
            .unwrap();
        mode(guest.path("file"))
    };
    assert_eq!(truncate(SetattrValid::SIZE), 0o4755);
    assert_eq!(
        truncate(SetattrValid::SIZE | SetattrValid::KILL_SUIDGID),
        0o755
    );
}

#[test]
fn user_attributes_are_kept_and_those_of_the_host_are_not_shown() {
    let guest = Guest::new(false);
    std::fs::write(guest.path("file"), "x").unwrap();
    let (fs, file) = (&guest.fs, guest.find(guest.share(), c"file").unwrap().inode);
    match number(fs.setxattr(&CONTEXT, file, c"user.a", b"value", 0)) {
        // The file system of the tests may have none.
        Err(libc::EOPNOTSUPP) => return,
        outcome => outcome.unwrap(),
    }
    assert!(matches!(
        fs.getxattr(&CONTEXT, file, c"user.a", 0).unwrap(),
        GetxattrReply::Count(5)
    ));
    let value = fs.getxattr(&CONTEXT, file, c"user.a", 64).unwrap();
    assert!(matches!(value, GetxattrReply::Value(value) if value == b"value"));
    let short = fs.getxattr(&CONTEXT, file, c"user.a", 2);
    assert_eq!(number(short.map(drop)), Err(libc::ERANGE));
    let names = fs.listxattr(&CONTEXT, file, 64).unwrap();
    assert!(matches!(names, ListxattrReply::Names(names) if names == b"user.a\0"));
    for hidden in [c"trusted.overlay.opaque", c"security.selinux"] {
        let set = fs.setxattr(&CONTEXT, file, hidden, b"x", 0);
        assert_eq!(number(set), Err(libc::EOPNOTSUPP));
    }
    fs.removexattr(&CONTEXT, file, c"user.a").unwrap();
}

#[test]
fn a_directory_is_listed_whole_although_it_changes() {
    let guest = Guest::new(false);
    let share = guest.share();
    let names: Vec<String> = (0..300).map(|number| format!("f{number:03}")).collect();
    for name in &names {
        std::fs::write(guest.path(name), "").unwrap();
    }
    assert_eq!(guest.names(share), names);
}

#[test]
fn listing_with_entries_counts_lookups_only_for_what_was_taken() {
    let guest = Guest::new(false);
    let share = guest.share();
    for name in ["a", "b", "c"] {
        std::fs::write(guest.path(name), "").unwrap();
    }
    let known = guest.fs.known_files();
    let (handle, _) = guest.fs.opendir(&CONTEXT, share, 0).unwrap();
    let mut taken = Vec::new();
    let handle = handle.unwrap();
    let mut add = |entry: DirEntry<'_>, found: Entry| {
        if entry.name.starts_with(b".") {
            assert_eq!(found.inode, 0);
            return Ok(1);
        }
        if taken.len() == 1 {
            return Ok(0);
        }
        taken.push(found.inode);
        Ok(1)
    };
    guest
        .fs
        .readdirplus(&CONTEXT, share, handle, 4096, 0, &mut add)
        .unwrap();
    assert_eq!(guest.fs.known_files(), known + 1);
    guest.fs.forget(&CONTEXT, taken[0], 1);
    assert_eq!(guest.fs.known_files(), known);
}

#[test]
fn forgetting_more_than_was_looked_up_is_harmless() {
    let guest = Guest::new(false);
    let share = guest.share();
    guest.fs.forget(&CONTEXT, share, u64::MAX);
    guest.fs.forget(&CONTEXT, share, 1);
    guest.fs.forget(&CONTEXT, ROOT, u64::MAX);
    assert_eq!(
        number(guest.fs.getattr(&CONTEXT, share, None).map(drop)),
        Err(libc::EBADF)
    );
    assert!(guest.fs.getattr(&CONTEXT, ROOT, None).is_ok());
}

#[test]
fn numbers_that_were_never_given_are_refused() {
    let guest = Guest::new(false);
    for inode in [0, 99, u64::MAX] {
        assert_eq!(guest.find(inode, c"x").unwrap_err(), libc::EBADF);
    }
    for handle in [99, u64::MAX] {
        let synced = guest.fs.fsync(&CONTEXT, ROOT, false, handle);
        assert_eq!(number(synced), Err(libc::EBADF));
    }
}

#[test]
fn a_share_that_was_taken_away_is_stale_and_frees_what_it_held() {
    let guest = Guest::new(false);
    let share = guest.share();
    let (entry, handle) = guest.create(c"file", &CONTEXT, libc::O_RDWR).unwrap();
    guest.fs.remove_share("data").unwrap();
    assert_eq!(guest.fs.known_files() + guest.fs.open_files(), 0);
    assert_eq!(guest.find(ROOT, SHARE).unwrap_err(), libc::ENOENT);
    for inode in [share, entry.inode] {
        assert!(guest.fs.getattr(&CONTEXT, inode, None).is_err());
    }
    assert!(
        guest
            .fs
            .fsync(&CONTEXT, entry.inode, false, handle)
            .is_err()
    );
}
