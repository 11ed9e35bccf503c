//! A store in a file, whatever engine it comes from or goes to.
//!
//! ```text
//! "HULL STORE BACKUP 1\n"
//! revision          u64, big endian, as all numbers
//! for each key      length u32, key, length u32, value; in key order
//! end               u32::MAX, number of keys u64
//! SHA-256 of all that
//! ```

use std::{
    fs::{File, OpenOptions},
    io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write as _},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::{
    Progress, Step, TransferError, Transferred,
    copy::{Importer, Pages},
};
use crate::{Revision, Store};

const MAGIC: &[u8] = b"HULL STORE BACKUP 1\n";
/// Where a key's length would be.
const END: u32 = u32::MAX;
/// Largest key or value that a backup may have; a damaged length must not take all memory.
const MAX_PART_BYTES: u32 = 256 << 20;
/// A backup holds secrets.
const FILE_MODE: u32 = 0o600;

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
    let failed = |doing| move |source| file_error(path, doing, source);
    if path.exists() {
        let error = io::Error::from(io::ErrorKind::AlreadyExists);
        return Err(file_error(path, "creating it", error));
    }
    let mut staged = path.as_os_str().to_owned();
    staged.push(".partial");
    let staged = PathBuf::from(staged);
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(FILE_MODE)
        .open(&staged)
        .map_err(failed("creating it"))?;
    let written = write_all(source, file, path, progress).await;
    if written.is_err() {
        let _ = std::fs::remove_file(&staged);
        return written;
    }
    std::fs::rename(&staged, path).map_err(failed("naming it"))?;
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))
        .and_then(|folder| folder.sync_all())
        .map_err(failed("syncing its folder"))?;
    written
}

