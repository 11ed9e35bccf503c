//! Debian's kernel packages, unpacked into the cache with their module tables.

use std::fs;
use std::path::{Path, PathBuf};

use crate::cache::{self, CacheError, io_error};
use crate::packages::{self, PackageError};

/// Why a kernel could not be prepared.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The cache failed.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// The package could not be had.
    #[error("kernel package {meta}: {source}")]
    Package {
        /// The meta package asked for.
        meta: String,
        /// Why.
        source: PackageError,
    },
}

/// An unpacked kernel package.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// `uname -r` of the kernel.
    pub version: String,
    /// The compressed image as Debian ships it.
    pub image: PathBuf,
    /// `lib/modules/VERSION` with `modules.dep`.
    pub modules: PathBuf,
}

/// The kernel of a meta package (`linux-image-amd64`, `linux-image-cloud-amd64`),
/// downloaded and unpacked below `CACHE/UNDER/` unless it is there. What is there is
/// used without asking apt; removing the link `CACHE/UNDER/META` makes it ask again.
pub fn prepare(meta: &str, under: &str) -> Result<Kernel, KernelError> {
    let parent = cache::directory()?.join(under);
    cache::create_directory(&parent)?;
    let link = parent.join(meta);
    if let Some(kernel) = ready(&link) {
        return Ok(kernel);
    }
    let _lock = cache::lock(&parent.join(".kernel.lock"))?;
    if let Some(kernel) = ready(&link) {
        return Ok(kernel);
    }
    let failed = |source| KernelError::Package {
        meta: meta.to_owned(),
        source,
    };
    tracing::info!(meta, "downloading and unpacking the kernel");
    let package = packages::resolve_meta(meta).map_err(failed)?;
    let version = package.trim_start_matches("linux-image-");
    let release = packages::candidate_version(&package).map_err(failed)?;
    let root = parent.join(format!("kernel-{version}-{}", release.replace(':', "%3a")));
    if !root.exists() {
        let deb = packages::download(&package).map_err(failed)?;
        unpack(&deb, &parent, &root, version).map_err(failed)?;
    }
    cache::link_atomically(&root, &link)?;
    ready(&link).ok_or_else(|| failed(PackageError::Unknown(package)))
}

/// The kernel that a link leads to, if it is complete.
fn ready(link: &Path) -> Option<Kernel> {
    let root = fs::read_link(link).ok()?;
    let versions = fs::read_dir(root.join("lib/modules")).ok()?;
    let version = versions
        .filter_map(Result::ok)
        .next()?
        .file_name()
        .into_string()
        .ok()?;
    let kernel = Kernel {
        image: root.join(format!("boot/vmlinuz-{version}")),
        modules: root.join(format!("lib/modules/{version}")),
        version,
    };
    (kernel.image.exists() && kernel.modules.join("modules.dep").exists()).then_some(kernel)
}

/// Unpacks beside the final place and renames, so a killed run leaves no half kernel.
fn unpack(deb: &Path, parent: &Path, root: &Path, version: &str) -> Result<(), PackageError> {
    let work = tempfile::Builder::new()
        .prefix(".kernel-")
        .tempdir_in(parent)
        .map_err(io_error("creating a directory in", parent))?;
    let tree = work.path().join("tree");
    packages::unpack(deb, &tree)?;
    let base = tree.to_string_lossy();
    packages::output("depmod", &["-b", &base, version], Path::new("/"))?;
    fs::rename(&tree, root).map_err(io_error("keeping", root))?;
    Ok(())
}
