//! One request (virtio 1.2 §5.2.6): a 16-byte header, data, and a status byte.

use super::backing::Backing;
use super::device::SECTOR_BYTES;
use super::metrics::BlockMetrics;
use crate::memory::GuestMemory;
use crate::virtio::{Chain, QueueError};

const HEADER_BYTES: usize = 16;
const TYPE_IN: u32 = 0;
const TYPE_OUT: u32 = 1;
const TYPE_FLUSH: u32 = 4;
const TYPE_GET_ID: u32 = 8;
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
