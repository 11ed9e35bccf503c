//! A store in a file, whatever engine it comes from or goes to ([`super::format`]).

use std::{
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
};

use super::{
    Progress, Step, TransferError, Transferred,
    copy::{Importer, Pages},
    file_error,
    format::{Input, Output},
    staged::Staged,
};
use crate::{Revision, Store};

/// Writes every key, at one revision, into a new file; the file appears when it is whole and on
/// disk. Others may write to the store meanwhile.
///
/// # Errors
/// When the store or the file fails, or the file exists.
pub async fn back_up(
    source: &dyn Store,
    path: &Path,
    progress: &mut (dyn FnMut(Progress) + Send),
) -> Result<Transferred, TransferError> {
    let staged = Staged::create(path)?;
    let failed = |source| file_error(path, "writing it", source);
    let done = write_all(source, staged.file(), &failed, progress).await?;
    staged.finish()?;
    Ok(done)
}

/// Writes every key, at one revision.
pub(super) async fn write_all(
    source: &dyn Store,
    to: impl Write,
    failed: &(dyn Fn(io::Error) -> TransferError + Sync),
    progress: &mut (dyn FnMut(Progress) + Send),
) -> Result<Transferred, TransferError> {
    let mut pages = Pages::new(source);
    let mut page = pages.next().await.map_err(TransferError::Source)?;
    let revision = pages.revision.unwrap_or(0);
    let mut out = Output::begin(to, revision).map_err(failed)?;
    while !page.is_empty() {
        for pair in page {
            out.pair(&pair.key, &pair.value).map_err(failed)?;
        }
        progress(Progress {
            step: Step::Copy,
            done: out.keys,
            total: out.keys + pages.remaining,
        });
        page = match pages.next().await {
            Ok(page) => page,
            Err(error) => {
                out.give_up(&error.to_string()).map_err(failed)?;
                return Err(TransferError::Source(error));
            }
        };
    }
    let (keys, bytes) = (out.keys, out.bytes);
    out.end().map_err(failed)?;
    Ok(Transferred {
        keys,
        bytes,
        revision,
    })
}

/// A backup that was read to its end and found whole.
#[derive(Debug)]
pub struct Backup {
    path: PathBuf,
    /// The store's revision when it was made.
    pub revision: Revision,
    /// Number of keys.
    pub keys: u64,
}

impl Backup {
    /// Reads the file and checks its sum.
    ///
    /// # Errors
    /// When it cannot be read or is not whole.
    pub fn open(path: &Path) -> Result<Self, TransferError> {
        let mut input = open(path)?;
        let mut keys = 0;
        while input.next()?.is_some() {
            keys += 1;
        }
        input.check_end(keys)?;
        Ok(Backup {
            path: path.to_owned(),
            revision: input.revision,
            keys,
        })
    }
}

fn open(path: &Path) -> Result<Input<File>, TransferError> {
    let file = File::open(path).map_err(|source| file_error(path, "opening it", source))?;
    Input::begin(file, path)
}

/// Writes every key of a backup into an empty store.
///
/// # Errors
/// When the store or the file fails, or the store has keys.
pub async fn restore(
    backup: &Backup,
    target: &dyn Store,
    progress: &mut (dyn FnMut(Progress) + Send),
) -> Result<Transferred, TransferError> {
    let mut importer = Importer::new(target).await?;
    let mut input = open(&backup.path)?;
    let mut told = 0;
    while let Some((key, value)) = input.next()? {
        importer.put(key, value).await?;
        if importer.keys != told {
            told = importer.keys;
            progress(Progress {
                step: Step::Copy,
                done: told,
                total: backup.keys,
            });
        }
    }
    importer.flush().await?;
    input.check_end(importer.keys)?;
    Ok(Transferred {
        keys: importer.keys,
        bytes: importer.bytes,
        revision: backup.revision,
    })
}
