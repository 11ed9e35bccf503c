//! The form of a backup, in a file and on a socket.
//!
//! ```text
//! "HULL STORE BACKUP 1\n"
//! revision          u64, big endian, as all numbers
//! for each key      length u32, key, length u32, value; in key order
//! end               u32::MAX, number of keys u64
//! SHA-256 of all that
//! ```
//!
//! Where a key's length would be, `u32::MAX - 1` says that the writer gave up; its reason
//! follows, up to the end.

use std::{
    io::{self, BufReader, BufWriter, Read, Write},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::{TransferError, file_error};
use crate::Revision;

const MAGIC: &[u8] = b"HULL STORE BACKUP 1\n";
/// In place of a key's length: that was all.
const END: u32 = u32::MAX;
/// In place of a key's length: the writer gave up.
const GAVE_UP: u32 = u32::MAX - 1;
/// Largest key or value that a backup may have; a damaged length must not take all memory.
const MAX_PART_BYTES: u32 = 256 << 20;
/// Longest reason of a writer that gave up which is shown, in bytes.
const MAX_REASON_BYTES: u64 = 4 << 10;

/// Writes a backup.
pub(super) struct Output<W: Write> {
    out: Summed<BufWriter<W>>,
    pub keys: u64,
    /// Bytes of keys and values.
    pub bytes: u64,
}

impl<W: Write> Output<W> {
    pub(super) fn begin(to: W, revision: Revision) -> io::Result<Self> {
        let mut out = Summed::new(BufWriter::new(to));
        out.write_all(MAGIC)?;
        out.write_all(&revision.to_be_bytes())?;
        Ok(Output {
            out,
            keys: 0,
            bytes: 0,
        })
    }

    pub(super) fn pair(&mut self, key: &str, value: &[u8]) -> io::Result<()> {
        for part in [key.as_bytes(), value] {
            let length = u32::try_from(part.len()).ok();
            let length = length.filter(|length| *length <= MAX_PART_BYTES);
            let length = length.ok_or_else(|| io::Error::other("a part is too large"))?;
            self.out.write_all(&length.to_be_bytes())?;
            self.out.write_all(part)?;
        }
        self.keys += 1;
        self.bytes += (key.len() + value.len()) as u64;
        Ok(())
    }

    /// Tells the reader that this is no whole backup, and why.
    pub(super) fn give_up(mut self, reason: &str) -> io::Result<()> {
        self.out.write_all(&GAVE_UP.to_be_bytes())?;
        self.out.write_all(reason.as_bytes())?;
        self.out.inner.flush()
    }

    pub(super) fn end(mut self) -> io::Result<W> {
        self.out.write_all(&END.to_be_bytes())?;
        self.out.write_all(&self.keys.to_be_bytes())?;
        let sum = self.out.sum();
        let mut inner = self.out.inner;
        inner.write_all(&sum)?;
        inner.into_inner().map_err(io::IntoInnerError::into_error)
    }
}

/// Reads a backup and checks it.
pub(super) struct Input<R> {
    name: PathBuf,
    input: Summed<BufReader<R>>,
    pub revision: Revision,
}

impl<R: Read> Input<R> {
    /// `name` is the file's, or the socket's, in errors.
    pub(super) fn begin(from: R, name: &Path) -> Result<Self, TransferError> {
        let mut input = Input {
            name: name.to_owned(),
            input: Summed::new(BufReader::new(from)),
            revision: 0,
        };
        let mut magic = [0; MAGIC.len()];
        input.fill(&mut magic)?;
        if magic != MAGIC {
            return Err(input.damaged("it is no backup of a store, or of a newer kind"));
        }
        let mut revision = [0; 8];
        input.fill(&mut revision)?;
        input.revision = Revision::from_be_bytes(revision);
        Ok(input)
    }

    /// The next key and its value; none: that was the last, [`Input::check_end`] comes next.
    pub(super) fn next(&mut self) -> Result<Option<(String, Bytes)>, TransferError> {
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
        match u32::from_be_bytes(length) {
            END => Ok(None),
            GAVE_UP => Err(self.gave_up()),
            length if length > MAX_PART_BYTES => Err(self.damaged("a length is out of bounds")),
            length => {
                let mut part = vec![0; length as usize];
                self.fill(&mut part)?;
                Ok(Some(part))
            }
        }
    }

    /// Checks that all `keys` were there, the sum, and that nothing follows.
    pub(super) fn check_end(&mut self, keys: u64) -> Result<(), TransferError> {
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
            Err(source) => Err(file_error(&self.name, "reading it", source)),
        }
    }

    fn fill(&mut self, part: &mut [u8]) -> Result<(), TransferError> {
        match self.input.read_exact(part) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Err(self.damaged("it ends too early"))
            }
            // A socket with a time-out.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                Err(self.damaged("no more of it comes"))
            }
            Err(source) => Err(file_error(&self.name, "reading it", source)),
        }
    }

    fn gave_up(&mut self) -> TransferError {
        let mut reason = Vec::new();
        let mut rest = (&mut self.input.inner).take(MAX_REASON_BYTES);
        // What came of it is shown, whatever ended it.
        let _ = rest.read_to_end(&mut reason);
        TransferError::GaveUp {
            name: self.name.clone(),
            reason: String::from_utf8_lossy(&reason).into_owned(),
        }
    }

    fn damaged(&self, reason: &'static str) -> TransferError {
        TransferError::Damaged {
            path: self.name.clone(),
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
}

impl<T: Write> Summed<T> {
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
