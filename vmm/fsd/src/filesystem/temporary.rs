//! O_TMPFILE: files without a name, until a link gives them one.

use std::fs::File;
use std::io;

use fuse_backend_rs::abi::fuse_abi::CreateIn;
use fuse_backend_rs::api::filesystem::{Context, Entry};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::ShareFs;
use crate::node::ROOT;
use crate::system::{as_user, attributes};

const MODE_BITS: u32 = 0o7777;

impl ShareFs {
    /// FUSE_TMPFILE (linux/fuse.h, protocol 7.37): makes a file in directory `parent` and
    /// opens it. The answer is that of FUSE_CREATE.
    pub fn make_temporary(
        &self,
        context: &Context,
        parent: u64,
        args: &CreateIn,
    ) -> io::Result<(Entry, u64)> {
        if parent == ROOT {
            return Err(Errno::ROFS.into());
        }
        let directory = self.nodes.get(parent)?;
        directory.writable()?;
        // O_EXCL means that the file never gets a name.
        let kept = OFlags::RWMODE | OFlags::EXCL;
        let flags = OFlags::from_bits_retain(args.flags) & kept;
        let flags = flags | OFlags::TMPFILE | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(args.mode & MODE_BITS);
        let file = as_user(context.uid, context.gid, || {
            let opened = rustix::fs::openat(&directory.path, c".", flags, mode)?;
            Ok(File::from(opened))
        })?;
        let path = self.descriptors.reopen(&file, OFlags::PATH)?;
        let found = attributes(&path)?;
        let node = self.nodes.remember(path.into(), &found, &directory.share);
        let entry = self.entry(&node, &found, false);
        Ok((entry, self.keep_open(node, file)))
    }
}
