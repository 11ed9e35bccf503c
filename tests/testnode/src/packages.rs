//! Debian packages, downloaded and unpacked without being installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::cache::{self, CacheError, io_error};

/// Why a package could not be had.
#[derive(Debug, thiserror::Error)]
pub enum PackageError {
    /// The cache failed.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// A program that handles packages is not there.
    #[error("cannot run {program} (Debian package {package}): {source}")]
    Program {
        /// Its name.
        program: &'static str,
        /// The Debian package that brings it.
        package: &'static str,
        /// Why it did not start.
        source: std::io::Error,
    },
    /// A program that handles packages failed.
    #[error("{command}: {stderr}")]
    Failed {
        /// The command line.
        command: String,
        /// What it wrote to standard error.
        stderr: String,
    },
    /// apt knows no such package.
    #[error("apt knows no package {0}: run apt-get update")]
    Unknown(String),
}

/// Runs a program and returns its standard output.
pub fn output(program: &'static str, args: &[&str], cwd: &Path) -> Result<String, PackageError> {
    let result = Command::new(program)
        .args(args)
        .current_dir(cwd)
        .stdin(Stdio::null())
        .output()
        .map_err(|source| PackageError::Program {
            program,
            package: package_of(program),
            source,
        })?;
    if !result.status.success() {
        return Err(PackageError::Failed {
            command: format!("{program} {}", args.join(" ")),
            stderr: String::from_utf8_lossy(&result.stderr).trim().to_owned(),
        });
    }
    Ok(String::from_utf8_lossy(&result.stdout).into_owned())
}

fn package_of(program: &str) -> &'static str {
    match program {
        "depmod" => "kmod",
        "dpkg-deb" => "dpkg",
        _ => "apt",
    }
}

/// The concrete package that a meta package such as `linux-image-amd64` depends on.
pub fn resolve_meta(meta: &str) -> Result<String, PackageError> {
    let text = output(
        "apt-cache",
        &["depends", "--important", meta],
        Path::new("/"),
    )?;
    text.lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "))
        .find(|name| name.starts_with("linux-image-"))
        .map(str::to_owned)
        .ok_or_else(|| PackageError::Unknown(meta.to_owned()))
}

/// The version of a package that apt would download.
pub fn candidate_version(package: &str) -> Result<String, PackageError> {
    let text = output("apt-cache", &["policy", package], Path::new("/"))?;
    text.lines()
        .filter_map(|line| line.trim().strip_prefix("Candidate: "))
        .find(|version| *version != "(none)")
        .map(str::to_owned)
        .ok_or_else(|| PackageError::Unknown(package.to_owned()))
}

/// Downloads a package into the cache, once per version, and returns its file.
pub fn download(package: &str) -> Result<PathBuf, PackageError> {
    let store = cache::directory()?.join("packages");
    cache::create_directory(&store)?;
    let version = candidate_version(package)?;
    // The name is ours: a colon is legal in a version and awkward in a path.
    let file = store.join(format!("{package}_{}.deb", version.replace(':', "%3a")));
    let _lock = cache::lock(&store.join(".lock"))?;
    if file.exists() {
        return Ok(file);
    }
    let work = tempfile::Builder::new()
        .prefix(".download-")
        .tempdir_in(&store)
        .map_err(io_error("creating a directory in", &store))?;
    // As root apt drops to its own user, who may not enter our directory; it then
    // warns and downloads as root, which is what is wanted.
    let wanted = format!("{package}={version}");
    output("apt-get", &["download", "-qq", &wanted], work.path())?;
    let entries = fs::read_dir(work.path()).map_err(io_error("listing", work.path()))?;
    let fetched = entries
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .ok_or_else(|| PackageError::Unknown(package.to_owned()))?;
    fs::rename(&fetched, &file).map_err(io_error("keeping", &file))?;
    Ok(file)
}

/// Unpacks a package's files below `to`.
pub fn unpack(deb: &Path, to: &Path) -> Result<(), PackageError> {
    cache::create_directory(to)?;
    let (deb, to) = (deb.to_string_lossy(), to.to_string_lossy());
    output("dpkg-deb", &["-x", &deb, &to], Path::new("/")).map(drop)
}
