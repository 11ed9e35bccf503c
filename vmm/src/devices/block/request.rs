//! One request (virtio 1.2 §5.2.6): a 16-byte header, data, and a status byte.

use super::backing::{Backing, Emptying};
use super::device::SECTOR_BYTES;
use super::metrics::BlockMetrics;
use crate::memory::GuestMemory;
use crate::virtio::{Chain, QueueError};

const HEADER_BYTES: usize = 16;
const TYPE_IN: u32 = 0;
const TYPE_OUT: u32 = 1;
const TYPE_FLUSH: u32 = 4;
const TYPE_GET_ID: u32 = 8;
const TYPE_DISCARD: u32 = 11;
const TYPE_WRITE_ZEROES: u32 = 13;
/// Ranges of one discard or write-zeroes request.
pub const RANGES_MAX: u32 = 64;
/// Sectors of one range: 1 GiB.
pub const RANGE_MAX_SECTORS: u32 = 1 << 21;
/// Bytes of a range: first sector, number of sectors, flags (virtio 1.2 §5.2.6).
const RANGE_BYTES: usize = 16;
/// The space of a range that is written with zeroes may be given back.
const RANGE_UNMAP: u32 = 1;
/// Bytes of the serial number.
pub const SERIAL_BYTES: usize = 20;

/// Status byte of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    /// Done.
    Ok = 0,
    /// Failed.
    IoError = 1,
    /// Not a request that this device knows.
    Unsupported = 2,
}

/// What a request is carried out on.
pub struct Target<'a> {
    pub backing: Option<&'a Backing>,
    pub read_only: bool,
    pub serial: &'a str,
    pub metrics: &'a BlockMetrics,
}

impl Target<'_> {
    /// Carries out a request; returns the bytes written into the chain.
    pub fn execute(&self, memory: &GuestMemory, chain: &Chain) -> Result<u32, QueueError> {
        let mut header = [0; HEADER_BYTES];
        if !chain.readable.copy_out(memory, 0, &mut header)? {
            return Err(QueueError::TooShort("disk request header"));
        }
        let Some(room) = chain.writable.len().checked_sub(1) else {
            return Err(QueueError::TooShort("disk request status"));
        };
        let kind = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
        let sector = header[8..]
            .iter()
            .rev()
            .fold(0u64, |value, byte| value << 8 | u64::from(*byte));
        let (status, filled) = match kind {
            TYPE_IN => self.read(memory, chain, sector, room)?,
            TYPE_OUT => (self.write(memory, chain, sector)?, 0),
            TYPE_FLUSH => (self.flush(), 0),
            TYPE_DISCARD | TYPE_WRITE_ZEROES => {
                let discard = kind == TYPE_DISCARD;
                (self.empty(memory, chain, discard)?, 0)
            }
            TYPE_GET_ID => {
                let mut id = [0; SERIAL_BYTES];
                let length = self.serial.len().min(SERIAL_BYTES);
                id[..length].copy_from_slice(&self.serial.as_bytes()[..length]);
                let count = chain
                    .writable
                    .copy_in(memory, 0, &id[..SERIAL_BYTES.min(room)])?;
                (Status::Ok, count)
            }
            _ => (Status::Unsupported, 0),
        };
        if status != Status::Ok {
            self.metrics.errors.add(1);
        }
        chain.writable.copy_in(memory, room, &[status as u8])?;
        Ok(filled as u32 + 1)
    }

    fn read(
        &self,
        memory: &GuestMemory,
        chain: &Chain,
        sector: u64,
        room: usize,
    ) -> Result<(Status, usize), QueueError> {
        self.metrics.reads.add(1);
        let Some((backing, offset)) = self.place(sector, room) else {
            return Ok((Status::IoError, 0));
        };
        let mut vectors = chain.writable.io_vectors(memory, 0, room)?;
        Ok(match backing.transfer(false, offset, &mut vectors) {
            Ok(bytes) => {
                self.metrics.read_bytes.add(bytes);
                (Status::Ok, room)
            }
            Err(_) => (Status::IoError, 0),
        })
    }

    fn write(
        &self,
        memory: &GuestMemory,
        chain: &Chain,
        sector: u64,
    ) -> Result<Status, QueueError> {
        self.metrics.writes.add(1);
        if self.read_only {
            return Ok(Status::IoError);
        }
        let length = chain.readable.len() - HEADER_BYTES;
        let Some((backing, offset)) = self.place(sector, length) else {
            return Ok(Status::IoError);
        };
        let mut vectors = chain.readable.io_vectors(memory, HEADER_BYTES, length)?;
        Ok(match backing.transfer(true, offset, &mut vectors) {
            Ok(bytes) => {
                self.metrics.written_bytes.add(bytes);
                Status::Ok
            }
            Err(_) => Status::IoError,
        })
    }

    /// Discards ranges, or writes zeroes to them.
    fn empty(
        &self,
        memory: &GuestMemory,
        chain: &Chain,
        discard: bool,
    ) -> Result<Status, QueueError> {
        let length = chain.readable.len() - HEADER_BYTES;
        let counts = 1..=RANGES_MAX as usize;
        if self.read_only
            || !length.is_multiple_of(RANGE_BYTES)
            || !counts.contains(&(length / RANGE_BYTES))
        {
            return Ok(Status::IoError);
        }
        for index in 0..length / RANGE_BYTES {
            let mut range = [0; RANGE_BYTES];
            let at = HEADER_BYTES + index * RANGE_BYTES;
            if !chain.readable.copy_out(memory, at, &mut range)? {
                return Err(QueueError::TooShort("disk range"));
            }
            let status = self.empty_range(&range, discard);
            if status != Status::Ok {
                return Ok(status);
            }
        }
        Ok(Status::Ok)
    }

    fn empty_range(&self, range: &[u8; RANGE_BYTES], discard: bool) -> Status {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = *range;
        let sector = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
        let sectors = u32::from_le_bytes([i, j, k, l]);
        let flags = u32::from_le_bytes([m, n, o, p]);
        // A discard with the unmap flag is to be refused as unsupported (virtio 1.2 §5.2.6.2).
        if flags & !RANGE_UNMAP != 0 || discard && flags != 0 {
            return Status::Unsupported;
        }
        let bytes = u64::from(sectors) * SECTOR_BYTES;
        let Some((backing, offset)) = self
            .backing
            .filter(|_| (1..=RANGE_MAX_SECTORS).contains(&sectors))
            .and_then(|backing| Some((backing, backing.offset(sector, bytes)?)))
        else {
            return Status::IoError;
        };
        let how = if discard || flags & RANGE_UNMAP != 0 {
            self.metrics.discarded_bytes.add(bytes);
            Emptying::Discard
        } else {
            Emptying::Zero
        };
        match backing.empty(how, offset, bytes) {
            Ok(()) => Status::Ok,
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Status::Unsupported,
            Err(_) => Status::IoError,
        }
    }

    fn flush(&self) -> Status {
        self.metrics.flushes.add(1);
        match self.backing {
            Some(backing) if self.read_only || backing.flush().is_ok() => Status::Ok,
            _ => Status::IoError,
        }
    }

    fn place(&self, sector: u64, bytes: usize) -> Option<(&Backing, u64)> {
        let backing = self.backing?;
        if !(bytes as u64).is_multiple_of(SECTOR_BYTES) {
            return None;
        }
        Some((backing, backing.offset(sector, bytes as u64)?))
    }
}
