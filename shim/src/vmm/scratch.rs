//! The scratch disk: an ext4 image for the writable layers and emptyDirs of a pod.
//! mkfs.ext4 runs once per size; each sandbox gets a sparse copy.

use super::VmmError;
use nix::unistd::{Whence, lseek};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

const COPY_BUFFER_BYTES: usize = 128 * 1024;

/// Makes the scratch disk at `path`, `size_mib` large.
pub fn create(path: &Path, size_mib: u64) -> Result<(), VmmError> {
    let fail = |action: &'static str, path: &Path| {
        let path = path.to_path_buf();
        move |source| VmmError::File {
            action,
            path,
            source,
        }
    };
    let directory = path.parent().unwrap_or(Path::new("/"));
    std::fs::create_dir_all(directory).map_err(fail("making", directory))?;
    let template = template(directory, size_mib)?;
    let source = File::open(&template).map_err(fail("opening", &template))?;
    let target = File::create(path).map_err(fail("making", path))?;
    copy_sparsely(&source, &target).map_err(fail("copying a template to", path))
}

fn template(directory: &Path, size_mib: u64) -> Result<PathBuf, VmmError> {
    let path = directory.join(format!("template-{size_mib}m.ext4"));
    if path.exists() {
        return Ok(path);
    }
    let problem = |problem: String| VmmError::Scratch {
        path: path.clone(),
        problem,
    };
    // A name of its own, so that concurrent makers do not disturb each other.
    let temporary = directory.join(format!("template-{}.tmp", crate::ids::generate()));
    let outcome = std::process::Command::new("mkfs.ext4")
        .args([
            "-q",
            "-F",
            "-m",
            "0",
            "-O",
            "^has_journal",
            "-E",
            "lazy_itable_init=1,nodiscard",
        ])
        .arg(&temporary)
        .arg(format!("{size_mib}M"))
        .output();
    let made = match outcome {
        Ok(output) if output.status.success() => {
            std::fs::rename(&temporary, &path).map_err(|error| problem(error.to_string()))
        }
        Ok(output) => Err(problem(format!(
            "mkfs.ext4 {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        ))),
        Err(error) => Err(problem(format!("mkfs.ext4: {error}"))),
    };
    if made.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    made.map(|()| path)
}

/// Copies the data of `source` and leaves its holes out.
fn copy_sparsely(source: &File, target: &File) -> io::Result<()> {
    let size = source.metadata()?.len();
    target.set_len(size)?;
    let mut buffer = vec![0; COPY_BUFFER_BYTES];
    let mut position: i64 = 0;
    loop {
        let start = match lseek(source, position, Whence::SeekData) {
            Ok(start) => start,
            Err(nix::errno::Errno::ENXIO) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let end = lseek(source, start, Whence::SeekHole)?;
        let (mut at, end_at) = (start as u64, end as u64);
        while at < end_at {
            let wanted = buffer.len().min((end_at - at) as usize);
            source.read_exact_at(&mut buffer[..wanted], at)?;
            target.write_all_at(&buffer[..wanted], at)?;
            at += wanted as u64;
        }
        position = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn scratch_disks_are_whole_filesystems_that_take_little_space() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a.img", "b.img"] {
            let path = dir.path().join(name);
            create(&path, 64).unwrap();
            let metadata = std::fs::metadata(&path).unwrap();
            assert_eq!(metadata.len(), 64 << 20);
            assert!(
                metadata.blocks() * 512 < 16 << 20,
                "{} blocks",
                metadata.blocks()
            );
            let check = std::process::Command::new("e2fsck")
                .arg("-fn")
                .arg(&path)
                .output()
                .unwrap();
            assert!(
                check.status.success(),
                "{}",
                String::from_utf8_lossy(&check.stdout)
            );
        }
        let leftovers = std::fs::read_dir(dir.path())
            .unwrap()
            .filter(|entry| entry.as_ref().unwrap().path().extension().unwrap() == "tmp")
            .count();
        assert_eq!(leftovers, 0);
    }
}
