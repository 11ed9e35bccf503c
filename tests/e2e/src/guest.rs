//! What pods' VMs boot: Hull's agent, or something that fails on purpose.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    process::Command,
};

use anyhow::{Context, Result, ensure};

use hull_testnode::guest::Guest as GuestFiles;

/// Name of the initramfs in the cluster's directory; replaced while the cluster runs.
pub(crate) const INITRAMFS: &str = "initramfs.cpio";

/// An initramfs.
#[derive(Debug, Clone, Copy)]
pub enum Guest {
    /// The one with hull-agent.
    Agent,
    /// One without any program: the kernel panics.
    Panicking,
    /// One whose init says a line and then nothing.
    Silent,
}

/// What [`Guest::Silent`] says on its console.
pub const SILENT_LINE: &str = "here I hang";

impl Guest {
    /// Puts it where the cluster in `dir` takes its initramfs from.
    pub(crate) fn install(self, dir: &Path) -> Result<()> {
        let next = dir.join("initramfs.next");
        match self {
            Guest::Agent => symlink(GuestFiles::in_cache()?.initramfs, &next)?,
            Guest::Panicking => pack(dir, None, &next)?,
            Guest::Silent => {
                let script =
                    format!("#!/bin/sh\necho {SILENT_LINE}\nwhile true; do sleep 100; done\n");
                pack(dir, Some(&script), &next)?;
            }
        }
        fs::rename(&next, dir.join(INITRAMFS)).context("putting the initramfs in place")
    }
}

/// Packs an initramfs with busybox and this init, or with nothing.
fn pack(dir: &Path, init: Option<&str>, path: &Path) -> Result<()> {
    let root = dir.join("initramfs.root");
    if root.exists() {
        fs::remove_dir_all(&root)?;
    }
    for directory in ["bin", "dev"] {
        fs::create_dir_all(root.join(directory))?;
    }
    if let Some(init) = init {
        for applet in ["sh", "sleep"] {
            fs::copy("/bin/busybox", root.join("bin").join(applet)).context("copying busybox")?;
        }
        fs::write(root.join("init"), init)?;
        fs::set_permissions(root.join("init"), fs::Permissions::from_mode(0o755))?;
        shell("mknod dev/console c 5 1", &root, path)?;
    }
    shell("find . | cpio -o -H newc --quiet > \"$1\"", &root, path)
}

fn shell(script: &str, dir: &Path, argument: &Path) -> Result<()> {
    let status = Command::new("sh")
        .args(["-c", script, "sh"])
        .arg(argument)
        .current_dir(dir)
        .status()
        .context("starting sh")?;
    ensure!(status.success(), "{script:?} ended with {status}");
    Ok(())
}