async fn write_all(
    source: &dyn Store,
    file: File,
    path: &Path,
    progress: &mut (dyn FnMut(Progress) + Send),
) -> Result<Transferred, TransferError> {
    let failed = |source| file_error(path, "writing it", source);
    let mut out = Summed::new(BufWriter::new(file));
    out.write_all(MAGIC).map_err(failed)?;
    let mut pages = Pages::new(source);
    let (mut keys, mut bytes, mut first) = (0_u64, 0_u64, true);
    loop {
        let page = pages.next().await.map_err(TransferError::Source)?;
        if first {
            let revision = pages.revision.unwrap_or(0);
            out.write_all(&revision.to_be_bytes()).map_err(failed)?;
            first = false;
        }
        if page.is_empty() {
            break;
        }
        for pair in page {
            keys += 1;
            bytes += (pair.key.len() + pair.value.len()) as u64;
            for part in [pair.key.as_bytes(), &pair.value] {
                let length = u32::try_from(part.len()).unwrap_or(END);
                out.write_all(&length.to_be_bytes()).map_err(failed)?;
                out.write_all(part).map_err(failed)?;
            }
        }
        progress(Progress {
            step: Step::Copy,
            done: keys,
            total: keys + pages.remaining,
        });
    }
    out.write_all(&END.to_be_bytes()).map_err(failed)?;
    out.write_all(&keys.to_be_bytes()).map_err(failed)?;
    let (mut inner, sum) = out.finish();
    inner.write_all(&sum).map_err(failed)?;
    let file = inner
        .into_inner()
        .map_err(|error| failed(error.into_error()))?;
    file.sync_all().map_err(failed)?;
    Ok(Transferred {
        keys,
        bytes,
        revision: pages.revision.unwrap_or(0),
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
        let mut reader = Reader::open(path)?;
        let mut keys = 0;
        while reader.next()?.is_some() {
            keys += 1;
        }
        reader.check_end(keys)?;
        Ok(Backup {
            path: path.to_owned(),
            revision: reader.revision,
            keys,
        })
    }
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
    let mut reader = Reader::open(&backup.path)?;
    let mut told = 0;
    while let Some((key, value)) = reader.next()? {
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
    reader.check_end(importer.keys)?;
    Ok(Transferred {
        keys: importer.keys,
        bytes: importer.bytes,
        revision: backup.revision,
    })
}

struct Reader {
    path: PathBuf,
    input: Summed<BufReader<File>>,
    revision: Revision,
}

impl Reader {
    fn open(path: &Path) -> Result<Self, TransferError> {
        let mut file = File::open(path).map_err(|source| file_error(path, "opening it", source))?;
        file.seek(SeekFrom::Start(0))
            .map_err(|source| file_error(path, "reading it", source))?;
        let mut reader = Reader {
            path: path.to_owned(),
            input: Summed::new(BufReader::new(file)),
            revision: 0,
        };
        let mut magic = [0; MAGIC.len()];
        reader.fill(&mut magic)?;
        if magic != MAGIC {
            return Err(reader.damaged("it is no backup of a store, or of a newer kind"));
        }
        let mut revision = [0; 8];
        reader.fill(&mut revision)?;
        reader.revision = Revision::from_be_bytes(revision);
        Ok(reader)
    }

    fn next(&mut self) -> Result<Option<(String, Bytes)>, TransferError> {
        let Some(key) = self.part()? else {
            return Ok(None);
        };
        let key = String::from_utf8(key).map_err(|_| self.damaged("a key is no text"))?;
        let value = self.part()?;
        let value = value.ok_or_else(|| self.damaged("the last key has no value"))?;
        Ok(Some((key, Bytes::from(value))))
    }

    fn part(&mut self) -> Result<Option<Vec<u8>>, TransferError> {
        let mut length = [0; 4];
        self.fill(&mut length)?;
        let length = u32::from_be_bytes(length);
        if length == END {
            return Ok(None);
        }
        if length > MAX_PART_BYTES {
            return Err(self.damaged("a length is out of bounds"));
        }
        let mut part = vec![0; length as usize];
        self.fill(&mut part)?;
        Ok(Some(part))
    }

    fn check_end(&mut self, keys: u64) -> Result<(), TransferError> {
        let mut counted = [0; 8];
        self.fill(&mut counted)?;
        if u64::from_be_bytes(counted) != keys {
            return Err(self.damaged("keys are missing"));
        }
        let sum = self.input.sum();
        let mut stored = [0; 32];
        self.fill(&mut stored)?;
        if stored != sum {
            return Err(self.damaged("its SHA-256 does not match"));
        }
        match self.input.inner.read(&mut [0]) {
            Ok(0) => Ok(()),
            Ok(_) => Err(self.damaged("there is more after its end")),
            Err(source) => Err(file_error(&self.path, "reading it", source)),
        }
    }

    fn fill(&mut self, part: &mut [u8]) -> Result<(), TransferError> {
        match self.input.read_exact(part) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Err(self.damaged("it ends too early"))
            }
            Err(source) => Err(file_error(&self.path, "reading it", source)),
        }
    }

    fn damaged(&self, reason: &'static str) -> TransferError {
        TransferError::Damaged {
            path: self.path.clone(),
            reason,
        }
    }
}

/// Sums what passes.
struct Summed<T> {
    inner: T,
    hash: Sha256,
}

impl<T> Summed<T> {
    fn new(inner: T) -> Self {
        Summed {
            inner,
            hash: Sha256::new(),
        }
    }

    fn sum(&self) -> [u8; 32] {
        self.hash.clone().finalize().into()
    }

    fn finish(self) -> (T, [u8; 32]) {
        let sum = self.sum();
        (self.inner, sum)
    }
}

impl<T: io::Write> Summed<T> {
    fn write_all(&mut self, part: &[u8]) -> io::Result<()> {
        self.hash.update(part);
        self.inner.write_all(part)
    }
}

impl<T: Read> Summed<T> {
    fn read_exact(&mut self, part: &mut [u8]) -> io::Result<()> {
        self.inner.read_exact(part)?;
        self.hash.update(part);
        Ok(())
    }
}

fn file_error(path: &Path, doing: &'static str, source: io::Error) -> TransferError {
    TransferError::File {
        path: path.to_owned(),
        doing,
        source,
    }
}
