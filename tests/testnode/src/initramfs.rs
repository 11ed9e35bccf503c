//! The testnode's own initramfs: busybox, the modules that reach the host's root
//! filesystem, and a script that hands over to guest init.

use std::fs;
use std::path::{Path, PathBuf};

use crate::cache::{self, CacheError, io_error};
use crate::cpio::Archive;
use crate::kernel::Kernel;
use crate::modules::{Modules, ModulesError};

/// Why the initramfs could not be packed.
#[derive(Debug, thiserror::Error)]
pub enum InitramfsError {
    /// The cache failed.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// The kernel lacks a module that the boot needs.
    #[error(transparent)]
    Modules(#[from] ModulesError),
    /// The static busybox is not installed.
    #[error("no {BUSYBOX}: install the Debian package busybox-static")]
    NoBusybox,
}

const BUSYBOX: &str = "/bin/busybox";

/// What must be in the kernel before the host's root is reachable.
const BOOT_MODULES: [&str; 5] = ["virtio_pci", "9pnet_virtio", "9p", "overlay", "virtio_net"];

/// Share of the node's memory that writes to the root overlay may take.
const OVERLAY_SIZE: &str = "75%";

/// `hull_exe` and `hull_config` come from the kernel command line: the kernel hands
/// parameters that it does not know to init as environment variables.
const INIT_SCRIPT: &str = r#"#!/bin/busybox sh
b=/bin/busybox
fail() { echo "testnode: $*"; $b poweroff -f; }
$b mount -t devtmpfs dev /dev
$b mount -t proc proc /proc
while read -r module; do
    $b insmod "/modules/$module" || fail "cannot insert $module"
done </modules.order
$b ifconfig lo 127.0.0.1 netmask 255.0.0.0 up
$b ifconfig eth0 10.0.2.15 netmask 255.255.255.0 up && $b route add default gw 10.0.2.2
$b mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=262144,cache=loose host /host \
    || fail "cannot mount the host's root"
$b mount -t tmpfs -o size=OVERLAY_SIZE,mode=755 overlay /overlay
$b mkdir /overlay/upper /overlay/work
$b mount -t overlay -o lowerdir=/host,upperdir=/overlay/upper,workdir=/overlay/work root /root \
    || fail "cannot mount the root overlay"
[ -x "/root$hull_exe" ] || fail "no program $hull_exe on the host"
$b umount /proc
exec $b switch_root /root "$hull_exe" guest-init "$hull_config"
"#;

/// The initramfs for a kernel, packed once per content.
pub fn prepare(kernel: &Kernel) -> Result<PathBuf, InitramfsError> {
    let archive = pack(kernel, Path::new(BUSYBOX))?;
    let hash = cache::sha256_hex(&archive);
    let (short, _) = hash.split_at(16);
    let path = cache::directory()?.join(format!("testnode/initramfs-{short}.cpio"));
    if !path.exists() {
        cache::write_atomically(&path, &archive)?;
    }
    Ok(path)
}

fn pack(kernel: &Kernel, busybox: &Path) -> Result<Vec<u8>, InitramfsError> {
    let order = Modules::read(&kernel.modules)?.insertion_order(&BOOT_MODULES)?;
    let busybox = fs::read(busybox).map_err(|_| InitramfsError::NoBusybox)?;
    let mut archive = Archive::new();
    for name in ["bin", "dev", "proc", "host", "overlay", "root", "modules"] {
        archive.directory(name);
    }
    archive.character_device("dev/console", 0o600, 5, 1);
    archive.file("bin/busybox", 0o755, &busybox);
    let mut names = String::new();
    for path in order {
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let contents = fs::read(&path).map_err(io_error("reading", &path))?;
        archive.file(&format!("modules/{name}"), 0o644, &contents);
        names.push_str(&name);
        names.push('\n');
    }
    archive.file("modules.order", 0o644, names.as_bytes());
    let script = INIT_SCRIPT.replace("OVERLAY_SIZE", OVERLAY_SIZE);
    archive.file("init", 0o755, script.as_bytes());
    Ok(archive.finish())
}
